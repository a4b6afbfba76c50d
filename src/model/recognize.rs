//! What a directory or a file is that was given as a model and is none.
//!
//! *Why*: an adapter, a GGUF file, pickled weights and the directory of a run that was interrupted are all
//! called models by somebody. Each needs another next step.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Error;
use crate::io::durable::list;
use crate::io::model_dir::{CONFIG, INDEX, WEIGHTS};
use crate::io::untrusted;
use crate::run_dir::{RUN, checkpoint_name, checkpoint_step};

/// The file of a PEFT adapter.
const ADAPTER: &str = "adapter_config.json";
/// Endings of weights that only their own program's code can read.
const PICKLED: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// The error of a directory without a `config.json`; `None` where there is nothing better to say than that
/// the file is missing.
pub fn without_config(directory: &Path) -> Option<Error> {
    let entries = list(directory).ok()?;
    let is_there = |name: &str| directory.join(name).is_file();
    let error = if is_there(ADAPTER) {
        adapter(directory)
    } else if is_there(RUN) {
        run(directory, &entries)
    } else {
        let model = entries.iter().find_map(|path| nested(path));
        match model {
            Some(model) => Error::input("has no config.json, and is not itself a model")
                .hint(format!("did you mean {}?", model.display())),
            None => weights(&entries)?,
        }
    };
    Some(error.at(directory.display()))
}

/// The error of a directory without weights that are read; `None` where it has none of any kind.
pub fn without_weights(directory: &Path) -> Option<Error> {
    let entries = list(directory).ok()?;
    let is_there = |name: &str| directory.join(name).is_file();
    let error = match is_there(ADAPTER) {
        true => adapter(directory),
        false => weights(&entries)?,
    };
    Some(error.at(directory.display()))
}

/// The error of a file in the place of a model's directory.
pub fn file(path: &Path) -> Error {
    let error = match ending(path).as_str() {
        "safetensors" => Error::input("a file of weights, where a model directory is needed")
            .hint("name its directory, which has config.json and tokenizer.json, too"),
        _ => weights(&[path.to_owned()])
            .unwrap_or_else(|| Error::input("a file, where a model directory is needed")),
    };
    error.at(path.display())
}

fn adapter(directory: &Path) -> Error {
    let config = untrusted::json_object(&directory.join(ADAPTER), untrusted::CONFIG);
    let base = config.ok().and_then(|config| {
        let name = config
            .get("base_model_name_or_path")
            .and_then(Value::as_str);
        name.map(|name| format!(" of {name}"))
    });
    let base = base.unwrap_or_default();
    Error::input(format!("is a PEFT (LoRA) adapter{base}, not a whole model"))
        .hint("merge it into its base model, and name the merged one")
}

fn run(directory: &Path, entries: &[PathBuf]) -> Error {
    let whole = entries.iter().filter(|path| path.join(CONFIG).is_file());
    let newest = whole.filter_map(|path| checkpoint_step(path)).max();
    let error = Error::input("is the directory of a run without a final model");
    match newest {
        Some(step) => error.hint(format!(
            "name its newest checkpoint, {}",
            directory.join(checkpoint_name(step)).display()
        )),
        None => error.hint("the run is not finished, and has no checkpoint yet"),
    }
}

/// The model in a directory of the hub's cache, or one level below.
fn nested(path: &Path) -> Option<PathBuf> {
    let is_model = |path: &Path| path.join(CONFIG).is_file();
    match path.file_name()?.to_str()? {
        "snapshots" => list(path).ok()?.into_iter().find(|path| is_model(path)),
        _ => is_model(path).then(|| path.to_owned()),
    }
}

/// Weights of another kind.
fn weights(entries: &[PathBuf]) -> Option<Error> {
    let is_whole = |path: &PathBuf| path.ends_with(WEIGHTS) || path.ends_with(INDEX);
    if entries.iter().any(is_whole) {
        return None;
    }
    let with = |endings: &[&str]| {
        let mut found = entries.iter();
        let found = found.find(|path| endings.contains(&ending(path).as_str()))?;
        Some(found.file_name()?.to_string_lossy().into_owned())
    };
    const ORIGINAL: &str = "expo reads a Hugging Face directory with config.json, tokenizer.json and \
                            safetensors: name the model that this one was made from";
    if let Some(name) = with(&["gguf", "ggml"]) {
        return Some(
            Error::input(format!("{name} is a GGUF model, which is not read")).hint(ORIGINAL),
        );
    }
    if let Some(name) = with(&PICKLED) {
        return Some(
            Error::input(format!("{name} is pickled weights, which are not read")).hint(
                "load the model in transformers and save it with save_pretrained, as safetensors",
            ),
        );
    }
    let name = with(&["safetensors"])?;
    Some(
        Error::input(format!("has {name}, but no {WEIGHTS} and no {INDEX}"))
            .hint("download the whole model, with its index and config.json"),
    )
}

fn ending(path: &Path) -> String {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn said(files: &[(&str, &str)], of: fn(&Path) -> Option<Error>) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        let text = of(folder.path())?.to_string();
        Some(text.replace(&folder.path().display().to_string(), "DIR"))
    }

    #[test]
    fn what_is_no_model_is_called_by_its_name() {
        let adapter = (ADAPTER, "{\"base_model_name_or_path\": \"owner/base\"}");
        for (files, words) in [
            (
                &[adapter][..],
                "DIR: is a PEFT (LoRA) adapter of owner/base, not a whole model; merge it",
            ),
            (
                &[("adapter_config.json", "?")],
                "DIR: is a PEFT (LoRA) adapter, not",
            ),
            (&[("a.gguf", "")], "DIR: a.gguf is a GGUF model"),
            (
                &[("pytorch_model.bin", "")],
                "DIR: pytorch_model.bin is pickled weights",
            ),
            (
                &[("consolidated.00.pth", "")],
                "DIR: consolidated.00.pth is pickled weights",
            ),
            (
                &[("part.safetensors", "")],
                "DIR: has part.safetensors, but no model.safetensors",
            ),
            (
                &[
                    ("run.json", ""),
                    ("checkpoint-20/config.json", "{}"),
                    ("checkpoint-21/x", ""),
                    ("checkpoint-3/config.json", "{}"),
                ],
                "DIR: is the directory of a run without a final model; name its newest checkpoint, DIR/checkpoint-20",
            ),
            (
                &[("run.json", "")],
                "DIR: is the directory of a run without a final model; the run is not finished",
            ),
            (
                &[("final/config.json", "{}")],
                "DIR: has no config.json, and is not itself a model; did you mean DIR/final?",
            ),
            (
                &[("snapshots/0af/config.json", "{}")],
                "DIR: has no config.json, and is not itself a model; did you mean DIR/snapshots/0af?",
            ),
        ] {
            let message = said(files, without_config).unwrap();
            assert!(message.starts_with(words), "{message}");
        }
        assert_eq!(said(&[("notes.txt", "")], without_config), None);
        assert_eq!(said(&[("config.json", "{}")], without_weights), None);
        let pickled = [("config.json", "{}"), ("pytorch_model.bin", "")];
        let message = said(&pickled, without_weights).unwrap();
        assert!(message.contains("pickled"), "{message}");
        let message = file(Path::new("a/b.gguf")).to_string();
        assert!(
            message.starts_with("a/b.gguf: b.gguf is a GGUF model"),
            "{message}"
        );
        let message = file(Path::new("model.safetensors")).to_string();
        assert!(message.contains("name its directory"), "{message}");
    }
}
