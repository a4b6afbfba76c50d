//! The next token of each of many sequences, drawn where their logits are.
//!
//! Hides which tokens a sequence has seen, a bit for each. The draws are those of
//! `model::sampling`, which draws in host memory: on a GPU alone, so that a vocabulary of logits need
//! not travel for every token.

use candle_core::{Device, Tensor};

use super::profile::{self, Part};
use crate::error::{Error, Result};

/// How logits are processed before a draw; the keys of `[sample]` of the same names, in their ranges.
#[derive(Debug, Clone, Copy)]
pub struct Processors {
    /// Logits are divided by it.
    pub temperature: f64,
    /// Only so many most likely tokens are drawn from; 0: all.
    pub top_k: usize,
    /// Only the smallest set of most likely tokens is drawn from whose mass reaches it.
    pub top_p: f64,
    /// What a positive logit of a token seen before is divided by and a negative one multiplied; 1: off.
    pub repetition_penalty: f64,
    /// Whether the most likely token is taken: only the penalty is read then.
    pub greedy: bool,
}

/// Whether a [`Sampler`] draws from logits that are where `logits` is.
pub fn draws_from(logits: &Tensor) -> bool {
    #[cfg(any(test, feature = "cuda"))]
    let there = super::gpu::holds(logits);
    #[cfg(not(any(test, feature = "cuda")))]
    let there = logits.device().is_cuda();
    there
}

/// Sequences that tokens are drawn for.
#[derive(Debug)]
pub struct Sampler {
    processors: Processors,
    sequences: usize,
    vocabulary: usize,
    /// (sequences, vocabulary / 32, rounded up), u32: a bit for each token of prompt and response; none
    /// where nothing reads it.
    seen: Option<Tensor>,
}

impl Sampler {
    /// For sequences that begin with these prompts.
    ///
    /// # Errors
    /// If a prompt has an id outside the vocabulary.
    pub fn new(
        processors: Processors,
        prompts: &[&[u32]],
        vocabulary: usize,
        device: &Device,
    ) -> Result<Self> {
        let mut sampler = Self {
            processors,
            sequences: prompts.len(),
            vocabulary,
            seen: None,
        };
        if processors.repetition_penalty != 1.0 && !prompts.is_empty() {
            let words = vocabulary.div_ceil(32);
            let mut bits = vec![0u32; prompts.len() * words];
            for (row, prompt) in bits.chunks_exact_mut(words).zip(prompts) {
                for &id in *prompt {
                    if id as usize >= vocabulary {
                        return Err(Error::failed(format!("id {id} of {vocabulary}")));
                    }
                    row[id as usize / 32] |= 1 << (id % 32);
                }
            }
            let shape = (prompts.len(), words);
            sampler.seen = Some(Tensor::from_vec(bits, shape, device)?);
        }
        Ok(sampler)
    }

    /// The next token of each sequence and its log-prob under the model itself, in nats, of `logits`
    /// (sequences, vocabulary) f32. Each is drawn by its number in [0, 1), and is seen from then on; a
    /// sequence that is not `live` gets token 0. The host waits for the result.
    ///
    /// A row with NaN, with +inf or without a possible token gives some token and a log-prob that is
    /// not finite.
    ///
    /// # Errors
    /// If shapes do not fit the sequences, or the logits are not on a GPU.
    pub fn choose(
        &mut self,
        logits: &Tensor,
        uniforms: &[f64],
        live: &[bool],
    ) -> Result<Vec<(u32, f64)>> {
        let _profile = profile::part(Part::Head);
        let n = self.sequences;
        let fit = logits.dims() == [n, self.vocabulary] && self.vocabulary > 0;
        let numbers = uniforms.iter().all(|u| (0.0..1.0).contains(u));
        if !fit || !logits.is_contiguous() || [uniforms.len(), live.len()] != [n, n] || !numbers {
            return Err(Error::failed(format!(
                "{n} sequences take contiguous logits ({n}, {}), not {:?}, and {n} numbers in [0, 1)",
                self.vocabulary,
                logits.dims()
            )));
        }
        on_gpu!(logits => super::gpu::sampling::choose(
            &self.processors, self.seen.as_ref(), logits, uniforms, live
        ));
        Err(Error::failed(format!(
            "a draw by {:?} of logits that are not on a GPU",
            self.processors
        )))
    }

    /// Goes on with these of its sequences, in this order.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        if let Some(row) = rows.iter().find(|&&row| row >= self.sequences) {
            let n = self.sequences;
            return Err(Error::failed(format!("sequence {row} of {n}")));
        }
        if let Some(seen) = self.seen.take() {
            self.seen = Some(gather(&seen, rows)?);
        }
        self.sequences = rows.len();
        Ok(())
    }
}

/// Rows of a table (n, words) of u32.
fn gather(table: &Tensor, rows: &[usize]) -> Result<Tensor> {
    on_gpu!(table => super::gpu::sampling::gather(table, rows));
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    Ok(table.index_select(&Tensor::new(rows, table.device())?, 0)?)
}
