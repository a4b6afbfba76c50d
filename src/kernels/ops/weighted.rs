//! Row scaling and row-wise dot products.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::device::from_host;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::{Dst, check_alike};
use crate::kernels::{cpu, cuda};

/// Multiplies row i of contiguous `x` (rows, width) by `weights[i]`, in place.
///
/// # Errors
/// If there is not one weight for each row, or no kernel for the dtype.
pub fn weigh<'a>(x: impl Into<Dst<'a>>, weights: &[f64]) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let x = x.into();
    check_alike("weigh", &[&x])?;
    let (rows, _) = x.dims2()?;
    if rows != weights.len() {
        return Err(Error::failed(format!(
            "weigh: {} weights for {rows} rows",
            weights.len()
        )));
    }
    match Backend::of(&x) {
        Backend::Cpu => cpu::weighted::weigh(x, weights),
        Backend::Cuda | Backend::Emulator => {
            let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
            let weights = from_host(&weights, weights.len(), x.device())?;
            cuda::weighted::weigh(x, &weights)
        }
    }
}

/// The dot product of each row of contiguous `a` (rows, width) with that of `b`, added up in f32, in f64
/// where they are f64. Returns (rows) on the host; waits for the GPU.
///
/// # Errors
/// If shapes differ, or there is no kernel for the dtype.
pub fn dots(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let _profile = part(Part::Elementwise);
    check_alike("dots", &[a, b])?;
    a.dims2()?;
    match Backend::of(a) {
        Backend::Cpu => cpu::weighted::dots(a, b),
        Backend::Cuda | Backend::Emulator => cuda::weighted::dots(a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::DType;

    #[test]
    fn row_scaling_and_row_dots_equal_broadcast_products() {
        for shape in [[3, 5], [1, 1], [130, 129]] {
            let (a, b) = (variable(1, &shape), variable(2, &shape));
            let weights: Vec<f64> = (0..shape[0]).map(|i| 0.25 * i as f64 - 1.0).collect();
            let column = Tensor::from_slice(&weights, (shape[0], 1), a.device()).unwrap();
            let x = a.as_tensor().copy().unwrap();
            weigh(Dst::shared(&x), &weights).unwrap();
            assert_close(&x, &a.broadcast_mul(&column).unwrap(), "weighed");
            let want = (a.as_tensor() * b.as_tensor()).unwrap().sum(1).unwrap();
            let want: Vec<f64> = want.to_vec1().unwrap();
            let got = dots(&a, &b).unwrap();
            let [a, b] = [&a, &b].map(|x| x.to_dtype(DType::F32).unwrap());
            for (row, (want, single)) in want.iter().zip(dots(&a, &b).unwrap()).enumerate() {
                assert!((got[row] - want).abs() < 1e-12, "row {row}");
                assert!((single - want).abs() < 1e-4, "row {row} in f32");
            }
        }
    }

    #[test]
    fn a_weight_count_other_than_the_row_count_is_refused() {
        let x = variable(1, &[3, 5]).as_tensor().copy().unwrap();
        assert!(weigh(Dst::shared(&x), &[1.0; 2]).is_err());
        assert!(dots(&x, &x.narrow(0, 0, 2).unwrap()).is_err());
    }
}
