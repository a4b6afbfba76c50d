//! The checkpoints of a run: which exist, which are valid, which are pruned.
//!
//! Hides names, pruning and what happens to damaged checkpoints.
//!
//! *Why*: a checkpoint is renamed, and the new name synced, before the first of its files is removed. So
//! a directory called `checkpoint-N` is never incomplete.

use std::fs;
use std::path::{Path, PathBuf};

use super::is_weights;
use crate::error::{Error, Result};
use crate::io::durable::{
    Staging, TEMPORARY, list, list_files, parent, rename, sync, verify, write_file,
};
use crate::run_dir::{LATEST, checkpoint_name, checkpoint_step};

/// The prefix of directories that are being removed.
const TRASH: &str = ".trash-";

/// The prefix of checkpoints that turned out to be damaged.
const DAMAGED: &str = "damaged-";

/// The checkpoints of a run directory, oldest first.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    steps: Vec<u64>,
    /// The step that `LATEST` names.
    named: Option<u64>,
}

impl Checkpoints {
    /// The checkpoints in a directory.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut steps = match folder.is_dir() {
            true => list(folder)?
                .iter()
                .filter_map(|p| checkpoint_step(p))
                .collect(),
            false => Vec::new(),
        };
        steps.sort_unstable();
        let named = fs::read_to_string(folder.join(LATEST)).unwrap_or_default();
        Ok(Self {
            folder: folder.to_owned(),
            steps,
            named: checkpoint_step(Path::new(named.trim_end())),
        })
    }

    /// Their steps, ascending.
    pub fn steps(&self) -> &[u64] {
        &self.steps
    }

    /// The damaged checkpoints that were set aside.
    pub fn damaged(&self) -> Result<Vec<PathBuf>> {
        if !self.folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut all = list(&self.folder)?;
        all.retain(|path| path.is_dir() && named(path, DAMAGED));
        Ok(all)
    }

    /// Copies a checkpoint of another run into this one, by hard links where the file system has them.
    pub fn adopt(&mut self, from: &Path, step: u64) -> Result<()> {
        let target = self.path(step);
        let staging = Staging::beside(&target)?;
        for name in list_files(from)? {
            let (file, to) = (from.join(&name), staging.path().join(&name));
            fs::create_dir_all(parent(&to)).map_err(|error| Error::io(&to, &error))?;
            if fs::hard_link(&file, &to).is_err() {
                fs::copy(&file, &to).map_err(|error| Error::io(&to, &error))?;
                sync(&to)?;
            }
            sync(parent(&to))?;
        }
        sync(staging.path())?;
        staging.settle(&target)?;
        self.saved(step, usize::MAX, None)
    }

    /// The path of the checkpoint of a step.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(checkpoint_name(step))
    }

    /// The latest valid checkpoint. Damaged ones after it are set aside under another name, and `warn`
    /// is told. `None` if there never was one.
    ///
    /// # Errors
    /// If there are checkpoints and none is valid.
    pub fn newest_whole(&mut self, warn: &mut dyn FnMut(&str)) -> Result<Option<u64>> {
        let mut found = self.damaged()?.len();
        while let Some(&step) = self.steps.last() {
            let path = self.path(step);
            let Err(error) = verify(&path) else {
                return Ok(Some(step));
            };
            let aside = self.set_aside(&path)?;
            warn(&format!("{error}; set aside as {}", aside.display()));
            self.steps.pop();
            found += 1;
        }
        if found == 0 && !self.folder.join(LATEST).exists() {
            return Ok(None);
        }
        Err(
            Error::input("there were checkpoints, and none of them is valid")
                .at(self.folder.display())
                .hint("restore one from a backup, or start over with run.overwrite = true")
                .option("resume", "never"),
        )
    }

    fn set_aside(&self, path: &Path) -> Result<PathBuf> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = |number: usize| self.folder.join(format!("{DAMAGED}{name}-{number}"));
        let free = (1..).map(aside).find(|path| !path.exists());
        let aside = free.unwrap_or_else(|| aside(0));
        rename(path, &aside)?;
        sync(&self.folder)?;
        Ok(aside)
    }

    /// Adds a saved checkpoint, writes its name into `LATEST`, and prunes the oldest beyond `limit`
    /// (at least 2), but not `best`.
    pub fn saved(&mut self, step: u64, limit: usize, best: Option<u64>) -> Result<()> {
        self.steps.push(step);
        // On a full disk there may be room for the name only after pruning.
        let pruned = self.prune(limit, best);
        self.name_latest(step).and(pruned)
    }

    /// Removes the checkpoints after a step. `LATEST` is written first, so that it never names a removed
    /// one.
    pub fn go_back(&mut self, step: u64) -> Result<()> {
        self.name_latest(step)?;
        let later = self.steps.iter().copied().filter(|&other| other > step);
        let later: Vec<u64> = later.collect();
        later.into_iter().try_for_each(|step| self.remove(step))
    }

    fn name_latest(&mut self, step: u64) -> Result<()> {
        let name = checkpoint_name(step) + "\n";
        write_file(&self.folder.join(LATEST), name.as_bytes())?;
        self.named = Some(step);
        Ok(())
    }

    fn prune(&mut self, limit: usize, best: Option<u64>) -> Result<()> {
        let newest = self.steps.len().saturating_sub(limit.max(2));
        // The checkpoint that `LATEST` names is kept until it names another one.
        let kept = [best, self.named];
        let old = self.steps[..newest].iter().copied();
        let old: Vec<u64> = old.filter(|&step| !kept.contains(&Some(step))).collect();
        old.into_iter().try_for_each(|step| self.remove(step))
    }

    /// Removes all checkpoints, damaged ones too, before another run takes the directory.
    pub fn clear(&mut self) -> Result<()> {
        let latest = self.folder.join(LATEST);
        if latest.exists() {
            fs::remove_file(&latest).map_err(|error| Error::io(&latest, &error))?;
        }
        self.named = None;
        self.damaged()?.iter().try_for_each(|path| discard(path))?;
        let steps = self.steps.clone();
        steps.into_iter().try_for_each(|step| self.remove(step))
    }

    /// Removes a checkpoint.
    fn remove(&mut self, step: u64) -> Result<()> {
        discard(&self.path(step))?;
        self.steps.retain(|&other| other != step);
        Ok(())
    }
}

/// Removes a directory: first its name, durably, then its files.
fn discard(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let trash = parent(path).join(format!("{TRASH}{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&trash);
    rename(path, &trash)?;
    sync(parent(path))?;
    fs::remove_dir_all(&trash).map_err(|error| Error::io(&trash, &error))
}

/// Removes what killed processes left partly written or partly removed. The directory must be locked by
/// this process.
pub fn sweep_up(folder: &Path) -> Result<()> {
    for path in list(folder)? {
        if path.is_dir() && (named(&path, TEMPORARY) || named(&path, TRASH)) {
            fs::remove_dir_all(&path).map_err(|error| Error::io(&path, &error))?;
        }
    }
    Ok(())
}

/// The bytes of what a run removes from its directory before it begins or, after a checkpoint's `step`,
/// resumes: weights, later checkpoints, what killed processes left.
pub fn removable_bytes(folder: &Path, step: Option<u64>) -> u64 {
    let removed = |path: &PathBuf| match checkpoint_step(path) {
        Some(other) => step.is_none_or(|step| other > step),
        None => {
            let left = named(path, TEMPORARY) || named(path, TRASH);
            left || is_weights(path) || (step.is_none() && named(path, DAMAGED))
        }
    };
    let paths = list(folder).unwrap_or_default();
    paths.iter().filter(|path| removed(path)).map(size).sum()
}

/// The bytes of a file, or of all files in a directory.
fn size(path: &PathBuf) -> u64 {
    match path.is_dir() {
        true => list(path).unwrap_or_default().iter().map(size).sum(),
        false => fs::metadata(path).map_or(0, |data| data.len()),
    }
}

fn named(path: &Path, prefix: &str) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(prefix)
}
