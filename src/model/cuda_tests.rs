//! Whole models on the emulated GPU: log-probs and the gradient of every parameter against f64 on the
//! CPU.

use candle_core::{DType, Device};

use super::decoder::Decoder;
use super::weights::ModelFolder;
use crate::data::pack::Packed;
use crate::data::{Example, Response};
use crate::kernels::device::download;
use crate::kernels::emulator;
use crate::kernels::testing::fixture;
use crate::loss::Role;

/// Together these have every trait of every family.
const MODELS: [&str; 14] = [
    "neox",
    "neox-sequential",
    "llama3",
    "qwen2-window",
    "qwen3",
    "mistral",
    "gemma2",
    "gemma3",
    "gpt2",
    "granite",
    "olmo2",
    "phi3-window",
    "qwen3_moe",
    "smollm3",
];

pub(super) fn examples() -> Vec<Example> {
    let example = |row: usize, lengths: [usize; 3]| {
        let ids = |start: usize, length: usize| {
            let id = move |i: usize| ((7 * (start + i) + 3 * i * i + row) % 60) as u32;
            (0..length).map(id).collect::<Vec<u32>>()
        };
        let [prompt, chosen, rejected] = lengths;
        let responses = [
            (Role::Chosen, ids(11, chosen)),
            (Role::Rejected, ids(29, rejected)),
        ];
        Example {
            row,
            prompt: ids(0, prompt),
            responses: responses.map(|(role, ids)| Response::new(role, ids)).into(),
            preference: None,
        }
    };
    vec![
        example(0, [9, 6, 3]),
        example(1, [1, 2, 7]),
        example(2, [4, 1, 1]),
    ]
}

/// The log-probs, then the gradient of a loss that weighs them, by parameter.
fn results(model: &Decoder) -> (Vec<f64>, Vec<(String, Vec<f32>)>) {
    let examples = examples();
    let packed = Packed::new(&examples, Role::ALL);
    let mut gradients = model.gradients().unwrap();
    let mut log_probs = Vec::new();
    let seeds = |example: usize, scores: &[super::head::ResponseScore]| {
        log_probs.extend(scores.iter().map(|score| score.log_prob));
        let seed = |at: usize| 0.3 + 0.2 * example as f64 - 0.7 * at as f64;
        Ok((0..scores.len()).map(seed).collect())
    };
    model.step(&packed, seeds, &mut gradients).unwrap();
    let scored = model.score(&packed).unwrap();
    let scored: Vec<f64> = scored
        .iter()
        .flatten()
        .map(|score| score.log_prob)
        .collect();
    for (a, b) in scored.iter().zip(&log_probs) {
        // Products of other shapes sum in another order.
        assert!((a - b).abs() <= 1e-3 * b.abs(), "{a} {b}");
    }
    let entries = gradients.layout().entries.iter();
    let gradients = entries.map(|entry| {
        let flat = gradients
            .flat()
            .narrow(0, entry.range.start, entry.range.len());
        (entry.name.clone(), download(&flat.unwrap()).unwrap())
    });
    (log_probs, gradients.collect())
}

fn folder(name: &str) -> ModelFolder {
    ModelFolder::open(&fixture(name)).unwrap()
}

fn load(name: &str, dtype: DType, device: &Device) -> Decoder {
    let mut model = folder(name).load(dtype, device).unwrap().0;
    // Several tiles, and one that an example does not fit.
    model.tile_rows = 7;
    model
}

/// `tolerance` is of the largest gradient of a parameter, and a fifth of it of a log-prob.
fn compare(dtype: DType, tolerance: f64) {
    // In bf16 rounding sends a token to another expert where two are nearly as probable.
    let compared = |name: &&str| dtype != DType::BF16 || !name.contains("moe");
    for name in MODELS.into_iter().filter(compared) {
        let (log_probs, gradients) = results(&load(name, DType::F64, &Device::Cpu));
        let Some(device) = emulator::device() else {
            return;
        };
        let got = emulator::scope_on(&device, || {
            let mut model = load(name, dtype, &device);
            let kept = results(&model);
            model.recompute = true;
            let again = results(&model);
            assert_eq!(kept.0, again.0, "{name}");
            for ((parameter, a), (_, b)) in kept.1.iter().zip(&again.1) {
                assert!(a.iter().all(|x| x.is_finite()), "{name}: {parameter}");
                assert!(a == b, "{name}: recompute changes bits of {parameter}");
            }
            kept
        });
        for (got, want) in got.0.iter().zip(&log_probs) {
            let off = (got - want).abs() / want.abs().max(1.0);
            assert!(off <= 0.2 * tolerance, "{name}: log-prob {got}, not {want}");
        }
        for ((parameter, got), (_, want)) in got.1.iter().zip(&gradients) {
            let largest = want.iter().fold(1e-6f32, |max, x| max.max(x.abs()));
            let off = got.iter().zip(want).map(|(a, b)| (a - b).abs());
            let off = f64::from(off.fold(0f32, f32::max) / largest);
            assert!(off <= tolerance, "{name}: {parameter} is off by {off}");
        }
    }
}

#[test]
fn frozen_parameters_change_no_bit_of_the_others() {
    let Some(device) = emulator::device() else {
        return;
    };
    for (name, patterns) in [
        ("neox", ["*", "!*mlp*", "!*.0.*"]),
        ("qwen3", ["*norm*", "*k_proj*", "*down_proj*"]),
    ] {
        let patterns = patterns.map(String::from);
        for dtype in [DType::F32, DType::BF16] {
            emulator::scope_on(&device, || {
                let full = results(&load(name, dtype, &device)).1;
                let folder = folder(name).with_trainable(&patterns).unwrap();
                let mut model = folder.load(dtype, &device).unwrap().0;
                model.tile_rows = 7;
                let some = results(&model).1;
                assert!(!some.is_empty() && some.len() < full.len());
                for (parameter, gradient) in some {
                    let want = full.iter().find(|(name, _)| *name == parameter);
                    assert!(want.unwrap().1 == gradient, "{name}: {parameter}");
                }
            });
        }
    }
}

#[test]
fn f32_models_have_the_gradients_of_f64() {
    compare(DType::F32, 2e-4);
}

#[test]
fn bf16_models_are_near_f64() {
    compare(DType::BF16, 0.2);
}
