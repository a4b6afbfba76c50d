//! Datasets by name: which files of a repository are a split, and where they are on disk.
//!
//! Hides the listing of the repository, its README's configurations, the parquet export that the hub
//! makes of datasets in other forms, and the cache.
//!
//! *Why*: a split must be all of its files or an error. So a split is found in the list of the files
//! that a revision has, never in the files that happen to be in the cache; the list is kept beside them
//! for later runs without the hub. Within one process a name means the same files each time, whatever
//! becomes of its branch meanwhile.

mod layout;
mod metadata;
mod name;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use name::DatasetName;

use super::cached::{cut_short, put_in_place};
use super::kind::Kind;
use super::remote::{Download, Remote, is_commit};
use super::settings::HubSettings;
use super::{cached_snapshot, remember};
use crate::error::{Error, Result};
use crate::io::untrusted;
use layout::{Repository, exported, split};

/// Where a dataset describes itself.
const README: &str = "README.md";

/// The branch of the hub's own parquet files.
const EXPORT: &str = "refs/convert/parquet";

/// The bytes that a README and a kept list of files may have.
const LONGEST_README: u64 = 8 << 20;
const LONGEST_LIST: u64 = 64 << 20;

/// A split of a dataset on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetFiles {
    /// Its files, in order.
    pub paths: Vec<PathBuf>,
    /// The commit that they are of.
    pub commit: String,
}

/// The files of a split, downloaded if need be, with the [settings of the environment](HubSettings).
pub fn resolve_dataset(name: &DatasetName) -> Result<DatasetFiles> {
    resolve_dataset_with(name, &HubSettings::from_env(), &mut |_| ())
}

/// [`resolve_dataset`] with given settings; `progress` is told how far each download is.
///
/// # Errors
/// If there is no such dataset, configuration or split, with those that there are; if the hub cannot be
/// asked and the cache does not have all files of the split.
pub fn resolve_dataset_with(
    name: &DatasetName,
    settings: &HubSettings,
    progress: &mut dyn FnMut(Download<'_>),
) -> Result<DatasetFiles> {
    static FOUND: Mutex<Option<HashMap<Asked, DatasetFiles>>> = Mutex::new(None);
    let asked = (
        name.to_string(),
        settings.cache.clone(),
        settings.endpoint.clone(),
    );
    let known = |found: &Option<HashMap<Asked, DatasetFiles>>| found.as_ref()?.get(&asked).cloned();
    if let Some(files) = known(&FOUND.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(files);
    }
    let files = find(name, settings, progress).map_err(|error| match error.places() {
        [] => error.at(name),
        _ => error,
    })?;
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.get_or_insert_default().insert(asked, files.clone());
    Ok(files)
}

type Asked = (String, PathBuf, Option<String>);

fn find(
    name: &DatasetName,
    settings: &HubSettings,
    progress: &mut dyn FnMut(Download<'_>),
) -> Result<DatasetFiles> {
    let revision = name.revision.as_deref().unwrap_or("main");
    let directory = settings
        .cache
        .join(Kind::Dataset.directory(&name.repository));
    let tree = Tree::open(&name.repository, revision, &directory, settings)?;
    let is_there = |files: &Repository| split(files, name.config.as_deref(), &name.split);
    let readme = tree.readme(progress)?;
    if let Some(files) = is_there(&Repository::new(&name.repository, &tree.files, readme))? {
        return tree.fetch(&files, progress);
    }
    // Other forms of data, or a program that makes the rows: the hub has the rows as parquet.
    let none = || {
        Error::input("the repository has no file of rows")
            .hint("expo reads parquet, JSON lines, CSV, Arrow and text files")
    };
    if name.revision.is_some() {
        return Err(none());
    }
    let tree = Tree::open(&name.repository, EXPORT, &directory, settings).map_err(|_| none())?;
    let files = exported(&tree.files, name.config.as_deref(), &name.split)?;
    tree.fetch(&files, progress)
}

/// The files that a revision of a dataset has, here or on the hub.
struct Tree<'a> {
    settings: &'a HubSettings,
    revision: &'a str,
    directory: &'a Path,
    commit: String,
    /// Sorted.
    files: Vec<String>,
    /// Whether `files` are all that the revision has.
    complete: bool,
    // None where the hub is not asked, or does not answer.
    remote: Option<Remote<'a>>,
}

impl<'a> Tree<'a> {
    fn open(
        repository: &'a str,
        revision: &'a str,
        directory: &'a Path,
        settings: &'a HubSettings,
    ) -> Result<Self> {
        let tree = |commit: String, files, complete, remote| Self {
            settings,
            revision,
            directory,
            commit,
            files,
            complete,
            remote,
        };
        let cached = cached_snapshot(directory, revision).and_then(|snapshot| {
            let commit = snapshot.file_name()?.to_string_lossy().into_owned();
            let listed = list_of(directory, &commit);
            let complete = listed.is_some();
            let files = listed.unwrap_or_else(|| files_in(&snapshot));
            Some(tree(commit, files, complete, None))
        });
        if settings.offline {
            return cached.ok_or_else(|| {
                Error::input(format!("revision `{revision}` is not in the hub cache"))
                    .hint("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it to download")
            });
        }
        let attempts = match cached {
            Some(_) => 1,
            None => settings.patience.attempts,
        };
        match Remote::open(
            Kind::Dataset,
            repository,
            revision,
            directory,
            settings,
            attempts,
        ) {
            Ok(remote) => {
                let mut files: Vec<String> = remote.files().map(str::to_owned).collect();
                files.sort_unstable();
                let commit = remote.commit().to_owned();
                let list = serde_json::to_vec(&files).unwrap_or_default();
                keep_list(directory, &commit, &list)?;
                if !is_commit(revision) {
                    remember(directory, revision, &commit)?;
                }
                Ok(tree(commit, files, true, Some(remote)))
            }
            Err(refusal) => match cached {
                Some(tree) if refusal.cache_may_serve => Ok(tree),
                _ => Err(refusal.error),
            },
        }
    }

    fn snapshot(&self) -> PathBuf {
        self.directory.join("snapshots").join(&self.commit)
    }

    /// What the dataset says of itself, if anything.
    fn readme(&self, progress: &mut dyn FnMut(Download<'_>)) -> Result<Option<String>> {
        if !self.files.iter().any(|file| file == README) {
            return Ok(None);
        }
        let found = self.fetch(&[README.to_owned()], progress)?;
        let kind = untrusted::Kind::text("a README", LONGEST_README);
        found
            .paths
            .first()
            .map(|path| untrusted::text(path, kind))
            .transpose()
    }

    /// The paths of these files, of which those that are not here are downloaded.
    fn fetch(
        &self,
        files: &[String],
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Result<DatasetFiles> {
        let snapshot = self.snapshot();
        if let Some(remote) = &self.remote {
            for file in files {
                remote.fetch(file, progress)?;
            }
            remote.tidy();
        } else {
            let lacks = |file: &&String| {
                let path = snapshot.join(file);
                !path.exists() || cut_short(&path)
            };
            if let Some(file) = files.iter().find(lacks) {
                return Err(self.not_here(&format!("{file} is not in the hub cache")));
            }
            if !self.complete && !layout::names_all(files) {
                return Err(self
                    .not_here("the hub cache does not say whether it has all files of the split"));
            }
        }
        Ok(DatasetFiles {
            paths: files.iter().map(|file| snapshot.join(file)).collect(),
            commit: self.commit.clone(),
        })
    }

    fn not_here(&self, what: &str) -> Error {
        let revision = self.revision;
        match self.settings.offline {
            true => Error::input(what)
                .hint("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it to download"),
            false => Error::failed(format!(
                "{what}, and the hub cannot be asked for revision `{revision}`"
            )),
        }
    }
}

/// Where the list of all files of a commit is kept.
fn list_path(directory: &Path, commit: &str) -> PathBuf {
    directory.join("expo").join(format!("{commit}.json"))
}

fn list_of(directory: &Path, commit: &str) -> Option<Vec<String>> {
    let path = list_path(directory, commit);
    let kind = untrusted::Kind::text("a list of files", LONGEST_LIST);
    let bytes = untrusted::bytes(&path, kind).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn keep_list(directory: &Path, commit: &str, list: &[u8]) -> Result<()> {
    let path = list_path(directory, commit);
    if fs::read(&path).is_ok_and(|known| known == list) {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(directory);
    fs::create_dir_all(parent)
        .and_then(|()| put_in_place(&path, |new| fs::write(new, list)))
        .map_err(|error| Error::failed(format!("{}: {error}", path.display())))
}

/// The files below a snapshot that another program made, sorted; links to nothing are none.
fn files_in(snapshot: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let Ok(entries) = fs::read_dir(snapshot.join(&below)) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = below.join(entry.file_name());
            let whole = snapshot.join(&path);
            if whole.is_file() {
                found.extend(path.to_str().map(str::to_owned));
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            }
        }
    }
    found.sort_unstable();
    found
}
