//! Samples of a model: for a file, or for a look at a terminal.

use std::collections::HashSet;
use std::path::Path;

use super::{Drawn, Existing, Reference, Sampler, Written, write_alpaca_eval};
use crate::config::SamplingConfig;
use crate::data::{DataConfig, Files, Prompt, Tokenizer, prompts};
use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::model::weights::ModelFolder;
use crate::session::{
    Event, Observer, Session, StopCondition, check_length, find_model, unlabelled,
};

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
    pub until: &'a StopCondition,
}

/// Draws responses to the prompts of a config.
pub fn sample_run(config: &SamplingConfig, target: &Target, observe: Observer) -> Result<Written> {
    let session = Session::open(&config.model, observe)?;
    check_length(config.data.max_length, session.folder.arch.max_positions)?;
    let prompts = prompts_of(config, &session.tokenizer, observe)?;
    draw(config, &session, &prompts, target, observe)
}

/// As [`sample_run`], of prompts that may be as long as the model can hold: `data.max_length` is
/// that if it is less.
pub fn sample_prompts(
    mut config: SamplingConfig,
    target: &Target,
    observe: Observer,
) -> Result<Written> {
    let session = Session::open(&config.model, observe)?;
    let prompts = prompts_of(&config, &session.tokenizer, observe)?;
    let positions = session.folder.arch.max_positions;
    config.data.max_length = config.data.max_length.min(positions);
    draw(&config, &session, &prompts, target, observe)
}

fn draw(
    config: &SamplingConfig,
    session: &Session,
    prompts: &[Prompt],
    target: &Target,
    observe: Observer,
) -> Result<Written> {
    let second = match target.reference {
        Some((name, revision)) => {
            let path =
                find_model(name, revision, observe).map_err(|error| error.at("model.reference"))?;
            Some(ModelFolder::open(&path)?)
        }
        None => None,
    };
    if let Some(folder) = &second {
        session.check_same_tokens(folder)?;
        let (limit, most) = (config.data.max_length, config.sample.max_new_tokens);
        let whole = |prompt: &Prompt| limit.min(prompt.ids.len() + most);
        let (longest, positions) = (prompts.iter().map(whole).max(), folder.arch.max_positions);
        if let Some(longest) = longest.filter(|&longest| longest > positions) {
            let what = format!("a prompt with its response may have {longest} tokens");
            return Err(Error::input(what)
                .hint(format!("the reference was made for {positions}"))
                .at("--reference"));
        }
    }
    let source = Source::load(config, session, observe)?;
    let second = second
        .map(|folder| session.compute.load(&folder))
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
    let session = Session::open(&config.model, observe)?;
    let tokenizer = &session.tokenizer;
    let prompt = Prompt::of_text(prompt, "--prompt", &config.data, tokenizer)?;
    let positions = session.folder.arch.max_positions;
    config.data.max_length = config.data.max_length.min(positions);
    let source = Source::load(&config, &session, observe)?;
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

/// A loaded model to draw from.
pub(super) struct Source<'a> {
    config: &'a SamplingConfig,
    tokenizer: &'a Tokenizer,
    model: Decoder,
    /// The model's content hash.
    pub hash: String,
}

impl<'a> Source<'a> {
    /// The model of a config, or its reference.
    pub fn load(
        config: &'a SamplingConfig,
        session: &'a Session,
        observe: Observer,
    ) -> Result<Self> {
        let reference = session.reference(observe)?;
        if let Some(reference) = reference {
            session.check_same_tokens(reference)?;
            check_length(config.data.max_length, reference.arch.max_positions)?;
        }
        let folder = reference.unwrap_or(&session.folder);
        let (model, hash) = session.compute.load(folder)?;
        Ok(Self {
            config,
            tokenizer: &session.tokenizer,
            model,
            hash,
        })
    }

    pub fn sampler(&self) -> Sampler<'_> {
        let SamplingConfig { data, sample, .. } = self.config;
        let (model, tokenizer) = (&self.model, self.tokenizer);
        Sampler::new(model, &self.hash, tokenizer, sample, data.max_length)
    }
}

/// Writes the file, reports how far it is, and stops where it is told to.
pub(super) fn write(
    sampler: &Sampler,
    prompts: &[Prompt],
    out: &Path,
    existing: Existing,
    until: &StopCondition,
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
pub(super) fn prompts_of(
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
