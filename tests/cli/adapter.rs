//! Runs that train an adapter, and commands that read one.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Place, lines, str};
use crate::support::fixture;

/// A run of a few steps that trains an adapter beside a model; its output directory.
fn trained(place: &Place, model: &Path, adapter: &str) -> PathBuf {
    let config = place.config(model, "dpo", "", "max_steps = 3\nlogging_steps = 1");
    let text = super::text(&config).replace("[loss.dpo]", &format!("{adapter}\n[loss.dpo]"));
    let text = text.replace("1e-3", "1e-2");
    std::fs::write(&config, text).unwrap();
    place.succeed(&["train", str(&config)]);
    place.path("out")
}

/// The sums of log-probs of all answers.
fn scores(place: &Place, args: &[&str]) -> Vec<f64> {
    let (out, rows) = (place.path("scores.jsonl"), fixture("pairs.jsonl"));
    let all = [
        &[
            "score",
            "--data",
            str(&rows),
            "--out",
            str(&out),
            "--overwrite",
        ],
        args,
    ]
    .concat();
    place.succeed(&all);
    let of =
        |line: Value| ["chosen", "rejected"].map(|side| line[side]["log_prob"].as_f64().unwrap());
    lines(&out).into_iter().flat_map(of).collect()
}

#[track_caller]
fn near(a: &[f64], b: &[f64]) {
    assert!(
        !a.is_empty() && a.len() == b.len(),
        "{} and {} numbers",
        a.len(),
        b.len()
    );
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} is not {b}");
    }
}

#[test]
fn an_adapter_is_trained_saved_and_read_by_every_command() {
    for (model, adapter) in [
        ("llama", "[adapter]\nr = 4\nalpha = 8"),
        (
            "neox",
            "[adapter]\nr = 2\nuse_dora = true\ntarget_modules = \"attention\"",
        ),
        (
            "gpt2",
            "[adapter]\nr = 2\nuse_rslora = true\nmodules_to_save = [\"ln_f\", \"lm_head\"]",
        ),
    ] {
        let place = Place::new();
        let base = fixture(model);
        let out = trained(&place, &base, adapter);
        for name in [
            "adapter_config.json",
            "adapter_model.safetensors",
            "tokenizer.json",
        ] {
            assert!(out.join(name).is_file(), "{model}: no {name}");
        }
        assert!(!out.join("model.safetensors").exists() && !out.join("config.json").exists());
        let records = lines(&out.join("metrics.jsonl"));
        let first = records[0]["loss"].as_f64().unwrap();
        assert!((first - 2f64.ln()).abs() < 1e-5, "{model}: {first}");

        let of_directory = scores(&place, &["--model", str(&out)]);
        let beside = scores(&place, &["--model", str(&base), "--adapter", str(&out)]);
        assert_eq!(of_directory, beside, "{model}");
        let merged = place.path("merged");
        place.succeed(&["merge", "--adapter", str(&out), "--out", str(&merged)]);
        near(&scores(&place, &["--model", str(&merged)]), &beside);
        let of_base = scores(&place, &["--model", str(&base)]);
        assert!(
            of_base
                .iter()
                .zip(&beside)
                .any(|(a, b)| (a - b).abs() > 1e-3),
            "{model}"
        );

        let drawn = |model: &Path| {
            let args = [
                "sample",
                "--model",
                str(model),
                "--prompt",
                "The",
                "--greedy",
            ];
            place.succeed(&[&args[..], &["--max-new-tokens", "8"]].concat())
        };
        assert_eq!(drawn(&out), drawn(&merged), "{model}");
        place.succeed(&["verify", str(&out)]);
    }
}

#[test]
fn half_an_adapter_and_half_of_another_are_merged() {
    let place = Place::new();
    let base = fixture("llama");
    let out = place.path("adapter");
    std::fs::rename(trained(&place, &base, "[adapter]\nr = 2"), &out).unwrap();
    let [twice, once] = ["twice", "once"].map(|name| place.path(name));
    let both = [
        "--adapter",
        str(&out),
        "--adapter",
        str(&out),
        "--weight",
        "0.25",
    ];
    let args = [
        &["merge", "--out", str(&twice)],
        &both[..],
        &["--weight", "0.75"],
    ]
    .concat();
    place.succeed(&args);
    place.succeed(&["merge", "--adapter", str(&out), "--out", str(&once)]);
    let [a, b] = [&twice, &once].map(|model| scores(&place, &["--model", str(model)]));
    near(&a, &b);
    place.refuse(
        &[
            "merge",
            "--adapter",
            str(&out),
            "--weight",
            "1",
            "--weight",
            "2",
            "--out",
            "more",
        ],
        &["2 weights for 1 adapters", "--weight"],
    );
    place.succeed(&[
        "merge",
        "--adapter",
        str(&out),
        "--weight",
        "0",
        "--out",
        "none",
    ]);
    let none = scores(&place, &["--model", str(&place.path("none"))]);
    assert_eq!(none, scores(&place, &["--model", str(&base)]));
}

/// The log-probs of a base model are the same column for every run on it.
#[test]
fn the_reference_of_an_adapter_is_the_cached_column_of_its_base() {
    let place = Place::new();
    let base = fixture("llama");
    let config = place.config(&base, "dpo", "", "max_steps = 1");
    place.succeed(&["train", str(&config)]);
    std::fs::remove_dir_all(place.path("out")).unwrap();
    let text = super::text(&config).replace("[loss.dpo]", "[adapter]\n[loss.dpo]");
    std::fs::write(&config, text).unwrap();
    let end = place.run(&["train", str(&config)]);
    assert_eq!(end.code, Some(0), "{}", end.err);
    assert!(
        end.err.contains("reference log-probs found in "),
        "{}",
        end.err
    );
}

#[test]
fn training_goes_on_with_an_adapter() {
    let place = Place::new();
    let base = fixture("llama");
    let first = trained(&place, &base, "[adapter]\nr = 2");
    let kept = place.path("first");
    std::fs::rename(&first, &kept).unwrap();
    // As the start, the policy is its own reference; as the base it is not.
    for (reference, model) in [("start", &base), ("base", &base), ("start", &kept)] {
        let adapter = match model == &kept {
            true => String::new(),
            false => format!("[adapter]\nfrom = {kept:?}\nreference = \"{reference}\""),
        };
        let out = trained(&place, model, &adapter);
        let loss = lines(&out.join("metrics.jsonl"))[0]["loss"]
            .as_f64()
            .unwrap();
        let at_start = (loss - 2f64.ln()).abs() < 1e-5;
        assert_eq!(at_start, reference == "start", "{loss}");
        let of = scores(&place, &["--model", str(&out)]);
        assert_ne!(of, scores(&place, &["--model", str(&kept)]));
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused() {
    let place = Place::new();
    let out = trained(&place, &fixture("llama"), "[adapter]\nr = 2");
    let kept = place.path("kept");
    std::fs::rename(&out, &kept).unwrap();
    let (neox, rows) = (fixture("neox"), fixture("pairs.jsonl"));
    let data = ["--data", str(&rows), "--out", "y"];
    place.refuse(
        &[
            &["score", "--model", str(&neox), "--adapter", str(&kept)],
            &data[..],
        ]
        .concat(),
        &["adapter"],
    );
    place.refuse(
        &[
            &["score", "--model", str(&neox), "--adapter", str(&neox)],
            &data[..],
        ]
        .concat(),
        &["adapter_config.json"],
    );
    let config = place.config(&fixture("llama"), "dpo", "", "");
    for (set, words) in [
        ("adapter.target_modules=[\"q_prj\"]", "q_proj"),
        ("adapter.r=0", "adapter.r"),
        ("adapter.dropout=1.0", "adapter.dropout"),
        ("adapter.from=\"nowhere\"", "adapter.from"),
    ] {
        place.refuse_run(&config, &[set], &[words]);
    }
    place.refuse_run(
        &config,
        &["adapter.r=2", "model.trainable=[\"*\"]"],
        &["model.trainable"],
    );
}

/// What a run does with an adapter is what its section says, beside what the directory says.
#[test]
fn a_section_changes_what_a_directory_leaves_open() {
    let place = Place::new();
    let base = fixture("neox");
    let kept = place.path("kept");
    let first = "[adapter]\nr = 2\nmodules_to_save = [\"final_layer_norm\"]";
    std::fs::rename(trained(&place, &base, first), &kept).unwrap();
    let adapter = format!("[adapter]\nfrom = {kept:?}\ndropout = 0.25");
    let out = trained(&place, &base, &adapter);
    let config: Value =
        serde_json::from_str(&super::text(&out.join("adapter_config.json"))).unwrap();
    assert_eq!(config["lora_dropout"], 0.25);
    assert_eq!(config["base_model_name_or_path"], str(&base));
    std::fs::remove_dir_all(&out).unwrap();

    // `model.adapter` is `adapter.from`, and the base that is saved is the one that is named.
    let config = place.config(&base, "dpo", "", "max_steps = 1");
    let set = format!("model.adapter={kept:?}");
    place.succeed(&[
        "train",
        str(&config),
        "--set",
        &set,
        "--set",
        "adapter.reference=base",
    ]);
    let config: Value =
        serde_json::from_str(&super::text(&out.join("adapter_config.json"))).unwrap();
    assert_eq!(config["base_model_name_or_path"], str(&base));
    std::fs::remove_dir_all(&out).unwrap();

    let config = place.config(&base, "dpo", "", "");
    place.refuse_run(
        &config,
        &[&set, "model.trainable=[\"*\"]"],
        &["model.trainable"],
    );
    // A run's reference is the adapter where that is what it begins with.
    let from = format!("adapter.from={kept:?}");
    let hashes = ["base", "start"].map(|reference| {
        let (set, out) = (
            format!("adapter.reference={reference}"),
            place.path(reference),
        );
        let args = [
            "score",
            "--config",
            str(&config),
            "--set",
            &from,
            "--set",
            &set,
        ];
        place.succeed(&[&args[..], &["--out", str(&out)]].concat());
        lines(&out)[0]["model"].clone()
    });
    assert_ne!(hashes[0], hashes[1]);
}

/// PEFT saves a copy of the base's head with an adapter of it.
#[test]
fn an_adapter_of_the_head_is_read_in_bf16_and_merged() {
    for (model, name) in [("neox", "neox.head"), ("qwen2", "qwen2.head")] {
        let place = Place::new();
        let (base, adapter) = (fixture(model), fixture(&format!("adapters/{name}")));
        let args = ["--model", str(&base), "--adapter", str(&adapter)];
        let beside = scores(&place, &args);
        scores(&place, &[&args[..], &["--dtype", "bf16"]].concat());
        let merged = place.path("merged");
        place.succeed(&[&["merge", "--out", str(&merged)], &args[..]].concat());
        near(&scores(&place, &["--model", str(&merged)]), &beside);
    }
}
