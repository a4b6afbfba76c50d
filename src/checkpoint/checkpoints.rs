//! The checkpoints of a run: which there are, which of them are whole, which may go.
//!
//! Hides names, pruning and what becomes of damaged folders.
//!
//! *Why*: a folder loses its name before its files go, and the loss of the name is on the disk before
//! the first of them is. So a folder that is called `checkpoint-N` is never half gone, either.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::durable::{Staging, TEMPORARY, list, parent, rename, sync, verify, write_file};

/// What names of folders begin with that are being removed.
const TRASH: &str = ".trash-";

/// What names of folders begin with that turned out not to be whole.
const DAMAGED: &str = "damaged-";

/// The name of the newest checkpoint, for people and scripts; nothing reads it here.
const LATEST: &str = "LATEST";

/// The checkpoints of a run folder, the oldest first.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    steps: Vec<u64>,
    /// The one that `LATEST` names.
    named: Option<u64>,
}

impl Checkpoints {
    /// Those that are there.
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

    /// The steps they were saved after.
    pub fn steps(&self) -> &[u64] {
        &self.steps
    }

    /// Those that were set aside.
    pub fn damaged(&self) -> Result<Vec<PathBuf>> {
        if !self.folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut all = list(&self.folder)?;
        all.retain(|path| path.is_dir() && named(path, DAMAGED));
        Ok(all)
    }

    /// Takes a checkpoint of another run for one of this run, too. Its files are the same, where the
    /// file system can give them a second name.
    pub fn adopt(&mut self, from: &Path, step: u64) -> Result<()> {
        let target = self.path(step);
        let staging = Staging::beside(&target)?;
        for file in list(from)? {
            let to = staging.path().join(file.file_name().unwrap_or_default());
            if fs::hard_link(&file, &to).is_err() {
                fs::copy(&file, &to).map_err(|error| Error::io(&to, &error))?;
                sync(&to)?;
            }
        }
        sync(staging.path())?;
        staging.settle(&target)?;
        self.saved(step, usize::MAX, None)
    }

    /// The folder of the checkpoint of a step.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("checkpoint-{step}"))
    }

    /// The newest one that is whole; those after it are set aside under another name, and `warn` is
    /// told. `None` where there never was one.
    ///
    /// # Errors
    /// If there are some and none is whole.
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
            Error::input("there were checkpoints, and none of them is whole")
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

    /// Takes a checkpoint that was saved into the list, removes the oldest ones beyond `limit`, which
    /// is at least 2, but not `best`, and writes its name into `LATEST`.
    pub fn saved(&mut self, step: u64, limit: usize, best: Option<u64>) -> Result<()> {
        self.steps.push(step);
        // On a full disk the name may find room only now.
        let pruned = self.prune(limit, best);
        self.name_latest(step).and(pruned)
    }

    /// Removes those after a step, which is now the latest. The name comes first, so that it is never
    /// that of one which is gone.
    pub fn go_back(&mut self, step: u64) -> Result<()> {
        self.name_latest(step)?;
        let later = self.steps.iter().copied().filter(|&other| other > step);
        let later: Vec<u64> = later.collect();
        later.into_iter().try_for_each(|step| self.remove(step))
    }

    fn name_latest(&mut self, step: u64) -> Result<()> {
        let name = format!("checkpoint-{step}\n");
        write_file(&self.folder.join(LATEST), name.as_bytes())?;
        self.named = Some(step);
        Ok(())
    }

    fn prune(&mut self, limit: usize, best: Option<u64>) -> Result<()> {
        let newest = self.steps.len().saturating_sub(limit.max(2));
        // That which `LATEST` names stays until another one is named there.
        let kept = [best, self.named];
        let old = self.steps[..newest].iter().copied();
        let old: Vec<u64> = old.filter(|&step| !kept.contains(&Some(step))).collect();
        old.into_iter().try_for_each(|step| self.remove(step))
    }

    /// Removes all of them, damaged ones too: the folder is to hold another run.
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

/// Takes a folder's name away, for good, and then its files.
fn discard(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let trash = parent(path).join(format!("{TRASH}{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&trash);
    rename(path, &trash)?;
    sync(parent(path))?;
    fs::remove_dir_all(&trash).map_err(|error| Error::io(&trash, &error))
}

/// Removes what processes that were killed left half written or half removed. The folder must be
/// this process's own.
pub fn sweep_up(folder: &Path) -> Result<()> {
    for path in list(folder)? {
        if path.is_dir() && (named(&path, TEMPORARY) || named(&path, TRASH)) {
            fs::remove_dir_all(&path).map_err(|error| Error::io(&path, &error))?;
        }
    }
    Ok(())
}

/// The step of a folder that is called `checkpoint-STEP`.
pub fn checkpoint_step(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix("checkpoint-")?;
    let step: u64 = digits.parse().ok()?;
    (step.to_string() == digits).then_some(step)
}

fn named(path: &Path, prefix: &str) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(prefix)
}
