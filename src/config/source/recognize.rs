//! What a file is that was given as a config and is no TOML.
//!
//! *Why*: the message of a TOML parser about rows, weights or YAML helps nobody. Each of them has a name
//! and a place where it belongs.

use std::path::Path;

use serde_json::Value;

use super::super::hint;
use crate::error::Error;
use crate::io::model_dir;
use crate::io::untrusted;
use crate::run_dir::{CONFIG, RUN};

/// More of a file is not looked at: a config has at most that.
const MOST: usize = 1 << 20;
const ROWS: &str = "name the rows in data.train of a config, a TOML file";
const WEIGHTS: &str =
    "name the model's directory in model.model_name_or_path of a config, a TOML file";

/// The error that says so; `None` where it may be TOML with a mistake in it.
pub(super) fn recognize(path: &Path) -> Option<Error> {
    if path.is_dir() {
        return directory(path);
    }
    // Nobody may ever write to a pipe.
    if !path.is_file() {
        return None;
    }
    let bytes = untrusted::beginning(path, MOST).ok()?;
    let of = |what: &str, hint: &str| {
        let error = Error::input(format!("{what}, not a config")).hint(hint);
        Some(error.at(path.display()))
    };
    for (magic, what, hint) in BINARY {
        if bytes.starts_with(magic) {
            return of(what, hint);
        }
    }
    let ending = path.extension().and_then(|ending| ending.to_str());
    let ending = ending.unwrap_or_default().to_ascii_lowercase();
    if ending == "safetensors" {
        return of("holds the weights of a model", WEIGHTS);
    }
    let bytes = bytes
        .strip_prefix(untrusted::BYTE_ORDER_MARK)
        .unwrap_or(&bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // Only the beginning was read, and may end inside a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let text = text.trim_start();
    let first = text.lines().next().unwrap_or_default();
    if ["csv", "tsv"].contains(&ending.as_str()) {
        return of("holds a table of rows", ROWS);
    }
    if text.starts_with(['{', '[']) {
        return match serde_json::from_str(text) {
            Ok(Value::Object(keys)) if is_row(&keys) => of("holds a row in JSON", ROWS),
            Ok(Value::Object(keys)) => {
                let names = keys
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str()));
                let names = hint::of_names(names);
                let hint = mapped(&names);
                let error = Error::input("is JSON; a config is TOML").hint(hint);
                Some(error.at(path.display()))
            }
            Ok(_) => of("holds rows in JSON", ROWS),
            Err(error) => match serde_json::from_str::<Value>(first) {
                Ok(Value::Object(_)) => of("holds rows in JSON lines", ROWS),
                // The beginning of a long list.
                _ if error.is_eof()
                    && text.starts_with('[')
                    && text[1..].trim_start().starts_with('{') =>
                {
                    of("holds rows in JSON", ROWS)
                }
                _ => None,
            },
        };
    }
    let yaml = yaml_keys(text);
    if ["yaml", "yml"].contains(&ending.as_str()) || !yaml.is_empty() {
        let hint = mapped(&hint::of_names(yaml.into_iter()));
        let error = Error::input("is YAML; a config is TOML").hint(hint);
        return Some(error.at(path.display()));
    }
    let columns = first.split([',', '\t']).count();
    // A comment with a comma is no table: a mistake further down is for the parser of TOML to name.
    let is_table = columns > 1 && !first.starts_with('#') && !first.contains(['=', '[']);
    match ending.as_str() {
        "py" => of("is a Python script", "see the guide for a config"),
        _ if is_table => of("holds a table of rows", ROWS),
        _ => None,
    }
}

/// How binary files begin.
const BINARY: [(&[u8], &str, &str); 9] = [
    (b"PAR1", "is a parquet file", ROWS),
    (b"ARROW1", "is an Arrow file", ROWS),
    (b"\xff\xff\xff\xff", "is an Arrow file", ROWS),
    (b"\x1f\x8b", "is a gzip file", ROWS),
    (b"\x28\xb5\x2f\xfd", "is a zstd file", ROWS),
    (b"GGUF", "is a GGUF model", WEIGHTS),
    (
        b"PK\x03\x04",
        "is a zip archive or a pickled model",
        WEIGHTS,
    ),
    (b"\x80\x02", "is a pickled model", WEIGHTS),
    (b"\x80\x04", "is a pickled model", WEIGHTS),
];

fn directory(path: &Path) -> Option<Error> {
    let error = match () {
        () if path.join(RUN).is_file() && path.join(CONFIG).is_file() => {
            Error::input("is the directory of a run, not a config")
                .hint(format!("its config is {}", path.join(CONFIG).display()))
        }
        () if path.join(model_dir::CONFIG).is_file() => {
            Error::input("is the directory of a model, not a config").hint(WEIGHTS)
        }
        () => return None,
    };
    Some(error.at(path.display()))
}

/// Whether a JSON object is a row of a dataset rather than a config.
fn is_row(keys: &serde_json::Map<String, Value>) -> bool {
    let columns = [
        "prompt",
        "chosen",
        "messages",
        "conversations",
        "instruction",
        "completion",
        "text",
    ];
    columns.iter().any(|column| keys.contains_key(*column))
}

fn mapped(names: &str) -> String {
    match names {
        "" => "its sections are [model], [data], [loss.dpo], [run] and others".to_owned(),
        names => format!("its keys here: {names}"),
    }
}

/// The keys of YAML at the beginning of lines, with their values; none where a line is none of YAML.
fn yaml_keys(text: &str) -> Vec<(&str, Option<&str>)> {
    let mut keys = Vec::new();
    for line in text.lines() {
        let plain = line.split(" #").next().unwrap_or_default().trim_end();
        let is_nested = plain.starts_with([' ', '\t', '-']);
        if plain.is_empty() || plain.starts_with('#') || plain == "---" || is_nested {
            continue;
        }
        let is_key = |key: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            !key.is_empty() && key.chars().all(allowed)
        };
        match plain.split_once(':') {
            Some((key, value)) if is_key(key) && (value.is_empty() || value.starts_with(' ')) => {
                let word = value.trim().trim_matches(['"', '\'']);
                keys.push((key, Some(word)));
            }
            _ => return Vec::new(),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn said(name: &str, contents: impl AsRef<[u8]>) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, contents).unwrap();
        let text = recognize(&path)?.to_string();
        let text = text.strip_prefix(&path.display().to_string())?;
        Some(text.to_owned())
    }

    #[test]
    fn what_is_no_toml_is_called_by_its_name() {
        for (name, contents, words) in [
            (
                "a.yaml",
                &b"base_model: x\nadapter: lora # comment\nlora_r: 8\ndatasets:\n  - path: y\n"[..],
                ": is YAML; a config is TOML; its keys here: base_model -> model.model_name_or_path; lora_r -> adapter.r",
            ),
            (
                "trl.yaml",
                b"beta: 0.1\nloss_type: ipo\n",
                ": is YAML; a config is TOML; its keys here: beta -> loss.ipo.beta; loss_type -> loss",
            ),
            (
                "a.txt",
                b"---\nlearning_rate: 1e-5\n",
                ": is YAML; a config is TOML; its keys here: learning_rate -> optimizer.learning_rate",
            ),
            ("a.yml", b"", ": is YAML; "),
            (
                "a.json",
                b"{\n\"output_dir\": \"x\", \"lr\": 1}",
                ": is JSON; a config is TOML; its keys here: output_dir -> run.output_dir; lr -> ",
            ),
            (
                "a.json",
                b"{\"model\": {}}",
                ": is JSON; a config is TOML; its sections are",
            ),
            (
                "a.toml",
                b"{\"prompt\": 1}\n{\"prompt\": 2}\n",
                ": holds rows in JSON lines, not a config",
            ),
            (
                "a.jsonl",
                b"{\"prompt\": 1}\n",
                ": holds a row in JSON, not a config; name the rows in data.train",
            ),
            (
                "a.json",
                b"[{\"prompt\": 1}]",
                ": holds rows in JSON, not a config",
            ),
            (
                "a.csv",
                b"prompt,chosen,rejected\na,b,c\n",
                ": holds a table of rows, not a config",
            ),
            (
                "a",
                b"prompt\tchosen\na\tb\n",
                ": holds a table of rows, not a config",
            ),
            ("a", b"PAR1\x15\x04", ": is a parquet file, not a config"),
            ("a", b"ARROW1\0\0", ": is an Arrow file, not a config"),
            ("a", b"\x1f\x8b\x08", ": is a gzip file, not a config"),
            ("a", b"GGUF\x03", ": is a GGUF model, not a config"),
            (
                "model.safetensors",
                b"\x10\0\0\0\0\0\0\0{}",
                ": holds the weights of a model, not a config",
            ),
        ] {
            let message = said(name, contents).unwrap_or_default();
            assert!(message.starts_with(words), "{name}: {message}");
        }
    }

    #[test]
    fn toml_with_a_mistake_is_left_to_its_parser() {
        for contents in [
            "[model\n",
            "[model]\nname = \"x\n",
            "a = 1, b = 2\n",
            "# DPO, small\na = \n",
            "",
        ] {
            assert_eq!(said("a.toml", contents), None, "{contents}");
        }
    }

    #[test]
    fn a_directory_of_a_run_has_its_config() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(recognize(folder.path()), None);
        fs::write(folder.path().join(model_dir::CONFIG), "{}").unwrap();
        let text = recognize(folder.path()).unwrap().to_string();
        assert!(text.contains("is the directory of a model"), "{text}");
        for name in [RUN, CONFIG] {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        let text = recognize(folder.path()).unwrap().to_string();
        assert!(text.ends_with("config.toml"), "{text}");
    }
}
