//! Rows, tokens, lengths, samples and the order of an epoch.

use crate::support::{fixture, real_fixtures};
use expo::data::format::Format;
use expo::data::{
    AddBos, Dataset, Example, Files, Invalid, OnInvalid, RowConfig, RowReport, Samples, Tokenize,
    Tokenizer, TruncationMode, epoch_order, mismatched_answers,
};
use expo::error::Result;
use expo::loss::{Needs, Role};
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

mod answers;
mod chat;
mod columns;
mod directories;
mod files;
mod flat;
pub(crate) mod formats;
mod lint;
mod mixture;
mod rows;
mod sft;
mod shapes;
mod skipped;
mod templates;
mod tokens;
mod turns;
mod whole;

const PAIR: Needs = Needs::referenced_pair();
const SAMPLED: Needs = Needs {
    all: &[Role::Chosen, Role::Rejected, Role::Sampled],
    ..PAIR
};
const KTO: Needs = Needs {
    all: &[],
    any: &[Role::Chosen, Role::Rejected],
    batch: &[Role::Mismatched],
    soft_labels: false,
    ..PAIR
};

/// A folder that holds one dataset file.
struct Scene {
    folder: TempDir,
    files: Files,
    config: RowConfig,
    tokenizer: Tokenizer,
}

impl Scene {
    fn new(format: &str, tokenizer: &str, contents: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, contents).unwrap();
        Self {
            files: path.into(),
            config: RowConfig::new(Format::named(format).unwrap()),
            tokenizer: Tokenizer::open(&fixture("data").join(tokenizer)).unwrap(),
            folder,
        }
    }

    /// Rows of (prompt, chosen, rejected).
    fn pairs(tokenizer: &str, rows: &[[&str; 3]]) -> Self {
        let rows: Vec<String> = rows
            .iter()
            .map(|[p, c, r]| {
                serde_json::json!({"prompt": p, "chosen": c, "rejected": r}).to_string()
            })
            .collect();
        Self::new("pairs", tokenizer, rows.join("\n"))
    }

    fn open(&self, needs: &Needs) -> Result<Dataset> {
        self.open_with(needs, None)
    }

    fn open_with(&self, needs: &Needs, samples: Option<&Samples>) -> Result<Dataset> {
        let (config, tokenizer) = (&self.config, &self.tokenizer);
        Dataset::open(&self.files, config, tokenizer, needs, samples)
    }

    fn samples(&self, contents: &str) -> Result<Samples> {
        let path = self.folder.path().join("samples.jsonl");
        std::fs::write(&path, contents).unwrap();
        Samples::open(&path.into(), self.tokenizer.max_id() as usize + 1)
    }

    /// The error of a reading that stops at the first row it cannot use, without the folder's name.
    fn complaint(&self, needs: &Needs) -> String {
        let mut config = self.config.clone();
        config.on_invalid = OnInvalid::Error;
        let opened = Dataset::open(&self.files, &config, &self.tokenizer, needs, None);
        self.strip(&opened.unwrap_err().to_string())
    }

    fn strip(&self, message: &str) -> String {
        let folder = format!("{}/", self.folder.path().display());
        message.replace(&folder, "")
    }

    /// Each token as its own text.
    fn words(&self, ids: &[u32]) -> Vec<String> {
        ids.iter()
            .map(|&id| self.tokenizer.decode(&[id], false).unwrap())
            .collect()
    }
}

fn examples(dataset: &Dataset) -> Vec<Example> {
    dataset.examples().collect::<Result<_>>().unwrap()
}

/// All that a dataset has.
fn contents(dataset: &Dataset) -> (Vec<Example>, RowReport, String) {
    let fingerprint = dataset.fingerprint.clone();
    (examples(dataset), dataset.report.clone(), fingerprint)
}

fn ids(example: &Example, role: Role) -> Vec<&[u32]> {
    let of = example.responses.iter().filter(|r| r.role == role);
    of.map(|response| response.ids.as_slice()).collect()
}

fn complaint(contents: impl AsRef<[u8]>) -> String {
    Scene::new("pairs", "byte-level", contents).complaint(&PAIR)
}

const ROW: &str = r#"{"prompt": "p", "chosen": "yes", "rejected": "no", "source": 7}"#;
