//! What a training step is expected to take, by the kernels that take it.
//!
//! ```text
//! matmuls      FLOPs / (0.85 x the rate of large matmuls)
//! attention    FLOPs / (0.125 x the rate of large matmuls)
//! head         FLOPs / (0.85 x the rate of large matmuls) + bytes / (0.7 x bandwidth)
//! elementwise  bytes / (0.7 x bandwidth)
//! optimizer    bytes / (0.8 x bandwidth)
//! host         0.3 us x tokens + 0.1 ms x waits
//! ```
//!
//! FLOPs and bytes are counted, rates are the device's, and the shares of them are assumptions: no step
//! has been measured part by part yet. Where a part takes longer on a card than here, that part is where
//! to look.
//!
//! *Why*: [`Seconds`](super::Seconds) is a bound, which no kernel reaches. A measured step is read
//! against what each of its parts should take.

use serde::Serialize;

use super::flops::FlopsByKernel;
use super::time::{elementwise_bytes, update_bytes};
use super::{Device, Division, Models, Rates, Rows};
use crate::config::Config;
use crate::model::decoder::tile_rows;
use crate::model::skipped::Skipped;

/// Matmuls of a step beside large ones: sides of a few thousand leave the last wave of tiles half empty,
/// and sums into f32 read and write them.
const MATMULS: f64 = 0.85;

/// Attention beside large matmuls: its operands come from shared memory, and tiles of 64 rows are half
/// empty at answers of some 50 tokens. On long rows twice that.
const ATTENTION: f64 = 0.125;

/// Kernels that go over rows, beside the data sheet's bandwidth.
const ELEMENTWISE: f64 = 0.7;

/// Kernels that stream whole buffers, beside the data sheet's bandwidth.
const OPTIMIZER: f64 = 0.8;

/// Seconds in which the host packs and uploads a token while the device waits.
const HOST_TOKEN: f64 = 0.3e-6;

/// Seconds that the device waits each time that the host reads a result and launches what follows.
const HOST_WAIT: f64 = 0.1e-3;

/// The rates that the parts of a step are expected to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ceilings {
    /// Of matmuls, FLOP/s.
    pub matmuls: f64,
    /// Of attention, FLOP/s.
    pub attention: f64,
    /// Of elementwise operations, bytes/s.
    pub elementwise: f64,
    /// Of the optimizer, bytes/s.
    pub optimizer: f64,
}

impl Ceilings {
    /// The rates of a device.
    fn of(rates: &Rates) -> Self {
        Self {
            matmuls: MATMULS * rates.flops,
            attention: ATTENTION * rates.flops,
            elementwise: ELEMENTWISE * rates.bandwidth,
            optimizer: OPTIMIZER * rates.bandwidth,
        }
    }
}

/// What a part of a step does, and how long that is expected to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Part {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Seconds.
    pub seconds: f64,
}

/// The parts of a step, on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Parts {
    /// Matmuls with the weights of blocks, what they move not counted.
    pub matmuls: Part,
    /// Attention, what it moves not counted.
    pub attention: Part,
    /// Logits, their statistics and their gradient.
    pub head: Part,
    /// Elementwise operations.
    pub elementwise: Part,
    /// Clearing gradients, their norm, and the update.
    pub optimizer: Part,
    /// The device waits for the host.
    pub host: Part,
    /// All of it.
    pub total: Part,
    /// The rates that were taken.
    pub ceilings: Ceilings,
}

impl Parts {
    /// The parts of a step of a run; `None` where the device's rates are not known.
    pub(super) fn of(
        config: &Config,
        models: &Models,
        rows: &Rows,
        device: &Device,
    ) -> Option<Self> {
        let rates = device.rates.as_ref()?;
        let (policy, recompute) = (models.policy, config.model.recompute);
        let skipped = Skipped::of(policy, models.layout);
        let trained = elementwise_bytes(config, device, policy, skipped.lowest, &rows.trained);
        let mut flops = FlopsByKernel::step(policy, &skipped, &rows.trained, recompute);
        let (mut blocks, mut head) = (trained.blocks(recompute), trained.head());
        let mut scored = vec![(policy, &rows.statistic)];
        if config.reference.is_some() {
            scored.push((models.reference, &rows.referenced));
        }
        for (arch, work) in scored {
            let moved = elementwise_bytes(config, device, arch, 0, work);
            flops = flops.plus(1.0, FlopsByKernel::forward(arch, work));
            blocks += moved.forward;
            head += moved.logits;
        }
        let steps = rows.steps_per_epoch() as f64;
        let micro_batches = rows.micro_batches(Division::of(config));
        let predictions = rows.trained.predictions / steps / micro_batches;
        let tiles = (predictions / tile_rows(policy, device.gpu) as f64).ceil();
        let update = update_bytes(config, device, models.layout) as f64;
        let update_flops = config.optimizer.optim.flops(models.layout);
        // Of each tile the host reads the statistics, and of each step the gradient's norm.
        let waits = micro_batches * tiles + 1.0;
        let ceilings = Ceilings::of(rates);
        let part = |(flops, rate): (f64, f64), (bytes, bandwidth): (f64, f64)| Part {
            flops,
            bytes,
            seconds: flops / rate + bytes / bandwidth,
        };
        let none = (0.0, 1.0);
        let products = |flops: f64| (flops / steps, ceilings.matmuls);
        let moved = |bytes: f64| (bytes / steps, ceilings.elementwise);
        let mut parts = Self {
            matmuls: part(products(flops.matmuls), none),
            attention: part((flops.attention / steps, ceilings.attention), none),
            head: part(products(flops.head), moved(head)),
            elementwise: part(none, moved(blocks)),
            optimizer: part(
                (update_flops, ceilings.matmuls),
                (update, ceilings.optimizer),
            ),
            host: Part {
                seconds: HOST_TOKEN * rows.trained.tokens / steps + HOST_WAIT * waits,
                ..Part::default()
            },
            total: Part::default(),
            ceilings,
        };
        for (_, part) in parts.named() {
            parts.total.flops += part.flops;
            parts.total.bytes += part.bytes;
            parts.total.seconds += part.seconds;
        }
        Some(parts)
    }

    /// The parts without their total, each with its name in JSON.
    pub fn named(&self) -> [(&'static str, Part); 6] {
        [
            ("matmuls", self.matmuls),
            ("attention", self.attention),
            ("head", self.head),
            ("elementwise", self.elementwise),
            ("optimizer", self.optimizer),
            ("host", self.host),
        ]
    }
}
