//! Rows of a table by id.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::device::from_host;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::Dst;
use crate::kernels::{cpu, cuda};

/// Ids of rows, on a device.
#[derive(Debug)]
pub struct Ids {
    /// (m), u32.
    values: Tensor,
    /// One more than the largest: the rows that a table must have.
    bound: usize,
    /// Which places hold the same id; on a GPU alone.
    runs: Option<cuda::embedding::Runs>,
}

impl Ids {
    /// These ids on `device`, each any number of times.
    ///
    /// # Errors
    /// If the device has no memory for them.
    pub fn new(ids: &[u32], device: &Device) -> Result<Self> {
        Ok(Self {
            values: from_host(ids, ids.len(), device)?,
            bound: ids.iter().max().map_or(0, |&id| id as usize + 1),
            runs: match Backend::on(device) {
                Backend::Cpu => None,
                Backend::Cuda | Backend::Emulator => Some(cuda::embedding::Runs::new(ids, device)?),
            },
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

/// Rows `ids` (m) of `table` (n, width) -> (m, width) of `dtype`, which on the CPU is the table's, or f32 of a
/// bf16 table.
///
/// # Errors
/// If an id is outside the table, or the dtype another.
pub fn gather(table: &Tensor, ids: &Ids, dtype: DType) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    let (n, _) = table.dims2()?;
    ids.check(n)?;
    match Backend::of(table) {
        Backend::Cpu => cpu::embedding::gather(table, &ids.values, dtype),
        Backend::Cuda | Backend::Emulator => cuda::embedding::gather(table, &ids.values, dtype),
    }
}

/// Adds row i of `dy` (m, width) to row `ids[i]` of `dtable` (n, width), in the order of i, so that
/// the sum does not depend on threads.
///
/// # Errors
/// If an id is outside the table, or shapes do not fit.
pub fn scatter_add<'a>(dy: &Tensor, ids: &Ids, dtable: impl Into<Dst<'a>>) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let dtable = dtable.into();
    let (n, width) = dtable.dims2()?;
    ids.check(n)?;
    if dy.dims2()? != (ids.values.elem_count(), width) || !dtable.is_contiguous() {
        let dims = (dy.dims(), dtable.dims());
        return Err(Error::failed(format!(
            "scatter-add: {:?} into {:?}",
            dims.0, dims.1
        )));
    }
    match Backend::of(dy) {
        Backend::Cpu => cpu::embedding::scatter_add(dy, &ids.values, dtable),
        Backend::Cuda | Backend::Emulator => {
            cuda::embedding::scatter_add(dy, &ids.values, ids.runs.as_ref(), dtable)
        }
    }
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
        scatter_add(&seed, &ids, Dst::shared(&got)).unwrap();
        assert_close(&got, &want[0], "dtable");
        let [wide, narrow] = [DType::F32, DType::BF16].map(|dtype| table.to_dtype(dtype).unwrap());
        let narrow = gather(&narrow, &ids, DType::F32).unwrap();
        assert_near(
            &narrow,
            &gather(&wide, &ids, DType::F32).unwrap(),
            4e-3,
            "of bf16",
        );
        let outside = Ids::new(&[4], &Device::Cpu).unwrap();
        assert!(gather(&table, &outside, DType::F64).is_err());
        assert!(scatter_add(&seed.narrow(0, 0, 1).unwrap(), &outside, Dst::shared(&got)).is_err());
    }
}
