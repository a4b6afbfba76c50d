//! Matmuls: cuBLAS's, with sums in f32.

use candle_core::{DType, Tensor};

use super::columns::add_sums;
use super::elementwise;
use super::launch::{self, address};
use super::module::Operand;
use crate::error::{Error, Result};
use crate::kernels::profile;
use crate::kernels::tensor::Dst;

/// Writes `bias` (width) to every row of `y` (n, width).
pub fn fill_rows(y: Dst, bias: &Tensor) -> Result<()> {
    elementwise::fill_rows(y, bias)
}

/// Adds the column sums of `x` (n, width) to `sums` (width), f32.
pub fn add_column_sums(x: &Tensor, sums: Dst) -> Result<()> {
    add_sums(x, sums)
}

/// `c` (m, n) becomes, or where `add` grows by, `a` (m, k) times `b` (k, n). Each may be a view by rows
/// or by columns, and `c` one by rows; `a` and `b` have one dtype, f32 or bf16, and `c` that or f32.
pub fn product(a: &Tensor, b: &Tensor, c: Dst, add: bool) -> Result<()> {
    let ((m, k), (inner, n), shape) = (a.dims2()?, b.dims2()?, c.dims2()?);
    profile::product(m, n, k);
    let types = [a, b, &c].map(Tensor::dtype);
    let served = match types {
        [DType::F32, DType::F32, DType::F32] => true,
        [DType::BF16, DType::BF16, c] => c == DType::F32 || c == DType::BF16,
        _ => false,
    };
    if inner != k || shape != (m, n) || !served {
        return Err(Error::failed(format!(
            "a matmul of {:?} and {:?} into {shape:?}, {types:?}",
            a.dims(),
            b.dims()
        )));
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    // By columns the memory of c is its transpose, and that is b's transpose times a's.
    let (left, right, out) = (operand(b)?, operand(a)?, operand(&c)?);
    if out.transposed {
        return Err(Error::failed("a matmul into a matrix by columns"));
    }
    launch::product(a, [left, right, out], [n, m, k], add)
}

/// The transpose of a matrix, as cuBLAS reads it.
fn operand(x: &Tensor) -> Result<Operand> {
    let ((rows, columns), stride) = (x.dims2()?, x.stride());
    let by_rows = stride[1] == 1 || columns == 1;
    let by_columns = stride[0] == 1 || rows == 1;
    let (leading, least) = match (by_rows, by_columns) {
        (true, _) => (if rows == 1 { columns } else { stride[0] }, columns),
        (_, true) => (if columns == 1 { rows } else { stride[1] }, rows),
        _ => return Err(Error::failed(format!("a matrix with strides {stride:?}"))),
    };
    if leading < least {
        return Err(Error::failed(format!("a matrix with strides {stride:?}")));
    }
    Ok(Operand {
        address: address(x)?,
        dtype: x.dtype(),
        leading,
        transposed: !by_rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    use crate::kernels::Precision;
    use crate::kernels::emulator::{compare, device, scope_on};
    use crate::kernels::linear::*;
    use crate::kernels::testing::*;

    const FULL: Precision = Precision::Full;

    fn f32s(seed: u64, shape: &[usize]) -> Tensor {
        variable(seed, shape).to_dtype(DType::F32).unwrap()
    }

    /// A matrix of that shape in every layout: whole, transposed, as columns and as rows of a wider
    /// one, and as columns of a transposed one.
    fn layouts(
        (rows, columns): (usize, usize),
        make: impl Fn(u64, &[usize]) -> Tensor,
    ) -> Vec<Tensor> {
        let part = |x: &Tensor, dim, len| x.narrow(dim, 2, len).unwrap();
        let across = make(4, &[columns, rows + 5]);
        vec![
            make(0, &[rows, columns]),
            make(1, &[columns, rows]).t().unwrap(),
            part(&make(2, &[rows, columns + 5]), 1, columns),
            part(&make(3, &[rows + 5, columns]), 0, rows),
            part(&across, 1, rows).t().unwrap(),
        ]
    }

    /// A product into columns of a wider tensor, whose other columns stay, against that in f64.
    fn check(device: &Device, [a, b]: [(&Tensor, &Tensor); 2], add: bool) {
        let (m, n) = (a.0.dims()[0], b.0.dims()[1]);
        let before = f32s(50, &[m, n + 3]);
        let wide = on(device, &before);
        let c = wide.narrow(1, 1, n).unwrap();
        scope_on(device, || product(a.1, b.1, Dst::shared(&c), add).unwrap());
        let f64s = |x: &Tensor| x.to_dtype(DType::F64).unwrap().contiguous().unwrap();
        let columns = |at, len| f64s(&before.narrow(1, at, len).unwrap());
        let mut want = f64s(a.0).matmul(&f64s(b.0)).unwrap();
        if add {
            want = (want + columns(1, n)).unwrap();
        }
        let want = Tensor::cat(&[columns(0, 1), want, columns(n + 1, 2)], 1).unwrap();
        let what = format!("{:?} by {:?}, add {add}", a.0.layout(), b.0.layout());
        assert_near(&here(&wide), &want, 1e-6, &what);
    }

    #[test]
    fn every_layout_is_read_as_what_it_is() {
        let Some(device) = device() else { return };
        for (m, k, n) in [
            (1, 1, 1),
            (3, 5, 2),
            (1, 7, 4),
            (4, 7, 1),
            (4, 1, 3),
            (1, 6, 1),
        ] {
            for dtype in [DType::F32, DType::BF16] {
                // Each here, and there.
                let pairs = |seed: u64, sides| -> Vec<_> {
                    let rounded = |at, shape: &[usize]| {
                        let x = variable(seed + at, shape).to_dtype(dtype);
                        x.unwrap()
                    };
                    let there = |at, shape: &[usize]| on(&device, &rounded(at, shape));
                    layouts(sides, rounded)
                        .into_iter()
                        .zip(layouts(sides, there))
                        .collect()
                };
                let (left, right) = (pairs(1, (m, k)), pairs(20, (k, n)));
                for (a, there) in &left {
                    for (b, other) in &right {
                        for add in [false, true] {
                            check(&device, [(a, there), (b, other)], add);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_thread_that_is_new_multiplies() {
        let Some(device) = device() else { return };
        let (a, b) = (f32s(1, &[3, 4]), f32s(2, &[4, 5]));
        let there = [&a, &b].map(|x| on(&device, x));
        std::thread::scope(|scope| {
            let work = || check(&device, [(&a, &there[0]), (&b, &there[1])], false);
            scope.spawn(work).join().unwrap();
        });
    }

    #[test]
    fn what_no_product_takes_is_refused() {
        let Some(device) = device() else { return };
        let make = |seed, shape: &[usize], dtype| {
            let x = variable(seed, shape).to_dtype(dtype).unwrap();
            on(&device, &x)
        };
        let [a, b, c, across] = [(1, [3, 4]), (2, [4, 5]), (3, [3, 5]), (4, [5, 3])]
            .map(|(seed, shape)| make(seed, &shape, DType::F32));
        let [b16, c16] =
            [(2, [4, 5]), (3, [3, 5])].map(|(seed, shape)| make(seed, &shape, DType::BF16));
        let gaps = make(5, &[3, 4, 2], DType::F32);
        let gaps = gaps.narrow(2, 0, 1).unwrap().squeeze(2).unwrap();
        scope_on(&device, || {
            assert!(product(&a, &b16, Dst::shared(&c), false).is_err());
            assert!(product(&a, &b, Dst::shared(&c16), false).is_err());
            assert!(product(&a, &b, Dst::shared(&c.t().unwrap()), false).is_err());
            assert!(product(&a, &b, Dst::shared(&across.t().unwrap()), false).is_err());
            assert!(product(&gaps, &b, Dst::shared(&c), false).is_err());
        });
    }

    #[test]
    fn linear_layers_are_those_of_the_processor() {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 4e-3)] {
            for (n, input, output) in [(1, 1, 1), (5, 3, 7), (70, 33, 65)] {
                let random = |seed, shape: &[usize]| variable(seed, shape).to_dtype(dtype).unwrap();
                let inputs = [
                    random(1, &[n, input]),
                    random(2, &[output, input]),
                    random(3, &[output]),
                    random(4, &[n, output + 2]),
                    f32s(5, &[n, output]),
                    f32s(6, &[output, input]),
                    f32s(7, &[n, input]),
                    random(8, &[n, output + 3]),
                ];
                compare("linear", &inputs, tolerance, |inputs| {
                    let [x, w, b, dy, stream, dw, dx, wide] =
                        [0, 1, 2, 3, 4, 5, 6, 7].map(|i| &inputs[i]);
                    let (own, sums) = (x.dtype(), stream.dtype());
                    let dy = dy.narrow(1, 1, output).unwrap();
                    let columns = wide.narrow(1, 2, output).unwrap();
                    linear_into(x, w, Some(b), Dst::shared(&columns), FULL).unwrap();
                    linear_add(x, w, Dst::shared(stream), FULL).unwrap();
                    backward_weight(&dy, x, Dst::shared(dw), FULL).unwrap();
                    backward_input_add(&dy, w, Dst::shared(dx), FULL).unwrap();
                    let made = [
                        linear(x, w, Some(b), own, FULL),
                        linear(x, w, Some(b), sums, FULL),
                        linear(x, w, None, sums, FULL),
                        backward_input(&dy, w, own, FULL),
                        backward_input(&dy, w, sums, FULL),
                    ];
                    let mut outputs: Vec<Tensor> = made.into_iter().map(|x| x.unwrap()).collect();
                    outputs.extend([wide, stream, dw, dx].map(Clone::clone));
                    outputs
                });
            }
        }
    }
}
