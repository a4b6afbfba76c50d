//! Answers that come from elsewhere: other rows, sample files.

use super::*;

#[test]
fn mismatched_answers_rotate() {
    let prompts = ["p", "p", "q", "q", "r"];
    assert_eq!(mismatched_answers(&prompts, None).unwrap(), [2, 3, 4, 4, 0]);
    assert_eq!(
        mismatched_answers(&prompts, Some(2)).unwrap(),
        [1, 0, 3, 2, 4]
    );
    assert_eq!(
        mismatched_answers(&prompts, Some(4)).unwrap(),
        [3, 0, 1, 2, 4]
    );
    // The same prompt across the end of the set.
    assert_eq!(
        mismatched_answers(&["p", "q", "p"], None).unwrap(),
        [1, 2, 1]
    );
    // Of pairs, a chosen answer comes to stand beside a chosen one, a rejected beside a rejected one.
    let pairs = ["p", "p", "q", "q", "r", "r"];
    assert_eq!(
        mismatched_answers(&pairs, None).unwrap(),
        [2, 3, 4, 5, 0, 1]
    );
    assert!(mismatched_answers(&["p", "p"], None).is_err());
    assert!(mismatched_answers(&["p", "p"], Some(2)).is_err());
    assert!(mismatched_answers(&["p", "q"], Some(1)).is_err());
}

#[test]
fn a_pair_is_two_rows_and_the_same_loan_is_kept_once() {
    let rows = [["p", "yes", "no"], ["q", "x", "y"], ["p", "u", "v"]];
    let scene = Scene::pairs("byte-level", &rows);
    let loans = |dataset: &Dataset| -> Vec<Vec<String>> {
        let words = |example| {
            let of = ids(example, Role::Mismatched).into_iter();
            of.map(|ids| scene.words(ids).concat()).collect()
        };
        examples(dataset).iter().map(words).collect()
    };
    let whole = scene.open(&KTO).unwrap();
    let [first, second] = [["x<|end|>", "y<|end|>"], ["u<|end|>", "v<|end|>"]];
    assert_eq!(loans(&whole), [first, second, first]);
    let grouped = scene
        .open(&Needs {
            mismatch_group: Some(4),
            ..KTO
        })
        .unwrap();
    assert_eq!(
        loans(&grouped),
        [
            ["y<|end|>", "yes<|end|>"],
            ["no<|end|>", "x<|end|>"],
            ["v<|end|>", "u<|end|>"]
        ]
    );
    let same = Scene::pairs("byte-level", &[["p", "yes", "no"], ["p", "x", "y"]]);
    assert_eq!(
        same.complaint(&KTO),
        "rows.jsonl: every row has the same prompt; mismatched answers are answers to other prompts"
    );
}

#[test]
fn a_mismatched_answer_counts_for_the_length() {
    let mut scene = Scene::pairs("byte-level", &[["pqrs", "a", "b"], ["u", "klmnop", "c"]]);
    (
        scene.config.length.max_length,
        scene.config.length.max_prompt_length,
    ) = (9, 2);
    let dataset = scene.open(&KTO).unwrap();
    assert_eq!(scene.words(&examples(&dataset)[0].prompt).concat(), "pq");
    assert_eq!(dataset.report.cut_prompts, 1);
}

#[test]
fn samples_are_joined_by_prompt_in_the_order_of_their_index() {
    let scene = Scene::pairs(
        "byte-level",
        &[["p", "yes", "no"], ["q", "yes", "no"], ["r", "yes", "no"]],
    );
    let samples = scene
        .samples(
            r#"{"prompt": "p", "response": "no", "token_ids": [80, 0], "log_prob": -1.5, "finish_reason": "stop", "index": 1, "seed": 3}
{"prompt": "r", "response": "no", "finish_reason": "length"}
{"prompt": "p", "response": "", "token_ids": [0], "finish_reason": "stop", "index": 0}
{"prompt": "r", "response": "yes", "finish_reason": "stop"}"#,
        )
        .unwrap();
    assert_eq!(samples.prompts(), 2);
    let dataset = scene.open_with(&SAMPLED, Some(&samples)).unwrap();
    assert_eq!(dataset.report.invalid[&Invalid::NoSample].first, ["2"]);
    let rows: Vec<usize> = examples(&dataset).iter().map(|e| e.row).collect();
    assert_eq!(rows, [0, 2]);
    assert_eq!(
        ids(&examples(&dataset)[0], Role::Sampled),
        [&[0][..], &[80, 0]]
    );
    let words = |ids: &[u32]| scene.words(ids).join("|");
    let second = &examples(&dataset)[1];
    let sampled = ids(second, Role::Sampled);
    assert_eq!(words(sampled[0]), "no");
    assert_eq!(words(sampled[1]), "yes|<|end|>");
    assert_eq!(dataset.report.unfinished_responses, 1);
    // A loss without a use for them does not see them.
    let pairs = scene.open_with(&PAIR, Some(&samples)).unwrap();
    assert_eq!(pairs.len(), 3);
    assert!(
        scene
            .complaint(&SAMPLED)
            .starts_with("data.samples: the loss needs responses drawn")
    );
}

#[test]
fn samples_may_have_ids_of_a_padded_vocabulary() {
    let scene = Scene::new("pairs", "metaspace", ROW);
    let padded = scene.tokenizer.max_id() + 1;
    let line = format!(
        r#"{{"prompt": "p", "response": "r", "token_ids": [5, {padded}], "finish_reason": "length"}}"#
    );
    let path = scene.folder.path().join("padded.jsonl");
    std::fs::write(&path, line).unwrap();
    let open = |vocabulary| Samples::open(&path.clone().into(), vocabulary);
    assert!(open(padded as usize).is_err());
    assert_eq!(open(64).unwrap().of("p").unwrap().len(), 1);
}

#[test]
fn samples_of_another_vocabulary_are_refused() {
    let scene = Scene::new("pairs", "metaspace", ROW);
    for (line, what) in [
        (
            r#"{"prompt": "p", "response": "r", "token_ids": [37], "finish_reason": "stop"}"#,
            "token id 37 is outside the vocabulary of 37; did another model draw it?",
        ),
        (
            r#"{"prompt": "p", "response": "r", "token_ids": [], "finish_reason": "stop"}"#,
            "column `token_ids` is a list, not one or more token ids",
        ),
        (
            r#"{"prompt": "p", "response": "r", "finish_reason": "eos"}"#,
            "finish_reason is \"eos\", not \"stop\", \"stop_text\" or \"length\"",
        ),
    ] {
        let message = scene.strip(&scene.samples(line).unwrap_err().to_string());
        assert!(
            message.starts_with(&format!("samples.jsonl:1: {what}")),
            "{message}"
        );
    }
}

#[test]
fn an_answer_without_a_scored_token_is_no_answer() {
    let scene = Scene::pairs("byte-level", &[["", "yes", "no"], ["p", "yes", "no"]]);
    let drawn = |prompt: &str| {
        format!(
            r#"{{"prompt": "{prompt}", "response": "", "token_ids": [0], "finish_reason": "stop"}}"#
        )
    };
    let samples = scene
        .samples(&format!("{}\n{}", drawn(""), drawn("p")))
        .unwrap();
    let dataset = scene.open_with(&SAMPLED, Some(&samples)).unwrap();
    assert_eq!(
        dataset.report.invalid[&Invalid::NothingToScore].first,
        ["1"]
    );
    assert_eq!(dataset.len(), 1);
}

#[test]
fn prompts_without_a_preference_are_examples_by_their_samples() {
    let scene = Scene::new("prompts", "byte-level", "{\"prompt\": \"p\"}");
    let drawn =
        r#"{"prompt": "p", "response": "no", "token_ids": [80], "finish_reason": "length"}"#;
    let samples = scene.samples(drawn).unwrap();
    let needs = Needs {
        unlabelled: &[Role::Sampled],
        ..SAMPLED
    };
    let dataset = scene.open_with(&needs, Some(&samples)).unwrap();
    assert_eq!(ids(&examples(&dataset)[0], Role::Sampled), [[80]]);
    assert_eq!(examples(&dataset)[0].responses.len(), 1);
    let message = scene.open_with(&SAMPLED, Some(&samples)).unwrap_err();
    assert!(
        message.to_string().contains("no chosen response"),
        "{message}"
    );
}
