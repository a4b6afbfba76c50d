//! `expo verify`: compares the files of a run or a checkpoint with their checksums.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use expo::error::Error;
use expo::run_dir::{RUN, checkpoint_step};
use expo::train::{Found, verify};
use serde_json::json;

use super::{answer, grouped};

/// Compare the files of a run, a checkpoint or a model with their checksums
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct VerifyArgs {
    /// Verify this directory: the output_dir of a run, a checkpoint, or a model that expo wrote
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Print a JSON object per directory or file
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Reads every file and compares its length and SHA-256 with MANIFEST.json, which
is written last into every checkpoint and model. Of a run, all checkpoints, the
final model, run.json, summary.json and the lines of the logs are read. Nothing
is changed. The exit code is 1 if anything is damaged.

expo train verifies a checkpoint before it resumes from it, and takes the one
before it if the latest is damaged.

Examples:
  $ expo verify runs/dpo
  $ expo verify runs/dpo/checkpoint-200";

/// Runs the command.
pub fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let found = verify(&args.folder)?;
    let mut text = String::new();
    for one in &found {
        let line = match args.json {
            true => as_json(one),
            false => as_text(one),
        };
        let _ = writeln!(text, "{line}");
    }
    answer(&text)?;
    match found.iter().filter(|one| one.outcome.is_err()).count() {
        0 => Ok(()),
        damaged => {
            let what = format!(
                "{}: {damaged} of {} damaged; {}",
                args.folder.display(),
                found.len(),
                remedy(&args.folder, &found)
            );
            Err(Error::failed(what).into())
        }
    }
}

/// What to do about damage: the command that writes the files anew.
fn remedy(folder: &Path, found: &[Found]) -> String {
    if !folder.join(RUN).is_file() {
        return "copy it again from where it came from, or train it again".to_owned();
    }
    let name = folder.display();
    let step = |one: &Found| checkpoint_step(&one.path);
    let newest = found.iter().filter(|one| one.outcome.is_ok());
    let newest = newest.filter_map(|one| Some((step(one)?, &one.path))).max();
    // Damaged checkpoints and a damaged model are written again after a whole checkpoint.
    let is_written_again = |one: &&Found| step(one).is_some() || one.path == folder;
    let mut damaged = found.iter().filter(|one| one.outcome.is_err());
    match newest.filter(|_| damaged.all(|one| is_written_again(&one))) {
        Some((_, path)) => format!(
            "resume from the newest whole checkpoint: expo train {name}/config.toml --resume {}",
            path.display()
        ),
        None => format!("train it again: expo train {name}/config.toml --set run.overwrite=true"),
    }
}

fn as_text(Found { path, outcome }: &Found) -> String {
    match outcome {
        Ok((files, bytes)) => {
            let bytes = grouped(*bytes as usize);
            let files = if *files == 1 {
                "1 file".into()
            } else {
                format!("{files} files")
            };
            format!("whole    {}, {files}, {bytes} bytes", path.display())
        }
        Err(error) => format!("damaged  {error}"),
    }
}

fn as_json(Found { path, outcome }: &Found) -> String {
    let value = match outcome {
        Ok((files, bytes)) => json!({"path": path, "whole": true, "files": files, "bytes": bytes}),
        Err(error) => json!({"path": path, "whole": false, "what": error.to_string()}),
    };
    value.to_string()
}
