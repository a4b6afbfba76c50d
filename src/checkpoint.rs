//! Models in Hugging Face form and the checkpoints of a run, complete before they get their name.
//!
//! Hides temporary folders, manifests, shards and dtypes: a folder or file that has its final name is
//! whole and on the disk, and a folder says in its [`MANIFEST`] what it was written with.

mod checkpoints;
mod state;
mod tensors;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::io::durable::{MANIFEST, Staging, check_new, json_text, list, rename, sync};
use crate::model::Decoder;
use crate::model::arch::ConfigJson;

pub use self::checkpoints::{Checkpoints, checkpoint_step, sweep_up};
pub use self::state::{Snapshot, read_state, restore};
pub use self::weights::SaveDtype;
use self::weights::{check_weights, write_weights};

/// The largest shard, in bytes; transformers' own limit.
const SHARD_BYTES: usize = 5_000_000_000;

/// What transformers reads beside config and weights, besides the tokenizer's files.
pub const GENERATION_CONFIG: &str = "generation_config.json";

/// The files of a tokenizer; only the first is always there.
pub const TOKENIZER_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
];

/// Saves the model as the new folder `target`, with config and tokenizer files from `source`.
///
/// # Errors
/// As of [`create`].
pub fn save(model: &Decoder, source: &Path, target: &Path, dtype: SaveDtype) -> Result<()> {
    check_new(target)?;
    check_weights(model, dtype)?;
    let mut staging = Staging::beside(target)?;
    write_like(model, source, &mut staging, dtype)?;
    staging.seal()?;
    staging.settle(target)
}

/// Saves the model as the new folder `target`, with this `config.json`; `companions` writes what
/// else belongs there into the folder it is given.
///
/// # Errors
/// If `target` is there already, or a weight is not finite or does not fit `dtype`; nothing is left
/// behind.
pub fn create(
    model: &Decoder,
    config: Value,
    target: &Path,
    dtype: SaveDtype,
    companions: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    check_new(target)?;
    check_weights(model, dtype)?;
    let mut staging = Staging::beside(target)?;
    companions(staging.path())?;
    write_model(model, config, &mut staging, dtype, SHARD_BYTES)?;
    staging.adopt()?;
    staging.seal()?;
    staging.settle(target)
}

/// Removes the files of a model from a folder, `config.json` first, so that what is left of a model
/// is not taken for one.
pub fn remove_model(folder: &Path) -> Result<()> {
    let of_model = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let weights = name.starts_with("model") && name.contains(".safetensors");
        weights
            || name == MANIFEST
            || name == GENERATION_CONFIG
            || TOKENIZER_FILES.contains(&name.as_str())
    };
    let config = folder.join("config.json");
    let files = list(folder)?.into_iter().filter(of_model);
    for path in [config]
        .into_iter()
        .filter(|path| path.exists())
        .chain(files)
    {
        fs::remove_file(&path).map_err(|error| Error::io(&path, &error))?;
    }
    Ok(())
}

/// Saves the model into the folder `target`, which may hold other files but no model: weights get
/// their names first, then `config.json`, the manifest last.
pub fn export(model: &Decoder, source: &Path, target: &Path, dtype: SaveDtype) -> Result<()> {
    check_weights(model, dtype)?;
    let mut staging = Staging::beside(&target.join("final"))?;
    write_like(model, source, &mut staging, dtype)?;
    staging.seal()?;
    let rank = |path: &PathBuf| match path.file_name().and_then(|name| name.to_str()) {
        Some(MANIFEST) => 3,
        Some("config.json") => 2,
        Some(name) if name.ends_with(".safetensors") => 0,
        _ => 1,
    };
    let mut files = list(staging.path())?;
    files.sort_by_key(rank);
    for file in files {
        if let Some(name) = file.file_name() {
            rename(&file, &target.join(name))?;
        }
    }
    sync(target)
}

/// Writes the model as a copy of the model in `source` that has other weights.
fn write_like(
    model: &Decoder,
    source: &Path,
    staging: &mut Staging,
    dtype: SaveDtype,
) -> Result<()> {
    let names = TOKENIZER_FILES.iter().chain([&GENERATION_CONFIG]);
    names
        .map(|name| source.join(name))
        .filter(|from| from.is_file())
        .try_for_each(|from| staging.copy(&from))?;
    write_model(model, read_config(source)?, staging, dtype, SHARD_BYTES)
}

fn write_model(
    model: &Decoder,
    config: Value,
    staging: &mut Staging,
    dtype: SaveDtype,
    shard_bytes: usize,
) -> Result<()> {
    let config = json_text(&with_dtype(config, dtype))?;
    staging.bytes("config.json", config.as_bytes())?;
    write_weights(model, staging, dtype, shard_bytes)
}

fn read_config(source: &Path) -> Result<Value> {
    Ok(ConfigJson::open(&source.join("config.json"))?.value)
}

/// The config with the dtype that the weights now have.
fn with_dtype(mut config: Value, dtype: SaveDtype) -> Value {
    let name = match dtype {
        SaveDtype::F32 => "float32",
        SaveDtype::F16 => "float16",
        SaveDtype::BF16 => "bfloat16",
    };
    let key = if config.get("dtype").is_some() {
        "dtype"
    } else {
        "torch_dtype"
    };
    config[key] = name.into();
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::ModelFolder;
    use candle_core::{DType, Device};

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama")
    }

    #[test]
    fn shards_load_as_the_same_model() {
        let (model, hash) = ModelFolder::open(&fixture())
            .unwrap()
            .load(DType::F32, &Device::Cpu)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = read_config(&fixture()).unwrap();
        let mut staging = Staging::beside(&folder.path().join("model")).unwrap();
        write_model(&model, config, &mut staging, SaveDtype::F32, 20_000).unwrap();
        let index = staging.path().join("model.safetensors.index.json");
        assert!(index.is_file());
        let written = ModelFolder::open(staging.path()).unwrap();
        assert_eq!(written.content_hash().unwrap(), hash);
    }

    #[test]
    fn a_folder_that_is_there_is_not_touched_and_nothing_temporary_stays() {
        let (model, _) = ModelFolder::open(&fixture())
            .unwrap()
            .load(DType::F32, &Device::Cpu)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("checkpoint-1");
        save(&model, &fixture(), &target, SaveDtype::BF16).unwrap();
        assert!(save(&model, &fixture(), &target, SaveDtype::BF16).is_err());
        let config = fs::read_to_string(target.join("config.json")).unwrap();
        assert!(config.contains("\"bfloat16\""), "{config}");
        assert_eq!(list(folder.path()).unwrap(), [target]);
    }
}
