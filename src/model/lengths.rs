//! Sequences that are computed otherwise than longer ones.
//!
//! *Why*: with some rotations the frequencies depend on the length of the sequence, prompt and response
//! together. What a model computes is then that of a pass over this one sequence: its prompt cannot be
//! shared with a sequence of other frequencies.

use super::arch::{Architecture, Rotary};
use super::decoder::Decoder;
use super::parameters::Entry;
use crate::data::Example;
use crate::data::pack::Packed;
use crate::error::{Error, Result};
use crate::loss::Role;

impl Architecture {
    /// The longest sequence the model was made for, in tokens.
    pub fn longest_sequence(&self) -> usize {
        let tables = self.positions.tables().iter();
        let longest = tables.map(|table| table.longest(self.max_positions));
        longest.max().unwrap_or(self.max_positions)
    }

    /// The length over which every token changes how those before it are computed, so that no KV cache
    /// can be kept; `None` where there is none.
    pub fn cached_length(&self) -> Option<usize> {
        let tables = self.positions.tables().iter();
        tables.filter_map(Rotary::changes_after).min()
    }

    /// As [`Rotary::length_class`], of all rotations together: the least length that is computed as
    /// `length` is.
    pub fn length_class(&self, length: usize) -> usize {
        let tables = self.positions.tables().iter();
        let classes = tables.map(|table| table.length_class(length));
        classes.max().unwrap_or(0)
    }
}

impl Decoder {
    /// As [`Architecture::length_class`].
    pub fn length_class(&self, length: usize) -> usize {
        self.arch.length_class(length)
    }

    /// What so many tokens of one row cost beside those of others: the products with weights are
    /// proportional to their number, attention to its square.
    pub fn cost(&self, tokens: usize) -> u64 {
        let entries = &self.weights().layout().entries;
        let weights: usize = entries.iter().map(Entry::elements).sum();
        let attention = self.arch.layers * self.arch.hidden_size * tokens;
        tokens as u64 * (weights + attention) as u64
    }

    /// Packs the responses whose role is in `roles`, as this model computes them.
    pub fn pack<'a>(
        &self,
        examples: impl IntoIterator<Item = &'a Example>,
        roles: &[Role],
    ) -> Packed {
        Packed::by_class(examples, roles, &|length| self.length_class(length))
    }

    /// Refuses responses that share a prompt although the model computes it otherwise for each of them.
    pub(super) fn check_lengths(&self, packed: &Packed) -> Result<()> {
        let class = |token: usize| self.length_class(packed.lengths[token] as usize);
        let segments = packed.segments.iter();
        let mut with_prompt = segments.filter(|segment| !segment.prefix.is_empty());
        match with_prompt.all(|it| class(it.prefix.start) == class(it.own.start)) {
            true => Ok(()),
            false => Err(Error::failed(
                "sequences of lengths that the model computes differently share a prompt",
            )),
        }
    }
}
