//! The datasets of a training run, whose samples may have to be drawn first.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::Existing;
use super::task::{Source, length_limit, prompts_of, write};
use crate::config::{Config, SampleSource, SamplingConfig};
use crate::data::Dataset;
use crate::error::Result;
use crate::io::output::Output;
use crate::loss::Role;
use crate::score::{cache_folder, check_is_known};
use crate::session::{Event, Observer, Session, StopCondition};

/// The datasets of a run: `train`, then `eval` and `unlabelled` where there are any. Samples that the
/// run is to draw are drawn first, if the loss reads them.
pub fn run_datasets(config: &Config, session: &Session, observe: Observer) -> Result<Vec<Dataset>> {
    let needs = config.loss.needs();
    let samples = match &config.data.samples {
        Some(SampleSource::Files(files)) => Some(files.clone()),
        Some(SampleSource::Auto) if needs.all.contains(&Role::Sampled) => {
            Some(drawn(config, session, observe)?.into())
        }
        Some(SampleSource::Auto) | None => None,
    };
    session.datasets(&config.data, samples.as_ref(), &needs, observe)
}

/// The sample file of a run: found among those kept from earlier runs, else drawn from the reference.
fn drawn(config: &Config, session: &Session, observe: Observer) -> Result<PathBuf> {
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
    let folder = cache_folder(config.run.cache_dir.as_deref())?;
    let name = format!("{:x}", name.finalize());
    let path = folder.join(format!("samples-{name:.32}.jsonl"));
    let until = StopCondition::default();
    let out = Output::File(path.clone());
    write(&writer, &prompts, &out, Existing::Cache, &until, observe)?;
    observe(Event::SamplesKept {
        path: &path,
        biased: sampling.sample.is_biased(),
    });
    Ok(path)
}
