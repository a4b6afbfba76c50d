//! Decoding token by token, many sequences at once.
//!
//! Hides the keys and values that are kept between tokens. A prompt is computed once for all its
//! continuations, packed with the others.
//!
//! *Why*: who samples decides on the host, per sequence, from one row of logits. So this gives
//! logits and takes ids, and knows nothing of temperatures or files.

use candle_core::{DType, Tensor};

use super::decoder::Decoder;
use crate::data::Example;
use crate::data::pack::{Packed, micro_batches};
use crate::error::Result;
use crate::kernels::embedding::Ids;
use crate::kernels::key_values::KeyValues;

/// Tokens of prompts computed at once.
const PROMPT_TOKENS: usize = 4096;

/// Sequences that grow by one token at a time.
pub struct Generation<'a> {
    model: &'a Decoder,
    /// One per block.
    blocks: Vec<KeyValues>,
    /// Tokens of each sequence.
    lengths: Vec<usize>,
}

impl<'a> Generation<'a> {
    /// Starts `copies` sequences after each prompt, with room for `room` more tokens, and gives the
    /// logits of the first of them: a row per sequence, the copies of a prompt one after the other.
    ///
    /// # Panics
    /// If a prompt has no token: nothing would predict the first one.
    pub fn start(
        model: &'a Decoder,
        prompts: &[(&[u32], usize)],
        room: usize,
    ) -> Result<(Self, Vec<Vec<f32>>)> {
        assert!(
            prompts.iter().all(|(ids, _)| !ids.is_empty()),
            "a prompt has no token"
        );
        let mut kept: Vec<Vec<(Tensor, Tensor)>> = model.blocks.iter().map(|_| vec![]).collect();
        let mut last = Vec::new();
        let tokens: Vec<usize> = prompts.iter().map(|(ids, _)| ids.len()).collect();
        for range in micro_batches(&tokens, PROMPT_TOKENS) {
            let (packed, spans) = pack(&prompts[range.clone()]);
            let x = model.forward_with(&packed, |block, saved| {
                let (keys, values) = saved.keys_values();
                for (&(start, length), (_, copies)) in spans.iter().zip(&prompts[range.clone()]) {
                    let part = |x: &Tensor| x.narrow(0, start, length);
                    let pair = (part(keys)?, part(values)?);
                    kept[block].extend(std::iter::repeat_n(pair, *copies));
                }
                Ok(())
            })?;
            for (prompt, (_, copies)) in prompts[range].iter().enumerate() {
                last.extend(std::iter::repeat_n(x.narrow(0, prompt, 1)?, *copies));
            }
        }
        let blocks = kept
            .iter()
            .zip(&model.arch.windows)
            .map(|(prompts, &window)| KeyValues::new(prompts, room, window))
            .collect::<Result<_>>()?;
        let lengths = prompts
            .iter()
            .flat_map(|(ids, copies)| std::iter::repeat_n(ids.len(), *copies))
            .collect();
        let generation = Self {
            model,
            blocks,
            lengths,
        };
        let logits = generation.logits(&Tensor::cat(&last, 0)?)?;
        Ok((generation, logits))
    }

    /// Appends a token to every sequence and gives the logits of the next.
    pub fn extend(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>> {
        let model = self.model;
        let positions: Vec<u32> = self.lengths.iter().map(|&length| length as u32).collect();
        let angles = model.angles(&positions)?;
        let mut x = model.embed(&Ids::new(ids, model.device())?)?;
        for (block, cache) in model.blocks.iter().zip(&mut self.blocks) {
            x = block.extend(&model.arch, &model.weights, &x, &angles, cache)?;
        }
        self.lengths.iter_mut().for_each(|length| *length += 1);
        self.logits(&x)
    }

    /// Goes on with these sequences only, in this order.
    pub fn keep(&mut self, sequences: &[usize]) -> Result<()> {
        self.lengths = sequences.iter().map(|&row| self.lengths[row]).collect();
        self.blocks
            .iter_mut()
            .try_for_each(|cache| cache.keep(sequences))
    }

    /// (sequences, hidden) after the last block -> a row of logits per sequence.
    fn logits(&self, x: &Tensor) -> Result<Vec<Vec<f32>>> {
        let model = self.model;
        let (h, _) = model
            .final_norm()
            .norm(&model.weights, x, model.arch.norm_epsilon)?;
        let logits = model.head_logits(&h)?;
        Ok(logits.to_dtype(DType::F32)?.to_vec2()?)
    }
}

/// The prompts in one row, and where each lies: (first token, tokens).
fn pack(prompts: &[(&[u32], usize)]) -> (Packed, Vec<(usize, usize)>) {
    let alone = |(ids, _): &(&[u32], usize)| Example {
        row: 0,
        prompt: ids.to_vec(),
        responses: Vec::new(),
        preference: None,
    };
    let examples: Vec<Example> = prompts.iter().map(alone).collect();
    let starts = prompts.iter().scan(0, |next, (ids, _)| {
        let start = *next;
        *next += ids.len();
        Some((start, ids.len()))
    });
    let spans: Vec<(usize, usize)> = starts.collect();
    let mut packed = Packed::new(&examples, &[]);
    let last = spans
        .iter()
        .map(|(start, length)| (start + length - 1) as u32);
    packed.sources = last.collect();
    (packed, spans)
}
