//! Responses drawn from a model.
//!
//! Hides batches: which sequences are computed together, and when those that ended leave.
//!
//! *Why*: a response is a function of its prompt and its number. Who asks for responses, for a file
//! or for a report, need not know what else was in the batch.

mod file;
#[cfg(test)]
mod twin;

use sha2::{Digest, Sha256};

use crate::data::{Prompt, Tokenizer};
use crate::error::{Error, Result};
use crate::kernels::gemm::Precision;
use crate::model::Decoder;
use crate::model::generate::{Generation, Next};
use crate::model::sampling::{Draws, SampleConfig};

pub use file::{Existing, Written};

/// Draws from one model with one set of settings.
pub struct Sampler<'a> {
    model: &'a Decoder,
    tokenizer: &'a Tokenizer,
    config: &'a SampleConfig,
    /// The most tokens of a prompt with its response.
    max_length: usize,
    /// Fed with everything that responses depend on but the prompt.
    identity: Sha256,
}

/// A response as it was drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// Token ids, the end token included where it ended by itself.
    pub ids: Vec<u32>,
    /// log pi(y|x) under the model itself, before any processor, in nats.
    pub log_prob: f64,
    /// Whether it ended by itself, not at a length limit.
    pub finished: bool,
}

/// Samples `first..first + count` of a prompt.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    prompt: &'a Prompt,
    first: usize,
    count: usize,
}

impl<'a> Sampler<'a> {
    /// A sampler; `model_hash` is the model's content hash.
    pub fn new(
        model: &'a Decoder,
        model_hash: &str,
        tokenizer: &'a Tokenizer,
        config: &'a SampleConfig,
        max_length: usize,
    ) -> Self {
        let settings = SampleConfig {
            batch_size: 1,
            num_samples: 1,
            ..config.clone()
        };
        let mut identity = Sha256::new();
        let mut settings = format!("{settings:?} {max_length}");
        if model.weights().precision == Precision::Bf16 {
            settings.push_str(match model.device().is_cpu() {
                true => " bf16",
                false => " bf16 on a GPU",
            });
        }
        for part in [model_hash, tokenizer.hash(), &settings] {
            identity.update(part);
            identity.update([0]);
        }
        Self {
            model,
            tokenizer,
            config,
            max_length,
            identity,
        }
    }

    /// A hash of all that the responses to a prompt depend on. Their number and the size of batches
    /// are not among it.
    pub fn draw(&self, prompt: &Prompt) -> String {
        let mut hasher = self.identity.clone();
        for id in &prompt.ids {
            hasher.update(id.to_le_bytes());
        }
        format!("{:.16}", format!("{:x}", hasher.finalize()))
    }

    /// All responses to `prompts`, in the order of prompts and numbers; `progress` as in
    /// [`write`](Self::write), which also has what was found.
    pub fn all(
        &self,
        prompts: &[Prompt],
        progress: &mut dyn FnMut(usize, usize, usize),
    ) -> Result<Vec<Drawn>> {
        let jobs: Vec<Job> = prompts.iter().map(|prompt| self.whole(prompt)).collect();
        let total = prompts.len() * self.config.num_samples;
        progress(0, total, 0);
        let (mut all, mut tokens) = (Vec::with_capacity(total), 0);
        for jobs in batches(&jobs, self.config.batch_size) {
            let drawn = self.responses(&jobs, &mut |_, _| {})?;
            tokens += drawn.iter().map(|drawn| drawn.ids.len()).sum::<usize>();
            all.extend(drawn);
            progress(all.len(), total, tokens);
        }
        Ok(all)
    }

    /// The responses to one prompt; `token` is told of each token, with the number of its response,
    /// as soon as it is drawn.
    pub fn stream(&self, prompt: &Prompt, mut token: impl FnMut(usize, u32)) -> Result<Vec<Drawn>> {
        self.responses(&[self.whole(prompt)], &mut token)
    }

    /// The text that a response adds to its prompt's. By itself a response may lose a space in
    /// front, which some tokenizers drop from the start of a text.
    pub fn text(&self, prompt: &Prompt, drawn: &Drawn) -> Result<String> {
        let ids = match drawn.finished {
            true => &drawn.ids[..drawn.ids.len() - 1],
            false => &drawn.ids,
        };
        let before = self.tokenizer.decode(&prompt.ids, true)?;
        let whole = self.tokenizer.decode(&[&prompt.ids, ids].concat(), true)?;
        match whole.strip_prefix(&before) {
            Some(text) => Ok(text.to_owned()),
            None => self.tokenizer.decode(ids, true),
        }
    }

    fn whole<'p>(&self, prompt: &'p Prompt) -> Job<'p> {
        Job {
            prompt,
            first: 0,
            count: self.config.num_samples,
        }
    }

    fn responses(&self, jobs: &[Job], token: &mut dyn FnMut(usize, u32)) -> Result<Vec<Drawn>> {
        let mut sequences = Vec::new();
        for job in jobs {
            sequences.extend(self.sequences(job)?);
        }
        let prompts: Vec<(&[u32], usize)> = jobs
            .iter()
            .map(|job| (job.prompt.ids.as_slice(), job.count))
            .collect();
        let room = sequences.iter().map(|s| s.limit).max().unwrap_or(0);
        let mut generation = Generation::start(self.model, &prompts, room, self.config)?;
        // The sequence that each of the generation's is.
        let mut rows: Vec<usize> = (0..sequences.len()).collect();
        loop {
            let uniforms: Vec<f64> = rows.iter().map(|&row| sequences[row].uniform()).collect();
            let next = |(&row, &uniform): (&usize, &f64)| sequences[row].next(uniform);
            let draws: Vec<Option<Next>> = rows.iter().zip(&uniforms).map(next).collect();
            let drawn = generation.next(&draws)?;
            for (&row, &(id, log_prob)) in rows.iter().zip(&drawn) {
                if !sequences[row].ended {
                    sequences[row].push(id, log_prob, self.tokenizer.ends())?;
                    token(row, id);
                }
            }
            let going = |&at: &usize| !sequences[rows[at]].ended;
            let live: Vec<usize> = (0..rows.len()).filter(going).collect();
            if live.is_empty() {
                break;
            }
            let mut ids: Vec<u32> = drawn.iter().map(|&(id, _)| id).collect();
            // Leaving ended rows in costs their computation, taking them out a copy of the rest.
            if 4 * live.len() <= 3 * rows.len() {
                generation.keep(&live)?;
                ids = live.iter().map(|&at| ids[at]).collect();
                rows = live.iter().map(|&at| rows[at]).collect();
            }
            generation.extend(&ids)?;
        }
        Ok(sequences.into_iter().map(Sequence::drawn).collect())
    }

    /// The most tokens that fit behind a prompt, at least one.
    fn room(&self, prompt: &Prompt) -> Result<usize> {
        let (length, limit) = (prompt.ids.len(), self.max_length);
        let refuse =
            |what: String, hint: &str| Err(Error::input(what).hint(hint).at(&prompt.place));
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
        Ok(limit - length)
    }

    fn sequences<'p>(&self, job: &Job<'p>) -> Result<Vec<Sequence<'p>>> {
        let prompt = job.prompt;
        let room = self.room(prompt)?;
        let sequence = |index: usize| Sequence {
            prompt,
            seen: prompt.ids.clone(),
            log_prob: 0.0,
            draws: Draws::new(self.config.seed, &prompt.ids, index as u64),
            limit: self.config.max_new_tokens.min(room),
            ended: false,
            finished: false,
        };
        Ok((job.first..job.first + job.count).map(sequence).collect())
    }
}

/// A response in the making.
struct Sequence<'p> {
    prompt: &'p Prompt,
    /// The prompt and what was drawn.
    seen: Vec<u32>,
    log_prob: f64,
    draws: Draws,
    /// The most tokens to draw.
    limit: usize,
    ended: bool,
    finished: bool,
}

impl Sequence<'_> {
    /// Tokens that were drawn.
    fn position(&self) -> usize {
        self.seen.len() - self.prompt.ids.len()
    }

    /// The random number of the next token.
    fn uniform(&mut self) -> f64 {
        self.draws.uniform(self.position())
    }

    /// What the next token is drawn by; nothing where the sequence has ended and its row is still there.
    fn next(&self, uniform: f64) -> Option<Next<'_>> {
        (!self.ended).then_some(Next {
            seen: &self.seen,
            uniform,
        })
    }

    fn push(&mut self, id: u32, log_prob: f64, ends: &[u32]) -> Result<()> {
        if !log_prob.is_finite() {
            let position = self.position();
            return Err(Error::NonFinite(format!(
                "{}: token {position} of the response has log-prob {log_prob}",
                self.prompt.place
            )));
        }
        self.log_prob += log_prob;
        self.seen.push(id);
        self.finished = ends.contains(&id);
        self.ended = self.finished || self.position() == self.limit;
        Ok(())
    }

    fn drawn(mut self) -> Drawn {
        Drawn {
            ids: self.seen.split_off(self.prompt.ids.len()),
            log_prob: self.log_prob,
            finished: self.finished,
        }
    }
}

/// Jobs in order, split so that a batch has at most `size` responses.
fn batches<'a>(jobs: &[Job<'a>], size: usize) -> Vec<Vec<Job<'a>>> {
    let mut batches: Vec<Vec<Job>> = Vec::new();
    let mut room = 0;
    for &Job {
        prompt,
        mut first,
        mut count,
    } in jobs
    {
        while count > 0 {
            if room == 0 {
                batches.push(Vec::new());
                room = size;
            }
            let taken = count.min(room);
            let job = Job {
                prompt,
                first,
                count: taken,
            };
            batches.last_mut().expect("one was pushed").push(job);
            (first, count, room) = (first + taken, count - taken, room - taken);
        }
    }
    batches
}
