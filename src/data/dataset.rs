//! From a file to examples: the passes over a dataset.
//!
//! Hides the order of the passes, and the text that lies between file and tokens.
//!
//! *Why*: which answers an example has must be settled before its length is decided, and which rows
//! are usable before answers go from one to another. So: read, join samples, lend answers,
//! tokenise, cut, each over all rows.

use super::build::{Draft, build};
use super::census::{Census, Invalid};
use super::chat::Content;
use super::config::{DataConfig, OnInvalid};
use super::files::Files;
use super::format::{Reading, RowExample};
use super::inspect::Inspection;
use super::mismatch::mismatched_answers;
use super::read::{Place, Row};
use super::render::{Answer, Renderer};
use super::samples::Samples;
use super::tokens::TokenRule;
use super::{Example, Response, Tokenizer, scores};
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
    /// SHA-256, in hex, of all examples as tokens, with their order, soft labels and gaps between scores.
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
        Ok(open(files, config, tokenizer, needs, samples, None)?.0)
    }

    /// As [`open`](Self::open), with a look at the row of this number.
    ///
    /// # Errors
    /// Also if there is no such row, or it cannot be used; with the reason.
    pub fn inspect(
        files: &Files,
        config: &DataConfig,
        tokenizer: &Tokenizer,
        needs: &Needs,
        samples: Option<&Samples>,
        row: usize,
    ) -> Result<(Self, Inspection)> {
        let (dataset, found) = open(files, config, tokenizer, needs, samples, Some(row))?;
        let missing = || {
            let rows = dataset.census.rows;
            Error::input(format!("there is no row {row}"))
                .hint(format!("rows are counted from 0; {rows} were read"))
                .at(files)
        };
        let inspection = found.ok_or_else(missing)?;
        Ok((dataset, inspection))
    }
}

fn open(
    files: &Files,
    config: &DataConfig,
    tokenizer: &Tokenizer,
    needs: &Needs,
    samples: Option<&Samples>,
    watched: Option<usize>,
) -> Result<(Dataset, Option<Inspection>)> {
    config.validate()?;
    let mut reader = Reader {
        files,
        config,
        needs,
        watched,
        census: Census::default(),
    };
    let mut drafts = reader.drafts(&Renderer::new(config, tokenizer))?;
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
    let mut inspection = None;
    for (draft, built) in drafts.iter().zip(built) {
        let built = built.map_err(|error| error.at(&draft.place))?;
        let example = &built.example;
        let mut responses = example.responses.iter();
        if responses.any(|response| example.scored_tokens(response) == 0) {
            reader.invalid(Invalid::NothingToScore, draft.row, &draft.place)?;
            continue;
        }
        let census = &mut reader.census;
        census.cut_prompts += usize::from(built.cuts.prompt);
        census.cut_responses += built.cuts.responses.len();
        census.boundary_merges += usize::from(built.merged.contains(&true));
        let unfinished = |response: &&Response| !rule.is_finished(&response.ids);
        census.unfinished_responses += example.responses.iter().filter(unfinished).count();
        if watched == Some(draft.row) {
            inspection = Some(Inspection::new(draft, &built));
        }
        examples.push(built.example);
    }
    reader.usable(examples.len())?;
    reader.census.measure(&examples);
    let dataset = Dataset {
        fingerprint: fingerprint(&examples),
        examples,
        census: reader.census,
    };
    Ok((dataset, inspection))
}

struct Reader<'a> {
    files: &'a Files,
    config: &'a DataConfig,
    needs: &'a Needs,
    // A row that somebody wants to see, so that it may not be left out.
    watched: Option<usize>,
    census: Census,
}

impl<'a> Reader<'a> {
    fn drafts(&mut self, renderer: &Renderer) -> Result<Vec<Draft<'a>>> {
        let mut drafts = Vec::new();
        for row in self.files.rows() {
            let (number, row) = row?;
            self.census.rows += 1;
            match self.read(&row)? {
                Err(reason) => self.invalid(reason, number, &row.place)?,
                Ok(example) => drafts.push(Draft {
                    row: number,
                    text: renderer
                        .example(example)
                        .map_err(|error| error.at(&row.place))?,
                    place: row.place,
                    samples: &[],
                    mismatched: Vec::new(),
                }),
            }
        }
        self.usable(drafts.len())?;
        Ok(drafts)
    }

    // What the row has for the loss, or why it cannot be used.
    fn read(&self, row: &Row) -> Result<Reading> {
        let mut example = match self.config.format.example(row)? {
            Ok(example) => example,
            Err(reason) => return Ok(Err(reason)),
        };
        if !self.reads(Role::Chosen) && !self.reads(Role::Rejected) {
            // Its prompt is all that is wanted, whatever its answers and their labels say.
            example
                .prompt
                .get_or_insert_with(|| Content::Text(String::new()));
            example.answers.clear();
            example.preference = None;
            return Ok(Ok(example));
        }
        if example.answers.iter().any(|(_, answer)| answer.is_blank()) {
            return Ok(Err(Invalid::EmptyAnswer));
        }
        if let Some(reason) =
            scores::apply(self.config.scores, self.needs.scores, row, &mut example)?
        {
            return Ok(Err(reason));
        }
        let roles: Vec<Role> = example.answers.iter().map(|(role, _)| *role).collect();
        if roles == [Role::Rejected] && !self.reads(Role::Rejected) {
            return Ok(Err(Invalid::NothingChosen));
        }
        self.needed(example)
            .map(Ok)
            .map_err(|error| error.at(&row.place))
    }

    fn reads(&self, role: Role) -> bool {
        self.needs.all.contains(&role) || self.needs.any.contains(&role)
    }

    // Only what the loss needs, all of it. Whether there are samples shows later.
    fn needed(&self, mut example: RowExample) -> Result<RowExample> {
        let given = example.answers.iter().map(|(role, _)| *role);
        let roles: Vec<Role> = given.chain([Role::Sampled]).collect();
        self.needs.check(&roles, example.preference)?;
        example.answers.retain(|(role, _)| self.reads(*role));
        Ok(example)
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
                self.invalid(Invalid::NoSample, draft.row, &draft.place)?;
            }
        }
        drafts.retain(|draft| !draft.samples.is_empty());
        self.usable(drafts.len())?;
        Ok(drafts)
    }

    fn invalid(&mut self, reason: Invalid, row: usize, place: &Place) -> Result<()> {
        // A rejected answer is no fault of its row.
        let refused =
            self.config.on_invalid == OnInvalid::Error && reason != Invalid::NothingChosen;
        if refused {
            return Err(reason.refuse().at(place));
        }
        if self.watched == Some(row) {
            return Err(Error::input(reason.to_string())
                .hint("the row is left out")
                .at(place));
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
        let answer = Answer {
            role: Role::Mismatched,
            ..drafts[draft].text.answers[answer].clone()
        };
        // z0 averages within an example before it averages over the batch, so the same answer for
        // both rows of a pair counts in full when it is there once.
        if !drafts[borrower].mismatched.contains(&answer) {
            drafts[borrower].mismatched.push(answer);
        }
    }
    Ok(())
}

fn fingerprint(examples: &[Example]) -> String {
    let mut hasher = Sha256::new();
    for example in examples {
        hasher.update((example.responses.len() as u64).to_le_bytes());
        // No label is another thing than any label.
        let label = example.preference.map_or([0xff; 8], f64::to_le_bytes);
        hasher.update(label);
        if let Some(gap) = example.score_gap() {
            hasher.update(gap.to_le_bytes());
        }
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
