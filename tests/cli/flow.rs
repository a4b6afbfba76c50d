//! What works: init, score, train, score.

use std::path::Path;
use std::process::Stdio;

use super::{Place, lines, str, text};
use crate::support::fixture;

fn init(place: &Place, family: &str) -> std::path::PathBuf {
    let out = place.path("model");
    let (config, tokenizer) = (fixture(family).join("config.json"), fixture(family));
    let said = place.succeed(&[
        "init",
        "--config-json",
        str(&config),
        "--tokenizer",
        str(&tokenizer),
        "--out",
        str(&out),
        "--seed",
        "7",
    ]);
    assert!(said.contains("parameters"), "{said}");
    out
}

#[test]
fn init_score_train_score() {
    for family in ["neox", "llama", "mistral", "qwen2-window", "qwen3"] {
        let place = Place::new();
        let model = init(&place, family);
        let (pairs, out) = (fixture("pairs.jsonl"), place.path("out"));
        let config = place.config(
            &model,
            "dpo",
            &format!("eval = {pairs:?}"),
            "num_train_epochs = 4\nsave_steps = 4\nsave_total_limit = 2",
        );
        let score = |model: &Path, out: &Path| {
            let (model, pairs, out) = (str(model), str(&pairs), str(out));
            place.succeed(&["score", "--model", model, "--data", pairs, "--out", out])
        };
        let (before, after) = (place.path("before.jsonl"), place.path("after.jsonl"));
        score(&model, &before);
        let said = place.succeed(&["train", "--config", str(&config), "--json"]);
        score(&out, &after);

        let summary: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(summary["steps"], 12);
        assert_eq!(summary["rows"], 96);
        let loss = |which: &str| summary["eval"][which]["eval_loss"].as_f64().unwrap();
        assert!((loss("first") - std::f64::consts::LN_2).abs() < 1e-5);
        assert!(loss("last") < 0.6, "{said}");
        let (before, after) = (lines(&before), lines(&after));
        assert_eq!((before.len(), after.len()), (24, 24));
        for (row, (b, a)) in before.iter().zip(&after).enumerate() {
            assert_eq!(b["row"], row);
            assert_eq!(b["chosen"]["tokens"], a["chosen"]["tokens"]);
            assert_eq!(b["token_hash"], a["token_hash"]);
            assert_ne!(b["chosen"]["log_prob"], a["chosen"]["log_prob"]);
            assert!(b["rejected"]["log_prob"].as_f64().unwrap() < 0.0);
        }
        for name in ["config.json", "generation_config.json", "tokenizer.json"] {
            assert!(out.join(name).is_file(), "{name}");
            assert!(out.join("checkpoint-8").join(name).is_file(), "{name}");
        }
        assert!(!out.join("checkpoint-4").exists());
    }
}

/// bf16 is another computation: its reference log-probs are its own, and a run learns as in f32.
#[test]
fn bf16_trains_scores_and_samples() {
    let place = Place::new();
    let model = init(&place, "llama");
    let config = place.config(&model, "dpo", "", "num_train_epochs = 2");
    let train = |dtype: &str, out: &str| {
        let (dtype, out) = (
            format!("model.dtype={dtype}"),
            format!("run.output_dir={out}"),
        );
        let said = place.succeed(&[
            "train",
            "--config",
            str(&config),
            "--set",
            &dtype,
            "--set",
            &out,
            "--json",
        ]);
        let summary: serde_json::Value = serde_json::from_str(&said).unwrap();
        let metrics = lines(
            &place
                .path(out.rsplit('=').next().unwrap())
                .join("metrics.jsonl"),
        );
        let loss = |at: usize| metrics[at]["loss"].as_f64().unwrap();
        assert_eq!(summary["steps"], 6);
        (loss(0), loss(metrics.len() - 1))
    };
    let (full, rounded) = (train("f32", "full"), train("bf16", "rounded"));
    for (first, last) in [full, rounded] {
        assert!((first - std::f64::consts::LN_2).abs() < 1e-3, "{first}");
        assert!(last < first, "{first} {last}");
    }
    assert!(
        rounded != full && (rounded.1 - full.1).abs() < 0.05,
        "{rounded:?} {full:?}"
    );
    let caches = std::fs::read_dir(place.path("cache/expo/reference")).unwrap();
    assert_eq!(caches.count(), 2);

    let (pairs, scores) = (fixture("pairs.jsonl"), place.path("scores.jsonl"));
    let (model, scores_name) = (str(&model), str(&scores));
    place.succeed(&[
        "score",
        "--model",
        model,
        "--data",
        str(&pairs),
        "--dtype",
        "bf16",
        "--out",
        scores_name,
    ]);
    assert_eq!(lines(&scores)[0]["dtype"], "bf16");
    let sampled = place.succeed(&[
        "sample",
        "--model",
        model,
        "--prompt",
        "Once",
        "--dtype",
        "bf16",
        "--max-new-tokens",
        "4",
    ]);
    assert!(!sampled.is_empty());
    let pairs = str(&pairs);
    let eight = [
        "score", "--model", model, "--data", pairs, "--dtype", "fp8", "--out", "x",
    ];
    let end = place.run(&eight);
    assert_eq!(end.code, Some(2));
    assert!(
        end.err.contains("\"fp8\" is not a dtype; f32 or bf16"),
        "{}",
        end.err
    );
    let from = format!("data.reference_log_probs={scores:?}");
    place.refuse_run(
        &config,
        &[&from],
        &["computed in bf16", "scores.jsonl", "score again in f32"],
    );

    // Draws of the two are not mixed, neither in a file nor in a cache.
    let draw = |dtype: &str| {
        let options = [
            "--max-new-tokens",
            "2",
            "--dtype",
            dtype,
            "--out",
            "drawn.jsonl",
        ];
        place.run(
            &[
                &["sample", "--model", model, "--prompts", pairs],
                &options[..],
            ]
            .concat(),
        )
    };
    assert_eq!(draw("f32").code, Some(0));
    assert_eq!(draw("bf16").code, Some(2));
}

#[test]
fn a_score_file_takes_the_place_of_the_scoring_pass() {
    let samples = fixture("samples.jsonl");
    let samples = format!("samples = {samples:?}");
    for (loss, data) in [("dpo", ""), ("cexpo", samples.as_str()), ("kto", "")] {
        let place = Place::new();
        let config = place.config(&fixture("neox"), loss, data, "num_train_epochs = 2");
        let (config, out, scores) = (str(&config), place.path("out"), place.path("s.jsonl"));
        place.succeed(&["score", "--config", config, "--out", str(&scores)]);
        assert!(!out.exists());
        place.succeed(&["train", "--config", config]);
        let own = text(&out.join("metrics.jsonl"));
        let again = place.path("again");
        let (set, to) = (
            format!("data.reference_log_probs={}", str(&scores)),
            format!("run.output_dir={}", str(&again)),
        );
        let end = place.run(&["train", "--config", config, "--set", &set, "--set", &to]);
        assert_eq!(end.code, Some(0), "{}", end.err);
        assert!(
            end.err.contains("reference log-probs found in"),
            "{}",
            end.err
        );
        assert_eq!(text(&again.join("metrics.jsonl")), own, "{loss}");
    }
}

#[test]
fn the_format_of_rows_is_seen_and_said() {
    let place = Place::new();
    let (model, hh) = (fixture("neox"), fixture("hh.jsonl"));
    let unpaired = place.write(
        "unpaired.jsonl",
        "{\"prompt\": \"Is it?\", \"completion\": \" Yes.\", \"label\": true}\n",
    );
    let odd = place.write("odd.jsonl", "{\"question\": \"Is it?\"}\n");
    let out = place.path("scores.jsonl");
    let args = |data, more: &[&'static str]| {
        let mut args = vec!["score", "--model", str(&model), "--data", data];
        args.extend(["--out", str(&out), "--overwrite"]);
        args.extend(more);
        place.run(&args)
    };
    let end = args(str(&hh), &[]);
    assert_eq!(end.code, Some(0), "{}", end.err);
    assert!(end.err.contains("format `hh`"), "{}", end.err);
    assert_eq!(lines(&out).len(), 12);
    let end = args(str(&unpaired), &["--json"]);
    assert!(end.err.contains("format `unpaired`"), "{}", end.err);
    let summary: serde_json::Value = serde_json::from_str(&end.out).unwrap();
    assert_eq!(
        (&summary["rows"], &summary["responses"]),
        (&1.into(), &1.into())
    );
    assert!(lines(&out)[0].get("rejected").is_none());
    let end = args(str(&odd), &[]);
    assert_eq!(end.code, Some(2));
    assert!(end.err.contains("odd.jsonl:1"), "{}", end.err);
    let end = args(str(&hh), &["--format", "pairs"]);
    assert!(end.err.contains("no column `prompt`"), "{}", end.err);
}

#[test]
fn what_is_printed_as_config_prints_itself() {
    let place = Place::new();
    let config = place.config(
        Path::new("no/such/model"),
        "cexpo",
        "samples = \"s.jsonl\"",
        "",
    );
    let args = ["train", "--config", str(&config), "--print-config"];
    let first = place.succeed(&[&args[..], &["--set", "loss.cexpo.lambda=0.25"]].concat());
    assert!(first.contains("lambda = 0.25"), "{first}");
    let again = place.write("again.toml", &first);
    let again = place.succeed(&["train", "--config", str(&again), "--print-config"]);
    assert_eq!(again, first);
    assert!(!place.path("out").exists());
}

#[test]
fn a_new_model_is_the_same_for_the_same_seed_and_whole_without_companions() {
    let place = Place::new();
    let definition = fixture("llama").join("tokenizer.json");
    let tokenizer = place.write("bare.json", std::fs::read(definition).unwrap());
    let config = place.write(
        "config.json",
        r#"{"model_type": "llama", "vocab_size": 352, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 1, "num_attention_heads": 2, "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": 0}"#,
    );
    let init = |out: &str, seed: &str| {
        let (config, tokenizer) = (str(&config), str(&tokenizer));
        let mut args = vec!["init", "--config-json", config, "--tokenizer", tokenizer];
        args.extend(["--out", out, "--seed", seed]);
        place.succeed(&args);
        std::fs::read(place.path(out).join("model.safetensors")).unwrap()
    };
    let one = init("one", "1");
    assert_eq!(init("same", "1"), one);
    assert_ne!(init("other", "2"), one);
    let json = |name: &str| crate::support::json(&place.path("one").join(name));
    assert_eq!(json("config.json")["architectures"][0], "LlamaForCausalLM");
    assert_eq!(json("generation_config.json")["eos_token_id"], 2);
    assert_eq!(json("tokenizer_config.json")["eos_token"], "</s>");
    let (pairs, out) = (fixture("pairs.jsonl"), place.path("s.jsonl"));
    place.succeed(&[
        "score",
        "--model",
        "one",
        "--data",
        str(&pairs),
        "--out",
        str(&out),
    ]);
}

#[test]
fn nobody_listening_stops_nothing() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "simpo", "", "");
    let mut child = place
        .command(&["train", "--config", str(&config)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(place.path("out/model.safetensors").is_file());
    let mut child = place
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn help_has_an_example_for_every_command() {
    let place = Place::new();
    for command in [
        "train",
        "sft",
        "sample",
        "sweep",
        "score",
        "data",
        "init",
        "loss",
        "completions",
    ] {
        let page = place.succeed(&[command, "--help"]);
        assert!(page.contains("Example"), "{page}");
        assert!(
            page.contains("$ expo") || page.contains("expo loss"),
            "{page}"
        );
    }
    assert!(place.succeed(&["completions", "zsh"]).contains("_expo"));
}

#[test]
fn a_profile_says_where_the_time_of_the_steps_went() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "dpo", "", "num_train_epochs = 2");
    let args = ["train", "--config", str(&config)];
    let start = std::time::Instant::now();
    let said = place.succeed(&[&args[..], &["--profile"]].concat());
    let most = start.elapsed().as_secs_f64();
    let table = said.split("\n\n").find(|t| t.starts_with("part "));
    let table = table.unwrap_or_else(|| panic!("no table in {said}"));
    // A row ends in one figure, or in seconds and a share.
    let row = |name: &str| -> Vec<f64> {
        let rest = table.lines().find_map(|line| line.strip_prefix(name));
        let words = rest.unwrap_or_else(|| panic!("no {name} in {table}"));
        let figures = words.split_whitespace();
        figures
            .map(|f| f.trim_end_matches('%').parse().unwrap())
            .collect()
    };
    let parts = [
        "gemm",
        "head",
        "attention",
        "elementwise",
        "optimizer",
        "data",
        "other",
    ];
    let parts = parts.map(|part| row(part)[0]);
    let (sum, wall) = (parts.iter().sum::<f64>(), row("all steps")[0]);
    assert!(
        (sum - wall).abs() < 0.005 && wall > 0.0 && wall < most,
        "{table}"
    );
    assert!(parts.iter().all(|seconds| *seconds >= 0.0));
    assert!(row("head")[0] > 0.0 && row("optimizer")[0] > 0.0, "{table}");
    assert_eq!(row("steps"), [6.0]);
    assert!(row("tokens/s")[0] > 0.0);
    assert!(row("GFLOP/s, 1024^3 product")[0] > 0.0);

    let metrics = text(&place.path("out").join("metrics.jsonl"));
    let again = ["--set", "run.output_dir=\"again\""];
    let said = place.succeed(&[&args[..], &again].concat());
    assert!(!said.contains("all steps"), "{said}");
    assert_eq!(text(&place.path("again").join("metrics.jsonl")), metrics);
    let end = place.run(&[&args[..], &["--profile", "--json"]].concat());
    assert_eq!(end.code, Some(2));
}
