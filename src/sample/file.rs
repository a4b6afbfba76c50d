//! The file of drawn responses, and how one that was interrupted goes on.
//!
//! JSON lines with `prompt`, `response`, `token_ids`, `log_prob` (the model's own, in nats, summed),
//! `finish_reason`, `index`, `seed`; and `draw`, a hash of the model, its tokenizer and the settings,
//! by which a file that another run left behind is told from one to go on with.
//!
//! *Why*: every row is a function of its prompt and number, and rows are written in order. So what
//! a file lacks is what comes after its last whole line, and nothing else needs to be remembered.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Drawn, Job, Sampler, batches};
use crate::data::Prompt;
use crate::error::{Error, Result};

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

impl Sampler<'_> {
    /// Draws every response to `prompts` that the file `path` does not have yet, and appends them
    /// in the order of prompts and numbers; all of them where `overwrite`. `progress` is told of
    /// the responses in the file, those it will have, and the tokens drawn.
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
        let whole = bytes
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |at| at + 1);
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
            let (number, index) = (
                found / self.config.num_samples,
                found % self.config.num_samples,
            );
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
