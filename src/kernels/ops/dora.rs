//! Rows of an adapted weight scaled to learned magnitudes.
//!
//! Liu et al. 2024 (arXiv 2402.09353): `y = m / c (x W^T + scale (x A^T) B^T)`, where c is the norm of each
//! row of `W + scale B A`, taken for a constant by the gradient, as in PEFT.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::{Dst, fresh_of, rows};
use crate::kernels::{cpu, cuda};

/// What the columns of `x (W + scale B A)^T` are scaled by, (out) each: f32, in f64 models f64.
#[derive(Debug)]
pub struct Factors {
    /// m / c.
    pub scale: Tensor,
    /// c.
    pub norm: Tensor,
}

/// The factors of a `weight` (out, in) with `a` (rank, in), `b` (out, rank) and `magnitude` (out). A row
/// of zeros is scaled by 0.
///
/// # Errors
/// If shapes do not fit, or there is no kernel for the dtypes.
pub fn factors(
    weight: &Tensor,
    (a, b, scale): (&Tensor, &Tensor, f64),
    magnitude: &Tensor,
) -> Result<Factors> {
    let _profile = part(Part::Elementwise);
    let ((outs, input), (rank, _)) = (weight.dims2()?, a.dims2()?);
    let fits = a.dims() == [rank, input] && b.dims() == [outs, rank] && magnitude.dims() == [outs];
    let dense = [weight, a, b, magnitude].iter().all(|x| x.is_contiguous());
    if !fits || !dense {
        let dims = [weight, a, b, magnitude].map(Tensor::dims);
        return Err(Error::failed(format!("norms of rows of {dims:?}")));
    }
    let dtype = match magnitude.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    // SAFETY: all of both is written below.
    let [mut own, mut norm] = unsafe {
        [
            fresh_of(outs, dtype, magnitude)?,
            fresh_of(outs, dtype, magnitude)?,
        ]
    };
    let to = [(&mut own).into(), (&mut norm).into()];
    match Backend::of(magnitude) {
        Backend::Cpu => cpu::dora::factors(weight, (a, b, scale), magnitude, to),
        Backend::Cuda | Backend::Emulator => {
            cuda::dora::factors(weight, (a, b, scale), magnitude, to)
        }
    }?;
    Ok(Factors { scale: own, norm })
}

/// `y += x f`, column by column: `x` (n, width), `f` (width), `y` (n, width), which may be columns of a
/// wider tensor.
///
/// # Errors
/// If shapes do not fit, or there is no kernel for the dtypes.
pub fn add_scaled<'a>(x: &Tensor, f: &Tensor, y: impl Into<Dst<'a>>) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let y = y.into();
    check(x, f, y.dims())?;
    match Backend::of(x) {
        Backend::Cpu => cpu::dora::add_scaled(x, f, y),
        Backend::Cuda | Backend::Emulator => cuda::dora::add_scaled(x, f, y),
    }
}

/// `x f`, column by column: `x` (n, width), which may be columns of a wider tensor, `f` (width).
///
/// # Errors
/// As of [`add_scaled`].
pub fn scaled(x: &Tensor, f: &Tensor) -> Result<Tensor> {
    let (count, width, _) = rows(x)?;
    // SAFETY: all of it is written below.
    let mut y = unsafe { fresh_of((count, width), x.dtype(), x)? };
    crate::kernels::elementwise::clear(&mut y)?;
    add_scaled(x, f, &mut y)?;
    Ok(y)
}

/// Adds the column sums of `a b / norm` to `sums` (width): `a` and `b` (n, width), `norm` (width), where 0
/// gives 0.
///
/// # Errors
/// As of [`add_scaled`].
pub fn add_dots<'a>(a: &Tensor, b: &Tensor, norm: &Tensor, sums: impl Into<Dst<'a>>) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let sums = sums.into();
    check(a, norm, b.dims())?;
    check(a, &sums, b.dims())?;
    match Backend::of(a) {
        Backend::Cpu => cpu::dora::add_dots(a, b, norm, sums),
        Backend::Cuda | Backend::Emulator => cuda::dora::add_dots(a, b, norm, sums),
    }
}

fn check(x: &Tensor, f: &Tensor, other: &[usize]) -> Result<()> {
    let (_, width, _) = rows(x)?;
    match x.dims() == other && f.dims() == [width] && f.is_contiguous() {
        true => Ok(()),
        false => Err(Error::failed(format!(
            "columns of {:?} and {other:?} with factors {:?}",
            x.dims(),
            f.dims()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;

    #[test]
    fn factors_are_those_of_the_whole_product() {
        for (outs, input, rank) in [(5, 7, 2), (1, 1, 1), (33, 130, 9)] {
            let (w, a) = (variable(1, &[outs, input]), variable(2, &[rank, input]));
            let (b, m) = (variable(3, &[outs, rank]), variable(4, &[outs]));
            let product = (b.matmul(&a).unwrap() * 1.5).unwrap();
            let whole = (w.as_tensor() + product).unwrap();
            let norm = whole.sqr().unwrap().sum(1).unwrap().sqrt().unwrap();
            let found = factors(&w, (&a, &b, 1.5), &m).unwrap();
            assert_close(&found.scale, &m.div(&norm).unwrap(), "m / c");
            assert_close(&found.norm, &norm, "c");
        }
    }

    #[test]
    fn a_row_of_zeros_stays_one() {
        let zeros = zeros_like(&variable(1, &[2, 3]));
        let (a, b, m) = (
            variable(2, &[1, 3]),
            zeros_like(&variable(3, &[2, 1])),
            variable(4, &[2]),
        );
        let found = factors(&zeros, (&a, &b, 1.0), &m).unwrap();
        assert_eq!(found.scale.to_vec1::<f64>().unwrap(), [0.0; 2]);
        assert_eq!(found.norm.to_vec1::<f64>().unwrap(), [0.0; 2]);
    }

    #[test]
    fn columns_are_scaled_and_summed() {
        for n in [1, 5, 700] {
            let (x, other, f) = (
                variable(1, &[n, 9]),
                variable(2, &[n, 9]),
                variable(3, &[9]),
            );
            let part = x.narrow(1, 2, 7).unwrap();
            let (f, other) = (
                f.narrow(0, 1, 7).unwrap(),
                other.narrow(1, 0, 7).unwrap().contiguous().unwrap(),
            );
            let want = part.broadcast_mul(&f).unwrap();
            assert_close(&scaled(&part, &f).unwrap(), &want, "scaled");
            let sums = zeros_like(&f.copy().unwrap());
            let norm = f.abs().unwrap();
            add_dots(&part, &other, &norm, Dst::shared(&sums)).unwrap();
            let want = (part * other).unwrap().broadcast_div(&norm).unwrap();
            let want = want.sum(0).unwrap();
            assert_close(&sums, &want, "dots");
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let f32s = |seed, shape: &[usize]| variable(seed, shape).to_dtype(DType::F32).unwrap();
        let (x, y, f) = (f32s(1, &[900, 70]), f32s(2, &[900, 70]), f32s(3, &[70]));
        let (w, a, b) = (f32s(4, &[70, 33]), f32s(5, &[3, 33]), f32s(6, &[70, 3]));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| {
                let sums = f.zeros_like().unwrap();
                add_dots(&x, &y, &f, Dst::shared(&sums)).unwrap();
                let factors = factors(&w, (&a, &b, 2.0), &f).unwrap();
                [sums, factors.scale, factors.norm].map(|x| x.to_vec1::<f32>().unwrap())
            })
        };
        assert!(run(1) == run(2) && run(1) == run(5));
    }
}
