//! From a row of logits to what training needs of a token, and back.
//!
//! *Why*: the head is the widest layer. Its logits are read once for all statistics and then turned
//! in place into their own gradient; no second tensor of that width is made.

use candle_core::{DType, Tensor};

pub use crate::kernels::operands::token::{LogitTransform, TokenStatistics};

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::profile::{self, Part};
use crate::kernels::tensor::Dst;
use crate::kernels::{cpu, cuda, elementwise};

/// Turns the head's logits (n, vocabulary) into those of the model, in place.
///
/// # Errors
/// If the logits are not contiguous, or there is no kernel for the dtype: f32 alone on a GPU.
pub fn transform<'a>(logits: impl Into<Dst<'a>>, how: LogitTransform) -> Result<()> {
    let logits = logits.into();
    check_width(&logits)?;
    let Some(cap) = how.softcap else {
        return match how.is_identity() {
            true => Ok(()),
            false => elementwise::scale(logits, how.scale),
        };
    };
    let _profile = profile::part(Part::Head);
    match Backend::of(&logits) {
        Backend::Cpu => cpu::token::soft_cap(logits, how.scale, cap),
        Backend::Cuda | Backend::Emulator => cuda::token::soft_cap(logits, how.scale, cap),
    }
}

/// The statistics of each row of `logits` (n, vocabulary) at its label, `labels` (n) u32. On a GPU the
/// logits are f32, a label is not checked, and the host waits for the result.
///
/// # Errors
/// If shapes do not fit, a label is outside the vocabulary, or there is no kernel for the dtype.
pub fn statistics(logits: &Tensor, labels: &Tensor) -> Result<Vec<TokenStatistics>> {
    let _profile = profile::part(Part::Head);
    check_width(logits)?;
    match Backend::of(logits) {
        Backend::Cpu => cpu::token::statistics(logits, labels),
        Backend::Cuda | Backend::Emulator => cuda::token::statistics(logits, labels),
    }
}

/// d loss / d logits as `dtype`: `seed * (onehot(label) - softmax(logits))`, where `seeds[i]` is
/// d loss / d log-prob of row i and `log_sum_exp[i]` its statistic; times the derivative of `how`, by
/// [`transform`] of which the logits are made. In the memory of the logits where `dtype` is theirs; on a
/// GPU it may also be bf16, a new tensor for the next matmuls.
///
/// # Errors
/// As of [`statistics`], or if there is not one number for each row.
pub fn backward(
    logits: Tensor,
    labels: &Tensor,
    log_sum_exp: &[f64],
    seeds: &[f64],
    how: LogitTransform,
    dtype: DType,
) -> Result<Tensor> {
    let _profile = profile::part(Part::Head);
    check_width(&logits)?;
    let n = logits.dim(0)?;
    if seeds.len() != n || log_sum_exp.len() != n {
        return Err(Error::failed(format!(
            "{n} rows of logits, {} seeds, {} sums",
            seeds.len(),
            log_sum_exp.len()
        )));
    }
    let seeds: Vec<f64> = seeds.iter().map(|seed| seed * how.scale).collect();
    let numbers = (log_sum_exp, &seeds[..]);
    match Backend::of(&logits) {
        Backend::Cpu => cpu::token::backward(logits, labels, numbers, how.softcap, dtype),
        Backend::Cuda | Backend::Emulator => {
            cuda::token::backward(logits, labels, numbers, how.softcap, dtype)
        }
    }
}

/// Logits are contiguous (n, vocabulary).
fn check_width(logits: &Tensor) -> Result<()> {
    match logits.dims2()? {
        (_, vocabulary) if vocabulary > 0 && logits.is_contiguous() => Ok(()),
        shape => Err(Error::failed(format!(
            "logits must be contiguous and of one column or more, not {shape:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::{D, Device};

    const PLAIN: LogitTransform = LogitTransform::IDENTITY;

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
        backward(
            tile.clone(),
            &labels,
            &log_sum_exp,
            &seeds,
            PLAIN,
            DType::F64,
        )
        .unwrap();
        assert_close(&tile, &want[0], "dlogits");
    }

    #[test]
    fn transformed_logits_equal_their_formula_forward_and_backward() {
        let labels = Tensor::new(&[3u32, 0, 70, 3], &Device::Cpu).unwrap();
        for (scale, softcap) in [
            (1.0, None),
            (0.25, None),
            (1.0, Some(0.8)),
            (3.0, Some(2.0)),
            (0.5, Some(30.0)),
        ] {
            let how = LogitTransform { scale, softcap };
            assert_eq!(how.is_identity(), how == PLAIN);
            let (z, seeds) = (variable(1, &[4, 71]), variable(2, &[4, 1]));
            let want = match softcap {
                None => (z.as_tensor() * scale).unwrap(),
                Some(cap) => {
                    let share = (z.as_tensor() * (scale / cap)).unwrap();
                    (share.tanh().unwrap() * cap).unwrap()
                }
            };
            let at_label = candle_nn::ops::log_softmax(&want, D::Minus1).unwrap();
            let at_label = at_label.gather(&labels.unsqueeze(1).unwrap(), 1).unwrap();
            let gradient = &autograd(&at_label, &seeds, &[&z])[0];
            let seeds: Vec<f64> = seeds.flatten_all().unwrap().to_vec1().unwrap();
            for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-6)] {
                let mut logits = z.to_dtype(dtype).unwrap().copy().unwrap();
                transform(&mut logits, how).unwrap();
                assert_near(&logits, &want, tolerance, &format!("{how:?}"));
                let statistics = statistics(&logits, &labels).unwrap();
                let sums: Vec<f64> = statistics.iter().map(|s| s.log_sum_exp).collect();
                let got = backward(logits, &labels, &sums, &seeds, how, dtype).unwrap();
                assert_near(&got, gradient, tolerance, &format!("{how:?} backward"));
            }
        }
    }

    /// Of the GPT-NeoX vocabulary, and of one that no vector width divides.
    #[test]
    fn f32_follows_f64_on_whole_vocabularies() {
        for (vocabulary, spread) in [(50_304, 1.0), (50_304, 20.0), (1_013, 5.0)] {
            let (n, device) = (3, &Device::Cpu);
            let exact = (variable(7, &[n, vocabulary]).as_tensor() * spread).unwrap();
            let single = exact.to_dtype(DType::F32).unwrap();
            let exact = single.to_dtype(DType::F64).unwrap();
            let labels = Tensor::new(&[0u32, 500, vocabulary as u32 - 1], device).unwrap();
            let want = statistics(&exact, &labels).unwrap();
            let got = statistics(&single, &labels).unwrap();
            for (got, want) in got.iter().zip(&want) {
                let close = |got: f64, want: f64, what: &str| {
                    let off = (got - want).abs();
                    assert!(off <= 2e-7 * want.abs().max(1.0), "{what}: {got} {want}");
                };
                close(got.log_prob, want.log_prob, "log-prob");
                close(got.log_sum_exp, want.log_sum_exp, "log-sum-exp");
                close(got.entropy, want.entropy, "entropy");
                close(got.log_collision, want.log_collision, "log-collision");
                assert_eq!(got.correct, want.correct);
            }
            let sums = |all: &[TokenStatistics]| all.iter().map(|s| s.log_sum_exp).collect();
            let (sums, seeds): (Vec<f64>, _) = (sums(&got), [0.7, -1.3, 0.0]);
            backward(exact.clone(), &labels, &sums, &seeds, PLAIN, DType::F64).unwrap();
            backward(single.clone(), &labels, &sums, &seeds, PLAIN, DType::F32).unwrap();
            let rows = |x: &Tensor| x.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
            for ((got, want), seed) in rows(&single).iter().zip(rows(&exact)).zip(seeds) {
                for (got, want) in got.iter().zip(&want) {
                    let off = (got - want).abs();
                    // The difference of two logits is rounded before the exponential.
                    let ulp = f64::from(f32::EPSILON) * (1.0 + spread);
                    assert!(off <= 4.0 * ulp * want.abs() + 1e-37, "{got} {want}");
                }
                // The gradient of a row sums to 0, so its error must not add up.
                let sum: f64 = got.iter().sum();
                assert!(sum.abs() <= 1e-6 * f64::abs(seed), "{sum}");
            }
        }
    }

    #[test]
    fn labels_outside_the_vocabulary_are_refused() {
        let logits = Tensor::new(&[[0f32, 1.0]], &Device::Cpu).unwrap();
        for labels in [&[2u32][..], &[0, 1]] {
            let labels = Tensor::new(labels, &Device::Cpu).unwrap();
            let error = statistics(&logits, &labels).unwrap_err().to_string();
            assert!(error.contains("1 labels below 2"), "{error}");
            assert!(backward(logits.clone(), &labels, &[0.0], &[0.0], PLAIN, DType::F32).is_err());
        }
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
        let logits = Tensor::new(&[[f32::NEG_INFINITY, 2.0, 2.0]], &Device::Cpu).unwrap();
        let s = statistics(&logits, &labels).unwrap()[0];
        assert_eq!(s.log_prob, f64::NEG_INFINITY);
        assert!((s.entropy - 2f64.ln()).abs() < 1e-7);
    }
}
