//! Rows of a table by id.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::cpu::{each_real, fresh, read, write};
use super::elementwise::add;
use super::profile::{Part, part};
use crate::error::{Error, Result};

/// Ids of rows, on a device.
#[derive(Debug)]
pub struct Ids {
    /// (m), u32.
    values: Tensor,
    /// One more than the largest: the rows that a table must have.
    bound: usize,
    #[cfg(any(test, feature = "cuda"))]
    runs: Option<super::gpu::embedding::Runs>,
}

impl Ids {
    /// These ids on `device`, each any number of times.
    pub fn new(ids: &[u32], device: &Device) -> Result<Self> {
        let values = Tensor::new(ids, device)?;
        Ok(Self {
            bound: ids.iter().max().map_or(0, |&id| id as usize + 1),
            #[cfg(any(test, feature = "cuda"))]
            runs: super::gpu::embedding::Runs::of(ids, &values)?,
            values,
        })
    }

    #[cfg(test)]
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.values
    }

    fn check(&self, rows: usize) -> Result<()> {
        match self.bound <= rows {
            true => Ok(()),
            false => Err(Error::failed(format!(
                "id {} in a table of {rows} rows",
                self.bound - 1
            ))),
        }
    }
}

/// Rows `ids` (m) of `table` (n, width) -> (m, width) of `dtype`, which on the processor is the
/// table's.
///
/// # Errors
/// If an id is outside the table, or the dtype another.
pub fn gather(table: &Tensor, ids: &Ids, dtype: DType) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    let (n, width) = table.dims2()?;
    ids.check(n)?;
    on_gpu!(table => super::gpu::embedding::gather(table, &ids.values, dtype));
    if table.dtype() != dtype {
        return Err(Error::failed(format!(
            "gather: {dtype:?} from a table of {:?}",
            table.dtype()
        )));
    }
    let ids = read(&ids.values);
    let ids = ids.ids()?;
    // SAFETY: all of it is written below.
    let rows = unsafe { fresh((ids.len(), width), table)? };
    let table = table.contiguous()?;
    each_real!(table, T => {
        let table = read(&table);
        let table = table.values::<T>()?;
        write(&rows, |rows: &mut [T]| {
            rows.par_chunks_exact_mut(width).zip(ids).for_each(|(row, &id)| {
                row.copy_from_slice(&table[id as usize * width..][..width]);
            });
            Ok(())
        })
    })?;
    Ok(rows)
}

/// Adds row i of `dy` (m, width) to row `ids[i]` of `dtable` (n, width), in the order of i, so that
/// the sum does not depend on threads.
///
/// # Errors
/// If an id is outside the table, or shapes do not fit.
pub fn scatter_add(dy: &Tensor, ids: &Ids, dtable: &Tensor) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let (n, width) = dtable.dims2()?;
    ids.check(n)?;
    if dy.dims2()? != (ids.values.elem_count(), width) || !dtable.is_contiguous() {
        let dims = (dy.dims(), dtable.dims());
        return Err(Error::failed(format!(
            "scatter-add: {:?} into {:?}",
            dims.0, dims.1
        )));
    }
    on_gpu!(dy => super::gpu::embedding::scatter_add(dy, &ids.values, ids.runs.as_ref(), dtable));
    let ids = read(&ids.values);
    let ids = ids.ids()?;
    let dy = dy.contiguous()?;
    each_real!(dy, T => {
        let dy = read(&dy);
        let dy = dy.values::<T>()?;
        write(dtable, |table: &mut [T]| {
            for (&id, row) in ids.iter().zip(dy.chunks_exact(width)) {
                add(&mut table[id as usize * width..][..width], row);
            }
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::Device;

    #[test]
    fn repeated_rows_sum_as_in_autograd() {
        let (table, seed) = (variable(1, &[4, 3]), variable(2, &[5, 3]));
        let ids = Ids::new(&[2, 0, 2, 3, 2], &Device::Cpu).unwrap();
        let rows = table.index_select(&ids.values, 0).unwrap();
        let got = gather(&table, &ids, DType::F64).unwrap();
        assert_close(&got, &rows, "forward");
        assert!(gather(&table, &ids, DType::F32).is_err());
        let want = autograd(&rows, &seed, &[&table]);
        let got = zeros_like(&table);
        scatter_add(&seed, &ids, &got).unwrap();
        assert_close(&got, &want[0], "dtable");
        let outside = Ids::new(&[4], &Device::Cpu).unwrap();
        assert!(gather(&table, &outside, DType::F64).is_err());
        assert!(scatter_add(&seed.narrow(0, 0, 1).unwrap(), &outside, &got).is_err());
    }
}
