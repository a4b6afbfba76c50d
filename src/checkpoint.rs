//! Models in Hugging Face form, complete before they get their name.
//!
//! Hides temporary folders, shards and dtypes behind [`save`] and [`export`]: a folder or file that
//! has its final name is whole and on the disk.

mod weights;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::model::arch::ConfigJson;

pub use self::weights::SaveDtype;
use self::weights::write_weights;

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
/// If `target` is there already, or a weight does not fit `dtype`; nothing is left behind.
pub fn save(model: &Decoder, source: &Path, target: &Path, dtype: SaveDtype) -> Result<()> {
    let config = read_config(source)?;
    create(model, config, target, dtype, |folder| {
        copy_companions(source, folder)
    })
}

/// Saves the model as the new folder `target`, with this `config.json`; `companions` writes what
/// else belongs there into the folder it is given.
///
/// # Errors
/// As of [`save`].
pub fn create(
    model: &Decoder,
    config: Value,
    target: &Path,
    dtype: SaveDtype,
    companions: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    check_new(target)?;
    let staging = Staging::beside(target)?;
    companions(&staging.path)?;
    write_model(model, config, &staging.path, dtype, SHARD_BYTES)?;
    sync(&staging.path)?;
    // Goes only if it is empty, which not every system lets a rename replace.
    let _ = fs::remove_dir(target);
    rename(&staging.path, target)?;
    sync(parent(target))
}

/// Refuses a target that is there already and is not an empty folder.
pub fn check_new(target: &Path) -> Result<()> {
    let empty = || target.is_dir() && list(target).is_ok_and(|files| files.is_empty());
    if target.exists() && !empty() {
        return Err(Error::input("is there already")
            .at(target.display())
            .hint("name a new folder"));
    }
    Ok(())
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
        weights || name == GENERATION_CONFIG || TOKENIZER_FILES.contains(&name.as_str())
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
/// their names first, `config.json` last.
pub fn export(model: &Decoder, source: &Path, target: &Path, dtype: SaveDtype) -> Result<()> {
    let staging = Staging::beside(&target.join("final"))?;
    copy_companions(source, &staging.path)?;
    write_model(
        model,
        read_config(source)?,
        &staging.path,
        dtype,
        SHARD_BYTES,
    )?;
    let mut files = list(&staging.path)?;
    files.sort_by_key(|path| path.extension().is_none_or(|e| e != "safetensors"));
    files.sort_by_key(|path| path.file_name().is_some_and(|name| name == "config.json"));
    for file in files {
        if let Some(name) = file.file_name() {
            rename(&file, &target.join(name))?;
        }
    }
    sync(target)
}

/// Refuses the path of a file that cannot be made: a folder, or below something that is none.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::input("is a folder, not a file").at(path.display()));
    }
    match path.ancestors().skip(1).find(|above| above.exists()) {
        Some(above) if !above.is_dir() => Err(Error::input("is not a folder").at(above.display())),
        _ => Ok(()),
    }
}

/// Writes `contents` to `path` so that the name never holds half of it.
pub fn write_file(path: &Path, contents: &[u8]) -> Result<()> {
    let io = |error| Error::io(path, &error);
    write_with(path, |file| file.write_all(contents).map_err(io))
}

/// As [`write_file`], of what `write` writes bit by bit.
pub fn write_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let io = |error| Error::io(path, &error);
    let staging = Staging::beside(path)?;
    let file = staging.path.join("file");
    let mut writer = BufWriter::new(File::create(&file).map_err(io)?);
    write(&mut writer)?;
    writer.flush().map_err(io)?;
    sync(&file)?;
    rename(&file, path)
}

/// A folder `.tmp-…` beside the target that is gone when this value is.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn beside(target: &Path) -> Result<Self> {
        let name = target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let path = parent(target).join(format!(".tmp-{name}-{}", std::process::id()));
        // What a killed process of the same number left is worth nothing.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).map_err(|error| Error::io(&path, &error))?;
        Ok(Self { path })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| Error::io(to, &error))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |error: std::io::Error| Error::io(folder, &error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        paths.push(entry.map_err(io)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn sync(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io(path, &error))?;
    file.sync_all().map_err(|error| Error::io(path, &error))
}

fn copy_companions(source: &Path, folder: &Path) -> Result<()> {
    let names = TOKENIZER_FILES.iter().chain([&GENERATION_CONFIG]);
    names
        .map(|name| source.join(name))
        .filter(|from| from.is_file())
        .try_for_each(|from| copy(&from, folder))
}

/// Copies a file into a folder under its own name.
pub fn copy(from: &Path, folder: &Path) -> Result<()> {
    let to = folder.join(from.file_name().unwrap_or_default());
    fs::copy(from, to).map_err(|error| Error::io(from, &error))?;
    Ok(())
}

fn write_model(
    model: &Decoder,
    config: Value,
    folder: &Path,
    dtype: SaveDtype,
    shard_bytes: usize,
) -> Result<()> {
    write_json(&folder.join("config.json"), &with_dtype(config, dtype))?;
    write_weights(model, folder, dtype, shard_bytes)?;
    list(folder)?.iter().try_for_each(|file| sync(file))
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

/// Writes indented JSON.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Error::failed(e.to_string()))? + "\n";
    fs::write(path, text).map_err(|error| Error::io(path, &error))
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
        write_model(&model, config, folder.path(), SaveDtype::F32, 20_000).unwrap();
        assert!(folder.path().join("model.safetensors.index.json").is_file());
        assert_eq!(
            ModelFolder::open(folder.path())
                .unwrap()
                .content_hash()
                .unwrap(),
            hash
        );
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
