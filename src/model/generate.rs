//! Decoding token by token, many sequences at once.
//!
//! Hides the keys and values that are kept between tokens, and where logits are. A prompt is computed
//! once for all its continuations, packed with the others.
//!
//! *Why*: a draw hangs on a sequence's own numbers alone, which the host has; logits, many times as
//! much, stay where they are. So this takes numbers and gives ids, and knows nothing of files or of
//! when a sequence ends.

use candle_core::Tensor;

use super::choice::Choice;
pub use super::choice::Next;
use super::decoder::Decoder;
use super::sampling::SampleConfig;
use crate::data::Example;
use crate::data::pack::{Packed, micro_batches};
use crate::error::Result;
use crate::kernels::elementwise;
use crate::kernels::embedding::{self, Ids};
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
    /// (sequences, vocabulary): of each sequence's next token.
    logits: Tensor,
    choice: Choice<'a>,
}

impl<'a> Generation<'a> {
    /// Starts `copies` sequences after each prompt, the copies of a prompt one after the other, with room
    /// for `room` more tokens, which are drawn as `config` says.
    ///
    /// # Panics
    /// If a prompt has no token: nothing would predict the first one.
    pub fn start(
        model: &'a Decoder,
        prompts: &[(&[u32], usize)],
        room: usize,
        config: &'a SampleConfig,
    ) -> Result<Self> {
        assert!(
            prompts.iter().all(|(ids, _)| !ids.is_empty()),
            "a prompt has no token"
        );
        let mut kept: Vec<Vec<(Tensor, Tensor)>> = model.blocks.iter().map(|_| vec![]).collect();
        let tokens: Vec<usize> = prompts.iter().map(|(ids, _)| ids.len()).collect();
        let sequences: Vec<&[u32]> = prompts
            .iter()
            .flat_map(|(ids, copies)| std::iter::repeat_n(*ids, *copies))
            .collect();
        let shape = (sequences.len(), model.arch.hidden_size);
        let last = Tensor::zeros(shape, model.stream_dtype(), model.device())?;
        let mut at = 0;
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
            let copies = (0..).zip(&prompts[range]);
            let rows: Vec<u32> = copies
                .flat_map(|(prompt, (_, copies))| std::iter::repeat_n(prompt, *copies))
                .collect();
            let rows = embedding::gather(&x, &Ids::new(&rows, model.device())?, x.dtype())?;
            let part = last.narrow(0, at, rows.dim(0)?)?;
            elementwise::assign(&part.unsqueeze(1)?, &rows.unsqueeze(1)?)?;
            at += rows.dim(0)?;
        }
        let blocks = kept
            .iter()
            .zip(&model.arch.windows)
            .map(|(prompts, &window)| KeyValues::new(prompts, room, window))
            .collect::<Result<_>>()?;
        let logits = logits(model, &last)?;
        Ok(Self {
            model,
            blocks,
            lengths: sequences.iter().map(|ids| ids.len()).collect(),
            choice: Choice::new(config, &sequences, &logits)?,
            logits,
        })
    }

    /// Draws the next token of every sequence that has one, and gives its id and its log-prob under the
    /// model itself, before any processor, in nats, not finite where the logits are not; any id where
    /// there is `None`.
    ///
    /// # Errors
    /// If there is not one number, or `None`, per sequence.
    pub fn next(&mut self, draws: &[Option<Next>]) -> Result<Vec<(u32, f64)>> {
        self.choice.draw(&self.logits, draws)
    }

    /// Appends a token to every sequence.
    pub fn extend(&mut self, ids: &[u32]) -> Result<()> {
        let model = self.model;
        let positions: Vec<u32> = self.lengths.iter().map(|&length| length as u32).collect();
        let angles = model.angles(&positions)?;
        let mut x = model.embed(&Ids::new(ids, model.device())?)?;
        for (block, cache) in model.blocks.iter().zip(&mut self.blocks) {
            x = block.extend(&model.arch, &model.weights, &x, &angles, cache)?;
        }
        self.lengths.iter_mut().for_each(|length| *length += 1);
        self.logits = logits(model, &x)?;
        Ok(())
    }

    /// Goes on with these sequences only, in this order, once each has its next token: what follows
    /// is [`extend`](Self::extend).
    pub fn keep(&mut self, sequences: &[usize]) -> Result<()> {
        self.lengths = sequences.iter().map(|&row| self.lengths[row]).collect();
        self.choice.keep(sequences)?;
        self.blocks
            .iter_mut()
            .try_for_each(|cache| cache.keep(sequences))
    }
}

/// (sequences, hidden) after the last block -> (sequences, vocabulary).
fn logits(model: &Decoder, x: &Tensor) -> Result<Tensor> {
    let norm = model.final_norm();
    let (h, _) = norm.norm(&model.weights, x, model.arch.norm_epsilon)?;
    model.head_logits(&h)
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
