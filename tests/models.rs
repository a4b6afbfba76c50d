//! Log-probs and gradients of whole models against transformers, and the step against itself.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use expo::data::pack::Packed;
use expo::data::{Example, Response};
use expo::kernels::Dst;
use expo::loss::Role;
use expo::model::Decoder;
use expo::model::head::ResponseScore;
use expo::model::parameters::Params;
use serde_json::json;

use crate::support::{self, MODELS, load, pairs};

const PAIR: &[Role] = &[Role::Chosen, Role::Rejected];

fn log_probs(model: &Decoder, examples: &[Example]) -> Vec<[f64; 2]> {
    let scores = model.score(&model.pack(examples, PAIR)).unwrap();
    scores
        .iter()
        .map(|s| [s[0].log_prob, s[1].log_prob])
        .collect()
}

/// The gradient of the mean DPO loss, beta 0.1.
fn dpo_gradient(model: &Decoder, reference: &[[f64; 2]], examples: &[Example]) -> Params {
    let mut gradients = model.gradients().unwrap();
    let n = examples.len() as f64;
    model
        .step(
            &model.pack(examples, PAIR),
            |i, scores| {
                let h = scores[0].log_prob - reference[i][0] - scores[1].log_prob + reference[i][1];
                let slope = -0.1 / (1.0 + (0.1 * h).exp()) / n;
                Ok(vec![slope, -slope])
            },
            &mut gradients,
        )
        .unwrap();
    gradients
}

fn relative_error(got: &Tensor, want: &Tensor) -> f64 {
    let norm = |x: Tensor| {
        x.sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f64>()
            .unwrap()
            .sqrt()
    };
    let (got, want) = (
        got.to_dtype(DType::F64).unwrap(),
        want.to_dtype(DType::F64).unwrap(),
    );
    assert_eq!(got.dims(), want.dims());
    norm((got - &want).unwrap()) / norm(want).max(1e-12)
}

#[test]
fn real_models_agree_with_transformers() {
    let Some(root) = support::real_fixtures() else {
        return;
    };
    for name in ["neox-tiny", "stories260k"] {
        let oracle = support::json(&root.join(format!("oracle/{name}.json")));
        let examples = pairs(&oracle);
        let model = load(&root.join("models").join(name), DType::F32);
        let reference = load(&root.join("models").join(format!("{name}-ref")), DType::F32);
        let (policy, reference) = (
            log_probs(&model, &examples),
            log_probs(&reference, &examples),
        );
        for (i, pair) in oracle["pairs"].as_array().unwrap().iter().enumerate() {
            for (j, role) in ["chosen", "rejected"].iter().enumerate() {
                let want = |key: &str| pair[role][key].as_f64().unwrap();
                assert!(
                    (policy[i][j] - want("logp_f64")).abs() < 1e-4,
                    "{name} {i} {role}"
                );
                assert!(
                    (reference[i][j] - want("ref_logp_f64")).abs() < 1e-4,
                    "{name} {i} {role}"
                );
            }
        }
        let gradients = dpo_gradient(&model, &reference, &examples);
        let file = root.join(format!("oracle/{name}.dpo_grads_f32.safetensors"));
        let want = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        for (id, entry) in gradients.layout().entries.iter().enumerate() {
            let key = if want.contains_key(&entry.name) {
                &entry.name
            } else {
                "lm_head.weight"
            };
            let error = relative_error(gradients.view(id), &want[key]);
            assert!(error < 1e-4, "{name}: {}: {error:e}", entry.name);
        }
    }
}

fn fixture_pairs(name: &str) -> Vec<Example> {
    pairs(&support::json(&support::fixture(&format!(
        "oracle/{name}.json"
    ))))
}

/// The responses of a batch one by one, each with a prompt of its own.
fn duplicated(examples: &[Example]) -> Vec<Example> {
    let alone = |example: &Example, response: &Response| Example {
        responses: vec![response.clone()],
        ..example.clone()
    };
    examples
        .iter()
        .flat_map(|e| e.responses.iter().map(move |r| alone(e, r)))
        .collect()
}

/// The gradient of a weighted sum of log-probs, the weight depending on the response's place.
fn gradient(model: &Decoder, packed: &Packed, mut first: usize) -> Params {
    let mut gradients = model.gradients().unwrap();
    let seeds = |_: usize, scores: &[ResponseScore]| {
        let seeds = (first..first + scores.len())
            .map(|n| (n as f64 + 1.0).sin())
            .collect();
        first += scores.len();
        Ok(seeds)
    };
    model.step(packed, seeds, &mut gradients).unwrap();
    gradients
}

/// In f64, so that what is compared is the arithmetic and not its rounding.
fn assert_same(a: &Params, b: &Params, what: &str) {
    for (id, entry) in a.layout().entries.iter().enumerate() {
        let error = relative_error(a.view(id), b.view(id));
        assert!(error < 1e-10, "{what}: {}: {error:e}", entry.name);
    }
}

#[test]
fn a_shared_prompt_equals_a_prompt_for_each_response() {
    for name in MODELS {
        let model = load(&support::fixture(name), DType::F64);
        let shared = fixture_pairs(name);
        let apart = duplicated(&shared);
        let scores = |examples: &[Example]| -> Vec<f64> {
            let scores = model.score(&model.pack(examples, PAIR)).unwrap();
            scores
                .iter()
                .flatten()
                .map(|score| score.log_prob)
                .collect()
        };
        for (a, b) in scores(&shared).iter().zip(scores(&apart)) {
            assert!((a - b).abs() < 1e-10, "{name}: {a} {b}");
        }
        let together = gradient(&model, &model.pack(&shared, PAIR), 0);
        let one_row = gradient(&model, &model.pack(&apart, PAIR), 0);
        assert_same(&together, &one_row, &format!("{name}, one row"));
        let sum = model.gradients().unwrap();
        for (i, example) in apart.iter().enumerate() {
            let part = gradient(&model, &model.pack([example], PAIR), i);
            for id in 0..sum.layout().entries.len() {
                expo::kernels::elementwise::add_assign(Dst::shared(sum.view(id)), part.view(id))
                    .unwrap();
            }
        }
        assert_same(&together, &sum, &format!("{name}, one sequence at a time"));
    }
}

/// What is shared of a pair is the sum of both responses cut to the shorter one, and so is its
/// gradient; the confidence is that of the logits.
#[test]
fn shared_sums_and_confidences_are_those_of_the_tokens() {
    for name in MODELS {
        let model = load(&support::fixture(name), DType::F64);
        if model.length_class(1 << 20) > 0 {
            // What is cut off changes what is computed before it.
            continue;
        }
        let whole = fixture_pairs(name);
        let cut = |example: &Example| {
            let lengths = example.responses.iter().map(|response| response.ids.len());
            let shortest = lengths.min().unwrap();
            let mut example = example.clone();
            example
                .responses
                .iter_mut()
                .for_each(|r| r.ids.truncate(shortest));
            example
        };
        let cut: Vec<Example> = whole.iter().map(cut).collect();
        assert_ne!(whole, cut);
        let scores = |examples: &[Example]| model.score(&model.pack(examples, PAIR)).unwrap();
        let (of_whole, of_cut) = (scores(&whole), scores(&cut));
        for (a, b) in of_whole.iter().flatten().zip(of_cut.iter().flatten()) {
            assert!(
                (a.shared.unwrap() - b.log_prob).abs() < 1e-10,
                "{name}: {a:?} {b:?}"
            );
        }

        let packed = model.pack(&whole, PAIR);
        let logits: Vec<Vec<f64>> = model.logits(&packed).unwrap().to_vec2().unwrap();
        let rows = packed
            .examples
            .iter()
            .flatten()
            .map(|response| response.rows.clone());
        for (rows, score) in rows.zip(of_whole.iter().flatten()) {
            let token = |row: usize| {
                let sum: f64 = logits[row].iter().map(|z| z.exp()).sum();
                let p = |z: &f64| z.exp() / sum;
                let squares: f64 = logits[row].iter().map(|z| p(z).powi(2)).sum();
                (p(&logits[row][packed.labels[row] as usize]) / squares).ln()
            };
            let mean = rows.clone().map(token).sum::<f64>() / rows.len() as f64;
            assert!(
                (score.confidence - mean).abs() < 1e-9,
                "{name}: {score:?} {mean}"
            );
        }

        // Seeds of the responses are 0, those of the shared sums are what `gradient` has.
        let mut gradients = model.gradients().unwrap();
        let mut first = 0;
        let seeds = |_: usize, scores: &[ResponseScore]| {
            let shared = (first..first + scores.len()).map(|n| (n as f64 + 1.0).sin());
            first += scores.len();
            Ok(vec![0.0; scores.len()].into_iter().chain(shared).collect())
        };
        model.step(&packed, seeds, &mut gradients).unwrap();
        let want = gradient(&model, &model.pack(&cut, PAIR), 0);
        assert_same(&gradients, &want, name);
    }
}

/// What other trainers do: every sequence padded to the longest, the padding not scored.
#[test]
fn packed_equals_padded() {
    for name in MODELS {
        let model = load(&support::fixture(name), DType::F64);
        if model.length_class(1 << 20) > 0 {
            // Padding changes what is computed before it.
            continue;
        }
        let apart = duplicated(&fixture_pairs(name));
        let length = |e: &Example| e.prompt.len() + e.responses[0].ids.len();
        let longest = apart.iter().map(length).max().unwrap();
        let padded: Vec<Example> = apart
            .iter()
            .map(|example| {
                let mut padded = example.clone();
                let missing = longest - length(example);
                padded.responses[0]
                    .ids
                    .extend(std::iter::repeat_n(1, missing));
                padded
            })
            .collect();
        let mut packed = model.pack(&padded, PAIR);
        let (mut sources, mut labels, mut from) = (Vec::new(), Vec::new(), 0);
        for (example, packed_example) in apart.iter().zip(&mut packed.examples) {
            let rows = packed_example[0].rows.clone();
            let kept = rows.start..rows.start + example.responses[0].ids.len();
            packed_example[0].rows = from..from + kept.len();
            from += kept.len();
            sources.extend_from_slice(&packed.sources[kept.clone()]);
            labels.extend_from_slice(&packed.labels[kept]);
        }
        (packed.sources, packed.labels) = (sources, labels);
        let want = gradient(&model, &packed, 0);
        let got = gradient(&model, &model.pack(&fixture_pairs(name), PAIR), 0);
        assert_same(&got, &want, name);
    }
}

#[test]
fn recompute_changes_nothing() {
    for name in MODELS {
        let mut model = load(&support::fixture(name), DType::F64);
        let packed = model.pack(&fixture_pairs(name), PAIR);
        let kept = gradient(&model, &packed, 0);
        model.recompute = true;
        assert_same(&kept, &gradient(&model, &packed, 0), name);
    }
}

/// Every parameter of every family moves the log-probs as its gradient says.
#[test]
fn gradients_equal_finite_differences() {
    for name in MODELS {
        let model = load(&support::fixture(name), DType::F64);
        let packed = model.pack(&fixture_pairs(name)[..2], PAIR);
        let objective = || -> f64 {
            let scores = model.score(&packed).unwrap();
            let flat = scores.iter().flatten().enumerate();
            flat.map(|(n, score)| (n as f64 + 1.0).sin() * score.log_prob)
                .sum()
        };
        let gradients = gradient(&model, &packed, 0);
        for (id, entry) in gradients.layout().entries.iter().enumerate() {
            // One direction per parameter, all of its elements in it.
            let size = entry.range.len();
            let direction: Vec<f64> = (0..size).map(|i| ((i * 7 + id) as f64).cos()).collect();
            let weight = model.weights().view(id).flatten_all().unwrap();
            let move_by = |h: f64| {
                let step: Vec<f64> = direction.iter().map(|d| d * h).collect();
                let step = Tensor::from_vec(step, size, &Device::Cpu).unwrap();
                expo::kernels::elementwise::add_assign(Dst::shared(&weight), &step).unwrap();
            };
            let h = 1e-5;
            move_by(h);
            let above = objective();
            move_by(-2.0 * h);
            let below = objective();
            move_by(h);
            let slope = (above - below) / (2.0 * h);
            let gradient: Vec<f64> = gradients.view(id).flatten_all().unwrap().to_vec1().unwrap();
            let want: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let scale = gradient.iter().map(|g| g.abs()).sum::<f64>();
            assert!(scale > 0.0, "{name}: {} gets no gradient", entry.name);
            assert!(
                (slope - want).abs() < 1e-6 * scale,
                "{name}: {}: {slope} {want}",
                entry.name
            );
        }
    }
}

/// candle-transformers cannot train these models, but its forward pass is not ours.
fn agrees_with_peer<C: serde::de::DeserializeOwned>(
    name: &str,
    changed: &serde_json::Value,
    peer: impl FnOnce(C, VarBuilder, &Tensor) -> candle_core::Result<Tensor>,
) {
    let folder = support::fixture(name);
    let mut config = support::json(&folder.join("config_v4_style.json"));
    for (key, value) in changed.as_object().unwrap() {
        config[key] = value.clone();
    }
    let weights = folder.join("model.safetensors");
    let tensors = candle_core::safetensors::load(weights, &Device::Cpu).unwrap();
    let vars = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);

    let example = &duplicated(&fixture_pairs(name))[0];
    let ids: Vec<u32> = [example.prompt.as_slice(), &example.responses[0].ids].concat();
    let input = Tensor::new(&ids[..ids.len() - 1], &Device::Cpu).unwrap();
    let config = serde_json::from_value(config).unwrap();
    let want = peer(config, vars, &input.unsqueeze(0).unwrap()).unwrap();
    let logits = load(&folder, DType::F32)
        .logits(&Packed::new([example], PAIR))
        .unwrap();
    let last = logits.get(logits.dim(0).unwrap() - 1).unwrap();
    let error = relative_error(&last, &want.flatten_all().unwrap());
    assert!(error < 1e-5, "{name}: {error:e}");
}

#[test]
fn families_agree_with_candle_transformers() {
    use candle_transformers::models::{llama, mistral, qwen2, qwen3};
    agrees_with_peer(
        "llama3",
        &json!({}),
        |config: llama::LlamaConfig, vars, ids| {
            let config = config.into_config(false);
            let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu)?;
            llama::Llama::load(vars, &config)?.forward(ids, 0, &mut cache)
        },
    );
    // Its window is one token longer than transformers'.
    agrees_with_peer(
        "mistral",
        &json!({"sliding_window": 7}),
        |config, vars, ids| mistral::Model::new(&config, vars)?.forward(ids, 0),
    );
    // It does not ask whether the window is in use.
    agrees_with_peer(
        "qwen2",
        &json!({"sliding_window": 4096}),
        |config, vars, ids| qwen2::ModelForCausalLM::new(&config, vars)?.forward(ids, 0),
    );
    agrees_with_peer(
        "qwen3",
        &json!({"attention_bias": false}),
        |config, vars, ids| qwen3::ModelForCausalLM::new(&config, vars)?.forward(ids, 0),
    );
}

fn files(folder: &Path) -> expo::io::model_dir::ModelFiles {
    expo::model::weights::ModelFolder::open(folder)
        .unwrap()
        .files
}

#[test]
fn a_saved_model_is_the_same_model() {
    for name in MODELS {
        let folder = support::fixture(name);
        let temporary = tempfile::tempdir().unwrap();
        let target = temporary.path().join("saved");
        let model = load(&folder, DType::F32);
        expo::checkpoint::save(&model, &files(&folder), &target, Default::default()).unwrap();
        let packed = model.pack(&fixture_pairs(name), PAIR);
        let logits = |model: &Decoder| -> Vec<f32> {
            model
                .logits(&packed)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1()
                .unwrap()
        };
        assert!(
            logits(&model) == logits(&load(&target, DType::F32)),
            "{name}"
        );
        let bytes = |folder: &Path| {
            candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu)
                .unwrap()
                .len()
        };
        assert_eq!(bytes(&folder), bytes(&target), "{name}: tensors");
    }
}

#[test]
fn a_weight_that_is_not_finite_is_not_saved() {
    let folder = support::fixture("neox");
    let temporary = tempfile::tempdir().unwrap();
    let target = temporary.path().join("saved");
    let model = load(&folder, DType::F32);
    let nan = Tensor::new(&[0f32, f32::NAN], &Device::Cpu).unwrap();
    let mut second = model.weights().flat().narrow(0, 100, 2).unwrap();
    expo::kernels::elementwise::add_assign(&mut second, &nan).unwrap();
    let error =
        expo::checkpoint::save(&model, &files(&folder), &target, Default::default()).unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}
