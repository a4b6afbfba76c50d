//! What optimizers keep of past gradients, and one update by it.
//!
//! Moments in 8 bits are in blocks of each parameter's own, so that a parameter's update depends on
//! nothing but its own gradients: not on which others are trained, nor on where it lies in the flat
//! buffer. As in bitsandbytes, parameters of fewer than 4,096 elements, biases and norms above all, keep
//! f32 moments: they are a thousandth of a model.

use std::iter::once;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device};

use super::Method;
use super::muon::{self, Muon, is_hidden};
use super::places::{copy, of, part, placed, within};
use crate::error::{Error, Result};
use crate::kernels::Dst;
use crate::kernels::optimizer::{
    self as kernel, Adam, BLOCK, Coded, Decayed, Lion, Maps, RmsProp, Weights,
};
use crate::model::parameters::{Entry, Layout, Params};

/// Elements from which a parameter's moments are kept in 8 bits.
const LARGE: usize = 4096;

/// The constants of one update.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    Adam(Adam),
    RmsProp(RmsProp),
    Lion(Lion),
    /// Of hidden matrices, and of the rest.
    Muon(Muon, Adam),
}

/// The moments of every parameter that is trained.
#[derive(Debug)]
pub(super) enum Moments {
    /// Adam's, (elements) each.
    Adam {
        mean: Params,
        square: Params,
        decayed: Decayed,
    },
    /// Adam's in 8 bits.
    Adam8bit {
        moments: Box<[Blockwise; 2]>,
        maps: Maps,
        /// Nothing, and everything.
        decayed: [Decayed; 2],
    },
    /// RMSprop's mean of squared gradients, (elements).
    RmsProp { square: Params },
    /// Lion's mean of gradients, (elements).
    Lion { mean: Params, decayed: Decayed },
    /// Muon's mean of gradients, (elements), and Adam's of what is not a hidden matrix, in f32.
    Muon {
        mean: Params,
        square: Params,
        /// Nothing, and everything.
        decayed: [Decayed; 2],
    },
}

/// A moment: in 8 bits of large parameters, in f32 of small ones.
#[derive(Debug)]
pub(super) struct Blockwise {
    name: &'static str,
    absmax_name: &'static str,
    /// u8, in the shapes of large parameters.
    codes: Params,
    /// f32, a number per block of each large parameter.
    absmax: Params,
    /// f32, small parameters.
    small: Params,
}

impl Moments {
    /// Zeros for the parameters of `layout`; those that are not kept in 8 bits of this dtype.
    pub fn new(
        method: Method,
        layout: &Arc<Layout>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let zeros = || Params::zeros(layout.clone(), dtype, device);
        let decayed = || {
            let decayed = layout.entries.iter().filter(|entry| entry.decay);
            let decayed = decayed.map(|entry| entry.range.clone()).collect();
            Decayed::new(decayed, device)
        };
        let none_or_all = || -> Result<[Decayed; 2]> {
            let all = Decayed::new(once(0..layout.len).collect(), device)?;
            Ok([Decayed::new(Vec::new(), device)?, all])
        };
        // bf16 is for large buffers alone.
        let wide = match dtype {
            DType::BF16 => DType::F32,
            wide => wide,
        };
        Ok(match method {
            Method::AdamW | Method::Adam => Self::Adam {
                mean: zeros()?,
                square: zeros()?,
                decayed: decayed()?,
            },
            Method::AdamW8bit => {
                let zeros = |name, absmax| Blockwise::new(name, absmax, layout, (wide, device));
                Self::Adam8bit {
                    moments: Box::new([
                        zeros("mean", "mean_absmax")?,
                        zeros("square", "square_absmax")?,
                    ]),
                    maps: Maps::new(device)?,
                    decayed: none_or_all()?,
                }
            }
            Method::RmsProp => Self::RmsProp { square: zeros()? },
            Method::Lion => Self::Lion {
                mean: zeros()?,
                decayed: decayed()?,
            },
            Method::Muon => {
                let rest = layout.entries.iter().filter(|entry| !is_hidden(entry));
                let rest = Arc::new(placed(rest.cloned().collect()));
                Self::Muon {
                    mean: Params::zeros(layout.clone(), wide, device)?,
                    square: Params::zeros(rest, wide, device)?,
                    decayed: none_or_all()?,
                }
            }
        })
    }

    /// All buffers by name; those of one name are of different parameters.
    pub fn buffers(&self) -> Vec<(&'static str, &Params)> {
        match self {
            Self::Adam { mean, square, .. } | Self::Muon { mean, square, .. } => {
                vec![("mean", mean), ("square", square)]
            }
            Self::Adam8bit { moments, .. } => moments.iter().flat_map(Blockwise::buffers).collect(),
            Self::RmsProp { square } => vec![("square", square)],
            Self::Lion { mean, .. } => vec![("mean", mean)],
        }
    }

    /// As [`buffers`](Self::buffers), to be filled in.
    pub fn buffers_mut(&mut self) -> Vec<(&'static str, &mut Params)> {
        match self {
            Self::Adam { mean, square, .. } | Self::Muon { mean, square, .. } => {
                vec![("mean", mean), ("square", square)]
            }
            Self::Adam8bit { moments, .. } => {
                let moments = moments.iter_mut();
                moments.flat_map(Blockwise::buffers_mut).collect()
            }
            Self::RmsProp { square } => vec![("square", square)],
            Self::Lion { mean, .. } => vec![("mean", mean)],
        }
    }

    /// The moments of one parameter in a copy, in f32 in host memory.
    pub fn of(&self, method: Method, alone: &Arc<Layout>) -> Result<Self> {
        let mut copied = Self::new(method, alone, DType::F32, &Device::Cpu)?;
        for ((_, from), (_, to)) in self.buffers().into_iter().zip(copied.buffers_mut()) {
            copy(from, to)?;
        }
        Ok(copied)
    }

    /// Updates `piece` of `weights` and its moments by gradients times `scale`.
    pub fn update(
        &mut self,
        rule: &Rule,
        mut weights: Weights,
        (gradients, scale): (&Params, f64),
        piece: &Range<usize>,
    ) -> Result<()> {
        let flat = part(gradients, piece)?;
        let gradient = (&flat, scale);
        match (self, rule) {
            (
                Self::Adam {
                    mean,
                    square,
                    decayed,
                },
                Rule::Adam(adam),
            ) => {
                let moments = (mean.flat_mut(), square.flat_mut());
                kernel::adam(
                    adam,
                    decayed,
                    weights.part(piece.clone())?,
                    moments,
                    gradient,
                )
            }
            (
                Self::Adam8bit {
                    moments,
                    maps,
                    decayed,
                },
                Rule::Adam(adam),
            ) => within(gradients.layout(), piece).try_for_each(|entry| {
                let gradient = part(gradients, &entry.range)?;
                let gradient = (&gradient, scale);
                let weights = weights.part(entry.range.clone())?;
                let [mean, square] = &mut **moments;
                if is_large(entry) {
                    let moments = [mean.coded(entry)?, square.coded(entry)?];
                    kernel::adam_8bit(adam, entry.decay, maps, weights, moments, gradient)
                } else {
                    let moments = (mean.small(entry)?, square.small(entry)?);
                    let decayed = &decayed[usize::from(entry.decay)];
                    kernel::adam(adam, decayed, weights, moments, gradient)
                }
            }),
            (Self::RmsProp { square }, Rule::RmsProp(rmsprop)) => {
                let weights = weights.part(piece.clone())?;
                kernel::rmsprop(rmsprop, weights, square.flat_mut(), gradient)
            }
            (Self::Lion { mean, decayed }, Rule::Lion(lion)) => {
                let weights = weights.part(piece.clone())?;
                kernel::lion(lion, decayed, weights, mean.flat_mut(), gradient)
            }
            (
                Self::Muon {
                    mean,
                    square,
                    decayed,
                },
                Rule::Muon(muon, adam),
            ) => within(gradients.layout(), piece).try_for_each(|entry| {
                let gradient = part(gradients, &entry.range)?;
                let gradient = (&gradient, scale);
                let weights = weights.part(entry.range.clone())?;
                let mean = of(mean, entry)?;
                if is_hidden(entry) {
                    muon.update(entry, weights, mean, gradient)
                } else {
                    let decayed = &decayed[usize::from(entry.decay)];
                    kernel::adam(adam, decayed, weights, (mean, of(square, entry)?), gradient)
                }
            }),
            _ => Err(Error::failed("moments of another optimizer")),
        }
    }
}

impl Blockwise {
    fn new(
        name: &'static str,
        absmax_name: &'static str,
        layout: &Layout,
        (small_dtype, device): (DType, &Device),
    ) -> Result<Self> {
        let zeros = |entries, dtype| Params::zeros(Arc::new(placed(entries)), dtype, device);
        let entries = layout.entries.iter().cloned();
        let (large, small): (Vec<_>, Vec<_>) = entries.partition(is_large);
        let blocks = large.iter().map(|entry| Entry {
            shape: vec![entry.range.len().div_ceil(BLOCK)],
            ..entry.clone()
        });
        Ok(Self {
            name,
            absmax_name,
            absmax: zeros(blocks.collect(), DType::F32)?,
            codes: zeros(large, DType::U8)?,
            small: zeros(small, small_dtype)?,
        })
    }

    fn buffers(&self) -> [(&'static str, &Params); 3] {
        [
            (self.name, &self.codes),
            (self.absmax_name, &self.absmax),
            (self.name, &self.small),
        ]
    }

    fn buffers_mut(&mut self) -> [(&'static str, &mut Params); 3] {
        [
            (self.name, &mut self.codes),
            (self.absmax_name, &mut self.absmax),
            (self.name, &mut self.small),
        ]
    }

    /// The codes of a large parameter.
    fn coded(&mut self, entry: &Entry) -> Result<Coded<'_>> {
        Ok(Coded {
            codes: of(&mut self.codes, entry)?,
            absmax: of(&mut self.absmax, entry)?,
        })
    }

    /// A small parameter's moment.
    fn small(&mut self, entry: &Entry) -> Result<Dst<'_>> {
        of(&mut self.small, entry)
    }
}

impl Method {
    /// Bytes of the moments for the parameters of `layout` that are trained, where those that are kept
    /// neither in 8 bits nor always in f32 take `width` bytes each.
    pub fn moment_bytes(self, layout: &Layout, width: u64) -> u64 {
        let trained = layout.trainable_len as u64;
        let entries = || layout.entries.iter().filter(|entry| entry.trainable);
        match self {
            Self::AdamW | Self::Adam => 2 * width * trained,
            Self::RmsProp | Self::Lion => width * trained,
            Self::Muon => {
                let rest = entries().filter(|entry| !is_hidden(entry));
                let rest = rest.map(|entry| entry.range.len()).sum::<usize>();
                4 * (trained + rest as u64)
            }
            Self::AdamW8bit => {
                let bytes = |entry: &Entry| match (is_large(entry), entry.range.len()) {
                    (true, n) => n + 4 * n.div_ceil(BLOCK),
                    (false, n) => 4 * n,
                };
                2 * entries().map(bytes).sum::<usize>() as u64
            }
        }
    }

    /// Floating-point operations of an update's matmuls.
    pub fn flops(self, layout: &Layout) -> f64 {
        match self {
            Self::Muon => muon::flops(layout),
            _ => 0.0,
        }
    }

    /// Elements that an update makes for a while, in the type of the weights that are computed with.
    pub fn scratch(self, layout: &Layout) -> u64 {
        match self {
            Self::Muon => muon::scratch(layout),
            _ => 0,
        }
    }
}

/// Whether a parameter's moments are kept in 8 bits.
fn is_large(entry: &Entry) -> bool {
    entry.range.len() >= LARGE
}

#[cfg(test)]
mod tests;
