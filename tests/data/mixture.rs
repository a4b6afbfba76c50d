//! Weights of files.

use super::{KTO, PAIR};
use crate::support::fixture;
use expo::data::format::Format;
use expo::data::{Dataset, Example, Files, RowConfig, Tokenizer};
use expo::error::Result;
use expo::loss::Needs;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Two files of so many rows each, `a0`, `a1`, .. and `b0`, `b1`, ..
fn files(a: usize, b: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, rows) in [("a", a), ("b", b)] {
        let row = |row: usize| {
            let pair = json!({"prompt": format!("{name}{row}"), "chosen": format!(" c{row}"), "rejected": " r"});
            format!("{pair}\n")
        };
        let path = folder.path().join(format!("{name}.jsonl"));
        std::fs::write(path, (0..rows).map(row).collect::<String>()).unwrap();
    }
    folder
}

/// A list of (file, weight) as it stands in a config.
fn list(folder: &TempDir, parts: &[(&str, Value)]) -> Files {
    let part = |(name, weight): &(&str, Value)| json!({"path": folder.path().join(name), "weight": weight});
    let list: Vec<Value> = parts.iter().map(part).collect();
    serde_json::from_value(json!(list)).unwrap()
}

fn opened(files: &Files, seed: u64, needs: &Needs) -> Result<Dataset> {
    let mut config = RowConfig::new(Format::named("pairs").unwrap());
    config.seed = seed;
    let tokenizer = Tokenizer::open(&fixture("neox")).unwrap();
    Dataset::open(files, &config, &tokenizer, needs, None)
}

fn open(files: &Files, seed: u64) -> Dataset {
    opened(files, seed, &PAIR).unwrap()
}

fn rows(dataset: &Dataset) -> Vec<usize> {
    dataset
        .examples()
        .map(|example| example.unwrap().row)
        .collect()
}

#[test]
fn rows_are_there_as_often_as_the_weight_says_in_whole_passes() {
    let folder = files(4, 8);
    let weighted = list(
        &folder,
        &[("a.jsonl", json!(2.5)), ("b.jsonl", json!(0.25))],
    );
    let dataset = open(&weighted, 0);
    let rows = rows(&dataset);
    assert_eq!(rows[..8], [0, 1, 2, 3, 0, 1, 2, 3]);
    // Half of four rows once more, and a quarter of eight, each in the order of the file.
    assert!(
        rows[8] < rows[9] && rows[9] < 4 && 4 <= rows[10] && rows[10] < rows[11] && rows[11] < 12
    );
    assert_eq!(rows.len(), 12);
    let report = &dataset.report;
    assert_eq!(
        (report.rows, report.kept, report.left_out_by_weight()),
        (12, 6, 6)
    );
    assert!(report.invalid.is_empty());
    let counts: Vec<_> = report
        .mixture
        .iter()
        .map(|part| {
            (
                part.weight,
                part.rows,
                part.left_out,
                part.kept,
                part.examples,
            )
        })
        .collect();
    assert_eq!(counts, [(2.5, 4, 0, 4, 10), (0.25, 8, 6, 2, 2)]);
    let text = report.to_string();
    assert!(
        text.contains("left out by weight             6\nexamples                      12\n"),
        "{text}"
    );
    assert!(
        text.contains("b.jsonl x 0.25: 8 rows, 2 kept, 2 examples\n"),
        "{text}"
    );
    let originals = dataset.originals().unwrap();
    assert_eq!(originals[..8], [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(dataset.distinct(), [0, 1, 2, 3, 10, 11]);
}

#[test]
fn a_whole_weight_is_the_file_so_often_in_the_list() {
    let folder = files(5, 3);
    let twice: Files = serde_json::from_value(json!([
        folder.path().join("a.jsonl"),
        folder.path().join("a.jsonl"),
        folder.path().join("b.jsonl"),
    ]))
    .unwrap();
    let weighted = list(&folder, &[("a.jsonl", json!(2)), ("b.jsonl", json!(1))]);
    let tokens = |files: &Files| -> Vec<Example> {
        let unnumbered = |example: Result<Example>| Example {
            row: 0,
            ..example.unwrap()
        };
        open(files, 0).examples().map(unnumbered).collect()
    };
    assert_eq!(tokens(&weighted), tokens(&twice));
    // A row's mismatched answer is that of another prompt, in each of its copies.
    let dataset = opened(&weighted, 0, &KTO).unwrap();
    let examples: Vec<Example> = dataset.examples().collect::<Result<_>>().unwrap();
    assert_eq!(examples[..5], examples[5..10]);
    let once = list(&folder, &[("a.jsonl", json!(1)), ("b.jsonl", json!(1))]);
    let once: Vec<Example> = opened(&once, 0, &KTO)
        .unwrap()
        .examples()
        .collect::<Result<_>>()
        .unwrap();
    assert_eq!([&examples[..5], &examples[10..]].concat(), once);
}

#[test]
fn a_fingerprint_tells_weights_and_seeds_apart_and_a_weight_of_one_is_none() {
    let folder = files(8, 8);
    let plain: Files = serde_json::from_value(json!([
        folder.path().join("a.jsonl"),
        folder.path().join("b.jsonl"),
    ]))
    .unwrap();
    let of = |a: f64, b: f64, seed: u64| {
        open(
            &list(&folder, &[("a.jsonl", json!(a)), ("b.jsonl", json!(b))]),
            seed,
        )
        .fingerprint
    };
    let one = open(&plain, 0);
    assert_eq!(
        (of(1.0, 1.0, 0), of(1.0, 1.0, 1)),
        (one.fingerprint.clone(), one.fingerprint.clone())
    );
    assert!(one.report.mixture.is_empty() && one.originals().is_none());
    let all = [
        one.fingerprint,
        of(2.0, 1.0, 0),
        of(1.0, 2.0, 0),
        of(0.5, 1.0, 0),
        of(0.5, 1.0, 1),
        of(1.5, 1.0, 0),
    ];
    let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(of(0.5, 1.0, 1), all[4]);
    // A whole weight draws nothing.
    assert_eq!(of(2.0, 1.0, 7), all[1]);
}

#[test]
fn a_weight_is_of_the_rows_of_its_slice() {
    let folder = files(10, 0);
    let slice: Files = serde_json::from_value(json!(
        {"path": format!("{}/a.jsonl[2:8]", folder.path().display()), "weight": 0.5}
    ))
    .unwrap();
    let rows = rows(&open(&slice, 3));
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| (2..8).contains(row)));
}

#[test]
fn a_row_that_the_weight_leaves_out_is_said_to_be_and_none_left_is_an_error() {
    let folder = files(4, 1);
    let half = list(&folder, &[("a.jsonl", json!(0.5))]);
    let there = rows(&open(&half, 0));
    let tokenizer = Tokenizer::open(&fixture("neox")).unwrap();
    let config = RowConfig::new(Format::named("pairs").unwrap());
    for row in 0..4 {
        let inspected = Dataset::inspect(&half, &config, &tokenizer, &PAIR, None, row);
        match there.contains(&row) {
            true => assert_eq!(inspected.unwrap().1.example.row, row),
            false => {
                let message = inspected.unwrap_err().to_string();
                let end = format!(
                    "a.jsonl:{}: the weight of its file leaves the row out",
                    row + 1
                );
                assert!(message.ends_with(&end), "{message}");
            }
        }
    }
    let none = opened(&list(&folder, &[("b.jsonl", json!(0.1))]), 0, &PAIR).unwrap_err();
    assert!(
        none.to_string()
            .contains("the weights leave out all of 1 rows"),
        "{none}"
    );
}

#[test]
fn a_weight_is_written_as_it_is_read_and_a_wrong_one_refused() {
    for written in [
        json!({"path": "a.jsonl", "weight": 0.5}),
        json!(["a.jsonl", {"path": "b.jsonl[:10]", "weight": 2.5}]),
    ] {
        let files: Files = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&files).unwrap(), written);
        assert!(files.is_weighted());
    }
    let plain: Files = serde_json::from_value(json!([{"path": "a.jsonl"}])).unwrap();
    assert_eq!(serde_json::to_value(&plain).unwrap(), json!(["a.jsonl"]));
    for (wrong, message) in [
        (
            json!({"path": "a", "weight": 0}),
            "weight must be in (0, 1000] (got 0)",
        ),
        (
            json!(["b", {"path": "a", "weight": -0.5}]),
            "weight must be in (0, 1000] (got -0.5)",
        ),
        (
            json!({"path": "a", "wieght": 1}),
            "unknown field `wieght`, expected `path` or `weight`",
        ),
        (json!({"weight": 1}), "missing field `path`"),
        (json!({"path": "", "weight": 1}), "the path is empty"),
        (
            json!({"path": "a", "weight": "2"}),
            "invalid type: string \"2\"",
        ),
        (
            json!(["a", 3]),
            "expected a path, or { path = ..., weight = ... }",
        ),
    ] {
        let error = serde_json::from_value::<Files>(wrong)
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
    }
}
