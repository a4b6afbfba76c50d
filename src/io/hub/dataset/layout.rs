//! Which files of a repository are which split.
//!
//! *Why*: the rules are those of Python's `datasets`, so that a name means the same rows here and there:
//! the README's configurations, else `data/SPLIT-00000-of-00001`, else directories and then files that
//! are named after a split, else all files.

use globset::GlobBuilder;

use super::metadata::{Config, configs};
use crate::error::{Error, Result};

/// The files of a dataset.
pub(super) struct Repository<'a> {
    /// The last part of its name.
    name: &'a str,
    files: &'a [String],
    readme: Option<String>,
}

/// The splits that names of files and directories are known to mean.
const WORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// What stands around such a word.
const AROUND: &str = "[-._ 0-9]";

/// Files that are about the data.
const ABOUT: [&str; 5] = [
    "README.md",
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
];

/// The endings of files of rows, by kind.
const KINDS: [(&str, &[&str]); 5] = [
    ("parquet", &["parquet"]),
    ("json", &["jsonl", "json", "ndjson"]),
    ("csv", &["csv", "tsv"]),
    ("arrow", &["arrow"]),
    ("text", &["txt"]),
];

impl<'a> Repository<'a> {
    pub fn new(name: &'a str, files: &'a [String], readme: Option<String>) -> Self {
        Self {
            name: name.rsplit('/').next().unwrap_or(name),
            files,
            readme,
        }
    }
}

/// The kind of rows that a file's ending promises.
fn kind(file: &str) -> Option<&'static str> {
    let name = file.to_lowercase();
    let name = [".gz", ".zst"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(&name);
    let ending = name.rsplit_once('.')?.1;
    let found = KINDS.iter().find(|(_, endings)| endings.contains(&ending));
    found.map(|(kind, _)| *kind)
}

/// The files of a split, in order; `None` where the repository has no files of rows that could be one.
pub(super) fn split(
    repository: &Repository,
    config: Option<&str>,
    split: &str,
) -> Result<Option<Vec<String>>> {
    let Repository {
        name,
        files,
        readme,
    } = repository;
    if is_path(split) {
        return file(files, config, split).map(Some);
    }
    let script = format!("{name}.py");
    if files.contains(&script) {
        return Ok(None);
    }
    let named = match readme {
        Some(readme) => configs(readme)?,
        None => Vec::new(),
    };
    let chosen = choose(&named, config)?;
    let splits = match chosen {
        Some(config) => of_config(files, config)?,
        None => by_names(files, config.unwrap_or_default()),
    };
    if splits.is_empty() && config.is_some_and(|config| !is_directory(files, config)) {
        let valid = named.iter().map(|config| config.name.as_str());
        return match named.is_empty() {
            true => Ok(None),
            false => Err(no_config(config, valid)),
        };
    }
    if splits.is_empty() {
        return Ok(None);
    }
    let Some((_, found)) = splits.iter().find(|(name, _)| name == split) else {
        return Err(no_split(
            split,
            splits.iter().map(|(name, _)| name.as_str()),
        ));
    };
    let files = of_one_kind(found);
    // What is named in the README is meant, all of it.
    let other = found.iter().find(|file| !files.contains(file));
    if let (Some(_), Some(other), Some(file)) = (chosen, other, files.first()) {
        return Err(Error::input(format!(
            "split `{split}` is files of several kinds: {file}, {other}"
        ))
        .hint("name those of one kind as the split, with a pattern such as data/*.parquet"));
    }
    Ok(Some(files).filter(|files| !files.is_empty()))
}

/// The files of a split among the parquet files that the hub made of a dataset.
pub(super) fn exported(files: &[String], config: Option<&str>, split: &str) -> Result<Vec<String>> {
    let parts = |file: &String| {
        let mut parts = file.split('/').map(str::to_owned);
        let (config, split) = (parts.next()?, parts.next()?);
        (kind(file) == Some("parquet")).then_some((config, split, file.clone()))
    };
    let all: Vec<_> = files.iter().filter_map(parts).collect();
    let mut configs: Vec<&str> = all.iter().map(|(config, ..)| config.as_str()).collect();
    configs.dedup();
    let chosen = match (config, configs.as_slice()) {
        (Some(config), _) => config,
        (None, [only]) => only,
        (None, configs) if configs.contains(&"default") => "default",
        (None, configs) => return Err(no_config(None, configs.iter().copied())),
    };
    if !configs.contains(&chosen) {
        return Err(no_config(Some(chosen), configs.into_iter()));
    }
    let of = |split: &str| {
        let own = all.iter().filter(|(c, s, _)| c == chosen && s == split);
        own.map(|(.., file)| file.clone()).collect::<Vec<_>>()
    };
    let found = of(split);
    if !found.is_empty() {
        return Ok(found);
    }
    if !of(&format!("partial-{split}")).is_empty() {
        return Err(Error::input(format!(
            "the hub has made parquet of the beginning of split `{split}` alone"
        ))
        .hint("download the dataset and name its files"));
    }
    let mut splits: Vec<&str> = Vec::new();
    for (_, name, _) in all.iter().filter(|(config, ..)| config == chosen) {
        if !splits.contains(&name.as_str()) {
            splits.push(name);
        }
    }
    Err(no_split(split, splits.into_iter()))
}

/// Whether files say by their own names how many of them there are, and all are there.
pub(super) fn names_all(files: &[String]) -> bool {
    let total = |file: &String| {
        let after = file.rsplit_once("-of-")?.1;
        let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<usize>().ok()
    };
    match files {
        [file] => total(file).is_none_or(|total| total == 1),
        files => files.iter().all(|file| total(file) == Some(files.len())),
    }
}

/// Whether a split is written as a file or a pattern of files.
fn is_path(split: &str) -> bool {
    split.contains(['/', '*']) || kind(split).is_some()
}

fn file(files: &[String], config: Option<&str>, path: &str) -> Result<Vec<String>> {
    let pattern = match config {
        Some(directory) => format!("{directory}/{path}"),
        None => path.to_owned(),
    };
    let found = match files.contains(&pattern) {
        true => vec![pattern.clone()],
        false => matching(files, &pattern)?,
    };
    match found.is_empty() {
        true => Err(Error::input(format!(
            "the repository has no file `{pattern}`"
        ))),
        false => Ok(found),
    }
}

/// The configuration that is meant; `None` where the README names none of this name, or none at all.
fn choose<'a>(named: &'a [Config], config: Option<&str>) -> Result<Option<&'a Config>> {
    let Some(wanted) = config else {
        let default = named
            .iter()
            .find(|config| config.is_default)
            .or_else(|| named.iter().find(|config| config.name == "default"));
        return match (default, named) {
            (Some(default), _) => Ok(Some(default)),
            (None, []) => Ok(None),
            (None, [only]) => Ok(Some(only)),
            (None, named) => Err(no_config(None, named.iter().map(|c| c.name.as_str()))),
        };
    };
    Ok(named.iter().find(|config| config.name == wanted))
}

type Splits = Vec<(String, Vec<String>)>;

fn of_config(files: &[String], config: &Config) -> Result<Splits> {
    let directory = config.directory.trim_matches('/').trim_start_matches("./");
    if config.splits.is_empty() {
        return Ok(by_names(files, directory));
    }
    let mut splits = Vec::new();
    for (split, patterns) in &config.splits {
        let mut found = Vec::new();
        for pattern in patterns {
            let pattern = pattern.trim_start_matches("./");
            if pattern.contains("://") {
                let what = format!("README.md: split `{split}` is at {pattern}");
                return Err(Error::input(what).hint("files outside the repository are not fetched"));
            }
            let below = match directory {
                "" => Vec::new(),
                directory => matching(files, &format!("{directory}/{pattern}"))?,
            };
            found.extend(match below.is_empty() {
                true => matching(files, pattern)?,
                false => below,
            });
        }
        let mut seen = std::collections::HashSet::new();
        found.retain(|file| kind(file).is_some() && seen.insert(file.clone()));
        splits.push((split.clone(), found));
    }
    Ok(splits)
}

/// The splits that follow from the names of the files below a directory.
fn by_names(files: &[String], directory: &str) -> Splits {
    let front = match directory {
        "" => String::new(),
        directory => format!("{directory}/"),
    };
    let rows = |file: &&String| file.starts_with(&front) && kind(file).is_some();
    let files: Vec<String> = files.iter().filter(rows).cloned().collect();
    let sharded = sharded(&files, &front);
    if !sharded.is_empty() {
        return sharded;
    }
    let directories = |word: &str| {
        vec![
            format!("{front}**/{word}/**"),
            format!("{front}**/{word}{AROUND}*/**"),
            format!("{front}**/*{AROUND}{word}/**"),
            format!("{front}**/*{AROUND}{word}{AROUND}*/**"),
        ]
    };
    let names = |word: &str| {
        vec![
            format!("{front}**/{word}{AROUND}*"),
            format!("{front}**/*{AROUND}{word}{AROUND}*"),
        ]
    };
    for patterns in [&directories as &dyn Fn(&str) -> Vec<String>, &names] {
        let mut splits = Vec::new();
        for (split, words) in WORDS {
            let mut found: Vec<String> = Vec::new();
            for pattern in words.iter().flat_map(|word| patterns(word)) {
                for file in matching(&files, &pattern).unwrap_or_default() {
                    if !found.contains(&file) {
                        found.push(file);
                    }
                }
            }
            if !found.is_empty() {
                splits.push((split.to_owned(), found));
            }
        }
        if !splits.is_empty() {
            return splits;
        }
    }
    match matching(&files, &format!("{front}**")) {
        Ok(all) if !all.is_empty() => vec![("train".to_owned(), all)],
        _ => Vec::new(),
    }
}

/// The splits of files such as `data/train-00000-of-00002.parquet`.
fn sharded(files: &[String], front: &str) -> Splits {
    let mut splits: Splits = Vec::new();
    for file in files {
        let name = file
            .strip_prefix(front)
            .and_then(|name| name.strip_prefix("data/"));
        let Some(split) = name.filter(|name| !name.contains('/')).and_then(shard_of) else {
            continue;
        };
        match splits.iter_mut().find(|(name, _)| name == split) {
            Some((_, files)) => files.push(file.clone()),
            None => splits.push((split.to_owned(), vec![file.clone()])),
        }
    }
    splits
}

/// The split that a name such as `train-00000-of-00002.parquet` is a part of.
fn shard_of(name: &str) -> Option<&str> {
    let (front, total) = name.rsplit_once("-of-")?;
    let (split, number) = front.rsplit_once('-')?;
    let five = |text: &str| text.len() >= 5 && text.bytes().take(5).all(|b| b.is_ascii_digit());
    (number.len() == 5 && five(number) && five(total)).then_some(split)
}

/// The files that a pattern matches, sorted. Hidden files and those about the data are not meant unless
/// the pattern says so.
fn matching(files: &[String], pattern: &str) -> Result<Vec<String>> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|error| Error::input(format!("`{pattern}` is not a file pattern: {error}")))?;
    let glob = glob.compile_matcher();
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let hidden = |path: &str| {
        let hides = |part: &&str| part.starts_with('.') || part.starts_with("__");
        path.split('/').filter(hides).count()
    };
    let meant = |file: &&String| {
        glob.is_match(file.as_str())
            && hidden(file) == hidden(pattern)
            && (!ABOUT.contains(&&*last(file)) || last(file) == last(pattern))
    };
    Ok(files.iter().filter(meant).cloned().collect())
}

/// Of files of several kinds those of the most frequent one, parquet before others.
fn of_one_kind(files: &[String]) -> Vec<String> {
    let count = |wanted: &str| {
        let own = files.iter().filter(|file| kind(file) == Some(wanted));
        own.count()
    };
    // Of equals the first.
    let kinds = KINDS.iter().rev();
    let Some((most, _)) = kinds.max_by_key(|(kind, _)| count(kind)) else {
        return Vec::new();
    };
    let own = files.iter().filter(|file| kind(file) == Some(most));
    own.cloned().collect()
}

fn is_directory(files: &[String], name: &str) -> bool {
    let front = format!("{name}/");
    files.iter().any(|file| file.starts_with(&front))
}

fn no_split<'a>(split: &str, valid: impl Iterator<Item = &'a str>) -> Error {
    let valid: Vec<&str> = valid.collect();
    Error::input(format!("the dataset has no split `{split}`"))
        .hint(format!("valid: {}", valid.join(", ")))
}

fn no_config<'a>(config: Option<&str>, valid: impl Iterator<Item = &'a str>) -> Error {
    let what = match config {
        Some(config) => format!("the dataset has no configuration `{config}`"),
        None => "the dataset has several configurations".to_owned(),
    };
    let valid: Vec<&str> = valid.collect();
    let valid = valid.join(", ");
    Error::input(what).hint(format!(
        "write hub:OWNER/NAME/CONFIG:SPLIT with one of: {valid}"
    ))
}

#[cfg(test)]
mod tests;
