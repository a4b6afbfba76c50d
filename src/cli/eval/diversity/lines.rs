//! The lines of --out: the metrics of each model on each prompt.

use std::path::{Path, PathBuf};

use expo::error::{Error, Result};
use expo::eval::diversity::{Diversity, PromptDiversity};
use expo::io::durable::json_line;
use expo::io::output::Output;
use serde::Serialize;

use super::DiversityArgs;
use crate::cli::out::{self, paths};

/// Where the lines go.
pub fn output(args: &DiversityArgs, names: &[String]) -> Result<Option<Output>> {
    let Some(out) = &args.out else {
        return Ok(None);
    };
    let drawn: Vec<PathBuf> = match &args.out_dir {
        Some(directory) => names.iter().map(|n| samples_of(directory, n)).collect(),
        None => Vec::new(),
    };
    // They need not be there yet, nor their directory.
    if drawn.iter().any(|path| place(path) == place(out)) {
        let error = Error::input("is also written as a file of samples").at(out.display());
        return Err(error.hint("name another --out"));
    }
    let read = paths(args.samples.iter().chain(&args.prompts.prompts));
    let existing = out::Existing::overwrite(args.overwrite);
    out::open(out, existing, read.chain(drawn)).map(Some)
}

/// A path without links and `..`, as far as it exists.
fn place(path: &Path) -> Option<PathBuf> {
    let directory = match path.parent() {
        None => Path::new("/"),
        Some(directory) if directory.as_os_str().is_empty() => Path::new("."),
        Some(directory) => directory,
    };
    let directory = directory
        .canonicalize()
        .or_else(|_| std::path::absolute(directory));
    Some(directory.ok()?.join(path.file_name()?))
}

/// The file of a model's samples.
pub fn samples_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.jsonl"))
}

/// Writes a line per model and prompt.
pub fn write(out: &Output, models: &[Diversity]) -> Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        model: &'a str,
        #[serde(flatten)]
        of_prompt: &'a PromptDiversity,
    }
    out.write(|file| {
        let all = models.iter().flat_map(|model| {
            let model_name = model.name.as_str();
            let line = move |of_prompt| Line {
                model: model_name,
                of_prompt,
            };
            model.by_prompt.iter().map(line)
        });
        for line in all {
            file.write_all(json_line(&line)?.as_bytes())
                .map_err(|error| Error::io(out.path(), &error))?;
        }
        Ok(())
    })
}
