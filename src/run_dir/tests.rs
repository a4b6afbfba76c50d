//! What older versions wrote is read, and what is written has the keys of the guide in their order.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::data::{Invalid, Lines as Rows, RowReport};

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_run_record_of_an_early_version_is_read() {
    let record: RunRecord = read(json!({"loss": "dpo", "hashes": {}, "unknown": 1}));
    assert_eq!(record.loss, "dpo");
    assert_eq!((record.machine, record.frozen), (None, None));
    let record: RunRecord = read(json!({"train": {"rows": 3, "invalid": {"tie": {"rows": 1}}}}));
    let counts = record.train.unwrap();
    assert_eq!((counts.rows, counts.context_tokens), (Some(3), None));
    assert_eq!(counts.invalid.0[0].0, "tie");
}

#[test]
fn a_row_report_is_recorded_with_its_reasons_in_order() {
    let mut report = RowReport {
        rows: 5,
        ..RowReport::default()
    };
    let lines = |first: &str| Rows {
        rows: 1,
        first: vec![first.to_owned()],
        fact: String::new(),
    };
    report.invalid.insert(Invalid::Tie, lines("4"));
    report.invalid.insert(Invalid::EmptyAnswer, lines("2"));
    let written = text(&RowCounts::from(&report));
    let spread = r#"{"median":0,"p95":0,"max":0}"#;
    let expected = format!(
        "{{\"rows\":5,\"kept\":0,\"invalid\":{{\
         \"empty_answer\":{{\"rows\":1,\"first\":[\"2\"]}},\"tie\":{{\"rows\":1,\"first\":[\"4\"]}}}},\
         \"cut_prompts\":0,\"cut_responses\":0,\"unfinished_responses\":0,\"context_tokens\":0,\
         \"boundary_merges\":0,\"prompt_tokens\":{spread},\"response_tokens\":{spread},\
         \"example_tokens\":{spread}}}"
    );
    assert_eq!(written, expected);
    let back: RowCounts = serde_json::from_str(&written).unwrap();
    assert_eq!(text(&back), written);
}

#[test]
fn a_resumed_run_is_told_from_a_timing() {
    let line: TimingLine = read(json!({"step": 4, "resumed": true}));
    let (step, resumed) = (4, true);
    assert_eq!(line, TimingLine::Resumed(Resumed { step, resumed }));
    assert_eq!(text(&line), r#"{"step":4,"resumed":true}"#);
    let TimingLine::Timing(timing) = read(json!({"step": 4, "seconds": 0.5})) else {
        panic!("a timing");
    };
    let figures: Vec<_> = timing.figures().collect();
    assert_eq!(figures, [("seconds", 0.5)]);
}

#[test]
fn numbers_that_are_not_finite_are_written_by_name_where_they_are_what_the_file_is_about() {
    let row = NonFiniteRow {
        row: 1,
        loss: f64::NEG_INFINITY,
        responses: vec![NonFiniteResponse {
            role: "chosen".into(),
            tokens: 3.0,
            log_prob: f64::NAN,
            reference: -1.5,
        }],
    };
    let written = text(&row);
    assert_eq!(
        written,
        "{\"row\":1,\"loss\":\"-inf\",\"responses\":[{\"role\":\"chosen\",\"tokens\":3.0,\
         \"log_prob\":\"NaN\",\"reference\":-1.5}]}"
    );
    let back: NonFiniteRow = serde_json::from_str(&written).unwrap();
    assert_eq!(back.loss, f64::NEG_INFINITY);
    assert!(back.responses[0].log_prob.is_nan());
}

#[test]
fn numbers_that_are_not_finite_are_null_elsewhere() {
    let side = json!({"text": "a", "reward": null, "log_prob": -1, "tokens": 3});
    let margins = json!({"step": 2, "pairs": 1, "smallest": [],
        "largest": [{"row": 0, "margin": 1.5, "prompt": "p", "chosen": side, "rejected": side}]});
    let margins: Margins = read(margins);
    let chosen = &margins.largest[0].chosen;
    assert!(chosen.reward.is_nan() && chosen.reference_log_prob.is_nan());
    assert_eq!(
        text(chosen),
        r#"{"text":"a","reward":null,"log_prob":-1.0,"reference_log_prob":null,"tokens":3.0}"#
    );
}

#[test]
fn a_summary_of_an_early_version_is_read() {
    let summary: SummaryRecord = read(json!({"steps": 2, "eval": {"last": {"eval_loss": 0.5}}}));
    assert_eq!((summary.steps, summary.resumed_from), (2, None));
    assert_eq!(summary.evaluated("eval_loss"), Some(0.5));
    assert_eq!(summary.evaluated("eval_kl"), None);
    assert_eq!(summary.story_after(|after| after.score), None);
}

#[test]
fn checkpoints_are_the_directories_of_their_exact_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["checkpoint-12", "checkpoint-3", "checkpoint-03", "other"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    assert_eq!(checkpoint_steps(folder.path()), [3, 12]);
    assert_eq!(checkpoint_step(Path::new(&checkpoint_name(7))), Some(7));
}

#[test]
fn an_incomplete_last_line_is_left_out_and_a_damaged_one_is_a_remark() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(METRICS);
    assert_eq!(read_log::<Record>(&path).unwrap().records.len(), 0);
    std::fs::write(&path, "{\"step\":1}\nx\n{\"step\":2}\n{\"st").unwrap();
    let log = read_log::<Record>(&path).unwrap();
    let steps: Vec<u64> = log.records.iter().map(step).collect();
    assert_eq!(steps, [1, 2]);
    assert_eq!(log.remarks.len(), 1);
    assert!(log.remarks[0].ends_with("metrics.jsonl:2: not a record"));
}
