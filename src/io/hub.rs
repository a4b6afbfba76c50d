//! Models and datasets by name: the Hugging Face hub, and the cache on disk that is shared with Python.
//!
//! *Why*: every tool of the user reads the cache, so nothing appears in it under its final name before
//! it is complete. Downloads therefore have a directory of their own beside the blobs; a downloaded file
//! is checked for size and, if the hub names it, SHA-256, and only then moved in. The layout of the cache
//! is hf-hub's; its client is not used, for it takes the token to every host that the hub leads to.

mod address;
mod cached;
mod client;
mod dataset;
mod failure;
mod kind;
mod partial;
mod remote;
mod settings;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub use dataset::{DatasetFiles, DatasetName, resolve_dataset, resolve_dataset_with};

use cached::{cut_short, put_in_place};
use kind::Kind;
pub use remote::Download;
use remote::{Remote, is_commit};
pub use settings::{HubSettings, Patience};

use super::model_dir::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, INDEX, TOKENIZER, WEIGHTS, companions, read_index,
};
use super::untrusted::{self, is_plain};
use crate::error::{Error, Result};

/// The directory that holds the model `name_or_path`, downloaded if need be.
///
/// A directory is returned as it is. Anything else is a name on the hub, at `revision` (a branch, a
/// tag or a commit; `main` by default), with the [settings of the environment](HubSettings).
pub fn resolve(name_or_path: &str, revision: Option<&str>) -> Result<PathBuf> {
    let settings = HubSettings::from_env();
    resolve_with(name_or_path, revision, &settings, &mut |_| ())
}

/// [`resolve`] with given settings; `progress` is told how far each download is.
///
/// A branch is looked up on the hub (one small request) to see whether it moved. When the hub
/// cannot be asked or refuses, a copy in the cache that is complete is used, as Python does.
pub fn resolve_with(
    name_or_path: &str,
    revision: Option<&str>,
    settings: &HubSettings,
    progress: &mut dyn FnMut(Download<'_>),
) -> Result<PathBuf> {
    resolve_part(name_or_path, revision, settings, Part::Model, progress)
}

/// As [`resolve_with`], where the weights are not needed and so not fetched.
pub fn resolve_tokenizer(
    name_or_path: &str,
    revision: Option<&str>,
    settings: &HubSettings,
    progress: &mut dyn FnMut(Download<'_>),
) -> Result<PathBuf> {
    resolve_part(name_or_path, revision, settings, Part::Tokenizer, progress)
}

/// What of a model is needed.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Model,
    Tokenizer,
}

fn resolve_part(
    name_or_path: &str,
    revision: Option<&str>,
    settings: &HubSettings,
    part: Part,
    progress: &mut dyn FnMut(Download<'_>),
) -> Result<PathBuf> {
    let path = Path::new(name_or_path);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let revision = revision.unwrap_or("main");
    check_names(name_or_path, revision)?;
    let folder = settings.cache.join(Kind::Model.directory(name_or_path));
    let cached = cached_snapshot(&folder, revision);
    if settings.offline {
        return from_cache_alone(name_or_path, revision, cached, part);
    }
    let whole = cached.filter(|snapshot| missing(snapshot, part).is_none());
    if let Some(snapshot) = &whole
        && is_commit(revision)
        && snapshot.join(TOKENIZER).exists()
    {
        return Ok(snapshot.clone());
    }
    // Where a copy would do, nobody waits for a hub that is away.
    let attempts = match whole {
        Some(_) => 1,
        None => settings.patience.attempts,
    };
    let remote = match Remote::open(
        Kind::Model,
        name_or_path,
        revision,
        &folder,
        settings,
        attempts,
    ) {
        Ok(remote) => remote,
        Err(refusal) => {
            return match whole {
                Some(snapshot) if refusal.cache_may_serve => Ok(snapshot),
                _ => Err(refusal.error),
            };
        }
    };
    download(name_or_path, &remote, part, progress)?;
    if !is_commit(revision) {
        remember(&folder, revision, remote.commit())?;
    }
    remote.tidy();
    Ok(remote.snapshot())
}

/// The weight files that `model.safetensors.index.json` at `index` names, sorted, each once.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    Ok(read_index(index)?.into_values().collect())
}

fn download(
    name: &str,
    remote: &Remote,
    part: Part,
    progress: &mut dyn FnMut(Download<'_>),
) -> Result<()> {
    // A repository with both is read as a model.
    if !remote.has(CONFIG) && remote.has(ADAPTER_CONFIG) {
        remote.fetch(ADAPTER_CONFIG, progress)?;
        for file in companions(remote.files()) {
            remote.fetch(file, progress)?;
        }
        if !remote.has(ADAPTER_WEIGHTS) {
            return Err(Error::input("the repository has no safetensors weights")
                .hint(format!("{ADAPTER_WEIGHTS} is needed"))
                .at(name));
        }
        return remote.fetch(ADAPTER_WEIGHTS, progress);
    }
    if !remote.has(CONFIG) {
        return Err(Error::input("the repository has no config.json")
            .hint("a model in the Hugging Face format is needed")
            .at(name));
    }
    remote.fetch(CONFIG, progress)?;
    for file in companions(remote.files()) {
        remote.fetch(file, progress)?;
    }
    if part == Part::Tokenizer {
        return Ok(());
    }
    if remote.has(WEIGHTS) {
        return remote.fetch(WEIGHTS, progress);
    }
    if !remote.has(INDEX) {
        return Err(Error::input("the repository has no safetensors weights")
            .hint(format!("{WEIGHTS} or {INDEX} is needed"))
            .at(name));
    }
    remote.fetch(INDEX, progress)?;
    for shard in shards(&remote.snapshot().join(INDEX))? {
        if !remote.has(&shard) {
            let what = format!("{INDEX} names {shard}, which the repository does not have");
            return Err(Error::input(what).at(name));
        }
        remote.fetch(&shard, progress)?;
    }
    Ok(())
}

fn from_cache_alone(
    name: &str,
    revision: &str,
    cached: Option<PathBuf>,
    part: Part,
) -> Result<PathBuf> {
    let lacking = match cached {
        None => format!("no such directory, and revision `{revision}` is not in the hub cache"),
        Some(snapshot) => match missing(&snapshot, part) {
            None => return Ok(snapshot),
            Some(file) if cut_short(&snapshot.join(&file)) => {
                format!("{file} in the hub cache is cut short")
            }
            Some(file) => format!("{file} is not in the hub cache"),
        },
    };
    Err(Error::input(lacking)
        .hint("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it to download")
        .at(name))
}

/// The snapshot that the cache has for `revision`, whole or not.
fn cached_snapshot(folder: &Path, revision: &str) -> Option<PathBuf> {
    let commit = untrusted::text(&folder.join("refs").join(revision), untrusted::WORD)
        .map_or_else(|_| revision.to_string(), |text| text.trim().to_string());
    let snapshot = folder.join("snapshots").join(&commit);
    (is_plain(&commit) && snapshot.is_dir()).then_some(snapshot)
}

/// The first file without which the snapshot lacks the part; links to nothing count as missing, and so do
/// files that are cut short.
fn missing(snapshot: &Path, part: Part) -> Option<String> {
    let lacks = |file: &str| {
        let path = snapshot.join(file);
        !path.exists() || cut_short(&path)
    };
    if lacks(CONFIG) && !lacks(ADAPTER_CONFIG) {
        lacks(ADAPTER_WEIGHTS).then(|| ADAPTER_WEIGHTS.into())
    } else if lacks(CONFIG) {
        Some(CONFIG.into())
    } else if part == Part::Tokenizer {
        lacks(TOKENIZER).then(|| TOKENIZER.into())
    } else if !lacks(WEIGHTS) {
        None
    } else if lacks(INDEX) {
        Some(WEIGHTS.into())
    } else {
        match shards(&snapshot.join(INDEX)) {
            Ok(names) => names.into_iter().find(|name| lacks(name)),
            Err(_) => Some(format!("a valid {INDEX}")),
        }
    }
}

fn remember(folder: &Path, revision: &str, commit: &str) -> Result<()> {
    let path = folder.join("refs").join(revision);
    if untrusted::text(&path, untrusted::WORD).is_ok_and(|known| known.trim() == commit) {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent)
        .and_then(|()| put_in_place(&path, |new| fs::write(new, commit)))
        .map_err(|e| Error::failed(format!("{}: {e}", path.display())))
}

fn check_names(name: &str, revision: &str) -> Result<()> {
    if Path::new(name).exists() {
        return Err(Error::input("a file, where a model directory is needed").at(name));
    }
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|part| is_plain(part)) || name.contains("--") {
        return Err(Error::input("no such directory")
            .hint("give a model directory, or a name on the hub: `organisation/name`")
            .at(name));
    }
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "._-/+".contains(c));
    if revision.contains(odd) || !revision.split('/').all(is_plain_or_tag) {
        return Err(
            Error::input(format!("revision `{revision}` is not a valid name"))
                .hint("a branch, a tag or a commit of the hub")
                .at(name),
        );
    }
    Ok(())
}

fn is_plain_or_tag(part: &str) -> bool {
    is_plain(&part.replace('+', "_"))
}
