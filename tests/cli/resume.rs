//! Runs that are asked to end, and `expo verify`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{End, Place, str};
use crate::support::{fixture, wait_until};

/// A run that takes longer than any test.
fn endless(place: &Place) -> std::path::PathBuf {
    let run = "max_steps = 1000000\nsave_steps = 50\nsave_total_limit = 2";
    place.config(&fixture("neox"), "dpo", "", run)
}

fn newest(out: &Path) -> u64 {
    let latest = fs::read_to_string(out.join("LATEST")).unwrap();
    let step = latest.trim_end().strip_prefix("checkpoint-").unwrap();
    step.parse().unwrap()
}

#[test]
fn a_run_whose_time_is_over_is_saved_and_gone_on_with() {
    let place = Place::new();
    let config = endless(&place);
    let mut before = 0;
    for _ in 0..2 {
        let said = place.succeed(&["train", "--config", str(&config), "--max-time", "1s"]);
        assert!(said.starts_with("out of time after step "), "{said}");
        assert!(said.ends_with("run the same command to resume\n"), "{said}");
        let step = newest(&place.path("out"));
        assert!(step > before, "{step}");
        before = step;
    }
    let said = place.succeed(&["verify", "out"]);
    assert!(
        said.lines().all(|line| line.starts_with("whole ")),
        "{said}"
    );
    for time in ["1", "0s", "soon"] {
        let end = place.run(&["train", "--config", str(&config), "--max-time", time]);
        assert_eq!(end.code, Some(2), "{}", end.err);
        assert!(
            end.err.contains("is not a time; e.g. 90s, 45m, 3h"),
            "{}",
            end.err
        );
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_after_its_step() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let place = Place::new();
        let config = endless(&place);
        let mut command = place.command(&["train", "--config", str(&config)]);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let child = child.unwrap();
        // Once there is a line of metrics the steps have begun.
        wait_until("a line of metrics", || {
            fs::read(place.path("out/metrics.jsonl")).is_ok_and(|text| !text.is_empty())
        });
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        let last = said.lines().last().unwrap();
        assert!(
            last.starts_with("interrupted after step ") && last.contains("saved in "),
            "{last}"
        );
        let step = newest(&place.path("out"));
        let lines = fs::read_to_string(place.path("out/metrics.jsonl")).unwrap();
        assert_eq!(lines.lines().count() as u64, step);
        place.succeed(&["verify", &format!("out/checkpoint-{step}")]);
    }
}

#[test]
fn what_is_damaged_is_found() {
    let place = Place::new();
    let run = "max_steps = 3\nsave_steps = 1";
    let config = place.config(&fixture("neox"), "dpo", "", run);
    place.succeed(&["train", "--config", str(&config)]);
    let damage = |name: &str| {
        let path = place.path("out").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(path, bytes).unwrap();
    };
    damage("checkpoint-2/model.safetensors");
    damage("tokenizer.json");
    let End { code, out, err } = place.run(&["verify", "out"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.starts_with("error: out: 2 of ")
            && err.ends_with(
                " damaged; resume from the newest whole checkpoint: expo train out/config.toml \
                 --resume out/checkpoint-3\n"
            ),
        "{err}"
    );
    let damaged: Vec<&str> = out.lines().filter(|l| l.starts_with("damaged ")).collect();
    assert!(damaged[0].contains("out/checkpoint-2/model.safetensors: is damaged: its SHA-256"));
    assert!(damaged[1].contains("out/tokenizer.json"), "{out}");
    assert_eq!(damaged.len(), 2, "{out}");
    let json = place.run(&["verify", "out", "--json"]).out;
    let found = json
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    assert_eq!(found.filter(|one| one["whole"] == false).count(), 2);
    for (name, word) in [
        ("cache", "neither run.json nor MANIFEST.json"),
        ("no", "no such file"),
    ] {
        let end = place.run(&["verify", name]);
        assert_eq!(end.code, Some(2), "{}", end.err);
        assert!(end.err.contains(word), "{}", end.err);
    }
}

#[test]
fn a_run_that_writes_no_model_is_finished_and_whole_without_one() {
    let place = Place::new();
    let run = "max_steps = 2\nsave_steps = 1\nsave_model = false";
    let config = place.config(&fixture("neox"), "dpo", "", run);
    let train = ["train", "--config", str(&config)];
    place.succeed(&train);
    let out = place.path("out");
    for name in ["config.json", "model.safetensors", "MANIFEST.json"] {
        assert!(!out.join(name).exists(), "{name}");
    }
    assert!(out.join("checkpoint-2/model.safetensors").is_file());
    let said = place.succeed(&["verify", "out"]);
    assert!(said.lines().all(|l| l.starts_with("whole ")), "{said}");
    assert!(said.contains("out/summary.json"), "{said}");
    let again = place.succeed(&train);
    assert!(again.starts_with("the run is finished"), "{again}");
}
