//! What a model computes in bf16, on other numbers of threads, and at unusual lengths.

use candle_core::{DType, Tensor};
use expo::data::pack::Packed;
use expo::data::{Example, Response};
use expo::kernels::Precision;
use expo::loss::Role;
use expo::model::Decoder;
use expo::model::parameters::Params;

use crate::support::{MODELS, fixture, json, load, pairs};

fn oracle_pairs(name: &str) -> Vec<Example> {
    pairs(&json(&fixture(&format!("oracle/{name}.json"))))
}

/// The gradient of the sum of chosen minus rejected log-probs, with all log-probs.
fn step(model: &Decoder, examples: &[Example]) -> (Params, Vec<f64>) {
    let mut gradients = model.gradients().unwrap();
    let mut log_probs = Vec::new();
    let packed = model.pack(examples, Role::ALL);
    model
        .step(
            &packed,
            |_, scores| {
                log_probs.extend(scores.iter().map(|score| score.log_prob));
                let sign = |role| if role == Role::Rejected { -1.0 } else { 1.0 };
                Ok(scores.iter().map(|score| sign(score.role)).collect())
            },
            &mut gradients,
        )
        .unwrap();
    (gradients, log_probs)
}

fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all()
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
        .to_vec1()
        .unwrap()
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for name in MODELS {
        for precision in [Precision::Full, Precision::Bf16] {
            let model = load(&fixture(name), DType::F32).with_precision(precision);
            let examples = oracle_pairs(name);
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.unwrap().install(|| {
                    let (gradients, log_probs) = step(&model, &examples);
                    (gradients.flat().to_vec1::<f32>().unwrap(), log_probs)
                })
            };
            let one = run(1);
            assert!(one == run(2) && one == run(5), "{name}, {precision:?}");
        }
    }
}

/// bf16 has 8 bits: products are good to about one part in 256 of their largest terms.
#[test]
fn bf16_stays_near_f32() {
    // Rounding sends a token to another expert where two are nearly as probable.
    let experts = ["mixtral", "qwen3_moe", "qwen3_moe-fused"];
    for name in MODELS.into_iter().filter(|name| !experts.contains(name)) {
        let model = load(&fixture(name), DType::F32);
        let examples = oracle_pairs(name);
        let (full, want) = step(&model, &examples);
        let model = model.with_precision(Precision::Bf16);
        let (rounded, got) = step(&model, &examples);
        let responses = examples.iter().flat_map(|example| &example.responses);
        for ((got, want), response) in got.iter().zip(&want).zip(responses) {
            let off = (got - want).abs() / response.ids.len() as f64;
            assert!(off > 0.0 && off < 0.02, "{name}: {got} {want}");
        }
        let (full, rounded) = (values(full.flat()), values(rounded.flat()));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let cosine = dot(&full, &rounded) / (dot(&full, &full) * dot(&rounded, &rounded)).sqrt();
        // Each layer rounds once more; the random Phi-3's scores are large.
        let layers = model.architecture().layers;
        let more = layers > 2 || name.starts_with("phi3");
        let least = if more { 0.98 } else { 0.997 };
        assert!(cosine > least, "{name}: {cosine}");
    }
}

/// Rows of one token, of hundreds, and without a prompt, in one batch and alone.
#[test]
fn unusual_lengths_in_one_batch_equal_each_alone() {
    let ids = |length: usize, seed: usize| -> Vec<u32> {
        (0..length)
            .map(|i| ((i * 31 + seed * 17) % 90 + 1) as u32)
            .collect()
    };
    let lengths = [
        (1, 1, 1),
        (0, 2, 9),
        (150, 90, 1),
        (3, 70, 180),
        (64, 64, 65),
        (65, 1, 2),
    ];
    let example = |(row, &(prompt, chosen, rejected)): (usize, &(usize, usize, usize))| Example {
        row,
        prompt: ids(prompt, row),
        responses: vec![
            Response::new(Role::Chosen, ids(chosen, row + 1)),
            Response::new(Role::Rejected, ids(rejected, row + 2)),
        ],
        preference: None,
    };
    let examples: Vec<Example> = lengths.iter().enumerate().map(example).collect();
    for name in ["neox", "neox-sequential", "llama3", "qwen2-window", "qwen3"] {
        for recompute in [false, true] {
            let mut model = load(&fixture(name), DType::F64);
            model.recompute = recompute;
            let (together, log_probs) = step(&model, &examples);
            let mut sum = vec![0.0; together.layout().len];
            let mut alone = Vec::new();
            for example in &examples {
                let (gradient, log_probs) = step(&model, std::slice::from_ref(example));
                sum.iter_mut()
                    .zip(values(gradient.flat()))
                    .for_each(|(s, g)| *s += g);
                alone.extend(log_probs);
            }
            for (a, b) in log_probs.iter().zip(&alone) {
                assert!((a - b).abs() < 1e-9, "{name}: {a} {b}");
            }
            let size = sum.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
            for (a, b) in values(together.flat()).iter().zip(&sum) {
                assert!((a - b).abs() < 1e-10 * size, "{name}: {a} {b} of {size}");
            }
        }
    }
}

/// However few rows of logits are held at once.
#[test]
fn tiles_of_the_head_change_nothing() {
    for name in MODELS {
        let mut model = load(&fixture(name), DType::F64);
        let examples = oracle_pairs(name);
        let (whole, log_probs) = step(&model, &examples);
        for rows in [1, 2, 3, 7] {
            model.tile_rows = rows;
            let (tiled, again) = step(&model, &examples);
            for (a, b) in log_probs.iter().zip(&again) {
                assert!((a - b).abs() < 1e-10, "{name}: {a} {b}");
            }
            let (whole, tiled) = (values(whole.flat()), values(tiled.flat()));
            let size = whole.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
            for (a, b) in whole.iter().zip(&tiled) {
                assert!((a - b).abs() < 1e-11 * size, "{name}, {rows} rows: {a} {b}");
            }
        }
    }
}

/// A response of several turns, some of them not scored, is the same sequence with fewer sources.
#[test]
fn turns_that_are_not_scored_leave_the_others_alone() {
    let ids: Vec<u32> = (0..40).map(|i| i * 7 % 90 + 1).collect();
    let mut turns = Example {
        row: 0,
        prompt: ids[..5].to_vec(),
        responses: vec![Response::new(Role::Chosen, ids[5..].to_vec())],
        preference: None,
    };
    turns.responses[0].context = vec![4..9, 20..31];
    let packed = Packed::new([&turns], Role::ALL);
    assert_eq!(packed.labels.len(), 35 - 5 - 11);
    for name in MODELS {
        let model = load(&fixture(name), DType::F64);
        let score = model.score(&packed).unwrap()[0][0].log_prob;
        turns.responses[0].context.clear();
        let whole = Packed::new([&turns], Role::ALL);
        turns.responses[0].context = vec![4..9, 20..31];
        let logits: Vec<Vec<f64>> = model.logits(&whole).unwrap().to_vec2().unwrap();
        let mut want = 0.0;
        for (token, (row, &label)) in logits.iter().zip(&whole.labels).enumerate() {
            if !(4..9).contains(&token) && !(20..31).contains(&token) {
                let sum: f64 = row.iter().map(|z| z.exp()).sum();
                want += row[label as usize] - sum.ln();
            }
        }
        assert!((score - want).abs() < 1e-9, "{name}: {score} {want}");
    }
}
