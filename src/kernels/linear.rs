//! `y = x W^T + b`.

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

use super::cpu::{each_real, fresh_of, read, rows, write};
use super::elementwise::add;
use super::gemm::{Matrix, MatrixMut, Precision, Threads, gemm};
#[cfg(any(test, feature = "cuda"))]
use super::profile;
use super::profile::{Part, part};
use super::real::Real;
use crate::error::{Error, Result};

/// Elements of `dy` in one partial sum of a bias's gradient, so that it does not depend on threads.
const UNIT: usize = 1 << 15;

/// `x` (n, in), `weight` (out, in), `bias` (out) -> (n, out) of `dtype`, which on the processor is
/// the operands'.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    dtype: DType,
    precision: Precision,
) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let y = unsafe { fresh_of((x.dim(0)?, weight.dim(0)?), dtype, x)? };
    linear_into(x, weight, bias, &y, precision)?;
    Ok(y)
}

/// As [`linear()`], into `y` (n, out), which may be columns of a wider tensor.
///
/// The product is added to rows of the bias: they cost one write and the product's read of them, and in
/// bf16 its sums, which are f32, are rounded once, with the bias in them.
pub fn linear_into(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
    precision: Precision,
) -> Result<()> {
    let Some(bias) = bias else {
        return product(x, &weight.t()?, y, false, precision);
    };
    let (_, width, distance) = rows(y)?;
    if bias.elem_count() != width {
        let len = bias.elem_count();
        return Err(Error::failed(format!(
            "a bias of {len} for rows of {width}"
        )));
    }
    on_gpu!(y => {
        super::gpu::elementwise::fill_rows(y, bias)?;
        product(x, &weight.t()?, y, true, precision)
    });
    each_real!(y, T => {
        let bias = read(bias);
        let bias = bias.values::<T>()?;
        write(y, |y: &mut [T]| {
            y.par_chunks_mut(distance).for_each(|row| row[..width].copy_from_slice(bias));
            Ok(())
        })
    })?;
    product(x, &weight.t()?, y, true, precision)
}

/// Adds `x W^T` to `y` (n, out).
pub fn linear_add(x: &Tensor, weight: &Tensor, y: &Tensor, precision: Precision) -> Result<()> {
    product(x, &weight.t()?, y, true, precision)
}

/// The gradient with respect to `x`: `dy` (n, out) -> (n, in) of `dtype`, as in [`linear()`].
pub fn backward_input(
    dy: &Tensor,
    weight: &Tensor,
    dtype: DType,
    precision: Precision,
) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let dx = unsafe { fresh_of((dy.dim(0)?, weight.dim(1)?), dtype, dy)? };
    product(dy, weight, &dx, false, precision)?;
    Ok(dx)
}

/// Adds the gradient with respect to `x` to `dx` (n, in).
pub fn backward_input_add(
    dy: &Tensor,
    weight: &Tensor,
    dx: &Tensor,
    precision: Precision,
) -> Result<()> {
    product(dy, weight, dx, true, precision)
}

/// Adds the gradient with respect to the weight, `dy^T x`, to `dweight` (out, in).
pub fn backward_weight(
    dy: &Tensor,
    x: &Tensor,
    dweight: &Tensor,
    precision: Precision,
) -> Result<()> {
    product(&dy.t()?, x, dweight, true, precision)
}

/// Adds the gradient with respect to the bias, the column sums of `dy` (n, out), to `dbias` (out).
pub fn backward_bias(dy: &Tensor, dbias: &Tensor) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let (_, width, distance) = rows(dy)?;
    if dbias.elem_count() != width || !dbias.is_contiguous() {
        return Err(Error::failed(format!(
            "sums of {width} columns into {:?}",
            dbias.dims()
        )));
    }
    on_gpu!(dy => super::gpu::columns::add_sums(dy, dbias));
    each_real!(dy, T => {
        let dy = read(dy);
        let sum = column_sums(dy.values::<T>()?, width, distance);
        write(dbias, |dbias: &mut [T]| {
            add(dbias, &sum);
            Ok(())
        })
    })
}

fn column_sums<T: Real>(values: &[T], width: usize, distance: usize) -> Vec<T> {
    let unit = (UNIT / width).max(1) * distance;
    let partial = |rows: &[T]| {
        let mut sum = vec![T::ZERO; width];
        for row in rows.chunks(distance) {
            add(&mut sum, &row[..width]);
        }
        sum
    };
    let parts: Vec<Vec<T>> = values.par_chunks(unit).map(partial).collect();
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_else(|| vec![T::ZERO; width]);
    parts.for_each(|part| add(&mut sum, &part));
    sum
}

/// `c = a b` or `c += a b`; `a` and `b` may be transposed views, `c` columns of a wider tensor.
fn product(a: &Tensor, b: &Tensor, c: &Tensor, add: bool, precision: Precision) -> Result<()> {
    let _profile = part(Part::Gemm);
    let stride = |x: &Tensor| (x.stride()[0], x.stride()[1]);
    let (m, k) = a.dims2()?;
    let n = b.dim(D::Minus1)?;
    if b.dims2()? != (k, n) || c.dims2()? != (m, n) {
        let dims = (a.dims(), b.dims(), c.dims());
        return Err(Error::failed(format!(
            "a product of {:?} and {:?} into {:?}",
            dims.0, dims.1, dims.2
        )));
    }
    on_gpu!(c => {
        profile::product(m, n, k);
        super::gpu::product::product(a, b, c, add)
    });
    each_real!(c, T => {
        let (values_a, values_b) = (read(a), read(b));
        let left = Matrix::new(values_a.values::<T>()?, (m, k), stride(a));
        let right = Matrix::new(values_b.values::<T>()?, (k, n), stride(b));
        write(c, |values: &mut [T]| {
            let c = MatrixMut::new(values, (m, n), stride(c));
            gemm(c, add, left, right, precision, Threads::All);
            Ok(())
        })
    })
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
            backward_input_add(&seed, &w, &dx, FULL).unwrap();
            assert_close(&dx, &(&grads[0] * 2.0).unwrap(), "dx twice");
            let (dw, db) = (zeros_like(&w), zeros_like(&b));
            backward_weight(&seed, &x, &dw, FULL).unwrap();
            backward_bias(&seed, &db).unwrap();
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
        linear_into(&x, &w, Some(&b), &part, FULL).unwrap();
        let want = linear(&x, &w, Some(&b), DType::F64, FULL).unwrap();
        assert_close(&part.contiguous().unwrap(), &want, "columns");
        let (dw, db) = (zeros_like(&w), zeros_like(&b));
        backward_weight(&part, &x, &dw, FULL).unwrap();
        backward_bias(&part, &db).unwrap();
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
        assert!(linear_add(&x, &w, &variable(4, &[5, 5]), FULL).is_err());
        assert!(backward_bias(&x, &b).is_err());
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
                        backward_weight(&seed, &x, &dw, precision).unwrap();
                        backward_bias(&seed, &db).unwrap();
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
