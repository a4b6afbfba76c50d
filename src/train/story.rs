//! `[story]`: a run on the grammar's stories, held against what is exactly true of them.

use std::sync::Arc;

use crate::config::Config;
use crate::data::format::Format;
use crate::data::{Example, Files, Prompt, PromptConfig, Response, Tokenizer, prompts};
use crate::error::{Error, Result};
use crate::lab::story::{Answers, Grammar, Report, Sample};
use crate::loss::Role;
use crate::model::Decoder;
use crate::model::sampling::SampleConfig;
use crate::ranks::Ranks;
use crate::sample::{Drawn, Sampler};
use crate::score::{micro_batch_tokens, score};
use crate::session::{Event, Observer, Session};

/// Held-out prompts with everything that it takes to answer them and to judge the answers.
pub(super) struct Stories {
    grammar: Grammar,
    prompts: Vec<Prompt>,
    tokenizer: Arc<Tokenizer>,
    /// Samples of the model itself.
    settings: SampleConfig,
    max_length: usize,
    micro_batch_tokens: usize,
    beta: f64,
    ranks: Ranks,
}

impl Stories {
    /// What the section names, checked; `None` where there is no section.
    pub fn open(config: &Config, session: &Session) -> Result<Option<Self>> {
        let tokenizer = Arc::clone(&session.tokenizer);
        let Some(section) = &config.story else {
            return Ok(None);
        };
        let grammar = Grammar::open(&section.grammar)?;
        let files = Files::from(section.prompts.clone());
        let rows = PromptConfig {
            format: Format::PROMPTS,
            ..config.data.rows.prompts()
        };
        let prompts = prompts(&files, &rows, &tokenizer)?;
        if let Some(other) = prompts.iter().find(|p| grammar.prompt(&p.text).is_none()) {
            return Err(Error::input("is no prompt of the grammar")
                .hint("draw prompts from the grammar of [story]")
                .at(&other.place));
        }
        let max_length = config.data.rows.length.max_length;
        Ok(Some(Self {
            grammar,
            prompts,
            tokenizer,
            settings: SampleConfig {
                max_new_tokens: max_length,
                num_samples: section.num_samples,
                seed: config.run.seed,
                ..SampleConfig::default()
            },
            max_length,
            micro_batch_tokens: micro_batch_tokens(config),
            beta: section.beta,
            ranks: session.ranks.clone(),
        }))
    }

    /// The model's continuations of every prompt.
    pub fn draw(&self, model: &Decoder, observe: Observer) -> Result<Vec<Drawn>> {
        let mut progress = |done, total, tokens| {
            observe(Event::Sampling {
                done,
                total,
                tokens,
            });
        };
        self.sampler(model).all(&self.prompts, &mut progress)
    }

    /// The table of continuations from before and after training.
    pub fn report(&self, before: &[Drawn], after: &[Drawn], reference: &Decoder) -> Result<Report> {
        let (before, after) = (
            self.samples(before, reference)?,
            self.samples(after, reference)?,
        );
        let count = self.settings.num_samples;
        let sides = before.chunks(count).zip(after.chunks(count));
        let answers = self
            .prompts
            .iter()
            .zip(sides)
            .map(|(prompt, (before, after))| Answers {
                prompt: prompt.text.clone(),
                before: before.to_vec(),
                after: after.to_vec(),
            });
        let answers: Vec<Answers> = answers.collect();
        Report::new(&self.grammar, &answers, self.beta, self.settings.seed)
    }

    fn samples(&self, drawn: &[Drawn], reference: &Decoder) -> Result<Vec<Sample>> {
        let sampler = self.sampler(reference);
        let with_prompts = || {
            let each = |(number, drawn)| (&self.prompts[number / self.settings.num_samples], drawn);
            drawn.iter().enumerate().map(each)
        };
        let examples = with_prompts()
            .enumerate()
            .map(|(row, (prompt, drawn))| Example {
                row,
                prompt: prompt.ids.clone(),
                responses: vec![Response::new(Role::Sampled, drawn.ids.clone())],
                preference: None,
            });
        let examples: Vec<Example> = examples.collect();
        let column = score(reference, &examples, self.micro_batch_tokens)?;
        let sample = |(row, (prompt, drawn)): (usize, (&Prompt, &Drawn))| {
            Ok(Sample {
                text: sampler.text(prompt, drawn)?,
                log_prob: drawn.log_prob,
                reference: column.score(row, 0).log_prob,
                finished: drawn.finished,
            })
        };
        with_prompts().enumerate().map(sample).collect()
    }

    fn sampler<'a>(&'a self, model: &'a Decoder) -> Sampler<'a> {
        Sampler::new(model, &self.tokenizer, &self.settings, self.max_length).on(&self.ranks)
    }
}
