//! Draws of next tokens; the operands are checked where the operation is.

use candle_core::{DType, Tensor};

use super::module::{Arg, Grid, Source, source};
use crate::error::{Error, Result};
use crate::kernels::device::{from_host, to_host};
use crate::kernels::operands::sampling::Processors;
use crate::kernels::tensor::{Dst, fresh_of};

static TEXT: Source = source!("sampling");

/// Threads of a block, at most: however many registers each takes, a multiprocessor has room for them.
const MOST_THREADS: usize = 256;

/// At least: a search ends because each of two warps or more takes a part.
const FEWEST_THREADS: usize = 64;

/// Tokens of a thread, unless that takes more threads.
const TOKENS: usize = 32;

/// A number of 8 bytes for each of a block's warps.
const SHARED: usize = 32 * 8;

/// Waits for the result, which the host reads.
pub fn choose(
    processors: &Processors,
    seen: Option<Dst>,
    logits: &Tensor,
    slots: &[usize],
    uniforms: &[f64],
) -> Result<Vec<(u32, f64)>> {
    let (n, vocabulary) = logits.dims2()?;
    if logits.dtype() != DType::F32 {
        let dtype = logits.dtype();
        return Err(Error::failed(format!("a draw from {dtype:?} logits: f32")));
    }
    if n == 0 {
        return Ok(Vec::new());
    }
    let slots: Vec<u32> = slots.iter().map(|&slot| slot as u32).collect();
    let slots = from_host(&slots, n, logits.device())?;
    let uniforms = from_host(uniforms, n, logits.device())?;
    // SAFETY: all of it is written by the kernel.
    let out = unsafe { fresh_of((n, 2), DType::F64, logits)? };
    let greedy = processors.greedy;
    let drawn = |x: f64| Arg::Double(if greedy { 1.0 } else { x });
    let args = [
        logits.into(),
        seen.as_deref().into(),
        (&slots).into(),
        (&uniforms).into(),
        (&out).into(),
        vocabulary.into(),
        vocabulary.div_ceil(32).into(),
        usize::from(greedy).into(),
        Arg::Double(processors.repetition_penalty),
        drawn(processors.temperature),
        processors.top_k.into(),
        drawn(processors.top_p),
        Arg::Double(processors.min_p),
    ];
    let threads = vocabulary.div_ceil(TOKENS).next_multiple_of(32);
    let threads = threads.clamp(FEWEST_THREADS, MOST_THREADS);
    let grid = Grid::new([n, 1, 1], threads, SHARED);
    TEXT.with([])?.launch("choose", grid, &args)?;
    let rows = to_host::<f64>(&out)?;
    let rows = rows.as_chunks().0.iter();
    Ok(rows.map(|&[id, log_prob]| (id as u32, log_prob)).collect())
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    super::module::of_types(&TEXT, &[], MOST_THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::device::zeros;
    use crate::kernels::emulator::{device, scope_on};
    use crate::kernels::sampling::Sampler;
    use crate::kernels::testing::on;
    use crate::model::sampling::{SampleConfig, log_prob};
    use candle_core::Device;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn processors(config: &SampleConfig) -> Processors {
        Processors {
            temperature: config.temperature,
            top_k: config.top_k,
            top_p: config.top_p,
            min_p: config.min_p,
            repetition_penalty: config.repetition_penalty,
            greedy: config.greedy,
        }
    }

    /// Logits of many kinds: with ties, with impossible tokens, peaked, of either zero.
    fn logits(rng: &mut ChaCha8Rng, vocabulary: usize) -> Vec<f32> {
        let (kind, spread) = (rng.random_range(0..5), rng.random_range(0.1..12.0f32));
        let number = |_| {
            let x = spread * rng.random_range(-1.0..1.0f32);
            match kind {
                0 => (2.0 * x).round() / 2.0,
                1 if rng.random_range(0..3) == 0 => f32::NEG_INFINITY,
                2 => [0.0, -0.0, 1.0][rng.random_range(0..3usize)],
                3 => x.powi(3),
                _ => x,
            }
        };
        (0..vocabulary).map(number).collect()
    }

    /// Whether the draw, or what is drawn from, hangs on the last digits of a sum.
    fn on_the_edge(config: &SampleConfig, logits: &[f32], seen: &[u32], uniform: f64) -> bool {
        let near = |x: f64, parts: &[f64], distance: f64| {
            let mut sum = 0.0;
            parts.iter().any(|part| {
                sum += part;
                (sum - x).abs() < distance
            })
        };
        let probabilities = |config: &SampleConfig| {
            let kept = config.process(logits, seen);
            let top = kept
                .iter()
                .map(|&(_, x)| x)
                .fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = kept.iter().map(|(_, x)| (x - top).exp()).sum();
            let share = |&(_, x): &(u32, f64)| (x - top).exp() / total;
            kept.iter().map(share).collect::<Vec<f64>>()
        };
        // Where nothing is cut, the CPU's sums are of f32.
        if near(uniform, &probabilities(config), 5e-7) {
            return true;
        }
        let whole = SampleConfig {
            top_p: 1.0,
            min_p: 0.0,
            ..config.clone()
        };
        let mut sorted = probabilities(&whole);
        sorted.sort_by(|a, b| b.total_cmp(a));
        config.top_p < 1.0 && near(config.top_p, &sorted, 1e-9)
    }

    /// Sequences in the making, here and on the CPU.
    fn follow(
        config: &SampleConfig,
        (vocabulary, sequences): (usize, usize),
        device: &Device,
        rng: &mut ChaCha8Rng,
    ) {
        let id = |rng: &mut ChaCha8Rng| rng.random_range(0..vocabulary as u32);
        let mut seen: Vec<Vec<u32>> = (0..sequences)
            .map(|i| (0..i % 5).map(|_| id(rng)).collect())
            .collect();
        let sampler = Sampler::new(processors(config), sequences, vocabulary, device);
        let mut sampler = sampler.unwrap();
        for (slot, seen) in seen.iter().enumerate() {
            sampler.begin(slot, seen).unwrap();
        }
        let mut slots: Vec<usize> = (0..sequences).collect();
        for round in 0..4 {
            let n = slots.len();
            let rows: Vec<Vec<f32>> = (0..n).map(|_| logits(rng, vocabulary)).collect();
            let draw = |(slot, row): (&usize, &Vec<f32>)| loop {
                let uniform = rng.random_range(0.0..1.0);
                // Most sequences have another chance with the same edge.
                if config.greedy || !on_the_edge(config, row, &seen[*slot], uniform) {
                    return uniform;
                }
            };
            let uniforms: Vec<f64> = slots.iter().zip(&rows).map(draw).collect();
            let tensor = from_host(&rows.concat(), (n, vocabulary), device).unwrap();
            let got = scope_on(device, || {
                sampler.choose(&tensor, &slots, &uniforms).unwrap()
            });
            for (i, (id, found)) in got.into_iter().enumerate() {
                let seen = &mut seen[slots[i]];
                let want = config.choose(&rows[i], seen, uniforms[i]);
                assert_eq!(id, want, "{config:?} of {vocabulary}, {}", uniforms[i]);
                let want = log_prob(&rows[i], want);
                assert!(
                    (found - want).abs() <= 1e-11 * want.abs().max(1.0),
                    "{found} {want}"
                );
                seen.push(id);
            }
            // Some leave, in one of their slots another begins, and rows turn around.
            slots.reverse();
            if round % 2 == 1 {
                slots.retain(|slot| slot % 4 != 1);
                let slot = slots[0];
                seen[slot] = vec![id(rng)];
                sampler.begin(slot, &seen[slot]).unwrap();
            }
        }
    }

    /// 16 ways to draw, and 2 to take the most likely token.
    fn configs(vocabulary: usize, rng: &mut ChaCha8Rng) -> Vec<SampleConfig> {
        let mut all = Vec::new();
        for way in 0..18 {
            let mut config = SampleConfig::default();
            if way & 1 != 0 {
                config.repetition_penalty = rng.random_range(0.5..2.0);
            }
            if way >= 16 {
                config.greedy = true;
            } else {
                let set = |bit: u32| way & bit != 0;
                if set(2) {
                    config.temperature = rng.random_range(0.3..1.7);
                }
                if set(4) {
                    config.top_k = rng.random_range(1..=vocabulary.min(60));
                }
                if set(8) {
                    config.top_p = rng.random_range(0.01..0.999);
                }
                if rng.random_range(0..3) == 0 {
                    config.min_p = rng.random_range(0.001..1.0);
                }
            }
            all.push(config);
        }
        all
    }

    #[test]
    fn draws_are_those_of_the_processor() {
        check(&[(7, 6, 3), (640, 6, 3), (5_003, 4, 1)]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || check(&[(7, 3, 1), (2_500, 2, 1)]));
    }

    fn check(sizes: &[(usize, usize, usize)]) {
        let Some(device) = device() else { return };
        let rng = &mut ChaCha8Rng::seed_from_u64(3);
        for &(vocabulary, sequences, repeats) in sizes {
            for _ in 0..repeats {
                for config in configs(vocabulary, rng) {
                    follow(&config, (vocabulary, sequences), &device, rng);
                }
            }
        }
    }

    #[test]
    fn of_tokens_as_likely_the_first_are_drawn_from() {
        let config = SampleConfig {
            top_p: 0.55,
            ..SampleConfig::default()
        };
        // Ten as likely, among less likely ones: six of them reach 0.55.
        let row: Vec<f32> = (0..100)
            .map(|i| if i % 10 == 3 { 50.0 } else { 0.0 })
            .collect();
        let Some(device) = device() else { return };
        let logits = from_host(&row, (1, 100), &device).unwrap();
        let mut sampler = Sampler::new(processors(&config), 1, 100, &device).unwrap();
        for draw in 0..60 {
            let uniform = (f64::from(draw) + 0.5) / 60.0;
            let got = scope_on(&device, || {
                sampler.choose(&logits, &[0], &[uniform]).unwrap()
            });
            assert_eq!(got[0].0, draw as u32 / 10 * 10 + 3);
            assert_eq!(got[0].0, config.choose(&row, &[], uniform));
        }
    }

    #[test]
    fn rows_that_say_nothing_are_reported() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let rows = [
            [nan; 40],
            [-inf; 40],
            [nan, 1.0].repeat(20).try_into().unwrap(),
        ];
        let with_inf = [1.0, inf, -inf, 2.0].repeat(10).try_into().unwrap();
        let rows = [rows[0], rows[1], rows[2], with_inf];
        let Some(device) = device() else { return };
        let logits = from_host(rows.as_flattened(), (4, 40), &device).unwrap();
        for config in configs(40, &mut ChaCha8Rng::seed_from_u64(1)) {
            let mut sampler = Sampler::new(processors(&config), 4, 40, &device).unwrap();
            (0..4).for_each(|slot| sampler.begin(slot, &[1, 2]).unwrap());
            let got = scope_on(&device, || {
                sampler.choose(&logits, &[0, 1, 2, 3], &[0.5; 4]).unwrap()
            });
            for (id, log_prob) in got {
                assert!(id < 40 && !log_prob.is_finite(), "{id} {log_prob}");
            }
        }
    }

    #[test]
    fn draws_that_do_not_fit_are_refused() {
        let config = processors(&SampleConfig {
            repetition_penalty: 2.0,
            ..SampleConfig::default()
        });
        let logits = zeros((2, 7), DType::F32, &Device::Cpu).unwrap();
        let mut sampler = Sampler::new(config, 2, 7, &Device::Cpu).unwrap();
        let error = sampler.choose(&logits, &[0, 1], &[0.0; 2]).unwrap_err();
        assert!(error.to_string().contains("not on a GPU"), "{error}");
        let Some(device) = device() else { return };
        let logits = on(&device, &logits);
        let mut sampler = Sampler::new(config, 2, 7, &device).unwrap();
        assert!(sampler.begin(0, &[7]).is_err());
        assert!(sampler.begin(2, &[6]).is_err());
        sampler.begin(1, &[6]).unwrap();
        scope_on(&device, || {
            assert!(sampler.choose(&logits, &[0, 1], &[0.0]).is_err());
            assert!(sampler.choose(&logits, &[0, 1], &[0.0, 1.0]).is_err());
            assert!(sampler.choose(&logits, &[0, 2], &[0.0; 2]).is_err());
            assert!(sampler.choose(&logits, &[0], &[0.0]).is_err());
            let wide = zeros((2, 7), DType::F64, &device).unwrap();
            assert!(sampler.choose(&wide, &[0, 1], &[0.0; 2]).is_err());
        });
    }
}
