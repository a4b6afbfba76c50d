//! Fresh models, as the families' own initialisation makes them.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use super::arch::Architecture;
use super::decoder::Decoder;
use super::parameters::{Init, Layout, Params};
use super::weights::check_memory;
use crate::error::Result;

/// A randomly initialised f32 model: matrices normal with the config's `initializer_range`, or what the
/// family makes of it for projections onto the residual stream, biases and the padding row 0, norms 1, or 0
/// where 1 is added to them, as in transformers. Each parameter draws from a stream of its
/// own, so the same seed gives the same model everywhere.
///
/// # Errors
/// If the memory that is available cannot hold it.
pub fn fresh(arch: Architecture, seed: u64, device: &Device) -> Result<Decoder> {
    let layout = Arc::new(Layout::new(&arch));
    check_memory(layout.bytes(DType::F32), &Device::Cpu)?;
    let mut flat = vec![0f32; layout.len];
    // Entries lie one after the other.
    let mut rest = flat.as_mut_slice();
    let mut parts = Vec::with_capacity(layout.entries.len());
    for entry in &layout.entries {
        let (values, behind) = rest.split_at_mut(entry.range.len());
        parts.push((entry, values));
        rest = behind;
    }
    let parts = parts.into_par_iter().enumerate();
    parts.for_each(|(stream, (entry, values))| {
        match entry.init {
            Init::Zero => {}
            Init::One => values.fill(1.0),
            Init::Normal | Init::NormalWithZeroRow(_) | Init::Residual => {
                let deviation = match entry.init {
                    Init::Residual => arch.residual_initializer_range,
                    _ => arch.initializer_range,
                };
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(stream as u64);
                for value in values.iter_mut() {
                    let draw: f64 = rng.sample(StandardNormal);
                    *value = (draw * deviation) as f32;
                }
            }
        }
        if let Init::NormalWithZeroRow(row) = entry.init {
            let width = entry.shape[1];
            values[row * width..(row + 1) * width].fill(0.0);
        }
    });
    let flat = Tensor::from_vec(flat, layout.len, device)?;
    // All of it is trained.
    let frozen = flat.narrow(0, 0, 0)?;
    Ok(Decoder::new(arch, Params::new(layout, flat, frozen)?))
}
