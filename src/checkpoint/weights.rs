//! Weights as safetensors files: dtypes and shards.
//!
//! *Why*: a tensor is turned into bytes when it is its turn to be written, so that no second copy of
//! the model is made.

use std::str::FromStr;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::tensors::{self, Tensor};
use crate::error::{Error, Result};
use crate::io::durable::{Staging, json_text};
use crate::io::model_dir::{ADAPTER_WEIGHTS, INDEX, OtherTensors, WEIGHTS};
use crate::model::Decoder;
use crate::model::peft::peft_name;

/// Dtypes that weights are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaveDtype {
    /// As trained.
    #[default]
    F32,
    /// IEEE half precision; a weight over 65,504 is an error.
    F16,
    /// bfloat16.
    BF16,
}

impl SaveDtype {
    /// Bytes of a weight.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
        }
    }
}

impl FromStr for SaveDtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::BF16),
            _ => Err(Error::input(format!("\"{name}\" is not a dtype")).hint("f32, f16 or bf16")),
        }
    }
}

/// Refuses weights that `dtype` does not hold. That they are finite is seen when they are written.
pub fn check_weights(model: &Decoder, dtype: SaveDtype) -> Result<()> {
    if dtype != SaveDtype::F16 {
        return Ok(());
    }
    let layout = model.weights().layout();
    for entry in layout.saved() {
        let values = model.weights().read(layout.id(&entry.name))?;
        let peak = values.iter().fold(0f32, |peak, x| peak.max(x.abs()));
        if peak.is_finite() && peak > half::f16::MAX.to_f32() {
            return Err(Error::input(format!(
                "tensor {} reaches {peak}, too much for f16",
                entry.name
            ))
            .hint("set save_dtype to f32 or bf16"));
        }
    }
    Ok(())
}

/// Writes what an adapter trains in `dtype`, in PEFT's form.
pub(super) fn write_adapter(
    model: &Decoder,
    staging: &mut Staging,
    dtype: SaveDtype,
) -> Result<()> {
    let weights = model.weights();
    let tensors = weights
        .layout()
        .saved()
        .map(|entry| Tensor::stored(weights, entry, dtype.dtype()).named(peft_name(&entry.name)));
    let (tensors, path) = (tensors.collect(), staging.path().join(ADAPTER_WEIGHTS));
    staging.file(ADAPTER_WEIGHTS, |out| tensors::write(out, &path, tensors))
}

/// Writes the weights in `dtype` and tensors of other parts as they are, in files of at most `shard_bytes`
/// where a tensor is not larger.
pub(super) fn write_weights(
    model: &Decoder,
    others: &OtherTensors,
    staging: &mut Staging,
    dtype: SaveDtype,
    shard_bytes: usize,
) -> Result<()> {
    let weights = model.weights();
    let entries = weights.layout().entries.iter();
    let parameters = entries.map(|entry| Tensor::stored(weights, entry, dtype.dtype()));
    write_tensors(parameters, others, staging, shard_bytes)
}

/// As [`write_weights`], of these tensors.
pub(super) fn write_tensors<'a>(
    parameters: impl Iterator<Item = Tensor<'a>>,
    others: &'a OtherTensors,
    staging: &mut Staging,
    shard_bytes: usize,
) -> Result<()> {
    let mut shards: Vec<Vec<Tensor>> = vec![Vec::new()];
    let (mut filled, mut total) = (0, 0);
    let others = others.iter().map(|tensor| Tensor::other(others, tensor));
    for tensor in parameters.chain(others) {
        let size = tensor.bytes();
        if filled > 0 && filled + size > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        total += size;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    let count = shards.len();
    let mut weight_map = serde_json::Map::new();
    for (index, shard) in shards.into_iter().enumerate() {
        let name = match count {
            1 => WEIGHTS.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        let names = shard.iter().map(|tensor| tensor.name.clone());
        weight_map.extend(names.map(|tensor| (tensor, json!(name))));
        let path = staging.path().join(&name);
        staging.file(&name, |out| tensors::write(out, &path, shard))?;
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        staging.bytes(INDEX, json_text(&index)?.as_bytes())?;
    }
    Ok(())
}
