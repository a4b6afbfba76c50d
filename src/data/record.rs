//! An example as bytes.
//!
//! Hides their layout, which no file outlives: numbers in little-endian order, lists behind their
//! lengths.

use super::example::{Example, Response};
use crate::loss::Role;
use std::ops::Range;

/// Appends the example's bytes.
pub(super) fn encode(example: &Example, bytes: &mut Vec<u8>) {
    bytes.extend((example.row as u64).to_le_bytes());
    maybe(example.preference, bytes);
    list(&example.prompt, bytes);
    number(example.responses.len(), bytes);
    for response in &example.responses {
        number(response.role as usize, bytes);
        maybe(response.score, bytes);
        let bounds = response.context.iter().flat_map(|r| [r.start, r.end]);
        list(&bounds.map(|b| b as u32).collect::<Vec<_>>(), bytes);
        list(&response.ids, bytes);
    }
}

fn number(number: usize, bytes: &mut Vec<u8>) {
    bytes.extend((number as u32).to_le_bytes());
}

fn maybe(value: Option<f64>, bytes: &mut Vec<u8>) {
    bytes.push(u8::from(value.is_some()));
    bytes.extend(value.unwrap_or_default().to_le_bytes());
}

fn list(list: &[u32], bytes: &mut Vec<u8>) {
    number(list.len(), bytes);
    bytes.extend(list.iter().flat_map(|number| number.to_le_bytes()));
}

/// The example of these bytes, if they are of one.
pub(super) fn decode(bytes: &[u8]) -> Option<Example> {
    let mut bytes = Bytes(bytes);
    let row = u64::from_le_bytes(bytes.array()?) as usize;
    let preference = bytes.maybe()?;
    let prompt = bytes.list()?;
    let count = bytes.number()?;
    let responses = (0..count)
        .map(|_| bytes.response())
        .collect::<Option<_>>()?;
    bytes.0.is_empty().then_some(Example {
        row,
        prompt,
        responses,
        preference,
    })
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn number(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.array()?) as usize)
    }

    fn maybe(&mut self) -> Option<Option<f64>> {
        let [is_some] = self.array()?;
        let value = f64::from_le_bytes(self.array()?);
        Some((is_some == 1).then_some(value))
    }

    fn list(&mut self) -> Option<Vec<u32>> {
        let length = self.number()?.checked_mul(4)?;
        let (list, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        let (numbers, _) = list.as_chunks();
        Some(numbers.iter().map(|n| u32::from_le_bytes(*n)).collect())
    }

    fn response(&mut self) -> Option<Response> {
        let role = *Role::ALL.get(self.number()?)?;
        let score = self.maybe()?;
        let bounds = self.list()?;
        let range = |bounds: &[u32; 2]| bounds[0] as usize..bounds[1] as usize;
        let context: Vec<Range<usize>> = bounds.as_chunks().0.iter().map(range).collect();
        Some(Response {
            role,
            ids: self.list()?,
            context,
            score,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_the_same_after_a_round_trip_and_half_of_it_is_none() {
        let mut chosen = Response::new(Role::Chosen, vec![3, u32::MAX, 0]);
        (chosen.context, chosen.score) = (vec![0..1, 2..3], Some(0.1));
        let mut example = Example {
            row: usize::MAX,
            prompt: vec![1, 2],
            responses: vec![chosen, Response::new(Role::Mismatched, vec![5])],
            preference: Some(0.0),
        };
        for _ in 0..3 {
            let mut bytes = Vec::new();
            encode(&example, &mut bytes);
            assert_eq!(decode(&bytes).as_ref(), Some(&example));
            for length in 0..bytes.len() {
                assert_eq!(decode(&bytes[..length]), None);
            }
            example.preference = None;
            example.prompt.pop();
            example.responses.pop();
        }
    }
}
