//! `adapter_config.json`, as PEFT loads it.
//!
//! *Why* names resolved: which layers there are depends on transformers' version, on shorthands and
//! spellings. What is written selects the layers of the adapter and no others, by the shortest ends of
//! names that do so.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::config::{AdapterConfig, Init};
use super::modules::{Modules, module};
use super::names::in_memory;
use super::pattern::Table;

use crate::error::Result;
use crate::model::adapter::{Adapter, LowRank};
use crate::model::arch::Architecture;
use crate::model::parameters::Layout;

/// The `adapter_config.json` of `adapter`, which is `config` on a model of this architecture; `base` and
/// `revision` say where that model is.
///
/// # Errors
/// If a pattern of `config` cannot be read.
pub fn config_json(
    config: &AdapterConfig,
    adapter: &Adapter,
    arch: &Architecture,
    base: &str,
    revision: Option<&str>,
) -> Result<Value> {
    let modules = Modules::of(arch, &Layout::new(arch));
    let ends = Ends::new(&modules, arch);
    let alphas = Table::new(&config.alpha_pattern)?;
    let alpha = |layer: &LowRank| {
        let found = alphas.get(&[&in_memory(&layer.layer), &layer.layer]);
        found.unwrap_or_else(|| config.alpha())
    };
    let named = |wanted: &mut dyn Iterator<Item = &LowRank>| {
        ends.of(wanted.map(|layer| in_memory(&layer.layer)).collect())
    };
    let mut ranks = Map::new();
    for layer in &adapter.layers {
        if layer.rank != config.rank() && !ranks.values().any(|rank| *rank == layer.rank) {
            let mut alike = adapter
                .layers
                .iter()
                .filter(|other| other.rank == layer.rank);
            ranks.extend(
                named(&mut alike)
                    .into_iter()
                    .map(|end| (end, layer.rank.into())),
            );
        }
    }
    let mut alpha_pattern = Map::new();
    for layer in &adapter.layers {
        let value = alpha(layer);
        if value != config.alpha() && !alpha_pattern.values().any(|other| *other == number(value)) {
            let mut alike = adapter.layers.iter().filter(|other| alpha(other) == value);
            let alike = named(&mut alike).into_iter();
            alpha_pattern.extend(alike.map(|end| (end, number(value))));
        }
    }
    let saved = adapter.saved.iter();
    let saved = saved
        .map(|parameter| in_memory(module(parameter)))
        .collect();
    let saved = ends.of(saved);
    Ok(json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": true,
        "r": config.rank(),
        "lora_alpha": number(config.alpha()),
        "lora_dropout": adapter.dropout,
        "target_modules": named(&mut adapter.layers.iter()),
        "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
        "rank_pattern": ranks,
        "alpha_pattern": alpha_pattern,
        "layers_to_transform": null,
        "layers_pattern": null,
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "init_lora_weights": match config.init {
            Init::Default => json!(true),
            Init::Gaussian => json!("gaussian"),
        },
        "bias": "none",
        "fan_in_fan_out": arch.conv1d,
    }))
}

/// Whole numbers without a fraction: other readers of these files take an integer.
fn number(x: f64) -> Value {
    match x.fract() == 0.0 && x.abs() < 2f64.powi(53) {
        true => json!(x as i64),
        false => json!(x),
    }
}

/// Ends of module names.
struct Ends {
    /// All modules, those that contain others too.
    names: BTreeSet<String>,
    /// Whether only whole names are safe, for there are modules that expo does not know.
    whole: bool,
}

impl Ends {
    fn new(modules: &Modules, arch: &Architecture) -> Self {
        let mut names = BTreeSet::new();
        for name in modules.names() {
            let ancestors = name.match_indices('.').map(|(at, _)| &name[..at]);
            names.extend(ancestors.chain([name]).map(str::to_owned));
        }
        Self {
            names,
            // Beside a vision tower.
            whole: arch.names.block.contains("language_model."),
        }
    }

    /// The shortest ends, from a dot on, that `wanted` have and no other module has.
    fn of(&self, wanted: BTreeSet<String>) -> BTreeSet<String> {
        let unwanted: Vec<&String> = self.names.difference(&wanted).collect();
        // `modules_to_save` does not ask for a dot in front.
        let alone = |end: &str| !unwanted.iter().any(|name| name.ends_with(end));
        let shortest = |name: &String| {
            let starts = name.rmatch_indices('.').map(|(at, _)| at + 1).chain([0]);
            let mut ends = starts.map(|start| &name[start..]);
            let end = ends.find(|end| !self.whole && alone(end));
            end.unwrap_or(name).to_owned()
        };
        wanted.iter().map(shortest).collect()
    }
}
