//! Log-probs and gradients of whole models against transformers, and the step against itself.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use expo::data::pack::Packed;
use expo::data::{Example, Response};
use expo::loss::Role;
use expo::model::Decoder;
use expo::model::parameters::Buffer;
use expo::model::weights::ModelFolder;
use serde_json::Value;

use crate::support;

const PAIR: &[Role] = &[Role::Chosen, Role::Rejected];

pub fn load(folder: &Path, dtype: DType) -> Decoder {
    ModelFolder::open(folder)
        .unwrap()
        .load(dtype, &Device::Cpu)
        .unwrap()
        .0
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

/// The pairs of an oracle file.
fn pairs(oracle: &Value) -> Vec<Example> {
    let pairs = oracle["pairs"].as_array().unwrap().iter().enumerate();
    let example = |(row, pair): (usize, &Value)| Example {
        row,
        prompt: ids(&pair["prompt_ids"]),
        responses: vec![
            Response {
                role: Role::Chosen,
                ids: ids(&pair["chosen_ids"]),
            },
            Response {
                role: Role::Rejected,
                ids: ids(&pair["rejected_ids"]),
            },
        ],
        preference: None,
    };
    pairs.map(example).collect()
}

fn log_probs(model: &Decoder, examples: &[Example]) -> Vec<[f64; 2]> {
    let scores = model.score(&Packed::new(examples, PAIR)).unwrap();
    scores
        .iter()
        .map(|s| [s[0].log_prob, s[1].log_prob])
        .collect()
}

/// The gradient of the mean DPO loss, beta 0.1.
fn dpo_gradient(model: &Decoder, reference: &[[f64; 2]], examples: &[Example]) -> Buffer {
    let gradients = model.gradients().unwrap();
    let n = examples.len() as f64;
    model
        .step(
            &Packed::new(examples, PAIR),
            |i, scores| {
                let h = scores[0].log_prob - reference[i][0] - scores[1].log_prob + reference[i][1];
                let slope = -0.1 / (1.0 + (0.1 * h).exp()) / n;
                Ok(vec![slope, -slope])
            },
            &gradients,
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
