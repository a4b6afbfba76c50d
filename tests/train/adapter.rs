//! Adapters against PEFT's and TRL's trajectories, and against their own.

use std::path::Path;

use candle_core::{DType, Device};
use serde_json::Value;

use super::{TAIL, close, numbers, train};
use crate::support::{json, real_fixtures};

/// The largest distance of a tensor from another one, which is much larger.
fn distance(a: &candle_core::Tensor, b: &candle_core::Tensor) -> f64 {
    let wide = |x: &candle_core::Tensor| x.to_dtype(DType::F64).unwrap();
    let off = (wide(a) - wide(b)).unwrap().abs().unwrap();
    off.max_all().unwrap().to_scalar().unwrap()
}

fn check(case: &Path, name: &str, rows: &Path, models: &Path) {
    let oracle = json(&case.join("oracle.json"));
    let is_base = oracle["reference"]
        .as_str()
        .unwrap()
        .ends_with("adapter off");
    let reference = if is_base { "base" } else { "start" };
    let model = models.join(oracle["model"].as_str().unwrap());
    let quantization = match name.contains("qlora") {
        true => "quantization = \"nf4\"\n",
        false => "",
    };
    let (folder, records) = train(&format!(
        "[model]\nmodel_name_or_path = {model:?}\n{quantization}[adapter]\nfrom = {case:?}\nreference = \"{reference}\"\n\
         [data]\nformat = \"pairs\"\ntrain = {rows:?}\nshuffle = false\n[loss.dpo]\nbeta = 0.1\n\
         [batch]\nbatch_size = 4\n[optimizer]\nlearning_rate = 2e-3\n{TAIL}max_steps = 5\n"
    ));
    let steps = oracle["steps_f64"].as_array().unwrap();
    assert_eq!(records.len(), steps.len(), "{name}");
    for (record, step) in records.iter().zip(steps) {
        let of = |value: &Value, key: &str| value[key].as_f64().unwrap();
        let what = |key: &str| format!("{name}, step {}: {key}", record["step"]);
        close(of(record, "loss"), of(step, "loss"), 1e-5, &what("loss"));
        close(
            of(record, "grad_norm"),
            of(step, "grad_norm"),
            1e-4,
            &what("grad_norm"),
        );
        let rate = of(step, "learning_rate");
        close(
            of(record, "learning_rate"),
            rate,
            1e-12,
            &what("learning_rate"),
        );
    }
    assert_eq!(numbers(&records, "loss").len(), 5);
    let trained = folder.path().join("run/adapter_model.safetensors");
    let trained = candle_core::safetensors::load(trained, &Device::Cpu).unwrap();
    let wanted = candle_core::safetensors::load(case.join("oracle.safetensors"), &Device::Cpu);
    let wanted = wanted.unwrap();
    let apart = oracle["distances"]["final_f32_f64"].as_f64();
    // Of the quantized base no distance is given. Where a gradient is nearly 0, its rounding decides the
    // direction of Adam's step, which is 2e-3.
    let allowed = 10.0 * apart.unwrap_or(1e-4).max(1e-7);
    let mut compared = 0;
    for (key, want) in &wanted {
        let Some(key) = key.strip_prefix("final.") else {
            continue;
        };
        let got = trained
            .get(key)
            .unwrap_or_else(|| panic!("{name}: no {key}"));
        let off = distance(got, want);
        assert!(
            off <= allowed,
            "{name}: {key} is off by {off:e}, over {allowed:e}"
        );
        compared += 1;
    }
    assert_eq!(compared, trained.len(), "{name}");
}

#[test]
fn trajectories_of_adapters_are_those_of_peft() {
    let Some(root) = real_fixtures() else { return };
    let rows = root.join("oracle/hh8_explicit.jsonl");
    let cases = std::fs::read_dir(root.join("adapters")).unwrap();
    let mut compared = 0;
    for case in cases.map(|entry| entry.unwrap().path()) {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        if !case.join("oracle.json").is_file() {
            continue;
        }
        check(&case, &name, &rows, &root.join("models"));
        compared += 1;
    }
    assert!(compared > 0);
}
