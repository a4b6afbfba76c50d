//! Dropout: some elements of a matrix set to zero, the others larger.
//!
//! *Why*: the elements are chosen by a hash of what they are of, so that the backward pass finds them again
//! without a mask in memory, and no result depends on micro-batches, threads or interruptions.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
pub use crate::kernels::operands::dropout::{Dropout, RowKeys};
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::{Dst, fresh};
use crate::kernels::{cpu, cuda};

/// `x` (rows, width) with dropped elements, contiguous.
///
/// # Errors
/// If `x` is not contiguous, there is not one key for each row, or no kernel for the dtype.
pub fn dropped(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let mut y = unsafe { fresh(x.shape(), x)? };
    apply(x, dropout, (&mut y).into(), false)?;
    Ok(y)
}

/// Adds `x` (rows, width) with dropped elements to contiguous `y` of its shape: the gradient of what
/// [`dropped`] read, from that of what it gave.
///
/// # Errors
/// As of [`dropped`].
pub fn add_dropped<'a>(x: &Tensor, dropout: Dropout, y: impl Into<Dst<'a>>) -> Result<()> {
    apply(x, dropout, y.into(), true)
}

fn apply(x: &Tensor, dropout: Dropout, y: Dst, add: bool) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let (rows, _) = x.dims2()?;
    let fits = y.dims() == x.dims() && dropout.keys.tensor().dims() == [rows];
    if !fits || !x.is_contiguous() || !y.is_contiguous() {
        return Err(Error::failed(format!(
            "dropout of {:?} with {:?} keys into {:?}",
            x.dims(),
            dropout.keys.tensor().dims(),
            y.dims()
        )));
    }
    match Backend::of(x) {
        Backend::Cpu => cpu::dropout::apply(x, dropout, y, add),
        Backend::Cuda | Backend::Emulator => cuda::dropout::apply(x, dropout, y, add),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::kernels::testing::*;

    fn keys(keys: &[u32]) -> RowKeys {
        RowKeys::new(keys, &Device::Cpu).unwrap()
    }

    fn ones(rows: usize, width: usize) -> Tensor {
        Tensor::ones((rows, width), DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_share_is_dropped_and_the_mean_stays() {
        let keys = keys(&(0..400).map(|i| i * 77).collect::<Vec<u32>>());
        for rate in [0.05, 0.3, 0.9] {
            let dropout = Dropout {
                rate,
                seed: 0x1234_5678_9abc,
                keys: &keys,
            };
            let y = dropped(&ones(400, 500), dropout).unwrap();
            let y: Vec<f32> = y.flatten_all().unwrap().to_vec1().unwrap();
            let kept = y.iter().filter(|y| **y != 0.0);
            assert!(
                kept.clone()
                    .all(|y| (f64::from(*y) - 1.0 / (1.0 - rate)).abs() < 1e-6)
            );
            let (share, n) = (1.0 - kept.count() as f64 / 2e5, 2e5f64);
            let deviation = (rate * (1.0 - rate) / n).sqrt();
            assert!((share - rate).abs() < 4.0 * deviation, "{rate}: {share}");
            // Columns and rows alike.
            for column in [0, 1, 499] {
                let dropped = (0..400).filter(|row| y[row * 500 + column] == 0.0).count();
                let deviation = (rate * (1.0 - rate) * 400.0).sqrt();
                assert!(
                    (dropped as f64 - 400.0 * rate).abs() < 5.0 * deviation,
                    "{rate}"
                );
            }
        }
    }

    #[test]
    fn a_row_has_its_elements_wherever_it_is_and_another_seed_has_others() {
        let of = |seed, all: &[u32]| -> Vec<Vec<f32>> {
            let keys = keys(all);
            let dropout = Dropout {
                rate: 0.5,
                seed,
                keys: &keys,
            };
            let y = dropped(&ones(all.len(), 64), dropout).unwrap();
            y.to_vec2().unwrap()
        };
        let (all, one) = (of(1, &[5, 6, 7]), of(1, &[7]));
        assert_eq!(all[2], one[0]);
        assert!(all[0] != all[1]);
        assert!(of(2, &[7]) != one && of(1 << 32 | 1, &[7]) != one);
    }

    #[test]
    fn what_is_added_is_what_was_dropped() {
        let (x, y) = (variable(1, &[3, 70]), variable(2, &[3, 70]));
        let keys = keys(&[1, 2, 3]);
        let dropout = Dropout {
            rate: 0.25,
            seed: 9,
            keys: &keys,
        };
        let want = (dropped(&x, dropout).unwrap() + y.as_tensor()).unwrap();
        let sum = y.copy().unwrap();
        add_dropped(&x, dropout, Dst::shared(&sum)).unwrap();
        assert_close(&sum, &want, "added");
        assert!(dropped(&x.t().unwrap(), dropout).is_err());
    }
}
