//! Rows of a table by id.

use candle_core::Tensor;
use rayon::prelude::*;

use super::cpu::{each_real, fresh, read, write};
use super::elementwise::add;
use super::profile::{Part, part};
use crate::error::{Error, Result};

/// `table` (n, width), `ids` (m), u32 -> (m, width).
///
/// # Errors
/// If an id is outside the table.
pub fn gather(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    let (n, width) = table.dims2()?;
    let ids = read(ids);
    let ids = ids.ids()?;
    check(ids, n)?;
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
pub fn scatter_add(dy: &Tensor, ids: &Tensor, dtable: &Tensor) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let (n, width) = dtable.dims2()?;
    let ids = read(ids);
    let ids = ids.ids()?;
    check(ids, n)?;
    if dy.dims2()? != (ids.len(), width) || !dtable.is_contiguous() {
        let dims = (dy.dims(), dtable.dims());
        return Err(Error::failed(format!(
            "scatter-add: {:?} into {:?}",
            dims.0, dims.1
        )));
    }
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

fn check(ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= rows) {
        Some(id) => Err(Error::failed(format!("id {id} in a table of {rows} rows"))),
        None => Ok(()),
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
        let ids = Tensor::new(&[2u32, 0, 2, 3, 2], &Device::Cpu).unwrap();
        let rows = table.index_select(&ids, 0).unwrap();
        assert_close(&gather(&table, &ids).unwrap(), &rows, "forward");
        let want = autograd(&rows, &seed, &[&table]);
        let got = zeros_like(&table);
        scatter_add(&seed, &ids, &got).unwrap();
        assert_close(&got, &want[0], "dtable");
        let outside = Tensor::new(&[4u32], &Device::Cpu).unwrap();
        assert!(gather(&table, &outside).is_err());
        assert!(scatter_add(&seed.narrow(0, 0, 1).unwrap(), &outside, &got).is_err());
    }
}
