//! Models whose `config.json` or weights say other things than they used to.

use std::fs;
use std::path::Path;
use std::process::Command;

use candle_core::{DType, Device};
use expo::data::pack::Packed;
use expo::data::{Example, Response};
use expo::error::Result;
use expo::loss::Role;
use expo::model::weights::ModelFolder;
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};

use crate::support::{MODELS, fixture, ids, json as read};

/// Changes that transformers refuses for the type of a value, and expo reads, beside nulls, which it
/// reads as if the key were not there: of keys that change no log-prob, also of those of a window that
/// is not in use or of parts that rows of text never reach, and a whole number where transformers asks
/// for 1.0 or a truth value.
const READ_ANYWAY: &[(&str, &str)] = &[
    ("attention_dropout", "\"x\""),
    ("attn_logit_softcapping", "0"),
    ("attn_logit_softcapping", "2"),
    ("attn_logit_softcapping", "\"1.5\""),
    ("attn_pdrop", "\"x\""),
    ("embd_pdrop", "\"x\""),
    ("eos_token_id", "\"x\""),
    ("final_logit_softcapping", "2"),
    ("layer_norm_eps", "1"),
    ("layer_norm_epsilon", "1"),
    ("layer_types", "[]"),
    (
        "layer_types",
        r#"["full_attention","full_attention","full_attention"]"#,
    ),
    ("max_window_layers", "\"1\""),
    ("no_rope_layer_interval", "\"2\""),
    ("original_max_position_embeddings", "16.0"),
    ("output_router_logits", "\"x\""),
    ("pad_token_id", "\"(removed)\""),
    ("pad_token_id", "\"x\""),
    ("pad_token_id", "100000"),
    ("resid_pdrop", "\"x\""),
    ("return_dict", "false"),
    ("rms_norm_eps", "1"),
    ("router_aux_loss_coef", "\"x\""),
    ("scale_attn_by_inverse_layer_idx", "0"),
    ("sliding_window", "-1"),
    ("sliding_window", "\"8\""),
    ("sliding_window", "0"),
    ("sliding_window", "8.0"),
    ("sub_configs", "{}"),
    ("use_cache", "\"x\""),
    ("vision_config", "\"(removed)\""),
    ("vision_config", "{}"),
];

/// The log-prob of the response in a model folder.
fn log_prob(folder: &Path, prompt: &[u32], response: &[u32]) -> Result<f64> {
    let (model, _) = ModelFolder::open(folder)?.load(DType::F32, &Device::Cpu)?;
    let example = Example {
        row: 0,
        prompt: prompt.to_vec(),
        responses: vec![Response::new(Role::Chosen, response.to_vec())],
        preference: None,
    };
    let scores = model.score(&Packed::new([&example], &[Role::Chosen]))?;
    Ok(scores[0][0].log_prob)
}

/// The changed configs of the first families are in one file, those of each later one in its own.
fn changed_configs() -> Vec<Value> {
    let later = fs::read_dir(fixture("configs")).unwrap();
    let mut paths: Vec<_> = later.map(|entry| entry.unwrap().path()).collect();
    paths.push(fixture("configs.json"));
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// Each key of each family's `config.json` is changed: the model is what transformers makes of it, or
/// it is refused.
#[test]
fn a_changed_config_is_read_as_transformers_reads_it_or_refused() {
    let oracles = changed_configs();
    let (prompt, response) = (ids(&oracles[0]["prompt"]), ids(&oracles[0]["response"]));
    let mut wrong = Vec::new();
    let models = oracles
        .iter()
        .flat_map(|oracle| oracle["models"].as_object().unwrap());
    for (name, cases) in models {
        let mut equal = 0;
        let source = fixture(name);
        let config = read(&source.join("config.json"));
        let found: Vec<_> = cases
            .as_array()
            .unwrap()
            .par_iter()
            .map(|case| {
                let folder = tempfile::tempdir().unwrap();
                let weights = "model.safetensors";
                fs::copy(source.join(weights), folder.path().join(weights)).unwrap();
                let mut config = config.clone();
                for (key, value) in case["change"].as_object().unwrap() {
                    match *value == oracles[0]["removed"] {
                        true => drop(config.as_object_mut().unwrap().remove(key)),
                        false => config[key] = value.clone(),
                    }
                }
                fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
                let got = log_prob(folder.path(), &prompt, &response);
                (case, got)
            })
            .collect();
        for (case, got) in found {
            let change = case["change"].as_object().unwrap();
            let read_anyway = change.iter().all(|(key, value)| {
                value.is_null() || READ_ANYWAY.contains(&(key, &value.to_string()))
            });
            // transformers needs the head_dim of a Mixtral there, which its own default leaves out.
            let rope = || change["rope_parameters"].to_string();
            let read_anyway = read_anyway
                || name == "mixtral"
                    && change.contains_key("rope_parameters")
                    && ["yarn", "dynamic"].iter().any(|kind| rope().contains(kind));
            let right = match (&got, case["log_prob"].as_f64()) {
                (Ok(got), Some(want)) => (got - want).abs() < 1e-3,
                (Ok(_), None) => read_anyway,
                (Err(error), _) => error.exit_code() == 2,
            };
            equal += usize::from(got.is_ok() && case["log_prob"].is_f64());
            if !right {
                wrong.push(format!("{name} {case}: {got:?}"));
            }
        }
        // So that not all are refused.
        let count = cases.as_array().unwrap().len();
        let most = equal * 3 > count || !MODELS.contains(&name.as_str());
        assert!(most, "{name}: {equal} of {count} are read");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A copy of a tied fixture that has a head among its weights: the embedding times a factor.
fn with_head(case: &Value, folder: &Path) {
    let source = fixture(case["model"].as_str().unwrap());
    for entry in fs::read_dir(&source).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, folder.join(from.file_name().unwrap())).unwrap();
    }
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let embed = tensors.tensor(case["embed"].as_str().unwrap()).unwrap();
    let factor = case["factor"].as_f64().unwrap() as f32;
    let values = embed.data().as_chunks().0.iter();
    let head: Vec<u8> = values
        .flat_map(|bytes| (f32::from_le_bytes(*bytes) * factor).to_le_bytes())
        .collect();
    let head = TensorView::new(embed.dtype(), embed.shape().to_vec(), &head).unwrap();
    let mut all = tensors.tensors();
    all.push((case["head"].as_str().unwrap().to_owned(), head));
    fs::write(&path, serialize(all, None).unwrap()).unwrap();
}

/// As in transformers, which believes the weights where they and `config.json` disagree.
#[test]
fn a_tied_model_with_another_head_among_its_weights_is_not_tied() {
    let oracle = read(&fixture("configs.json"));
    let (prompt, response) = (ids(&oracle["prompt"]), ids(&oracle["response"]));
    for case in oracle["tied"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        with_head(case, folder.path());
        let got = log_prob(folder.path(), &prompt, &response).unwrap();
        let want = case["log_prob"].as_f64().unwrap();
        assert!((got - want).abs() < 1e-3, "{case}: {got}");
        let tied = ModelFolder::open(folder.path()).unwrap().arch.tied;
        assert_eq!(tied, case["factor"] == 1.0, "{case}");
    }
}

#[test]
fn a_model_that_was_not_tied_is_trained_saved_and_gone_on_with_as_it_is() {
    let oracle = read(&fixture("configs.json"));
    let cases = oracle["tied"].as_array().unwrap().iter();
    for case in cases.filter(|case| case["factor"] == 1.5) {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        fs::create_dir(&model).unwrap();
        with_head(case, &model);
        let train = |more: &[&str]| {
            let pairs = format!(
                "data.train={:?}",
                fixture("pairs.jsonl").display().to_string()
            );
            let sets = [
                "model.model_name_or_path=\"model\"",
                "data.format=\"pairs\"",
                &pairs,
                "data.max_length=64",
                "loss.dpo={}",
                "batch.batch_size=2",
                "optimizer.learning_rate=1e-3",
                "run.cache_dir=\"cache\"",
                "run.max_steps=2",
            ];
            let mut command = Command::new(env!("CARGO_BIN_EXE_expo"));
            command.args(["train", "--config", "run.toml"]);
            for set in sets {
                command.args(["--set", set]);
            }
            let out = command
                .args(more)
                .current_dir(folder.path())
                .output()
                .unwrap();
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
        };
        fs::write(folder.path().join("run.toml"), "").unwrap();
        train(&["--set", "run.output_dir=\"a\"", "--set", "run.save_steps=1"]);
        train(&[
            "--set",
            "run.output_dir=\"b\"",
            "--resume",
            "a/checkpoint-1",
        ]);
        let saved = ["a/checkpoint-1", "a", "b"].map(|name| folder.path().join(name));
        for path in &saved {
            assert_eq!(
                read(&path.join("config.json"))["tie_word_embeddings"],
                false
            );
            let saved = ModelFolder::open(path).unwrap();
            let head = case["head"].as_str().unwrap();
            assert!(saved.layout().find(head).is_some());
        }
        let weights = |path: &Path| fs::read(path.join("model.safetensors")).unwrap();
        assert!(weights(&saved[1]) == weights(&saved[2]));
        assert!(weights(&saved[0]) != weights(&saved[1]));
    }
}

#[test]
fn what_a_config_says_beside_its_family_is_refused_by_name() {
    for (key, value, words) in [
        (
            "quantization_config",
            json!({"quant_method": "gptq"}),
            "quantized weights",
        ),
        (
            "auto_map",
            json!({"AutoModelForCausalLM": "m.M"}),
            "code of its own",
        ),
        (
            "architectures",
            json!(["GemmaForCausalLM"]),
            "expo trains LlamaForCausalLM",
        ),
        ("final_logit_softcapping", json!(30.0), "of another model"),
        ("num_experts", json!(8), "no such experts"),
        ("is_causal", json!(null), "causal models"),
        (
            "rope_scaling",
            json!({"rope_type": "proportional", "factor": 4.0}),
            "another scaling would change the model",
        ),
        (
            "rope_parameters",
            json!({"full_attention": {"rope_theta": 500.0}}),
            "all layers alike",
        ),
        (
            "layer_types",
            json!(["sliding_attention", "sliding_attention"]),
            "full attention in every layer",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = read(&fixture("llama/config.json"));
        config[key] = value;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let error = ModelFolder::open(folder.path()).unwrap_err();
        let said = error.to_string();
        assert_eq!(error.exit_code(), 2);
        for word in ["config.json", words] {
            assert!(said.contains(word), "{key}: {said}");
        }
    }
}
