//! The file of drawn responses, and how an interrupted one is resumed.
//!
//! JSON lines with `prompt`, `response`, `token_ids`, `log_prob` (the model's own, in nats, summed),
//! `finish_reason`, `index`, `seed`; `reference_log_prob` where a second model scores them, and
//! `reference`, by which that one is known; and `draw`, a hash of all that the responses to the prompt depend
//! on, by which a file of other settings is told from one to resume.
//!
//! *Why*: every row is a function of its prompt and number, and rows are written in order. So what
//! a file lacks is what comes after its last whole line, and nothing else needs to be remembered.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Write};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::drawing::Drawing;
use super::reference::{Reference, SCORED_TOKENS};
use super::{Drawn, Job, Sampler, responses_in_all};
use crate::data::Prompt;
use crate::error::{Error, Result};
use crate::io::durable::{create_parent, json_line, open_plain};
use crate::io::lock::{lock, try_lock};
use crate::io::output::Output;
use crate::io::untrusted::{self, Line};
use crate::kernels::Precision;
use crate::model::sampling::SampleConfig;

/// One line of a sample file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    prompt: String,
    response: String,
    token_ids: Vec<u32>,
    log_prob: f64,
    finish_reason: String,
    index: usize,
    seed: u64,
    draw: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference_log_prob: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// What a sample file has in the end.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Written {
    /// Its responses.
    pub responses: usize,
    /// How many of them were there before.
    pub found: usize,
    /// Tokens drawn now.
    pub tokens: usize,
    /// Responses drawn now that ended with an end token or at a stop text.
    pub finished: usize,
    /// The responses it is to have.
    pub total: usize,
    /// Seconds of drawing and writing.
    pub seconds: f64,
    /// Bytes that the steps had to read: of weights, keys and values.
    pub bytes: u64,
}

/// What becomes of a file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Resume it, or refuse it.
    Continue,
    /// Refuse it.
    Refuse,
    /// Draw it from its start.
    Replace,
    /// Internal cache: wait for a concurrent writer, resume if valid, else draw from the start.
    Cache,
}

/// Draws into files.
pub struct SampleWriter<'a> {
    pub(super) sampler: Sampler<'a>,
    /// Fed with everything that responses depend on but the prompt.
    identity: Sha256,
    reference: Option<Reference<'a>>,
}

impl<'a> SampleWriter<'a> {
    /// Draws with `sampler`, from the model with this content hash.
    pub fn new(sampler: Sampler<'a>, model_hash: &str) -> Self {
        let settings = SampleConfig {
            batch_size: 1,
            num_samples: 1,
            ..sampler.config.clone()
        };
        let mut identity = Sha256::new();
        let mut settings = format!("{settings:?} {}", sampler.max_length);
        let numerics = sampler.model.numerics();
        if numerics.compute == Precision::Bf16 {
            settings.push(' ');
            settings.push_str(numerics.name());
        }
        for part in [model_hash, sampler.tokenizer.hash(), &settings] {
            identity.update(part);
            identity.update([0]);
        }
        Self {
            sampler,
            identity,
            reference: None,
        }
    }

    /// The same, whose files have each response's log-prob under a second model, too.
    #[must_use]
    pub fn with_reference(self, reference: Reference<'a>) -> Self {
        Self {
            reference: Some(reference),
            ..self
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

    /// Draws every response to `prompts` that the file `out` does not have yet, and appends them
    /// in the order of prompts and numbers. `progress` is told of the responses in the file, those
    /// it will have, and the tokens drawn, and returns whether to continue; if not, those that are being
    /// drawn are left to the next call. A stream has none to begin with; where nobody reads it any more,
    /// drawing ends.
    ///
    /// # Errors
    /// If the file has rows of other prompts, another model or other settings, or another process
    /// writes to it.
    pub fn write(
        &self,
        prompts: &[Prompt],
        out: &Output,
        existing: Existing,
        progress: &mut dyn FnMut(usize, usize, usize) -> bool,
    ) -> Result<Written> {
        for prompt in prompts {
            self.sampler.limit(prompt.into())?;
        }
        let count = self.sampler.config.num_samples;
        let total = responses_in_all(prompts.len(), self.sampler.config)?;
        let path = out.path();
        let (mut file, found) = match out {
            Output::File(path) => self.open(prompts, path, existing)?,
            Output::Stream(path, stream) => {
                let stream = stream.try_clone();
                (stream.map_err(|error| Error::io(path, &error))?, 0)
            }
        };
        let mut written = Written {
            responses: found,
            found,
            total,
            ..Written::default()
        };
        let left = prompts[found / count..].iter().enumerate();
        let left: Vec<(&Prompt, Job)> = left
            .map(|(number, prompt)| {
                let first = if number == 0 { found % count } else { 0 };
                let job = Job {
                    prompt: prompt.into(),
                    first,
                    count: count - first,
                };
                (prompt, job)
            })
            .collect();
        let mut go_on = progress(found, total, 0);
        if left.is_empty() {
            return Ok(written);
        }
        let rows = left.iter().flat_map(|(prompt, job)| {
            (job.first..job.first + job.count).map(|index| (*prompt, index))
        });
        let mut rows = rows.collect::<Vec<_>>().into_iter();
        let start = Instant::now();
        let jobs: Vec<Job> = left.iter().map(|(_, job)| *job).collect();
        let mut drawing = Drawing::new(&self.sampler, &jobs)?;
        let (mut next, mut tokens) = (0, 0);
        // Ended before one that comes before them in the file.
        let mut early: BTreeMap<usize, Drawn> = BTreeMap::new();
        let mut due: Vec<(&Prompt, usize, Drawn)> = Vec::new();
        while go_on && !drawing.is_done() {
            early.extend(drawing.step(&mut |_, _| tokens += 1)?);
            while let Some(drawn) = early.remove(&next) {
                let (prompt, index) = rows.next().expect("a row for each response");
                due.push((prompt, index, drawn));
                next += 1;
            }
            let tokens_of =
                |(prompt, _, drawn): &(&Prompt, usize, Drawn)| prompt.ids.len() + drawn.ids.len();
            let many = due.iter().map(tokens_of).sum::<usize>() >= SCORED_TOKENS;
            let mut read = true;
            if self.reference.is_none() || many {
                read = self.append(&mut due, &mut file, path, &mut written)?;
            }
            go_on = progress(written.responses, total, tokens) && read;
        }
        if !due.is_empty() {
            self.append(&mut due, &mut file, path, &mut written)?;
            progress(written.responses, total, tokens);
        }
        if let Output::File(path) = out {
            file.sync_all().map_err(|error| Error::io(path, &error))?;
        }
        written.seconds = start.elapsed().as_secs_f64();
        written.bytes = drawing.bytes();
        Ok(written)
    }

    /// Appends responses, and takes them. False where nobody reads the stream any more.
    fn append(
        &self,
        due: &mut Vec<(&Prompt, usize, Drawn)>,
        file: &mut File,
        path: &Path,
        written: &mut Written,
    ) -> Result<bool> {
        if due.is_empty() {
            return Ok(true);
        }
        let references = match &self.reference {
            Some(reference) => {
                let responses: Vec<(&Prompt, &Drawn)> = due
                    .iter()
                    .map(|(prompt, _, drawn)| (*prompt, drawn))
                    .collect();
                reference.score(&responses)?.into_iter().map(Some).collect()
            }
            None => vec![None; due.len()],
        };
        let mut text = String::new();
        for ((prompt, index, drawn), reference) in due.drain(..).zip(references) {
            text += &self.line(prompt, index, &drawn, reference)?;
            written.responses += 1;
            written.tokens += drawn.ids.len();
            written.finished += usize::from(drawn.finished || drawn.stopped);
        }
        match file.write_all(text.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            done => done.map(|()| true).map_err(|error| Error::io(path, &error)),
        }
    }

    fn line(
        &self,
        prompt: &Prompt,
        index: usize,
        drawn: &Drawn,
        reference_log_prob: Option<f64>,
    ) -> Result<String> {
        let ended = match (drawn.finished, drawn.stopped) {
            (true, _) => "stop",
            (false, true) => "stop_text",
            (false, false) => "length",
        };
        let line = Row {
            prompt: prompt.text.clone(),
            response: self.sampler.text(prompt, drawn)?,
            token_ids: drawn.ids.clone(),
            log_prob: drawn.log_prob,
            finish_reason: ended.into(),
            index,
            seed: self.sampler.config.seed,
            draw: self.draw(prompt),
            reference_log_prob,
            reference: self.reference.as_ref().map(|reference| reference.name()),
        };
        json_line(&line)
    }

    /// The file, locked and ready for its next row, and the number of rows it has.
    fn open(&self, prompts: &[Prompt], path: &Path, existing: Existing) -> Result<(File, usize)> {
        let io = |error: std::io::Error| Error::io(path, &error);
        create_parent(path)?;
        let mut options = OpenOptions::new();
        let file = open_plain(path, options.read(true).append(true).create(true))?;
        match existing {
            Existing::Cache => lock(&file).map_err(io)?,
            Existing::Continue | Existing::Refuse | Existing::Replace => {
                if !try_lock(&file).map_err(io)? {
                    return Err(Error::input("another process writes to it")
                        .hint("wait for it, or name another file")
                        .at(path.display()));
                }
            }
        }
        if existing == Existing::Refuse && file.metadata().map_err(io)?.len() > 0 {
            return Err(Error::input("already exists")
                .hint("name another file, resume it, or replace it")
                .option("resume", "auto")
                .option("overwrite", "")
                .at(path.display()));
        }
        let found = match (self.found(prompts, &file, path), existing) {
            (_, Existing::Replace) => Found::default(),
            // What does not check out in a cache is made again: it is ours, not the user's.
            (Err(_), Existing::Cache) => Found::default(),
            (found, _) => found?,
        };
        file.set_len(found.bytes).map_err(io)?;
        Ok((file, found.rows))
    }

    /// What a file has of the rows that are to be drawn; an error names its first line that is not of
    /// them.
    pub(super) fn found(&self, prompts: &[Prompt], file: &File, path: &Path) -> Result<Found> {
        let io = |error: std::io::Error| Error::io(path, &error);
        let length = file.metadata().map_err(io)?.len();
        let mut reader = BufReader::new(file);
        let count = self.sampler.config.num_samples;
        let mut found = Found::default();
        loop {
            let refuse = |what: &str| {
                Err(Error::input(what)
                    .hint("name another file, or replace this one")
                    .option("overwrite", "")
                    .at(format!("{}:{}", path.display(), found.rows + 1)))
            };
            let text = match untrusted::line(&mut reader).map_err(io)? {
                Line::End => return Ok(found),
                Line::TooLong => return refuse("is not a sample that can be resumed"),
                Line::Whole(text) => text,
            };
            let (prompt, index) = (prompts.get(found.rows / count), found.rows % count);
            let Some(prompt) = prompt else {
                return refuse("the file has more samples than there are to draw");
            };
            let end = found.bytes + text.len() as u64 + 1;
            if end > length {
                // The row that was being written begins as the one that is due.
                let start = format!("{{\"prompt\":{},", serde_json::json!(prompt.text));
                let shorter = text.len().min(start.len());
                // After a power cut the end of a file may be nothing but zeros.
                let lost = text.iter().all(|byte| *byte == 0);
                return match lost || text[..shorter] == start.as_bytes()[..shorter] {
                    true => Ok(found),
                    false => refuse("is not a sample that can be resumed"),
                };
            }
            let Ok(line) = serde_json::from_slice::<Row>(&text) else {
                return refuse("is not a sample that can be resumed");
            };
            if line.prompt != prompt.text {
                return match prompts.iter().any(|other| other.text == line.prompt) {
                    true => refuse("was drawn with another number of samples, or other prompts"),
                    false => refuse("is of a prompt that is not asked for"),
                };
            }
            if line.draw != self.draw(prompt) {
                return refuse("was drawn from another model or with other settings");
            }
            if line.reference != self.reference.as_ref().map(|reference| reference.name()) {
                return refuse("was scored by another reference, or by none");
            }
            if line.index != index {
                return refuse("was drawn with another number of samples");
            }
            found.rows += 1;
            found.bytes = end;
        }
    }
}

/// The whole rows of a file.
#[derive(Default)]
pub(super) struct Found {
    pub rows: usize,
    bytes: u64,
}

/// The rows of a whole sample file: prompt, index and response.
pub(super) fn responses(
    path: &Path,
) -> Result<impl Iterator<Item = Result<(String, usize, String)>>> {
    let mut reader = BufReader::new(untrusted::open(path)?);
    let place = path.display().to_string();
    let mut number = 0;
    Ok(std::iter::from_fn(move || {
        number += 1;
        let refuse = |what: &str| Error::input(what).at(format!("{place}:{number}"));
        match untrusted::line(&mut reader) {
            Ok(Line::End) => None,
            Ok(Line::Whole(text)) => {
                let row = serde_json::from_slice::<Row>(&text);
                let row = row.map_err(|_| refuse("is not a sample"));
                Some(row.map(|row| (row.prompt, row.index, row.response)))
            }
            Ok(Line::TooLong) => Some(Err(untrusted::too_long().at(format!("{place}:{number}")))),
            Err(error) => Some(Err(Error::io(&place, &error))),
        }
    }))
}
