//! Directories that bitsandbytes and transformers wrote.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use expo::kernels::quantized::Format;
use expo::model::weights::ModelFolder;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};

use super::{log_probs, nf4, values};
use crate::support::{fixture, json as read_json, pairs};

const CASES: [(&str, bool); 2] = [("llama", true), ("neox", false)];
const STATE: &str = "quant_state.bitsandbytes__nf4";

#[test]
fn a_directory_of_bitsandbytes_has_the_bits_that_expo_quantizes_to() {
    for (name, double) in CASES {
        let theirs = ModelFolder::open(&fixture("nf4").join(name)).unwrap();
        assert!(theirs.is_quantized());
        let (theirs_model, hash) = theirs.load(DType::F32, &Device::Cpu).unwrap();
        assert_eq!(theirs.content_hash().unwrap(), hash);
        let ours = ModelFolder::open(&fixture(name)).unwrap();
        let (_, plain) = ours.load(DType::F32, &Device::Cpu).unwrap();
        let ours = ours.quantized(nf4(double)).unwrap();
        let (ours_model, other) = ours.load(DType::F32, &Device::Cpu).unwrap();
        assert_eq!(ours.content_hash().unwrap(), other);
        assert!(hash != other && plain != other);
        let scale = |bits: &[u32]| {
            bits.iter()
                .fold(0f32, |most, &x| most.max(f32::from_bits(x).abs()))
        };
        for (theirs, ours) in values(&theirs_model).iter().zip(&values(&ours_model)) {
            // Of double quantization torch adds up the mean otherwise, and a scale's code may be the next one.
            let tolerance = if double { 0.02 * scale(theirs) } else { 0.0 };
            for (theirs, ours) in theirs.iter().zip(ours) {
                let apart = f32::from_bits(*theirs) - f32::from_bits(*ours);
                assert!(apart.abs() <= tolerance, "{name}: {apart}");
            }
        }
        let oracle = read_json(&fixture("nf4").join(name).join("nf4.json"));
        let pairs = pairs(&read_json(&fixture(&format!("oracle/{name}.json"))));
        let wanted: Vec<f64> = oracle["log_probs"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|pair| pair.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()))
            .collect();
        let got = log_probs(&theirs_model, &pairs);
        assert_eq!(got.len(), wanted.len());
        for (got, want) in got.iter().zip(&wanted) {
            assert!(
                (got - want).abs() < 1e-6 * want.abs(),
                "{name}: {got} {want}"
            );
        }
        assert!(
            theirs
                .clone()
                .quantized(nf4(true))
                .unwrap()
                .content_hash()
                .unwrap()
                == hash
        );
        let said = theirs.quantized(Format::Q8_0).unwrap_err().to_string();
        assert!(
            said.contains("the model's weights are nf4 already"),
            "{said}"
        );
    }
}

#[test]
fn quantized_weights_are_not_trained_themselves() {
    let theirs = ModelFolder::open(&fixture("nf4/llama")).unwrap();
    let ours = ModelFolder::open(&fixture("llama")).unwrap();
    assert!(ours.check_trains().is_ok());
    for folder in [theirs, ours.quantized(Format::Q8_0).unwrap()] {
        let said = folder.check_trains().unwrap_err().to_string();
        assert!(
            said.contains("full fine-tuning of a quantized model"),
            "{said}"
        );
        let select = |pattern: &str| folder.clone().with_trainable(&[pattern.into()]);
        let said = select("*.mlp.*").unwrap_err().to_string();
        assert!(said.contains("mlp.down_proj.weight is quantized"), "{said}");
        assert!(select("model.norm.weight").is_ok());
    }
}

#[test]
fn what_bitsandbytes_quantizes_otherwise_is_refused_by_name() {
    let with = |quantization: Value| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = read_json(&fixture("nf4/llama/config.json"));
        config["quantization_config"] = quantization;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        ModelFolder::open(folder.path()).unwrap_err().to_string()
    };
    for (quantization, words) in [
        (
            json!({"quant_method": "gptq", "bits": 4}),
            "quantized weights of gptq",
        ),
        (
            json!({"quant_method": "awq", "bits": 4}),
            "quantized weights of awq",
        ),
        (
            json!({"quant_method": "bitsandbytes", "load_in_8bit": true}),
            "bitsandbytes' int8",
        ),
        (json!({"load_in_4bit": true}), "bitsandbytes' fp4"),
    ] {
        let said = with(quantization);
        assert!(said.contains(words) && said.contains("nf4"), "{said}");
    }
}

#[test]
fn damaged_parts_are_refused() {
    let weight = "model.layers.0.mlp.down_proj.weight";
    let part = |name: &str| format!("{weight}.{name}");
    let state = |change: fn(&mut Value)| {
        move |bytes: &mut Vec<u8>| {
            let mut state: Value = serde_json::from_slice(bytes).unwrap();
            change(&mut state);
            *bytes = state.to_string().into_bytes();
        }
    };
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let cases: [(String, Change, &str); 9] = [
        (
            part(STATE),
            Box::new(state(|state| state["blocksize"] = 128.into())),
            "expo reads bitsandbytes' NF4 with blocks of 64",
        ),
        (
            part(STATE),
            Box::new(state(|state| state["nested_blocksize"] = 128.into())),
            "nested blocks of 256",
        ),
        (
            part(STATE),
            Box::new(state(|state| state["quant_type"] = "fp4".into())),
            "`quant_type` = \"fp4\"",
        ),
        (
            part(STATE),
            Box::new(state(|state| state["shape"] = json!([40, 24]))),
            "config.json makes it [24, 40]",
        ),
        (
            part(STATE),
            Box::new(state(|state| state["nested_offset"] = Value::Null)),
            "has no `nested_offset`",
        ),
        (part(STATE), Box::new(|bytes| bytes.clear()), STATE),
        (
            part("absmax"),
            Box::new(|bytes| bytes.truncate(3)),
            "absmax has 3 bytes instead of 15",
        ),
        (
            part("quant_map"),
            Box::new(|bytes| bytes[3] = 0x7f),
            "infinity",
        ),
        (
            weight.into(),
            Box::new(|bytes| {
                bytes.pop();
            }),
            "has 479 bytes instead of 480",
        ),
    ];
    for (name, change, words) in cases {
        let folder = changed(&|tensor, bytes| {
            if tensor == name {
                change(bytes);
            }
            true
        });
        let said = refused(folder.path());
        assert!(
            said.contains(words) && said.contains(weight),
            "{name}: {said}"
        );
    }
    for missing in ["absmax", "nested_quant_map", STATE] {
        let folder = changed(&|tensor, _| tensor != part(missing));
        let said = refused(folder.path());
        assert!(
            said.contains(&format!("{} is missing", part(missing))),
            "{said}"
        );
    }
}

/// Why a directory is not loaded.
fn refused(folder: &Path) -> String {
    let loaded = ModelFolder::open(folder).and_then(|folder| folder.load(DType::F32, &Device::Cpu));
    loaded.expect_err("a damaged model").to_string()
}

/// A copy of a fixture with other bytes, without those tensors that `change` leaves out.
fn changed(change: &dyn Fn(&str, &mut Vec<u8>) -> bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = fixture("nf4/llama");
    fs::copy(from.join("config.json"), folder.path().join("config.json")).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let mut kept = Vec::new();
    for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let mut data = tensor.data().to_vec();
        if change(&name, &mut data) {
            let shape = match data.len() == tensor.data().len() {
                true => tensor.shape().to_vec(),
                false => vec![data.len() / if tensor.dtype() == Dtype::F32 { 4 } else { 1 }],
            };
            kept.push((name, tensor.dtype(), shape, data));
        }
    }
    let views = kept.iter().map(|(name, dtype, shape, data)| {
        (
            name.as_str(),
            TensorView::new(*dtype, shape.clone(), data).unwrap(),
        )
    });
    let written = serialize(views, None).unwrap();
    fs::write(folder.path().join("model.safetensors"), written).unwrap();
    folder
}
