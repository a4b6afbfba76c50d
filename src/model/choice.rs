//! The choice of next tokens where the logits are.
//!
//! Hides whether that is in host memory, by [`SampleConfig::choose`], or on a GPU, by its twin there,
//! which keeps in mind what a sequence has seen.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::sampling::{SampleConfig, log_prob};
use crate::error::{Error, Result};
use crate::kernels::sampling::{Processors, Sampler, draws_from};

/// What a sequence's next token is drawn by.
#[derive(Debug, Clone, Copy)]
pub struct Next<'a> {
    /// The ids of prompt and response so far.
    pub seen: &'a [u32],
    /// Uniform in [0, 1).
    pub uniform: f64,
}

#[derive(Debug)]
pub(super) enum Choice<'a> {
    Host(&'a SampleConfig),
    Gpu(Sampler),
}

impl<'a> Choice<'a> {
    /// For sequences that begin with these prompts, from logits on the device of `logits`.
    pub(super) fn new(
        config: &'a SampleConfig,
        prompts: &[&[u32]],
        logits: &Tensor,
    ) -> Result<Self> {
        if !draws_from(logits) {
            return Ok(Self::Host(config));
        }
        let processors = Processors {
            temperature: config.temperature,
            top_k: config.top_k,
            top_p: config.top_p,
            repetition_penalty: config.repetition_penalty,
            greedy: config.greedy,
        };
        let vocabulary = logits.dim(1)?;
        Sampler::new(processors, prompts, vocabulary, logits.device()).map(Self::Gpu)
    }

    /// The next tokens by `logits` (sequences, vocabulary), and their log-probs.
    pub(super) fn draw(
        &mut self,
        logits: &Tensor,
        draws: &[Option<Next>],
    ) -> Result<Vec<(u32, f64)>> {
        if draws.len() != logits.dim(0)? {
            return Err(Error::failed(format!(
                "{} draws from {:?} logits",
                draws.len(),
                logits.dims()
            )));
        }
        match self {
            Self::Host(config) => {
                let rows: Vec<Vec<f32>> = logits.to_dtype(DType::F32)?.to_vec2()?;
                let draw = |(logits, next): (&Vec<f32>, &Option<Next>)| match next {
                    Some(next) => {
                        let id = config.choose(logits, next.seen, next.uniform);
                        (id, log_prob(logits, id))
                    }
                    None => (0, 0.0),
                };
                Ok(rows.par_iter().zip(draws).map(draw).collect())
            }
            Self::Gpu(sampler) => {
                let uniforms = draws
                    .iter()
                    .map(|draw| draw.map_or(0.0, |next| next.uniform));
                let live: Vec<bool> = draws.iter().map(Option::is_some).collect();
                sampler.choose(logits, &uniforms.collect::<Vec<f64>>(), &live)
            }
        }
    }

    /// Goes on with these sequences only, in this order.
    pub(super) fn keep(&mut self, sequences: &[usize]) -> Result<()> {
        match self {
            Self::Host(_) => Ok(()),
            Self::Gpu(sampler) => sampler.keep(sequences),
        }
    }
}
