//! `expo data lint`.

use serde_json::{Value, json};

use super::{Place, str};
use crate::support::fixture;

fn rows(pairs: &[[&str; 3]]) -> String {
    let row = |[prompt, chosen, rejected]: &[&str; 3]| {
        format!(
            "{}\n",
            json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        )
    };
    pairs.iter().map(row).collect()
}

#[test]
fn files_are_linted_without_a_model() {
    let place = Place::new();
    let train = rows(&[["a", " bcd", " c"], ["d", " ef", " f"], ["a", " bcd", " c"]]);
    let train = place.write("train.jsonl", train);
    let more = place.write("more.jsonl", rows(&[["g", " h", " i"]]));
    let eval = place.write("eval.jsonl", rows(&[["d", " ef", " f"]]));
    let args = [
        "data",
        "lint",
        str(&train),
        str(&more),
        "--eval",
        str(&eval),
    ];
    let text = place.succeed(&args);
    let parts = [
        "rows                                       4\n",
        "warning duplicate_row                      1  25.00%  prompt and answers are those of an earlier row\n",
        "train.jsonl:3 = row 0\n",
        "warning leaked_row                         1 100.00%  prompt and answers are those of a training row\n",
        "eval.jsonl:1 = row 1\n",
        "nothing found: unusable, near_duplicate, ",
        // (0.875 + z^2/8 +- z sqrt(0.875 0.125 / 4 + z^2/64)) / (1 + z^2/4) with z = 1.96.
        "the longer answer is chosen in 87.5% of 4 pairs (95%: 39.6% to 98.7%), 1 of them equally long\n",
        // Differences 2, 1, 2, 0: 5/4 +- 1.96 sqrt(11/48).
        "chosen - rejected: 1.2 characters (95%: 0.3 to 2.2)\n",
    ];
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let end = place.run(&[&args[..], &["--json", "--strict"]].concat());
    assert_eq!(end.code, Some(1), "{}", end.err);
    assert!(
        end.err.ends_with("error: there are 2 warnings\n"),
        "{}",
        end.err
    );
    let json: Value = serde_json::from_str(&end.out).unwrap();
    assert_eq!(json["warnings"], 2);
    assert_eq!(json["eval"]["findings"][0]["check"], "leaked_row");
    assert_eq!(json["eval"]["findings"][0]["share"], 1.0);
    assert_eq!(
        json["train"]["statistics"]["length_bias"]["accuracy"],
        0.875
    );
    assert!(json["train"]["census"].is_null());
    let clean = place.run(&["data", "lint", str(&more), "--strict", "--format", "pairs"]);
    assert_eq!((clean.code, clean.err.as_str()), (Some(0), ""));
    place.refuse(
        &["data", "lint", str(&place.path("none.jsonl"))],
        &["none.jsonl"],
    );
    assert_eq!(place.run(&["data", "lint"]).code, Some(2));
}

#[test]
fn the_rows_of_a_run_are_linted_by_its_tokens_too() {
    let place = Place::new();
    let eval = format!("eval = {:?}", str(&fixture("pairs.jsonl")));
    let config = place.config(&fixture("neox"), "dpo", &eval, "");
    let lint = |more: &[&str]| {
        let args = [
            &["data", "lint", "--config", str(&config), "--json"][..],
            more,
        ]
        .concat();
        serde_json::from_str::<Value>(&place.succeed(&args)).unwrap()
    };
    let json = lint(&[]);
    let show = ["data", "show", "--config", str(&config), "--json"];
    let shown: Value = serde_json::from_str(&place.succeed(&show)).unwrap();
    let mut census = json["train"]["census"].clone();
    let bias = census
        .as_object_mut()
        .unwrap()
        .remove("length_bias")
        .unwrap();
    assert_eq!(census, shown["census"]);
    assert_eq!(bias["pairs"], shown["census"]["kept"]);
    assert_eq!(json["eval"]["findings"][0]["check"], "leaked_row");
    assert_eq!(json["eval"]["findings"][0]["rows"], json["train"]["usable"]);
    // Short limits cut, and rows whose answer is left out are named.
    let bad = place.write(
        "bad.jsonl",
        rows(&[
            ["one two three four five six", " a b", " c"],
            ["d", " ", "e"],
        ]),
    );
    let train = format!("data.train={}", str(&bad));
    let limits = [
        "--set",
        "data.max_length=6",
        "--set",
        "data.max_prompt_length=3",
    ];
    let strict = ["--set", &train, "--set", "data.on_invalid=error"];
    let json = lint(&[&limits[..], &strict].concat());
    let findings = json["train"]["findings"].as_array().unwrap();
    let of = |check: &str| {
        findings
            .iter()
            .find(|finding| finding["check"] == check)
            .unwrap()
    };
    let line = |line: usize| json!([format!("{}:{line}", str(&bad))]);
    assert_eq!(
        (&of("unusable")["detail"], &of("unusable")["first"]),
        (&json!("empty_answer"), &line(2))
    );
    assert_eq!(
        (&of("cut")["rows"], &of("cut")["first"]),
        (&json!(1), &line(1))
    );
    assert!(!place.path("out").exists());
}

#[test]
fn a_model_that_is_not_there_and_rows_that_a_run_refuses_are_said() {
    let place = Place::new();
    let config = place.config(&place.path("no/such/model"), "dpo", "", "");
    let lint = |more: &[&str]| {
        place.run(&[&["data", "lint", "--config", str(&config)][..], more].concat())
    };
    let end = lint(&[]);
    assert_eq!(end.code, Some(0), "{}", end.err);
    assert!(
        end.err.contains("lengths are in characters alone"),
        "{}",
        end.err
    );
    let model = format!("model.model_name_or_path={}", str(&fixture("neox")));
    let end = lint(&[
        "--set",
        &model,
        "--set",
        "data.max_length=100000",
        "--strict",
    ]);
    assert_eq!(end.code, Some(1), "{}", end.err);
    assert!(
        end.out.contains(
            "warning: a run would refuse these rows: --set data.max_length=100000: max_length is"
        ),
        "{}",
        end.out
    );
    place.refuse(
        &[
            "data",
            "lint",
            "--config",
            str(&config),
            "--set",
            "data.train=no.jsonl",
        ],
        &["no.jsonl"],
    );
}
