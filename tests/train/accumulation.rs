//! K micro-batches of b rows are one of K b, and so are K lanes: for every loss, through a whole optimizer
//! step.

use std::collections::BTreeMap;
use std::path::Path;

use expo::loss::Loss;
use safetensors::SafeTensors;

use super::losses::scored_rows;
use super::{TAIL, head, numbers, train};
use crate::support::fixture;

/// The promise, relative.
const TOLERANCE: f64 = 1e-6;

/// Adam whose epsilon is so many times the gradient's norm is gradient descent: the sign of what is
/// only rounding moves nothing.
const EPSILON: f64 = 1e6;

/// The norm of an update: it dwarfs the weights, so that the f32 of a weight holds its gradient to the
/// last digits but one.
const UPDATE: f64 = 1e3;

/// A run of one step.
struct Step {
    loss: f64,
    grad_norm: f64,
    weights: BTreeMap<String, Vec<f32>>,
}

fn weights(model: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(model.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |bytes: &[u8]| {
        let values = bytes.as_chunks().0.iter();
        values.map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let tensors = tensors.tensors().into_iter();
    tensors
        .map(|(name, view)| (name, values(view.data())))
        .collect()
}

/// In one part.
const WHOLE: &str = "gradient_accumulation_steps = 1";

/// In several; of 16 lanes half have no row.
const DIVISIONS: [&str; 4] = [
    "gradient_accumulation_steps = 3",
    "gradient_accumulation_steps = 8",
    "lanes = 16",
    "lanes = 2\ngradient_accumulation_steps = 3",
];

/// One step on 8 rows of unequal lengths, divided in this way, with this epsilon.
fn step(loss: &str, knobs: &str, epsilon: f64, division: &str) -> Step {
    let rate = EPSILON * UPDATE;
    let folder = tempfile::tempdir().unwrap();
    let rows = match loss {
        "odpo" => scored_rows(folder.path()),
        _ => fixture("pairs.jsonl"),
    };
    let head = head(&fixture("llama"), &fixture("llama-ref"), &rows);
    let head = match loss {
        "sft" => head.replacen("reference = ", "# reference = ", 1),
        _ => head,
    };
    let samples = fixture("samples.jsonl");
    let samples = match (loss, knobs) {
        ("cexpo", "") => format!("samples = {samples:?}\n"),
        _ => String::new(),
    };
    let (run, records) = train(&format!(
        "{head}max_length = 128\nmax_prompt_length = 64\n{samples}[loss.{loss}]\n{knobs}\n\
         [batch]\nbatch_size = 8\n{division}\n\
         [optimizer]\nlearning_rate = {rate:e}\nadam_epsilon = {epsilon:e}\nmax_grad_norm = 0.0\n\
         [schedule]\nlr_scheduler_type = \"constant\"\n{TAIL}max_steps = 1\n",
    ));
    let only = |key: &str| match numbers(&records, key).as_slice() {
        [number] => *number,
        other => panic!("{loss}: {other:?} of {key}"),
    };
    Step {
        loss: only("loss"),
        grad_norm: only("grad_norm"),
        weights: weights(&run.path().join("run")),
    }
}

/// The norm of `b - a` over all parameters.
fn distance(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> f64 {
    assert!(a.keys().eq(b.keys()));
    let pairs = a.values().flatten().zip(b.values().flatten());
    let squares = pairs.map(|(a, b)| (f64::from(*b) - f64::from(*a)).powi(2));
    squares.sum::<f64>().sqrt()
}

#[test]
fn parts_of_a_batch_are_the_batch_for_every_loss() {
    let mut runs: Vec<(&str, &str)> = Loss::NAMES.iter().map(|name| (*name, "")).collect();
    runs.extend([
        ("sft", "per_token = true"),
        (
            "cexpo",
            "unsupervised = \"reverse_kl\"\n[sample]\nmax_new_tokens = 12\nnum_samples = 2",
        ),
        ("ipo", "average_log_prob = true"),
        ("rexpo", "length_normalized = true"),
        ("kto", "mismatch_group = 4"),
        (
            "dpo",
            "weight = 0.8\n[loss.sft]\nweight = 0.2\nper_token = true\n[loss.kto]\nweight = 2.0",
        ),
    ]);
    let start = weights(&fixture("llama"));
    let mut worst = (0.0, String::new());
    for (loss, knobs) in &runs {
        let epsilon = EPSILON * step(loss, knobs, 1.0, WHOLE).grad_norm;
        let whole = step(loss, knobs, epsilon, WHOLE);
        let update = distance(&start, &whole.weights);
        assert!((update / UPDATE - 1.0).abs() < 0.01, "{loss}: {update}");
        for division in DIVISIONS {
            let split = step(loss, knobs, epsilon, division);
            let relative = |a: f64, b: f64| (a - b).abs() / a.abs();
            for (what, error) in [
                ("loss", relative(whole.loss, split.loss)),
                ("gradient norm", relative(whole.grad_norm, split.grad_norm)),
                ("update", distance(&whole.weights, &split.weights) / update),
            ] {
                if error > worst.0 {
                    let knobs = knobs.replace('\n', " ");
                    worst = (error, format!("{what} of {loss} {knobs} with {division}"));
                }
            }
        }
    }
    eprintln!(
        "accumulation losses={} runs={} worst={:.1e} ({})",
        Loss::NAMES.len(),
        runs.len(),
        worst.0,
        worst.1
    );
    assert!(worst.0 < TOLERANCE, "{worst:?}");
}
