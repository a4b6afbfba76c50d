//! `timings.jsonl`: a line for the scoring pass, then one per record.

use std::path::Path;

use expo::config::Config;
use expo::train::Run;
use serde_json::Value;

use crate::support::fixture;

/// The lines of a run that keeps its reference log-probs in `folder/cache`.
fn timings(folder: &Path, name: &str) -> Vec<Value> {
    let (model, rows) = (fixture("neox"), fixture("pairs.jsonl"));
    let run = folder.join(name);
    let toml = format!(
        "[model]\nmodel_name_or_path = {model:?}\n\
         [data]\nformat = \"pairs\"\ntrain = {rows:?}\neval = {rows:?}\n\
         max_length = 96\nmax_prompt_length = 32\n[loss.dpo]\n[batch]\nbatch_size = 4\n\
         [run]\noutput_dir = {run:?}\ncache_dir = {:?}\nmax_steps = 3\neval_steps = 1\n",
        folder.join("cache")
    );
    let config = Config::parse(&toml, &[]).unwrap_or_else(|error| panic!("{error}\n{toml}"));
    Run::open(config, &mut |_| {})
        .unwrap()
        .train(&mut |_| {})
        .unwrap();
    let text = std::fs::read_to_string(run.join("timings.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn the_scoring_pass_is_step_0_where_one_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let first = timings(folder.path(), "first");
    let second = timings(folder.path(), "second");
    let steps = |lines: &[Value]| -> Vec<u64> {
        lines.iter().map(|l| l["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps(&first), [0, 1, 2, 3]);
    assert_eq!(steps(&second), [1, 2, 3]);
    for line in first.iter().chain(&second) {
        for key in ["seconds", "rows_per_second", "tokens_per_second"] {
            assert!(line[key].as_f64().unwrap() > 0.0, "{key} of {line}");
        }
        // Only Linux tells, and of processor time only hundredths.
        if cfg!(target_os = "linux") {
            assert!(line["cpu_seconds"].as_f64().unwrap() >= 0.0, "{line}");
            assert!(
                line["peak_memory_bytes"].as_u64().unwrap() > 1 << 20,
                "{line}"
            );
        }
    }
}
