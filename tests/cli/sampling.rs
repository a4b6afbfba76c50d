//! `expo sample`, `expo sft` and runs that draw their samples.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::{Place, lines, str, text};
use crate::support::{fixture, wait_until};

/// From nothing to an aligned model, by the real binary alone.
#[test]
fn init_sft_sample_train_score() {
    let place = Place::new();
    let (base, sft, out) = (place.path("base"), place.path("sft"), place.path("out"));
    let family = fixture("llama");
    place.succeed(&[
        "init",
        "--config-json",
        str(&family.join("config.json")),
        "--tokenizer",
        str(&family),
        "--out",
        str(&base),
    ]);
    let eval = format!("eval = {:?}", fixture("pairs.jsonl"));
    let config = place.config(&base, "sft", &eval, "num_train_epochs = 6");
    let to = format!("run.output_dir={}", str(&sft));
    let rate = "optimizer.learning_rate=1e-2";
    let sets = ["--set", &to, "--set", rate, "--json"];
    let said = place.succeed(&[&["sft", "--config", str(&config)][..], &sets].concat());
    let summary: Value = serde_json::from_str(&said).unwrap();
    let loss = |which: &str| summary["eval"][which]["eval_loss"].as_f64().unwrap();
    assert!(loss("last") < 0.8 * loss("first"), "{said}");
    assert!(summary["eval"]["last"].get("eval_rewards/chosen").is_none());

    let samples = place.path("samples.jsonl");
    let (pairs, tokens) = (fixture("pairs.jsonl"), "--max-new-tokens");
    let args = [
        "--prompts",
        str(&pairs),
        tokens,
        "16",
        "--out",
        str(&samples),
    ];
    let said = place.succeed(&[&["sample", "--model", str(&sft)][..], &args].concat());
    assert!(said.contains("responses"), "{said}");
    let drawn = lines(&samples);
    assert_eq!(drawn.len(), 24);
    for row in &drawn {
        assert!(row["log_prob"].as_f64().unwrap() < 0.0);
        let ids = row["token_ids"].as_array().unwrap().len();
        assert!(row["finish_reason"] == "stop" || ids == 16, "{row}");
    }

    let data = format!("{eval}\nsamples = {samples:?}");
    let config = place.config(&sft, "cexpo", &data, "num_train_epochs = 3");
    let said = place.succeed(&["train", "--config", str(&config), "--json"]);
    let summary: Value = serde_json::from_str(&said).unwrap();
    let of = |which: &str, key: &str| summary["eval"][which][key].as_f64().unwrap();
    assert!(of("last", "eval_loss") < of("first", "eval_loss"), "{said}");
    assert_eq!(of("first", "eval_kl"), 0.0);

    let scores = place.path("scores.jsonl");
    let score = ["score", "--model", str(&out), "--data", str(&pairs)];
    let with = ["--samples", str(&samples), "--out", str(&scores)];
    place.succeed(&[&score[..], &with].concat());
    assert_eq!(lines(&scores)[0]["sampled"].as_array().unwrap().len(), 1);
}

/// Weights in few bits are asked for by a flag, and make other responses, which the file tells apart.
#[test]
fn responses_of_quantized_weights() {
    let place = Place::new();
    let (model, pairs) = (fixture("llama"), fixture("pairs.jsonl"));
    let draw = |format: &str, variable: &str| {
        let out = place.path(&format!("{format}{variable}.jsonl"));
        let mut args = vec!["sample", "--model", str(&model), "--prompts", str(&pairs)];
        args.extend([
            "--max-new-tokens",
            "8",
            "--quantization",
            format,
            "--out",
            str(&out),
        ]);
        let end = place
            .command(&args)
            .env("EXPO_SIMD", variable)
            .output()
            .unwrap();
        assert!(
            end.status.success(),
            "{}",
            String::from_utf8_lossy(&end.stderr)
        );
        lines(&out)
    };
    let (plain, quantized) = (draw("none", ""), draw("q8_0", ""));
    let portable = draw("q8_0", "portable");
    assert_eq!(plain.len(), quantized.len());
    for ((plain, quantized), portable) in plain.iter().zip(&quantized).zip(&portable) {
        assert_ne!(plain["draw"], quantized["draw"]);
        assert_eq!(quantized["draw"], portable["draw"]);
        let of = |row: &Value| row["log_prob"].as_f64().unwrap();
        let same = quantized["token_ids"] == portable["token_ids"];
        assert!(
            !same || (of(quantized) / of(portable) - 1.0).abs() < 1e-4,
            "{quantized} {portable}"
        );
    }
    let same = |(a, b): (&Value, &Value)| a["token_ids"] == b["token_ids"];
    let alike = quantized.iter().zip(&portable).filter(|&rows| same(rows));
    assert!(alike.count() > 3 * quantized.len() / 4);
    let wrong = [
        "sample",
        "--model",
        str(&model),
        "--prompt",
        "a",
        "--quantization",
        "int8",
    ];
    let end = place.run(&wrong);
    assert_eq!(end.code, Some(2));
    assert!(
        end.err.contains("int8") && end.err.contains("q8_0"),
        "{}",
        end.err
    );
    let end = place
        .command(&wrong[..5])
        .env("EXPO_SIMD", "sse")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&end.stderr);
    assert!(
        end.status.code() == Some(2) && said.contains("EXPO_SIMD") && said.contains("avx2"),
        "{said}"
    );
}

const SETTINGS: [&str; 8] = [
    "--num-samples",
    "4",
    "--max-new-tokens",
    "40",
    "--batch-size",
    "4",
    "--top-k",
    "50",
];

fn sample<'a>(model: &'a Path, prompts: &'a Path, out: &'a Path) -> Vec<&'a str> {
    let mut args = vec!["sample", "--model", str(model), "--prompts", str(prompts)];
    args.extend(["--out", str(out)]);
    args.extend(SETTINGS);
    args
}

/// Not a byte of the file depends on how many are drawn at once, or on threads.
#[test]
fn a_file_is_the_same_in_any_batch() {
    let (place, pairs) = (Place::new(), fixture("pairs.jsonl"));
    for (model, dtype) in [("neox", "f32"), ("qwen2-window", "f32"), ("neox", "bf16")] {
        let model = fixture(model);
        let draw = |name: &str, size: &str, threads: &str| {
            let out = place.path(name);
            let args = sample(&model, &pairs, &out);
            let mut args: Vec<&str> = args.into_iter().chain(["--dtype", dtype]).collect();
            args.push("--overwrite");
            let at = args.iter().position(|arg| *arg == "--batch-size").unwrap();
            args[at + 1] = size;
            let mut command = place.command(&args);
            let end = command.env("RAYON_NUM_THREADS", threads).output().unwrap();
            assert!(end.status.success(), "{end:?}");
            fs::read(&out).unwrap()
        };
        let alone = draw("alone.jsonl", "1", "1");
        for (size, threads) in [("7", "1"), ("32", "3"), ("96", "2")] {
            let together = draw("together.jsonl", size, threads);
            assert!(together == alone, "{dtype}, {size} with {threads} threads");
        }
    }
}

fn said_of(row: &Value) -> &str {
    row["response"].as_str().unwrap()
}

fn without_reference(mut rows: Vec<Value>) -> Vec<Value> {
    for row in &mut rows {
        let row = row.as_object_mut().unwrap();
        row.retain(|key, _| !key.starts_with("reference"));
    }
    rows
}

/// A second model's log-probs are those that it scores; the first responses go to AlpacaEval's file.
#[test]
fn a_reference_scores_and_alpaca_eval_reads() {
    let (place, model) = (Place::new(), fixture("llama"));
    let other = place.model("llama-ref");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(model.join(file), other.join(file)).unwrap();
    }
    let (pairs, out) = (fixture("pairs.jsonl"), place.path("s.jsonl"));
    let outputs = place.path("outputs.json");
    let more = [
        "--reference",
        str(&other),
        "--alpaca-eval",
        str(&outputs),
        "--generator",
        "mine",
        "--profile",
    ];
    let args = [&sample(&model, &pairs, &out)[..], &more].concat();
    let said = place.succeed(&args);
    assert!(
        said.contains("tokens/s") && said.contains("plain read"),
        "{said}"
    );
    let drawn = lines(&out);
    let scores = place.path("scores.jsonl");
    let score = ["score", "--model", str(&other), "--data", str(&pairs)];
    let with = ["--samples", str(&out), "--out", str(&scores)];
    place.succeed(&[&score[..], &with].concat());
    for (row, scored) in lines(&scores).iter().enumerate() {
        for (index, sampled) in scored["sampled"].as_array().unwrap().iter().enumerate() {
            let of = |value: &Value| value.as_f64().unwrap();
            let got = of(&drawn[4 * row + index]["reference_log_prob"]);
            let want = of(&sampled["log_prob"]);
            assert!((got - want).abs() < 1e-3, "{row} {index}: {got} {want}");
            assert!(got != of(&drawn[4 * row + index]["log_prob"]));
        }
    }
    let list: Value = serde_json::from_str(&fs::read_to_string(&outputs).unwrap()).unwrap();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 24);
    for (entry, first) in list.iter().zip(drawn.iter().step_by(4)) {
        assert_eq!(entry["instruction"], first["prompt"]);
        assert_eq!(entry["output"], said_of(first).trim());
        assert_eq!(entry["generator"], "mine");
    }
    // Its rows are prompts themselves.
    let again = place.path("again.jsonl");
    place.succeed(&sample(&model, &outputs, &again));
    assert_eq!(lines(&again), without_reference(drawn));

    let end = place.run(&sample(&model, &pairs, &out));
    assert_eq!(end.code, Some(2));
    assert!(
        end.err.contains("by another reference, or by none"),
        "{}",
        end.err
    );
}

/// A response ends before a stop text, and what was drawn of it is in its ids.
#[test]
fn a_stop_text_ends_a_response() {
    // Of bytes that are no text, those of this tokenizer are the same whatever follows them.
    let (place, model) = (Place::new(), fixture("neox"));
    let (pairs, plain, out) = (
        fixture("pairs.jsonl"),
        place.path("p.jsonl"),
        place.path("s.jsonl"),
    );
    place.succeed(&sample(&model, &pairs, &plain));
    let stops = ["--stop", "e", "--stop", " a"];
    place.succeed(&[&sample(&model, &pairs, &out)[..], &stops].concat());
    let mut ended = 0;
    for (row, whole) in lines(&out).iter().zip(lines(&plain)) {
        let (response, all) = (said_of(row), said_of(&whole));
        let at = ["e", " a"].iter().filter_map(|stop| all.find(stop)).min();
        assert_eq!(response, &all[..at.unwrap_or(all.len())], "{row}");
        let [ids, of_whole] = [row, &whole].map(|row| row["token_ids"].as_array().unwrap().clone());
        assert_eq!(ids[..], of_whole[..ids.len()]);
        assert_eq!(row["finish_reason"] == "stop_text", at.is_some(), "{row}");
        ended += usize::from(at.is_some());
    }
    assert!(ended > 10, "{ended}");
}

/// Whatever is left of a file, the rest comes after it: no row twice, none missing.
#[test]
fn a_file_that_was_cut_is_gone_on_with() {
    let place = Place::new();
    let (model, pairs) = (fixture("neox"), fixture("pairs.jsonl"));
    let (whole, cut) = (place.path("whole.jsonl"), place.path("cut.jsonl"));
    place.succeed(&sample(&model, &pairs, &whole));
    let bytes = fs::read(&whole).unwrap();
    assert_eq!(lines(&whole).len(), 24 * 4);
    let line_ends: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] == b'\n').collect();
    // Nothing, a part of the first line, within a prompt's four, between two prompts, all of it.
    for end in [
        0,
        10,
        line_ends[5] + 1,
        line_ends[5] + 30,
        line_ends[7] + 1,
        bytes.len(),
    ] {
        fs::write(&cut, &bytes[..end]).unwrap();
        let done = place.run(&sample(&model, &pairs, &cut));
        assert_eq!(done.code, Some(0), "{}", done.err);
        // To the byte, though other responses stood beside these.
        assert!(fs::read(&cut).unwrap() == bytes, "after {} bytes", end);
    }
    let end = place.run(&sample(&model, &pairs, &cut));
    assert!(end.err.contains("96 of 96 samples found"), "{}", end.err);

    let before = fs::read(&cut).unwrap();
    for (args, word) in [
        (&["--seed", "1"][..], "other settings"),
        (&["--temperature", "0.5"], "other settings"),
    ] {
        let end = place.run(&[&sample(&model, &pairs, &cut)[..], args].concat());
        assert_eq!(end.code, Some(2), "{}", end.err);
        assert!(
            end.err.contains("cut.jsonl:1") && end.err.contains(word),
            "{}",
            end.err
        );
        assert!(end.err.contains("--overwrite"), "{}", end.err);
    }
    let other = fixture("neox-sequential");
    let end = place.run(&sample(&other, &pairs, &cut));
    assert!(end.err.contains("another model"), "{}", end.err);
    assert!(
        fs::read(&cut).unwrap() == before,
        "a refused file was changed"
    );
    let again = [&sample(&other, &pairs, &cut)[..], &["--overwrite"]].concat();
    place.succeed(&again);
    assert!(fs::read(&cut).unwrap() != before);
}

/// What is no sample file is left alone, whole line or not.
#[test]
fn a_file_of_something_else_is_not_written_over() {
    let place = Place::new();
    let (model, pairs) = (fixture("neox"), fixture("pairs.jsonl"));
    for contents in [
        "my precious notes",
        "my precious\nnotes",
        "{\"prompt\":\"a\"}",
        "[1]\n",
    ] {
        let out = place.write("notes.md", contents);
        let end = place.run(&sample(&model, &pairs, &out));
        assert_eq!(end.code, Some(2), "{contents:?}: {}", end.err);
        assert!(
            end.err.contains("notes.md:1") && end.err.contains("--overwrite"),
            "{}",
            end.err
        );
        assert_eq!(text(&out), contents);
    }
    let out = place.path("new/folder/s.jsonl");
    place.succeed(&sample(&model, &pairs, &out));
    let end = place.run(
        &[
            &sample(&model, &pairs, &out)[..],
            &["--max-prompt-length", "3"],
        ]
        .concat(),
    );
    assert!(end.err.contains("other settings"), "{}", end.err);
    let other = sample(&model, &pairs, &out);
    let fewer: Vec<&str> = other
        .iter()
        .map(|arg| if *arg == "4" { "3" } else { arg })
        .collect();
    let end = place.run(&fewer);
    assert!(end.err.contains("another number of samples"), "{}", end.err);
}

/// Runs that share a cache draw once, whoever comes first.
#[test]
fn two_runs_at_once_share_their_samples() {
    let place = Place::new();
    let config = place.config(
        &fixture("llama"),
        "cexpo",
        "samples = \"auto\"\n[sample]\nmax_new_tokens = 30\nnum_samples = 8",
        "max_steps = 1",
    );
    let config = str(&config);
    let start = |out: &str| {
        let to = format!("run.output_dir={}", place.path(out).display());
        let mut command = place.command(&["train", "--config", config, "--set", &to]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children = [start("a"), start("b")];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let cache = place.path("cache/expo/reference");
    let kept = fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let kept: Vec<PathBuf> = kept
        .filter(|path| path.to_string_lossy().contains("samples-"))
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(lines(&kept[0]).len(), 24 * 8);
    assert_eq!(
        text(&place.path("a/metrics.jsonl")),
        text(&place.path("b/metrics.jsonl"))
    );
    // A cache that does not check out is made again.
    fs::write(&kept[0], "not mine\n").unwrap();
    let to = format!("run.output_dir={}", place.path("c").display());
    place.succeed(&["train", "--config", config, "--set", &to]);
    assert_eq!(
        text(&place.path("a/metrics.jsonl")),
        text(&place.path("c/metrics.jsonl"))
    );
}

/// Where a prompt is cut it is cut for whoever draws and whoever trains alike.
#[test]
fn samples_of_cut_prompts_have_the_log_probs_that_training_sees() {
    let place = Place::new();
    let samples = place.path("s.jsonl");
    let data = "max_prompt_length = 12";
    let config = |loss: &str, data: &str| {
        let config = place.config(&fixture("neox"), loss, data, "");
        let whole = fs::read_to_string(&config).unwrap();
        fs::write(&config, whole.replace("max_prompt_length = 64\n", "")).unwrap();
        config
    };
    let auto = format!("{data}\nsamples = \"auto\"\n[sample]\nmax_new_tokens = 9");
    let run = config("cexpo", &auto);
    place.succeed(&["sample", "--config", str(&run), "--out", str(&samples)]);
    let run = config("cexpo", &format!("{data}\nsamples = {samples:?}"));
    let scores = place.path("scores.jsonl");
    place.succeed(&["score", "--config", str(&run), "--out", str(&scores)]);
    let drawn = lines(&samples);
    let pairs = lines(&fixture("pairs.jsonl"));
    for (row, pair) in lines(&scores).iter().zip(&pairs) {
        let drawn = drawn
            .iter()
            .find(|drawn| drawn["prompt"] == pair["prompt"])
            .unwrap();
        let [drawn, scored] =
            [&drawn["log_prob"], &row["sampled"][0]["log_prob"]].map(|x| x.as_f64().unwrap());
        assert!((drawn - scored).abs() < 1e-3, "{drawn} {scored}");
    }
}

#[test]
fn the_config_of_a_run_prints_as_one_for_sampling() {
    let place = Place::new();
    let data = "samples = \"auto\"\nshuffle = false\n[sample]\ntop_k = 5";
    let run = place.config(&fixture("llama"), "cexpo", data, "");
    let set = [
        "--set",
        "model.reference=elsewhere",
        "--set",
        "model.recompute=true",
        "--set",
        "model.trainable=[\"*\"]",
    ];
    let args = ["sample", "--config", str(&run), "--print-config"];
    let printed = place.succeed(&[&args[..], &set].concat());
    assert!(
        printed.contains("reference = \"elsewhere\"") && printed.contains("top_k = 5"),
        "{printed}"
    );
    let again = place.write("again.toml", &printed);
    assert_eq!(
        place.succeed(&["sample", "--config", str(&again), "--print-config"]),
        printed
    );
    let bad = printed.replace("shuffle = true", "shuffle = false");
    let bad = place.write("bad.toml", bad);
    place.refuse(
        &["sample", "--config", str(&bad), "--print-config"],
        &["data.shuffle"],
    );
    let set = "model.trainable=[\"*\"]";
    place.refuse(
        &[
            "sample",
            "--config",
            str(&again),
            "--set",
            set,
            "--print-config",
        ],
        &["--set model.trainable=[\"*\"]: ", "sampling does not read"],
    );
}

#[test]
fn a_killed_command_leaves_a_file_to_go_on_with() {
    let place = Place::new();
    let (model, pairs) = (fixture("neox"), fixture("pairs.jsonl"));
    let (whole, killed) = (place.path("whole.jsonl"), place.path("killed.jsonl"));
    let more = ["--num-samples", "30"];
    let args = |out| {
        let mut args = sample(&model, &pairs, out);
        let at = args.iter().position(|arg| *arg == "--num-samples").unwrap();
        args[at + 1] = more[1];
        args
    };
    let mut child = place
        .command(&args(&killed))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let rows = |path: &Path| fs::read_to_string(path).map_or(0, |text| text.lines().count());
    wait_until("twenty samples", || rows(&killed) >= 20);
    child.kill().unwrap();
    child.wait().unwrap();
    place.succeed(&args(&killed));
    place.succeed(&args(&whole));
    let keys = |path: &Path| -> Vec<(String, u64)> {
        let key = |row: &Value| (row["prompt"].to_string(), row["index"].as_u64().unwrap());
        lines(path).iter().map(key).collect()
    };
    assert_eq!(keys(&killed), keys(&whole));
    assert_eq!(rows(&killed), 24 * 30);
}

#[test]
fn one_prompt_goes_to_the_terminal() {
    let place = Place::new();
    let model = fixture("llama");
    let prompt = [
        "sample",
        "--model",
        str(&model),
        "--prompt",
        "Is the duck kind?",
    ];
    let with = |more: &[&str]| place.succeed(&[&prompt[..], more].concat());
    let greedy = with(&["--greedy", "--max-new-tokens", "20"]);
    assert_eq!(greedy, with(&["--greedy", "--max-new-tokens", "20"]));
    assert!(greedy.len() > 10 && greedy.ends_with('\n'), "{greedy:?}");
    // The same text as in a file.
    let prompts = place.write("p.txt", "Is the duck kind?\n");
    let out = place.path("s.jsonl");
    let file = [
        "sample",
        "--model",
        str(&model),
        "--prompts",
        str(&prompts),
        "--greedy",
    ];
    place.succeed(&[&file[..], &["--max-new-tokens", "20", "--out", str(&out)]].concat());
    let row = &lines(&out)[0];
    assert_eq!(greedy, format!("{}\n", row["response"].as_str().unwrap()));
    let several = with(&["--num-samples", "3", "--max-new-tokens", "5"]);
    assert_eq!(several.matches("log-prob").count(), 3, "{several}");
}

#[test]
fn a_config_draws_what_its_flags_would() {
    let place = Place::new();
    let (model, pairs) = (fixture("neox"), fixture("pairs.jsonl"));
    let config = place.write(
        "sample.toml",
        format!(
            "[model]\nmodel_name_or_path = {model:?}\n[data]\nformat = \"pairs\"\ntrain = {pairs:?}\n\
             max_length = 256\nmax_prompt_length = 128\n\
             [sample]\nnum_samples = 4\nmax_new_tokens = 40\nbatch_size = 4\ntop_k = 50\n"
        ),
    );
    let (by_flags, by_config) = (place.path("flags.jsonl"), place.path("config.jsonl"));
    place.succeed(&sample(&model, &pairs, &by_flags));
    let config = ["sample", "--config", str(&config)];
    place.succeed(&[&config[..], &["--out", str(&by_config)]].concat());
    assert_eq!(text(&by_flags), text(&by_config));
    let printed = place.succeed(&[&config[..], &["--print-config"]].concat());
    let again = place.write("again.toml", &printed);
    let args = ["sample", "--config", str(&again), "--print-config"];
    assert_eq!(place.succeed(&args), printed);
}

/// A file that was put together twice must not count its samples twice.
#[test]
fn a_sample_that_is_there_twice_is_refused() {
    let place = Place::new();
    let (model, samples) = (fixture("neox"), place.path("s.jsonl"));
    let line = |seed: u64| {
        let prompt = lines(&fixture("pairs.jsonl"))[0]["prompt"].clone();
        let row = serde_json::json!({"prompt": prompt, "response": " Yes.",
            "finish_reason": "stop", "index": 0, "seed": seed});
        format!("{row}\n")
    };
    let config = place.config(&model, "cexpo", &format!("samples = {samples:?}"), "");
    place.write("s.jsonl", line(0) + &line(0));
    place.refuse_run(&config, &[], &["s.jsonl:2", "already"]);
    place.write("s.jsonl", line(0) + &line(1));
    place.succeed(&["data", "show", "--config", str(&config)]);
}

/// Samples are drawn from the reference, and a file of log-probs is none.
#[test]
fn a_reference_known_by_its_log_probs_alone_draws_nothing() {
    let place = Place::new();
    let (model, scores) = (fixture("llama"), place.path("scores.jsonl"));
    let data = "samples = \"auto\"\n[sample]\nmax_new_tokens = 5";
    let config = place.config(&model, "cexpo", data, "max_steps = 1");
    let other = format!("model.reference={}", fixture("llama-ref").display());
    let config = str(&config);
    place.succeed(&[
        "score",
        "--config",
        config,
        "--set",
        &other,
        "--out",
        str(&scores),
    ]);
    let column = format!("data.reference_log_probs={}", scores.display());
    place.refuse_run(
        Path::new(config),
        &[&column],
        &["scores.jsonl", "model.reference"],
    );
}

#[test]
fn what_sampling_refuses() {
    let place = Place::new();
    let (model, pairs) = (fixture("neox"), fixture("pairs.jsonl"));
    let out = place.path("s.jsonl");
    let refuse = |prompts: &Path, more: &[&str], words: &[&str]| {
        let mut args = vec!["sample", "--model", str(&model), "--prompts", str(prompts)];
        args.extend(["--out", str(&out)]);
        args.extend(more);
        place.refuse(&args, words);
        assert!(!out.exists(), "{args:?} left a file");
    };
    let write = |name: &str, contents: &[u8]| -> PathBuf { place.write(name, contents) };
    refuse(&pairs, &["--temperature", "0"], &["temperature", "greedy"]);
    refuse(&pairs, &["--top-p", "1.5"], &["top_p", "(0, 1]"]);
    refuse(&pairs, &["--greedy", "--top-k", "5"], &["top_k", "greedy"]);
    refuse(
        &pairs,
        &["--num-samples", "0"],
        &["num_samples must be", "(got 0)"],
    );
    refuse(
        &pairs,
        &["--repetition-penalty", "0"],
        &["repetition_penalty"],
    );
    refuse(&place.path("none.txt"), &[], &["none.txt", "no such file"]);
    refuse(
        &write("bytes.txt", b"\xff\n"),
        &[],
        &["bytes.txt:1", "UTF-8"],
    );
    refuse(&write("empty.txt", b"\n\n"), &[], &["empty.txt"]);
    refuse(
        &write("odd.jsonl", b"{\"q\": 1}\n"),
        &[],
        &["odd.jsonl:1", "prompt"],
    );
    let long = format!("fine\n{}\n", "long ".repeat(400));
    refuse(
        &write("long.txt", long.as_bytes()),
        &[],
        &["long.txt:2", "no room"],
    );

    let config = place.config(&model, "cexpo", "", "");
    let auto = ["data.samples=auto", "sample.top_p=2"];
    place.refuse_run(&config, &[], &["cexpo", "samples", "auto"]);
    place.refuse_run(
        &config,
        &auto,
        &["--set sample.top_p=2: top_p must be in (0, 1] (got 2)"],
    );
    place.refuse_run(
        &config,
        &["loss=rexpo", "sample.top_p=0.5"],
        &["--set sample.top_p=0.5: ", "auto"],
    );
    place.refuse_run(
        &config,
        &["loss=dpo", "data.unlabelled=p.txt"],
        &["dpo", "data.unlabelled"],
    );
    let dpo = place.config(&model, "dpo", "", "");
    place.refuse(&["sft", "--config", str(&dpo)], &["dpo", "expo train"]);
    let sample = ["sample", "--config", str(&dpo), "--out", str(&out)];
    place.refuse(&sample, &["data.samples", "auto"]);
}
