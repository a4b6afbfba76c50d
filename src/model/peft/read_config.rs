//! Reading of `adapter_config.json`.
//!
//! *Why*: PEFT has more kinds of adapters every year, under one `peft_type`. A key that is not known here
//! and is set to anything is refused: it may change what the tensors mean.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::config::{AdapterConfig, Init};
use super::pattern::Targets;
use crate::error::{Error, Result};
use crate::io::untrusted;

/// What the file says.
pub(super) struct ReadConfig {
    pub config: AdapterConfig,
    pub base: Option<String>,
    pub revision: Option<String>,
}

/// Keys that decide nothing once an adapter has its values.
const IGNORED: [&str; 12] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
];

/// Keys that must be off, and what to do else.
const OFF: [(&str, &str); 13] = [
    (
        "alora_invocation_tokens",
        "expo has no activated LoRA (aLoRA)",
    ),
    ("arrow_config", "expo does not route between adapters"),
    (
        "ensure_weight_tying",
        "expo trains an embedding and a head that are tied only without an adapter",
    ),
    ("kasa_config", "expo has no KaSA"),
    (
        "layer_replication",
        "merge the adapter in PEFT, and go on from the whole model",
    ),
    (
        "lora_bias",
        "expo has no adapters with a bias; merge the adapter in PEFT",
    ),
    ("megatron_config", "expo reads models of transformers"),
    ("monteclora_config", "expo has no MonteCLoRA"),
    ("target_parameters", "expo has no adapters of experts"),
    (
        "trainable_token_indices",
        "expo does not train single tokens; merge the adapter in PEFT",
    ),
    ("use_bdlora", "expo has no block-diagonal LoRA"),
    ("use_qalora", "expo has no QALoRA"),
    ("velora_config", "expo has no VeLoRA"),
];

/// Reads the config of a LoRA adapter of a causal language model.
pub(super) fn read(path: &Path) -> Result<ReadConfig> {
    let Value::Object(object) = untrusted::json_object(path, untrusted::CONFIG)? else {
        return Err(Error::input("not a JSON object").at(path.display()));
    };
    parse(object).map_err(|error| error.at(path.display()))
}

fn parse(object: Map<String, Value>) -> Result<ReadConfig> {
    let mut keys = Keys(object);
    keys.one_of(
        "peft_type",
        &["LORA"],
        "expo has LoRA adapters, with rsLoRA and DoRA",
    )?;
    keys.0
        .remove("task_type")
        .map_or(Ok(()), |task| match task {
            Value::Null => Ok(()),
            task if task == "CAUSAL_LM" => Ok(()),
            task => Err(Error::input(format!("task_type is {task}")).hint("expo reads CAUSAL_LM")),
        })?;
    for (key, hint) in OFF {
        keys.off(key, hint)?;
    }
    let init = init(keys.0.remove("init_lora_weights"))?;
    match keys.0.remove("bias") {
        None | Some(Value::Null) => {}
        Some(bias) if bias == "none" => {}
        Some(bias) => {
            return Err(Error::input(format!("bias is {bias}"))
                .hint("expo trains no biases beside an adapter; merge the adapter in PEFT"));
        }
    }
    let patterns: Targets = keys
        .take("layers_pattern")?
        .unwrap_or(Targets::List(Vec::new()));
    let patterns = match patterns {
        Targets::One(pattern) => vec![pattern],
        Targets::List(patterns) => patterns,
    };
    if let Some(pattern) = patterns
        .iter()
        .find(|p| !["layers", "h"].contains(&p.as_str()))
    {
        return Err(Error::input(format!("layers_pattern is \"{pattern}\""))
            .hint("the layers of the families that expo reads are in \"layers\" or \"h\""));
    }
    let targets: Option<Targets> = keys.take("target_modules")?;
    let targets = targets.ok_or_else(|| {
        Error::input("target_modules is not set")
            .hint("PEFT writes the names that it chose; set them to those in the file of tensors")
    })?;
    let config = AdapterConfig {
        r: Some(keys.take("r")?.unwrap_or(8)),
        alpha: Some(keys.take("lora_alpha")?.unwrap_or(8.0)),
        target_modules: Some(targets),
        exclude_modules: keys
            .take("exclude_modules")?
            .filter(|e| *e != Targets::List(Vec::new())),
        rank_pattern: keys.take("rank_pattern")?.unwrap_or_default(),
        alpha_pattern: keys.take("alpha_pattern")?.unwrap_or_default(),
        layers_to_transform: keys
            .take("layers_to_transform")?
            .filter(|layers| *layers != super::Layers::List(Vec::new())),
        dropout: Some(keys.take("lora_dropout")?.unwrap_or(0.0)),
        use_rslora: keys.take("use_rslora")?.unwrap_or(false),
        use_dora: keys.take("use_dora")?.unwrap_or(false),
        init,
        modules_to_save: keys.take("modules_to_save")?.unwrap_or_default(),
        from: None,
        reference: None,
    };
    config.validate()?;
    let base = keys.take("base_model_name_or_path")?;
    let revision = keys.take("revision")?;
    keys.nothing_left()?;
    Ok(ReadConfig {
        config,
        base,
        revision,
    })
}

/// How A was drawn, as far as the base model's weights were left as they are.
fn init(value: Option<Value>) -> Result<Init> {
    match value {
        None | Some(Value::Null | Value::Bool(_)) => Ok(Init::Default),
        Some(value) if value == "gaussian" => Ok(Init::Gaussian),
        Some(value) if value == "orthogonal" => Ok(Init::Default),
        Some(value) => Err(Error::input(format!("init_lora_weights is {value}")).hint(
            "PEFT changes the base model's weights for it on every load; convert the adapter in PEFT: \
             save_pretrained with path_initial_model_for_weight_conversion",
        )),
    }
}

/// The keys that are yet to be read.
struct Keys(Map<String, Value>);

impl Keys {
    /// The value of a key, `None` for null.
    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        let value = self.0.remove(key).unwrap_or(Value::Null);
        let read = serde_json::from_value(value);
        read.map_err(|error| Error::input(format!("{key}: {error}")))
    }

    fn one_of(&mut self, key: &str, valid: &[&str], hint: &str) -> Result<()> {
        match self.0.get(key) {
            Some(value) if valid.iter().any(|valid| value == valid) => Ok(()),
            Some(value) => Err(Error::input(format!("{key} is {value}")).hint(hint)),
            None => Err(Error::input(format!("{key} is not set")).hint(hint)),
        }
    }

    fn off(&mut self, key: &str, hint: &str) -> Result<()> {
        match self.0.remove(key).filter(acts) {
            Some(value) => Err(Error::input(format!("{key} is {value}")).hint(hint)),
            None => Ok(()),
        }
    }

    fn nothing_left(&self) -> Result<()> {
        let mut left = self.0.iter();
        let left = left.find(|(key, value)| acts(value) && !IGNORED.contains(&key.as_str()));
        match left {
            Some((key, value)) => Err(Error::input(format!("{key} is {value}"))
                .hint("expo does not know this key, and cannot tell what it does to the adapter")),
            None => Ok(()),
        }
    }
}

/// Whether a value sets anything.
fn acts(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
