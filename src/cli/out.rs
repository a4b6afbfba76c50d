//! The outputs that a user names: one rule of what may be written where.
//!
//! *Why*: a result must cost nobody anything else. So a file is replaced only where that was asked for, and
//! never one that the command reads or that a run or a model is made of; a link, a pipe or a device is
//! never replaced; and what stands for standard output is written to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use expo::data::Files;
use expo::error::{Error, Result};
use expo::io::durable::{MANIFEST, check_no_link, check_plain, check_writable, parent};
use expo::io::lock::LOCK;
use expo::io::model_dir;
use expo::io::output::Output;
use expo::run_dir::{self, checkpoint_step};

/// What to do with an existing file.
#[derive(Clone, Copy)]
pub enum Existing<'a> {
    /// It is refused.
    Refuse,
    /// It is replaced or resumed, as requested.
    Take,
    /// It is replaced if it is empty or this says that it is the command's own.
    Own(&'a dyn Fn(&Path) -> bool),
}

impl Existing<'_> {
    /// By `--overwrite`.
    pub fn overwrite(asked: bool) -> Self {
        if asked { Self::Take } else { Self::Refuse }
    }
}

/// The output of this name, which must be none of the `inputs`: a file, or an open stream.
pub fn open(
    path: &Path,
    existing: Existing<'_>,
    inputs: impl IntoIterator<Item = PathBuf>,
) -> Result<Output> {
    match stream(path)? {
        Some(file) => Ok(Output::Stream(path.to_owned(), file)),
        None => check(path, existing, inputs).map(|()| Output::File(path.to_owned())),
    }
}

/// As [`open`], where it has to be a file.
pub fn file(
    path: &Path,
    existing: Existing<'_>,
    inputs: impl IntoIterator<Item = PathBuf>,
) -> Result<()> {
    match descriptor(path) {
        Some(_) => Err(Error::input("is a stream, and a file is needed").at(path.display())),
        None => check(path, existing, inputs),
    }
}

/// Refuses a directory that cannot be an output.
pub fn directory(path: &Path) -> Result<()> {
    if descriptor(path).is_some() {
        return Err(Error::input("is a stream, and a directory is needed").at(path.display()));
    }
    if path.exists() && !path.is_dir() {
        return Err(Error::input("is a file, not a directory").at(path.display()));
    }
    // It lies below no file.
    check_writable(&path.join("file"))?;
    check_owner(path)
}

/// Writes a result to standard output, or beside an output that is written there to standard error.
pub fn answer_beside(out: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    if descriptor(out) != Some(STDOUT) {
        return super::answer(text);
    }
    if super::is_silent() {
        return Ok(());
    }
    // Where stderr is closed, nobody reads it.
    let _ = std::io::stderr()
        .lock()
        .write_all(super::printable(text).as_bytes());
    Ok(())
}

/// The paths of files of rows.
pub fn paths<'a>(files: impl IntoIterator<Item = &'a Files>) -> impl Iterator<Item = PathBuf> {
    files.into_iter().flat_map(Files::paths)
}

const STDOUT: u32 = 1;

/// The number of the open file that a path stands for, whatever the path leads to.
pub fn descriptor(path: &Path) -> Option<u32> {
    if path == Path::new("-") {
        return Some(STDOUT);
    }
    let path: PathBuf = path.components().collect();
    let name = path.to_str().filter(|_| cfg!(unix))?;
    match name {
        "/dev/stdin" => return Some(0),
        "/dev/stdout" => return Some(STDOUT),
        "/dev/stderr" => return Some(2),
        _ => {}
    }
    let own = format!("/proc/{}/fd/", std::process::id());
    let folders = ["/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/", &own];
    let mut number = folders
        .iter()
        .filter_map(|folder| name.strip_prefix(folder));
    number.next()?.parse().ok()
}

/// The open stream of this name; `None` if it is one of a file.
fn stream(path: &Path) -> Result<Option<File>> {
    let io = |error: std::io::Error| Error::io(path, &error);
    let stream = match descriptor(path) {
        Some(0) => return Err(Error::input("is standard input").at(path.display())),
        Some(STDOUT) => duplicate(&std::io::stdout()).map_err(io)?,
        Some(2) => duplicate(&std::io::stderr()).map_err(io)?,
        // A pipe of the shell's, as in `--out >(gzip > out.gz)`; behind what a file has already.
        Some(_) => File::options().append(true).open(path).map_err(io)?,
        None if is_character_device(path) => File::options().write(true).open(path).map_err(io)?,
        None => return Ok(None),
    };
    Ok(Some(stream))
}

#[cfg(unix)]
fn duplicate(stream: &impl std::os::fd::AsFd) -> std::io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(windows)]
fn duplicate(stream: &impl std::os::windows::io::AsHandle) -> std::io::Result<File> {
    stream.as_handle().try_clone_to_owned().map(File::from)
}

#[cfg(unix)]
fn is_character_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device())
}

#[cfg(not(unix))]
fn is_character_device(_: &Path) -> bool {
    false
}

fn check(
    path: &Path,
    existing: Existing<'_>,
    inputs: impl IntoIterator<Item = PathBuf>,
) -> Result<()> {
    check_no_link(path)?;
    check_writable(path)?;
    // The name of a directory that does not exist, or none at all.
    let name = path.as_os_str().as_encoded_bytes();
    if path.file_name().is_none() || name.ends_with(b"/") {
        return Err(Error::input("is not the name of a file").at(path.display()));
    }
    check_plain(path)?;
    check_owner(path)?;
    if !path.exists() {
        return Ok(());
    }
    if let Some(input) = inputs.into_iter().find(|input| is_same(path, input)) {
        let what = match input == path {
            true => "is read by the same command".to_owned(),
            false => format!("is {}, which the same command reads", input.display()),
        };
        return Err(Error::input(what)
            .hint("choose another output")
            .at(path.display()));
    }
    let there = Error::input("already exists").at(path.display());
    match existing {
        Existing::Take => Ok(()),
        Existing::Refuse => Err(there.hint("choose another --out, or add --overwrite")),
        Existing::Own(is_own) => {
            let empty = fs::metadata(path).is_ok_and(|found| found.len() == 0);
            match empty || is_own(path) {
                true => Ok(()),
                false => Err(there
                    .with_fact(|fact| format!("{fact}, and was not written by this command"))
                    .hint("choose another --out, or remove it")),
            }
        }
    }
}

/// Whether two paths are of one file: also by a link, hard or symbolic.
pub fn is_same(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    if let (Ok(one), Ok(other)) = (fs::metadata(one), fs::metadata(other)) {
        use std::os::unix::fs::MetadataExt;
        return (one.dev(), one.ino()) == (other.dev(), other.ino());
    }
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Refuses a path that is, or would be, a part of a run, a checkpoint or a model.
fn check_owner(path: &Path) -> Result<()> {
    let Ok(folder) = parent(path).canonicalize() else {
        return Ok(());
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let owner = folder.ancestors().find_map(|above| {
        let is_run = above.join(run_dir::RUN).exists();
        let is_saved = above.join(MANIFEST).exists();
        let is_model = is_saved || above.join(model_dir::CONFIG).exists();
        // What is in a checkpoint goes with it.
        if is_saved && checkpoint_step(above).is_some() {
            return Some((above, "checkpoint"));
        }
        let below = folder.strip_prefix(above).ok()?;
        let name = match below.components().next() {
            Some(first) => first.as_os_str().to_string_lossy(),
            None => name.clone(),
        };
        match (is_run, is_model) {
            (true, _) if is_of_run(&name) => Some((above, "run")),
            (_, true) if is_of_model(&name) => Some((above, "model")),
            (true, _) if is_of_model(&name) => Some((above, "run")),
            _ => None,
        }
    });
    match owner {
        None => Ok(()),
        Some((owner, kind)) => {
            let what = format!("is a part of the {kind} {}", owner.display());
            Err(Error::input(what)
                .hint("choose another output")
                .at(path.display()))
        }
    }
}

fn is_of_run(name: &str) -> bool {
    let others = [run_dir::LATEST, run_dir::TENSORBOARD, LOCK];
    run_dir::FILES.iter().chain(&others).any(|own| *own == name)
        || checkpoint_step(Path::new(name)).is_some()
}

fn is_of_model(name: &str) -> bool {
    use model_dir::{ADDITIONAL_TEMPLATES, CONFIG, GENERATION_CONFIG, INDEX, TOKENIZER_FILES};
    let others = [
        CONFIG,
        GENERATION_CONFIG,
        INDEX,
        ADDITIONAL_TEMPLATES,
        MANIFEST,
    ];
    TOKENIZER_FILES
        .iter()
        .chain(&others)
        .any(|own| *own == name)
        || name.ends_with(".safetensors")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn the_names_of_open_files_are_known() {
        let own = format!("/proc/{}/fd/1", std::process::id());
        for name in [
            "-",
            "/dev/stdout",
            "//dev/./stdout",
            "/dev/fd/1",
            "/proc/self/fd/1",
            &own,
        ] {
            assert_eq!(descriptor(Path::new(name)), Some(STDOUT), "{name}");
        }
        for name in ["./-", "/dev/null", "/dev/fd/x", "stdout", "/proc/1/fd/1x"] {
            assert_eq!(descriptor(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn a_part_of_a_run_or_a_model_is_no_output() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["run/checkpoint-3", "run/tensorboard", "model", "free"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        for name in [
            "run/run.json",
            "run/checkpoint-3/MANIFEST.json",
            "model/config.json",
        ] {
            fs::write(path(name), "{}").unwrap();
        }
        for (name, kind) in [
            ("run/model.safetensors", "run"),
            ("run/margins.json", "run"),
            ("run/checkpoint-9", "run"),
            ("run/tensorboard/x", "run"),
            ("run/checkpoint-3/scores.jsonl", "checkpoint"),
            ("model/tokenizer.json", "model"),
        ] {
            let message = check_owner(&path(name)).unwrap_err().to_string();
            let expected = format!("is a part of the {kind} ");
            assert!(message.contains(&expected), "{name}: {message}");
        }
        for name in [
            "run/report.html",
            "model/scores.jsonl",
            "free/metrics.jsonl",
        ] {
            check_owner(&path(name)).unwrap();
        }
    }
}
