//! The datasets of a training run, whose samples may have to be drawn first.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::Existing;
use super::of_ranks::of_ranks;
use super::task::{Source, length_limit, prompts_of, write};
use crate::config::{Config, SampleSource, SamplingConfig};
use crate::data::{Dataset, Files};
use crate::error::Result;
use crate::io::durable::Staging;
use crate::io::output::Output;
use crate::loss::Role;
use crate::score::{cache_directory, check_is_known};
use crate::session::{Event, Observer, Session, StopCondition};

/// The datasets of a run: `train`, then `eval` and `unlabelled` where there are any. Samples that the
/// run is to draw are drawn first, if the loss reads them.
pub fn run_datasets(config: &Config, session: &Session, observe: Observer) -> Result<Vec<Dataset>> {
    let needs = config.loss.needs();
    let samples = match &config.data.samples {
        Some(SampleSource::Files(files)) => Some(files.clone()),
        Some(SampleSource::Auto) if needs.all.contains(&Role::Sampled) => {
            let drawn = drawn(config, session, observe)?;
            let samples = Some(Files::from(drawn.path.clone()));
            // What is in a temporary directory stays until it has been read.
            return session.datasets(
                &config.data,
                config.run.seed,
                samples.as_ref(),
                &needs,
                observe,
            );
        }
        Some(SampleSource::Auto) | None => None,
    };
    session.datasets(
        &config.data,
        config.run.seed,
        samples.as_ref(),
        &needs,
        observe,
    )
}

/// A sample file, and the temporary directory that it is in where there is no cache.
struct DrawnFile {
    path: PathBuf,
    _temporary: Option<Staging>,
}

/// The sample file of a run: found among those kept from earlier runs, else drawn from the reference.
fn drawn(config: &Config, session: &Session, observe: Observer) -> Result<DrawnFile> {
    let sampling = SamplingConfig::of_run(config.clone())?;
    let prompts = prompts_of(&sampling.prompts, &session.tokenizer, observe)?;
    let limit = length_limit(&sampling, session)?;
    let source = Source::load(&sampling, session, limit, observe)?;
    check_is_known(config, &source.hash)?;
    let writer = source.writer();
    let mut name = Sha256::new();
    name.update(sampling.sample.num_samples.to_le_bytes());
    for prompt in &prompts {
        name.update(writer.draw(prompt));
        name.update((prompt.text.len() as u64).to_le_bytes());
        name.update(&prompt.text);
    }
    let name = format!("samples-{:.32}.jsonl", format!("{:x}", name.finalize()));
    let cache = cache_directory(config.run.cache_dir.as_deref()).and_then(|cache| {
        let path = cache.join(&name);
        // Only a write tells whether a directory can be written to.
        Staging::beside(&path)?;
        Ok(path)
    });
    let (path, temporary) = match cache {
        Ok(path) => (path, None),
        Err(error) => {
            let what = format!("{error}; the samples are not kept for another run");
            observe(Event::Warning(&what));
            let temporary = Staging::beside(&std::env::temp_dir().join("expo-samples"))?;
            (temporary.path().join(&name), Some(temporary))
        }
    };
    if session.ranks.size() > 1 {
        of_ranks(&session.ranks, &writer, &prompts, &path, observe)?;
    } else {
        let until = StopCondition::default();
        let out = Output::File(path.clone());
        write(&writer, &prompts, &out, Existing::Cache, &until, observe)?;
    }
    observe(Event::SamplesKept {
        path: &path,
        biased: sampling.sample.is_biased(),
    });
    Ok(DrawnFile {
        path,
        _temporary: temporary,
    })
}
