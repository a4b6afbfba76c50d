//! The files that a name stands for: one file, all of a directory, those that a pattern matches, a split
//! of a dataset on the hub.
//!
//! Hides the walk, the names of data files and of what lies beside them, and the order.
//!
//! *Why*: whoever names a directory means its rows, each once and in an order that is the same
//! everywhere. What would make another dataset of it is refused instead of read: files of two kinds,
//! the splits of a dataset side by side.

use crate::error::{Error, Result};
use crate::io::hub::{DatasetName, resolve_dataset};
use globset::{GlobBuilder, GlobMatcher};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A directory of more files, or of directories nested deeper, is not a dataset.
const MOST_FILES: usize = 100_000;
const DEEPEST: usize = 32;

/// Endings of names, each with the kind of the files that have it.
const ENDINGS: [(&str, &str); 10] = [
    ("jsonl", "JSON lines"),
    ("ndjson", "JSON lines"),
    ("jsonlines", "JSON lines"),
    ("json", "JSON"),
    ("parquet", "parquet"),
    ("arrow", "Arrow"),
    ("feather", "Arrow"),
    ("csv", "CSV"),
    ("tsv", "TSV"),
    ("txt", "text"),
];

const LOOKED_FOR: &str = "data files end in .jsonl, .json, .parquet, .arrow, .csv, .tsv or .txt, \
                          the text ones also in .gz or .zst";

/// What lies beside the data of a dataset.
const SIDECARS: [&str; 10] = [
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "license.txt",
    "metadata.json",
    "readme.txt",
    "requirements.txt",
    "state.json",
    "tokenizer_config.json",
];

/// What `datasets` writes into a directory of splits, and into the directory of one.
const DICT: &str = "dataset_dict.json";
const STATE: &str = "state.json";

/// The files of a name, in their order. A path that exists is what it is, whatever characters it has.
///
/// # Errors
/// If a directory or a pattern stands for no data file, or for files that are not one dataset. That
/// a plain file does not exist shows when it is opened.
pub(super) fn expand(name: &Path) -> Result<Vec<PathBuf>> {
    if let Some(dataset) = on_hub(name) {
        return Ok(resolve_dataset(&dataset.map_err(Error::input)?)?.paths);
    }
    if name.is_dir() {
        return directory(name).map_err(|error| error.at(name.display()));
    }
    let pattern = name
        .to_str()
        .filter(|name| name.contains(['*', '?', '[', '{']));
    match pattern {
        Some(pattern) if !name.exists() => glob(pattern).map_err(|error| error.at(pattern)),
        _ => Ok(vec![name.to_owned()]),
    }
}

/// The dataset on the hub that a name stands for, if it is meant as one.
pub(super) fn on_hub(name: &Path) -> Option<std::result::Result<DatasetName, String>> {
    let name = name.to_str().filter(|name| DatasetName::is_meant(name))?;
    Some(name.parse())
}

fn directory(root: &Path) -> Result<Vec<PathBuf>> {
    if root.join(DICT).is_file() {
        return Err(splits(root));
    }
    let mut files = Vec::new();
    walk(root, &mut Vec::new(), &mut files)?;
    files.retain(|file| kind(file).is_some() && !is_sidecar(file));
    files.sort();
    if files.is_empty() {
        return Err(Error::input("the directory has no data files").hint(LOOKED_FOR));
    }
    same_kind(&files)?;
    one_split(root, &files)?;
    complete(root, &files)?;
    Ok(files)
}

fn glob(pattern: &str) -> Result<Vec<PathBuf>> {
    let wrong = |error: globset::Error| {
        Error::input(format!("is not a pattern: {}", error.kind()))
            .hint("`*` and `?` stand for characters of a name, `**` for directories")
    };
    let matcher: GlobMatcher = GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(wrong)?
        .compile_matcher();
    // The directory that no special character is in the name of.
    let plain = |part: &Component| {
        !part
            .as_os_str()
            .to_string_lossy()
            .contains(['*', '?', '[', '{'])
    };
    let root: PathBuf = Path::new(pattern).components().take_while(plain).collect();
    let mut files = Vec::new();
    match root.as_os_str().is_empty() {
        true => {
            walk(Path::new("."), &mut Vec::new(), &mut files)?;
            let bare = files
                .iter()
                .map(|file| file.strip_prefix(".").unwrap_or(file));
            files = bare.map(Path::to_owned).collect();
        }
        false if root.is_dir() => walk(&root, &mut Vec::new(), &mut files)?,
        false => {}
    }
    files.retain(|file| matcher.is_match(file) && !is_sidecar(file));
    files.sort();
    if files.is_empty() {
        return Err(Error::input("no file matches the pattern").hint(
            "`*` stands for characters of a name, `**` for directories; hidden files do not match",
        ));
    }
    same_kind(&files)?;
    Ok(files)
}

// All files below a directory but the hidden ones. A link to a directory above is not followed.
fn walk(folder: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> Result<()> {
    let io = |error: std::io::Error| Error::io(folder, &error);
    let real = folder.canonicalize().map_err(io)?;
    if above.contains(&real) {
        return Ok(());
    }
    if above.len() == DEEPEST {
        return Err(
            Error::input(format!("directories are nested more than {DEEPEST} deep"))
                .hint("name the one that has the data"),
        );
    }
    above.push(real);
    let mut entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(io)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if path.is_dir() {
            walk(&path, above, files)?;
        } else {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            return Err(Error::input(format!("has more than {MOST_FILES} files"))
                .hint("name the directory that has the data, or a pattern"));
        }
    }
    above.pop();
    Ok(())
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().to_lowercase()
}

/// The kind of a data file, by its name.
pub(super) fn kind(path: &Path) -> Option<&'static str> {
    let name = file_name(path);
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let name = name.strip_suffix(".zst").unwrap_or(name);
    let (_, ending) = name.rsplit_once('.')?;
    let known = ENDINGS.iter().find(|(known, _)| *known == ending);
    known.map(|(_, kind)| *kind)
}

fn is_sidecar(path: &Path) -> bool {
    SIDECARS.contains(&file_name(path).as_str())
}

fn same_kind(files: &[PathBuf]) -> Result<()> {
    let mut kinds = files.iter().map(|file| (kind(file), file));
    let Some((first, one)) = kinds.next() else {
        return Ok(());
    };
    let Some((_, other)) = kinds.find(|(kind, _)| *kind != first) else {
        return Ok(());
    };
    let [one, other] = [one, other].map(|path| path.display());
    Err(
        Error::input(format!("{one} and {other} are files of two kinds"))
            .hint("name those that are meant, e.g. by a pattern such as data/*.jsonl"),
    )
}

// The splits of a dataset that was saved as several.
fn splits(root: &Path) -> Error {
    let mut names: Vec<String> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(STATE).is_file())
        .map(|entry| format!("`{}`", entry.path().display()))
        .collect();
    names.sort();
    let error = Error::input("the directory has the splits of a dataset");
    match names.is_empty() {
        true => error.hint("name the directory of one of them"),
        false => error.hint(format!("name one of them: {}", names.join(", "))),
    }
}

// A dataset's test split beside its training split would be trained on.
fn one_split(root: &Path, files: &[PathBuf]) -> Result<()> {
    let mut found: BTreeMap<&str, &Path> = BTreeMap::new();
    for file in files {
        let below = file.strip_prefix(root).unwrap_or(file);
        let parts: Vec<String> = below
            .components()
            .map(|part| part.as_os_str().to_string_lossy().to_lowercase())
            .collect();
        if let Some(split) = parts.iter().find_map(|part| split(part)) {
            found.entry(split).or_insert(file);
        }
    }
    let mut found = found.into_values();
    let (Some(one), Some(other)) = (found.next(), found.next()) else {
        return Ok(());
    };
    let [one, other] = [one, other].map(|path| path.display());
    Err(Error::input(format!(
        "the directory has several splits of a dataset: {one} and {other}"
    ))
    .hint("name one, e.g. by a pattern such as data/train-*.parquet"))
}

// The split whose usual name a part of a path has, as a word of its own.
fn split(part: &str) -> Option<&'static str> {
    let words = part.split(|c: char| !c.is_alphanumeric());
    words.into_iter().find_map(|word| match word {
        "train" | "training" => Some("train"),
        "test" | "testing" | "eval" | "evaluation" => Some("test"),
        "validation" | "valid" | "val" | "dev" => Some("validation"),
        _ => None,
    })
}

// What `datasets` saved names its files, so that one that was not copied shows.
fn complete(root: &Path, files: &[PathBuf]) -> Result<()> {
    let state = root.join(STATE);
    if !state.is_file() {
        return Ok(());
    }
    let state = crate::io::untrusted::json(&state, crate::io::untrusted::CONFIG)?;
    let named = state.get("_data_files").and_then(|list| list.as_array());
    let named = named.into_iter().flatten();
    for name in named.filter_map(|file| file.get("filename")?.as_str()) {
        if !files.contains(&root.join(name)) {
            return Err(
                Error::input(format!("{name}, which {STATE} names, is missing"))
                    .hint("copy the whole directory"),
            );
        }
    }
    Ok(())
}
