//! Where the columns of a format stand, a system message in a column, and what is not read.

use super::chat::{say, scene};
use super::*;
use expo::data::format::Columns;
use serde_json::json;

fn columns(table: &str) -> Columns {
    toml::from_str(table).unwrap()
}

fn wrong(table: &str) -> String {
    toml::from_str::<Columns>(table)
        .unwrap_err()
        .message()
        .to_owned()
}

fn first(format: &str, table: &str, row: &serde_json::Value) -> Vec<String> {
    let mut scene = scene("chatml", &["<|im_end|>"], format, std::slice::from_ref(row));
    scene.config.columns = columns(table);
    scene.first(&PAIR)
}

#[test]
fn columns_are_found_under_other_names_and_in_nested_ones() {
    let row = json!({
        "question": "Why?",
        "completions": [{"response": "So.", "by": {"name": "a"}}, {"response": "No."}],
        "a.b": "dotted", "a": {"b": "nested"}, "listed": "[{\"x\": \"in a string\"}]",
    });
    let table = |chosen: &str, rejected: &str| {
        format!("prompt = \"question\"\nchosen = {chosen}\nrejected = {rejected}")
    };
    for (chosen, rejected, texts) in [
        (
            "\"completions[0].response\"",
            "\"completions[-1].response\"",
            ["So.", "No."],
        ),
        ("\"a.b\"", "\"completions[0].by.name\"", ["dotted", "a"]),
        (
            "\"listed[0].x\"",
            "{ value = \"never\" }",
            ["in a string", "never"],
        ),
    ] {
        let texts = texts.map(|text| format!("{text}<|im_end|>"));
        assert_eq!(
            first("pairs", &table(chosen, rejected), &row),
            ["Why?".to_owned(), texts[0].clone(), texts[1].clone()]
        );
    }
}

#[test]
fn the_table_comes_before_what_a_set_is_known_by() {
    let row = json!({
        "prompt": "p", "response_0": "a", "response_1": "b",
        "better_response_id": 0, "safer_response_id": "2",
    });
    assert_eq!(
        first("compared", "", &row),
        ["p", "a<|im_end|>", "b<|im_end|>"]
    );
    assert_eq!(
        first("compared", "winner = \"safer_response_id\"", &row),
        ["p", "b<|im_end|>", "a<|im_end|>"]
    );
}

#[test]
fn wrong_columns_are_refused_with_what_would_be_valid() {
    assert!(wrong("chosen = [\"rejected\"]").contains("expected a column"));
    assert!(wrong("promt = \"q\"").contains("no format reads `promt`; did you mean `prompt`?"));
    for path in ["", "a..b", "a[x]", "a[1", "a]", "[0]"] {
        let message = wrong(&format!("prompt = \"{path}\""));
        assert!(
            message.contains("expected a column as in"),
            "{path}: {message}"
        );
    }
    let mut scene = Scene::new("pairs", "byte-level", ROW);
    scene.config.columns = columns("label = \"x\"");
    assert!(
        scene
            .complaint(&PAIR)
            .starts_with("[data.columns]: format `pairs` does not read `label`"),
        "{}",
        scene.complaint(&PAIR)
    );
    scene.config.columns = columns("chosen = \"answers[0]\"");
    let message = scene.strip(&scene.open(&PAIR).unwrap_err().to_string());
    assert!(
        message.starts_with(
            "rows.jsonl: none of 1 rows is usable; rows.jsonl:1: the row has no `answers[0]`, which \
             data.columns names for `chosen`; it has `prompt`, `chosen`, `rejected`, `source`"
        ),
        "{message}"
    );
}

#[test]
fn the_table_decides_which_of_several_layouts_is_meant() {
    let row = json!({"instruction": "Why?", "output": "So.", "text": "Why? So."});
    let table = "prompt = \"instruction\"\ncompletion = \"output\"";
    let mut scene = scene("chatml", &["<|im_end|>"], "sft", &[row]);
    scene.config.columns = columns(table);
    let needs = Needs {
        all: &[Role::Chosen],
        ..PAIR
    };
    assert_eq!(scene.first(&needs)[..2], ["Why?", "So.<|im_end|>"]);
}

#[test]
fn a_system_column_is_the_first_message_of_a_conversation() {
    let begins = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n";
    let row = json!({
        "system": "Be brief.", "prompt": [say("user", "Why?")],
        "chosen": [say("assistant", "So.")], "rejected": [say("assistant", "No.")],
    });
    assert!(first("pairs", "", &row)[0].starts_with(begins));
    let strings =
        json!({"system": "Be brief.", "prompt": "Why?", "chosen": "So.", "rejected": "No."});
    let mut scene = scene(
        "chatml",
        &["<|im_end|>"],
        "pairs",
        std::slice::from_ref(&strings),
    );
    // Strings by themselves have none, and the report says so.
    assert_eq!(scene.first(&PAIR)[0], "Why?");
    let report = scene.open(&PAIR).unwrap().report;
    assert_eq!(report.unread, ["system"]);
    assert!(
        report
            .to_string()
            .contains("columns not read      system\n")
    );
    scene.config.tokens.apply_chat_template = true;
    assert!(scene.first(&PAIR)[0].starts_with(begins));
    assert!(scene.open(&PAIR).unwrap().report.unread.is_empty());
    // A constant, where no column has one.
    scene.config.columns = columns("system = { value = \"Be kind.\" }");
    assert!(scene.first(&PAIR)[0].contains("Be kind."));
    scene.config.tokens.apply_chat_template = false;
    assert!(
        scene
            .complaint(&PAIR)
            .starts_with("[data.columns]: plain texts have no system"),
        "{}",
        scene.complaint(&PAIR)
    );
    // A conversation that has one keeps it.
    let own = json!({
        "system": "Be brief.", "prompt": [say("system", "Be long."), say("user", "Why?")],
        "chosen": [say("assistant", "So.")], "rejected": [say("assistant", "No.")],
    });
    let texts = first("pairs", "", &own);
    assert!(
        texts[0].contains("Be long.") && !texts[0].contains("Be brief."),
        "{texts:?}"
    );
}

#[test]
fn columns_that_nothing_reads_are_named() {
    let scene = Scene::new("pairs", "byte-level", ROW);
    assert_eq!(scene.open(&PAIR).unwrap().report.unread, ["source"]);
}
