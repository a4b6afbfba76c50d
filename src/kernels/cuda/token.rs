//! Statistics of rows of logits and their gradient; the operands are checked where the operations are.

use candle_core::{DType, Tensor};

use super::module::{Arg, Grid, Module, Source, check_types, source, type_name};
use crate::error::{Error, Result};
use crate::kernels::device::{from_host, to_host};
use crate::kernels::operands::token::TokenStatistics;
use crate::kernels::tensor::{Dst, fresh_of};

static TEXT: Source = source!("token");

const THREADS: usize = 512;

/// Sums of a block's warps, in f64.
const SHARED: usize = 32 * 8;

/// `capped`: whether the logits are below a soft cap.
fn module(dtype: DType, capped: bool) -> Result<Module> {
    let capped = usize::from(capped).into();
    TEXT.with([("A", type_name(dtype)?), ("CAPPED", capped)])
}

/// Each logit z becomes `cap tanh(scale z / cap)`.
pub fn soft_cap(logits: Dst, scale: f64, cap: f64) -> Result<()> {
    check_types("logits below a soft cap", DType::F32, &[&logits])?;
    let n = logits.elem_count();
    let floats = [scale / cap, cap].map(Arg::Float);
    let args = [&[(&logits).into(), n.into()][..], &floats].concat();
    module(DType::F32, true)?.launch("soft_cap", Grid::over(n), &args)
}

/// Waits for the result, which the host reads.
pub fn statistics(logits: &Tensor, labels: &Tensor) -> Result<Vec<TokenStatistics>> {
    let (n, vocabulary) = operands(logits, labels)?;
    if n == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: all of it is written by the kernel.
    let out = unsafe { fresh_of((n, 5), DType::F64, logits)? };
    let args = [
        logits.into(),
        labels.into(),
        (&out).into(),
        vocabulary.into(),
    ];
    let grid = Grid::new([n, 1, 1], THREADS, SHARED);
    module(DType::F32, false)?.launch("statistics", grid, &args)?;
    let row =
        |&[log_sum_exp, log_prob, entropy, correct, log_collision]: &[f64; 5]| TokenStatistics {
            log_sum_exp,
            log_prob,
            entropy,
            correct: correct == 1.0,
            log_collision,
        };
    let rows = to_host::<f64>(&out)?;
    Ok(rows.as_chunks().0.iter().map(row).collect())
}

/// In place for f32, into a new tensor for bf16.
pub fn backward(
    logits: Tensor,
    labels: &Tensor,
    (log_sum_exp, seeds): (&[f64], &[f64]),
    softcap: Option<f64>,
    dtype: DType,
) -> Result<Tensor> {
    let (n, vocabulary) = operands(&logits, labels)?;
    let out = match dtype {
        DType::F32 => logits.clone(),
        // SAFETY: all of it is written by the kernel.
        _ => unsafe { fresh_of((n, vocabulary), dtype, &logits)? },
    };
    if n == 0 {
        return Ok(out);
    }
    let numbers = [log_sum_exp, seeds].concat();
    let numbers = from_host(&numbers, numbers.len(), logits.device())?;
    let tensors = [&logits, labels, &numbers, &out].map(Into::into);
    let cap = Arg::Float(softcap.unwrap_or_default());
    let args = [&tensors[..], &[vocabulary.into(), cap]].concat();
    let grid = Grid::new([n, 1, 1], THREADS, 0);
    module(dtype, softcap.is_some())?.launch("backward", grid, &args)?;
    Ok(out)
}

/// The shape of f32 logits with u32 labels, one for every row. The labels' values are not looked at.
fn operands(logits: &Tensor, labels: &Tensor) -> Result<(usize, usize)> {
    let (n, vocabulary) = logits.dims2()?;
    let types = (logits.dtype(), labels.dtype());
    if types == (DType::F32, DType::U32) && labels.dims() == [n] && labels.is_contiguous() {
        return Ok((n, vocabulary));
    }
    Err(Error::failed(format!(
        "on a GPU logits are f32 and ({n}) labels u32, not {types:?} with labels {:?}",
        labels.dims()
    )))
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    let of_type = |dtype| [false, true].map(|capped| Ok((module(dtype, capped)?, THREADS)));
    [DType::F32, DType::BF16]
        .into_iter()
        .flat_map(of_type)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::emulator::{compare, device, scope_on};
    use crate::kernels::testing::*;
    use crate::kernels::token::{LogitTransform, backward, statistics, transform};
    use candle_core::Device;

    fn columns(statistics: &[TokenStatistics]) -> Vec<Tensor> {
        let column = |f: fn(&TokenStatistics) -> f64| {
            let values: Vec<f64> = statistics.iter().map(f).collect();
            Tensor::new(values, &Device::Cpu).unwrap()
        };
        vec![
            column(|s| s.log_sum_exp),
            column(|s| s.log_prob),
            column(|s| s.entropy),
            column(|s| f64::from(u8::from(s.correct))),
            column(|s| s.log_collision),
        ]
    }

    fn logits(n: usize, vocabulary: usize) -> Tensor {
        let x = variable(n as u64, &[n, vocabulary]);
        x.to_dtype(DType::F32).unwrap()
    }

    fn labels(n: usize, vocabulary: usize) -> Tensor {
        let label = |i: usize| [0, vocabulary - 1, vocabulary / 2][i % 3] as u32;
        Tensor::new((0..n).map(label).collect::<Vec<_>>(), &Device::Cpu).unwrap()
    }

    #[test]
    fn statistics_are_those_of_the_processor() {
        check_statistics(&[(1, 1), (3, 5), (5, 33), (4, 129), (3, 5_003), (2, 50_304)]);
    }

    #[test]
    fn the_gradient_is_that_of_the_processor() {
        check_gradient(&[(1, 1), (3, 5), (5, 33), (4, 129), (3, 5_003)]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || {
            check_statistics(&[(3, 5), (2, 5_003)]);
            check_gradient(&[(3, 33), (2, 5_003)]);
        });
    }

    fn check_statistics(sizes: &[(usize, usize)]) {
        for &(n, vocabulary) in sizes {
            for spread in [1.0, 20.0] {
                let logits = (logits(n, vocabulary) * spread).unwrap();
                let inputs = [logits, labels(n, vocabulary)];
                compare("statistics", &inputs, 1e-6, |inputs| {
                    columns(&statistics(&inputs[0], &inputs[1]).unwrap())
                });
            }
        }
    }

    fn check_gradient(sizes: &[(usize, usize)]) {
        let capped = LogitTransform {
            scale: 0.5,
            softcap: Some(0.7),
        };
        for &(n, vocabulary) in sizes {
            check_gradient_of(n, vocabulary, LogitTransform::IDENTITY);
            check_gradient_of(n, vocabulary, capped);
        }
    }

    fn check_gradient_of(n: usize, vocabulary: usize, how: LogitTransform) {
        let inputs = [logits(n, vocabulary), labels(n, vocabulary)];
        let mut wide = inputs[0].to_dtype(DType::F64).unwrap();
        transform(&mut wide, how).unwrap();
        let sums = statistics(&wide, &inputs[1]).unwrap();
        let sums: Vec<f64> = sums.iter().map(|s| s.log_sum_exp).collect();
        let seeds: Vec<f64> = (0..n).map(|i| 0.7 - 0.9 * i as f64).collect();
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::BF16, 4e-3)] {
            compare("backward", &inputs, tolerance, |inputs| {
                let own = inputs[0].dtype();
                let dtype = if own == DType::F64 { own } else { dtype };
                let mut own = inputs[0].clone();
                transform(&mut own, how).unwrap();
                let made = crate::kernels::elementwise::copy(&own).unwrap();
                let out = backward(own, &inputs[1], &sums, &seeds, how, dtype).unwrap();
                assert_eq!(out.dtype(), dtype);
                if dtype == DType::F32 && how.is_identity() {
                    let sums = here(&out).to_dtype(DType::F64).unwrap().sum(1).unwrap();
                    let sums: Vec<f64> = sums.to_vec1().unwrap();
                    assert!(sums.iter().all(|sum| sum.abs() < 2e-6), "{sums:?}");
                }
                vec![made, out]
            });
        }
    }

    #[test]
    fn rows_may_begin_anywhere_and_nothing_beside_them_is_written() {
        let (n, vocabulary) = (3, 41);
        let (sums, seeds) = ([3.0, 4.0, 5.0], [1.0, -2.0, 0.5]);
        let Some(device) = device() else { return };
        let plain = logits(n, vocabulary);
        let labels = on(&device, &labels(n, vocabulary));
        let found = |x: &Tensor| columns(&statistics(x, &labels).unwrap());
        let gradient = |x: &Tensor, dtype| {
            let out = backward(
                x.clone(),
                &labels,
                &sums,
                &seeds,
                LogitTransform::IDENTITY,
                dtype,
            )
            .unwrap();
            let out = here(&out).to_dtype(DType::F32).unwrap();
            out.to_vec2::<f32>().unwrap()
        };
        for skip in 1..10 {
            let mark = vec![9f32; skip];
            let mark = Tensor::new(mark, &Device::Cpu).unwrap();
            let all = Tensor::cat(&[&mark, &plain.flatten_all().unwrap(), &mark], 0).unwrap();
            let all = on(&device, &all);
            let view = all.narrow(0, skip, n * vocabulary).unwrap();
            let view = view.reshape((n, vocabulary)).unwrap();
            let alone = on(&device, &plain);
            scope_on(&device, || {
                for (got, want) in found(&view).iter().zip(&found(&alone)) {
                    assert_near(got, want, 1e-6, "statistics");
                }
                for dtype in [DType::BF16, DType::F32] {
                    assert_eq!(gradient(&view, dtype), gradient(&alone, dtype));
                }
            });
            let all: Vec<f32> = here(&all).to_vec1().unwrap();
            let beside = all[..skip].iter().chain(&all[skip + n * vocabulary..]);
            assert!(beside.copied().all(|x| x == 9.0), "{skip}");
        }
    }

    #[test]
    fn odd_logits_say_what_the_processor_says() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let rows = [
            [3e38f32, -3e38, 0.0],
            [-inf, 2.0, 2.0],
            [0.0, nan, 1.0],
            [-inf, -inf, -inf],
            [0.0, inf, 1.0],
        ];
        let logits = Tensor::new(&rows, &Device::Cpu).unwrap();
        let labels = Tensor::new(&[0u32, 0, 2, 0, 0], &Device::Cpu).unwrap();
        let want = statistics(&logits, &labels).unwrap();
        let Some(device) = device() else { return };
        let (logits, labels) = (on(&device, &logits), on(&device, &labels));
        let got = scope_on(&device, || statistics(&logits, &labels).unwrap());
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6 || a == b;
        for (got, want) in got[..2].iter().zip(&want) {
            assert!(close(got.log_prob, want.log_prob), "{got:?} {want:?}");
            assert!(close(got.entropy, want.entropy), "{got:?} {want:?}");
            assert!(close(got.log_collision, want.log_collision));
            assert_eq!(got.correct, want.correct);
        }
        assert!(got[2..].iter().all(|s| !s.log_prob.is_finite()), "{got:?}");
    }

    #[test]
    fn a_label_outside_the_vocabulary_reads_nothing() {
        let Some(device) = device() else { return };
        let logits = on(&device, &logits(1, 3));
        let labels = from_host(&[3u32], 1, &device).unwrap();
        let got = scope_on(&device, || statistics(&logits, &labels).unwrap());
        assert_eq!(got[0].log_prob, f64::NEG_INFINITY);
        assert!(got[0].log_sum_exp.is_finite() && !got[0].correct);
    }
}
