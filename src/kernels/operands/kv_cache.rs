//! The dimensions of a KV cache, and the rows of a decoding step.

use candle_core::{Device, Tensor};

use super::attention::Scores;
use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::device::from_host;

/// The dimensions of a cache.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Sequences at once.
    pub slots: usize,
    /// The most tokens of a sequence.
    pub capacity: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// The size of a head.
    pub head_dim: usize,
    /// How scores are made, and which tokens are seen.
    pub scores: Scores,
}

/// The rows of a step: each one's slot, and the tokens that its sequence has without it.
#[derive(Debug)]
pub struct Places {
    pub(in crate::kernels) slots: Vec<usize>,
    pub(in crate::kernels) lengths: Vec<usize>,
    /// (2, rows), u32: the same on a GPU, and there alone.
    on_gpu: Option<Tensor>,
}

impl Places {
    /// For rows on `device`.
    ///
    /// # Errors
    /// If there is not one length for each slot.
    pub fn new(slots: &[usize], lengths: &[usize], device: &Device) -> Result<Self> {
        if slots.len() != lengths.len() {
            return Err(Error::failed("a slot without its length"));
        }
        let on_gpu = match Backend::on(device) {
            Backend::Cpu => None,
            Backend::Cuda | Backend::Emulator => {
                let numbers = slots.iter().chain(lengths).map(|&n| n as u32);
                let numbers: Vec<u32> = numbers.collect();
                Some(from_host(&numbers, (2, slots.len()), device)?)
            }
        };
        Ok(Self {
            slots: slots.to_vec(),
            lengths: lengths.to_vec(),
            on_gpu,
        })
    }

    /// (2, rows), u32: slots, then lengths.
    ///
    /// # Errors
    /// If they were made for host memory.
    pub(in crate::kernels) fn on_gpu(&self) -> Result<&Tensor> {
        let there = self.on_gpu.as_ref();
        there.ok_or_else(|| Error::failed("rows of another device than their keys"))
    }
}
