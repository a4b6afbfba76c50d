//! Rows that cannot be used: left out, counted by reason, and never too many.

use super::chat::{say, scene};
use super::*;
use serde_json::json;

const SFT: Needs = Needs {
    all: &[Role::Chosen],
    reference: false,
    soft_labels: false,
    ..PAIR
};

/// What becomes of a row between two good ones: the reason in the report.
fn reason(format: &str, good: &serde_json::Value, bad: serde_json::Value) -> Option<String> {
    let rows = [good.clone(), bad, good.clone()];
    let scene = scene("chatml", &["<|im_end|>"], format, &rows);
    let needs = if format == "sft" { SFT } else { PAIR };
    let dataset = scene.open(&needs).unwrap();
    let report = &dataset.report;
    let left_out: usize = report.invalid.values().map(|lines| lines.rows).sum();
    assert_eq!(report.kept + left_out, 3);
    let (reason, lines) = report.invalid.first_key_value()?;
    assert_eq!(lines.first, ["2"]);
    assert!(!lines.fact.is_empty());
    Some(reason.name().to_owned())
}

#[test]
fn each_kind_of_bad_conversation_is_left_out_under_its_reason() {
    let good = json!({"messages": [say("user", "hi"), say("assistant", "ho")]});
    let of = |messages: serde_json::Value| json!({"messages": messages});
    for (row, expected) in [
        (
            of(json!([
                say("user", "a"),
                say("assistant", "b"),
                say("user", "c")
            ])),
            "ends_with_user",
        ),
        (
            of(json!([say("user", "a"), {"role": "assistant", "content": null}])),
            "no_content",
        ),
        (
            of(json!([say("user", "a"), say("assistant", " ")])),
            "empty_answer",
        ),
        (of(json!([])), "no_messages"),
        (of(json!(null)), "null_column"),
        (of(json!("a")), "malformed"),
        (of(json!(["a"])), "not_a_message"),
        (of(json!([say("user", "a")])), "no_assistant_message"),
        (
            of(json!([
                say("assistant", "a"),
                say("user", "b"),
                say("assistant", "c")
            ])),
            "no_user_message",
        ),
        (
            of(json!([say("narrator", "a"), say("assistant", "b")])),
            "unknown_role",
        ),
        (
            of(json!([say("user", "a"), {"role": "assistant", "content": 4}])),
            "content_is_no_text",
        ),
        (
            of(json!([{"role": "user", "content": [{"type": "image"}]}, say("assistant", "b")])),
            "content_is_no_text",
        ),
        (json!({"other": 1}), "missing_column"),
        (json!(3), "not_an_object"),
    ] {
        assert_eq!(
            reason("sft", &good, row.clone()).as_deref(),
            Some(expected),
            "{row}"
        );
    }
}

#[test]
fn each_kind_of_bad_pair_is_left_out_under_its_reason() {
    let good = json!({"prompt": "p", "chosen": "yes", "rejected": "no"});
    let user = [say("user", "a")];
    for (row, expected) in [
        (
            json!({"prompt": "p", "chosen": "a", "rejected": null}),
            Some("null_column"),
        ),
        (
            json!({"prompt": null, "chosen": "a", "rejected": "b"}),
            Some("null_column"),
        ),
        (
            json!({"prompt": "p", "chosen": "a"}),
            Some("missing_column"),
        ),
        (
            json!({"prompt": "p", "chosen": "a", "rejected": ""}),
            Some("empty_answer"),
        ),
        (
            json!({"prompt": "p", "chosen": 1, "rejected": "b"}),
            Some("malformed"),
        ),
        (
            json!({"prompt": user, "chosen": [], "rejected": "b"}),
            Some("no_messages"),
        ),
        (json!({"prompt": "p", "chosen": "a", "rejected": "a"}), None),
    ] {
        assert_eq!(
            reason("pairs", &good, row.clone()).as_deref(),
            expected,
            "{row}"
        );
    }
}

#[test]
fn rows_whose_answers_are_the_same_are_kept_and_counted() {
    let rows = [["p", "yes", "yes"], ["q", "yes", "no"]];
    let dataset = Scene::pairs("byte-level", &rows).open(&PAIR).unwrap();
    assert_eq!(dataset.len(), 2);
    assert_eq!(dataset.report.identical.first, ["1"]);
    let table = dataset.report.to_string();
    assert!(
        table.contains("1  both answers are the same (lines 1)"),
        "{table}"
    );
}

#[test]
fn a_set_of_one_kind_of_answer_is_said_to_be_one() {
    let row = |label: bool| json!({"prompt": "p", "completion": "c", "label": label}).to_string();
    let note = |rows: &[String]| {
        let scene = Scene::new("unpaired", "byte-level", rows.join("\n"));
        let needs = Needs { batch: &[], ..KTO };
        scene.open(&needs).unwrap().report.notes
    };
    assert_eq!(
        note(&[row(true), row(true)]),
        ["every answer is desirable, none an undesirable one: the loss learns from both"]
    );
    assert_eq!(note(&[row(false)]).len(), 1);
    assert!(note(&[row(true), row(false)]).is_empty());
}

#[test]
fn too_many_unusable_rows_are_an_error_from_a_hundred_rows_on() {
    let rows = |good: usize, bad: usize| {
        let mut rows = vec![ROW; good];
        rows.extend(vec!["{}"; bad]);
        Scene::new("pairs", "byte-level", rows.join("\n"))
    };
    assert_eq!(rows(49, 50).open(&PAIR).unwrap().len(), 49);
    assert_eq!(rows(90, 10).open(&PAIR).unwrap().len(), 90);
    let mut scene = rows(89, 11);
    let message = scene.strip(&scene.open(&PAIR).unwrap_err().to_string());
    assert_eq!(
        message,
        "rows.jsonl: 11 of 100 rows (11.0%) cannot be used: 11 a column is missing \
         (lines 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, ...); \
         mend them, or raise data.max_invalid_fraction (now 0.1)"
    );
    scene.config.max_invalid_fraction = 0.11;
    assert_eq!(scene.open(&PAIR).unwrap().len(), 89);
    scene.config.max_invalid_fraction = 1.5;
    assert_eq!(
        scene.complaint(&PAIR),
        "[data]: max_invalid_fraction must be in [0, 1] (got 1.5)"
    );
    // What the user chose to leave out is no fault.
    let row = |score: f64| json!({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": score, "score_rejected": 1.0});
    let graded: Vec<String> = (0..100)
        .map(|i| row(f64::from(i % 3)).to_string())
        .collect();
    let mut scene = Scene::new("pairs", "byte-level", graded.join("\n"));
    scene.config.scores = expo::data::Scores::Check;
    assert_eq!(scene.open(&PAIR).unwrap().len(), 33);
}

#[test]
fn prompts_are_left_out_by_the_same_rules() {
    let rows = [
        "{\"prompt\": \"p\"}",
        "{\"prompt\": null}",
        "no",
        "{\"prompt\": \"q\"}",
    ];
    let mut scene = Scene::new("prompts", "byte-level", rows.join("\n"));
    let prompts = |scene: &Scene| {
        let read = expo::data::prompts(&scene.files, &scene.config.prompts(), &scene.tokenizer);
        read.map_err(|error| scene.strip(&error.to_string()))
    };
    assert_eq!(prompts(&scene).unwrap().len(), 2);
    scene.config.on_invalid = OnInvalid::Error;
    let message = prompts(&scene).unwrap_err();
    assert!(
        message.starts_with("rows.jsonl:2: column `prompt` is null; "),
        "{message}"
    );
    let scene = Scene::new("prompts", "byte-level", vec!["{}"; 100].join("\n"));
    let message = prompts(&scene).unwrap_err();
    assert!(
        message.starts_with(
            "rows.jsonl: none of 100 rows is usable; rows.jsonl:1: the row has no column at all"
        ),
        "{message}"
    );
}

#[test]
fn a_file_of_which_nothing_is_left_is_refused_among_others() {
    let mut scene = Scene::new("pairs", "byte-level", vec![ROW; 1000].join("\n"));
    let bad = scene.folder.path().join("bad.jsonl");
    let list = json!([scene.folder.path().join("rows.jsonl"), bad]);
    scene.files = serde_json::from_value(list).unwrap();
    let open = |rows: usize| {
        std::fs::write(&bad, "{}\n".repeat(rows)).unwrap();
        scene.open(&PAIR)
    };
    assert_eq!(open(99).unwrap().len(), 1000);
    let message = scene.strip(&open(100).unwrap_err().to_string());
    assert!(
        message.contains(
            "none of the 100 rows of bad.jsonl is usable; left out of all files: 100 a column"
        ),
        "{message}"
    );
}
