//! The file of drawn responses, and how one that was interrupted goes on.
//!
//! JSON lines with `prompt`, `response`, `token_ids`, `log_prob` (the model's own, in nats, summed),
//! `finish_reason`, `index`, `seed`; and `draw`, a hash of all that the responses to the prompt depend
//! on, by which a file that another run left behind is told from one to go on with.
//!
//! *Why*: every row is a function of its prompt and number, and rows are written in order. So what
//! a file lacks is what comes after its last whole line, and nothing else needs to be remembered.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Drawn, Job, Sampler, batches};
use crate::checkpoint::{lock, try_lock};
use crate::data::Prompt;
use crate::door::{self, Line};
use crate::error::{Error, Result};

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
    /// The responses it is to have.
    pub total: usize,
}

/// What becomes of a file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is gone on with, or refused.
    Continue,
    /// It is refused.
    Refuse,
    /// It is drawn from its start.
    Replace,
    /// It is nobody's but this program's: waited for while another process writes to it, gone on
    /// with if it checks out, else drawn from its start.
    Cache,
}

impl Sampler<'_> {
    /// Draws every response to `prompts` that the file `path` does not have yet, and appends them
    /// in the order of prompts and numbers. `progress` is told of the responses in the file, those
    /// it will have, and the tokens drawn, and says whether to go on.
    ///
    /// # Errors
    /// If the file has rows of other prompts, another model or other settings, or another process
    /// writes to it.
    pub fn write(
        &self,
        prompts: &[Prompt],
        path: &Path,
        existing: Existing,
        progress: &mut dyn FnMut(usize, usize, usize) -> bool,
    ) -> Result<Written> {
        for prompt in prompts {
            self.room(prompt)?;
        }
        let count = self.config.num_samples;
        let total = prompts.len() * count;
        let (mut file, found) = self.open(prompts, path, existing)?;
        let mut written = Written {
            responses: found,
            found,
            total,
            ..Written::default()
        };
        let mut go_on = progress(found, total, 0);
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
            if !go_on {
                break;
            }
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
            go_on = progress(written.responses, total, written.tokens);
        }
        file.sync_all().map_err(|error| Error::io(path, &error))?;
        Ok(written)
    }

    fn line(&self, prompt: &Prompt, index: usize, drawn: &Drawn) -> Result<String> {
        let line = Row {
            prompt: prompt.text.clone(),
            response: self.text(prompt, drawn)?,
            token_ids: drawn.ids.clone(),
            log_prob: drawn.log_prob,
            finish_reason: if drawn.finished { "stop" } else { "length" }.into(),
            index,
            seed: self.config.seed,
            draw: self.draw(prompt),
        };
        let text = serde_json::to_string(&line).map_err(|e| Error::failed(e.to_string()))?;
        Ok(text + "\n")
    }

    /// The file, locked and ready for its next row, and the number of rows it has.
    fn open(&self, prompts: &[Prompt], path: &Path, existing: Existing) -> Result<(File, usize)> {
        let io = |error: std::io::Error| Error::io(path, &error);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        if path.exists() {
            door::open(path)?;
        }
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(io)?;
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
            return Err(Error::input("is there already")
                .hint("go on with it with --resume auto, replace it with --overwrite, or name another")
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
    fn found(&self, prompts: &[Prompt], file: &File, path: &Path) -> Result<Found> {
        let io = |error: std::io::Error| Error::io(path, &error);
        let length = file.metadata().map_err(io)?.len();
        let mut reader = BufReader::new(file);
        let count = self.config.num_samples;
        let mut found = Found::default();
        loop {
            let refuse = |what: &str| {
                Err(Error::input(what)
                    .hint("name another file, or replace this one with --overwrite")
                    .at(format!("{}:{}", path.display(), found.rows + 1)))
            };
            let text = match door::line(&mut reader).map_err(io)? {
                Line::End => return Ok(found),
                Line::TooLong => return refuse("is not a sample that could be gone on from"),
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
                    false => refuse("is not a sample that could be gone on from"),
                };
            }
            let Ok(line) = serde_json::from_slice::<Row>(&text) else {
                return refuse("is not a sample that could be gone on from");
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
struct Found {
    rows: usize,
    bytes: u64,
}
