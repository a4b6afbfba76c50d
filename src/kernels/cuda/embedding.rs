//! Rows of a table by id.

use candle_core::{DType, Device, Tensor};

use super::module::{Grid, PACK, Source, source, type_name};
use crate::error::{Error, Result};
use crate::kernels::device::from_host;
use crate::kernels::tensor::{Dst, fresh_of, rows};

static TEXT: Source = source!("embedding");

/// Threads of a block of `scatter_add`.
const THREADS: usize = 128;

/// Which places hold the same id: sums over them then need neither atomics nor a host that waits.
#[derive(Debug)]
pub struct Runs {
    /// (ids), u32: places by id, those of one id in order.
    order: Tensor,
    /// (runs + 1), u32: where in `order` each id begins.
    starts: Tensor,
}

impl Runs {
    /// Of ids, on `device`.
    pub fn new(ids: &[u32], device: &Device) -> Result<Self> {
        let keys = ids.iter().zip(0u64..);
        let mut keys: Vec<u64> = keys.map(|(&id, at)| u64::from(id) << 32 | at).collect();
        keys.sort_unstable();
        let order: Vec<u32> = keys.iter().map(|&key| key as u32).collect();
        let first = |&at: &usize| at == 0 || keys[at] >> 32 != keys[at - 1] >> 32;
        let mut starts: Vec<u32> = (0..keys.len()).filter(first).map(|at| at as u32).collect();
        starts.push(keys.len() as u32);
        Ok(Self {
            order: from_host(&order, order.len(), device)?,
            starts: from_host(&starts, starts.len(), device)?,
        })
    }
}

pub fn gather(table: &Tensor, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    let (_, width, distance) = rows(table)?;
    let count = ids.elem_count();
    // SAFETY: all of it is written below.
    let y = unsafe { fresh_of((count, width), dtype, table)? };
    let module = TEXT.with([("S", type_name(table.dtype())?), ("D", type_name(dtype)?)])?;
    let numbers = [count, width, distance].map(Into::into);
    let args = [&[table, ids, &y].map(Into::into)[..], &numbers].concat();
    module.launch("gather", Grid::warps(count), &args)?;
    Ok(y)
}

pub fn scatter_add(dy: &Tensor, ids: &Tensor, runs: Option<&Runs>, dtable: Dst) -> Result<()> {
    let runs = runs.ok_or_else(|| Error::failed("scatter-add: ids of another device"))?;
    let (_, width, distance) = rows(dy)?;
    let Runs { order, starts } = runs;
    let types = [
        ("S", type_name(dy.dtype())?),
        ("D", type_name(dtable.dtype())?),
    ];
    let blocks = [starts.elem_count() - 1, width.div_ceil(THREADS * PACK), 1];
    let operands = [dy, ids, order, starts, &dtable].map(Into::into);
    let args = [&operands[..], &[width.into(), distance.into()]].concat();
    let grid = Grid::new(blocks, THREADS, 0);
    TEXT.with(types)?.launch("scatter_add", grid, &args)
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    super::module::of_types(&TEXT, &["S", "D"], 256)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::embedding::*;
    use crate::kernels::emulator::{compare, device, scope_on};
    use crate::kernels::tensor::Dst;
    use crate::kernels::testing::*;

    #[test]
    fn rows_by_id_are_those_of_the_processor() {
        let many: Vec<u32> = (0..200).map(|i| i * i % 23).collect();
        check(&[
            (&[0], 1),
            (&[2, 0, 2, 3, 2, 22], 33),
            (&[5, 4, 3], 512),
            (&many, 1100),
        ]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        let cases: [(&[u32], usize); 2] = [(&[2, 0, 2, 3, 2, 22], 33), (&[5, 4, 5], 1100)];
        covering(super::modules(), || check(&cases));
    }

    fn check(cases: &[(&[u32], usize)]) {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 4e-3)] {
            for &(ids, width) in cases {
                let inputs = [
                    variable(1, &[23, width]).to_dtype(dtype).unwrap(),
                    variable(2, &[23, width]).to_dtype(DType::F32).unwrap(),
                    variable(3, &[ids.len(), width + 1])
                        .to_dtype(dtype)
                        .unwrap(),
                ];
                compare("rows by id", &inputs, tolerance, |inputs| {
                    let [table, stream, dy] = [0, 1, 2].map(|i| &inputs[i]);
                    let ids = Ids::new(ids, table.device()).unwrap();
                    let rows = gather(table, &ids, stream.dtype()).unwrap();
                    let same = gather(table, &ids, table.dtype()).unwrap();
                    let narrow = gather(stream, &ids, table.dtype()).unwrap();
                    let dy = dy.narrow(1, 1, width).unwrap();
                    scatter_add(&dy, &ids, Dst::shared(stream)).unwrap();
                    vec![rows, same, narrow, stream.clone()]
                });
            }
        }
    }

    #[test]
    fn ids_outside_the_table_are_refused_before_a_launch() {
        let Some(device) = device() else { return };
        let table = on(&device, &variable(1, &[4, 3]).to_dtype(DType::F32).unwrap());
        scope_on(&device, || {
            let ids = Ids::new(&[1, 4], &device).unwrap();
            let said = gather(&table, &ids, DType::F32).unwrap_err().to_string();
            assert!(said.contains("id 4 in a table of 4 rows"), "{said}");
            assert!(
                scatter_add(&table.narrow(0, 0, 2).unwrap(), &ids, Dst::shared(&table)).is_err()
            );
        });
    }
}
