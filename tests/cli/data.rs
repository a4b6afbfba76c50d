//! `expo data show`.

use std::fs;

use super::{Place, str};
use crate::support::fixture;

/// A model of a tokenizer and a config alone.
fn without_weights(place: &Place) -> std::path::PathBuf {
    let model = place.model("neox");
    fs::remove_file(model.join("model.safetensors")).unwrap();
    model
}

#[test]
fn a_census_needs_no_weights() {
    let place = Place::new();
    let eval = fixture("pairs.jsonl");
    let data = format!("eval = \"{}[:3]\"", str(&eval));
    let config = place.config(&without_weights(&place), "dpo", &data, "");
    let show = |more: &[&str]| {
        let args = [&["data", "show", "--config", str(&config)][..], more].concat();
        place.succeed(&args)
    };
    let report = show(&[]);
    assert!(
        report.starts_with("rows                          24\nkept "),
        "{report}"
    );
    assert!(!report.contains("prompt: "), "{report}");
    let eval = show(&["--split", "eval"]);
    assert!(
        eval.starts_with("rows                           3\n"),
        "{eval}"
    );
    let json: serde_json::Value = serde_json::from_str(&show(&["--json"])).unwrap();
    assert_eq!(json["census"]["rows"], 24);
    assert!(json["row"].is_null());
    assert!(!place.path("out").exists());
}

#[test]
fn a_row_is_shown_token_by_token() {
    let place = Place::new();
    let model = without_weights(&place);
    let config = place.config(&model, "rexpo", "", "");
    let row = serde_json::json!({
        "prompt": "the red fox", "chosen": " is\nfast", "rejected": " no", "preference": 0.75,
    });
    let rows = place.write("rows.jsonl", format!("\n{row}\n"));
    let set = format!("data.train={}", str(&rows));
    let args = [
        "data",
        "show",
        "--config",
        str(&config),
        "--set",
        &set,
        "--row",
        "0",
    ];
    let shown = place.succeed(&args);
    assert!(shown.contains("\nrow 0, "), "{shown}");
    assert!(
        shown.contains("rows.jsonl:2, p(chosen > rejected) = 0.75\n"),
        "{shown}"
    );
    assert!(shown.contains("\n\"the red fox\"\n  . "), "{shown}");
    assert!(shown.contains("\n\" is\\nfast\"\n  + "), "{shown}");
    assert!(
        shown.contains("\nrejected: ") && shown.contains("<|endoftext|>"),
        "{shown}"
    );

    let json = place.succeed(&[&args[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let row = &json["row"];
    assert_eq!(row["preference"], 0.75);
    let tokens = |part: &serde_json::Value| part["tokens"].as_array().unwrap().clone();
    let text = |tokens: &[serde_json::Value]| -> String {
        tokens
            .iter()
            .map(|token| token["text"].as_str().unwrap())
            .collect()
    };
    assert_eq!(text(&tokens(&row["prompt"])), "the red fox");
    assert!(
        tokens(&row["prompt"])
            .iter()
            .all(|token| token["scored"] == false)
    );
    let chosen = &row["responses"][0];
    assert_eq!(
        (&chosen["role"], &chosen["end_token"]),
        (&"chosen".into(), &true.into())
    );
    assert_eq!(text(&tokens(chosen)), " is\nfast<|endoftext|>");
    assert_eq!(chosen["scored_tokens"], tokens(chosen).len());
    let cut = [
        "--set",
        "data.max_length=5",
        "--set",
        "data.max_prompt_length=2",
    ];
    let shown = place.succeed(&[&args[..], &cut].concat());
    assert!(shown.contains("\nprompt: 2 tokens, cut\n"), "{shown}");
    assert!(shown.contains(", 3 scored, cut, no end token\n"), "{shown}");
}

#[test]
fn a_slice_is_scored_by_the_numbers_of_its_rows() {
    let place = Place::new();
    let (model, out) = (fixture("neox"), place.path("scores.jsonl"));
    let rows = format!("{}[22:]", str(&fixture("pairs.jsonl")));
    place.succeed(&[
        "score",
        "--model",
        str(&model),
        "--data",
        &rows,
        "--out",
        str(&out),
    ]);
    let numbers: Vec<_> = super::lines(&out)
        .iter()
        .map(|line| line["row"].clone())
        .collect();
    assert_eq!(numbers, [22, 23]);
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let place = Place::new();
    let config = place.config(&without_weights(&place), "dpo", "", "");
    let rows = place.write("rows.jsonl", "{\"prompt\": \"p\", \"chosen\": \"\", \"rejected\": \"n\"}\n{\"prompt\": \"p\", \"chosen\": \"y\", \"rejected\": \"n\"}\n");
    let set = format!("data.train={}", str(&rows));
    let show = |more: &[&str], words: &[&str]| {
        let args = ["data", "show", "--config", str(&config), "--set", &set];
        place.refuse(&[&args[..], more].concat(), words);
    };
    show(
        &["--row", "0"],
        &["rows.jsonl:1", "empty", "the row is left out"],
    );
    show(&["--row", "2"], &["there is no row 2", "2 were read"]);
    show(&["--split", "eval"], &["no data.eval", "data.eval"]);
    let long = ["--set", "data.max_length=9999"];
    show(&long, &["data.max_length"]);
    show(&[&long[..], &["--row", "1"]].concat(), &["data.max_length"]);
    show(
        &[&long[..], &["--row", "2"]].concat(),
        &["there is no row 2"],
    );
    let slice = format!("data.train={}[5:]", str(&rows));
    show(&["--set", &slice], &["rows.jsonl[5:]", "has 2 rows"]);
    show(
        &["--set", "data.train=rows.jsonl[5]"],
        &["ends in no slice"],
    );
}

#[test]
fn a_file_is_shown_without_a_config() {
    let place = Place::new();
    let rows = [
        serde_json::json!({"query": "Why?", "preferred": "So.", "dispreferred": "No.", "id": 3}),
        serde_json::json!({"query": null, "preferred": "So.", "dispreferred": "No.", "id": 4}),
    ];
    let rows = rows.map(|row| row.to_string()).join("\n");
    let path = place.write("rows.jsonl", rows);
    let shown = place.succeed(&["data", "show", str(&path)]);
    let begins = format!(
        "rows                           2\n\
         usable                         1\n\
         left out                       1  a column is null (lines 2): column `prompt` is null\n\
         columns not read      id\n\
         \n\
         [data]\n\
         train = {:?}\n\
         format = \"pairs\"\n\
         \n\
         [data.columns]\n\
         chosen = \"preferred\"\n\
         prompt = \"query\"\n\
         rejected = \"dispreferred\"\n\
         \n\
         row 0, ",
        str(&path)
    );
    assert!(shown.starts_with(&begins), "{shown}");
    assert!(
        shown.ends_with("\nprompt\n\"Why?\"\n\nchosen\n\"So.\"\n\nrejected\n\"No.\"\n"),
        "{shown}"
    );
    let model = without_weights(&place);
    let tokens = place.succeed(&["data", "show", str(&path), "--model", str(&model)]);
    assert!(
        tokens.starts_with(&begins) && tokens.contains("\n\"Why?\"\n  . "),
        "{tokens}"
    );
    let json = place.succeed(&["data", "show", str(&path), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["columns"]["prompt"], "query");
    assert_eq!(json["invalid"]["null_column"]["rows"], 1);
    assert_eq!(json["row"]["responses"][1]["content"], "No.");
    // What is to be pasted is a config that reads them.
    let lines = json["config"].as_str().unwrap();
    let config = format!("[model]\nmodel_name_or_path = {:?}\n{lines}", str(&model));
    let config = place.write("pasted.toml", config);
    let set = "loss=dpo";
    let length = ["--set", "data.max_length=64"];
    let args = [
        "data",
        "show",
        "--config",
        str(&config),
        "--set",
        set,
        length[0],
        length[1],
    ];
    let report = place.succeed(&args);
    assert!(
        report.contains("kept                           1\n"),
        "{report}"
    );
}

#[test]
fn a_set_that_is_known_says_what_its_columns_are() {
    let place = Place::new();
    let row = serde_json::json!({"system": "Be brief.", "question": "Why?", "chosen": "So.", "rejected": "No."});
    let path = place.write("rows.jsonl", row.to_string());
    let shown = place.succeed(&["data", "show", str(&path)]);
    assert!(
        shown.contains("format = \"pairs\"\napply_chat_template = true\n# prompt = \"question\"\n"),
        "{shown}"
    );
    let row = serde_json::json!({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]});
    let path = place.write("chat.jsonl", row.to_string());
    let shown = place.succeed(&["data", "show", str(&path)]);
    assert!(
        shown.ends_with("\nchosen\nuser: \"Why?\"\nassistant: \"So.\"\n"),
        "{shown}"
    );
    // A model without a template gets one as the message says.
    let model = fixture("neox");
    let command = ["data", "show", str(&path), "--model", str(&model)];
    place.refuse(&command, &["no chat template", "data.chat_template"]);
    let set = ["--set", "data.chat_template=chatml"];
    let shown = place.succeed(&[&command[..], &set].concat());
    assert!(shown.contains("im_start"), "{shown}");
}

#[test]
fn prompts_to_sample_are_shown_by_their_config() {
    let place = Place::new();
    let model = without_weights(&place);
    let rows = place.write("rows.jsonl", "{\"prompt\": \"Is the fox red?\"}\n");
    for format in ["format = \"prompts\"\n", ""] {
        let config = format!(
            "[model]\nmodel_name_or_path = {:?}\n[data]\n{format}train = {:?}\nmax_length = 64\n[sample]\n",
            str(&model),
            str(&rows),
        );
        let config = place.write("sample.toml", config);
        let shown = place.succeed(&["data", "show", "--config", str(&config), "--row", "0"]);
        assert!(
            shown.contains("kept                           1\n"),
            "{shown}"
        );
        assert!(
            shown.contains("\nprompt: ") && shown.contains("\"Is the fox red?\""),
            "{shown}"
        );
    }
}
