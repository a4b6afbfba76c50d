//! What the integration tests share.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use expo::data::{Example, Response};
use expo::loss::Role;
use expo::model::Decoder;
use expo::model::weights::ModelFolder;
use serde_json::Value;

/// The folder of real data, models and oracle values; `None`, said on stderr, where there is none.
pub fn real_fixtures() -> Option<PathBuf> {
    let folder = std::env::var_os("EXPO_FIXTURES").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: EXPO_FIXTURES is not set");
    }
    folder
}

/// The project's own models, each with `{name}-ref` and oracle values: together they have every
/// trait of every family that the decoder supports.
pub const MODELS: [&str; 25] = [
    "neox",
    "neox-sequential",
    "llama",
    "llama3",
    "llama-linear",
    "llama-yarn",
    "llama-dynamic",
    "mistral",
    "qwen2",
    "qwen2-window",
    "qwen3",
    "qwen3-window",
    "gemma2",
    "gemma3",
    "gemma3-multimodal",
    "gpt2",
    "granite",
    "mixtral",
    "olmo2",
    "olmo3",
    "phi3",
    "phi3-window",
    "qwen3_moe",
    "qwen3_moe-fused",
    "smollm3",
];

/// A file of the project's own fixtures, `tests/fixtures/{name}`.
pub fn fixture(name: &str) -> PathBuf {
    // A test binary may run elsewhere than it was built.
    let root = std::env::var_os("CARGO_MANIFEST_DIR");
    let root = root.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    root.join("tests/fixtures").join(name)
}

/// Whether a condition comes to hold within a time.
pub fn holds_within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for a condition, for minutes where the machine is busy.
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    let limit = Duration::from_secs(300);
    assert!(holds_within(limit, holds), "after {limit:?} not: {what}");
}

/// A JSON file.
pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The model of a folder.
pub fn load(folder: &Path, dtype: DType) -> Decoder {
    ModelFolder::open(folder)
        .unwrap()
        .load(dtype, &Device::Cpu)
        .unwrap()
        .0
}

/// Token ids.
pub fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

/// The pairs of an oracle file.
pub fn pairs(oracle: &Value) -> Vec<Example> {
    let pairs = oracle["pairs"].as_array().unwrap().iter().enumerate();
    let example = |(row, pair): (usize, &Value)| Example {
        row,
        prompt: ids(&pair["prompt_ids"]),
        responses: vec![
            Response::new(Role::Chosen, ids(&pair["chosen_ids"])),
            Response::new(Role::Rejected, ids(&pair["rejected_ids"])),
        ],
        preference: None,
    };
    pairs.map(example).collect()
}

/// Compares a file with what it should be, or writes it with `EXPO_UPDATE=1` in the environment.
pub fn check(path: &Path, want: &str) {
    let is = fs::read_to_string(path).unwrap_or_default();
    if std::env::var_os("EXPO_UPDATE").is_some() {
        if is != want {
            fs::write(path, want).unwrap();
        }
        return;
    }
    let line = is.lines().zip(want.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or_else(|| is.lines().count().min(want.lines().count()));
    assert!(
        is == want,
        "{}:{} is not what the code says:\n  {}\nto write it: \
         EXPO_UPDATE=1 cargo test --test main -- documents generated",
        path.display(),
        line + 1,
        want.lines().nth(line).unwrap_or_default()
    );
}

/// The text with the lines from the first that `begins` up to the first that `ends` replaced.
pub fn replaced(text: &str, begins: &str, ends: impl Fn(&str) -> bool, by: &str) -> String {
    let start = text.find(begins).expect(begins);
    let after = text[start..].split_inclusive('\n');
    let length: usize = after.take_while(|line| !ends(line)).map(str::len).sum();
    format!("{}{by}{}", &text[..start], &text[start + length..])
}
