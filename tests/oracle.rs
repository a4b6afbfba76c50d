//! The project's own tiny models against what PyTorch says about them: every family trait that the
//! decoder supports, in both spellings of the config.

use std::fs;

use candle_core::{DType, Device, Tensor};
use expo::data::Example;
use expo::loss::Role;
use expo::model::Decoder;

use crate::support::{MODELS, fixture, json, load, pairs};

const PAIR: &[Role] = &[Role::Chosen, Role::Rejected];

fn log_probs(model: &Decoder, examples: &[Example]) -> Vec<[f64; 2]> {
    let scores = model.score(&model.pack(examples, PAIR)).unwrap();
    let both = scores.iter().map(|s| [s[0].log_prob, s[1].log_prob]);
    both.collect()
}

fn norm(x: &Tensor) -> f64 {
    let squares = x.to_dtype(DType::F64).unwrap().sqr().unwrap();
    squares
        .sum_all()
        .unwrap()
        .to_scalar::<f64>()
        .unwrap()
        .sqrt()
}

#[test]
fn log_probs_of_policy_and_reference() {
    for name in MODELS {
        let oracle = json(&fixture(&format!("oracle/{name}.json")));
        let examples = pairs(&oracle);
        for (folder, key) in [
            (name.to_string(), "log_prob"),
            (format!("{name}-ref"), "reference_log_prob"),
        ] {
            let got = log_probs(&load(&fixture(&folder), DType::F32), &examples);
            for (i, pair) in oracle["pairs"].as_array().unwrap().iter().enumerate() {
                for (j, side) in ["chosen", "rejected"].iter().enumerate() {
                    let want = pair[side][key].as_f64().unwrap();
                    let error = (got[i][j] - want).abs() / want.abs();
                    assert!(error < 2e-6, "{folder} pair {i} {side}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn gradients_of_every_parameter() {
    for name in MODELS {
        let oracle = json(&fixture(&format!("oracle/{name}.json")));
        let file = fixture(&format!("oracle/{name}.safetensors"));
        let wanted = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let examples = pairs(&oracle);
        let reference = log_probs(
            &load(&fixture(&format!("{name}-ref")), DType::F32),
            &examples,
        );
        let model = load(&fixture(name), DType::F32);
        for objective in ["dpo", "chosen"] {
            let mut gradients = model.gradients().unwrap();
            let batch = model.pack(&examples, PAIR);
            model
                .step(
                    &batch,
                    |i, scores| {
                        let ratio = |j: usize| scores[j].log_prob - reference[i][j];
                        let h = ratio(0) - ratio(1);
                        let slope = -0.1 / (1.0 + (0.1 * h).exp()) / examples.len() as f64;
                        Ok(match objective {
                            "dpo" => vec![slope, -slope],
                            _ => vec![1.0, 0.0],
                        })
                    },
                    &mut gradients,
                )
                .unwrap();
            let total = oracle["gradients"][objective]["norm"].as_f64().unwrap();
            let entries = &gradients.layout().entries;
            let prefix = format!("grad.{objective}.");
            let names = wanted.keys().filter(|key| key.starts_with(&prefix));
            assert_eq!(entries.len(), names.count(), "{name}");
            for (id, entry) in entries.iter().enumerate() {
                let want = &wanted[&format!("{prefix}{}", entry.name)];
                let want = match entry.transposed {
                    true => &want.t().unwrap().contiguous().unwrap(),
                    false => want,
                };
                let got = gradients.view(id).to_dtype(DType::F32).unwrap();
                // Of a tensor whose gradient nearly cancels only rounding is left.
                let scale = norm(want).max(1e-3 * total);
                let error = norm(&(got - want).unwrap()) / scale;
                assert!(error < 2e-5, "{name} {objective} {}: {error:e}", entry.name);
            }
        }
    }
}

#[test]
fn the_older_spelling_of_a_config_is_the_same_model() {
    for name in MODELS {
        let older = fixture(name).join("config_v4_style.json");
        if !older.exists() {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        for file in ["model.safetensors", "generation_config.json"] {
            fs::copy(fixture(name).join(file), folder.path().join(file)).unwrap();
        }
        fs::copy(older, folder.path().join("config.json")).unwrap();
        let examples = pairs(&json(&fixture(&format!("oracle/{name}.json"))));
        assert_eq!(
            log_probs(&load(folder.path(), DType::F32), &examples),
            log_probs(&load(&fixture(name), DType::F32), &examples),
            "{name}"
        );
    }
}
