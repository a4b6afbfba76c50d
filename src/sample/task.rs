//! Samples of a model: for a file, or for a look at a terminal.

use std::collections::HashSet;

use super::{Drawn, Existing, Reference, SampleWriter, Sampler, Written, write_alpaca_eval};
use crate::config::{ModelConfig, PromptSource, SamplingConfig};
use crate::data::format::{Columns, Format};
use crate::data::{Files, Prompt, PromptConfig, TokenizeConfig, Tokenizer, read_prompts};
use crate::error::{Error, Result};
use crate::io::output::Output;
use crate::model::Decoder;
use crate::model::sampling::SampleConfig;
use crate::session::{
    Event, Observer, Session, StopCondition, check_length, fetch, find_model, open_model,
};

/// Where responses go, and what else is wanted of them.
pub struct Target<'a> {
    /// The file of the responses, or a stream of them, which cannot be resumed.
    pub out: &'a Output,
    /// What becomes of it where it is there.
    pub existing: Existing,
    /// A second model, a directory or a name on the hub with a revision, under which they are scored.
    pub reference: Option<(&'a str, Option<&'a str>)>,
    /// Where AlpacaEval's form of a file of responses goes once all are there, and the model's name in
    /// it.
    pub alpaca_eval: Option<(&'a Output, &'a str)>,
    /// Stops drawing when it says so; the same call resumes.
    pub until: &'a StopCondition,
}

/// Draws responses to the prompts of a config.
pub fn sample_run(config: &SamplingConfig, target: &Target, observe: Observer) -> Result<Written> {
    let session = Session::open(&config.model, observe)?;
    let session = session.with_chat(&config.prompts.rows.tokens.chat)?;
    // Of a run that goes on with an adapter the reference is that.
    let session = session.with_adapter(config.adapter.as_ref(), 0, observe)?;
    let limit = length_limit(config, &session)?;
    let prompts = prompts_of(&config.prompts, &session.tokenizer, observe)?;
    let second = match target.reference {
        Some((name, revision)) => {
            let path = find_model(name, revision, observe)
                .map_err(|error| error.at_key("model.reference"))?;
            Some(open_model(&path, observe)?)
        }
        None => None,
    };
    if let Some(folder) = &second {
        session.check_same_tokens(folder)?;
        let most = config.sample.max_new_tokens;
        let whole = |prompt: &Prompt| limit.min(prompt.ids.len() + most);
        let (longest, positions) = (
            prompts.iter().map(whole).max(),
            folder.arch.longest_sequence(),
        );
        if let Some(longest) = longest.filter(|&longest| longest > positions) {
            let what = format!("a prompt with its response may have {longest} tokens");
            return Err(Error::input(what)
                .hint(format!("the reference has {positions} positions"))
                .at_parameter("reference"));
        }
    }
    let source = Source::load(config, &session, limit, observe)?;
    let second = second
        .map(|folder| session.compute.load(&folder))
        .transpose()?;
    let mut writer = source.writer();
    if let Some((model, hash)) = &second {
        writer = writer.with_reference(Reference { model, hash });
    }
    let (out, until) = (target.out, target.until);
    let written = write(&writer, &prompts, out, target.existing, until, observe)?;
    if let (Some((alpaca_eval, generator)), true) =
        (target.alpaca_eval, written.responses == written.total)
    {
        write_alpaca_eval(&prompts, out.path(), generator, alpaca_eval)?;
    }
    Ok(written)
}

/// One prompt to answer.
#[derive(Debug, Clone)]
pub struct TextPrompt<'a> {
    /// The model that is drawn from.
    pub model: &'a ModelConfig,
    /// How the prompt becomes tokens.
    pub tokens: TokenizeConfig,
    /// How responses are drawn.
    pub sample: &'a SampleConfig,
    /// The prompt.
    pub text: &'a str,
    /// How messages name it.
    pub place: &'a str,
}

/// Answers one prompt: the responses with their texts. Where there is to be one, `text` is told of
/// each piece of it as soon as it is drawn.
pub fn sample_text(
    asked: &TextPrompt,
    observe: Observer,
    mut text: impl FnMut(&str),
) -> Result<Vec<(Drawn, String)>> {
    let session = Session::open(asked.model, observe)?;
    let session = session.with_chat(&asked.tokens.chat)?;
    let tokenizer = &session.tokenizer;
    let prompt = Prompt::of_text(asked.text, asked.place, &asked.tokens, tokenizer)?;
    let (model, _) = session.compute.load_for_sampling(&session.folder)?;
    let positions = session.folder.arch.longest_sequence();
    let sampler = Sampler::new(&model, tokenizer, asked.sample, positions);
    let one = asked.sample.num_samples == 1;
    let drawn = match one && asked.sample.stop.is_empty() {
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
        false => sampler.all([&prompt], &mut |done, total, tokens| {
            observe(Event::Sampling {
                done,
                total,
                tokens,
            });
        })?,
    };
    let with_text = |drawn: Drawn| {
        let text = sampler.text(&prompt, &drawn)?;
        Ok((drawn, text))
    };
    let drawn: Vec<(Drawn, String)> = drawn.into_iter().map(with_text).collect::<Result<_>>()?;
    if let (true, false, [(_, whole)]) = (one, asked.sample.stop.is_empty(), drawn.as_slice()) {
        text(whole);
    }
    Ok(drawn)
}

/// The most tokens of a prompt with its response: what is set, else what the model can hold.
pub(super) fn length_limit(config: &SamplingConfig, session: &Session) -> Result<usize> {
    let positions = session.folder.arch.longest_sequence();
    let limit = config.prompts.max_length.unwrap_or(positions);
    check_length(limit, positions, &session.folder.path)?;
    Ok(limit)
}

/// A loaded model to draw from.
pub(super) struct Source<'a> {
    sample: &'a SampleConfig,
    tokenizer: &'a Tokenizer,
    model: Decoder,
    /// The model's content hash.
    pub hash: String,
    max_length: usize,
}

impl<'a> Source<'a> {
    /// The model of a config, or its reference.
    pub fn load(
        config: &'a SamplingConfig,
        session: &'a Session,
        max_length: usize,
        observe: Observer,
    ) -> Result<Self> {
        let reference = session.reference(observe)?;
        if let Some(reference) = reference {
            session.check_same_tokens(reference)?;
            check_length(
                max_length,
                reference.arch.longest_sequence(),
                &reference.path,
            )?;
        }
        let folder = match reference {
            Some(folder) => folder,
            None => session.base()?,
        };
        let (model, hash) = session.compute.load_for_sampling(folder)?;
        Ok(Self {
            sample: &config.sample,
            tokenizer: &session.tokenizer,
            model,
            hash,
            max_length,
        })
    }

    pub fn writer(&self) -> SampleWriter<'_> {
        let sampler = Sampler::new(&self.model, self.tokenizer, self.sample, self.max_length);
        SampleWriter::new(sampler, &self.hash)
    }
}

/// Writes the file, reports how far it is, and stops where it is told to.
pub(super) fn write(
    writer: &SampleWriter,
    prompts: &[Prompt],
    out: &Output,
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
    writer.write(prompts, out, existing, &mut progress)
}

/// The different prompts of all rows of a config, in order.
pub(super) fn prompts_of(
    source: &PromptSource,
    tokenizer: &Tokenizer,
    observe: Observer,
) -> Result<Vec<Prompt>> {
    let mut seen = HashSet::new();
    let (mut all, mut left_out) = (Vec::new(), Vec::new());
    let mut add = |files: &Files, rows: &PromptConfig| -> Result<()> {
        let (prompts, others) = read_prompts(files, rows, tokenizer)?;
        left_out.extend(others);
        all.extend(
            prompts
                .into_iter()
                .filter(|prompt| seen.insert(prompt.text.clone())),
        );
        Ok(())
    };
    fetch(source.files(), observe)?;
    add(&source.train, &source.rows)?;
    if let Some(files) = &source.eval {
        add(files, &source.rows)?;
    }
    if let Some(files) = &source.unlabelled {
        let rows = PromptConfig {
            format: Format::of_file(files)?,
            columns: Columns::default(),
            ..source.rows.clone()
        };
        add(files, &rows)?;
    }
    observe(Event::Prompts {
        prompts: all.len(),
        cut: all.iter().filter(|prompt| prompt.cut).count(),
        left_out: &left_out,
    });
    Ok(all)
}
