//! The choice of next tokens where the logits are.
//!
//! Hides whether that is in host memory, by [`SampleConfig::choose`], or on a GPU, by the kernels of
//! [`Sampler`], and what each sequence has seen.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::parameters::Params;
use super::sampling::SampleConfig;
use crate::error::{Error, Result};
use crate::kernels::sampling::{Processors, Sampler, draws_from, log_sum_exp};

#[derive(Debug)]
pub(super) enum Choice<'a> {
    Host {
        config: &'a SampleConfig,
        /// The ids of prompt and response in each slot, each once, sorted; none where nothing reads them.
        seen: Vec<Vec<u32>>,
    },
    Gpu(Sampler),
}

impl<'a> Choice<'a> {
    /// Slots without a sequence, for logits where the weights are.
    pub(super) fn new(
        config: &'a SampleConfig,
        slots: usize,
        vocabulary: usize,
        weights: &Params,
    ) -> Result<Self> {
        if !draws_from(weights.flat()) {
            let seen = vec![Vec::new(); slots];
            return Ok(Self::Host { config, seen });
        }
        let processors = Processors {
            temperature: config.temperature,
            top_k: config.top_k,
            top_p: config.top_p,
            min_p: config.min_p,
            repetition_penalty: config.repetition_penalty,
            greedy: config.greedy,
        };
        let device = weights.flat().device();
        Sampler::new(processors, slots, vocabulary, device).map(Self::Gpu)
    }

    /// Begins a sequence with a prompt.
    pub(super) fn begin(&mut self, slot: usize, prompt: &[u32]) -> Result<()> {
        match self {
            Self::Host { config, seen } if config.repetition_penalty != 1.0 => {
                seen[slot] = prompt.to_vec();
                seen[slot].sort_unstable();
                seen[slot].dedup();
                Ok(())
            }
            Self::Host { .. } => Ok(()),
            Self::Gpu(sampler) => sampler.begin(slot, prompt),
        }
    }

    /// The next token of the sequence in each of `slots` by its row of `logits` (slots, vocabulary), and
    /// its log-prob.
    pub(super) fn draw(
        &mut self,
        logits: &Tensor,
        slots: &[usize],
        uniforms: &[f64],
    ) -> Result<Vec<(u32, f64)>> {
        if [slots.len(), uniforms.len()] != [logits.dim(0)?; 2] {
            let (slots, numbers) = (slots.len(), uniforms.len());
            return Err(Error::failed(format!(
                "{numbers} draws for {slots} sequences from {:?} logits",
                logits.dims()
            )));
        }
        match self {
            Self::Host { config, seen } => {
                let vocabulary = logits.dim(1)?;
                let logits = logits.to_dtype(DType::F32)?.flatten_all()?;
                let (storage, layout) = logits.storage_and_layout();
                let candle_core::Storage::Cpu(storage) = &*storage else {
                    return Err(Error::failed("logits that are not in host memory"));
                };
                let logits = &storage.as_slice::<f32>()?[layout.start_offset()..];
                let draw = |(row, (&slot, &uniform)): (usize, (&usize, &f64))| {
                    let logits = &logits[row * vocabulary..][..vocabulary];
                    let id = config.choose(logits, &seen[slot], uniform);
                    (id, f64::from(logits[id as usize]) - log_sum_exp(logits))
                };
                let rows = slots.par_iter().zip(uniforms).enumerate().with_max_len(1);
                let drawn: Vec<(u32, f64)> = rows.map(draw).collect();
                if config.repetition_penalty != 1.0 {
                    for (&slot, &(id, _)) in slots.iter().zip(&drawn) {
                        if let Err(at) = seen[slot].binary_search(&id) {
                            seen[slot].insert(at, id);
                        }
                    }
                }
                Ok(drawn)
            }
            Self::Gpu(sampler) => sampler.choose(logits, slots, uniforms),
        }
    }
}
