//! Numbers that a run cannot go on with: what it says, and that nothing of it is kept.

use std::fs;
use std::path::Path;
use std::process::Command;

use expo::io::durable::verify;
use serde_json::Value;

use crate::support::fixture;

/// A run of three steps, saved at each, with these overrides: its exit code and what it said last.
fn train(folder: &Path, loss: &str, sets: &[&str]) -> (Option<i32>, String) {
    let (model, pairs) = (fixture("llama"), fixture("pairs.jsonl"));
    let config = format!(
        "[model]\nmodel_name_or_path = {model:?}\n\
         [data]\nformat = \"pairs\"\ntrain = \"{}[:6]\"\nmax_length = 64\n\
         [loss.{loss}]\n[batch]\nbatch_size = 2\n\
         [schedule]\nlr_scheduler_type = \"constant\"\n\
         [run]\noutput_dir = \"run\"\ncache_dir = \"cache\"\nmax_steps = 3\nsave_steps = 1\n",
        pairs.display(),
    );
    fs::write(folder.join("run.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_expo"));
    command.args(["train", "--config", "run.toml"]);
    for set in sets {
        command.args(["--set", set]);
    }
    let out = command.current_dir(folder).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    let last = said.lines().last().unwrap_or_default().to_owned();
    (out.status.code(), last)
}

fn records(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("run/non_finite.jsonl")).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn an_update_that_overflows_is_not_made() {
    for (optim, rate) in [
        ("adamw", "1e38"),
        ("adamw_8bit", "1e38"),
        ("adam", "3e38"),
        ("rmsprop", "1e38"),
        ("lion", "3.4e38"),
        ("muon", "1e38"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let sets = [
            &format!("optimizer.optim={optim:?}")[..],
            &format!("optimizer.learning_rate={rate}"),
        ];
        let (code, said) = train(folder.path(), "dpo", &sets);
        assert_eq!(code, Some(3), "{optim}: {said}");
        assert!(said.contains("step 1: the update of "), "{optim}: {said}");
        assert!(
            said.contains("overflows at a learning rate of"),
            "{optim}: {said}"
        );
        let record = &records(folder.path())[0];
        assert_eq!(record["step"], 1);
        let first = record["parameters"][0].as_str().unwrap();
        assert!(said.contains(first), "{optim}: {said}");
        assert!(!folder.path().join("run/model.safetensors").exists());
    }
}

#[test]
fn an_overflow_leaves_the_checkpoints_before_it_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    // The first steps are made at small rates, the third at one that no f32 holds.
    let sets = ["optimizer.learning_rate=1e-3", "run.max_steps=2"];
    assert_eq!(train(folder.path(), "dpo", &sets).0, Some(0));
    let checkpoint = folder.path().join("run/checkpoint-2");
    let before = fs::read(checkpoint.join("model.safetensors")).unwrap();
    let (code, said) = train(
        folder.path(),
        "dpo",
        &["optimizer.learning_rate=1e38", "run.max_steps=3"],
    );
    assert_ne!(code, Some(0), "{said}");
    verify(&checkpoint).unwrap();
    assert!(fs::read(checkpoint.join("model.safetensors")).unwrap() == before);
}

#[test]
fn steps_that_overflow_are_passed_over_like_others() {
    let folder = tempfile::tempdir().unwrap();
    let sets = ["optimizer.learning_rate=1e38", "run.max_non_finite_steps=3"];
    let (code, said) = train(folder.path(), "dpo", &sets);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(records(folder.path()).len(), 3);
    let weights = |path: &Path| fs::read(path.join("model.safetensors")).unwrap();
    // No update was made.
    let model = expo::model::weights::ModelFolder::open(&folder.path().join("run")).unwrap();
    let base = expo::model::weights::ModelFolder::open(&fixture("llama")).unwrap();
    assert_eq!(model.content_hash().unwrap(), base.content_hash().unwrap());
    assert!(!weights(&folder.path().join("run")).is_empty());
}

#[test]
fn a_loss_that_is_infinite_from_the_start_is_said_to_be() {
    for (loss, set) in [
        ("ipo", "loss.ipo.beta=1e-300"),
        ("sppo_hard", "loss.sppo_hard.beta=1e-300"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (code, said) = train(folder.path(), loss, &[set]);
        assert_eq!(code, Some(3), "{loss}: {said}");
        assert!(said.contains("step 0: row "), "{said}");
        assert!(said.contains(&format!("the loss {loss} is inf")), "{said}");
        assert!(!said.contains("score again"), "{said}");
        assert!(!folder.path().join("run").exists());
    }
}

#[test]
fn zero_has_no_sign_in_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = train(folder.path(), "kto", &[]);
    assert_eq!(code, Some(0), "{said}");
    let text = fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    assert!(text.contains("\"kl\":0.0"), "{text}");
    assert!(!text.contains("-0.0,") && !text.contains("-0.0}"), "{text}");
}
