//! The program on a model directory of somebody else, with little address space.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A config, a row and a model; the model's files are the test's to change.
pub struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    /// A pair of conversations, and the tokenizer and the config of the smallest model.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scene = Self { folder };
        std::fs::create_dir(scene.model()).unwrap();
        let tiny = super::parsers::repository().join("configs/tiny/model");
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(tiny.join(name), scene.model().join(name)).unwrap();
        }
        let row = serde_json::json!({
            "prompt": [{"role": "user", "content": "Why?"}],
            "chosen": [{"role": "assistant", "content": "So."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        });
        scene.rows(&row.to_string());
        let config = format!(
            "[model]\nmodel_name_or_path = {:?}\n[data]\nformat = \"pairs\"\ntrain = {:?}\n\
             max_length = 128\nmax_prompt_length = 100\n[loss.dpo]\n[run]\noutput_dir = {:?}\nmax_steps = 1\n",
            scene.model(),
            scene.path("rows.jsonl"),
            scene.path("run"),
        );
        std::fs::write(scene.path("c.toml"), config).unwrap();
        scene
    }

    pub fn model(&self) -> PathBuf {
        self.path("model")
    }

    pub fn rows(&self, lines: &str) {
        std::fs::write(self.path("rows.jsonl"), lines).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `expo data show` says on stderr, without the directory, and its exit code, in so much
    /// address space for each of its processes. A signal has no code.
    pub fn show(&self) -> (String, Option<i32>) {
        let program = Path::new(env!("CARGO_BIN_EXE_expo"));
        let output = Command::new("sh")
            .args(["-c", "ulimit -c 0; ulimit -v 1000000; exec \"$0\" \"$@\""])
            .arg(program)
            .args(["data", "show", "--config"])
            .arg(self.path("c.toml"))
            .env("RAYON_NUM_THREADS", "1")
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let place = format!("{}/", self.folder.path().display());
        (said.replace(&place, ""), output.status.code())
    }

    /// The one line of a refusal, behind the place and that no row is usable.
    pub fn refusal(&self, what: &str) -> String {
        let (said, code) = self.show();
        assert_eq!(code, Some(2), "{what}: {said}");
        assert_eq!(said.lines().count(), 1, "{what}: {said}");
        assert!(said.len() < 4096, "{what}: {} bytes", said.len());
        assert!(
            !said.trim_end().contains(char::is_control),
            "{what}: {said:?}"
        );
        let line = said.trim_end().trim_start_matches("error: ");
        let line = line.trim_start_matches("rows.jsonl: none of 1 rows is usable; ");
        line.trim_start_matches("rows.jsonl:1: ").to_owned()
    }
}
