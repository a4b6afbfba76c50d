//! Models in Hugging Face form and the checkpoints of a run.
//!
//! Hides shards, dtypes and which files are copied: a directory that has its final name is complete and
//! on disk, and its [`MANIFEST`] has the hash of every file.

mod checkpoints;
mod state;
mod tensors;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::io::durable::{
    MANIFEST, Staging, check_new, create_parent, json_text, list, remove_file, rename, sync,
};
use crate::io::model_dir::{self, ADDITIONAL_TEMPLATES, ModelFiles, OtherTensors, companions_in};
use crate::model::Decoder;
use crate::model::arch::ConfigJson;
use crate::model::family::family;
use crate::model::parameters::Layout;

pub use self::checkpoints::{Checkpoints, removable_bytes, sweep_up};
pub use self::state::{REFERENCE, SMALL_FILES, Snapshot, read_state, restore};
use self::tensors::Tensor;
pub use self::tensors::Values;
pub use self::weights::{SaveDtype, check_weights};
use self::weights::{write_adapter, write_tensors, write_weights};

/// The largest shard, in bytes; transformers' own limit.
const SHARD_BYTES: usize = 5_000_000_000;

/// Saves the model as the new directory `target`, with the config and the companions of the model whose
/// `files` these are.
///
/// # Errors
/// As of [`create`].
pub fn save(model: &Decoder, files: &ModelFiles, target: &Path, dtype: SaveDtype) -> Result<()> {
    check_new(target)?;
    check_weights(model, dtype)?;
    create_parent(target)?;
    let mut staging = Staging::beside(target)?;
    write_like(model, files, &mut staging, dtype)?;
    staging.seal()?;
    staging.settle(target)
}

/// Saves the model as the new directory `target`, with this `config.json`; `companions` adds what else
/// belongs there.
///
/// # Errors
/// If `target` already exists, or a weight is not finite or does not fit `dtype`; nothing is left
/// behind.
pub fn create(
    model: &Decoder,
    config: Value,
    target: &Path,
    dtype: SaveDtype,
    companions: impl FnOnce(&mut Staging) -> Result<()>,
) -> Result<()> {
    check_new(target)?;
    check_weights(model, dtype)?;
    create_parent(target)?;
    let mut staging = Staging::beside(target)?;
    companions(&mut staging)?;
    let others = OtherTensors::default();
    write_model(model, &others, config, &mut staging, dtype, SHARD_BYTES)?;
    staging.seal()?;
    staging.settle(target)
}

/// Saves a model as the new directory `target` whose parameters lie in no buffer: `values` gives those of each
/// in turn. Config, companions and other tensors are those of `files`; `tied` is whether the head is the
/// embedding.
///
/// # Errors
/// As of [`create`].
pub fn create_from(
    (layout, tied): (&Layout, bool),
    files: &ModelFiles,
    target: &Path,
    dtype: SaveDtype,
    values: &Values,
) -> Result<()> {
    check_new(target)?;
    create_parent(target)?;
    let mut staging = Staging::beside(target)?;
    files.write_companions(&mut staging)?;
    write_config(config_of(files)?, tied, &mut staging, dtype)?;
    let entries = layout.entries.iter();
    let tensors = entries.map(|entry| Tensor::computed(entry, values, dtype.dtype()));
    write_tensors(tensors, files.other_tensors(), &mut staging, SHARD_BYTES)?;
    staging.seal()?;
    staging.settle(target)
}

/// Removes the files of a model from a directory, `config.json` first, so that what is left of a model
/// is not taken for one.
pub fn remove_model(folder: &Path) -> Result<()> {
    let of_model =
        |path: &PathBuf| is_weights(path) || path.file_name().is_some_and(|name| name == MANIFEST);
    remove_file(&folder.join(model_dir::CONFIG))?;
    remove_file(&folder.join(model_dir::ADAPTER_CONFIG))?;
    for path in list(folder)?.into_iter().filter(of_model) {
        remove_file(&path)?;
    }
    for name in companions_in(folder)? {
        remove_file(&folder.join(name))?;
    }
    // Stays if it holds anything else.
    let _ = fs::remove_dir(folder.join(ADDITIONAL_TEMPLATES));
    Ok(())
}

/// Whether a path is named like a file of a model's weights.
fn is_weights(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_model = name.starts_with("model") && name.contains(".safetensors");
    is_model || name == model_dir::ADAPTER_WEIGHTS
}

/// Saves the model into the directory `target`, which may hold other files but no model: weights get
/// their names first, then `config.json`, the manifest last.
pub fn export(model: &Decoder, files: &ModelFiles, target: &Path, dtype: SaveDtype) -> Result<()> {
    check_weights(model, dtype)?;
    let mut staging = Staging::beside(&target.join("final"))?;
    write_like(model, files, &mut staging, dtype)?;
    staging.seal()?;
    let rank = |path: &PathBuf| match path.file_name().and_then(|name| name.to_str()) {
        Some(MANIFEST) => 3,
        Some(model_dir::CONFIG | model_dir::ADAPTER_CONFIG) => 2,
        Some(name) if name.ends_with(".safetensors") => 0,
        _ => 1,
    };
    let mut files = list(staging.path())?;
    files.sort_by_key(rank);
    for file in files {
        let to = target.join(file.file_name().unwrap_or_default());
        if file.is_dir() && to.is_dir() {
            fs::remove_dir_all(&to).map_err(|error| Error::io(&to, &error))?;
        }
        rename(&file, &to)?;
    }
    sync(target)
}

/// Writes the model as a copy of the model whose `files` these are that has other weights; of one with an
/// adapter only that.
fn write_like(
    model: &Decoder,
    files: &ModelFiles,
    staging: &mut Staging,
    dtype: SaveDtype,
) -> Result<()> {
    files.write_companions(staging)?;
    if model.weights().layout().adapter.is_some() {
        let config = files.get(model_dir::ADAPTER_CONFIG);
        staging.bytes(model_dir::ADAPTER_CONFIG, config.bytes()?)?;
        return write_adapter(model, staging, dtype);
    }
    let (others, config) = (files.other_tensors(), config_of(files)?);
    write_model(model, others, config, staging, dtype, SHARD_BYTES)
}

fn write_model(
    model: &Decoder,
    others: &OtherTensors,
    config: Value,
    staging: &mut Staging,
    dtype: SaveDtype,
    shard_bytes: usize,
) -> Result<()> {
    write_config(config, model.architecture().tied, staging, dtype)?;
    write_weights(model, others, staging, dtype, shard_bytes)
}

fn write_config(config: Value, tied: bool, staging: &mut Staging, dtype: SaveDtype) -> Result<()> {
    let mut config = with_dtype(config, dtype);
    // A head of its own is one for every reader, also where the config that was loaded ties it, if only
    // by saying nothing.
    if !tied && ties(&config) {
        config["tie_word_embeddings"] = false.into();
    }
    staging.bytes(model_dir::CONFIG, json_text(&config)?.as_bytes())
}

/// Whether a config ties the head to the embedding.
fn ties(config: &Value) -> bool {
    let config = ConfigJson::from(config.clone());
    let tied = family(&config).and_then(|family| (family.architecture)(&config));
    tied.is_ok_and(|arch| arch.tied)
}

fn config_of(files: &ModelFiles) -> Result<Value> {
    files.get(model_dir::CONFIG).json_object()
}

/// The config with the dtype that the weights now have.
fn with_dtype(mut config: Value, dtype: SaveDtype) -> Value {
    let name = match dtype {
        SaveDtype::F32 => "float32",
        SaveDtype::F16 => "float16",
        SaveDtype::BF16 => "bfloat16",
    };
    let keys = ["dtype", "torch_dtype"];
    let there: Vec<&str> = keys
        .into_iter()
        .filter(|key| config.get(key).is_some())
        .collect();
    // Older versions of transformers know only the second one.
    let keys = if there.is_empty() { &keys[1..] } else { &there };
    for key in keys {
        config[*key] = name.into();
    }
    // Of a model of several parts.
    if let Some(text) = config.get_mut("text_config").and_then(Value::as_object_mut) {
        for key in ["dtype", "torch_dtype"] {
            if let Some(value) = text.get_mut(key) {
                *value = name.into();
            }
        }
    }
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
        let config = config_of(&ModelFiles::open(&fixture()).unwrap()).unwrap();
        let mut staging = Staging::beside(&folder.path().join("model")).unwrap();
        let others = OtherTensors::default();
        write_model(
            &model,
            &others,
            config,
            &mut staging,
            SaveDtype::F32,
            20_000,
        )
        .unwrap();
        let index = staging.path().join("model.safetensors.index.json");
        assert!(index.is_file());
        let written = ModelFolder::open(staging.path()).unwrap();
        assert_eq!(written.content_hash().unwrap(), hash);
    }

    #[test]
    fn tokenizer_files_and_chat_templates_are_copied_and_can_be_replaced() {
        let (model, _) = ModelFolder::open(&fixture())
            .unwrap()
            .load(DType::F32, &Device::Cpu)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("source"), folder.path().join("target"));
        let template = Path::new(ADDITIONAL_TEMPLATES).join("tool_use.jinja");
        fs::create_dir_all(source.join(ADDITIONAL_TEMPLATES)).unwrap();
        fs::create_dir(&target).unwrap();
        for name in [model_dir::CONFIG, model_dir::TOKENIZER] {
            fs::copy(fixture().join(name), source.join(name)).unwrap();
        }
        fs::write(source.join("merges.txt"), "merges").unwrap();
        fs::write(source.join(&template), "tools").unwrap();
        fs::write(source.join("notes.txt"), "not a model's").unwrap();
        let files = ModelFiles::open(&source).unwrap();
        // What was read is saved, whatever becomes of the directory.
        fs::remove_dir_all(&source).unwrap();
        for _ in 0..2 {
            export(&model, &files, &target, SaveDtype::F32).unwrap();
            crate::io::durable::verify(&target).unwrap();
        }
        assert_eq!(fs::read(target.join(&template)).unwrap(), b"tools");
        assert_eq!(fs::read(target.join("merges.txt")).unwrap(), b"merges");
        assert!(!target.join("notes.txt").exists());
        remove_model(&target).unwrap();
        assert_eq!(list(&target).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_folder_that_is_there_is_not_touched_and_nothing_temporary_stays() {
        let (model, _) = ModelFolder::open(&fixture())
            .unwrap()
            .load(DType::F32, &Device::Cpu)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("checkpoint-1");
        let files = ModelFiles::open(&fixture()).unwrap();
        save(&model, &files, &target, SaveDtype::BF16).unwrap();
        assert!(save(&model, &files, &target, SaveDtype::BF16).is_err());
        let config = fs::read_to_string(target.join("config.json")).unwrap();
        assert!(config.contains("\"bfloat16\""), "{config}");
        assert_eq!(list(folder.path()).unwrap(), [target]);
    }

    #[test]
    fn every_dtype_of_a_config_is_that_of_the_weights() {
        for (config, expected) in [
            (
                serde_json::json!({"dtype": "float32", "torch_dtype": "float16"}),
                serde_json::json!({"dtype": "bfloat16", "torch_dtype": "bfloat16"}),
            ),
            (
                serde_json::json!({"dtype": "float32"}),
                serde_json::json!({"dtype": "bfloat16"}),
            ),
            (
                serde_json::json!({}),
                serde_json::json!({"torch_dtype": "bfloat16"}),
            ),
        ] {
            assert_eq!(with_dtype(config, SaveDtype::BF16), expected);
        }
    }
}
