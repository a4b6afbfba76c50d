//! From a row of logits to what training needs of a token, and back.
//!
//! *Why*: the head is the widest layer. Its logits are read once for all statistics and then turned
//! in place into their own gradient; no second tensor of that width is made.

use candle_core::{CpuStorage, CustomOp2, InplaceOp3, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::error::Result;

/// Numbers kept per token.
const WIDTH: usize = 5;

/// What one row of logits says of its label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenStatistics {
    /// log sum exp of the row.
    pub log_sum_exp: f64,
    /// log softmax at the label, in nats.
    pub log_prob: f64,
    /// Entropy of the softmax, in nats.
    pub entropy: f64,
    /// Whether the label has the largest logit.
    pub correct: bool,
    /// log of the sum of squared probabilities: of drawing the same token twice.
    pub log_collision: f64,
}

/// The statistics of each row of `logits` (n, vocabulary) at its label, `labels` (n) u32.
pub fn statistics(logits: &Tensor, labels: &Tensor) -> Result<Vec<TokenStatistics>> {
    let numbers: Vec<f64> = logits
        .apply_op2_no_bwd(labels, &Statistics)?
        .flatten_all()?
        .to_vec1()?;
    Ok(numbers
        .chunks_exact(WIDTH)
        .map(|row| TokenStatistics {
            log_sum_exp: row[0],
            log_prob: row[1],
            entropy: row[2],
            correct: row[3] != 0.0,
            log_collision: row[4],
        })
        .collect())
}

/// Turns `logits` in place into d loss / d logits: `seed * (onehot(label) - softmax(logits))`, where
/// `seeds[i]` is d loss / d log-prob of row i and `log_sum_exp[i]` its statistic.
pub fn backward(
    logits: &Tensor,
    labels: &Tensor,
    log_sum_exp: &[f64],
    seeds: &[f64],
) -> Result<()> {
    let rows: Vec<f64> = log_sum_exp
        .iter()
        .zip(seeds)
        .flat_map(|(l, s)| [*l, *s])
        .collect();
    let rows = Tensor::from_vec(rows, (seeds.len(), 2), logits.device())?;
    Ok(logits.inplace_op3(labels, &rows, &Backward)?)
}

/// A float that statistics can be taken of.
trait Logit: Copy + Send + Sync {
    fn to_f64(self) -> f64;
    fn from_f64(x: f64) -> Self;
    /// exp(self - shift), computed in the type's own precision.
    fn exp_minus(self, shift: f64) -> f64;
}

impl Logit for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(x: f64) -> Self {
        x as Self
    }
    fn exp_minus(self, shift: f64) -> f64 {
        f64::from(((f64::from(self) - shift) as Self).exp())
    }
}

impl Logit for f64 {
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(x: f64) -> Self {
        x
    }
    fn exp_minus(self, shift: f64) -> f64 {
        (self - shift).exp()
    }
}

struct Statistics;

impl CustomOp2 for Statistics {
    fn name(&self) -> &'static str {
        "token-statistics"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        labels: &CpuStorage,
        labels_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, vocabulary) = logits_layout.shape().dims2()?;
        let labels = label_slice(labels, labels_layout, n)?;
        let Some((start, end)) = logits_layout.contiguous_offsets() else {
            bail!("token-statistics: logits must be contiguous")
        };
        let out = match logits {
            CpuStorage::F32(x) => rows_statistics(&x[start..end], vocabulary, labels),
            CpuStorage::F64(x) => rows_statistics(&x[start..end], vocabulary, labels),
            _ => bail!("token-statistics: logits must be f32 or f64"),
        };
        Ok((CpuStorage::F64(out), Shape::from((n, WIDTH))))
    }
}

fn rows_statistics<T: Logit>(logits: &[T], vocabulary: usize, labels: &[u32]) -> Vec<f64> {
    let mut out = vec![0.0; labels.len() * WIDTH];
    let rows = logits.par_chunks_exact(vocabulary).zip(labels);
    out.par_chunks_exact_mut(WIDTH)
        .zip(rows)
        .for_each(|(out, (row, &label))| {
            let max = row
                .iter()
                .fold(f64::NEG_INFINITY, |max, z| max.max(z.to_f64()));
            let (mut sum, mut weighted, mut squares) = (0.0, 0.0, 0.0);
            for z in row {
                let e = z.exp_minus(max);
                sum += e;
                weighted += e * (z.to_f64() - max);
                squares += e * e;
            }
            // f64::max passes over NaN; a NaN anywhere must reach the caller, and `sum` carries it.
            let at_label = row[label as usize].to_f64();
            out[0] = max + sum.ln();
            out[1] = at_label - out[0];
            out[2] = sum.ln() - weighted / sum;
            out[3] = f64::from(u8::from(at_label >= max));
            out[4] = squares.ln() - 2.0 * sum.ln();
        });
    out
}

struct Backward;

impl InplaceOp3 for Backward {
    fn name(&self) -> &'static str {
        "token-backward"
    }

    fn cpu_fwd(
        &self,
        logits: &mut CpuStorage,
        logits_layout: &Layout,
        labels: &CpuStorage,
        labels_layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (n, vocabulary) = logits_layout.shape().dims2()?;
        let labels = label_slice(labels, labels_layout, n)?;
        let (Some((start, end)), Some((r0, r1))) = (
            logits_layout.contiguous_offsets(),
            rows_layout.contiguous_offsets(),
        ) else {
            bail!("token-backward: operands must be contiguous")
        };
        let CpuStorage::F64(rows) = rows else {
            bail!("token-backward: rows must be f64")
        };
        match logits {
            CpuStorage::F32(x) => {
                rows_backward(&mut x[start..end], vocabulary, labels, &rows[r0..r1])
            }
            CpuStorage::F64(x) => {
                rows_backward(&mut x[start..end], vocabulary, labels, &rows[r0..r1])
            }
            _ => bail!("token-backward: logits must be f32 or f64"),
        }
        Ok(())
    }
}

fn rows_backward<T: Logit>(logits: &mut [T], vocabulary: usize, labels: &[u32], rows: &[f64]) {
    let numbers = labels.par_iter().zip(rows.par_chunks_exact(2));
    logits
        .par_chunks_exact_mut(vocabulary)
        .zip(numbers)
        .for_each(|(row, (&label, numbers))| {
            let (log_sum_exp, seed) = (numbers[0], numbers[1]);
            let probability = row[label as usize].exp_minus(log_sum_exp);
            for z in row.iter_mut() {
                *z = T::from_f64(-seed * z.exp_minus(log_sum_exp));
            }
            row[label as usize] = T::from_f64(seed * (1.0 - probability));
        });
}

fn label_slice<'a>(
    labels: &'a CpuStorage,
    layout: &Layout,
    n: usize,
) -> candle_core::Result<&'a [u32]> {
    match (labels, layout.contiguous_offsets()) {
        (CpuStorage::U32(labels), Some((start, end))) if end - start == n => {
            Ok(&labels[start..end])
        }
        _ => bail!("labels must be {n} contiguous u32"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::{D, Device};

    #[test]
    fn statistics_and_backward_equal_a_plain_log_softmax() {
        let logits = variable(1, &[4, 11]);
        let labels = Tensor::new(&[3u32, 0, 10, 3], &Device::Cpu).unwrap();
        let seeds = variable(2, &[4, 1]);
        let log_softmax = candle_nn::ops::log_softmax(&logits, D::Minus1).unwrap();
        let at_label = log_softmax
            .gather(&labels.unsqueeze(1).unwrap(), 1)
            .unwrap();
        let entropy = (log_softmax.exp().unwrap() * &log_softmax)
            .unwrap()
            .sum(1)
            .unwrap()
            .neg()
            .unwrap();
        let got = statistics(&logits, &labels).unwrap();
        let column = |f: fn(&TokenStatistics) -> f64| {
            Tensor::from_vec(got.iter().map(f).collect::<Vec<_>>(), 4, &Device::Cpu).unwrap()
        };
        assert_close(
            &column(|s| s.log_prob),
            &at_label.squeeze(1).unwrap(),
            "log-prob",
        );
        assert_close(&column(|s| s.entropy), &entropy, "entropy");
        let probabilities = log_softmax.exp().unwrap();
        let collision = probabilities.sqr().unwrap().sum(1).unwrap().log().unwrap();
        assert_close(&column(|s| s.log_collision), &collision, "log-collision");
        let best: Vec<u32> = logits.argmax(1).unwrap().to_vec1().unwrap();
        let correct: Vec<bool> = got.iter().map(|s| s.correct).collect();
        assert_eq!(
            correct,
            [3, 0, 10, 3]
                .iter()
                .zip(best)
                .map(|(l, b)| *l == b)
                .collect::<Vec<_>>()
        );

        let want = autograd(&at_label, &seeds, &[&logits]);
        let tile = logits.as_tensor().copy().unwrap();
        let seeds: Vec<f64> = seeds.flatten_all().unwrap().to_vec1().unwrap();
        let log_sum_exp: Vec<f64> = got.iter().map(|s| s.log_sum_exp).collect();
        backward(&tile, &labels, &log_sum_exp, &seeds).unwrap();
        assert_close(&tile, &want[0], "dlogits");
    }

    #[test]
    fn a_nan_logit_is_not_hidden() {
        let logits = Tensor::new(&[[0f32, f32::NAN, 1.0]], &Device::Cpu).unwrap();
        let labels = Tensor::new(&[2u32], &Device::Cpu).unwrap();
        assert!(statistics(&logits, &labels).unwrap()[0].log_prob.is_nan());
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let logits = Tensor::new(&[[3e38f32, -3e38, 0.0]], &Device::Cpu).unwrap();
        let labels = Tensor::new(&[0u32], &Device::Cpu).unwrap();
        let s = statistics(&logits, &labels).unwrap()[0];
        assert_eq!((s.log_prob, s.entropy, s.correct), (0.0, 0.0, true));
        assert_eq!(s.log_collision, 0.0);
    }
}
