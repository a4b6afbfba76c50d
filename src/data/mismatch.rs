//! KTO's mismatched answers.
//!
//! Hides which row lends its answer to which.
//!
//! *Why*: the pairing is fixed when the data is read, not drawn per batch, so the reference's
//! log-prob of a mismatched answer is a column like any other and micro-batching changes nothing.

use crate::error::{Error, Result};

/// For each row, the row whose answer is its y'.
///
/// By default the next row, around the whole set, that has another prompt. With `group` the
/// previous row within groups of so many rows, rotating, whatever its prompt: what TRL does with
/// each of its batches (its trajectory is reproduced in the tests).
pub fn mismatched_answers(prompts: &[&str], group: Option<usize>) -> Result<Vec<usize>> {
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
    // Backwards from a row whose successor differs: a row with its successor's prompt has its
    // successor's answer.
    let mut next = vec![0; rows];
    for back in 0..rows {
        let row = (turn + rows - back) % rows;
        let after = (row + 1) % rows;
        next[row] = if prompts[row] == prompts[after] {
            next[after]
        } else {
            after
        };
    }
    Ok(next)
}
