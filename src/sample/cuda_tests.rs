//! Sampling on the emulated GPU: token ids against the CPU, log-probs against the scoring pass.

use std::collections::HashSet;

use candle_core::{DType, Device};

use super::{Drawn, Sampler};
use crate::data::pack::Packed;
use crate::data::{Example, Prompt, Response, Tokenizer};
use crate::kernels::emulator;
use crate::kernels::testing::fixture;
use crate::loss::Role;
use crate::model::Decoder;
use crate::model::sampling::SampleConfig;
use crate::model::weights::ModelFolder;

/// The most tokens of a prompt with its response, so that responses end one after the other.
const MAX_LENGTH: usize = 24;

fn load(name: &str, dtype: DType, device: &Device) -> Decoder {
    let folder = ModelFolder::open(&fixture(name)).unwrap();
    folder.load(dtype, device).unwrap().0
}

fn prompts() -> Vec<Prompt> {
    let prompt = |length: usize| Prompt {
        text: String::new(),
        instruction: String::new(),
        ids: (0..length)
            .map(|i| ((7 * i + 3 * i * i + length) % 60) as u32)
            .collect(),
        place: format!("{length} tokens"),
        cut: false,
    };
    [9, 1, 17, 21].map(prompt).into()
}

/// A penalty with and without a draw, every processor at once, and none.
fn configs() -> [SampleConfig; 4] {
    let plain = SampleConfig {
        max_new_tokens: 12,
        num_samples: 3,
        ..SampleConfig::default()
    };
    let greedy = SampleConfig {
        greedy: true,
        num_samples: 1,
        ..plain.clone()
    };
    let penalty = SampleConfig {
        repetition_penalty: 1.2,
        ..greedy.clone()
    };
    let all = SampleConfig {
        repetition_penalty: 1.3,
        temperature: 0.8,
        top_k: 40,
        top_p: 0.9,
        seed: 5,
        // A prompt's samples in two batches.
        batch_size: 8,
        ..plain.clone()
    };
    [plain, greedy, penalty, all]
}

fn draw(name: &str, model: &Decoder, config: &SampleConfig) -> Vec<Drawn> {
    let tokenizer = Tokenizer::open(&fixture(name)).unwrap();
    let sampler = Sampler::new(model, &tokenizer, config, MAX_LENGTH);
    sampler.all(&prompts(), &mut |_, _, _| {}).unwrap()
}

/// The log-probs of what was drawn, in one pass.
fn scores(model: &Decoder, config: &SampleConfig, drawn: &[Drawn]) -> Vec<f64> {
    let prompts = prompts();
    let example = |(row, drawn): (usize, &Drawn)| Example {
        row,
        prompt: prompts[row / config.num_samples].ids.clone(),
        responses: vec![Response::new(Role::Sampled, drawn.ids.clone())],
        preference: None,
    };
    let examples: Vec<Example> = drawn.iter().enumerate().map(example).collect();
    let packed = Packed::new(&examples, &[Role::Sampled]);
    let scores = model.score(&packed).unwrap();
    scores.iter().map(|scores| scores[0].log_prob).collect()
}

/// What is drawn and its scores by the kernels' text; `None` where it does not run.
fn drawn_there(name: &str, dtype: DType, config: &SampleConfig) -> Option<(Vec<Drawn>, Vec<f64>)> {
    let device = emulator::device()?;
    Some(emulator::scope_on(&device, || {
        let model = load(name, dtype, &device);
        let drawn = draw(name, &model, config);
        let scores = scores(&model, config, &drawn);
        (drawn, scores)
    }))
}

#[test]
fn f32_models_draw_what_they_draw_on_the_processor() {
    for name in [
        "neox",
        "llama3",
        "qwen2-window",
        "qwen3",
        "gemma2",
        "gpt2",
        "qwen3_moe",
    ] {
        let model = load(name, DType::F32, &Device::Cpu);
        for config in configs() {
            let Some((got, scores)) = drawn_there(name, DType::F32, &config) else {
                return;
            };
            let want = draw(name, &model, &config);
            assert_eq!(got.len(), want.len());
            for ((got, want), score) in got.iter().zip(&want).zip(scores) {
                assert_eq!(got.ids, want.ids, "{name}, {config:?}");
                assert_eq!(got.finished, want.finished);
                for log_prob in [want.log_prob, score] {
                    let off = (got.log_prob - log_prob).abs();
                    assert!(off < 1e-4, "{name}: {} and {log_prob}", got.log_prob);
                }
            }
            let lengths: HashSet<usize> = got.iter().map(|drawn| drawn.ids.len()).collect();
            assert!(lengths.len() > 1, "{name}: all end at once");
        }
    }
}

#[test]
fn bf16_models_draw_with_the_log_probs_of_the_scoring_pass() {
    for name in ["neox", "mistral"] {
        let [plain, .., all] = configs();
        for config in [plain, all] {
            let Some((got, scores)) = drawn_there(name, DType::BF16, &config) else {
                return;
            };
            for (got, score) in got.iter().zip(scores) {
                let (log_prob, off) = (got.log_prob, (got.log_prob - score).abs());
                assert!(
                    off < 0.02 * log_prob.abs(),
                    "{name}: {log_prob} and {score}"
                );
            }
        }
    }
}
