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
        ("story.num_samples=1".to_owned(), ["[story]", "num_samples"]),
        ("story.beta=0".to_owned(), ["[story]", "beta"]),
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
