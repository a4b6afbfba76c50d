//! How an optimizer's weights are kept, and which of them decay.

use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};

/// The weights of an update, (n) each.
///
/// In bf16 an update of a billionth is lost, so f32 weights are kept beside those that products read.
/// These are rounded to the nearest, ties away from zero, in both ways, and so the same.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// f32; on the processor also f64.
    Plain(&'a Tensor),
    /// bf16, and the f32 weights that they are the rounding of. On a GPU alone.
    Master {
        /// bf16, written only.
        weights: &'a Tensor,
        /// f32.
        master: &'a Tensor,
    },
    /// bf16, and by how many units of their last place the f32 weights are further from zero. On a GPU
    /// alone.
    Split {
        /// bf16.
        weights: &'a Tensor,
        /// i16.
        low: &'a Tensor,
    },
}

impl<'a> Weights<'a> {
    /// All tensors, each (n).
    pub(super) fn tensors(&self) -> Vec<&'a Tensor> {
        match *self {
            Self::Plain(weights) => vec![weights],
            Self::Master { weights, master } => vec![weights, master],
            Self::Split { weights, low } => vec![weights, low],
        }
    }

    /// The weights where no others are kept beside them.
    pub(super) fn plain(&self) -> Result<&'a Tensor> {
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
        let places = Tensor::new(places.collect::<Vec<_>>(), device)?;
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
