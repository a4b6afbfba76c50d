//! Responses drawn from a model.
//!
//! Hides batches: which sequences are computed together, when one that ended makes room for the next,
//! and when prompts are computed.
//!
//! *Why*: a response is a function of its prompt and its number. Who asks for responses, for a file
//! or for a report, need not know what else was in the batch.

mod alpaca_eval;
#[cfg(test)]
mod cuda_tests;
mod drawing;
mod file;
mod of_ranks;
mod reference;
mod run;
mod task;

use serde::{Deserialize, Serialize};

use crate::data::{PromptTokens, Tokenizer};
use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::model::sampling::SampleConfig;
use crate::ranks::{Ranks, share_results};

pub use alpaca_eval::{is_alpaca_eval, write_alpaca_eval};
use drawing::Drawing;
pub use file::{Existing, SampleWriter, Written};
pub use reference::Reference;
pub use run::run_datasets;
pub use task::{Target, TextPrompt, sample_run, sample_text};

/// Draws from one model with one set of settings.
pub struct Sampler<'a> {
    model: &'a Decoder,
    tokenizer: &'a Tokenizer,
    config: &'a SampleConfig,
    /// The most tokens of a prompt with its response.
    max_length: usize,
    /// Set where prompts are answered anew in every round.
    round: Option<u64>,
    /// The processes that share the prompts.
    ranks: Ranks,
}

/// A response as it was drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drawn {
    /// Token ids, the end token included if there is one.
    pub ids: Vec<u32>,
    /// log pi(y|x) under the model itself, before any logits processor, in nats.
    pub log_prob: f64,
    /// Whether it ended with an end token, not at a length limit or a stop text.
    pub finished: bool,
    /// Whether it ended because its text has a stop text.
    pub stopped: bool,
}

/// Why responses end at [`cached_length`](crate::model::arch::Architecture::cached_length).
pub const NO_CACHE: &str = "beyond that length the rope type \"dynamic\" changes the keys of all tokens with each one, so there is no KV cache to draw with";

/// The most responses of a call.
const MOST_RESPONSES: usize = 100_000_000;

/// How many responses so many prompts get in all.
fn responses_in_all(prompts: usize, config: &SampleConfig) -> Result<usize> {
    let each = config.num_samples;
    match prompts.checked_mul(each) {
        Some(all) if all <= MOST_RESPONSES => Ok(all),
        _ => Err(
            Error::input(format!("{prompts} prompts with {each} responses each"))
                .hint(format!("at most {MOST_RESPONSES} responses at a time"))
                .at_parameter("num_samples"),
        ),
    }
}

/// Samples `first..first + count` of a prompt.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    prompt: PromptTokens<'a>,
    first: usize,
    count: usize,
}

impl<'a> Sampler<'a> {
    /// A sampler whose prompts with their responses have `max_length` tokens at most.
    pub fn new(
        model: &'a Decoder,
        tokenizer: &'a Tokenizer,
        config: &'a SampleConfig,
        max_length: usize,
    ) -> Self {
        Self {
            model,
            tokenizer,
            config,
            max_length,
            round: None,
            ranks: Ranks::alone(),
        }
    }

    /// The same with random numbers of this round's own.
    #[must_use]
    pub fn in_round(mut self, round: u64) -> Self {
        self.round = Some(round);
        self
    }

    /// The same at each of these processes, which share the prompts.
    #[must_use]
    pub fn on(mut self, ranks: &Ranks) -> Self {
        self.ranks = ranks.clone();
        self
    }

    /// All responses to `prompts`, in the order of prompts and numbers; `progress` is told of the
    /// responses drawn, those there will be, and the tokens drawn.
    pub fn all<'p, P: Into<PromptTokens<'p>>>(
        &self,
        prompts: impl IntoIterator<Item = P>,
        progress: &mut dyn FnMut(usize, usize, usize),
    ) -> Result<Vec<Drawn>> {
        let prompts = prompts.into_iter().map(Into::into);
        let jobs: Vec<Job> = prompts.map(|prompt| self.whole(prompt)).collect();
        let total = responses_in_all(jobs.len(), self.config)?;
        let (rank, size) = (self.ranks.rank(), self.ranks.size());
        let own: Vec<Job> = jobs.iter().skip(rank).step_by(size).copied().collect();
        let drawn = self.draw(&own, &mut |done, tokens| {
            progress((done * size).min(total), total, tokens * size);
        });
        // One may take much longer than another.
        let patient = self.ranks.without_limit();
        let of_ranks = share_results(&patient, "the responses", drawn, 0)?;
        let mut of_ranks: Vec<_> = of_ranks.into_iter().map(Vec::into_iter).collect();
        let mut all = Vec::with_capacity(total);
        for job in 0..jobs.len() {
            all.extend(of_ranks[job % size].by_ref().take(self.config.num_samples));
        }
        Ok(all)
    }

    /// All responses of some jobs, in their order; `progress` is told of responses and tokens.
    fn draw(&self, jobs: &[Job], progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<Drawn>> {
        let mut all = vec![None; responses_in_all(jobs.len(), self.config)?];
        let (mut done, mut tokens) = (0, 0);
        progress(done, tokens);
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut drawing = Drawing::new(self, jobs)?;
        while !drawing.is_done() {
            for (number, drawn) in drawing.step(&mut |_, _| tokens += 1)? {
                all[number] = Some(drawn);
                done += 1;
            }
            progress(done, tokens);
        }
        Ok(all.into_iter().flatten().collect())
    }

    /// The responses to one prompt; `token` is told of each token, with the number of its response,
    /// as soon as it is drawn.
    pub fn stream<'p>(
        &self,
        prompt: impl Into<PromptTokens<'p>>,
        mut token: impl FnMut(usize, u32),
    ) -> Result<Vec<Drawn>> {
        let mut drawing = Drawing::new(self, &[self.whole(prompt.into())])?;
        let mut all = Vec::new();
        while !drawing.is_done() {
            all.extend(drawing.step(&mut token)?);
        }
        all.sort_by_key(|&(number, _)| number);
        Ok(all.into_iter().map(|(_, drawn)| drawn).collect())
    }

    /// The text that a response adds to its prompt's, up to a stop text. By itself a response may lose a
    /// space in front, which some tokenizers drop from the start of a text.
    pub fn text<'p>(&self, prompt: impl Into<PromptTokens<'p>>, drawn: &Drawn) -> Result<String> {
        let ids = match drawn.finished {
            true => &drawn.ids[..drawn.ids.len() - 1],
            false => &drawn.ids,
        };
        let mut text = self.added(prompt.into().ids, ids)?;
        if drawn.stopped {
            let stops = self.config.stop.iter().filter_map(|stop| text.find(stop));
            text.truncate(stops.min().unwrap_or(text.len()));
        }
        Ok(text)
    }

    /// The text that ids add to that of the ids before them.
    fn added(&self, before: &[u32], ids: &[u32]) -> Result<String> {
        let whole = self.tokenizer.decode(&[before, ids].concat(), true)?;
        match whole.strip_prefix(&self.tokenizer.decode(before, true)?) {
            Some(text) => Ok(text.to_owned()),
            None => self.tokenizer.decode(ids, true),
        }
    }

    /// Whether a stop text ends in the last of a response's ids.
    fn has_stopped(&self, prompt: PromptTokens, ids: &[u32]) -> Result<bool> {
        let stops = &self.config.stop;
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        // Most tokens are a byte at least; where many say nothing, more are looked at.
        let mut count = longest;
        loop {
            let (before, last) = ids.split_at(ids.len().saturating_sub(count));
            // What stands in front of a text may say how it begins.
            let before = [prompt.ids, before].concat();
            let text = self.added(&before[before.len().saturating_sub(4)..], last)?;
            if stops.iter().any(|stop| text.contains(stop)) {
                return Ok(true);
            }
            if text.len() >= longest || count >= ids.len() {
                return Ok(false);
            }
            count *= 2;
        }
    }

    fn whole<'p>(&self, prompt: PromptTokens<'p>) -> Job<'p> {
        Job {
            prompt,
            first: 0,
            count: self.config.num_samples,
        }
    }

    /// The most tokens to draw after a prompt, at least one.
    fn limit(&self, prompt: PromptTokens) -> Result<usize> {
        let (length, limit) = (prompt.ids.len(), self.max_length);
        let refuse = |what: String, hint: &str| Err(Error::input(what).hint(hint).at(prompt.place));
        if length == 0 {
            return refuse(
                "the prompt is empty, and the tokenizer puts nothing in front of it".into(),
                "the first token needs one before it",
            );
        }
        if length >= limit {
            return refuse(
                format!("the prompt has {length} tokens, which leaves no room within {limit}"),
                "shorten it; prompts of a file can be cut with max_prompt_length",
            );
        }
        let new = self.config.max_new_tokens.min(limit - length);
        match self.model.architecture().cached_length() {
            Some(cached) if length + new > cached => {
                let what = format!(
                    "a prompt of {length} tokens and a response of up to {new} are {} tokens",
                    length + new
                );
                let hint = format!("at most {cached} tokens: {NO_CACHE}");
                let room = cached.saturating_sub(length).to_string();
                let error = Error::input(what).hint(hint).at(prompt.place);
                Err(match cached > length {
                    true => error.option("max_new_tokens", room),
                    false => error,
                })
            }
            _ => Ok(new),
        }
    }
}
