//! What is in a run folder: whole checkpoints only, and what another one has.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use expo::io::durable::verify;
use expo::run_dir::checkpoint_step;

/// The names in a folder, none where there is no folder.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The steps of the checkpoints that are there, the oldest first.
pub fn steps(folder: &Path) -> Vec<u64> {
    let names = names(folder).into_iter();
    let mut steps: Vec<u64> = names
        .filter_map(|n| checkpoint_step(Path::new(&n)))
        .collect();
    steps.sort_unstable();
    steps
}

/// What is wrong with the checkpoints of a folder that nobody works in.
pub fn unreadable(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for step in steps(folder) {
        if let Err(error) = verify(&folder.join(format!("checkpoint-{step}"))) {
            found.push(format!("unreadable: {error}"));
        }
    }
    let latest = fs::read_to_string(folder.join("LATEST")).unwrap_or_default();
    let latest = latest.trim_end();
    if !latest.is_empty() && !folder.join(latest).is_dir() {
        found.push(format!("unreadable: LATEST names {latest}"));
    }
    found
}

/// Where a finished run is not what the run `whole` is. If `all`, every checkpoint of that one must be
/// there, else a save may have failed. One more is no difference: a kill may come before it is pruned.
pub fn differences(run: &Path, whole: &Path, all: bool) -> Vec<String> {
    let (got, want) = (files(run), files(whole));
    let mut found = Vec::new();
    for (name, bytes) in &want {
        let same = match got.get(name) {
            None => !all && is_of_checkpoint(name),
            Some(other) => other == bytes || (!all && name == Path::new("LATEST")),
        };
        if !same {
            found.push(format!("mismatch: {}", name.display()));
        }
    }
    let more = got.keys().filter(|name| !want.contains_key(*name));
    let more = more.filter(|name| !is_of_checkpoint(name));
    found.extend(more.map(|name| format!("mismatch: {} is new", name.display())));
    found.extend(unreadable(run));
    found
}

fn is_of_checkpoint(name: &Path) -> bool {
    let first = name.iter().next().map(Path::new);
    first.and_then(checkpoint_step).is_some()
}

/// Every file of a run that does not depend on time and place, temporary folders left out.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        for name in names(&folder.join(&below)) {
            let relative = below.join(&name);
            let path = folder.join(&relative);
            if name.starts_with(".tmp-") || name.starts_with(".trash-") {
                continue;
            }
            match path.is_dir() {
                true => folders.push(relative),
                false
                    if ["timings.jsonl", "run.lock", "summary.json", "config.toml"]
                        .contains(&name.as_str()) => {}
                false => {
                    all.insert(relative, fs::read(&path).unwrap());
                }
            }
        }
    }
    all
}

/// The comparison is only worth something if it sees a difference.
#[test]
fn what_differs_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let [run, whole] = ["run", "whole"].map(|name| folder.path().join(name));
    let write = |path: PathBuf, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for path in [&run, &whole] {
        write(path.join("metrics.jsonl"), "1\n2\n");
        write(path.join("run.lock"), path.to_str().unwrap());
    }
    let found = |all: bool| differences(&run, &whole, all);
    assert!(found(true).is_empty());
    write(run.join("metrics.jsonl"), "1\n3\n");
    assert_eq!(found(false), ["mismatch: metrics.jsonl"]);
    fs::remove_file(run.join("metrics.jsonl")).unwrap();
    assert_eq!(found(false), ["mismatch: metrics.jsonl"]);
    write(run.join("metrics.jsonl"), "1\n2\n");
    write(run.join("model.safetensors"), "");
    assert_eq!(found(false), ["mismatch: model.safetensors is new"]);
    fs::remove_file(run.join("model.safetensors")).unwrap();
    // A checkpoint may be missing where a save failed, but not be another one, nor half of one.
    write(whole.join("checkpoint-3/MANIFEST.json"), "{}");
    assert!(found(false).is_empty());
    assert_eq!(found(true), ["mismatch: checkpoint-3/MANIFEST.json"]);
    write(run.join("checkpoint-3/MANIFEST.json"), "{");
    let found = found(false);
    assert_eq!(found[0], "mismatch: checkpoint-3/MANIFEST.json");
    assert!(found[1].starts_with("unreadable: "), "{found:?}");
    write(run.join("LATEST"), "checkpoint-4\n");
    assert!(unreadable(&run).iter().any(|what| what.contains("LATEST")));
}
