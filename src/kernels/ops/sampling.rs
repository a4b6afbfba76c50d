//! The next token of each of many sequences, drawn where their logits are.
//!
//! Hides which tokens a sequence has seen, a bit for each. The draws are those of
//! `model::sampling`, which draws in host memory: on a GPU alone, so that a vocabulary of logits need
//! not travel for every token. For host memory there are the passes over a row of logits.

use candle_core::{DType, Device, Tensor};

pub use crate::kernels::cpu::sampling::{MASS, PEAK, largest, log_sum_exp, masses, peaks};
pub use crate::kernels::operands::sampling::Processors;

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::cuda;
use crate::kernels::device::{put, zeros};
use crate::kernels::profile::{self, Part};
use crate::kernels::tensor::Dst;

/// Whether a [`Sampler`] draws from logits that are where `logits` is.
pub fn draws_from(logits: &Tensor) -> bool {
    match Backend::of(logits) {
        Backend::Cpu => false,
        Backend::Cuda | Backend::Emulator => true,
    }
}

/// Sequences that tokens are drawn for, each in a slot.
#[derive(Debug)]
pub struct Sampler {
    processors: Processors,
    vocabulary: usize,
    /// (slots, vocabulary / 32, rounded up), u32: a bit for each token of prompt and response; none
    /// where nothing reads it.
    seen: Option<Tensor>,
}

impl Sampler {
    /// Slots without a sequence.
    pub fn new(
        processors: Processors,
        slots: usize,
        vocabulary: usize,
        device: &Device,
    ) -> Result<Self> {
        let words = vocabulary.div_ceil(32);
        let seen = match processors.repetition_penalty != 1.0 && slots > 0 {
            true => Some(zeros((slots, words), DType::U32, device)?),
            false => None,
        };
        Ok(Self {
            processors,
            vocabulary,
            seen,
        })
    }

    /// Begins a sequence with a prompt.
    ///
    /// # Errors
    /// If there is no such slot, or the prompt has an id outside the vocabulary.
    pub fn begin(&mut self, slot: usize, prompt: &[u32]) -> Result<()> {
        let Some(seen) = &mut self.seen else {
            return Ok(());
        };
        let mut bits = vec![0u32; self.vocabulary.div_ceil(32)];
        for &id in prompt {
            if id as usize >= self.vocabulary {
                let vocabulary = self.vocabulary;
                return Err(Error::failed(format!("id {id} of {vocabulary}")));
            }
            bits[id as usize / 32] |= 1 << (id % 32);
        }
        put(&bits, Dst::view(seen, |seen| seen.narrow(0, slot, 1))?)
    }

    /// The next token of the sequence in each of `slots` and its log-prob under the model itself, in
    /// nats, of `logits` (slots, vocabulary) f32. Each is drawn by its number in [0, 1), and is seen from
    /// then on. The host waits for the result.
    ///
    /// A row with NaN, with +inf or without a possible token gives some token and a log-prob that is
    /// not finite.
    ///
    /// # Errors
    /// If shapes do not fit the sequences, or the logits are not on a GPU.
    pub fn choose(
        &mut self,
        logits: &Tensor,
        slots: &[usize],
        uniforms: &[f64],
    ) -> Result<Vec<(u32, f64)>> {
        let _profile = profile::part(Part::Head);
        let n = slots.len();
        let fit = logits.dims() == [n, self.vocabulary] && self.vocabulary > 0;
        let numbers = uniforms.iter().all(|u| (0.0..1.0).contains(u));
        let kept = self
            .seen
            .as_ref()
            .map_or(Ok(usize::MAX), |seen| seen.dim(0))?;
        let there = slots.iter().all(|&slot| slot < kept);
        if !fit || !logits.is_contiguous() || uniforms.len() != n || !numbers || !there {
            return Err(Error::failed(format!(
                "sequences {slots:?} take contiguous logits ({n}, {}), not {:?}, and {n} numbers in [0, 1)",
                self.vocabulary,
                logits.dims()
            )));
        }
        match Backend::of(logits) {
            Backend::Cpu => Err(Error::failed(format!(
                "a draw by {:?} of logits that are not on a GPU",
                self.processors
            ))),
            Backend::Cuda | Backend::Emulator => {
                let seen = self.seen.as_mut().map(Dst::from);
                cuda::sampling::choose(&self.processors, seen, logits, slots, uniforms)
            }
        }
    }
}
