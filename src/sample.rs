//! Responses drawn from a model, and the file they go to.
//!
//! Hides batches, and how a file that was interrupted goes on. Columns are those of
//! `objectives`' sample files: `prompt`, `response`, `token_ids`, `log_prob` (the model's own, in
//! nats, summed), `finish_reason`, `index`, `seed`; and `draw`, a hash of the model, its tokenizer
//! and the settings, by which a file that another run left behind is told from one to go on with.
//!
//! *Why*: every row is a function of its prompt and number, and rows are written in order. So what
//! a file lacks is what comes after its last whole line, and nothing else needs to be remembered.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::{Prompt, Tokenizer};
use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::model::generate::Generation;
use crate::model::sampling::{Draws, SampleConfig, log_prob};

/// Draws from one model with one set of settings.
pub struct Sampler<'a> {
    model: &'a Decoder,
    tokenizer: &'a Tokenizer,
    config: &'a SampleConfig,
    /// The most tokens of a prompt with its response.
    max_length: usize,
    draw: String,
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

/// One line of a sample file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    prompt: String,
    response: String,
    token_ids: Vec<u32>,
    log_prob: f64,
    finish_reason: String,
    index: usize,
    seed: u64,
    draw: String,
}

/// What a sample file has in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Its responses.
    pub responses: usize,
    /// How many of them were there before.
    pub found: usize,
    /// Tokens drawn now.
    pub tokens: usize,
    /// Responses drawn now that ended by themselves.
    pub finished: usize,
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
        let draw = draw_name(model_hash, tokenizer, config, max_length);
        Self {
            model,
            tokenizer,
            config,
            max_length,
            draw,
        }
    }

    /// A hash of what the responses to a prompt depend on.
    pub fn draw(&self) -> &str {
        &self.draw
    }

    /// Draws every response to `prompts` that the file `path` does not have yet, and appends them
    /// in the order of prompts and numbers; all of them where `overwrite`. `progress` is told of the responses in the file, those
    /// it will have, and the tokens drawn.
    ///
    /// # Errors
    /// If the file has rows of other prompts, another model or other settings.
    pub fn write(
        &self,
        prompts: &[Prompt],
        path: &Path,
        overwrite: bool,
        progress: &mut dyn FnMut(usize, usize, usize),
    ) -> Result<Written> {
        for prompt in prompts {
            self.room(prompt)?;
        }
        let count = self.config.num_samples;
        let total = prompts.len() * count;
        let (mut file, found) = self.open(prompts, path, overwrite)?;
        let mut written = Written {
            responses: found,
            found,
            ..Written::default()
        };
        progress(found, total, 0);
        let left = prompts[found / count..].iter().enumerate();
        let left: Vec<Job> = left
            .map(|(number, prompt)| {
                let first = if number == 0 { found % count } else { 0 };
                Job {
                    prompt,
                    first,
                    count: count - first,
                }
            })
            .collect();
        for jobs in batches(&left, self.config.batch_size) {
            let drawn = self.responses(&jobs, &mut |_, _| {})?;
            let rows = jobs.iter().flat_map(|job| {
                (job.first..job.first + job.count).map(move |index| (job.prompt, index))
            });
            let mut text = String::new();
            for ((prompt, index), drawn) in rows.zip(&drawn) {
                text += &self.line(prompt, index, drawn)?;
                written.tokens += drawn.ids.len();
                written.finished += usize::from(drawn.finished);
            }
            file.write_all(text.as_bytes())
                .map_err(|error| Error::io(path, &error))?;
            written.responses += drawn.len();
            progress(written.responses, total, written.tokens);
        }
        file.sync_all().map_err(|error| Error::io(path, &error))?;
        Ok(written)
    }

    /// All responses to `prompts`, in the order of prompts and numbers; `progress` as in
    /// [`write`](Self::write).
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
    pub fn stream(
        &self,
        prompt: &Prompt,
        mut token: impl FnMut(usize, u32),
    ) -> Result<Vec<Drawn>> {
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
        let (mut generation, mut logits) = Generation::start(self.model, &prompts, room)?;
        // The sequence that each row of logits belongs to.
        let mut rows: Vec<usize> = (0..sequences.len()).collect();
        loop {
            let ids = self.choose(&mut sequences, &rows, &logits)?;
            for (&row, &id) in rows.iter().zip(&ids) {
                if !sequences[row].ended {
                    token(row, id);
                    sequences[row].push(id, self.tokenizer.ends());
                }
            }
            let going = |&at: &usize| !sequences[rows[at]].ended;
            let live: Vec<usize> = (0..rows.len()).filter(going).collect();
            if live.is_empty() {
                break;
            }
            // Leaving ended rows in costs their computation, taking them out a copy of the rest.
            if 4 * live.len() <= 3 * rows.len() {
                generation.keep(&live)?;
                logits = generation.extend(&live.iter().map(|&at| ids[at]).collect::<Vec<_>>())?;
                rows = live.iter().map(|&at| rows[at]).collect();
            } else {
                logits = generation.extend(&ids)?;
            }
        }
        Ok(sequences.into_iter().map(Sequence::drawn).collect())
    }

    /// The next token of each row, and its log-prob to the sequence's.
    fn choose(
        &self,
        sequences: &mut [Sequence],
        rows: &[usize],
        logits: &[Vec<f32>],
    ) -> Result<Vec<u32>> {
        let mut by_row: Vec<Option<&[f32]>> = vec![None; sequences.len()];
        for (&row, logits) in rows.iter().zip(logits) {
            by_row[row] = Some(logits);
        }
        let chosen: Vec<Option<u32>> = sequences
            .par_iter_mut()
            .zip(by_row)
            .map(|(sequence, logits)| {
                logits.map(|logits| sequence.choose(logits, self.config)).transpose()
            })
            .collect::<Result<_>>()?;
        Ok(rows.iter().filter_map(|&row| chosen[row]).collect())
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
                "shorten it, or set a max_prompt_length to cut prompts to",
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

    fn line(&self, prompt: &Prompt, index: usize, drawn: &Drawn) -> Result<String> {
        let line = Line {
            prompt: prompt.text.clone(),
            response: self.text(prompt, drawn)?,
            token_ids: drawn.ids.clone(),
            log_prob: drawn.log_prob,
            finish_reason: if drawn.finished { "stop" } else { "length" }.into(),
            index,
            seed: self.config.seed,
            draw: self.draw.clone(),
        };
        let text = serde_json::to_string(&line).map_err(|e| Error::failed(e.to_string()))?;
        Ok(text + "\n")
    }

    /// The file, ready for its next row, and the number of rows it has.
    fn open(&self, prompts: &[Prompt], path: &Path, overwrite: bool) -> Result<(File, usize)> {
        let io = |error: std::io::Error| Error::io(path, &error);
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Ok(_) if overwrite => Vec::new(),
            read => read.map_err(io)?,
        };
        // What follows the last line end is a row that was being written.
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let lines = bytes[..whole].split_inclusive(|&b| b == b'\n');
        let mut found = 0;
        for line in lines {
            let at = || format!("{}:{}", path.display(), found + 1);
            let refuse = |what: &str| {
                Err(Error::input(what)
                    .hint("name another file, or replace this one with --overwrite")
                    .at(at()))
            };
            let Ok(line) = serde_json::from_slice::<Line>(line) else {
                return refuse("is not a sample that could be gone on from");
            };
            let (number, index) = (found / self.config.num_samples, found % self.config.num_samples);
            let Some(prompt) = prompts.get(number) else {
                return refuse("the file has more samples than there are to draw");
            };
            if line.draw != self.draw {
                return refuse("was drawn from another model or with other settings");
            }
            if line.prompt != prompt.text || line.index != index {
                return refuse("is of another prompt than the one whose turn it is");
            }
            found += 1;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(io)?;
        file.set_len(whole as u64).map_err(io)?;
        Ok((file, found))
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
    fn choose(&mut self, logits: &[f32], config: &SampleConfig) -> Result<u32> {
        if self.ended {
            // Its row is still there, and any id will do.
            return Ok(0);
        }
        let position = self.seen.len() - self.prompt.ids.len();
        let id = config.choose(logits, &self.seen, self.draws.uniform(position));
        let log_prob = log_prob(logits, id);
        if !log_prob.is_finite() {
            return Err(Error::NonFinite(format!(
                "{}: token {position} of the response has log-prob {log_prob}",
                self.prompt.place
            )));
        }
        self.log_prob += log_prob;
        Ok(id)
    }

    fn push(&mut self, id: u32, ends: &[u32]) {
        self.seen.push(id);
        self.finished = ends.contains(&id);
        self.ended = self.finished || self.seen.len() - self.prompt.ids.len() == self.limit;
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

/// A hash of what the responses to a prompt depend on. Their number and the size of batches are not
/// among it.
fn draw_name(
    model_hash: &str,
    tokenizer: &Tokenizer,
    config: &SampleConfig,
    max_length: usize,
) -> String {
    let settings = SampleConfig {
        batch_size: 1,
        num_samples: 1,
        ..config.clone()
    };
    let mut hasher = Sha256::new();
    for part in [model_hash, tokenizer.hash(), &format!("{settings:?} {max_length}")] {
        hasher.update(part);
        hasher.update([0]);
    }
    format!("{:.16}", format!("{:x}", hasher.finalize()))
}
