//! The packed batch: one row of tokens, every prompt once, no padding.
//!
//! Hides where a token of an example ends up: `prompt | response | response ...`, then the next
//! example. Positions of each response continue from its prompt's end; a response sees its prompt and
//! itself. Only positions that predict a response token reach the head. Where a model computes sequences
//! of some lengths otherwise than those of others, responses of one [`LengthClass`] share a prompt.
//!
//! *Why*: a padded batch with the prompt repeated spends three to four times the tokens on the same
//! pairs, and an LM head over every position costs more than a small model's blocks.

use std::ops::Range;

use crate::data::example::{Example, Response};
use crate::loss::Role;
use crate::segment::Segment;

/// The class of a sequence of so many tokens, prompt and response together: sequences of one class are
/// computed alike. 0 is that of the shortest ones, and no sequence has a lower class than a shorter one.
pub type LengthClass<'a> = &'a dyn Fn(usize) -> usize;

/// Where a response's predictions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedResponse {
    /// Its place in [`Example::responses`].
    pub index: usize,
    /// What it is to its prompt.
    pub role: Role,
    /// Its rows in [`Packed::sources`] and [`Packed::labels`].
    pub rows: Range<usize>,
}

/// A batch of examples as one row of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed {
    /// (tokens): token ids.
    pub ids: Vec<u32>,
    /// (tokens): position ids.
    pub positions: Vec<u32>,
    /// (tokens): the length of the token's sequence, a prompt with a response; of a prompt's token that of
    /// its longest sequence.
    pub lengths: Vec<u32>,
    /// (tokens): a number of each token's row, sequence and position, the same wherever it is packed.
    pub keys: Vec<u32>,
    /// What attends to what; the own ranges cover the tokens in order.
    pub segments: Vec<Segment>,
    /// (predictions): the token whose hidden state predicts.
    pub sources: Vec<u32>,
    /// (predictions): the token id to predict.
    pub labels: Vec<u32>,
    /// Each example's packed responses, in the order of the examples.
    pub examples: Vec<Vec<PackedResponse>>,
}

impl Packed {
    /// Packs the responses whose role is in `roles`, for a model that computes sequences of all lengths
    /// alike.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Example>, roles: &[Role]) -> Self {
        Self::by_class(examples, roles, &|_| 0)
    }

    /// As [`new`](Self::new), with an example's prompt once for each class of its sequences.
    pub fn by_class<'a>(
        examples: impl IntoIterator<Item = &'a Example>,
        roles: &[Role],
        class: LengthClass,
    ) -> Self {
        let mut packed = Self::default();
        for example in examples {
            packed.push(example, roles, class);
        }
        packed
    }

    fn push(&mut self, example: &Example, roles: &[Role], class: LengthClass) {
        let mut groups = groups(example, roles, class);
        if groups.is_empty() {
            groups.push((0, Vec::new()));
        }
        let mut places = Vec::new();
        for (_, group) in &groups {
            let longest = group.iter().map(|(_, response)| response.ids.len()).max();
            let length = example.prompt.len() + longest.unwrap_or(0);
            let start = Start {
                row: example.row,
                sequence: 0,
                position: 0,
            };
            let prompt = self.segment(&example.prompt, 0..0, start, length);
            for &(index, response) in group {
                let length = prompt.len() + response.ids.len();
                let start = Start {
                    sequence: index + 1,
                    position: prompt.len(),
                    ..start
                };
                let own = self.segment(&response.ids, prompt.clone(), start, length);
                places.push((index, response, prompt.end, own.start));
            }
        }
        // Predictions are in the order of the responses, wherever these are.
        places.sort_by_key(|&(index, ..)| index);
        let mut responses = Vec::with_capacity(places.len());
        for (index, response, prompt_end, start) in places {
            let first = self.labels.len();
            for (token, &label) in response.ids.iter().enumerate() {
                if !example.is_scored(response, token) {
                    continue;
                }
                let before = if token == 0 {
                    prompt_end - 1
                } else {
                    start + token - 1
                };
                self.sources.push(before as u32);
                self.labels.push(label);
            }
            responses.push(PackedResponse {
                index,
                role: response.role,
                rows: first..self.labels.len(),
            });
        }
        self.examples.push(responses);
    }

    /// Appends a run of tokens of a sequence of `length` and returns its range.
    fn segment(
        &mut self,
        ids: &[u32],
        prefix: Range<usize>,
        start: Start,
        length: usize,
    ) -> Range<usize> {
        let position = start.position;
        self.keys.extend((0..ids.len()).map(|at| start.key(at)));
        let own = self.ids.len()..self.ids.len() + ids.len();
        self.ids.extend_from_slice(ids);
        self.positions
            .extend((position..position + ids.len()).map(|p| p as u32));
        self.lengths.resize(own.end, length as u32);
        if !own.is_empty() {
            self.segments.push(Segment::new(prefix, own.clone()));
        }
        own
    }
}

/// Where a run of tokens starts.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// The example's row.
    row: usize,
    /// 0: the prompt; else 1 + the place of the response.
    sequence: usize,
    position: usize,
}

impl Start {
    /// The key of the token so many places behind it.
    fn key(self, at: usize) -> u32 {
        let parts = [self.row, self.sequence, self.position + at];
        let mixed = parts.into_iter().fold(0, |state, part| {
            // SplitMix64, Steele et al. 2014.
            let mut x = state ^ (part as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
            x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ x >> 31
        });
        mixed as u32
    }
}

/// The responses of these roles with their places, those of one class together, in the order of each
/// class's first.
fn groups<'a>(
    example: &'a Example,
    roles: &[Role],
    class: LengthClass,
) -> Vec<(usize, Vec<(usize, &'a Response)>)> {
    let mut groups: Vec<(usize, Vec<_>)> = Vec::new();
    for (index, response) in example.responses.iter().enumerate() {
        if !roles.contains(&response.role) {
            continue;
        }
        let class = class(example.prompt.len() + response.ids.len());
        match groups.iter_mut().find(|(of, _)| *of == class) {
            Some((_, group)) => group.push((index, response)),
            None => groups.push((class, vec![(index, response)])),
        }
    }
    groups
}

/// The tokens an example takes in a batch with these roles, packed by these classes.
pub fn packed_tokens(example: &Example, roles: &[Role], class: LengthClass) -> usize {
    let prompts = groups(example, roles, class).len().max(1);
    let responses = example.responses.iter().filter(|r| roles.contains(&r.role));
    prompts * example.prompt.len() + responses.map(|r| r.ids.len()).sum::<usize>()
}

/// Splits examples into micro-batches of at most `budget` tokens, in order; an example over the
/// budget is a micro-batch of its own.
pub fn micro_batches(lengths: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (index, &length) in lengths.iter().enumerate() {
        if index > start && tokens + length > budget {
            batches.push(start..index);
            (start, tokens) = (index, 0);
        }
        tokens += length;
    }
    if start < lengths.len() {
        batches.push(start..lengths.len());
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Response;

    fn example(prompt: &[u32], responses: &[(Role, &[u32])]) -> Example {
        let response = |&(role, ids): &(Role, &[u32])| Response::new(role, ids.to_vec());
        Example {
            row: 0,
            prompt: prompt.to_vec(),
            responses: responses.iter().map(response).collect(),
            preference: None,
        }
    }

    #[test]
    fn a_token_has_its_key_wherever_it_is_packed() {
        let pair = |row| Example {
            row,
            ..example(
                &[1, 2],
                &[(Role::Chosen, &[3, 4, 0]), (Role::Rejected, &[5, 0])],
            )
        };
        let (first, second) = (pair(0), pair(7));
        let together = Packed::new([&first, &second], Role::ALL).keys;
        let alone = Packed::new([&second], Role::ALL).keys;
        assert_eq!(together[7..], alone);
        let rejected = Packed::new([&second], &[Role::Rejected]).keys;
        assert_eq!(rejected, [&alone[..2], &alone[5..]].concat());
        let mut all = together.clone();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), together.len());
    }

    #[test]
    fn the_prompt_is_there_once_and_responses_do_not_see_each_other() {
        let pair = example(
            &[1, 2],
            &[(Role::Chosen, &[3, 4, 0]), (Role::Rejected, &[5, 0])],
        );
        let packed = Packed::new([&pair], &[Role::Chosen, Role::Rejected]);
        assert_eq!(packed.ids, [1, 2, 3, 4, 0, 5, 0]);
        assert_eq!(packed.positions, [0, 1, 2, 3, 4, 2, 3]);
        assert_eq!(packed.sources, [1, 2, 3, 1, 5]);
        assert_eq!(packed.labels, [3, 4, 0, 5, 0]);
        assert_eq!(packed.segments[2], Segment::new(0..2, 5..7));
        assert_eq!(packed.examples[0][1].rows, 3..5);
    }

    #[test]
    fn without_a_prompt_the_first_token_is_context() {
        let packed = Packed::new(
            [&example(&[], &[(Role::Chosen, &[3, 4, 0])])],
            &[Role::Chosen],
        );
        assert_eq!((packed.sources, packed.labels), (vec![0, 1], vec![4, 0]));
    }

    #[test]
    fn turns_of_others_are_seen_and_not_predicted() {
        let mut turns = example(&[1], &[(Role::Chosen, &[3, 0, 7, 8, 4, 0])]);
        let hash = turns.hash();
        turns.responses[0].context.push(2..4);
        let packed = Packed::new([&turns], &[Role::Chosen]);
        assert_eq!(packed.ids, [1, 3, 0, 7, 8, 4, 0]);
        assert_eq!(packed.sources, [0, 1, 4, 5]);
        assert_eq!(packed.labels, [3, 0, 4, 0]);
        assert_eq!(packed.examples[0][0].rows, 0..4);
        assert_eq!(turns.scored_tokens(&turns.responses[0]), 4);
        assert_ne!(turns.hash(), hash);
    }

    #[test]
    fn roles_that_are_not_asked_for_take_no_tokens() {
        let kto = example(
            &[1],
            &[(Role::Chosen, &[3, 0]), (Role::Mismatched, &[4, 0])],
        );
        let packed = Packed::new([&kto], &[Role::Mismatched]);
        assert_eq!(packed.ids, [1, 4, 0]);
        assert_eq!(packed.examples[0][0].index, 1);
        assert_eq!(packed_tokens(&kto, &[Role::Mismatched], &|_| 0), 3);
    }

    #[test]
    fn a_prompt_is_there_once_for_each_class_of_its_sequences() {
        let (chosen, rejected, sampled) = (Role::Chosen, Role::Rejected, Role::Sampled);
        let samples = example(
            &[1, 2],
            &[
                (chosen, &[3, 4, 0]),
                (rejected, &[5, 0]),
                (sampled, &[6, 7, 8, 0]),
            ],
        );
        // Of lengths 5, 4 and 6.
        let class = |length: usize| if length > 4 { 5 } else { 0 };
        let packed = Packed::by_class([&samples], Role::ALL, &class);
        assert_eq!(packed.ids, [1, 2, 3, 4, 0, 6, 7, 8, 0, 1, 2, 5, 0]);
        assert_eq!(packed.positions, [0, 1, 2, 3, 4, 2, 3, 4, 5, 0, 1, 2, 3]);
        assert_eq!(packed.lengths, [6, 6, 5, 5, 5, 6, 6, 6, 6, 4, 4, 4, 4]);
        assert_eq!(packed.sources, [1, 2, 3, 10, 11, 1, 5, 6, 7]);
        assert_eq!(packed.labels, [3, 4, 0, 5, 0, 6, 7, 8, 0]);
        assert_eq!(packed.segments[3], Segment::new(0..0, 9..11));
        assert_eq!(packed.segments[4], Segment::new(9..11, 11..13));
        let rows: Vec<_> = packed.examples[0].iter().map(|r| r.rows.clone()).collect();
        assert_eq!(rows, [0..3, 3..5, 5..9]);
        assert_eq!(packed_tokens(&samples, Role::ALL, &class), 13);
        assert_eq!(packed_tokens(&samples, &[chosen, sampled], &class), 9);
        let each = |length| length;
        assert_eq!(packed_tokens(&samples, Role::ALL, &each), 15);
        assert_eq!(Packed::by_class([&samples], Role::ALL, &each).ids.len(), 15);
    }

    #[test]
    fn a_budget_splits_in_order_and_an_example_over_it_stands_alone() {
        assert_eq!(micro_batches(&[3, 3, 9, 1, 2], 6), [0..2, 2..3, 3..5]);
        assert_eq!(micro_batches(&[9], 6), vec![0..1]);
        assert_eq!(micro_batches(&[], 6), Vec::<Range<usize>>::new());
    }
}
