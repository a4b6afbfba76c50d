//! Rows of a table by id, in host memory.

use candle_core::{DType, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::elementwise::add;
use super::host::{Disjoint, each_real, read, write};
use super::linear::widen;
use crate::error::{Error, Result};
use crate::kernels::tensor::{Dst, fresh_of};

/// Columns that one task adds up.
const COLUMNS: usize = 128;

pub fn gather(table: &Tensor, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    let (_, width) = table.dims2()?;
    let widens = (table.dtype(), dtype) == (DType::BF16, DType::F32);
    if table.dtype() != dtype && !widens {
        return Err(Error::failed(format!(
            "gather: {dtype:?} from a table of {:?}",
            table.dtype()
        )));
    }
    let ids = read(ids);
    let ids = ids.ids()?;
    // SAFETY: all of it is written below.
    let mut rows = unsafe { fresh_of((ids.len(), width), dtype, table)? };
    let table = table.contiguous()?;
    if widens {
        let table = read(&table);
        let table = table.values::<bf16>()?;
        write((&mut rows).into(), |rows: &mut [f32]| {
            let rows = rows.par_chunks_exact_mut(width).zip(ids);
            rows.for_each(|(row, &id)| widen(row, &table[id as usize * width..][..width]));
            Ok(())
        })?;
        return Ok(rows);
    }
    each_real!(table, T => {
        let table = read(&table);
        let table = table.values::<T>()?;
        write((&mut rows).into(), |rows: &mut [T]| {
            rows.par_chunks_exact_mut(width).zip(ids).for_each(|(row, &id)| {
                row.copy_from_slice(&table[id as usize * width..][..width]);
            });
            Ok(())
        })
    })?;
    Ok(rows)
}

pub fn scatter_add(dy: &Tensor, ids: &Tensor, dtable: Dst) -> Result<()> {
    let (_, width) = dtable.dims2()?;
    let ids = read(ids);
    let ids = ids.ids()?;
    let dy = dy.contiguous()?;
    each_real!(dy, T => {
        let dy = read(&dy);
        let dy = dy.values::<T>()?;
        write(dtable, |table: &mut [T]| {
            let table = Disjoint::new(table);
            // Each task has columns of its own, and adds to them in the order of rows.
            let starts: Vec<usize> = (0..width).step_by(COLUMNS).collect();
            starts.into_par_iter().for_each(|start| {
                let columns = COLUMNS.min(width - start);
                for (&id, row) in ids.iter().zip(dy.chunks_exact(width)) {
                    // SAFETY: no other task has these columns.
                    let to = unsafe { table.part(id as usize * width + start, columns) };
                    add(to, &row[start..start + columns]);
                }
            });
            Ok(())
        })
    })
}
