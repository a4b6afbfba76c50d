//! Sequences whose length changes how they are computed: each as a pass over it alone.

use std::fs;

use candle_core::{DType, Device, Tensor};
use expo::data::pack::Packed;
use expo::data::{Example, Prompt, Response, Tokenizer};
use expo::error::{Kind, Result};
use expo::loss::Role;
use expo::model::Decoder;
use expo::model::head::ResponseScore;
use expo::model::parameters::Params;
use expo::model::sampling::SampleConfig;
use expo::model::weights::ModelFolder;
use expo::sample::{Drawn, Sampler};
use expo::score::score;
use serde_json::{Value, json};

use crate::support::fixture;

/// The length up to which the models below compute all sequences alike.
const ORIGINAL: usize = 24;

/// The fixture with another rotary embedding.
fn model(name: &str, keys: Value, dtype: DType) -> Decoder {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(
        fixture(name).join("model.safetensors"),
        folder.path().join("model.safetensors"),
    )
    .unwrap();
    let mut config = crate::support::json(&fixture(name).join("config.json"));
    let keys = keys.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(keys);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let folder = ModelFolder::open(folder.path()).unwrap();
    folder.load(dtype, &Device::Cpu).unwrap().0
}

fn longrope(dtype: DType) -> Decoder {
    let (short, long): (Vec<f64>, Vec<f64>) = (0..6)
        .map(|i| (1.0 + f64::from(i) / 8.0, 3.0 + f64::from(i * i)))
        .unzip();
    let scaling = json!({
        "rope_type": "longrope", "short_factor": short, "long_factor": long,
        "original_max_position_embeddings": ORIGINAL,
    });
    model("llama", json!({"rope_scaling": scaling}), dtype)
}

fn dynamic(dtype: DType) -> Decoder {
    let scaling = json!({"rope_type": "dynamic", "factor": 8.0});
    let keys = json!({"rope_scaling": scaling, "max_position_embeddings": ORIGINAL});
    model("llama", keys, dtype)
}

fn tokens(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32)
        .map(|i| (seed * 97 + i * 31 + i * i * 7) % 300 + 1)
        .collect()
}

/// Prompts with responses that end before the switch, at it, after it and far after it.
fn examples() -> Vec<Example> {
    let example = |row: usize, prompt: usize, ends: &[usize]| Example {
        row,
        prompt: tokens(row as u32, prompt),
        responses: ends
            .iter()
            .enumerate()
            .map(|(i, end)| {
                let role = [Role::Chosen, Role::Rejected, Role::Sampled][i.min(2)];
                Response::new(role, tokens((row * 10 + i) as u32, end - prompt))
            })
            .collect(),
        preference: None,
    };
    vec![
        example(0, 10, &[23, 25, 24, 40, 25]),
        example(1, 12, &[40, 16]),
        example(2, 20, &[24, 22]),
        example(3, 30, &[33, 50, 33]),
        example(4, 0, &[25, 20]),
    ]
}

/// The responses one by one.
fn alone(examples: &[Example]) -> Vec<Example> {
    let one = |example: &Example, response: &Response| Example {
        responses: vec![response.clone()],
        ..example.clone()
    };
    let each = |e: &'_ Example| -> Vec<Example> { e.responses.iter().map(|r| one(e, r)).collect() };
    examples.iter().flat_map(each).collect()
}

fn log_probs(scores: &[Vec<ResponseScore>]) -> Vec<f64> {
    scores
        .iter()
        .flatten()
        .map(|score| score.log_prob)
        .collect()
}

/// The gradient of a weighted sum of log-probs, the weight depending on the response's place.
fn gradient(model: &Decoder, packed: &Packed, mut first: usize) -> Params {
    let mut gradients = model.gradients().unwrap();
    let seeds = |_: usize, scores: &[ResponseScore]| {
        let places = first..first + scores.len();
        first = places.end;
        Ok(places.map(|place| (place as f64 + 1.0).sin()).collect())
    };
    model.step(packed, seeds, &mut gradients).unwrap();
    gradients
}

fn vector(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn responses_on_both_sides_of_the_switch_are_computed_as_each_sequence_alone() {
    for model in [longrope(DType::F64), dynamic(DType::F64)] {
        let (together, apart) = (examples(), alone(&examples()));
        let packed = model.pack(&together, Role::ALL);
        let got = log_probs(&model.score(&packed).unwrap());
        // One sequence by itself leaves no choice of what its length is.
        let own = |example: &Example| {
            let scores = model.score(&Packed::new([example], Role::ALL)).unwrap();
            scores[0][0].log_prob
        };
        let want: Vec<f64> = apart.iter().map(own).collect();
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() < 1e-10, "{got} {want}");
        }
        for budget in [1, 60, 10_000] {
            let column = score(&model, &together, budget).unwrap();
            let scores = (0..together.len()).flat_map(|row| column.of(row));
            for (got, want) in scores.zip(&want) {
                assert!((got.log_prob - want).abs() < 1e-10, "budget {budget}");
            }
        }
        let gradients = gradient(&model, &packed, 0);
        let mut sums: Vec<Vec<f64>> = Vec::new();
        for (place, example) in apart.iter().enumerate() {
            let part = gradient(&model, &Packed::new([example], Role::ALL), place);
            for id in 0..part.layout().entries.len() {
                match sums.get_mut(id) {
                    None => sums.push(vector(part.view(id))),
                    Some(sum) => {
                        let values = vector(part.view(id));
                        sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
                    }
                }
            }
        }
        for (id, want) in sums.iter().enumerate() {
            let norm = want.iter().map(|x| x * x).sum::<f64>().sqrt();
            for (got, want) in vector(gradients.view(id)).iter().zip(want) {
                let name = &gradients.layout().entries[id].name;
                assert!(
                    (got - want).abs() < 1e-10 * norm.max(1.0),
                    "{name}: {got} {want}"
                );
            }
        }
    }
}

#[test]
fn the_length_of_a_sequence_matters_and_that_of_others_beside_it_does_not() {
    let plain = model("llama", json!({}), DType::F64);
    let long = &examples()[3..4];
    for other in [longrope(DType::F64), dynamic(DType::F64)] {
        let of = |model: &Decoder, examples: &[Example]| {
            log_probs(&model.score(&model.pack(examples, Role::ALL)).unwrap())
        };
        let (a, b) = (of(&plain, long), of(&other, long));
        assert!(
            a.iter().zip(&b).all(|(a, b)| (a - b).abs() > 1e-6),
            "{a:?} {b:?}"
        );
        let short = alone(&examples());
        let in_company = of(&other, &[&short[..1], long].concat());
        assert!((in_company[0] - of(&other, &short[..1])[0]).abs() < 1e-10);
    }
    // Up to the original length there is no scaling.
    let short = &examples()[2..3];
    let of = |model: &Decoder| log_probs(&model.score(&model.pack(short, Role::ALL)).unwrap());
    for (a, b) in of(&plain).iter().zip(of(&dynamic(DType::F64))) {
        assert!((a - b).abs() < 1e-10);
    }
}

#[test]
fn a_prompt_is_not_shared_by_sequences_that_are_computed_differently() {
    let model = longrope(DType::F64);
    let error = model
        .score(&Packed::new(&examples(), Role::ALL))
        .unwrap_err();
    assert_eq!(*error.kind(), Kind::Failed);
    assert!(error.to_string().contains("share a prompt"), "{error}");
}

/// The likeliest next token after each of `count` steps, each by a pass over the whole sequence.
fn recomputed(model: &Decoder, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..count {
        let whole = Example {
            row: 0,
            prompt: ids.clone(),
            responses: Vec::new(),
            preference: None,
        };
        let mut packed = model.pack([&whole], &[]);
        packed.sources = vec![ids.len() as u32 - 1];
        packed.labels = vec![0];
        let logits = model.logits(&packed).unwrap();
        let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        ids.push(best.unwrap() as u32);
    }
    ids.split_off(prompt.len())
}

fn draw(model: &Decoder, lengths: &[usize], config: &SampleConfig) -> Result<Vec<Drawn>> {
    let tokenizer = Tokenizer::open(&fixture("llama")).unwrap();
    let prompts = lengths.iter().map(|&length| Prompt {
        text: length.to_string(),
        instruction: String::new(),
        ids: tokens(length as u32, length),
        place: format!("prompt of {length}"),
        cut: false,
    });
    let prompts: Vec<Prompt> = prompts.collect();
    let longest = model.architecture().longest_sequence();
    let sampler = Sampler::new(model, &tokenizer, config, longest);
    sampler.all(&prompts, &mut |_, _, _| {})
}

#[test]
fn drawing_goes_on_across_the_switch_as_recomputation_does() {
    let model = longrope(DType::F32);
    let lengths = [3, 12, 20, 23, 24, 25, 40];
    for batch_size in [1, 3, 7] {
        let config = SampleConfig {
            greedy: true,
            max_new_tokens: 24,
            batch_size,
            ..SampleConfig::default()
        };
        let drawn = draw(&model, &lengths, &config).unwrap();
        for (drawn, &length) in drawn.iter().zip(&lengths) {
            let prompt = tokens(length as u32, length);
            let want = recomputed(&model, &prompt, drawn.ids.len());
            assert_eq!(
                drawn.ids, want,
                "prompt of {length}, batches of {batch_size}"
            );
        }
        assert!(drawn.iter().any(|drawn| drawn.ids.len() == 24));
    }
}

#[test]
fn responses_across_the_switch_do_not_depend_on_the_batch() {
    let model = longrope(DType::F32);
    let with = |batch_size: usize| {
        let config = SampleConfig {
            max_new_tokens: 20,
            num_samples: 4,
            batch_size,
            ..SampleConfig::default()
        };
        draw(&model, &[9, 21, 24, 30], &config).unwrap()
    };
    let alone = with(1);
    for size in [3, 16] {
        assert!(alone == with(size), "in batches of {size}");
    }
}

#[test]
fn dynamic_is_drawn_up_to_its_original_length_and_refused_beyond() {
    let model = dynamic(DType::F32);
    let config = SampleConfig {
        greedy: true,
        max_new_tokens: 12,
        ..SampleConfig::default()
    };
    for (drawn, length) in draw(&model, &[5, 12], &config).unwrap().iter().zip([5, 12]) {
        let prompt = tokens(length, length as usize);
        assert_eq!(drawn.ids, recomputed(&model, &prompt, drawn.ids.len()));
    }
    for (length, word) in [(13, "max_new_tokens 11"), (30, "at most 24 tokens")] {
        let error = draw(&model, &[5, length], &config).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        for word in [&format!("prompt of {length}"), "\"dynamic\"", word] {
            assert!(text.contains(word), "{text}");
        }
    }
}
