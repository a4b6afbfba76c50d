//! `expo eval diversity`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Place, lines, str};
use crate::support::{fixture, json, wait_until};

fn report(place: &Place, args: &[&str]) -> Value {
    let all = [&["eval", "diversity", "--json", "--bootstrap", "50"], args].concat();
    serde_json::from_str(&place.succeed(&all)).unwrap()
}

#[track_caller]
fn near(got: &Value, want: f64, tolerance: f64) {
    let off = (got.as_f64().unwrap() - want).abs();
    assert!(off <= tolerance, "{got}, not {want}");
}

fn sample(prompt: usize, index: usize, response: &str) -> Value {
    json!({"prompt": format!("{prompt}"), "response": response, "finish_reason": "stop", "index": index})
}

fn write(place: &Place, name: &str, rows: impl IntoIterator<Item = Value>) -> PathBuf {
    let rows = rows.into_iter().map(|row| format!("{row}\n"));
    place.write(name, rows.collect::<String>())
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let all: Vec<f64> = values.collect();
    all.iter().sum::<f64>() / all.len() as f64
}

fn numbers(list: &Value) -> impl Iterator<Item = f64> + '_ {
    list.as_array().unwrap().iter().filter_map(Value::as_f64)
}

/// Self-BLEU of every sample is NLTK's, distinct-n what Python counts.
#[test]
fn texts_against_nltk() {
    let oracle = &json(&fixture("eval/diversity.json"))["texts"];
    let place = Place::new();
    let groups = oracle["prompts"].as_array().unwrap().iter().enumerate();
    let rows = groups.flat_map(|(prompt, texts)| {
        let texts = texts.as_array().unwrap().iter().enumerate();
        texts
            .map(move |(index, text)| sample(prompt, index, text.as_str().unwrap()))
            .collect::<Vec<_>>()
    });
    let file = write(&place, "texts.jsonl", rows);
    let found = report(&place, &["--samples", str(&file)]);
    assert_eq!(
        (&found["prompts"], &found["samples_per_prompt"]),
        (&json!(30), &json!(5))
    );
    let model = &found["models"][0];
    let bleu = oracle["self_bleu"].as_array().unwrap().iter();
    near(
        &model["self_bleu_4"]["value"],
        mean(bleu.map(|b| mean(numbers(b)))),
        1e-12,
    );
    for n in ["distinct_1", "distinct_2"] {
        near(&model[n]["value"], mean(numbers(&oracle[n])), 1e-12);
        let all = format!("{n}_of_all");
        near(&model[&all], oracle[&all].as_f64().unwrap(), 1e-12);
    }
    assert_eq!(model["name"], "texts");
    // A line per prompt, whose means are the figures.
    report(&place, &["--samples", str(&file), "--out", "prompts.jsonl"]);
    let of_prompts = lines(&place.path("prompts.jsonl"));
    assert_eq!(of_prompts.len(), 30);
    for (line, bleu) in of_prompts
        .iter()
        .zip(oracle["self_bleu"].as_array().unwrap())
    {
        assert_eq!(line["model"], "texts");
        near(&line["self_bleu_4"], mean(numbers(bleu)), 1e-12);
        assert!(line["entropy_softmax"].is_null());
    }
    let prompts = of_prompts.iter().map(|line| line["prompt"].clone());
    assert!(prompts.eq((0..30).map(|prompt| json!(format!("{prompt}")))));
    let again = [
        "eval",
        "diversity",
        "--samples",
        str(&file),
        "--out",
        "prompts.jsonl",
    ];
    let refused = place.run(&again);
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("--overwrite"), "{}", refused.err);
    place.succeed(&[&again[..], &["--overwrite"]].concat());
    let neox = fixture("neox");
    let drawn = [
        "eval",
        "diversity",
        "--model",
        str(&neox),
        "--prompts",
        str(&file),
    ];
    for (out, more) in [
        ("./d/neox.jsonl", &[][..]),
        ("d/../d/neox.jsonl", &["--overwrite"]),
    ] {
        let out = ["--out-dir", "d", "--out", out];
        let end = place.run(&[&drawn[..], &out, more].concat());
        assert_eq!(end.code, Some(2));
        let said = "is also written as a file of samples";
        assert!(end.err.contains(said), "{}", end.err);
        // For the second: the samples are there.
        fs::create_dir_all(place.path("d")).unwrap();
        place.write("d/neox.jsonl", "");
    }
    for none in ["entropy_monte_carlo", "entropy_softmax", "tokens"] {
        assert!(model[none].is_null(), "{none}");
    }
    // Sample by sample, too: each prompt by itself, with its samples' mean.
    let sequences = |texts: &Value| -> Vec<Vec<u32>> {
        let mut words: Vec<String> = Vec::new();
        let mut number = |word: &str| match words.iter().position(|w| w == word) {
            Some(at) => at as u32,
            None => {
                words.push(word.to_owned());
                words.len() as u32 - 1
            }
        };
        let texts = texts.as_array().unwrap().iter();
        texts
            .map(|text| {
                text.as_str()
                    .unwrap()
                    .split_whitespace()
                    .map(&mut number)
                    .collect()
            })
            .collect()
    };
    for (texts, want) in oracle["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .zip(oracle["self_bleu"].as_array().unwrap())
    {
        let got = expo::eval::diversity::self_bleu(&sequences(texts));
        for (got, want) in got.iter().zip(numbers(want)) {
            assert!((got - want).abs() < 1e-12, "{got}, not {want}: {texts}");
        }
    }
}

/// Entropies of both kinds are those of transformers in float64.
#[test]
fn entropies_against_transformers() {
    let oracle = &json(&fixture("eval/diversity.json"))["entropies"];
    for name in ["neox", "llama"] {
        let place = Place::new();
        let prompts = oracle[name].as_array().unwrap();
        let mut rows = Vec::new();
        let (mut monte_carlo, mut softmax) = (Vec::new(), Vec::new());
        for prompt in prompts {
            for (index, sample) in prompt["samples"].as_array().unwrap().iter().enumerate() {
                let ids = &sample["token_ids"];
                let reason = if sample["stopped"] == true {
                    "stop"
                } else {
                    "length"
                };
                let log_prob = &sample["log_prob"];
                rows.push(
                    json!({"prompt": prompt["prompt"], "response": "", "token_ids": ids,
                    "log_prob": log_prob, "finish_reason": reason, "index": index}),
                );
                let tokens = ids.as_array().unwrap().len() as f64;
                monte_carlo.push((-log_prob.as_f64().unwrap(), tokens));
                softmax.push((sample["entropy"].as_f64().unwrap(), tokens));
            }
        }
        let without: Vec<Value> = rows
            .iter()
            .map(|row| {
                let mut row = row.clone();
                row.as_object_mut().unwrap().remove("log_prob");
                row
            })
            .collect();
        let (with, without) = (
            write(&place, "with.jsonl", rows),
            write(&place, "without.jsonl", without),
        );
        let model = fixture(name);
        let args = [
            "--samples",
            str(&with),
            str(&without),
            "--score-with",
            str(&model),
            "--micro-batch-tokens",
            "64",
            "--tokens",
            "ids",
        ];
        let found = report(&place, &args);
        for model in found["models"].as_array().unwrap() {
            for (sums, key) in [
                (&monte_carlo, "entropy_monte_carlo"),
                (&softmax, "entropy_softmax"),
            ] {
                let by_responses = mean(sums.iter().map(|(sum, n)| sum / n));
                let by_tokens = mean(sums.iter().map(|x| x.0)) / mean(sums.iter().map(|x| x.1));
                near(&model[key]["value"], by_responses, 2e-5);
                near(&model[format!("{key}_by_tokens")]["value"], by_tokens, 2e-5);
            }
            let tokens = mean(softmax.iter().map(|x| x.1));
            near(&model["tokens"]["value"], tokens, 1e-12);
        }
    }
}

fn drawn<'a>(models: [&'a Path; 2], out: &'a Path, prompts: &'a Path) -> Vec<&'a str> {
    let mut args = vec!["--model", str(models[0]), str(models[1])];
    args.extend(["--prompts", str(prompts), "--out-dir", str(out)]);
    args.extend(["--num-samples", "4", "--max-new-tokens", "12"]);
    args
}

/// Drawn by the protocol, gone on with after a cut, and the same again from the files.
#[test]
fn models_side_by_side() {
    let place = Place::new();
    let (a, b) = (fixture("neox"), fixture("neox-sequential"));
    let (out, prompts) = (place.path("drawn"), fixture("pairs.jsonl"));
    let args = drawn([&a, &b], &out, &prompts);
    let first = report(&place, &args);
    let files = [out.join("neox.jsonl"), out.join("neox-sequential.jsonl")];
    assert_eq!(lines(&files[0]).len(), 24 * 4);
    let bytes = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &bytes[..bytes.len() / 2]).unwrap();
    // Other batches round the log-probs in another way; the samples are the same.
    let again = report(&place, &args);
    let (one, other) = (&first["models"][1], &again["models"][1]);
    let entropy = &one["entropy_monte_carlo"]["value"];
    let before = other["entropy_monte_carlo"]["value"].as_f64().unwrap();
    near(entropy, before, 1e-6);
    for same in ["self_bleu_4", "distinct_2", "tokens", "entropy_softmax"] {
        assert_eq!(one[same], other[same]);
    }
    let first = again;
    for (model, file) in first["models"].as_array().unwrap().iter().zip(&files) {
        let rows = lines(file);
        let per_token = rows.iter().map(|row| {
            let tokens = row["token_ids"].as_array().unwrap().len() as f64;
            -row["log_prob"].as_f64().unwrap() / tokens
        });
        near(
            &model["entropy_monte_carlo"]["value"],
            mean(per_token),
            1e-9,
        );
        let stopped = rows
            .iter()
            .map(|row| f64::from(row["finish_reason"] == "stop"));
        near(&model["stopped"]["value"], mean(stopped), 1e-12);
        let softmax = model["entropy_softmax"]["value"].as_f64().unwrap();
        assert!(softmax > 0.0 && softmax < 304f64.ln());
    }
    let same = [
        "--samples",
        str(&files[0]),
        str(&files[1]),
        "--score-with",
        str(&a),
        str(&b),
    ];
    assert_eq!(report(&place, &same), first);
    // Scored by the other model, the log-probs of the file do not agree.
    let swapped = [
        "eval",
        "diversity",
        "--samples",
        str(&files[0]),
        "--score-with",
        str(&b),
    ];
    let end = place.run(&swapped);
    assert_eq!(end.code, Some(0), "{}", end.err);
    assert!(
        end.err.contains("log-probs differ from those of"),
        "{}",
        end.err
    );
    for word in [
        "self-BLEU-4",
        "entropy, full softmax",
        "24 prompts, 4 samples",
        "bootstrap",
    ] {
        assert!(end.out.contains(word), "no {word} in {}", end.out);
    }
}

/// The samples that a signal left are gone on with, as those of `expo sample`.
#[cfg(unix)]
#[test]
fn a_signal_ends_drawing_after_a_batch() {
    let place = Place::new();
    let (model, prompts) = (fixture("neox"), fixture("pairs.jsonl"));
    let (out, file) = (place.path("drawn"), place.path("drawn/neox.jsonl"));
    let args = ["eval", "diversity", "--model", str(&model), "--prompts"];
    let more = [
        str(&prompts),
        "--out-dir",
        str(&out),
        "--num-samples",
        "400",
    ];
    let child = place
        .command(&[&args[..], &more].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let rows = || fs::read_to_string(&file).map_or(0, |text| text.lines().count());
    wait_until("twenty samples", || rows() >= 20);
    let id = child.id().to_string();
    Command::new("kill").args(["-TERM", &id]).status().unwrap();
    let end = child.wait_with_output().unwrap();
    let said = String::from_utf8(end.stderr).unwrap();
    assert_eq!(end.status.code(), Some(143), "{said}");
    assert!(said.contains("run the same command to resume"), "{said}");
    assert!(end.stdout.is_empty() && lines(&file).len() >= 20);
}

#[test]
fn sets_that_cannot_be_compared_are_refused() {
    let place = Place::new();
    let all = |count: usize, skip: usize| {
        (skip..4).flat_map(move |p| (0..count).map(move |i| sample(p, i, "a b c")))
    };
    let two = write(&place, "two.jsonl", all(2, 0));
    let three = write(&place, "three.jsonl", all(3, 0));
    let fewer = write(&place, "fewer.jsonl", all(2, 1));
    let single = write(&place, "single.jsonl", all(1, 0));
    let twice = write(&place, "twice.jsonl", all(2, 0).chain(all(2, 3)));
    let other = place.path("other");
    fs::create_dir(&other).unwrap();
    let namesake = write(&place, "other/two.jsonl", all(2, 0));
    let mut positive = sample(0, 0, "a");
    positive["log_prob"] = json!(0.5);
    let positive = write(&place, "positive.jsonl", [positive]);
    let page = place.write("page.jsonl", "<html>\n");
    let model = fixture("neox");
    let prompts = fixture("pairs.jsonl");
    let draw = |more: &[&'static str]| -> Vec<String> {
        let args = [
            "--model",
            str(&model),
            "--prompts",
            str(&prompts),
            "--out-dir",
            "out",
        ];
        args.iter().chain(more).map(ToString::to_string).collect()
    };
    let files = |args: &[&str]| -> Vec<String> {
        [&["--samples"], args]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    for (args, words) in [
        (
            files(&[str(&two), str(&three)]),
            vec!["three has 3 samples of \"0\"", "--common"],
        ),
        (
            files(&[str(&two), str(&fewer)]),
            vec!["two has the prompt \"0\"", "--common"],
        ),
        (
            files(&[str(&fewer), str(&two)]),
            vec!["fewer does not", "--common"],
        ),
        (
            files(&[str(&single)]),
            vec!["a prompt has one sample", "two at least"],
        ),
        (files(&[str(&twice)]), vec!["twice.jsonl:9", "already"]),
        (
            files(&[str(&two), str(&namesake)]),
            vec!["\"two\"", "--name"],
        ),
        (
            files(&[str(&two), "--name", "a", "b"]),
            vec!["2 names for 1"],
        ),
        (
            files(&[str(&positive)]),
            vec!["positive.jsonl:1", "log_prob", "0 at most"],
        ),
        (files(&[str(&page)]), vec!["page.jsonl"]),
        (files(&["none.jsonl"]), vec!["none.jsonl", "no such file"]),
        (
            files(&[str(&two), "--tokens", "ids"]),
            vec!["token_ids", "drawn samples"],
        ),
        (
            files(&[str(&two), "--score-with", str(&model)]),
            vec!["token_ids"],
        ),
        (
            files(&[str(&two), "--bootstrap", "0"]),
            vec!["bootstrap is 0"],
        ),
        (
            files(&[str(&two), "--score-with", "a", "b"]),
            vec!["2 models to score 1 files"],
        ),
        (
            draw(&["--num-samples", "1"]),
            vec!["--num-samples: num_samples must be >= 2 (got 1)"],
        ),
        (draw(&["--top-p", "0"]), vec!["top_p"]),
        (draw(&["--name", "a/b"]), vec!["\"a/b\"", "NAME.jsonl"]),
        (
            draw(&["--max-prompt-length", "0"]),
            vec!["--max-prompt-length: ", ">= 1 (got 0)"],
        ),
        (vec![], vec!["--samples"]),
        (vec!["--model".into(), "m".into()], vec!["--prompts"]),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let end = place.run(&[&["eval", "diversity"], &args[..]].concat());
        assert_eq!(end.code, Some(2), "{args:?}: {}{}", end.err, end.out);
        for word in words {
            assert!(
                end.err.contains(word),
                "no {word:?} in {:?} of {args:?}",
                end.err
            );
        }
        assert_eq!(end.out, "");
    }
    assert!(!place.path("out").exists());
    let common = ["--samples", str(&three), str(&fewer), "--common"];
    let found = report(&place, &common);
    assert_eq!(
        (&found["prompts"], &found["samples_per_prompt"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(
        found["models"][0]["self_bleu_4"],
        found["models"][1]["self_bleu_4"]
    );
}
