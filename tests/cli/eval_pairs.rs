//! `expo eval pairs`.

use std::path::Path;

use serde_json::{Value, json};

use super::{Place, lines, str};
use crate::support::{fixture, json};

fn evaluate(place: &Place, data: &str, more: &[&str]) -> Value {
    let model = fixture("neox");
    let args = ["eval", "pairs", "--model", str(&model), "--data", data];
    let all = [&args[..], &["--json", "--bootstrap", "50"], more].concat();
    serde_json::from_str(&place.succeed(&all)).unwrap()
}

fn loss<'a>(report: &'a Value, name: &str) -> &'a Value {
    let losses = report["losses"].as_array().unwrap();
    let found = losses.iter().find(|loss| loss["loss"] == name);
    &found.unwrap_or_else(|| panic!("no {name} in {report}"))["mean"]["value"]
}

#[track_caller]
fn near(got: &Value, want: f64, tolerance: f64) {
    let off = (got.as_f64().unwrap() - want).abs();
    assert!(off <= tolerance * want.abs().max(1.0), "{got}, not {want}");
}

fn pairs(slice: &str) -> String {
    format!("{}{slice}", fixture("pairs.jsonl").display())
}

/// Log-probs, rewards and DPO's loss are those of PyTorch in float64.
#[test]
fn the_numbers_are_those_of_the_oracle() {
    let place = Place::new();
    let (reference, out) = (fixture("neox-ref"), place.path("rows.jsonl"));
    let more = ["--reference", str(&reference), "--out", str(&out)];
    let report = evaluate(&place, &pairs("[:4]"), &more);
    let oracle = json(&fixture("oracle/neox.json"));
    let rows = lines(&out);
    assert_eq!((rows.len(), &report["rows"]), (4, &json!(4)));
    let (mut dpo, mut h) = (0.0, 0.0);
    for (row, want) in rows.iter().zip(oracle["pairs"].as_array().unwrap()) {
        let mut rho = [0.0; 2];
        for (at, side) in ["chosen", "rejected"].into_iter().enumerate() {
            let [policy, of_reference] =
                ["log_prob", "reference_log_prob"].map(|key| want[side][key].as_f64().unwrap());
            near(&row["log_probs"][side], policy, 2e-6);
            near(&row["reference"][side], of_reference, 2e-6);
            rho[at] = policy - of_reference;
            let tokens = want[format!("{side}_ids")].as_array().unwrap().len();
            assert_eq!(row["tokens"][side], tokens as f64);
        }
        h += (rho[0] - rho[1]) / 4.0;
        near(&row["h"], rho[0] - rho[1], 1e-3);
        let loss = want["dpo_loss"].as_f64().unwrap();
        near(&row["losses"]["dpo"], loss, 1e-4);
        dpo += loss / 4.0;
    }
    near(loss(&report, "dpo"), dpo, 1e-4);
    near(&report["reward"]["margin"]["value"], h, 1e-3);

    // The reference's column may come from a file, and is kept where it was computed.
    let (whole, scores) = (place.model("neox"), place.path("scores.jsonl"));
    let weights = "model.safetensors";
    std::fs::copy(reference.join(weights), whole.join(weights)).unwrap();
    let score = ["score", "--model", str(&whole), "--data"];
    let data = pairs("[:4]");
    place.succeed(&[&score[..], &[&data, "--out", str(&scores)]].concat());
    let from_file = evaluate(&place, &data, &["--reference-log-probs", str(&scores)]);
    assert_eq!(from_file["reward"], report["reward"]);
    assert_eq!(from_file["losses"], report["losses"]);
    assert!(from_file["reference"]["hash"].is_string());
    let model = fixture("neox");
    let end = place.run(&[
        "eval",
        "pairs",
        "--model",
        str(&model),
        "--reference",
        str(&reference),
        "--data",
        &data,
    ]);
    assert!(end.err.contains("reference log-probs found"), "{}", end.err);
    for word in [
        "dpo ",
        "accuracy, h > 0",
        "both fell",
        "without kto",
        "Brier",
        "n_w - n_l",
    ] {
        assert!(end.out.contains(word), "no {word} in {}", end.out);
    }
}

/// A model that is its own reference is at step 0: the constants are known.
#[test]
fn a_model_beside_itself() {
    let place = Place::new();
    let model = fixture("neox");
    let report = evaluate(&place, &pairs(""), &["--reference", str(&model)]);
    for (name, want) in [
        ("dpo", 2f64.ln()),
        ("ipo", 25.0),
        ("hinge", 1.0),
        ("nca", 4f64.ln()),
        ("sppo_hard", 50.0),
        ("aot", 2f64.ln()),
    ] {
        assert_eq!(loss(&report, name), want, "{name}");
    }
    assert_eq!(report["reward"]["accuracy"]["value"], 0.0);
    assert_eq!(report["displacement"]["chosen_fell"]["value"], 0.0);
    let left: Vec<&Value> = report["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| &left["loss"])
        .collect();
    assert_eq!(left, ["cexpo", "kto", "odpo"]);
    // Of all prompts, as the loss is with that reference.
    let more = [
        "--reference",
        str(&model),
        "--loss",
        "kto",
        "--loss",
        "dpo:beta=0.5",
    ];
    let asked = evaluate(&place, &pairs(""), &more);
    assert_eq!(loss(&asked, "kto"), 0.5);
    assert_eq!(loss(&asked, "dpo:beta=0.5"), 2f64.ln());
    assert_eq!(asked["losses"].as_array().unwrap().len(), 2);
}

#[test]
fn without_a_reference_and_with_samples() {
    let place = Place::new();
    let report = evaluate(&place, &pairs(""), &[]);
    assert!(report["reward"].is_null() && report["reference"].is_null());
    assert_eq!(report["calibration"].as_array().unwrap().len(), 1);
    let names: Vec<&Value> = report["losses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|loss| &loss["loss"])
        .collect();
    assert_eq!(names, ["simpo", "sft", "orpo", "cpo"]);
    let samples = fixture("samples.jsonl");
    let more = ["--samples", str(&samples)];
    let report = evaluate(&place, &pairs(""), &more);
    assert!(loss(&report, "cexpo").as_f64().unwrap() > 0.0);
}

fn scored_rows(place: &Place) -> std::path::PathBuf {
    let row = |number: usize| {
        json!({
            "prompt": format!("Question {number}?"),
            "chosen": " Yes.", "rejected": " No, no.",
            "score_chosen": 3.0, "score_rejected": number as f64,
        })
    };
    let rows: String = (0..5).map(|number| format!("{}\n", row(number))).collect();
    place.write("scored.jsonl", rows)
}

/// Soft labels from scores, from a column, from AlpacaEval's annotations; ODPO where scores allow it.
#[test]
fn labels_and_scores_count() {
    let place = Place::new();
    let (rows, reference) = (scored_rows(&place), fixture("neox-ref"));
    let with = ["--reference", str(&reference)];
    let out = place.path("rows.jsonl");
    let soft = [
        &with[..],
        &["--scores", "bradley_terry", "--out", str(&out)],
    ]
    .concat();
    let report = evaluate(&place, str(&rows), &soft);
    let labels: Vec<f64> = lines(&out)
        .iter()
        .map(|line| line["label"].as_f64().unwrap())
        .collect();
    let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (number, label) in labels.iter().enumerate() {
        assert!((label - sigma(3.0 - number as f64)).abs() < 1e-15);
    }
    let left = report["left_out"].to_string();
    assert!(
        left.contains("soft labels") && left.contains("kto"),
        "{left}"
    );
    let odpo = [&with[..], &["--loss", "odpo"]].concat();
    // A tie and a row whose scores say otherwise are left out, as in training.
    assert_eq!(evaluate(&place, str(&rows), &odpo)["rows"], 3);

    let annotations = place.write(
        "annotations.json",
        json!([
            {"instruction": "Yes?", "output_1": "Yes.", "output_2": "No.", "preference": 1.25},
            {"instruction": "No?", "output_1": "Yes.", "output_2": "No.", "preference": 2},
        ])
        .to_string(),
    );
    let report = evaluate(&place, str(&annotations), &[]);
    assert_eq!(
        (&report["rows"], &report["soft_labels"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn wrong_inputs_are_refused_before_anything_is_computed() {
    let place = Place::new();
    let (model, data) = (fixture("neox"), pairs(""));
    let there = place.write("there.jsonl", "mine");
    let unpaired = place.write(
        "unpaired.jsonl",
        "{\"prompt\": \"a\", \"completion\": \" b\", \"label\": true}\n",
    );
    let base = |data: &str, more: &[&str]| -> Vec<String> {
        let args = ["eval", "pairs", "--model", str(&model), "--data", data];
        let all = args.iter().chain(more);
        all.map(ToString::to_string).collect()
    };
    let other = fixture("llama");
    for (args, words) in [
        (
            base(&data, &["--loss", "dop"]),
            vec!["dop", "did you mean `dpo`?"],
        ),
        (base(&data, &["--loss", "dpo:bta=1"]), vec!["bta", "`beta`"]),
        (
            base(&data, &["--loss", "dpo"]),
            vec!["dpo needs a reference", "--reference"],
        ),
        (
            base(&data, &["--loss", "cexpo"]),
            vec!["cexpo needs samples", "--samples"],
        ),
        (
            base(&data, &["--loss", "sft", "--loss", "sft"]),
            vec!["sft is there twice"],
        ),
        (
            base(&data, &["--beta", "0"]),
            vec!["--beta: beta must be > 0 and finite (got 0)"],
        ),
        (
            base(&data, &["--beta", "-1"]),
            vec!["--beta: beta must be > 0 and finite (got -1)"],
        ),
        (
            base(&data, &["--bootstrap", "0"]),
            vec!["--bootstrap: bootstrap must be in [1, 1000000] (got 0)"],
        ),
        (
            base(&data, &["--length-buckets", "0"]),
            vec!["--length-buckets: ", "(got 0)"],
        ),
        (
            base(&data, &["--out", str(&there)]),
            vec!["already exists", "--overwrite"],
        ),
        (
            base(str(&unpaired), &[]),
            vec!["`unpaired`", "no pairs", "alpaca_eval"],
        ),
        (base("none.jsonl", &[]), vec!["none.jsonl", "no such file"]),
        (base(&data, &["--reference", "nosuch"]), vec!["nosuch"]),
        (
            base(&data, &["--reference", str(&other)]),
            vec!["tokenizer"],
        ),
        (
            base(&data, &["--reference-log-probs", str(&there)]),
            vec!["there.jsonl:1", "not a row of scores", "expo score"],
        ),
        (base(&data, &["--device", "tpu"]), vec!["tpu"]),
        (
            base(&data, &["--max-length", "100000"]),
            vec!["max_length", "at most"],
        ),
        (
            base(&data, &["--loss", "odpo", "--reference", str(&model)]),
            vec!["score_chosen"],
        ),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let end = place.run(&args);
        let last = end.err.lines().last().unwrap_or_default();
        assert_eq!(end.code, Some(2), "{args:?}: {}", end.err);
        for word in words {
            assert!(
                end.err.contains(word),
                "no {word:?} in {last:?} of {args:?}"
            );
        }
        assert_eq!(end.out, "");
    }
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "mine");
    assert!(
        !Path::new(&place.path("cache")).exists(),
        "something was kept"
    );
}
