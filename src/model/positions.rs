//! How the positions of a batch's tokens enter the computation: as angles of rotations, or as rows of a
//! learned table.

use candle_core::{DType, Device, Tensor};

use super::arch::{self, Architecture};
use super::parameters::{Layout, Parameter};
use crate::error::Result;
use crate::kernels::device::from_host;
use crate::kernels::embedding::Ids;
use crate::kernels::rotary::Angles;

/// What a model makes of positions.
#[derive(Debug)]
pub(super) enum Positions {
    Rotary {
        tables: Vec<Table>,
        /// Each layer's place in `tables`.
        layers: Vec<Option<usize>>,
    },
    /// (positions, hidden).
    Learned(Parameter),
}

/// One kind of rotation.
#[derive(Debug)]
pub(super) struct Table {
    inverse_frequencies: Vec<f32>,
}

/// Of the tokens of a batch.
#[derive(Debug)]
pub(super) enum Placed {
    Rotary {
        /// One for each kind of rotation.
        angles: Vec<Angles>,
        layers: Vec<Option<usize>>,
    },
    /// (tokens): the rows of the learned table.
    Learned(Ids),
}

impl Positions {
    pub(super) fn new(arch: &Architecture, layout: &Layout) -> Self {
        match &arch.positions {
            arch::Positions::Rotary { tables, layers } => Self::Rotary {
                tables: tables
                    .iter()
                    .map(|table| Table {
                        inverse_frequencies: table.inverse_frequencies(),
                    })
                    .collect(),
                layers: layers.clone(),
            },
            arch::Positions::Learned(name) => {
                Self::Learned(layout.parameter(&format!("{name}.weight")))
            }
        }
    }

    /// The learned table, where there is one.
    pub(super) fn learned(&self) -> Option<Parameter> {
        match self {
            Self::Rotary { .. } => None,
            Self::Learned(table) => Some(*table),
        }
    }

    /// Those of tokens at these positions, with angles of `dtype`.
    pub(super) fn of(&self, positions: &[u32], dtype: DType, device: &Device) -> Result<Placed> {
        match self {
            Self::Rotary { tables, layers } => {
                let angles = tables
                    .iter()
                    .map(|table| table.angles(positions, dtype, device));
                Ok(Placed::Rotary {
                    angles: angles.collect::<Result<_>>()?,
                    layers: layers.clone(),
                })
            }
            Self::Learned(_) => Ok(Placed::Learned(Ids::new(positions, device)?)),
        }
    }
}

impl Placed {
    /// The angles of a layer, where it rotates.
    pub(super) fn angles(&self, layer: usize) -> Option<&Angles> {
        match self {
            Self::Rotary { angles, layers } => layers[layer].map(|table| &angles[table]),
            Self::Learned(_) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Rotary { angles, .. } => angles.iter().flat_map(|a| [&a.cos, &a.sin]).collect(),
            Self::Learned(rows) => vec![rows.tensor()],
        }
    }
}

impl Table {
    fn angles(&self, positions: &[u32], dtype: DType, device: &Device) -> Result<Angles> {
        let half = self.inverse_frequencies.len();
        let of = |position: u32| {
            self.inverse_frequencies
                .iter()
                .map(move |f| position as f32 * f)
        };
        let shape = (positions.len(), 1, half);
        // Tokens of a batch share positions, and a cosine costs more than a copy.
        let most = positions.iter().max().map_or(0, |&most| most as usize + 1);
        let shared = most < positions.len();
        let turn = |f: fn(f32) -> f32| -> Result<Tensor> {
            let values: Vec<f32> = if shared {
                let table: Vec<f32> = (0..most as u32).flat_map(of).map(f).collect();
                let row = |&position: &u32| &table[position as usize * half..][..half];
                positions.iter().flat_map(row).copied().collect()
            } else {
                positions.iter().copied().flat_map(of).map(f).collect()
            };
            let values = from_host(&values, shape, device)?;
            Ok(values.to_dtype(dtype)?)
        };
        Ok(Angles {
            cos: turn(f32::cos)?,
            sin: turn(f32::sin)?,
        })
    }
}
