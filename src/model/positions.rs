//! How the positions of a batch's tokens enter the computation: as angles of rotations, or as rows of a
//! learned table.

#[cfg(test)]
use candle_core::Tensor;
use candle_core::{DType, Device};

use super::angles::angles;
use super::arch::{self, Architecture, Rotary};
use super::parameters::{Layout, Parameter};
use crate::error::Result;
use crate::kernels::embedding::Ids;
use crate::kernels::rotary::Angles;

/// What a model makes of positions.
#[derive(Debug)]
pub(super) enum Positions {
    Rotary {
        tables: Vec<Rotary>,
        /// Each layer's place in `tables`.
        layers: Vec<Option<usize>>,
    },
    /// (positions, hidden).
    Learned(Parameter),
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
                tables: tables.clone(),
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

    /// Those of tokens at these positions of sequences of these lengths, with angles of `dtype`.
    pub(super) fn of(
        &self,
        positions: &[u32],
        lengths: &[u32],
        dtype: DType,
        device: &Device,
    ) -> Result<Placed> {
        match self {
            Self::Rotary { tables, layers } => {
                let of = |table| angles(table, positions, lengths, dtype, device);
                Ok(Placed::Rotary {
                    angles: tables.iter().map(of).collect::<Result<_>>()?,
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
