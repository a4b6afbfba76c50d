//! What ranks that share a run hold each, and send to each other.

use serde::Serialize;

use super::bytes::Bytes;
use super::{Device, Parts};
use crate::config::Config;
use crate::model::parameters::Layout;
use crate::optim::of_piece;
use crate::ranks::{lanes, pieces};

/// An f32: gradients are.
const F32: u64 = 4;

/// Elements that a GPU gets of every rank before it adds them.
const AT_ONCE: u64 = 4 << 20;

/// Bytes of the rank that has the most.
pub(super) struct Shared {
    /// Of gradients, with sums of lanes that wait for others.
    pub gradients: u64,
    /// Of the optimizer's moments.
    pub moments: u64,
    exchange: Exchange,
    /// The share of the trained parameters that the largest piece has.
    largest: f64,
}

/// Bytes that a rank sends in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Of gradients, to the ranks that add them.
    pub gradients: u64,
    /// Of updated weights, to all others.
    pub weights: u64,
}

/// What a step is expected to take that ranks share, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SharedStep {
    /// On one of the devices alone.
    pub alone: f64,
    /// What a rank computes, where all lanes take equally long.
    pub computing: f64,
    /// The exchange, during which nothing is computed; `None` where the bandwidth between ranks is not known.
    pub exchange: Option<f64>,
}

impl SharedStep {
    /// All of it, as far as it is known.
    pub fn total(&self) -> f64 {
        self.computing + self.exchange.unwrap_or(0.0)
    }
}

impl Shared {
    /// Of the device's ranks.
    pub fn of(config: &Config, layout: &Layout, device: &Device, bytes: &Bytes) -> Self {
        let ranks = device.ranks;
        let trained = layout.trainable();
        let pieces = pieces(&trained.trained_ends(), ranks);
        let moments = |piece| bytes.moments(config, &of_piece(&trained, piece));
        let moments = pieces.iter().map(moments).max().unwrap_or(0);
        let longest = pieces.iter().map(|piece| piece.len()).max().unwrap_or(0) as u64;
        let lanes = lanes(config.batch.lanes, None, ranks);
        let slots = (lanes / ranks).max(1);
        // Sums that wait for their other half.
        let waiting = u64::from(slots.ilog2());
        let whole = trained.len as u64;
        let sums = match ranks {
            1 => whole * waiting,
            _ => longest * (1 + waiting),
        };
        // What comes of other ranks waits to be added.
        let landing = match device.gpu && ranks > 1 {
            true => longest.min(AT_ONCE) * ranks as u64,
            false => 0,
        };
        let others = |elements: u64| elements * F32 * (ranks as u64 - 1) / ranks as u64;
        Self {
            largest: longest as f64 / whole.max(1) as f64,
            gradients: F32 * (whole + sums + landing),
            moments,
            exchange: Exchange {
                gradients: others(whole) * slots as u64,
                weights: longest * (bytes.weight + bytes.master) * (ranks as u64 - 1),
            },
        }
    }

    /// What is sent; nothing by one rank alone.
    pub fn exchange(&self) -> Option<Exchange> {
        (self.exchange.weights > 0).then_some(self.exchange)
    }

    /// What a step takes whose parts on one device are known; `None` by one rank alone.
    pub fn step(&self, parts: Option<&Parts>, device: &Device) -> Option<SharedStep> {
        let (exchange, parts) = (self.exchange()?, parts?);
        let (alone, update) = (parts.total.seconds, parts.optimizer.seconds);
        let sent = (exchange.gradients + exchange.weights) as f64;
        Some(SharedStep {
            alone,
            computing: (alone - update) / device.ranks as f64 + update * self.largest,
            exchange: device.link.map(|link| sent / link),
        })
    }
}
