//! The examples of files, as many as there are.
//!
//! Hides where their tokens are: an index of lengths is in memory, 40 bytes for an example, and the
//! tokens beside it or, where they are many, in a temporary file.
//!
//! *Why*: a step sees a batch, so a million pairs need no more memory than a batch and an index. What
//! a run asks of all examples, their order and how many tokens they take, the index knows.

mod answers;
mod build;
mod inspect;
mod left_out;
mod look;
mod mismatch;
mod mixture;
mod open;
mod prompts;
mod reader;
mod render;
pub(in crate::data) mod row;
mod samples;
mod scores;
mod store;

use crate::data::batches::pack::{LengthClass, packed_tokens};
use crate::data::example::Example;
use crate::data::rows::RowReport;
use crate::error::Result;
use crate::loss::Role;
use std::collections::HashMap;
use store::{Span, Store};

pub use answers::{ChosenAnswers, chosen_answers};
pub use inspect::{Inspection, Part};
pub use look::{Look, look};
pub use mismatch::mismatched_answers;
pub use prompts::{Prompt, PromptTokens, prompts, read_prompts};
pub use samples::{Sample, Samples, one_each};

/// The examples of files, in their order.
#[derive(Debug)]
pub struct Dataset {
    index: Vec<Entry>,
    // Whether an example may be there more than once.
    repeats: bool,
    store: Store,
    /// What became of the rows.
    pub report: RowReport,
    /// SHA-256, in hex, of all examples as tokens, with their order, soft labels and gaps between scores,
    /// and of how often each is there.
    pub fingerprint: String,
}

/// What is known of an example without its tokens: how many they are.
#[derive(Debug, Clone, Copy)]
struct Entry {
    span: Span,
    prompt: u32,
    // By role, in the order of `Role::ALL`.
    responses: [u32; Role::ALL.len()],
}

impl Dataset {
    /// None yet, kept in `store`.
    fn empty(store: Store) -> Self {
        Self {
            index: Vec::new(),
            repeats: false,
            store,
            report: RowReport::default(),
            fingerprint: String::new(),
        }
    }

    fn push(&mut self, example: &Example) -> Result<()> {
        let mut responses = [0; Role::ALL.len()];
        for response in &example.responses {
            responses[response.role as usize] += response.ids.len() as u32;
        }
        self.index.push(Entry {
            span: self.store.push_value(example)?,
            prompt: example.prompt.len() as u32,
            responses,
        });
        Ok(())
    }

    /// Puts the examples of these places in the place of all.
    fn repeat(&mut self, places: &[usize]) {
        self.repeats = true;
        self.index = places.iter().map(|&place| self.index[place]).collect();
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none, which no file makes.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The tokens of an example's prompt and its responses of these roles, each once.
    pub fn tokens(&self, example: usize, roles: &[Role]) -> usize {
        let entry = &self.index[example];
        let wanted = Role::ALL.iter().filter(|role| roles.contains(role));
        let responses = wanted.map(|role| entry.responses[*role as usize] as usize);
        entry.prompt as usize + responses.sum::<usize>()
    }

    /// The tokens that an example takes in a batch with these roles, packed by these classes.
    ///
    /// # Errors
    /// If the temporary file cannot be read.
    pub fn packed_tokens(
        &self,
        example: usize,
        roles: &[Role],
        class: LengthClass,
    ) -> Result<usize> {
        let tokens = self.tokens(example, roles);
        match class(tokens) {
            // No sequence of it is longer, so the prompt is there once.
            0 => Ok(tokens),
            _ => Ok(packed_tokens(&self.example(example)?, roles, class)),
        }
    }

    /// An example with its tokens.
    ///
    /// # Errors
    /// If the temporary file cannot be read.
    pub fn example(&self, example: usize) -> Result<Example> {
        self.store.value(self.index[example].span)
    }

    /// All examples, read one by one.
    ///
    /// # Errors
    /// As of [`example`](Self::example).
    pub fn examples(&self) -> impl Iterator<Item = Result<Example>> + '_ {
        (0..self.len()).map(|example| self.example(example))
    }

    /// Of each example the first one that is the same example of the same row; `None` where no row is
    /// there more than once.
    pub fn originals(&self) -> Option<Vec<usize>> {
        if !self.repeats {
            return None;
        }
        let mut first = HashMap::new();
        let entries = self.index.iter().enumerate();
        let originals: Vec<usize> = entries
            .map(|(example, entry)| *first.entry(entry.span.at).or_insert(example))
            .collect();
        (first.len() < self.len()).then_some(originals)
    }

    /// The examples without those that repeat an earlier one, in their order.
    pub fn distinct(&self) -> Vec<usize> {
        let all = 0..self.len();
        match self.originals() {
            Some(originals) => all
                .filter(|&example| originals[example] == example)
                .collect(),
            None => all.collect(),
        }
    }

    /// Appends the examples of another one. RowReport and fingerprint stay what they are.
    pub fn append(&mut self, other: Self) -> Result<()> {
        let shift = self.store.append(&other.store)?;
        self.repeats |= other.repeats;
        self.index.extend(other.index.into_iter().map(|mut entry| {
            entry.span.at += shift;
            entry
        }));
        Ok(())
    }
}
