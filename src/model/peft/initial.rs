//! Initial values of low-rank products.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use sha2::{Digest, Sha256};

use super::config::Init;
use crate::error::Result;
use crate::model::adapter::Adapter;
use crate::model::parameters::Params;

/// Draws each A of `params`, and sets each B to zero, so that the products are zero. A draws from
/// a stream of its own, by `seed` and its name: other layers with or without an adapter change nothing.
///
/// # Errors
/// If the device fails.
///
/// # Panics
/// If the layout of `params` lacks a layer of the adapter.
pub fn initialize(adapter: &Adapter, init: Init, seed: u64, params: &mut Params) -> Result<()> {
    for layer in &adapter.layers {
        let layout = params.layout();
        let of = |name: &str| layout.entries[layout.id(name)].clone();
        let (a, b) = (of(&layer.a()), of(&layer.b()));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream(&a.name));
        // PEFT's kaiming_uniform with a = sqrt(5) is uniform in this.
        let bound = 1.0 / (a.shape[1] as f64).sqrt();
        let draw = |_| match init {
            Init::Default => (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32,
            Init::Gaussian => {
                let draw: f64 = rng.sample(StandardNormal);
                (draw / layer.rank as f64) as f32
            }
        };
        let values: Vec<f32> = a.range.clone().map(draw).collect();
        params.set(a.range.start, &values)?;
        params.set(b.range.start, &vec![0.0; b.range.len()])?;
    }
    Ok(())
}

fn stream(name: &str) -> u64 {
    let hash = Sha256::digest(name);
    hash.iter()
        .take(8)
        .fold(0, |all, byte| all << 8 | u64::from(*byte))
}
