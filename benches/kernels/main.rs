//! Every kernel, forward and backward, at the shapes of Pythia-70m and 160m on a micro-batch of
//! eight pairs of HH's usual lengths: `cargo bench`, or `cargo bench -- NAME` for some.

#![allow(clippy::print_stdout)]

mod block;
mod harness;

use candle_core::{DType, Device, Tensor};
use expo::error::Result;
use expo::kernels::Precision;
use expo::kernels::memory::{self, HugePages};
use expo::kernels::optimizer::{self, Adam, Decayed, RmsProp, Weights};
use expo::kernels::token::LogitTransform;
use expo::kernels::{linear, token};

use harness::{Harness, Work};

const VOCABULARY: usize = 50_304;
/// Rows of logits in one tile of the head.
const TILE: usize = (1 << 25) / VOCABULARY;
/// Parameters in a flat buffer, far more than caches hold.
const FLAT: usize = 1 << 25;
const F32: usize = size_of::<f32>();

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> Result<()> {
    memory::keep_freed();
    let mut harness = Harness::from_arguments();
    for (model, hidden) in [("pythia-70m", 512), ("pythia-160m", 768)] {
        harness.group(model);
        block::all(&mut harness, hidden)?;
        head(&mut harness, hidden)?;
    }
    harness.group("any model");
    statistics(&mut harness)?;
    updates(&mut harness)?;
    harness.print();
    Ok(())
}

/// Standard normal.
fn random(shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::randn(0f32, 1f32, shape, &Device::Cpu)?)
}

fn zeros(shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
}

fn ids(n: usize, below: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 7919 % below) as u32).collect()
}

fn updates(harness: &mut Harness) -> Result<()> {
    let (mut weights, gradient) = (random(&[FLAT])?, random(&[FLAT])?);
    let (mut mean, mut square) = (zeros(&[FLAT])?, zeros(&[FLAT])?);
    let bytes = |passes: usize| Work::Bytes(passes * F32 * FLAT);
    harness.measure("optimizer::squared_norm", bytes(1), || {
        optimizer::squared_norm(&gradient)
    });
    let adam = Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        rate: 1e-6,
        weight_decay: 0.1,
        step: 10,
    };
    let decayed = vec![0..FLAT / 2, FLAT / 2 + 1..FLAT];
    let decayed = Decayed::new(decayed, weights.device())?;
    harness.measure("optimizer::adam", bytes(7), || {
        let moments = ((&mut mean).into(), (&mut square).into());
        let plain = Weights::Plain((&mut weights).into());
        optimizer::adam(&adam, &decayed, plain, moments, (&gradient, 0.5))
    });
    let rmsprop = RmsProp {
        alpha: 0.99,
        epsilon: 1e-8,
        rate: 1e-6,
        step: 10,
    };
    harness.measure("optimizer::rmsprop", bytes(5), || {
        let plain = Weights::Plain((&mut weights).into());
        optimizer::rmsprop(&rmsprop, plain, (&mut square).into(), (&gradient, 0.5))
    });
    Ok(())
}

/// The products of the head, on one tile.
fn head(harness: &mut Harness, hidden: usize) -> Result<()> {
    let (h, weight) = (random(&[TILE, hidden])?, random(&[VOCABULARY, hidden])?);
    let dlogits = random(&[TILE, VOCABULARY])?;
    let mut dweight = zeros(&[VOCABULARY, hidden])?;
    for precision in [Precision::Full, Precision::Bf16] {
        let work = Work::Flops(2 * TILE * hidden * VOCABULARY, precision);
        let name = |kernel: &str| format!("head {kernel} {precision:?}").to_lowercase();
        harness.measure(&name("logits"), work, || {
            linear::linear(&h, &weight, None, DType::F32, precision)
        });
        harness.measure(&name("backward_input"), work, || {
            linear::backward_input(&dlogits, &weight, DType::F32, precision)
        });
        harness.measure(&name("backward_weight"), work, || {
            linear::backward_weight(&dlogits, &h, &mut dweight, precision)
        });
    }
    Ok(())
}

fn statistics(harness: &mut Harness) -> Result<()> {
    let logits = random(&[TILE, VOCABULARY])?;
    let labels = Tensor::new(ids(TILE, VOCABULARY), &Device::Cpu)?;
    let bytes = TILE * VOCABULARY * F32;
    harness.measure("token::statistics", Work::Bytes(bytes), || {
        token::statistics(&logits, &labels)
    });
    let (sums, seeds) = ([11.3; TILE], [0.5; TILE]);
    let plain = LogitTransform::IDENTITY;
    harness.measure("token::backward", Work::Bytes(2 * bytes), || {
        token::backward(
            logits.clone(),
            &labels,
            &sums,
            &seeds,
            plain,
            logits.dtype(),
        )
    });
    Ok(())
}
