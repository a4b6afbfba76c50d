mod folder;
mod resolve;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Value, json};

use super::*;
use crate::error::Result;
use crate::io::model_dir::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use crate::model::adapter::Adapter;
use crate::model::arch::Architecture;
use crate::model::parameters::{Entry, Layout, Params};
use crate::model::weights::ModelFolder;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn model(name: &str) -> (Architecture, Layout) {
    let folder = ModelFolder::open(&fixture(name)).unwrap();
    let layout = folder.layout().clone();
    (folder.arch, layout)
}

fn config(text: &str) -> AdapterConfig {
    toml::from_str(text).unwrap()
}

fn resolved(name: &str, text: &str) -> Result<Adapter> {
    let config = config(text);
    config.validate()?;
    let (arch, layout) = model(name);
    config.resolve(&arch, &layout)
}

/// The layers of an adapter, each with its rank and scale.
fn layers(adapter: &Adapter) -> Vec<String> {
    let layers = adapter.layers.iter();
    layers
        .map(|l| format!("{} {} {}", l.layer, l.rank, l.scale))
        .collect()
}

/// The parameters of a model with an adapter, all zeros.
fn zeros(name: &str, adapter: &Adapter) -> Params {
    let folder = ModelFolder::open(&fixture(name)).unwrap();
    let layout = folder.with_adapter(adapter).layout().clone();
    Params::zeros(Arc::new(layout), DType::F32, &Device::Cpu).unwrap()
}

/// What a PEFT directory has of a layout.
fn trained(layout: &Layout) -> Vec<Entry> {
    layout.trainable().entries
}

/// Writes a PEFT directory whose values count up from 0.
fn write(directory: &Path, config: &Value, entries: &[Entry]) {
    fs::write(directory.join(ADAPTER_CONFIG), config.to_string()).unwrap();
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = entries
        .iter()
        .map(|entry| {
            let values = entry.range.clone().flat_map(|i| (i as f32).to_le_bytes());
            (
                peft_name(&entry.name),
                entry.stored_shape(),
                values.collect(),
            )
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    serialize_to_file(views, None, &directory.join(ADAPTER_WEIGHTS)).unwrap();
}
