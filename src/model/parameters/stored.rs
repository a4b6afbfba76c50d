//! Parameters that are not f32 in a flat buffer: filled piece by piece, and read as matmuls take them.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::{Operand, Parameter, Params, Storage, Weights, bytes};
use crate::error::{Error, Result};
use crate::kernels::device::download;
use crate::kernels::packed::{PackedMatrix, pack, pack_quantized};
use crate::kernels::quantized::{Parts, Quantized, Quantizer, dequantize};
use crate::kernels::{Dst, Precision, linear};

/// Where a parameter's numbers are.
#[derive(Debug, Clone)]
pub(super) enum View {
    /// In a view of a flat buffer, or in a tensor of its own; in its shape.
    Dense(Tensor),
    /// In few bits, as a matrix whose rows are all dimensions but the last.
    Quantized(Quantized),
    /// As above, of which not all values have come.
    Quantizing(Quantizer),
    /// In panels, to decode with; and as it is stored, if it is.
    Packed(PackedMatrix, Option<Box<View>>),
    /// As above, the values that have come.
    Packing(Vec<f32>),
}

impl View {
    /// # Panics
    /// If it is quantized.
    pub fn dense(&self) -> &Tensor {
        match self {
            Self::Dense(view) => view,
            Self::Packed(_, Some(stored)) => stored.dense(),
            _ => panic!("a parameter without a view"),
        }
    }

    /// As it is stored.
    fn stored(&self) -> &Self {
        match self {
            Self::Packed(_, Some(stored)) => stored,
            other => other,
        }
    }

    /// As [`Self::dense`], to write.
    pub fn dense_mut(&mut self) -> Dst<'_> {
        match self {
            Self::Dense(view) => view.into(),
            Self::Packed(_, Some(stored)) => stored.dense_mut(),
            _ => panic!("a parameter without a view"),
        }
    }
}

/// A matrix in few bits as it is stored.
fn quantized_view(matrix: Quantized, storage: Storage) -> Result<View> {
    Ok(match storage {
        Storage::PackedQuantized(_) => View::Packed(pack_quantized(&matrix)?, None),
        _ => View::Quantized(matrix),
    })
}

/// Rows of a matrix or, of a parameter of three dimensions, of the matrix of the first two as one.
fn part(whole: &Tensor, rows: Option<&Range<usize>>) -> candle_core::Result<Tensor> {
    match rows {
        None => Ok(whole.clone()),
        Some(rows) if whole.rank() == 3 => {
            let whole = whole.flatten_to(1)?;
            whole.narrow(0, rows.start, rows.len())
        }
        Some(rows) => whole.narrow(0, rows.start, rows.len()),
    }
}

impl Params {
    /// Sets the values of a parameter from its element `start` on. A quantized parameter takes pieces of
    /// whole blocks in order, from 0 on.
    ///
    /// # Errors
    /// If they do not fit, or the format has no room for their magnitude.
    pub fn fill(&mut self, id: usize, start: usize, values: &[f32]) -> Result<()> {
        let entry = &self.layout.entries[id];
        match entry.storage {
            Storage::Flat => self.set(entry.range.start + start, values),
            Storage::Bf16 => {
                let flat = self.views[id].dense_mut();
                linear::store_rounded(
                    values,
                    flat.narrowed(|x| x.flatten_all()?.narrow(0, start, values.len()))?,
                )
            }
            Storage::Packed(precision) => {
                let view = &mut self.views[id];
                if start == 0 {
                    *view = View::Packing(Vec::with_capacity(entry.elements()));
                }
                if let View::Packing(taken) = view {
                    taken.extend_from_slice(values);
                    if taken.len() == entry.elements() {
                        let all = std::mem::take(taken);
                        let matrix = Tensor::from_vec(all, entry.rows(), &Device::Cpu)?;
                        *view = View::Packed(pack(&matrix, precision)?, None);
                    }
                }
                Ok(())
            }
            Storage::Quantized(format) | Storage::PackedQuantized(format) => {
                let view = &mut self.views[id];
                if start == 0 {
                    *view = View::Quantizing(Quantizer::new(format, entry.rows()));
                }
                if let View::Quantizing(quantizer) = view {
                    quantizer.push(values)?;
                    if quantizer.is_full() {
                        let empty = Quantizer::new(format, entry.rows());
                        let full = std::mem::replace(quantizer, empty);
                        let full = full.finish(self.flat.device())?;
                        *view = quantized_view(full, entry.storage)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Sets all values of a parameter, from a matrix in few bits.
    ///
    /// # Errors
    /// If the matrix is of another shape.
    pub fn fill_quantized(&mut self, id: usize, parts: Parts) -> Result<()> {
        let entry = &self.layout.entries[id];
        if let Storage::Quantized(_) | Storage::PackedQuantized(_) = entry.storage {
            let matrix = Quantized::new(parts, entry.rows(), self.flat.device())?;
            self.views[id] = quantized_view(matrix, entry.storage)?;
            return Ok(());
        }
        let matrix = Quantized::new(parts, entry.rows(), &Device::Cpu)?;
        let values = dequantize(&matrix, 0..matrix.shape().0, DType::F32)?;
        self.fill(id, 0, &download(&values)?)
    }

    /// The values of a parameter, however it is stored, in f32.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn read(&self, id: usize) -> Result<Vec<f32>> {
        let entry = &self.layout.entries[id];
        match (entry.storage, &self.views[id]) {
            (Storage::Flat, _) => self.values(entry.range.clone()),
            (_, View::Dense(view)) => download(view),
            _ => download(&self.rows(id, None, DType::F32, false)?),
        }
    }

    /// Rows of a matrix (out, in), all where `None`: in the dtype of the weights, except that a quantized
    /// one is read in `quantized`, and one in bf16 stays so where it may.
    fn rows(
        &self,
        id: usize,
        rows: Option<&Range<usize>>,
        quantized: DType,
        bf16: bool,
    ) -> Result<Tensor> {
        let dtype = self.flat.dtype();
        match self.views[id].stored() {
            View::Dense(whole) => {
                let rows = part(whole, rows)?;
                match rows.dtype() == dtype || bf16 {
                    true => Ok(rows),
                    false => linear::widened(&rows, dtype),
                }
            }
            View::Quantized(matrix) => {
                let all = 0..matrix.shape().0;
                dequantize(matrix, rows.cloned().unwrap_or(all), quantized)
            }
            View::Packed(..) => Err(Error::failed(
                "a matrix that is laid out for decoding alone",
            )),
            View::Quantizing(_) | View::Packing(_) => panic!("a parameter that was not loaded"),
        }
    }

    /// A matrix (out, in) in the dtype of the weights.
    pub(in crate::model) fn matrix(&self, id: usize) -> Result<Tensor> {
        self.rows(id, None, self.flat.dtype(), false)
    }

    /// Whether a parameter is in few bits.
    pub(in crate::model) fn is_quantized(&self, id: usize) -> bool {
        matches!(self.layout.entries[id].storage, Storage::Quantized(_))
    }

    /// The same parameters with a copy of every matrix in panels, in host memory: in bf16 where matmuls round
    /// their operands to it, but quantized ones as they are. Tables that `is_table` names have none.
    pub(in crate::model) fn packed(
        &self,
        precision: Precision,
        is_table: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let mut same = self.clone();
        let entries = &self.layout.entries;
        for (view, entry) in same.views.iter_mut().zip(entries) {
            let packed = match &*view {
                View::Dense(matrix) if matrix.rank() >= 2 && !is_table(&entry.name) => {
                    let rows = matrix.flatten_to(matrix.rank() - 2)?;
                    pack(&rows, precision)?
                }
                View::Quantized(matrix) => pack_quantized(matrix)?,
                _ => continue,
            };
            *view = View::Packed(packed, Some(Box::new(view.clone())));
        }
        Ok(same)
    }

    /// The same parameters, of which those at these places are other tensors, to compute with. The
    /// buffers stay what they are.
    pub(in crate::model) fn with_views(
        mut self,
        views: impl IntoIterator<Item = (usize, Tensor)>,
    ) -> Self {
        for (id, view) in views {
            self.views[id] = View::Dense(view);
        }
        self
    }
}

impl<'a> Weights<'a> {
    /// Rows of a matrix (out, in), all where `None`, as a matmul with them takes it.
    pub(in crate::model) fn operand(
        self,
        parameter: Parameter,
        rows: Option<&Range<usize>>,
    ) -> Result<Operand<'a>> {
        if let View::Packed(matrix, _) = &self.params.views[parameter.id] {
            let all = 0..matrix.shape().0;
            return Ok(Operand::Packed(matrix, rows.cloned().unwrap_or(all)));
        }
        self.dense(parameter, rows).map(Operand::Dense)
    }

    /// Rows of a matrix (out, in), all where `None`: one that rounds its operands to bf16 gives the same
    /// bits by bf16 weights, and one that does not widens them.
    pub(in crate::model) fn dense(
        self,
        parameter: Parameter,
        rows: Option<&Range<usize>>,
    ) -> Result<Tensor> {
        let dtype = self.dtype();
        let rounds = dtype == DType::F32 && self.precision == Precision::Bf16;
        let quantized = if rounds { DType::BF16 } else { dtype };
        let stays = dtype == DType::F32;
        self.params.rows(parameter.id, rows, quantized, stays)
    }

    /// As [`Self::dense`], in the dtype of the weights.
    pub(in crate::model) fn exact(
        self,
        parameter: Parameter,
        rows: Option<&Range<usize>>,
    ) -> Result<Tensor> {
        let dtype = self.dtype();
        self.params.rows(parameter.id, rows, dtype, false)
    }

    /// The bytes of rows of a matrix, all where `None`, as it is stored.
    pub(in crate::model) fn bytes(self, parameter: Parameter, rows: Option<&Range<usize>>) -> u64 {
        match &self.params.views[parameter.id] {
            View::Dense(whole) => {
                let (all, _) = self.params.layout.entries[parameter.id].rows();
                bytes(whole) * rows.map_or(all, ExactSizeIterator::len) as u64 / all.max(1) as u64
            }
            View::Quantized(matrix) => {
                let (all, rows) = (
                    matrix.shape().0,
                    rows.map_or(matrix.shape().0, |rows| rows.len()),
                );
                matrix.bytes() * rows as u64 / all.max(1) as u64
            }
            View::Packed(matrix, _) => {
                matrix.bytes(rows.map_or(matrix.shape().0, ExactSizeIterator::len))
            }
            View::Quantizing(_) | View::Packing(_) => 0,
        }
    }
}
