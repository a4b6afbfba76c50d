//! Gathering rows by index, and the sum of gradients back into them.

use candle_core::{CpuStorage, InplaceOp3, Layout, Tensor, bail};

use crate::error::Result;

/// Rows `ids` (n), u32, of `table` (rows, width) -> (n, width).
pub fn gather(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    Ok(table.index_select(ids, 0)?)
}

/// The backward pass: adds row i of `dy` (n, width) to row `ids[i]` of `dtable` (rows, width), in
/// the order of i, so that the sum does not depend on threads.
pub fn scatter_add(dy: &Tensor, ids: &Tensor, dtable: &Tensor) -> Result<()> {
    Ok(dtable.inplace_op3(ids, &dy.contiguous()?, &ScatterAdd)?)
}

struct ScatterAdd;

impl InplaceOp3 for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatter-add"
    }

    fn cpu_fwd(
        &self,
        table: &mut CpuStorage,
        table_layout: &Layout,
        ids: &CpuStorage,
        ids_layout: &Layout,
        dy: &CpuStorage,
        dy_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (Some((t0, t1)), Some((i0, i1)), Some((d0, d1))) = (
            table_layout.contiguous_offsets(),
            ids_layout.contiguous_offsets(),
            dy_layout.contiguous_offsets(),
        ) else {
            bail!("scatter-add: operands must be contiguous")
        };
        let width = table_layout.shape().dims2()?.1;
        if dy_layout.shape().dims2()? != (i1 - i0, width) {
            bail!(
                "scatter-add: {} rows of {width}, got {:?}",
                i1 - i0,
                dy_layout.dims()
            )
        }
        let CpuStorage::U32(ids) = ids else {
            bail!("scatter-add: ids must be u32")
        };
        match (table, dy) {
            (CpuStorage::F32(t), CpuStorage::F32(d)) => {
                add_rows(&mut t[t0..t1], &ids[i0..i1], &d[d0..d1], width);
            }
            (CpuStorage::F64(t), CpuStorage::F64(d)) => {
                add_rows(&mut t[t0..t1], &ids[i0..i1], &d[d0..d1], width);
            }
            _ => bail!("scatter-add: f32 or f64, the same on both sides"),
        }
        Ok(())
    }
}

fn add_rows<T: Copy + std::ops::AddAssign>(table: &mut [T], ids: &[u32], dy: &[T], width: usize) {
    for (&id, row) in ids.iter().zip(dy.chunks_exact(width)) {
        let start = id as usize * width;
        for (t, d) in table[start..start + width].iter_mut().zip(row) {
            *t += *d;
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
        let ids = Tensor::new(&[2u32, 0, 2, 3, 2], &Device::Cpu).unwrap();
        let want = autograd(&gather(&table, &ids).unwrap(), &seed, &[&table]);
        let got = zeros_like(&table);
        scatter_add(&seed, &ids, &got).unwrap();
        assert_close(&got, &want[0], "dtable");
    }
}
