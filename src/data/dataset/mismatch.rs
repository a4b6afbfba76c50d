//! KTO's mismatched answers.
//!
//! Hides which row takes the answer of which, and where the rows are until that is known.
//!
//! *Why*: the pairing is fixed when the data is read, not drawn per batch, so the reference's
//! log-prob of a mismatched answer is a column like any other and micro-batching changes nothing.
//! It is known when the last row is: until then of each row its place is in memory, not its text.

use std::ops::Range;

use super::build::Draft;
use super::render::{Answer, TextExample};
use super::store::{Key, Span, Store, key};
use crate::data::rows::read::Place;
use crate::error::{Error, Result};
use crate::loss::Role;

/// Rows that wait for the answers of others.
#[derive(Default)]
pub(super) struct MismatchedPairs {
    texts: Store,
    rows: Vec<Waiting>,
    // Of every answer of every row, in order: the row, its own number, and the prompt.
    answers: Vec<(usize, usize)>,
    prompts: Vec<Key>,
}

struct Waiting {
    row: usize,
    place: Place,
    text: Span,
}

impl MismatchedPairs {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn push(&mut self, draft: Draft) -> Result<()> {
        let prompt = key(&draft.text.prompt);
        for answer in 0..draft.text.answers.len() {
            self.answers.push((self.rows.len(), answer));
            self.prompts.push(prompt);
        }
        self.rows.push(Waiting {
            row: draft.row,
            place: draft.place,
            text: self.texts.push_value(&draft.text)?,
        });
        Ok(())
    }

    /// The rows, each answer with the answer of another row beside it: a pair is two rows, chosen before
    /// rejected.
    pub fn drafts(self, group: Option<usize>) -> Result<impl Iterator<Item = Result<Draft>>> {
        let mut sources = mismatched_answers(&self.prompts, group)?.into_iter();
        Ok((0..self.len()).map(move |row| {
            let text = self.text(row)?;
            let mut mismatched = Vec::new();
            for source in sources.by_ref().take(text.answers.len()) {
                let (row, answer) = self.answers[source];
                let answer = Answer {
                    role: Role::Mismatched,
                    ..self.text(row)?.answers.swap_remove(answer)
                };
                // z0 averages within an example before it averages over the batch, so the same answer
                // for both rows of a pair counts in full when it is there once.
                if !mismatched.contains(&answer) {
                    mismatched.push(answer);
                }
            }
            let Waiting { row, place, .. } = &self.rows[row];
            Ok(Draft {
                mismatched,
                ..Draft::new(*row, place.clone(), text)
            })
        }))
    }

    fn text(&self, row: usize) -> Result<TextExample> {
        self.texts.value(self.rows[row].text)
    }
}

/// For each row, the row whose answer is its y'.
///
/// By default those of the next prompt, around the whole set: of rows in turn that share a prompt, such
/// as the two of a pair, the k-th takes the k-th answer to the next prompt, counted round. So y' are
/// chosen and rejected answers alike, whatever they are the estimate for. With `group` the
/// previous row within groups of so many rows, rotating, whatever its prompt: what TRL does with
/// each of its batches (its trajectory is reproduced in the tests).
pub fn mismatched_answers<T: PartialEq>(prompts: &[T], group: Option<usize>) -> Result<Vec<usize>> {
    let rows = prompts.len();
    let Some(turn) = (0..rows).rfind(|&row| prompts[row] != prompts[(row + 1) % rows]) else {
        return Err(Error::input("every row has the same prompt")
            .hint("mismatched answers are answers to other prompts"));
    };
    if let Some(group) = group {
        if group < 2 {
            return Err(Error::input(format!("mismatch_group is {group}"))
                .hint("a group has at least 2 rows"));
        }
        let rotate = |row: usize| {
            let start = row / group * group;
            let size = group.min(rows - start);
            start + (row - start + size - 1) % size
        };
        return Ok((0..rows).map(rotate).collect());
    }
    // Rows in turn from the one after `turn` on, so that no run of a prompt goes over the end.
    let place = |at: usize| (turn + 1 + at) % rows;
    let begins = |&at: &usize| at == 0 || prompts[place(at)] != prompts[place(at - 1)];
    let starts: Vec<usize> = (0..rows).filter(begins).collect();
    let ends = starts.iter().skip(1).copied().chain([rows]);
    let runs: Vec<Range<usize>> = starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| start..end)
        .collect();
    let mut next = vec![0; rows];
    for (run, following) in runs.iter().zip(runs.iter().cycle().skip(1)) {
        for (k, at) in run.clone().enumerate() {
            next[place(at)] = place(following.start + k % following.len());
        }
    }
    Ok(next)
}
