//! From a file to examples: the passes over a dataset.
//!
//! Hides the order of the passes, and the text that lies between file and tokens.
//!
//! *Why*: which answers an example has must be settled before its length is decided, and which rows
//! are usable before answers go from one to another. So: read, join samples, lend answers,
//! tokenise, cut, each over all rows.

use super::census::{Census, Invalid};
use super::config::{DataConfig, OnInvalid};
use super::files::Files;
use super::format::TextExample;
use super::length::{Cuts, cut};
use super::mismatch::mismatched_answers;
use super::read::Place;
use super::samples::{Sample, Samples};
use super::tokens::TokenRule;
use super::{Example, Response, Tokenizer};
use crate::error::{Error, Result};
use crate::loss::{Needs, Role};
use sha2::{Digest, Sha256};
use std::thread;

/// The examples of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// In the order of the file.
    pub examples: Vec<Example>,
    /// What became of the rows.
    pub census: Census,
    /// SHA-256, in hex, of all examples as tokens, with their order and soft labels.
    pub fingerprint: String,
}

impl Dataset {
    /// Reads the rows of `files` into what the loss needs. An example has responses of the needed
    /// roles only; the length limit sees no others.
    ///
    /// `samples` is used where [`Needs::all`] or [`Needs::optional`] has [`Role::Sampled`]; then
    /// every row needs one. Where [`Needs::batch`] has
    /// [`Role::Mismatched`], answers go from row to row by [`mismatched_answers`]. A malformed row is an
    /// error whatever `on_invalid` says, and so is a dataset without a usable row.
    pub fn open(
        files: &Files,
        config: &DataConfig,
        tokenizer: &Tokenizer,
        needs: &Needs,
        samples: Option<&Samples>,
    ) -> Result<Self> {
        config.validate()?;
        let mut reader = Reader {
            files,
            config,
            needs,
            census: Census::default(),
        };
        let mut drafts = reader.drafts()?;
        let drawn = needs.optional.contains(&Role::Sampled) && samples.is_some();
        if drawn || needs.all.contains(&Role::Sampled) {
            drafts = reader.join(drafts, samples)?;
        }
        if needs.batch.contains(&Role::Mismatched) {
            lend(&mut drafts, needs.mismatch_group).map_err(|error| error.at(files))?;
        }
        let rule = TokenRule::new(config, tokenizer);
        let built = parallel(&drafts, |draft| build(draft, config, &rule));
        let mut examples = Vec::with_capacity(drafts.len());
        for (draft, built) in drafts.iter().zip(built) {
            let (example, cuts, merged) = built.map_err(|error| error.at(&draft.place))?;
            if example
                .responses
                .iter()
                .any(|response| example.scored_tokens(response) == 0)
            {
                reader.invalid(Invalid::NothingToScore, &draft.place)?;
                continue;
            }
            let census = &mut reader.census;
            census.cut_prompts += usize::from(cuts.prompt);
            census.cut_responses += cuts.responses;
            census.boundary_merges += usize::from(merged);
            let unfinished = |response: &&Response| !rule.is_finished(&response.ids);
            census.unfinished_responses += example.responses.iter().filter(unfinished).count();
            examples.push(example);
        }
        reader.usable(examples.len())?;
        reader.census.measure(&examples);
        Ok(Self {
            fingerprint: fingerprint(&examples),
            examples,
            census: reader.census,
        })
    }
}

// A row between file and tokens.
struct Draft<'a> {
    row: usize,
    place: Place,
    text: TextExample,
    samples: &'a [Sample],
    mismatched: Vec<String>,
}

struct Reader<'a> {
    files: &'a Files,
    config: &'a DataConfig,
    needs: &'a Needs,
    census: Census,
}

impl<'a> Reader<'a> {
    fn drafts(&mut self) -> Result<Vec<Draft<'a>>> {
        let mut drafts = Vec::new();
        for row in self.files.rows() {
            let (number, row) = row?;
            self.census.rows += 1;
            match self.config.format.example(&row)? {
                Err(reason) => self.invalid(reason, &row.place)?,
                Ok(text) if says_nothing(&text) => {
                    self.invalid(Invalid::EmptyAnswer, &row.place)?;
                }
                Ok(text) => drafts.push(Draft {
                    row: number,
                    text: self.needed(text).map_err(|error| error.at(&row.place))?,
                    place: row.place,
                    samples: &[],
                    mismatched: Vec::new(),
                }),
            }
        }
        self.usable(drafts.len())?;
        Ok(drafts)
    }

    // Only what the loss needs, all of it. Whether there are samples shows later.
    fn needed(&self, mut text: TextExample) -> Result<TextExample> {
        let Needs { all, any, .. } = *self.needs;
        let given = text.answers.iter().map(|(role, _)| *role);
        let roles: Vec<Role> = given.chain([Role::Sampled]).collect();
        self.needs.check(&roles, text.preference)?;
        text.answers
            .retain(|(role, _)| all.contains(role) || any.contains(role));
        Ok(text)
    }

    fn join(
        &mut self,
        mut drafts: Vec<Draft<'a>>,
        samples: Option<&'a Samples>,
    ) -> Result<Vec<Draft<'a>>> {
        let samples = samples.ok_or_else(|| {
            Error::input("the loss needs responses drawn from the reference, and there are none")
                .hint("name a file of `expo sample`")
                .at("data.samples")
        })?;
        for draft in &mut drafts {
            draft.samples = samples.of(&draft.text.prompt);
            if draft.samples.is_empty() {
                self.invalid(Invalid::NoSample, &draft.place)?;
            }
        }
        drafts.retain(|draft| !draft.samples.is_empty());
        self.usable(drafts.len())?;
        Ok(drafts)
    }

    fn invalid(&mut self, reason: Invalid, place: &Place) -> Result<()> {
        if self.config.on_invalid == OnInvalid::Error {
            return Err(reason.refuse().at(place));
        }
        self.census.drop_row(reason, self.files.name(place));
        Ok(())
    }

    fn usable(&self, left: usize) -> Result<()> {
        if left > 0 {
            return Ok(());
        }
        let why = self.census.invalid.iter().map(|(reason, lines)| {
            let Some(first) = lines.first.first() else {
                return reason.to_string();
            };
            format!("{reason} in {} (first: line {first})", lines.rows)
        });
        let (why, rows) = (why.collect::<Vec<_>>().join(", "), self.census.rows);
        Err(
            Error::input(format!("none of {rows} rows is usable: {why}"))
                .hint(self.config.format.columns_hint())
                .at(self.files),
        )
    }
}

fn says_nothing(text: &TextExample) -> bool {
    let mut answers = text.answers.iter();
    answers.any(|(_, answer)| answer.trim().is_empty())
}

// Gives every answer's row the answer of another: a pair is two rows, chosen before rejected.
fn lend(drafts: &mut [Draft], group: Option<usize>) -> Result<()> {
    let rows: Vec<(usize, usize)> = drafts
        .iter()
        .enumerate()
        .flat_map(|(draft, d)| (0..d.text.answers.len()).map(move |answer| (draft, answer)))
        .collect();
    let prompts: Vec<&str> = rows
        .iter()
        .map(|&(draft, _)| drafts[draft].text.prompt.as_str())
        .collect();
    let next = mismatched_answers(&prompts, group)?;
    for (&(borrower, _), lender) in rows.iter().zip(next) {
        let (draft, answer) = rows[lender];
        let text = drafts[draft].text.answers[answer].1.clone();
        // z0 averages within an example before it averages over the batch, so the same answer for
        // both rows of a pair counts in full when it is there once.
        if !drafts[borrower].mismatched.contains(&text) {
            drafts[borrower].mismatched.push(text);
        }
    }
    Ok(())
}

type Built = (Example, Cuts, bool);

fn build(draft: &Draft, config: &DataConfig, rule: &TokenRule) -> Result<Built> {
    let text = &draft.text;
    let prompt = rule.prompt(&text.prompt)?;
    let mut merged = false;
    let mut tokens = |answer: &str, finished: bool| -> Result<Vec<u32>> {
        let continuation = rule.response(&text.prompt, &prompt, answer)?;
        merged |= continuation.merged;
        let mut ids = continuation.ids;
        if finished {
            rule.finish(&mut ids);
        }
        Ok(ids)
    };
    let mut responses = Vec::new();
    for (role, answer) in &text.answers {
        let ids = tokens(answer, true)?;
        responses.push(Response { role: *role, ids });
    }
    for sample in draft.samples {
        let ids = match &sample.ids {
            Some(ids) => ids.clone(),
            None => tokens(&sample.response, sample.finished)?,
        };
        let role = Role::Sampled;
        responses.push(Response { role, ids });
    }
    for answer in &draft.mismatched {
        let ids = tokens(answer, true)?;
        let role = Role::Mismatched;
        responses.push(Response { role, ids });
    }
    let mut example = Example {
        row: draft.row,
        prompt,
        responses,
        preference: text.preference,
    };
    let cuts = cut(&mut example, config, rule.tokenizer);
    Ok((example, cuts, merged))
}

fn fingerprint(examples: &[Example]) -> String {
    let mut hasher = Sha256::new();
    for example in examples {
        hasher.update((example.responses.len() as u64).to_le_bytes());
        // No label is another thing than any label.
        let label = example.preference.map_or([0xff; 8], f64::to_le_bytes);
        hasher.update(label);
        example.feed(&mut hasher);
    }
    format!("{:x}", hasher.finalize())
}

// In order, on all cores.
fn parallel<T: Sync, U: Send>(items: &[T], work: impl Fn(&T) -> U + Sync) -> Vec<U> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let chunk = items.len().div_ceil(threads).max(64);
    let work = &work;
    thread::scope(|scope| {
        let workers: Vec<_> = items
            .chunks(chunk)
            .map(|chunk| scope.spawn(move || chunk.iter().map(work).collect::<Vec<U>>()))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}
