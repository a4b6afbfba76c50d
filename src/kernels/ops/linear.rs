//! `y = x W^T + b`.
//!
//! On the CPU weights that are read are of the other operands' dtype, or bf16 beside f32: the result has the
//! bits of the same numbers in f32.

use candle_core::{D, DType, Tensor};
use half::bf16;

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::device::put;
use crate::kernels::precision::Precision;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::{Dst, fresh_of, rows};
use crate::kernels::{cpu, cuda};

/// `x` (n, in), `weight` (out, in), `bias` (out) -> (n, out) of `dtype`, which on the CPU is the
/// that of `x`.
///
/// # Errors
/// If shapes do not fit, or there is no kernel for the dtypes.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    dtype: DType,
    precision: Precision,
) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let mut y = unsafe { fresh_of((x.dim(0)?, weight.dim(0)?), dtype, x)? };
    linear_into(x, weight, bias, &mut y, precision)?;
    Ok(y)
}

/// As [`linear()`], into `y` (n, out), which may be columns of a wider tensor.
///
/// The matmul is added to rows of the bias: they cost one write and the matmul's read of them, and in
/// bf16 its sums, which are f32, are rounded once, with the bias in them.
///
/// # Errors
/// As of [`linear()`].
pub fn linear_into<'a>(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: impl Into<Dst<'a>>,
    precision: Precision,
) -> Result<()> {
    let mut y = y.into();
    let Some(bias) = bias else {
        return product(x, &weight.t()?, y, false, precision);
    };
    let (_, width, _) = rows(&y)?;
    if bias.elem_count() != width {
        let len = bias.elem_count();
        return Err(Error::failed(format!(
            "a bias of {len} for rows of {width}"
        )));
    }
    match Backend::of(&y) {
        Backend::Cpu => cpu::linear::fill_rows(y.reborrow(), bias),
        Backend::Cuda | Backend::Emulator => cuda::linear::fill_rows(y.reborrow(), bias),
    }?;
    product(x, &weight.t()?, y, true, precision)
}

/// Adds `x W^T` to `y` (n, out).
///
/// # Errors
/// As of [`linear()`].
pub fn linear_add<'a>(
    x: &Tensor,
    weight: &Tensor,
    y: impl Into<Dst<'a>>,
    precision: Precision,
) -> Result<()> {
    product(x, &weight.t()?, y.into(), true, precision)
}

/// The gradient with respect to `x`: `dy` (n, out) -> (n, in) of `dtype`, as in [`linear()`].
///
/// # Errors
/// As of [`linear()`].
pub fn backward_input(
    dy: &Tensor,
    weight: &Tensor,
    dtype: DType,
    precision: Precision,
) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let mut dx = unsafe { fresh_of((dy.dim(0)?, weight.dim(1)?), dtype, dy)? };
    product(dy, weight, (&mut dx).into(), false, precision)?;
    Ok(dx)
}

/// Adds the gradient with respect to `x` to `dx` (n, in).
///
/// # Errors
/// As of [`linear()`].
pub fn backward_input_add<'a>(
    dy: &Tensor,
    weight: &Tensor,
    dx: impl Into<Dst<'a>>,
    precision: Precision,
) -> Result<()> {
    product(dy, weight, dx.into(), true, precision)
}

/// Adds the gradient with respect to the weight, `dy^T x`, to `dweight` (out, in).
///
/// # Errors
/// As of [`linear()`].
pub fn backward_weight<'a>(
    dy: &Tensor,
    x: &Tensor,
    dweight: impl Into<Dst<'a>>,
    precision: Precision,
) -> Result<()> {
    product(&dy.t()?, x, dweight.into(), true, precision)
}

/// Adds the gradient with respect to the bias, the column sums of `dy` (n, out), to `dbias` (out).
///
/// # Errors
/// As of [`linear()`].
pub fn backward_bias<'a>(dy: &Tensor, dbias: impl Into<Dst<'a>>) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let dbias = dbias.into();
    let (_, width, _) = rows(dy)?;
    if dbias.elem_count() != width || !dbias.is_contiguous() {
        return Err(Error::failed(format!(
            "sums of {width} columns into {:?}",
            dbias.dims()
        )));
    }
    match Backend::of(dy) {
        Backend::Cpu => cpu::linear::add_column_sums(dy, dbias),
        Backend::Cuda | Backend::Emulator => cuda::linear::add_column_sums(dy, dbias),
    }
}

/// Writes values to a contiguous bf16 weight of as many elements, rounded as matmuls round their operands:
/// to the nearest, ties to even.
///
/// # Errors
/// If the weight is of another dtype or size.
pub fn store_rounded<'a>(values: &[f32], weight: impl Into<Dst<'a>>) -> Result<()> {
    let values: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
    put(&values, weight.into())
}

/// A bf16 weight (out, in) in `dtype`, f32 or f64, in host memory alone.
///
/// # Errors
/// If the weight is not bf16, or the dtype another.
pub fn widened(weight: &Tensor, dtype: DType) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    match Backend::of(weight) {
        Backend::Cpu => cpu::linear::widened(weight, dtype),
        Backend::Cuda | Backend::Emulator => Err(Error::failed(
            "weights are of one dtype with what is computed on a GPU",
        )),
    }
}

/// `c = a b` or `c += a b`; `a` and `b` may be transposed views, `c` columns of a wider tensor.
fn product(a: &Tensor, b: &Tensor, c: Dst, add: bool, precision: Precision) -> Result<()> {
    let _profile = part(Part::Gemm);
    let (m, k) = a.dims2()?;
    let n = b.dim(D::Minus1)?;
    if b.dims2()? != (k, n) || c.dims2()? != (m, n) {
        let dims = (a.dims(), b.dims(), c.dims());
        return Err(Error::failed(format!(
            "a matmul of {:?} and {:?} into {:?}",
            dims.0, dims.1, dims.2
        )));
    }
    match Backend::of(&c) {
        Backend::Cpu => cpu::linear::product(a, b, c, add, precision),
        Backend::Cuda | Backend::Emulator => cuda::linear::product(a, b, c, add),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::DType;

    const FULL: Precision = Precision::Full;

    #[test]
    fn forward_and_backward_equal_autograd() {
        for (n, input, output) in [(5, 3, 7), (1, 1, 1), (1, 9, 4), (70, 33, 65)] {
            let (x, w) = (variable(1, &[n, input]), variable(2, &[output, input]));
            let (b, seed) = (variable(3, &[output]), variable(4, &[n, output]));
            let want = x
                .matmul(&w.t().unwrap())
                .unwrap()
                .broadcast_add(&b)
                .unwrap();
            assert_close(
                &linear(&x, &w, Some(&b), DType::F64, FULL).unwrap(),
                &want,
                "forward",
            );
            let grads = autograd(&want, &seed, &[&x, &w, &b]);
            let dx = backward_input(&seed, &w, DType::F64, FULL).unwrap();
            assert_close(&dx, &grads[0], "dx");
            backward_input_add(&seed, &w, Dst::shared(&dx), FULL).unwrap();
            assert_close(&dx, &(&grads[0] * 2.0).unwrap(), "dx twice");
            let (dw, db) = (zeros_like(&w), zeros_like(&b));
            backward_weight(&seed, &x, Dst::shared(&dw), FULL).unwrap();
            backward_bias(&seed, Dst::shared(&db)).unwrap();
            assert_close(&dw, &grads[1], "dw");
            assert_close(&db, &grads[2], "db");
        }
    }

    #[test]
    fn columns_of_a_wider_tensor_are_written_and_read() {
        let (x, w, b) = (
            variable(1, &[5, 3]),
            variable(2, &[4, 3]),
            variable(3, &[4]),
        );
        let wide = Tensor::zeros((5, 9), DType::F64, x.device()).unwrap();
        let part = wide.narrow(1, 3, 4).unwrap();
        linear_into(&x, &w, Some(&b), Dst::shared(&part), FULL).unwrap();
        let want = linear(&x, &w, Some(&b), DType::F64, FULL).unwrap();
        assert_close(&part.contiguous().unwrap(), &want, "columns");
        let (dw, db) = (zeros_like(&w), zeros_like(&b));
        backward_weight(&part, &x, Dst::shared(&dw), FULL).unwrap();
        backward_bias(&part, Dst::shared(&db)).unwrap();
        assert_close(&dw, &want.t().unwrap().matmul(&x).unwrap(), "dw");
        assert_close(&db, &want.sum(0).unwrap(), "db");
        let outside = wide.narrow(1, 0, 3).unwrap().sum_all().unwrap();
        assert_eq!(outside.to_scalar::<f64>().unwrap(), 0.0);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (x, w) = (variable(1, &[5, 3]), variable(2, &[4, 6]));
        assert!(linear(&x, &w, None, DType::F64, FULL).is_err());
        let (w, b) = (variable(2, &[4, 3]), variable(3, &[5]));
        assert!(linear(&x, &w, Some(&b), DType::F64, FULL).is_err());
        assert!(linear_add(&x, &w, Dst::shared(&variable(4, &[5, 5])), FULL).is_err());
        assert!(backward_bias(&x, Dst::shared(&b)).is_err());
    }

    #[test]
    fn a_weight_in_bf16_gives_the_bits_of_the_same_numbers_in_f32() {
        let f32s = |seed, shape: &[usize]| variable(seed, shape).to_dtype(DType::F32).unwrap();
        for precision in [Precision::Full, Precision::Bf16] {
            for (n, input, output) in [(1, 1, 1), (5, 33, 7), (333, 512, 384), (2, 300, 130)] {
                let narrow = f32s(2, &[output + 3, input]).to_dtype(DType::BF16).unwrap();
                let wide = narrow.to_dtype(DType::F32).unwrap();
                let (x, b, dy) = (
                    f32s(1, &[n, input]),
                    f32s(3, &[output]),
                    f32s(4, &[n, output]),
                );
                let run = |w: &Tensor| {
                    let w = w.narrow(0, 2, output).unwrap();
                    let y = linear(&x, &w, Some(&b), DType::F32, precision).unwrap();
                    linear_add(&x, &w, Dst::shared(&y), precision).unwrap();
                    let dx = backward_input(&dy, &w, DType::F32, precision).unwrap();
                    backward_input_add(&dy, &w, Dst::shared(&dx), precision).unwrap();
                    [y, dx].map(|x| -> Vec<u32> {
                        let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
                        values.iter().map(|x| x.to_bits()).collect()
                    })
                };
                assert!(
                    run(&narrow) == run(&wide),
                    "{n} {input} {output} {precision:?}"
                );
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let f32s = |seed, shape: &[usize]| variable(seed, shape).to_dtype(DType::F32).unwrap();
        for precision in [Precision::Full, Precision::Bf16] {
            for (n, input, output) in [(333, 512, 384), (1, 512, 700), (130, 64, 1), (77, 130, 97)]
            {
                let (x, w) = (f32s(1, &[n, input]), f32s(2, &[output, input]));
                let (b, seed) = (f32s(3, &[output]), f32s(4, &[n, output]));
                let run = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    pool.unwrap().install(|| {
                        let y = linear(&x, &w, Some(&b), DType::F32, precision).unwrap();
                        let dx = backward_input(&seed, &w, DType::F32, precision).unwrap();
                        let (dw, db) = (w.zeros_like().unwrap(), b.zeros_like().unwrap());
                        backward_weight(&seed, &x, Dst::shared(&dw), precision).unwrap();
                        backward_bias(&seed, Dst::shared(&db)).unwrap();
                        let bits = |t: &Tensor| -> Vec<u32> {
                            let values: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
                            values.iter().map(|x| x.to_bits()).collect()
                        };
                        [y, dx, dw, db].map(|t| bits(&t))
                    })
                };
                let one = run(1);
                assert!(
                    one == run(2) && one == run(5),
                    "{n} {input} {output} {precision:?}"
                );
            }
        }
    }
}
