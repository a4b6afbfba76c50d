//! Samples of a model: for a file, for a run that wants its reference's, for a look at a terminal.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::open::{Model, check_length, check_reference, unlabelled};
use super::reference::{cache_folder, check_is_known, reference_folder};
use super::{Event, Observer, Until};
use crate::config::{Config, ModelConfig, SamplingConfig};
use crate::data::{DataConfig, Files, Prompt, Tokenizer, prompts};
use crate::error::{Error, Result};
use crate::load::load;
use crate::model::Decoder;
use crate::sample::{Drawn, Existing, Reference, Sampler, Written, write_alpaca_eval};

/// Where responses go, and what else is wanted of them.
pub struct Target<'a> {
    /// The file of the responses.
    pub out: &'a Path,
    /// What becomes of it where it is there.
    pub existing: Existing,
    /// A second model, a folder or a name on the hub with a revision, under which they are scored.
    pub reference: Option<(&'a str, Option<&'a str>)>,
    /// A file in AlpacaEval's form, written once all responses are there, and the model's name in it.
    pub alpaca_eval: Option<(&'a Path, &'a str)>,
    /// Stops drawing where it says so; the same call goes on.
    pub until: &'a Until,
}

/// Draws responses to the prompts of a config.
pub fn sample_run(config: &SamplingConfig, target: &Target, observe: Observer) -> Result<Written> {
    let opened = Model::open(&config.model, observe)?;
    check_length(config.data.max_length, opened.folder.arch.max_positions)?;
    let prompts = prompts_of(config, &opened.tokenizer, observe)?;
    draw(config, &opened, &prompts, target, observe)
}

/// As [`sample_run`], of prompts that may be as long as the model can hold: `data.max_length` is
/// that if it is less.
pub fn sample_prompts(
    mut config: SamplingConfig,
    target: &Target,
    observe: Observer,
) -> Result<Written> {
    let opened = Model::open(&config.model, observe)?;
    let prompts = prompts_of(&config, &opened.tokenizer, observe)?;
    config.data.max_length = config.data.max_length.min(opened.folder.arch.max_positions);
    draw(&config, &opened, &prompts, target, observe)
}

fn draw(
    config: &SamplingConfig,
    opened: &Model,
    prompts: &[Prompt],
    target: &Target,
    observe: Observer,
) -> Result<Written> {
    let second = target.reference.map(|(name, revision)| ModelConfig {
        reference: Some(name.to_owned()),
        reference_revision: revision.map(str::to_owned),
        ..config.model.clone()
    });
    let second = match &second {
        Some(second) => reference_folder(second, observe)?,
        None => None,
    };
    if let Some(folder) = &second {
        check_reference(&opened.tokenizer, folder)?;
        let (limit, most) = (config.data.max_length, config.sample.max_new_tokens);
        let whole = |prompt: &Prompt| limit.min(prompt.ids.len() + most);
        let (longest, positions) = (prompts.iter().map(whole).max(), folder.arch.max_positions);
        if let Some(longest) = longest.filter(|&longest| longest > positions) {
            let what = format!("a prompt with its response may have {longest} tokens");
            return Err(Error::input(what)
                .hint(format!("the reference was made for {positions}"))
                .at_parameter("reference"));
        }
    }
    let source = Source::load(config, opened, observe)?;
    let second = second
        .map(|folder| load(&folder, &config.model))
        .transpose()?;
    let mut sampler = source.sampler();
    if let Some((model, hash)) = &second {
        sampler = sampler.with_reference(Reference { model, hash });
    }
    let (out, until) = (target.out, target.until);
    let written = write(&sampler, prompts, out, target.existing, until, observe)?;
    if let (Some((path, generator)), true) =
        (target.alpaca_eval, written.responses == written.total)
    {
        write_alpaca_eval(prompts, out, generator, path)?;
    }
    Ok(written)
}

/// Answers one prompt: the responses with their texts. Where there is to be one, `text` is told of
/// each piece of it as soon as it is drawn.
pub fn sample_text(
    mut config: SamplingConfig,
    prompt: &str,
    observe: Observer,
    mut text: impl FnMut(&str),
) -> Result<Vec<(Drawn, String)>> {
    let opened = Model::open(&config.model, observe)?;
    let tokenizer = &opened.tokenizer;
    let prompt = Prompt::of_text(prompt, "the prompt", &config.data, tokenizer)?;
    let positions = opened.folder.arch.max_positions;
    config.data.max_length = config.data.max_length.min(positions);
    let source = Source::load(&config, &opened, observe)?;
    let sampler = source.sampler();
    let one = config.sample.num_samples == 1;
    let drawn = match one && config.sample.stop.is_empty() {
        true => {
            let mut stream = tokenizer.stream(&prompt.ids)?;
            let mut failed = Ok(());
            let drawn = sampler.stream(&prompt, |_, id| {
                match (tokenizer.ends().contains(&id), stream.push(id)) {
                    (false, Ok(piece)) => text(&piece),
                    (_, Err(error)) => failed = Err(error),
                    _ => {}
                }
            })?;
            failed?;
            text(&stream.finish()?);
            drawn
        }
        // What is drawn may yet turn out to be the beginning of a stop text.
        false => {
            let prompts = std::slice::from_ref(&prompt);
            sampler.all(prompts, &mut |done, total, tokens| {
                observe(Event::Sampling {
                    done,
                    total,
                    tokens,
                });
            })?
        }
    };
    let with_text = |drawn: Drawn| {
        let text = sampler.text(&prompt, &drawn)?;
        Ok((drawn, text))
    };
    let drawn: Vec<(Drawn, String)> = drawn.into_iter().map(with_text).collect::<Result<_>>()?;
    if let (true, false, [(_, whole)]) = (one, config.sample.stop.is_empty(), drawn.as_slice()) {
        text(whole);
    }
    Ok(drawn)
}

/// The sample file of a run that has its samples drawn: found among those kept from earlier runs,
/// else drawn from the reference.
pub(super) fn drawn_for_run(config: &Config, opened: &Model, observe: Observer) -> Result<PathBuf> {
    let sampling = SamplingConfig::of_run(config.clone())?;
    let prompts = prompts_of(&sampling, &opened.tokenizer, observe)?;
    let source = Source::load(&sampling, opened, observe)?;
    check_is_known(config, &source.hash)?;
    let mut name = Sha256::new();
    name.update(sampling.sample.num_samples.to_le_bytes());
    for prompt in &prompts {
        name.update(source.sampler().draw(prompt));
        name.update((prompt.text.len() as u64).to_le_bytes());
        name.update(&prompt.text);
    }
    let folder = cache_folder(config)?;
    std::fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, &error))?;
    let name = format!("{:x}", name.finalize());
    let path = folder.join(format!("samples-{name:.32}.jsonl"));
    let (sampler, cache) = (source.sampler(), Existing::Cache);
    write(&sampler, &prompts, &path, cache, &Until::default(), observe)?;
    observe(Event::SamplesKept {
        path: &path,
        biased: sampling.sample.is_biased(),
    });
    Ok(path)
}

/// A loaded model to draw from.
struct Source<'a> {
    config: &'a SamplingConfig,
    tokenizer: &'a Tokenizer,
    model: Decoder,
    hash: String,
}

impl<'a> Source<'a> {
    /// The model of a config, or its reference.
    fn load(config: &'a SamplingConfig, opened: &'a Model, observe: Observer) -> Result<Self> {
        let reference = reference_folder(&config.model, observe)?;
        if let Some(reference) = &reference {
            check_reference(&opened.tokenizer, reference)?;
            check_length(config.data.max_length, reference.arch.max_positions)?;
        }
        let folder = reference.as_ref().unwrap_or(&opened.folder);
        let (model, hash) = load(folder, &config.model)?;
        Ok(Self {
            config,
            tokenizer: &opened.tokenizer,
            model,
            hash,
        })
    }

    fn sampler(&self) -> Sampler<'_> {
        let SamplingConfig { data, sample, .. } = self.config;
        let (model, tokenizer) = (&self.model, self.tokenizer);
        Sampler::new(model, &self.hash, tokenizer, sample, data.max_length)
    }
}

fn write(
    sampler: &Sampler,
    prompts: &[Prompt],
    out: &Path,
    existing: Existing,
    until: &Until,
    observe: Observer,
) -> Result<Written> {
    let mut progress = |done, total, tokens| {
        observe(Event::Sampling {
            done,
            total,
            tokens,
        });
        until.reached().is_none()
    };
    sampler.write(prompts, out, existing, &mut progress)
}

/// The different prompts of all rows of a config, in order.
fn prompts_of(
    config: &SamplingConfig,
    tokenizer: &Tokenizer,
    observe: Observer,
) -> Result<Vec<Prompt>> {
    let data = &config.data;
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    let mut add = |files: &Files, data: &DataConfig| -> Result<()> {
        let prompts = prompts(files, data, tokenizer)?.into_iter();
        all.extend(prompts.filter(|prompt| seen.insert(prompt.text.clone())));
        Ok(())
    };
    add(&data.train, data)?;
    if let Some(files) = &data.eval {
        add(files, data)?;
    }
    if let Some(files) = &data.unlabelled {
        add(files, &unlabelled(data, files)?)?;
    }
    observe(Event::Prompts {
        prompts: all.len(),
        cut: all.iter().filter(|prompt| prompt.cut).count(),
    });
    Ok(all)
}
