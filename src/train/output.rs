//! What an output directory has to be, before a run writes to it.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::checkpoint::Checkpoints;
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::io::durable::{check_no_link, check_plain, check_writable};
use crate::io::lock::LOCK;
use crate::io::model_dir;
use crate::ranks::Ranks;
use crate::run_dir::{FILES, LATEST, RUN, TENSORBOARD};

/// Refuses an output folder that cannot be one, before anything costly is done. Returns whether it
/// holds a run.
pub(super) fn check_output(run: &RunConfig) -> Result<bool> {
    let folder = &run.output_dir;
    check_writable(&folder.join(RUN))?;
    // A directory from elsewhere may have links to files of the user in their place.
    for name in FILES.iter().chain([&LATEST, &LOCK]) {
        check_plain(&folder.join(name))?;
    }
    check_no_link(&folder.join(TENSORBOARD))?;
    if folder.join(RUN).exists() {
        return Ok(true);
    }
    let of_model = [model_dir::CONFIG, model_dir::ADAPTER_CONFIG];
    if of_model.iter().any(|name| folder.join(name).exists()) {
        return Err(Error::input("holds a model that is not a run's")
            .at(folder.display())
            .hint("choose another run.output_dir"));
    }
    if let Some(step) = Checkpoints::open(folder)?.steps().last() {
        return Err(Error::input("holds checkpoints, and no run.json")
            .at(folder.display())
            .hint("choose another run.output_dir, and resume from the newest of them")
            .option("resume", format!("{}/checkpoint-{step}", folder.display())));
    }
    let mut known = FILES.iter().filter(|name| folder.join(name).exists());
    if let (Some(name), false) = (known.next(), folder.join(LOCK).exists()) {
        return Err(Error::input(format!("holds {name}, which is not a run's"))
            .at(folder.display())
            .hint("choose another run.output_dir"));
    }
    if !folder.join(LOCK).exists() && !run.overwrite {
        check_own(run)?;
    }
    Ok(false)
}

/// Refuses a directory that others keep directories in, such as one of the system or of a project.
/// Plain files may lie there: a log, or the config.
fn check_own(run: &RunConfig) -> Result<()> {
    let folder = &run.output_dir;
    let is_known = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let of_run = [TENSORBOARD, "lost+found"].contains(&&*name) || name.starts_with('.');
        of_run
            || run
                .cache_dir
                .as_ref()
                .is_some_and(|cache| cache.starts_with(path))
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    let mut others = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !is_known(path));
    let Some(other) = others.next() else {
        return Ok(());
    };
    let name = other.file_name().unwrap_or_default().to_string_lossy();
    let what = format!("is not empty and holds no run of expo, but the directory {name}");
    Err(Error::input(what)
        .at(folder.display())
        .hint("choose another run.output_dir"))
}

/// Refuses a run that would write over a model it reads.
pub(super) fn check_apart(output: &Path, model: &Path) -> Result<()> {
    let (Ok(output), Ok(model)) = (output.canonicalize(), model.canonicalize()) else {
        return Ok(());
    };
    if model.starts_with(&output) {
        return Err(
            Error::input("the run reads a model from its own output_dir")
                .at(model.display())
                .hint("choose another run.output_dir"),
        );
    }
    Ok(())
}

/// Refuses a directory that ranks do not share: the first one has just locked it.
pub(super) fn check_shared(ranks: &Ranks, folder: &Path) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let path = folder.join(LOCK);
    let mut owner = fs::read(&path).unwrap_or_default();
    // The first may have copied a checkpoint before.
    let patient = ranks.without_limit();
    patient.broadcast("the owner of the run's directory", &mut owner)?;
    // A network file system may show a new file a moment later.
    for _ in 0..50 {
        if fs::read(&path).is_ok_and(|here| here == owner) {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    let fact = format!(
        "rank {} does not see what rank 0 has written there",
        ranks.rank()
    );
    Err(Error::input(fact)
        .at(folder.display())
        .hint("choose a run.output_dir on a file system that all ranks share"))
}
