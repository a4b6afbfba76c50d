//! The program on a GPU against itself on the processor. `EXPO_TEST_GPU` is the GPU's number; without
//! it, and in a build without CUDA, these say that they were skipped.
//!
//! Numbers in f32 differ by the order of sums alone. In bf16 the processor rounds the operands of
//! products and the GPU what is between them too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use expo::io::cache::root;
use serde_json::Value;

use crate::support::fixture;

mod ranks;
mod refused;

/// Models that together have both residual layouts, all norms and activations, soft caps, learned positions
/// and grouped heads.
const MODELS: [&str; 5] = ["neox", "llama3", "qwen3", "gemma2", "gpt2"];

fn gpu() -> Option<String> {
    let number = match cfg!(feature = "cuda") {
        true => std::env::var("EXPO_TEST_GPU").ok(),
        false => None,
    };
    if number.is_none() {
        eprintln!("skipped: needs a build with the feature cuda, and EXPO_TEST_GPU");
    }
    Some(format!("cuda:{}", number?))
}

/// The program with a cache of its own.
fn command(cache: &Path, args: &[&str]) -> Command {
    let program = std::env::var_os("EXPO_BIN").map(PathBuf::from);
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_expo").into());
    let mut command = Command::new(program);
    command
        .args(args)
        .env("XDG_CACHE_HOME", cache)
        .env("HF_HUB_OFFLINE", "1");
    command
}

/// With a cache of its own but for compiled kernels, which are those of the machine: to compile them takes
/// longer than the tests.
fn expo(place: &Path, args: &[&str]) -> Output {
    let cache = place.join("cache");
    let own = cache.join("expo/kernels");
    if let (false, Some(root)) = (own.exists(), root()) {
        let kernels = root.join("expo/kernels");
        fs::create_dir_all(&kernels).unwrap();
        fs::create_dir_all(cache.join("expo")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(kernels, own).unwrap();
    }
    command(&cache, args).output().unwrap()
}

/// What scores a few pairs on a device, into `scores.jsonl` of `place`.
fn score_args(place: &Path, device: &str) -> Vec<String> {
    let (model, pairs) = (fixture("neox"), fixture("pairs.jsonl"));
    let out = place.join("scores.jsonl");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mut args = vec!["score".to_owned()];
    for (flag, value) in [
        ("--model", path(&model)),
        ("--data", path(&pairs)),
        ("--out", path(&out)),
        ("--device", device.to_owned()),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    args
}

fn succeed(place: &Path, args: &[&str]) {
    let output = expo(place, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
}

/// A run's records and the bytes of its weights.
struct Trained {
    records: Vec<BTreeMap<String, Value>>,
    weights: Vec<u8>,
}

/// Ten steps with `sets` in a folder `name` of `place`.
fn train(place: &Path, name: &str, model: &str, sets: &[&str]) -> Trained {
    let folder = place.join(name);
    let config = place.join(format!("{name}.toml"));
    let text = format!(
        "[model]\nmodel_name_or_path = {:?}\n\
         [data]\nformat = \"pairs\"\ntrain = {:?}\nmax_length = 48\nmax_prompt_length = 24\n\
         [loss.dpo]\nbeta = 0.1\n\
         [batch]\nbatch_size = 4\nmicro_batch_tokens = 128\n\
         [optimizer]\nlearning_rate = 1e-3\n\
         [run]\noutput_dir = {folder:?}\nmax_steps = 10\nlogging_steps = 1\n",
        fixture(model),
        fixture("pairs.jsonl"),
    );
    fs::write(&config, text).unwrap();
    let mut args = vec!["train", "--config", config.to_str().unwrap()];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    succeed(place, &args);
    let records = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    Trained {
        records: records
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        weights: ["model.safetensors", "adapter_model.safetensors"]
            .iter()
            .find_map(|name| fs::read(folder.join(name)).ok())
            .unwrap(),
    }
}

/// The largest difference of a number of the records, of those in `keys` or, where these are none, of
/// all; of the number or 1, whichever is more.
fn difference(a: &Trained, b: &Trained, keys: &[&str]) -> (f64, String) {
    assert_eq!(a.records.len(), b.records.len());
    let mut most = (0.0, String::new());
    for (step, (a, b)) in a.records.iter().zip(&b.records).enumerate() {
        assert!(a.keys().eq(b.keys()));
        for (key, value) in a {
            // Where policy and reference are one, rounding says which reward is larger.
            let wanted = keys.is_empty() || keys.contains(&key.as_str());
            if key.starts_with("rewards/accuracies") || !wanted {
                continue;
            }
            let (Some(x), Some(y)) = (value.as_f64(), b[key].as_f64()) else {
                assert_eq!(value, &b[key], "{key}");
                continue;
            };
            let off = (x - y).abs() / x.abs().max(1.0);
            if off > most.0 || off.is_nan() {
                most = (off, format!("{key} of record {step}: {x} and {y}"));
            }
        }
    }
    most
}

fn device(name: &str) -> String {
    format!("model.device=\"{name}\"")
}

#[test]
fn ten_steps_in_f32_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    let place = tempfile::tempdir().unwrap();
    // In bf16 rounding sends a token to another expert where two are nearly as probable.
    for model in MODELS.into_iter().chain(["qwen3_moe"]) {
        let run = |name: &str, at: &str| {
            train(
                place.path(),
                &format!("{model}-{name}"),
                model,
                &[&device(at)],
            )
        };
        let (off, of) = difference(&run("gpu", &gpu), &run("cpu", "cpu"), &[]);
        assert!(off <= 2e-4, "{model}: {of}");
    }
}

#[test]
fn ten_steps_of_adapters_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    let place = tempfile::tempdir().unwrap();
    let (nf4, q8_0) = ("model.quantization=\"nf4\"", "model.quantization=\"q8_0\"");
    for (name, model, sets) in [
        (
            "lora",
            "llama3",
            vec!["adapter.r=4", "adapter.modules_to_save=[\"norm\"]"],
        ),
        ("dora", "neox", vec!["adapter.use_dora=true"]),
        ("dropout", "phi3", vec!["adapter.dropout=0.2"]),
        ("nf4", "llama3", vec!["adapter.r=4", nf4]),
        ("q8_0", "gpt2", vec!["adapter.r=4", q8_0]),
    ] {
        let run = |at: &str| {
            let device = device(at);
            let sets = [&sets[..], &[&device]].concat();
            let kind = if at == "cpu" { "cpu" } else { "gpu" };
            train(place.path(), &format!("{name}-{kind}"), model, &sets)
        };
        let (off, of) = difference(&run(&gpu), &run("cpu"), &[]);
        // Where a gradient is nearly 0, its rounding decides the direction of Adam's step.
        assert!(off <= 1e-3, "{name}: {of}");
    }
}

#[test]
fn ten_steps_in_bf16_are_near_those_of_the_processor_in_both_layouts_of_states() {
    let Some(gpu) = gpu() else { return };
    let place = tempfile::tempdir().unwrap();
    let bf16 = "model.dtype=\"bf16\"";
    for model in MODELS {
        let run = |name: &str, sets: &[&str]| {
            train(place.path(), &format!("{model}-{name}"), model, sets)
        };
        let cpu = run("cpu", &[&device("cpu"), bf16]);
        let master = run("f32", &[&device(&gpu), bf16]);
        let split = run(
            "split",
            &[&device(&gpu), bf16, "optimizer.states=\"split\""],
        );
        for other in [&master, &split] {
            // What is near 0, as rewards are, differs by as much in f32.
            let keys = ["loss", "logps/chosen", "logps/rejected"];
            let (off, of) = difference(other, &cpu, &keys);
            assert!(off <= 0.05, "{model}: {of}");
        }
    }
}

#[test]
fn a_run_repeats_bit_for_bit_and_recompute_changes_nothing() {
    let Some(gpu) = gpu() else { return };
    let place = tempfile::tempdir().unwrap();
    for dtype in ["f32", "bf16"] {
        let dtype = format!("model.dtype=\"{dtype}\"");
        let run = |name: &str, set: &str| {
            let sets = [&device(&gpu), &dtype, set];
            train(
                place.path(),
                &format!("{}-{name}", &dtype[13..16]),
                "llama3",
                &sets,
            )
        };
        let first = run("first", "model.recompute=false");
        for other in [
            run("again", "model.recompute=false"),
            run("anew", "model.recompute=true"),
        ] {
            assert_eq!(first.records, other.records);
            assert!(first.weights == other.weights, "{dtype}");
        }
    }
}

/// In f32 the GPU's logits differ by rounding, and a draw only where its number lies on an edge.
#[test]
fn samples_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    let place = tempfile::tempdir().unwrap();
    let rows = fs::read_to_string(fixture("pairs.jsonl")).unwrap();
    let prompts = place.path().join("prompts.jsonl");
    let first: String = rows
        .lines()
        .take(6)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&prompts, first).unwrap();
    let prompts = prompts.to_str().unwrap();
    let processors = ["--temperature", "0.9", "--top-k", "40", "--top-p", "0.95"];
    for (model, options) in [
        ("neox", &[][..]),
        ("llama3", &processors),
        ("qwen3", &["--greedy"]),
    ] {
        let draw = |device: &str| -> Vec<Value> {
            let out = place.path().join(format!("{model}-{}.jsonl", &device[..3]));
            let model = fixture(model);
            let mut args = vec![
                "sample",
                "--model",
                model.to_str().unwrap(),
                "--prompts",
                prompts,
            ];
            args.extend(["--out", out.to_str().unwrap(), "--device", device]);
            args.extend([
                "--max-new-tokens",
                "10",
                "--batch-size",
                "4",
                "--max-prompt-length",
                "24",
            ]);
            args.extend(options);
            succeed(place.path(), &args);
            let lines = fs::read_to_string(out).unwrap();
            lines
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        };
        let (there, here) = (draw(&gpu), draw("cpu"));
        assert_eq!(there.len(), 6);
        for (there, here) in there.iter().zip(&here) {
            assert_eq!(there["token_ids"], here["token_ids"], "{model}");
            let log_prob = |row: &Value| row["log_prob"].as_f64().unwrap();
            assert!(
                (log_prob(there) - log_prob(here)).abs() < 1e-3,
                "{model}: {there} {here}"
            );
        }
    }
}

#[test]
fn a_gpu_that_is_not_there_is_refused() {
    if gpu().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let args = score_args(place.path(), "cuda:77");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = expo(place.path(), &args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("cuda:77") && said.contains("this machine has"),
        "{said}"
    );
}
