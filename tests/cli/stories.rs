//! The quickstart, cut short.

use std::path::Path;

use serde_json::Value;

use super::{Place, lines, text};

/// A run of the quickstart on a few of its rows, from the repository's root as its paths want it.
fn quickstart(place: &Place, sets: &[&str]) -> super::End {
    let out = place.path("out");
    let to = format!("run.output_dir={}", out.display());
    let mut args = vec!["train", "--config", "configs/quickstart.toml", "--set", &to];
    for set in [
        "data.train=configs/quickstart/train.jsonl.gz[:40]",
        "data.eval=configs/quickstart/eval.jsonl.gz[:10]",
        "batch.batch_size=20",
        "run.num_train_epochs=2",
        "story.num_samples=2",
    ]
    .iter()
    .chain(sets)
    {
        args.extend(["--set", set]);
    }
    let mut command = place.command(&args);
    let output = command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    super::End {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn the_quickstart_holds_its_samples_against_what_is_true() {
    let place = Place::new();
    let end = quickstart(&place, &[]);
    assert_eq!(end.code, Some(0), "{}", end.err);
    for word in [
        "before",
        "after",
        "Bradley-Terry",
        "DPO beta 0.1",
        "entropy",
        "distinct-2",
        "KL",
    ] {
        assert!(end.out.contains(word), "no {word} in {}", end.out);
    }
    let summary: Value = serde_json::from_str(&text(&place.path("out/summary.json"))).unwrap();
    let of = |column: usize, key: &str| {
        summary["story"]["columns"][column][key]["value"]
            .as_f64()
            .unwrap()
    };
    // The model has learned the grammar before anything is asked of it.
    assert!(of(0, "in_grammar") > 0.8 && (of(0, "score") - of(2, "score")).abs() < 0.5);
    // The model before training is the reference, up to rounding.
    assert!(of(0, "kl").abs() < 1e-4 && of(1, "kl").abs() > 1e-3);
    assert!((of(3, "score") - 2.0).abs() < 0.01 && (of(4, "score") - 4.49).abs() < 0.01);
    let record = &lines(&place.path("out/metrics.jsonl"))[0];
    assert!(record["eval_kl"].as_f64().unwrap().abs() < 1e-4);
}

/// A loss that needs no samples has none drawn for it.
#[test]
fn the_quickstart_takes_other_losses() {
    let place = Place::new();
    let end = quickstart(&place, &["loss=dpo", "run.max_steps=1"]);
    assert_eq!(end.code, Some(0), "{}", end.err);
    assert!(!end.err.contains("samples in"), "{}", end.err);
    assert!(end.out.contains("in the grammar"), "{}", end.out);
}

#[test]
fn what_stories_refuse() {
    let place = Place::new();
    let other = place.write("other.jsonl", "{\"prompt\": \"Who are you?\"}\n");
    for (set, words) in [
        (
            "story.grammar=none.toml".to_owned(),
            ["none.toml", "no such file"],
        ),
        (
            "story.num_samples=1".to_owned(),
            [
                "--set story.num_samples=1:",
                "num_samples must be in [2, 100000] (got 1)",
            ],
        ),
        (
            "story.beta=0".to_owned(),
            ["--set story.beta=0:", "beta must be"],
        ),
        (
            format!("story.prompts={}", other.display()),
            ["other.jsonl:1", "no prompt of the grammar"],
        ),
    ] {
        let end = quickstart(&place, &["loss=dpo", &set]);
        assert_eq!(end.code, Some(2), "{set}: {}", end.err);
        let last = end.err.lines().last().unwrap();
        assert!(words.iter().all(|word| last.contains(word)), "{last}");
        assert!(!place.path("out").exists(), "{set}");
    }
}

/// Rows are shown whatever command the config is for, and before any sample is drawn.
#[test]
fn rows_of_every_kind_of_config_are_shown() {
    let place = Place::new();
    for (config, split, words) in [
        ("quickstart.toml", "train", &["chosen", "rejected"][..]),
        ("quickstart.toml", "eval", &["chosen", "rejected"]),
        ("tiny.toml", "train", &["chosen"]),
    ] {
        let config = format!("configs/{config}");
        let args = [
            "data", "show", "--config", &config, "--split", split, "--row", "1",
        ];
        let output = place
            .command(&args)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(words.iter().all(|word| out.contains(word)), "{out}");
    }
    let pairs = crate::support::fixture("pairs.jsonl");
    let prompts = place.write("p.txt", "Who is in the barn?\n");
    let model = crate::support::fixture("llama");
    let text = format!(
        "[model]\nmodel_name_or_path = {model:?}\n[data]\nformat = \"pairs\"\ntrain = {pairs:?}\n\
         max_length = 128\nmax_prompt_length = 64\n"
    );
    let bare = place.write("sft.toml", &text);
    let bare = bare.to_str().unwrap();
    let out = place.succeed(&["data", "show", "--config", bare, "--row", "0"]);
    assert!(out.contains("chosen") && !out.contains("rejected"), "{out}");
    let mixed = format!(
        "{text}scores = \"bradley_terry\"\nunlabelled = {prompts:?}\nsamples = \"auto\"\n\
         [loss.cexpo]\n"
    );
    let mixed = place.write("mixed.toml", mixed);
    let mixed = ["data", "show", "--config", mixed.to_str().unwrap()];
    let out = place.succeed(&[&mixed[..], &["--split", "unlabelled", "--row", "0"]].concat());
    assert!(out.contains("barn"), "{out}");
    place.refuse(
        &[&mixed[..], &["--split", "eval"]].concat(),
        &["data.eval", "--split"],
    );
}
