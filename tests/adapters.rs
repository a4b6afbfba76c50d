//! Adapters that PEFT made on the project's own models (`scripts/make_adapter_oracle.py`): the layers
//! they have, their log-probs and gradients, and how PEFT reads what is written of them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use expo::loss::Role;
use expo::model::Decoder;
use expo::model::peft::{AdapterConfig, PeftFolder, config_json, peft_name};
use expo::model::weights::ModelFolder;
use serde_json::Value;

use crate::support::{fixture, json, pairs};

const PAIR: &[Role] = &[Role::Chosen, Role::Rejected];

/// An adapter of PEFT on its base.
struct Case {
    name: String,
    oracle: Value,
    /// The base, untouched.
    base: ModelFolder,
    peft: PeftFolder,
    model: Decoder,
}

fn cases() -> Vec<Case> {
    let entries = fs::read_dir(fixture("adapters")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let case = |path: &PathBuf| {
        let oracle = json(&path.join("oracle.json"));
        let base = ModelFolder::open(&fixture(oracle["model"].as_str().unwrap())).unwrap();
        let peft = PeftFolder::open(path).unwrap();
        let adapter = peft.adapter(&base.arch, base.layout()).unwrap();
        let with = base.clone().with_adapter(&adapter);
        let (mut model, _) = with.load(DType::F32, &Device::Cpu).unwrap();
        peft.load_into(model.weights_mut()).unwrap();
        Case {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            oracle,
            base,
            peft,
            model,
        }
    };
    paths.iter().map(case).collect()
}

impl Case {
    /// The config in the words of `[adapter]`.
    fn config(&self) -> AdapterConfig {
        let config: AdapterConfig = serde_json::from_value(self.oracle["adapter"].clone()).unwrap();
        config.validate().unwrap();
        config
    }

    fn log_probs(&self) -> Vec<Vec<f64>> {
        let pairs = self.oracle["log_probs"].as_array().unwrap().iter();
        let numbers = |pair: &Value| {
            let sides = pair.as_array().unwrap().iter();
            sides.map(|x| x.as_f64().unwrap()).collect()
        };
        pairs.map(numbers).collect()
    }
}

fn norm(x: &Tensor) -> f64 {
    let squares = x.to_dtype(DType::F64).unwrap().sqr().unwrap();
    let sum = squares.sum_all().unwrap();
    sum.to_scalar::<f64>().unwrap().sqrt()
}

#[test]
fn a_config_has_the_layers_that_peft_gives_it() {
    let cases = cases();
    assert!(cases.len() > 15);
    for case in cases {
        let config = case.config();
        let ours = config.resolve(&case.base.arch, case.base.layout());
        let ours = ours.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let theirs = case.peft.adapter(&case.base.arch, case.base.layout());
        assert_eq!(ours, theirs.unwrap(), "{}", case.name);
    }
}

#[test]
fn log_probs_and_gradients_are_those_of_peft() {
    for case in cases() {
        let oracle = json(&fixture(&format!(
            "oracle/{}.json",
            case.oracle["model"].as_str().unwrap()
        )));
        let want = case.log_probs();
        let examples = &pairs(&oracle)[..want.len()];
        let batch = case.model.pack(examples, PAIR);
        let mut gradients = case.model.gradients().unwrap();
        let slope = |i: usize, scores: &[expo::model::head::ResponseScore]| {
            for (score, want) in scores.iter().zip(&want[i]) {
                let error = (score.log_prob - want).abs() / want.abs();
                assert!(error < 3e-6, "{} pair {i}: {error:e}", case.name);
            }
            let margin = scores[0].log_prob - scores[1].log_prob;
            let slope = -0.1 / (1.0 + (0.1 * margin).exp()) / want.len() as f64;
            Ok(vec![slope, -slope])
        };
        case.model.step(&batch, slope, &mut gradients).unwrap();
        let file = case.peft.path.join("gradients.safetensors");
        let wanted = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let entries = &gradients.layout().entries;
        assert_eq!(entries.len(), wanted.len(), "{}", case.name);
        let total = wanted.values().map(|x| norm(x).powi(2)).sum::<f64>().sqrt();
        for (id, entry) in entries.iter().enumerate() {
            let want = &wanted[&peft_name(&entry.name)];
            let want = match entry.transposed {
                true => &want.t().unwrap().contiguous().unwrap(),
                false => want,
            };
            let got = gradients.view(id);
            let scale = norm(want).max(1e-3 * total);
            let error = norm(&(got - want).unwrap()) / scale;
            assert!(error < 3e-5, "{} {}: {error:e}", case.name, entry.name);
        }
    }
}

/// Writes the adapter of a case as a PEFT directory.
fn write(case: &Case, directory: &Path) {
    fs::create_dir(directory).unwrap();
    let params = case.model.weights();
    let adapter = params.layout().adapter.as_ref().unwrap();
    let base = case.oracle["model"].as_str().unwrap();
    let config = config_json(&case.config(), adapter, &case.base.arch, base, None).unwrap();
    fs::write(directory.join("adapter_config.json"), config.to_string()).unwrap();
    let entries = params.layout().entries.iter().enumerate();
    let tensor = |(id, name, transposed): (usize, &String, bool)| {
        let view = params.view(id);
        let view = match transposed {
            true => &view.t().unwrap().contiguous().unwrap(),
            false => view,
        };
        (peft_name(name), view.clone())
    };
    let trained = entries.filter(|(_, entry)| entry.trainable);
    let tensors: HashMap<String, Tensor> = trained
        .map(|(id, entry)| tensor((id, &entry.name, entry.transposed)))
        .collect();
    candle_core::safetensors::save(&tensors, directory.join("adapter_model.safetensors")).unwrap();
}

#[test]
fn peft_loads_what_is_written_with_the_same_log_probs() {
    let python = std::env::var("EXPO_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let run = |arguments: &[&str]| Command::new(&python).arg("-B").args(arguments).output();
    let found = run(&["-c", "import peft, torch, transformers"]);
    let there = found.is_ok_and(|output| output.status.success());
    let folder = tempfile::tempdir().unwrap();
    let cases = cases();
    let mut arguments = vec!["--check".to_owned()];
    for case in &cases {
        let directory = folder.path().join(&case.name);
        write(case, &directory);
        let again = PeftFolder::open(&directory).unwrap();
        let again = again.adapter(&case.base.arch, case.base.layout()).unwrap();
        let adapter = case.model.weights().layout().adapter.clone();
        assert_eq!(Some(again), adapter, "{}", case.name);
        arguments.push(directory.display().to_string());
    }
    if !there {
        eprintln!("skipped: {python} has no peft; EXPO_PYTHON names one that has");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make_adapter_oracle.py");
    let script = script.display().to_string();
    let arguments = [&[script], &arguments[..]].concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = run(&arguments).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let found: BTreeMap<String, Vec<Vec<f64>>> =
        serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for case in &cases {
        for (got, want) in found[&case.name]
            .iter()
            .flatten()
            .zip(case.log_probs().iter().flatten())
        {
            assert!(
                (got - want).abs() < 1e-9 * want.abs(),
                "{}: {got} {want}",
                case.name
            );
        }
    }
}
