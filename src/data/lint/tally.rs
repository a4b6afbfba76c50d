//! From the facts of rows to findings.
//!
//! *Why*: rows are counted one after the other in the order of the files, whoever read them, so a report
//! does not depend on threads. What is remembered of a row are three hashes.

use super::check::{Check, Level};
use super::facts::{Contents, Facts, Key};
use super::lengths::{LengthBias, LengthSummary, Pairs, Summary};
use super::text::SCRIPTS;
use crate::data::format::Format;
use crate::data::rows::{Files, Invalid, Lines, RowReport};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::mem;

/// The first places of a finding that are kept.
const PLACES: usize = 5;

/// A label that less than this share of the answers has is rare, from [`ENOUGH`] answers on.
const RARE_LABEL: f64 = 0.1;
const ENOUGH: usize = 100;

/// A script that less than one row in so many has is rare, from so many rows on.
const RARE_SCRIPT: usize = 1000;

/// What a check found in the rows of a split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// How serious it is.
    pub level: Level,
    /// What in particular: the reason why rows cannot be used, the script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What is wrong with the first row that cannot be used.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fact: String,
    /// The number of rows.
    pub rows: usize,
    /// Their share of all rows.
    pub share: f64,
    /// The first five places, in the order of the files; of a repeated row with the number of the row
    /// that it repeats.
    pub first: Vec<String>,
}

/// Lengths of the rows that can be used, in characters (Unicode scalar values), and of their conversations.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Statistics {
    /// Of prompts; of a conversation all its messages.
    pub prompt: LengthSummary,
    /// Of chosen, desirable and imitated answers; of a conversation what the assistant says.
    pub chosen: LengthSummary,
    /// Of rejected and undesirable answers.
    pub rejected: LengthSummary,
    /// Of the two answers of pairs.
    pub length_bias: Option<LengthBias>,
    /// Messages of a conversation: of its prompt and first answer.
    pub messages: LengthSummary,
    /// Turns of the assistant among them.
    pub assistant_turns: LengthSummary,
}

/// What was found in the rows of files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitReport {
    /// Rows in the files.
    pub rows: usize,
    /// Those that can be used.
    pub usable: usize,
    /// What was found, in the order of [`Check::ALL`].
    pub findings: Vec<Finding>,
    /// Their lengths.
    pub statistics: Statistics,
}

impl SplitReport {
    /// With what becomes of the rows of `files` in a run: rows that cannot be used for their tokens, the
    /// template or the loss, too, and those of which something is cut.
    #[must_use]
    pub fn with_tokens(mut self, run: &RowReport, files: &Files) -> Self {
        let finding = |check: Check, detail: Option<&str>, lines: &Lines| Finding {
            detail: detail.map(str::to_owned),
            fact: lines.fact.clone(),
            first: lines
                .first
                .iter()
                .take(PLACES)
                .map(|line| place(files, line))
                .collect(),
            ..Finding::new(check, lines.rows, self.rows)
        };
        let unusable = run.invalid.iter();
        let unusable =
            unusable.map(|(reason, lines)| finding(Check::Unusable, Some(reason.name()), lines));
        let cut = Some(&run.cut).filter(|lines| lines.rows > 0);
        let cut = cut.map(|lines| finding(Check::Cut, None, lines));
        let others = mem::take(&mut self.findings).into_iter();
        let others = others.filter(|finding| finding.check != Check::Unusable);
        self.findings = unusable.chain(others).chain(cut).collect();
        self.findings.sort_by_key(|finding| finding.check);
        self.usable = run.kept;
        self
    }

    /// Findings that are most likely faults.
    pub fn warnings(&self) -> usize {
        let warnings = self.findings.iter();
        warnings
            .filter(|finding| finding.level == Level::Warning)
            .count()
    }
}

impl Finding {
    fn new(check: Check, rows: usize, all: usize) -> Self {
        Self {
            check,
            level: check.level(),
            detail: None,
            fact: String::new(),
            rows,
            share: rows as f64 / all.max(1) as f64,
            first: Vec::new(),
        }
    }
}

/// The report of a run names rows of one file by their lines alone.
fn place(files: &Files, line: &str) -> String {
    match files.names().next() {
        Some(path) if !files.several() => format!("{}:{line}", path.display()),
        _ => line.to_owned(),
    }
}

/// Rows that were seen, by hash.
#[derive(Default)]
pub(super) struct Seen {
    /// The first row of these answers to this prompt, and a bit for each order of them.
    answers: HashMap<Key, (u32, u8)>,
    /// The first row that is the same but for case and white space.
    normal: HashMap<Key, u32>,
    /// The first row of this prompt.
    prompts: HashMap<Key, u32>,
}

#[derive(Default)]
pub(super) struct Tally {
    /// Whether each row is one answer with a label.
    labelled: bool,
    rows: usize,
    usable: usize,
    unusable: BTreeMap<Invalid, Lines>,
    found: BTreeMap<Check, Lines>,
    scripts: BTreeMap<usize, Lines>,
    prompt: Summary,
    answers: [Summary; 2],
    pairs: Pairs,
    messages: Summary,
    turns: Summary,
    seen: Seen,
}

impl Tally {
    pub fn new(format: &Format) -> Self {
        Self {
            labelled: !format.has_pairs && !format.splits_turns,
            ..Self::default()
        }
    }

    /// Counts a row of a split; `train` are the rows that it may have leaked from.
    pub fn add(&mut self, facts: &Facts, train: Option<&Seen>) {
        self.rows += 1;
        let place = || facts.place.to_string();
        let contents = match &facts.contents {
            Ok(contents) => contents,
            Err((reason, error)) => {
                let lines = self.unusable.entry(*reason).or_default();
                return lines.add_unusable(place(), error);
            }
        };
        self.usable += 1;
        for check in Check::ALL.iter().filter(|check| contents.fails(**check)) {
            self.found.entry(*check).or_default().add(place());
        }
        for script in (0..SCRIPTS.len()).filter(|bit| contents.scripts >> bit & 1 == 1) {
            let lines = self.scripts.entry(script).or_default();
            // Nearly every row has letters of some script, and its place is rarely wanted.
            match lines.rows < PLACES {
                true => lines.add(place()),
                false => lines.rows += 1,
            }
        }
        self.measure(contents);
        let repeated = self.seen.look_up(contents);
        let leaked = train.and_then(|train| train.leaked(contents));
        for (check, row) in repeated.into_iter().chain(leaked) {
            let line = format!("{} = row {row}", facts.place);
            self.found.entry(check).or_default().add(line);
        }
        self.seen.insert(facts.number, contents);
    }

    fn measure(&mut self, contents: &Contents) {
        let [_, chosen, rejected] = contents.lengths;
        let summaries = [&mut self.prompt].into_iter().chain(&mut self.answers);
        for (summary, length) in summaries.zip(contents.lengths) {
            length.into_iter().for_each(|length| summary.add(length));
        }
        if let Some((chosen, rejected)) = chosen.zip(rejected) {
            self.pairs.add(chosen, rejected);
        }
        if let Some([messages, turns]) = contents.turns {
            self.messages.add(messages);
            self.turns.add(turns);
        }
    }

    /// The report, and what was seen.
    pub fn finish(mut self) -> (SplitReport, Seen) {
        let statistics = Statistics {
            prompt: self.prompt.finish(),
            chosen: self.answers[0].finish(),
            rejected: self.answers[1].finish(),
            length_bias: Some(self.pairs.finish()).filter(|bias| bias.pairs > 0),
            messages: self.messages.finish(),
            assistant_turns: self.turns.finish(),
        };
        self.whole(&statistics);
        let rows = self.rows;
        let finding = |check: Check, detail: Option<String>, lines: Lines| Finding {
            detail,
            fact: lines.fact,
            first: lines.first.into_iter().take(PLACES).collect(),
            ..Finding::new(check, lines.rows, rows)
        };
        let unusable = self
            .unusable
            .into_iter()
            .map(|(reason, lines)| finding(Check::Unusable, Some(reason.name().to_owned()), lines));
        let found = self
            .found
            .into_iter()
            .map(|(check, lines)| finding(check, None, lines));
        let scripts = self
            .scripts
            .into_iter()
            .filter(|(_, lines)| lines.rows * RARE_SCRIPT < rows);
        let scripts = scripts.map(|(script, lines)| {
            finding(Check::RareScript, Some(SCRIPTS[script].to_owned()), lines)
        });
        let report = SplitReport {
            rows,
            usable: self.usable,
            findings: unusable.chain(found).chain(scripts).collect(),
            statistics,
        };
        (report, self.seen)
    }

    /// What only shows in all rows together.
    fn whole(&mut self, statistics: &Statistics) {
        let lines = |rows| Lines {
            rows,
            ..Lines::default()
        };
        if let Some(bias) = statistics.length_bias.filter(LengthBias::is_strong) {
            let shorter = bias.pairs - bias.chosen_longer - bias.equal;
            let rows = bias.chosen_longer.max(shorter);
            self.found.insert(Check::LengthBias, lines(rows));
        }
        let labels = [statistics.chosen.count, statistics.rejected.count];
        let all = labels[0] + labels[1];
        let rarer = labels[0].min(labels[1]);
        if self.labelled
            && all > 0
            && (rarer == 0 || (all >= ENOUGH && (rarer as f64) < RARE_LABEL * all as f64))
        {
            self.found.insert(Check::LabelImbalance, lines(all - rarer));
        }
    }
}

impl Seen {
    /// What an earlier row had, with the number of that row.
    fn look_up(&self, contents: &Contents) -> Option<(Check, u32)> {
        if let Some((row, orders)) = self.answers.get(&contents.answers) {
            let check = match orders >> contents.order & 1 {
                1 => Check::DuplicateRow,
                _ => Check::Contradiction,
            };
            return Some((check, *row));
        }
        if let Some(row) = self.normal.get(&contents.normal) {
            return Some((Check::NearDuplicate, *row));
        }
        let row = self.prompts.get(&contents.prompt?)?;
        Some((Check::DuplicatePrompt, *row))
    }

    fn leaked(&self, contents: &Contents) -> Option<(Check, u32)> {
        if let Some((row, _)) = self.answers.get(&contents.answers) {
            return Some((Check::LeakedRow, *row));
        }
        let row = self.prompts.get(&contents.prompt?)?;
        Some((Check::LeakedPrompt, *row))
    }

    fn insert(&mut self, number: usize, contents: &Contents) {
        // A number beyond four billion only names another row.
        let row = number as u32;
        let (_, orders) = self.answers.entry(contents.answers).or_insert((row, 0));
        *orders |= 1 << contents.order;
        self.normal.entry(contents.normal).or_insert(row);
        if let Some(prompt) = contents.prompt {
            self.prompts.entry(prompt).or_insert(row);
        }
    }
}
