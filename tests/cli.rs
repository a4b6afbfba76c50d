//! The real binary: what it writes, what it says and how it exits.

#[path = "cli/adapter.rs"]
mod adapter;
#[path = "cli/data.rs"]
mod data;
#[path = "cli/data_lint.rs"]
mod data_lint;
#[cfg(target_os = "linux")]
#[path = "cli/dispatch.rs"]
mod dispatch;
#[path = "cli/eval.rs"]
mod eval;
#[path = "cli/eval_diversity.rs"]
mod eval_diversity;
#[path = "cli/eval_pairs.rs"]
mod eval_pairs;
#[path = "cli/flow.rs"]
mod flow;
#[path = "cli/health.rs"]
mod health;
#[path = "cli/mixture.rs"]
mod mixture;
#[path = "cli/plan.rs"]
mod plan;
#[path = "cli/refusals.rs"]
mod refusals;
#[path = "cli/resume.rs"]
mod resume;
#[path = "cli/sampling.rs"]
mod sampling;
#[path = "cli/stories.rs"]
mod stories;
#[path = "cli/sweep.rs"]
mod sweep;
#[path = "cli/wrong.rs"]
mod wrong;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::fixture;

fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder of a test's own, where the binary finds its cache, too.
struct Place {
    folder: tempfile::TempDir,
}

/// How a command ended.
struct End {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// A copy of a fixture's model folder.
    fn model(&self, name: &str) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(fixture(name)).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, folder.join(from.file_name().unwrap())).unwrap();
        }
        folder
    }

    /// A config of the fixtures, with a table per loss and lines of `[data]` and `[run]`.
    fn config(&self, model: &Path, loss: &str, data: &str, run: &str) -> PathBuf {
        let pairs = fixture("pairs.jsonl");
        let text = format!(
            "[model]\nmodel_name_or_path = {model:?}\n\
             [data]\nformat = \"pairs\"\ntrain = {pairs:?}\n\
             max_length = 128\nmax_prompt_length = 64\n{data}\n\
             [loss.{loss}]\n\
             [batch]\nbatch_size = 8\n\
             [optimizer]\nlearning_rate = 1e-3\n\
             [run]\noutput_dir = {:?}\n{run}\n",
            self.path("out"),
        );
        self.write("run.toml", text)
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_expo")), args)
    }

    /// A command of another copy of the binary.
    fn command_of(&self, binary: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command
            .args(args)
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("HF_HUB_OFFLINE", "1")
            .env_remove("HF_HOME")
            .env_remove("HF_HUB_CACHE")
            .env_remove("OPENAI_API_KEY")
            .env_remove("OPENAI_BASE_URL")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> End {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(args).output().unwrap();
        End {
            code: status.code(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs a command that succeeds; its standard output.
    fn succeed(&self, args: &[&str]) -> String {
        let end = self.run(args);
        assert_eq!(end.code, Some(0), "{args:?}: {}", end.err);
        end.out
    }

    /// Runs a command that refuses its input: exit code 2, one line that has all of `words`, and
    /// no output folder.
    #[track_caller]
    fn refuse(&self, args: &[&str], words: &[&str]) {
        let end = self.run(args);
        let last = end.err.lines().last().unwrap_or_default();
        assert_eq!(end.code, Some(2), "{args:?}: {}", end.err);
        assert!(last.starts_with("error: "), "{}", end.err);
        for word in words {
            assert!(last.contains(word), "no {word:?} in {last:?}");
        }
        assert_eq!(end.out, "");
        assert!(!self.path("out").exists(), "{args:?} left an output folder");
    }

    /// Refuses a training run.
    #[track_caller]
    fn refuse_run(&self, config: &Path, sets: &[&str], words: &[&str]) {
        let config = config.to_str().unwrap();
        let mut args = vec!["train", "--config", config];
        for set in sets {
            args.extend(["--set", set]);
        }
        self.refuse(&args, words);
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap();
    text(path).lines().map(parse).collect()
}
