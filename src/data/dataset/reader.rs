//! From rows to examples: the passes over a dataset.
//!
//! Hides the order of the passes, and the text that lies between file and tokens.
//!
//! *Why*: which answers an example has must be settled before its length is decided, and which rows
//! are usable before answers go from one to another. So a row is read, given its samples and
//! mismatched answers, tokenized, cut. All of it happens to a few megabytes of text at a time, on all cores.

use super::Dataset;
use super::build::{Draft, build};
use super::inspect::Inspection;
use super::left_out::LeftOut;
use super::mismatch::MismatchedPairs;
use super::mixture::Mixture;
use super::render::{Renderer, TextExample};
use super::row::{self, RowReader};
use super::samples::Samples;
use super::scores;
use super::store::Store;
use crate::data::chat::Content;
use crate::data::config::RowConfig;
use crate::data::example::{Example, Response};
use crate::data::format::{Reading, RowExample};
use crate::data::rows::invalid::{Invalid, RowError};
use crate::data::rows::read::{Place, Record, Row};
use crate::data::rows::report::Tally;
use crate::data::rows::{Files, Weighted};
use crate::data::tokens::TokenRule;
use crate::data::tokens::Tokenizer;
use crate::data::tokens::length::Cuts;
use crate::error::{Error, Result};
use crate::loss::{Needs, Role};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::mem;

/// The bytes of text that are tokenised together.
pub(super) const CHUNK: usize = 8 << 20;

/// What a dataset is read from.
pub(super) struct Source<'a> {
    pub files: &'a Files,
    pub config: &'a RowConfig,
    pub tokenizer: &'a Tokenizer,
    pub needs: &'a Needs,
    pub samples: Option<&'a Samples>,
}

/// [`Dataset::open`] into this store, by chunks of so many bytes, with a look at the row `watched`.
pub(super) fn read(
    source: &Source,
    watched: Option<usize>,
    store: Store,
    chunk: usize,
) -> Result<(Dataset, Option<Inspection>)> {
    let checked = source.config.validate();
    checked.map_err(|error| error.at_key("data"))?;
    let format = source
        .config
        .format
        .of(source.files, &source.config.columns)?;
    let fits = source.config.check(format);
    fits.map_err(|error| error.at_key("data"))?;
    let mut reader = Reader {
        source,
        rule: TokenRule::new(&source.config.tokens, source.tokenizer),
        samples: samples(source)?,
        watched,
        found: None,
        left_out: LeftOut::new(
            source.files,
            source.config.on_invalid,
            source.config.max_invalid_fraction,
        ),
        spoken: [false; Role::ALL.len()],
        rows: RowReader::of_rows(format, source.config),
        mixture: Mixture::new(source.files),
        waiting: Vec::new(),
        bytes: 0,
        chunk,
        tally: Tally::default(),
        hasher: Sha256::new(),
        dataset: Dataset::empty(store),
    };
    reader.read_all()?;
    let Reader {
        tally,
        mut hasher,
        mut dataset,
        found,
        left_out,
        rows,
        spoken,
        mixture,
        ..
    } = reader;
    if let Some(mixture) = mixture {
        dataset.repeat(&mixture.order(&mut hasher));
        dataset.report.mixture = mixture.into_counts();
    }
    dataset.report.invalid = left_out.invalid;
    dataset.report.unread = rows.unread();
    if *format != *source.config.format {
        let note = format!("the first rows are of format `{}`", format.name);
        dataset.report.notes.push(note);
    }
    dataset.report.notes.extend(one_class(source.needs, spoken));
    dataset.report.measure(&tally);
    dataset.fingerprint = format!("{:x}", hasher.finalize());
    Ok((dataset, found))
}

struct Reader<'a> {
    source: &'a Source<'a>,
    rule: TokenRule<'a>,
    // Those that every row needs one of.
    samples: Option<&'a Samples>,
    // A row that somebody wants to see, so that it may not be left out.
    watched: Option<usize>,
    found: Option<Inspection>,
    left_out: LeftOut<'a>,
    rows: RowReader<'a>,
    // Whether an answer has the role, in the order of `Role::ALL`.
    spoken: [bool; Role::ALL.len()],
    // Where a file has a weight.
    mixture: Option<Mixture>,
    // Rows that are not tokenised yet, and the bytes that they take, up to those of a chunk.
    waiting: Vec<Draft>,
    bytes: usize,
    chunk: usize,
    tally: Tally,
    hasher: Sha256,
    dataset: Dataset,
}

// None where the loss does not read any.
fn samples<'a>(source: &Source<'a>) -> Result<Option<&'a Samples>> {
    let Source { needs, samples, .. } = *source;
    if !needs.all.contains(&Role::Sampled) {
        return Ok(samples.filter(|_| needs.optional.contains(&Role::Sampled)));
    }
    let none = || {
        Error::input("the loss needs responses drawn from the reference, and there are none")
            .hint("name a file of samples")
            .at_key("data.samples")
    };
    samples.ok_or_else(none).map(Some)
}

impl Reader<'_> {
    fn read_all(&mut self) -> Result<()> {
        let Source { files, needs, .. } = *self.source;
        let renderer = Renderer::new(&self.source.config.tokens, self.source.tokenizer);
        let mismatches = needs.batch.contains(&Role::Mismatched);
        let mut pairs = MismatchedPairs::default();
        // Of every name in the list: rows that are used, and rows that cannot be.
        let mut parts = vec![(0, 0); files.names().count()];
        for weighted in files.weighted(self.source.config.seed) {
            let weighted = weighted?;
            self.dataset.report.rows += 1;
            if let Some(mixture) = &mut self.mixture {
                mixture.count(&weighted);
            }
            let Weighted {
                number,
                part,
                times,
                record,
            } = weighted;
            if times == 0 {
                self.check_watched(number, &record.place)?;
                continue;
            }
            let drafts = self.drafts(number, record, &renderer)?;
            parts[part].0 += drafts.len();
            parts[part].1 += usize::from(drafts.is_empty());
            for draft in drafts {
                match mismatches {
                    true => pairs.push(draft)?,
                    false => self.take(draft)?,
                }
            }
        }
        if self.mixture.as_ref().is_some_and(Mixture::is_empty) {
            let rows = self.dataset.report.rows;
            let what = format!("the weights leave out all of {rows} rows");
            return Err(Error::input(what).at(files));
        }
        self.left_out.check_parts(&parts)?;
        if mismatches {
            let rows = self.dataset.report.rows;
            self.left_out.check(rows, pairs.len())?;
            let drafts = pairs.drafts(needs.mismatch_group);
            for draft in drafts.map_err(|error| error.at(files))? {
                self.take(draft?)?;
            }
        }
        self.tokenise()?;
        let rows = self.dataset.report.rows;
        self.left_out.check(rows, self.dataset.len())
    }

    // None where the row is left out; several where its ranked answers make several pairs.
    fn drafts(&mut self, number: usize, record: Record, renderer: &Renderer) -> Result<Vec<Draft>> {
        let place = record.place;
        let mut is_tie = false;
        let read = |row: Row| -> std::result::Result<Vec<TextExample>, RowError> {
            let examples = self.read(&row, number)?.into_iter();
            let render = |example: RowExample| {
                is_tie |= row::is_tie(&example);
                let text = renderer.example(example);
                let text = text.map_err(|error| error.at(&place))?;
                match self.samples.is_none_or(|all| all.has(&text.prompt)) {
                    true => Ok(text),
                    false => Err(RowError::from(Invalid::NoSample).at(&place)),
                }
            };
            examples.map(render).collect()
        };
        let row = record
            .row
            .map_err(|error| RowError::Unusable(Invalid::NotAnObject, error));
        match row.and_then(read) {
            Ok(texts) => {
                if is_tie {
                    let name = self.source.files.name(&place);
                    self.dataset.report.identical.add(name);
                }
                let draft = |text| Draft::new(number, place.clone(), text);
                Ok(texts.into_iter().map(draft).collect())
            }
            Err(error) => {
                self.leave_out(error, number, &place)?;
                Ok(Vec::new())
            }
        }
    }

    // What the row has for the loss, or why it cannot be used.
    fn read(&mut self, row: &Row, number: usize) -> std::result::Result<Vec<RowExample>, RowError> {
        let config = self.source.config;
        let (mut example, row) = self.rows.read(row)?;
        if !self.reads(Role::Chosen) && !self.reads(Role::Rejected) {
            // Its prompt is all that is wanted, whatever its answers and their labels say.
            example
                .prompt
                .get_or_insert_with(|| Content::Text(String::new()));
            example.answers.clear();
            example.preference = None;
            return Ok(vec![example]);
        }
        let pairs = example.pairs(config.pairing, number).into_iter();
        pairs.map(|example| self.usable(&row, example)).collect()
    }

    fn usable(&self, row: &Row, mut example: RowExample) -> Reading {
        let Source { config, needs, .. } = *self.source;
        row::check_answers(&example)?;
        scores::apply(config.scores, needs.scores, row, &mut example)?;
        let roles: Vec<Role> = example.answers.iter().map(|(role, _)| *role).collect();
        if roles == [Role::Rejected] && !self.reads(Role::Rejected) {
            return Err(Invalid::NothingChosen.into());
        }
        let has_pair = roles.len() > 1;
        let needed = self.needed(example);
        needed.map_err(|error| match has_pair {
            true => error.at(&row.place).into(),
            false => self.rows.without_answer(row, error).at(&row.place).into(),
        })
    }

    fn reads(&self, role: Role) -> bool {
        self.source.needs.all.contains(&role) || self.source.needs.any.contains(&role)
    }

    // Only what the loss needs, all of it. Whether there are samples shows later.
    fn needed(&self, mut example: RowExample) -> Result<RowExample> {
        let given = example.answers.iter().map(|(role, _)| *role);
        let roles: Vec<Role> = given.chain([Role::Sampled]).collect();
        self.source.needs.check(&roles, example.preference)?;
        example.answers.retain(|(role, _)| self.reads(*role));
        Ok(example)
    }

    fn take(&mut self, mut draft: Draft) -> Result<()> {
        if let Some(samples) = self.samples {
            draft.samples = samples.of(&draft.text.prompt)?;
        }
        self.bytes += draft.bytes();
        self.waiting.push(draft);
        match self.bytes > self.chunk {
            true => self.tokenise(),
            false => Ok(()),
        }
    }

    fn tokenise(&mut self) -> Result<()> {
        self.bytes = 0;
        let drafts = mem::take(&mut self.waiting);
        let (config, rule) = (self.source.config, self.rule);
        let built = parallel(&drafts, |draft| build(draft, config, &rule));
        for (draft, built) in drafts.iter().zip(built) {
            let built = match built {
                Ok(built) => built,
                Err(error) => {
                    let error = RowError::of_tokens(error).at(&draft.place);
                    self.leave_out(error, draft.row, &draft.place)?;
                    continue;
                }
            };
            let example = &built.example;
            let mut responses = example.responses.iter();
            if responses.any(|response| example.scored_tokens(response) == 0) {
                let error = RowError::from(Invalid::NothingToScore).at(&draft.place);
                self.leave_out(error, draft.row, &draft.place)?;
                continue;
            }
            let report = &mut self.dataset.report;
            if built.cuts != Cuts::default() {
                report.cut.add(self.source.files.name(&draft.place));
            }
            report.cut_prompts += usize::from(built.cuts.prompt);
            report.cut_responses += built.cuts.responses.len();
            if let Some(token) = built.other_end.and_then(|id| rule.tokenizer.token(id)) {
                *report.other_ends.entry(token).or_default() += 1;
            }
            report.boundary_merges += usize::from(built.merged.contains(&true));
            let unfinished = |response: &&Response| !rule.is_finished(&response.ids);
            report.unfinished_responses += example.responses.iter().filter(unfinished).count();
            report.count(example, &mut self.tally);
            if self.watched == Some(draft.row) {
                self.found = Some(Inspection::new(draft, &built));
            }
            for response in &example.responses {
                self.spoken[response.role as usize] = true;
            }
            identify(example, &mut self.hasher);
            self.dataset.push(example)?;
            if let Some(mixture) = &mut self.mixture {
                mixture.keep(draft.row);
            }
        }
        Ok(())
    }

    // A row that its file's weight leaves out.
    fn check_watched(&self, row: usize, place: &Place) -> Result<()> {
        match self.watched == Some(row) {
            true => Err(Error::input("the weight of its file leaves the row out").at(place)),
            false => Ok(()),
        }
    }

    fn leave_out(&mut self, error: RowError, row: usize, place: &Place) -> Result<()> {
        if self.watched == Some(row) {
            let error = error.placed(place).into_error();
            let hint = match error.remedy() {
                Some(remedy) => format!("the row is left out; {remedy}"),
                None => "the row is left out".to_owned(),
            };
            return Err(error.hint(hint));
        }
        self.left_out.add(error, place)
    }
}

// What a loss that learns from either kind of answer is short of.
fn one_class(needs: &Needs, spoken: [bool; Role::ALL.len()]) -> Option<String> {
    let both = [Role::Chosen, Role::Rejected];
    if !both.iter().all(|role| needs.any.contains(role)) {
        return None;
    }
    let (all, none) = match both.map(|role| spoken[role as usize]) {
        [true, false] => ("desirable", "an undesirable"),
        [false, true] => ("undesirable", "a desirable"),
        _ => return None,
    };
    Some(format!(
        "every answer is {all}, none {none} one: the loss learns from both"
    ))
}

fn identify(example: &Example, hasher: &mut Sha256) {
    hasher.update((example.responses.len() as u64).to_le_bytes());
    // No label is another thing than any label.
    let label = example.preference.map_or([0xff; 8], f64::to_le_bytes);
    hasher.update(label);
    if let Some(gap) = example.score_gap() {
        hasher.update(gap.to_le_bytes());
    }
    example.feed(hasher);
}

// In order, on all cores. Fewer items than this per task are not worth waking a thread for.
fn parallel<T: Sync, U: Send>(items: &[T], work: impl Fn(&T) -> U + Sync) -> Vec<U> {
    items.par_iter().with_min_len(64).map(&work).collect()
}

#[cfg(test)]
mod tests;
