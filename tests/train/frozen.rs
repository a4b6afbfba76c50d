//! Runs in which some parameters are frozen.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device};
use expo::kernels::device::download;
use expo::loss::Role;
use expo::model::Decoder;
use expo::model::weights::ModelFolder;
use expo::optim::{Optimizer, OptimizerConfig, Updated, gradient_norm};
use safetensors::SafeTensors;

use super::{numbers, train};
use crate::support::{MODELS, fixture, json, pairs};

fn load(name: &str, patterns: &[String]) -> Decoder {
    let folder = ModelFolder::open(&fixture(name)).unwrap();
    let folder = folder.with_trainable(patterns).unwrap();
    folder.load(DType::F32, &Device::Cpu).unwrap().0
}

/// The gradients of a weighted sum of log-probs, by name.
fn gradients(model: &Decoder, name: &str) -> BTreeMap<String, Vec<f32>> {
    let examples = pairs(&json(&fixture(&format!("oracle/{name}.json"))));
    let packed = model.pack(&examples, Role::ALL);
    let mut gradients = model.gradients().unwrap();
    let seeds = |i: usize, scores: &[_]| {
        let seed = |at: usize| 0.3 + 0.2 * i as f64 - 0.7 * at as f64;
        Ok((0..scores.len()).map(seed).collect())
    };
    model.step(&packed, seeds, &mut gradients).unwrap();
    let entries = gradients.layout().entries.iter().enumerate();
    let of = |id: usize| download(&gradients.view(id).flatten_all().unwrap()).unwrap();
    entries
        .map(|(id, entry)| (entry.name.clone(), of(id)))
        .collect()
}

/// Each parameter alone, all but each, and each kind of layer alone: of every part of a block the
/// gradients that it needs are computed, and they have the bits that they have in full training.
#[test]
fn gradients_of_what_is_trained_are_those_of_full_training() {
    for name in MODELS {
        let full = gradients(&load(name, &["*".into()]), name);
        let mut selections: Vec<Vec<String>> = Vec::new();
        for parameter in ends(full.keys()) {
            selections.push(vec![parameter.clone()]);
            selections.push(vec!["*".into(), format!("!{parameter}")]);
        }
        for glob in [
            "*attention*",
            "*attn*",
            "*mlp*",
            "*norm*",
            "*.1.*",
            "*.bias",
            "*embed*",
        ] {
            if selections.iter().any(|s| contains(glob, &s[0])) {
                selections.push(vec![glob.into()]);
            }
        }
        for patterns in selections {
            let mut model = load(name, &patterns);
            let kept = gradients(&model, name);
            assert!(
                !kept.is_empty() && kept.len() < full.len(),
                "{name} {patterns:?}"
            );
            for (parameter, gradient) in &kept {
                assert!(
                    gradient == &full[parameter],
                    "{name} {patterns:?}: {parameter}"
                );
            }
            model.recompute = true;
            assert!(
                kept == gradients(&model, name),
                "{name} {patterns:?}: recompute"
            );
        }
    }
}

/// Of the parameters whose names differ in numbers alone the first and the last.
fn ends<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut kinds: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for name in names {
        let kind = name.replace(|c: char| c.is_ascii_digit(), "");
        kinds.entry(kind).or_default().push(name);
    }
    let ends = |all: Vec<&'a String>| {
        let last = (all.len() > 1).then(|| all[all.len() - 1]);
        [all[0]].into_iter().chain(last)
    };
    kinds.into_values().flat_map(ends).collect()
}

/// Whether a glob of the form `*middle*` matches.
fn contains(glob: &str, name: &str) -> bool {
    name.contains(glob.trim_matches('*'))
}

/// The tensors of a file, as they are stored.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    tensors
        .map(|(name, view)| (name, view.data().to_vec()))
        .collect()
}

fn run(model: &str, trainable: &str, more: &str) -> (tempfile::TempDir, Vec<serde_json::Value>) {
    let (folder, pairs) = (fixture(model), fixture("pairs.jsonl"));
    train(&format!(
        "[model]\nmodel_name_or_path = {folder:?}\n{trainable}\n\
         [data]\nformat = \"pairs\"\ntrain = {pairs:?}\nmax_length = 48\nmax_prompt_length = 24\n\
         [loss.dpo]\n[batch]\nbatch_size = 8\n\
         [optimizer]\nlearning_rate = 1e-3\nweight_decay = 0.1\n{more}\
         [run]\noutput_dir = \"{{out}}/run\"\ncache_dir = \"{{out}}/cache\"\n\
         max_steps = 3\nsave_steps = 3\nlogging_steps = 1\n"
    ))
}

#[test]
fn frozen_weights_keep_their_bytes_and_have_no_moments() {
    for model in ["neox", "qwen3"] {
        let (folder, _) = run(model, "trainable = [\"*\", \"!*.mlp.*\", \"!*embed*\"]", "");
        let before = tensors(&fixture(model).join("model.safetensors"));
        let after = tensors(&folder.path().join("run/model.safetensors"));
        let state = folder
            .path()
            .join("run/checkpoint-3/training_state.safetensors");
        let state = tensors(&state);
        assert_eq!(before.len(), after.len());
        for (name, bytes) in &before {
            let frozen = name.contains(".mlp.") || name.contains("embed");
            assert_eq!(frozen, bytes == &after[name], "{model}: {name}");
            for moment in ["mean", "square"] {
                let moment = format!("{moment}.{name}");
                assert_ne!(frozen, state.contains_key(&moment), "{model}: {moment}");
            }
        }
    }
}

#[test]
fn training_everything_by_name_is_training_everything() {
    let (plain, records) = run("neox", "", "");
    let (named, same) = run("neox", "trainable = [\"*\"]", "");
    let weights = |folder: &Path| std::fs::read(folder.join("run/model.safetensors")).unwrap();
    assert!(weights(plain.path()) == weights(named.path()));
    assert_eq!(numbers(&records, "loss"), numbers(&same, "loss"));
}

/// With momentum 0 an update of RMSprop depends on a parameter's own gradient alone, and the norm that
/// clips is that of what is trained.
#[test]
fn norm_and_clipping_are_of_what_is_trained() {
    let only = "lm_head.weight".to_owned();
    let mut model = load("llama", std::slice::from_ref(&only));
    let gradient = &gradients(&model, "llama")[&only];
    let want = gradient
        .iter()
        .map(|x| f64::from(*x).powi(2))
        .sum::<f64>()
        .sqrt();
    let mut buffer = model.gradients().unwrap();
    buffer.set(0, gradient).unwrap();
    assert!((gradient_norm(&buffer).unwrap() - want).abs() < 1e-9 * want);
    let config = OptimizerConfig {
        max_grad_norm: want / 2.0,
        ..OptimizerConfig::default()
    };
    let mut optimizer = Optimizer::new(&config, model.weights()).unwrap();
    for (_, moment) in optimizer.moments() {
        assert_eq!(moment.flat().elem_count(), gradient.len());
    }
    let updated = optimizer.step(model.weights_mut(), &buffer, 1e-3).unwrap();
    let Updated::Made(norm) = updated else {
        panic!("{updated:?}")
    };
    assert!((norm - want).abs() < 1e-9 * want);
}
