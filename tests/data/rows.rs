//! Files, formats, and what is refused.

use super::*;

#[test]
fn a_wrong_row_is_reported_with_its_line() {
    for (line, what) in [
        (
            "{\"prompt\": ",
            "not JSON: EOF while parsing a value at column 11; every line is one JSON object with a row's columns",
        ),
        (
            "[1]",
            "the line is a JSON list, not an object; every line is one JSON object with a row's columns",
        ),
        (
            "3",
            "the line is JSON, but not an object; every line is one JSON object with a row's columns",
        ),
        (
            "{\"prompt\": \"p\", \"choosen\": \"c\"}",
            "the row has no column `chosen`, only `prompt`, `choosen`; format `pairs` reads prompt, chosen, rejected, strings or lists of messages, or the lists chosen and rejected alone; preference, score_chosen, score_rejected (optional)",
        ),
        (
            "{\"prompt\": null, \"text\": 1}",
            "column `prompt` is null; format `pairs` reads prompt, chosen, rejected, strings or lists of messages, or the lists chosen and rejected alone; preference, score_chosen, score_rejected (optional)",
        ),
        (
            "{}",
            "the row has no column at all; format `pairs` reads prompt, chosen, rejected, strings or lists of messages, or the lists chosen and rejected alone; preference, score_chosen, score_rejected (optional)",
        ),
        (
            "{\"prompt\": \"p\", \"chosen\": [], \"rejected\": \"r\"}",
            "column `chosen` is an empty list; a conversation has messages",
        ),
        (
            "{\"prompt\": 1}",
            "column `prompt` is 1, not a string or a list of messages; format `pairs` reads prompt, chosen, rejected, strings or lists of messages, or the lists chosen and rejected alone; preference, score_chosen, score_rejected (optional)",
        ),
        (
            "{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\", \"preference\": 1.5}",
            "column `preference` is 1.5, not a number in [0, 1], the probability that `chosen` is preferred; format `pairs` reads prompt, chosen, rejected, strings or lists of messages, or the lists chosen and rejected alone; preference, score_chosen, score_rejected (optional)",
        ),
    ] {
        let message = complaint(format!("{ROW}\n\n{line}\n"));
        assert_eq!(message, format!("rows.jsonl:3: {what}"));
    }
    let mut bytes = format!("{ROW}\n{{\"prompt\": \"").into_bytes();
    bytes.extend(b"\xff\"}\n");
    let message = complaint(bytes);
    assert!(
        message.starts_with("rows.jsonl:2: byte 13 of the line is not UTF-8; rows are UTF-8"),
        "{message}"
    );
}

#[test]
fn files_that_are_something_else_are_named() {
    let utf16: Vec<u8> = "\u{feff}{}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (contents, what) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..],
            "pointer of Git LFS",
        ),
        (b"\n", "the file has no rows"),
        (b"", "the file has no rows"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        (b"PAR1\x15\x04", "cannot be read as parquet"),
        (b"BZh9", "compressed with bzip2"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"ORC\n", "ORC"),
        (&utf16, "UTF-16"),
        (&utf16[2..], "UTF-16"),
    ] {
        let message = complaint(contents);
        assert!(message.contains(what), "{message}");
    }
    let mut scene = Scene::new("pairs", "byte-level", ROW);
    scene.files = scene.folder.path().into();
    std::fs::remove_file(scene.folder.path().join("rows.jsonl")).unwrap();
    let message = scene.complaint(&PAIR);
    assert!(
        message.contains("the directory has no data files"),
        "{message}"
    );
    scene.files = "nowhere.jsonl".into();
    assert_eq!(
        scene.complaint(&PAIR),
        "nowhere.jsonl: no such file or directory"
    );
}

#[test]
fn a_byte_order_mark_and_carriage_returns_say_nothing() {
    let plain = Scene::new("pairs", "byte-level", ROW).open(&PAIR).unwrap();
    let marked = Scene::new("pairs", "byte-level", format!("\u{feff}{ROW}\r\n \r\n"));
    assert_eq!(contents(&marked.open(&PAIR).unwrap()), contents(&plain));
}

#[test]
fn gzip_is_known_by_its_first_bytes_and_may_have_members() {
    let member = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let (head, tail) = ROW.split_at(9);
    let mut bytes = [member(head), member(tail), member("\n"), member(ROW)].concat();
    let zipped = Scene::new("pairs", "byte-level", &bytes);
    let plain = Scene::new("pairs", "byte-level", format!("{ROW}\n{ROW}"));
    let open = |scene: &Scene| contents(&scene.open(&PAIR).unwrap());
    assert_eq!(open(&zipped), open(&plain));

    bytes.truncate(bytes.len() - 9);
    let message = Scene::new("pairs", "byte-level", &bytes).complaint(&PAIR);
    assert!(
        message.contains("gzip stream is damaged or cut off"),
        "{message}"
    );
}

fn hh(chosen: &str, rejected: &str) -> String {
    serde_json::json!({"chosen": chosen, "rejected": rejected}).to_string()
}

#[test]
fn hh_takes_the_prompt_up_to_the_last_assistant() {
    let start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:";
    let rows = [
        hh(&format!("{start} yes"), &format!("{start} yeah no")),
        hh(&format!("{start} "), &format!("{start} no")),
        hh(&format!("{start} yes"), "\n\nHuman: a\n\nAssistant: no"),
        hh("yes", "no"),
        hh(&format!("{start} yes"), &format!("{start}\n")),
    ];
    let mut scene = Scene::new("hh", "byte-level", rows.join("\n"));
    let dataset = scene.open(&PAIR).unwrap();
    let example = &examples(&dataset)[0];
    assert_eq!(
        scene.tokenizer.decode(&example.prompt, false).unwrap(),
        start
    );
    let decode = |ids: &[u32]| scene.tokenizer.decode(ids, false).unwrap();
    assert_eq!(decode(&example.responses[0].ids), " yes<|end|>");
    assert_eq!(decode(&example.responses[1].ids), " yeah no<|end|>");
    let invalid: Vec<(Invalid, usize, String)> = dataset
        .report
        .invalid
        .iter()
        .map(|(reason, lines)| (*reason, lines.rows, lines.first.join(" ")))
        .collect();
    assert_eq!(
        invalid,
        [
            (Invalid::PromptDiffers, 1, "3".to_owned()),
            (Invalid::NoAssistantTurn, 1, "4".to_owned()),
            (Invalid::EmptyAnswer, 2, "2 5".to_owned()),
        ]
    );
    assert_eq!((dataset.report.rows, dataset.report.kept), (5, 1));
    let table = dataset.report.to_string();
    assert!(
        table.contains("2  an answer is empty or only white space (lines 2, 5)\n"),
        "{table}"
    );

    scene.config.on_invalid = OnInvalid::Error;
    assert_eq!(
        scene.complaint(&PAIR),
        "rows.jsonl:2: an answer is empty or only white space; mend the row, or set data.on_invalid = \"skip\""
    );
}

#[test]
fn rows_without_a_usable_one_are_an_error() {
    let message = |rows: &[&str]| {
        let scene = Scene::new("pairs", "byte-level", rows.join("\n"));
        scene.strip(&scene.open(&PAIR).unwrap_err().to_string())
    };
    let empty = r#"{"prompt": "p", "chosen": "", "rejected": "no"}"#;
    assert_eq!(
        message(&[empty, empty]),
        "rows.jsonl: none of 2 rows is usable; \
         rows.jsonl:1: an answer is empty or only white space"
    );
    // The first is said in full, with what would be valid.
    assert_eq!(
        message(&[r#"{"prompt": 3}"#, empty, "[]", empty]),
        "rows.jsonl: none of 4 rows is usable: 1 not a JSON object (lines 3), \
         1 a column is not what the format reads (lines 1), \
         2 an answer is empty or only white space (lines 2, 4); \
         rows.jsonl:1: column `prompt` is 3, not a string or a list of messages; \
         format `pairs` reads prompt, chosen, rejected, strings or lists of messages, or the lists chosen and rejected alone; preference, score_chosen, score_rejected (optional)"
    );
}

#[test]
fn rows_that_cannot_be_used_are_left_out_and_counted() {
    let rows = [
        ROW,
        "{\"prompt\": ",
        "{\"prompt\": \"p\", \"chosen\": \"c\"}",
        ROW,
        "3",
    ];
    let scene = Scene::new("pairs", "byte-level", rows.join("\n"));
    let dataset = scene.open(&PAIR).unwrap();
    let kept: Vec<usize> = examples(&dataset).iter().map(|e| e.row).collect();
    assert_eq!(kept, [0, 3]);
    assert_eq!((dataset.report.rows, dataset.report.kept), (5, 2));
    let table = dataset.report.to_string();
    for line in [
        "left out                       2  not a JSON object (lines 2, 5): \
         not JSON: EOF while parsing a value at column 11\n",
        "left out                       1  a column is missing (lines 3): \
         the row has no column `rejected`, only `prompt`, `chosen`\n",
    ] {
        assert!(table.contains(line), "{table}");
    }
    // The others are what they are without them.
    let good = Scene::new("pairs", "byte-level", [ROW, ROW].join("\n"));
    assert_eq!(dataset.fingerprint, good.open(&PAIR).unwrap().fingerprint);
}

#[test]
fn soft_labels_need_a_loss_that_has_a_use_for_them() {
    let row = r#"{"prompt": "p", "chosen": "yes", "rejected": "no", "preference": 0.75}"#;
    let scene = Scene::new("pairs", "byte-level", format!("{ROW}\n{row}"));
    let dataset = scene.open(&PAIR).unwrap();
    let labels: Vec<_> = examples(&dataset).iter().map(|e| e.preference).collect();
    assert_eq!(labels, [None, Some(0.75)]);
    let hard = Needs {
        soft_labels: false,
        ..PAIR
    };
    assert_eq!(
        scene.complaint(&hard),
        "rows.jsonl:2: preference = 0.75 is a soft label; \
         this loss has no meaning for one: leave the preference out"
    );
}

#[test]
fn unpaired_rows_are_chosen_or_rejected_and_no_pair() {
    let rows = "{\"prompt\": \"p\", \"completion\": \"yes\", \"label\": true}\n\
                {\"prompt\": \"q\", \"completion\": \"no\", \"label\": false}";
    let scene = Scene::new("unpaired", "byte-level", rows);
    let dataset = scene.open(&KTO).unwrap();
    let roles: Vec<Role> = examples(&dataset)
        .iter()
        .map(|e| e.responses[0].role)
        .collect();
    assert_eq!(roles, [Role::Chosen, Role::Rejected]);
    assert_eq!(
        scene.complaint(&PAIR),
        "rows.jsonl:1: no rejected response; the loss reads one in every example; the rows are of \
         format `unpaired`, one judged answer each, for the losses kto and bco"
    );
    let row = "{\"prompt\": \"p\", \"completion\": \"yes\", \"label\": 2}";
    let message = Scene::new("unpaired", "byte-level", row).complaint(&KTO);
    assert_eq!(
        message,
        "rows.jsonl:1: column `label` is 2, not true or false; \
         format `unpaired` reads prompt, completion, strings or lists of messages; label (true or 1: desirable)"
    );
}

#[test]
fn an_example_has_the_roles_that_the_loss_needs_and_no_others() {
    let needs = Needs {
        all: &[Role::Chosen],
        ..PAIR
    };
    let dataset = Scene::new("pairs", "byte-level", ROW).open(&needs).unwrap();
    assert_eq!(examples(&dataset)[0].responses.len(), 1);
    assert_eq!(examples(&dataset)[0].responses[0].role, Role::Chosen);
}
