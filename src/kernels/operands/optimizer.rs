//! Updates of an optimizer, how its weights are kept, and which of them decay.

use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::kernels::device::from_host;
use crate::kernels::tensor::Dst;

/// An update of Adam with decoupled weight decay: Kingma and Ba 2015, algorithm 1; Loshchilov and
/// Hutter 2019, algorithm 2.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// The learning rate.
    pub rate: f64,
    /// The share of a weight that is taken off, times the learning rate.
    pub weight_decay: f64,
    /// Which update this is, from 1.
    pub step: u64,
}

/// An update of RMSprop as in the official DPO repository.
#[derive(Debug, Clone, Copy)]
pub struct RmsProp {
    /// Decay of the mean of squared gradients.
    pub alpha: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// The learning rate.
    pub rate: f64,
    /// Which update this is, from 1.
    pub step: u64,
}

/// An update of Lion: Chen et al. 2023, algorithm 2.
#[derive(Debug, Clone, Copy)]
pub struct Lion {
    /// The mean's share in the direction of an update.
    pub beta1: f64,
    /// Decay of the mean of gradients.
    pub beta2: f64,
    /// The learning rate.
    pub rate: f64,
    /// The share of a weight that is taken off, times the learning rate.
    pub weight_decay: f64,
    /// Which update this is, from 1.
    pub step: u64,
}

/// The weights of an update, (n) each.
///
/// In bf16 an update of a billionth is lost, so f32 weights are kept beside those that products read.
/// These are rounded to the nearest, ties away from zero, in both ways, and so the same.
#[derive(Debug)]
pub enum Weights<'a> {
    /// f32; on the CPU also f64.
    Plain(Dst<'a>),
    /// bf16, and the f32 weights that they are the rounding of. On a GPU alone.
    Master {
        /// bf16, written only.
        weights: Dst<'a>,
        /// f32.
        master: Dst<'a>,
    },
    /// bf16, and by how many units of their last place the f32 weights are further from zero. On a GPU
    /// alone.
    Split {
        /// bf16.
        weights: Dst<'a>,
        /// i16.
        low: Dst<'a>,
    },
}

impl<'a> Weights<'a> {
    /// All tensors, each (n).
    pub(in crate::kernels) fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Plain(weights) => vec![weights],
            Self::Master { weights, master } => vec![weights, master],
            Self::Split { weights, low } => vec![weights, low],
        }
    }

    /// The elements `range` of them.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn part(&mut self, range: Range<usize>) -> Result<Weights<'_>> {
        fn part<'a>(x: &'a mut Dst<'_>, range: &Range<usize>) -> Result<Dst<'a>> {
            x.reborrow()
                .narrowed(|x| x.narrow(0, range.start, range.len()))
        }
        Ok(match self {
            Self::Plain(weights) => Weights::Plain(part(weights, &range)?),
            Self::Master { weights, master } => Weights::Master {
                weights: part(weights, &range)?,
                master: part(master, &range)?,
            },
            Self::Split { weights, low } => Weights::Split {
                weights: part(weights, &range)?,
                low: part(low, &range)?,
            },
        })
    }

    /// The weights that matmuls read, (n).
    pub fn stored(&self) -> &Tensor {
        match self {
            Self::Plain(weights) | Self::Master { weights, .. } | Self::Split { weights, .. } => {
                weights
            }
        }
    }

    /// The weights where no others are kept beside them.
    pub(in crate::kernels) fn plain(self) -> Result<Dst<'a>> {
        match self {
            Self::Plain(weights) => Ok(weights),
            _ => Err(on_a_gpu_alone()),
        }
    }
}

/// The elements that weight decay applies to.
#[derive(Debug)]
pub struct Decayed {
    ranges: Vec<Range<usize>>,
    places: Tensor,
}

impl Decayed {
    /// Of ranges in order and apart.
    pub fn new(ranges: Vec<Range<usize>>, device: &Device) -> Result<Self> {
        let apart = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
        if !apart || ranges.iter().any(|range| range.end < range.start) {
            return Err(Error::failed("ranges of weights out of order"));
        }
        let places = ranges.iter().flat_map(|range| [range.start, range.end]);
        let places = places.map(|place| place as i64).chain([i64::MAX]);
        let places: Vec<i64> = places.collect();
        let places = from_host(&places, places.len(), device)?;
        Ok(Self { ranges, places })
    }

    pub(in crate::kernels) fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// Where decay begins and ends, in turn, and behind that the largest number: i64, on the device.
    pub fn places(&self) -> &Tensor {
        &self.places
    }
}

fn on_a_gpu_alone() -> Error {
    Error::failed("bf16 weights are kept on a GPU alone")
}

/// The constants of one update.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep<T = f64> {
    pub scale: T,
    /// The decay of the mean, and 1 less it.
    pub beta1: (T, T),
    /// The decay of the square, and 1 less it.
    pub beta2: (T, T),
    /// What is kept of a weight that decays.
    pub keep: T,
    /// The learning rate over the bias of the mean.
    pub rate: T,
    /// 1 over the root of the bias of the square.
    pub root: T,
    pub epsilon: T,
}

impl AdamStep {
    /// Of gradients times `scale`.
    pub fn new(adam: &Adam, scale: f64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(adam.step as f64);
        Self {
            scale,
            beta1: (adam.beta1, 1.0 - adam.beta1),
            beta2: (adam.beta2, 1.0 - adam.beta2),
            keep: 1.0 - adam.rate * adam.weight_decay,
            rate: adam.rate / correction(adam.beta1),
            root: correction(adam.beta2).sqrt().recip(),
            epsilon: adam.epsilon,
        }
    }

    /// In the type of the weights.
    pub fn map<T>(self, f: impl Fn(f64) -> T) -> AdamStep<T> {
        AdamStep {
            scale: f(self.scale),
            beta1: (f(self.beta1.0), f(self.beta1.1)),
            beta2: (f(self.beta2.0), f(self.beta2.1)),
            keep: f(self.keep),
            rate: f(self.rate),
            root: f(self.root),
            epsilon: f(self.epsilon),
        }
    }
}
