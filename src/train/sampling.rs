//! Samples of a model: for a file, for a run that wants its reference's, for a look at a terminal.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::open::{Model, check_length, dtype};
use super::reference::{cache_folder, reference_folder};
use super::{Event, Observer, device};
use crate::config::{Config, SamplingConfig};
use crate::data::{DataConfig, Prompt, Tokenizer, prompts};
use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::model::weights::ModelFolder;
use crate::sample::{Drawn, Sampler, Written};

/// Draws responses to the prompts of a config into the file `out`, going on with what it has
/// unless `overwrite`.
pub fn sample_run(
    config: &SamplingConfig,
    out: &Path,
    overwrite: bool,
    observe: Observer,
) -> Result<Written> {
    let opened = Model::open(&config.model, observe)?;
    check_length(config.data.max_length, opened.folder.arch.max_positions)?;
    let prompts = prompts_of(&config.data, &opened.tokenizer, observe)?;
    write(config, &opened, &prompts, out, overwrite, observe)
}

/// Draws responses to prompts, which may be as long as the model can hold, into the file `out`.
/// `data.max_length` is what the model can hold if that is less.
pub fn sample_prompts(
    mut config: SamplingConfig,
    out: &Path,
    overwrite: bool,
    observe: Observer,
) -> Result<Written> {
    let opened = Model::open(&config.model, observe)?;
    let prompts = prompts_of(&config.data, &opened.tokenizer, observe)?;
    let positions = opened.folder.arch.max_positions;
    config.data.max_length = config.data.max_length.min(positions);
    write(&config, &opened, &prompts, out, overwrite, observe)
}

fn write(
    config: &SamplingConfig,
    opened: &Model,
    prompts: &[Prompt],
    out: &Path,
    overwrite: bool,
    observe: Observer,
) -> Result<Written> {
    let device = device::open(&config.model.device).map_err(|e| e.at("model.device"))?;
    let (model, hash) = opened.folder.load(dtype(config.model.dtype), &device)?;
    let length = config.data.max_length;
    let sampler = Sampler::new(&model, &hash, &opened.tokenizer, &config.sample, length);
    sampler.write(prompts, out, overwrite, |done, total, tokens| {
        observe(Event::Sampling {
            done,
            total,
            tokens,
        });
    })
}

/// Answers one prompt; `text` is told of each piece as soon as it is drawn, with the number of its
/// response.
pub fn sample_text(
    config: &SamplingConfig,
    prompt: &str,
    observe: Observer,
    mut text: impl FnMut(usize, &str),
) -> Result<Vec<Drawn>> {
    let opened = Model::open(&config.model, observe)?;
    let tokenizer = &opened.tokenizer;
    let prompt = prompts::of_text(prompt, &config.data, tokenizer)?;
    let device = device::open(&config.model.device).map_err(|e| e.at("model.device"))?;
    let (model, hash) = opened.folder.load(dtype(config.model.dtype), &device)?;
    let length = config.data.max_length.min(opened.folder.arch.max_positions);
    let sampler = Sampler::new(&model, &hash, tokenizer, &config.sample, length);
    let streams = (0..config.sample.num_samples).map(|_| tokenizer.stream(&prompt.ids));
    let mut streams = streams.collect::<Result<Vec<_>>>()?;
    let mut failed = Ok(());
    let drawn = sampler.stream(&prompt, |number, id| {
        match (tokenizer.ends().contains(&id), streams[number].push(id)) {
            (false, Ok(Some(piece))) => text(number, &piece),
            (_, Err(error)) => failed = Err(error),
            _ => {}
        }
    })?;
    failed.map(|()| drawn)
}

/// The sample file of a run that has its samples drawn: found among those kept from earlier runs,
/// else drawn from the reference.
pub(super) fn drawn_for_run(
    config: &Config,
    policy: &ModelFolder,
    tokenizer: &Tokenizer,
    observe: Observer,
) -> Result<PathBuf> {
    let settings = config.sample.clone().unwrap_or_default();
    let prompts = prompts_of(&config.data, tokenizer, observe)?;
    let reference = reference_folder(config, observe)?;
    let folder = reference.as_ref().unwrap_or(policy);
    let device = device::open(&config.model.device).map_err(|e| e.at("model.device"))?;
    let (model, hash) = folder.load(dtype(config.model.dtype), &device)?;
    let sampler = Sampler::new(&model, &hash, tokenizer, &settings, config.data.max_length);
    let mut name = Sha256::new();
    name.update(sampler.draw());
    name.update(settings.num_samples.to_le_bytes());
    for prompt in &prompts {
        name.update((prompt.text.len() as u64).to_le_bytes());
        name.update(&prompt.text);
    }
    let folder = cache_folder(config)?;
    std::fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, &error))?;
    let path = folder.join(format!("samples-{:.32}.jsonl", format!("{:x}", name.finalize())));
    sampler.write(&prompts, &path, false, |done, total, tokens| {
        observe(Event::Sampling {
            done,
            total,
            tokens,
        });
    })?;
    observe(Event::SamplesKept(&path));
    Ok(path)
}

/// The different prompts of all rows of a config, in order.
fn prompts_of(
    data: &DataConfig,
    tokenizer: &Tokenizer,
    observe: Observer,
) -> Result<Vec<Prompt>> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    let files = [Some(&data.train), data.eval.as_ref(), data.unlabelled.as_ref()];
    for files in files.into_iter().flatten() {
        let prompts = prompts::prompts(files, data, tokenizer)?;
        all.extend(prompts.into_iter().filter(|prompt| seen.insert(prompt.text.clone())));
    }
    observe(Event::Prompts {
        prompts: all.len(),
        cut: all.iter().filter(|prompt| prompt.cut).count(),
    });
    Ok(all)
}
