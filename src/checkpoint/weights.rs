//! Weights as safetensors files: dtypes and shards.
//!
//! *Why*: a tensor is turned into bytes when it is its turn to be written, so that no second copy of
//! the model is made.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::str::FromStr;

use safetensors::tensor::{Dtype, View, serialize_to_file};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::write_json;
use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::model::parameters::{Buffer, Entry};

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

impl FromStr for SaveDtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::BF16),
            _ => Err(Error::input(format!("\"{name}\" is no dtype")).hint("f32, f16 or bf16")),
        }
    }
}

/// Writes the weights in `dtype`, in files of at most `shard_bytes` where a tensor is not larger.
pub(super) fn write_weights(
    model: &Decoder,
    folder: &Path,
    dtype: SaveDtype,
    shard_bytes: usize,
) -> Result<()> {
    let layout = model.weights().layout();
    let mut shards: Vec<Vec<(&str, Encoded)>> = vec![Vec::new()];
    let (mut filled, mut total) = (0, 0);
    for entry in &layout.entries {
        let values = model.weights().values(entry.range.clone())?;
        if !values.iter().all(|x| x.is_finite()) {
            return Err(Error::NonFinite(format!(
                "tensor {} holds NaN or infinity",
                entry.name
            )));
        }
        let peak = values.iter().fold(0f32, |peak, x| peak.max(x.abs()));
        if dtype == SaveDtype::F16 && peak > half::f16::MAX.to_f32() {
            return Err(Error::input(format!(
                "tensor {} reaches {peak}, too much for f16",
                entry.name
            ))
            .hint("set save_dtype to f32 or bf16"));
        }
        let encoded = Encoded {
            weights: model.weights(),
            entry,
            dtype,
        };
        let size = encoded.data_len();
        if filled > 0 && filled + size > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        total += size;
        if let Some(shard) = shards.last_mut() {
            shard.push((&entry.name, encoded));
        }
    }
    let count = shards.len();
    let mut weight_map = serde_json::Map::new();
    for (index, shard) in shards.into_iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        weight_map.extend(
            shard
                .iter()
                .map(|(tensor, _)| ((*tensor).to_owned(), json!(name))),
        );
        write_shard(&folder.join(name), shard)?;
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    Ok(())
}

fn write_shard(path: &Path, tensors: Vec<(&str, Encoded)>) -> Result<()> {
    // The crate makes its file private; a file of our own knows the permissions the user wants.
    let permissions = File::create(path)
        .and_then(|file| file.metadata())
        .map(|m| m.permissions());
    let permissions = permissions.map_err(|error| Error::io(path, &error))?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize_to_file(tensors, Some(metadata), path)
        .map_err(|error| Error::failed(format!("{}: {error}", path.display())))?;
    fs::set_permissions(path, permissions).map_err(|error| Error::io(path, &error))
}

/// A tensor that is turned into bytes when it is its turn to be written.
struct Encoded<'a> {
    weights: &'a Buffer,
    entry: &'a Entry,
    dtype: SaveDtype,
}

impl View for Encoded<'_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            SaveDtype::F32 => Dtype::F32,
            SaveDtype::F16 => Dtype::F16,
            SaveDtype::BF16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.entry.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.weights.values(self.entry.range.clone());
        let values = values.expect("they were read a moment ago");
        let bytes = match self.dtype {
            SaveDtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            SaveDtype::F16 => values
                .iter()
                .flat_map(|x| half::f16::from_f32(*x).to_le_bytes())
                .collect(),
            SaveDtype::BF16 => values
                .iter()
                .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
                .collect(),
        };
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.entry.range.len() * if self.dtype == SaveDtype::F32 { 4 } else { 2 }
    }
}
