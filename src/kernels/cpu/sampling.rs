//! Passes over a row of logits in host memory.

use super::real::Real;
use super::simd::{LANES, vectorized};

/// Logits of a block of [`peaks`].
pub const PEAK: usize = 64;

/// Logits of a block of [`masses`].
pub const MASS: usize = 512;

/// log sum exp of a row of logits, to 2e-7; not a number where the row has one that is none, or +inf, or
/// no possible token.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let top = largest(row);
    let mut total = 0.0;
    for block in row.chunks(MASS) {
        total += f64::from(mass(block, top, 1.0));
    }
    f64::from(top) + total.ln()
}

/// The largest logit of each block of [`PEAK`].
pub fn peaks(row: &[f32]) -> Vec<f32> {
    let mut peaks = vec![f32::NEG_INFINITY; row.len().div_ceil(PEAK)];
    fill_peaks(row, &mut peaks);
    peaks
}

/// The sum of `exp((z - top) * factor)` of each block of [`MASS`], to 2e-7 of it.
pub fn masses(row: &[f32], top: f32, factor: f32) -> Vec<f64> {
    let blocks = row.chunks(MASS);
    blocks
        .map(|block| f64::from(mass(block, top, factor)))
        .collect()
}

vectorized! {
    fn fill_peaks(row: &[f32], peaks: &mut [f32]) {
        let (blocks, rest) = row.as_chunks::<PEAK>();
        for (block, peak) in blocks.iter().zip(&mut *peaks) {
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for half in block.as_chunks::<LANES>().0 {
                for (lane, z) in lanes.iter_mut().zip(half) {
                    *lane = lane.larger(*z);
                }
            }
            *peak = lanes.into_iter().fold(f32::NEG_INFINITY, f32::larger);
        }
        if let Some(peak) = peaks.get_mut(blocks.len()) {
            *peak = rest.iter().copied().fold(f32::NEG_INFINITY, f32::larger);
        }
    }
}

/// The largest logit of a row, NaN aside.
pub fn largest(row: &[f32]) -> f32 {
    peaks(row).into_iter().fold(f32::NEG_INFINITY, f32::larger)
}

vectorized! {
    fn mass(block: &[f32], top: f32, factor: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        let (groups, rest) = block.as_chunks::<LANES>();
        for group in groups {
            for (lane, z) in lanes.iter_mut().zip(group) {
                *lane += Real::exp((*z - top) * factor);
            }
        }
        for (lane, z) in lanes.iter_mut().zip(rest) {
            *lane += Real::exp((*z - top) * factor);
        }
        lanes.into_iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::variable;

    #[test]
    fn passes_over_a_row_are_plain_sums() {
        for n in [1, 31, 64, 65, 513, 5000] {
            let row: Vec<f64> = variable(n as u64, &[n]).to_vec1().unwrap();
            let row: Vec<f32> = row.iter().map(|&z| 9.0 * z as f32).collect();
            let exact: f64 = row.iter().map(|&z| f64::from(z).exp()).sum();
            assert!((log_sum_exp(&row) - exact.ln()).abs() < 4e-7);
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest(&row), top);
            for (peak, block) in peaks(&row).into_iter().zip(row.chunks(PEAK)) {
                assert!(block.contains(&peak) && block.iter().all(|&z| z <= peak));
            }
            for (mass, block) in masses(&row, top, 0.7).into_iter().zip(row.chunks(MASS)) {
                let each = block.iter().map(|&z| (f64::from(z - top) * 0.7).exp());
                let exact: f64 = each.sum();
                assert!((mass / exact - 1.0).abs() < 2e-6, "{mass} {exact}");
            }
        }
    }

    #[test]
    fn a_row_that_says_nothing_has_no_sum() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for row in [[nan, 1.0], [-inf, -inf], [inf, 0.0]] {
            assert!(!log_sum_exp(&row.repeat(40)).is_finite(), "{row:?}");
        }
        assert!(log_sum_exp(&[-inf, 1.0]).is_finite());
    }
}
