//! Rows as public sets have them: read as they are, and guessed.

use super::chat::{say, scene};
use super::*;
use expo::data::format::Pairing;
use serde_json::{Value, json};

const SFT: Needs = Needs {
    all: &[Role::Chosen],
    ..PAIR
};

/// The texts of the first example, where the format is guessed, which it says.
fn guessed(row: &Value, needs: &Needs) -> (String, Vec<String>) {
    let scene = scene("chatml", &["<|im_end|>"], "auto", std::slice::from_ref(row));
    let report = scene
        .open(needs)
        .unwrap_or_else(|error| panic!("{row}: {error}"))
        .report;
    let format = Format::of_file(&scene.files).unwrap().name;
    assert_eq!(
        report.notes,
        [format!("the first rows are of format `{format}`")]
    );
    (format.to_owned(), scene.first(needs))
}

fn user(text: &str) -> String {
    format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")
}

#[test]
fn sets_to_imitate_are_read_as_they_are() {
    let chat = [user("Why?"), "So.<|im_end|>".to_owned()];
    let text = ["Why?".to_owned(), "So.<|im_end|>".to_owned()];
    let about = ["Why?\nThis.".to_owned(), "So.<|im_end|>".to_owned()];
    for (row, texts) in [
        (
            json!({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}),
            &chat,
        ),
        (
            json!({"conversations": [{"from": "user", "value": "Why?"}, {"from": "assistant", "value": "So."}]}),
            &chat,
        ),
        (
            json!({"conversation": [{"input": "Why?", "output": "So."}]}),
            &chat,
        ),
        (
            json!({"messages": [say("human", "Why?"), say("gpt", "So.")]}),
            &chat,
        ),
        (
            json!({"messages": json!([say("user", "Why?"), say("assistant", "So.")]).to_string()}),
            &chat,
        ),
        (
            json!({"prompt": "Why?", "messages": [say("user", "Why?"), say("assistant", "So.")]}),
            &chat,
        ),
        (
            json!({"prompt": "Why?", "completion": [say("user", "Why?"), say("assistant", "So.")]}),
            &chat,
        ),
        (
            json!({"instruction": "Why?", "input": "", "output": "So."}),
            &text,
        ),
        (
            json!({"instruction": "Why?", "input": "This.", "output": "So.", "history": []}),
            &about,
        ),
        (
            json!({"instruction": "Why?", "context": "This.", "response": "So."}),
            &about,
        ),
        (
            json!({"prompt": "Why?", "response": "So.", "helpfulness": 4}),
            &text,
        ),
    ] {
        assert_eq!(
            guessed(&row, &SFT),
            ("sft".to_owned(), texts.to_vec()),
            "{row}"
        );
    }
    let row = json!({
        "instruction": "And?", "output": "So.", "history": [["Why?", "Well."]], "system": "Be brief.",
    });
    let mut scene = scene("chatml", &["<|im_end|>"], "sft", &[row]);
    scene.config.tokens.apply_chat_template = true;
    let texts = scene.first(&SFT);
    assert!(
        texts[0].starts_with(
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        ),
        "{texts:?}"
    );
    assert!(
        texts[0].ends_with(&user("And?")) && texts[1] == "So.<|im_end|>",
        "{texts:?}"
    );
}

#[test]
fn sets_of_pairs_are_read_as_they_are() {
    let (so, no) = ("So.<|im_end|>", "No.<|im_end|>");
    let whole = |answer: &str| json!([say("user", "Why?"), say("assistant", answer)]);
    for (row, prompt) in [
        (
            json!({"system": "", "question": "Why?", "chosen": "So.", "rejected": "No."}),
            "Why?".to_owned(),
        ),
        (
            json!({"input": "Why?", "chosen": "So.", "rejected": "No."}),
            "Why?".to_owned(),
        ),
        (
            json!({"prompt": "Why?", "chosen": whole("So."), "rejected": whole("No.")}),
            user("Why?"),
        ),
        (
            json!({"prompt": [say("user", "Why?")], "chosen": whole("So."), "rejected": whole("No.")}),
            user("Why?"),
        ),
        (
            json!({
                "prompt": [say("user", "Why?")],
                "chosen": say("assistant", "So."), "rejected": say("assistant", "No."),
            }),
            user("Why?"),
        ),
        (
            json!({
                "conversations": [{"from": "human", "value": "Why?"}],
                "chosen": {"from": "gpt", "value": "So."}, "rejected": {"from": "gpt", "value": "No."},
            }),
            user("Why?"),
        ),
        (
            json!({
                "input": {"messages": [say("user", "Why?")], "tools": []},
                "preferred_output": [say("assistant", "So.")],
                "non_preferred_output": [say("assistant", "No.")],
            }),
            user("Why?"),
        ),
    ] {
        let texts = vec![prompt, so.to_owned(), no.to_owned()];
        assert_eq!(guessed(&row, &PAIR), ("pairs".to_owned(), texts), "{row}");
    }
}

#[test]
fn comparisons_become_pairs_by_their_winner() {
    let whole = |answer: &str| json!([say("user", "Why?"), say("assistant", answer)]);
    let of = |winner: Value| json!({"prompt": "Why?", "output_1": "So.", "output_2": "No.", "winner": winner});
    let text = "Why?".to_owned();
    for (row, prompt, chosen) in [
        (of(json!(1)), text.clone(), "So."),
        (of(json!("model_b")), text.clone(), "No."),
        (
            json!({"prompt": "[\"Why?\"]", "response_a": "[\"So.\"]", "response_b": "[\"No.\"]",
                   "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}),
            text.clone(),
            "No.",
        ),
        (
            json!({"conversation_a": whole("So."), "conversation_b": whole("No."), "winner": "model_a"}),
            user("Why?"),
            "So.",
        ),
        (
            json!({"prompt": "Why?", "response_0": "So.", "response_1": "No.", "better_response_id": 1}),
            text.clone(),
            "No.",
        ),
        (
            json!({"history": "Why?", "human_ref_A": "So.", "human_ref_B": "No.", "labels": 1}),
            text.clone(),
            "So.",
        ),
        (
            json!({"context": [say("user", "Why?")], "response1": "So.", "response2": "No.", "overall_preference": -2}),
            String::new(),
            "So.",
        ),
        (
            json!({"prompt": "Why?", "response_1": "So.", "response_2": "No.", "preference_strength": 3}),
            text.clone(),
            "No.",
        ),
        (
            json!({"question": {"full_text": "Why?"}, "answer_0": "So.", "answer_1": "No.", "score_0": -1, "score_1": 0.5}),
            text.clone(),
            "No.",
        ),
        (
            json!({"info": {"post": "Why?"}, "summaries": [{"text": "So."}, {"text": "No."}], "choice": 0}),
            text.clone(),
            "So.",
        ),
    ] {
        let rejected = if chosen == "So." { "No." } else { "So." };
        let mut scene = scene(
            "chatml",
            &["<|im_end|>"],
            "compared",
            std::slice::from_ref(&row),
        );
        assert_eq!(
            Format::of_file(&scene.files).unwrap().name,
            "compared",
            "{row}"
        );
        // A conversation beside a string.
        scene.config.tokens.apply_chat_template = prompt.is_empty();
        let prompt = if prompt.is_empty() {
            user("Why?")
        } else {
            prompt
        };
        let texts = [
            prompt,
            format!("{chosen}<|im_end|>"),
            format!("{rejected}<|im_end|>"),
        ];
        assert_eq!(scene.first(&PAIR), texts, "{row}");
    }
    let rows = [
        of(json!("tie")),
        of(json!(1)),
        of(json!("tie (both bad)")),
        of(json!(7)),
    ];
    let report = scene("chatml", &["<|im_end|>"], "compared", &rows)
        .open(&PAIR)
        .unwrap()
        .report;
    assert_eq!(report.invalid[&Invalid::NoWinner].first, ["1", "3"]);
    assert_eq!(report.invalid[&Invalid::Malformed].first, ["4"]);
}

#[test]
fn rankings_become_pairs_by_the_rule() {
    let ranked = json!({
        "prompt": "Why?", "answers": ["d", "a", "c", "b"], "ranks": [4, 1, 2, 2],
    });
    let pairs = |row: &Value, format: &str, pairing: Pairing| -> Vec<[String; 2]> {
        let rows = [row.clone(), row.clone()];
        let mut scene = Scene::new(format, "byte-level", json!(rows).to_string());
        scene.config.pairing = pairing;
        let dataset = scene.open(&PAIR).unwrap();
        let text = |ids: &[u32]| scene.words(ids).concat().replace("<|end|>", "");
        let pair = |e: &Example| [0, 1].map(|i| text(&e.responses[i].ids));
        let all: Vec<_> = examples(&dataset).iter().map(pair).collect();
        let half = all.len() / 2;
        // The second row is another one, and is not drawn as the first is.
        if pairing != Pairing::BestRandom {
            assert_eq!(all[..half], all[half..]);
        }
        all[..half].to_vec()
    };
    let pair = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
    assert_eq!(
        pairs(&ranked, "ranked", Pairing::BestWorst),
        [pair("a", "d")]
    );
    assert_eq!(
        pairs(&ranked, "ranked", Pairing::All),
        [
            pair("a", "c"),
            pair("a", "b"),
            pair("a", "d"),
            pair("c", "d"),
            pair("b", "d")
        ]
    );
    let drawn = pairs(&ranked, "ranked", Pairing::BestRandom);
    assert_eq!(drawn, pairs(&ranked, "ranked", Pairing::BestRandom));
    assert!(drawn[0][0] == "a" && drawn[0][1] != "a", "{drawn:?}");
    for row in [
        json!({"prompt": "Why?", "answers": [{"answer": "b", "rank": 2.0}, {"answer": "a", "rank": 1.0}]}),
        json!({"question": "Why?", "answers": [{"text": "b", "pm_score": 0}, {"text": "a", "pm_score": 5}]}),
        json!({"instruction": "Why?", "completions": [
            {"response": "b", "overall_score": 9.0, "fine-grained_score": 2.0},
            {"response": "a", "overall_score": 1.0, "fine-grained_score": 4.5},
            {"response": "x", "overall_score": 1.0, "fine-grained_score": null},
        ]}),
        json!({"instruction": "Why?", "completions": [
            {"response": "b", "overall_score": 2.0}, {"response": "a", "overall_score": 8.5},
        ]}),
    ] {
        let scene = Scene::new("auto", "byte-level", row.to_string());
        assert_eq!(
            Format::of_file(&scene.files).unwrap().name,
            "ranked",
            "{row}"
        );
        assert_eq!(
            pairs(&row, "ranked", Pairing::BestWorst),
            [pair("a", "b")],
            "{row}"
        );
    }
    let rows = [
        ranked,
        json!({"prompt": "p", "answers": ["a", "b"], "ranks": [1, 1]}),
        json!({"prompt": "p", "answers": ["a"], "ranks": [1]}),
        json!({"prompt": "p", "answers": ["a", "b"], "ranks": [1]}),
    ];
    let report = Scene::new("ranked", "byte-level", json!(rows).to_string())
        .open(&PAIR)
        .unwrap()
        .report;
    let reasons: Vec<&str> = report.invalid.keys().map(|reason| reason.name()).collect();
    assert_eq!(reasons, ["malformed", "few_answers", "tie"]);
    let mut scene = Scene::new("pairs", "byte-level", ROW);
    scene.config.pairing = Pairing::All;
    assert!(
        scene
            .complaint(&PAIR)
            .starts_with("[data]: pairing for format `pairs`"),
        "{}",
        scene.complaint(&PAIR)
    );
}

#[test]
fn rows_of_no_known_columns_are_refused_with_those_they_have() {
    let scene = Scene::new(
        "auto",
        "byte-level",
        "{\"chosen\": \"a\", \"rejected\": \"b\"}",
    );
    let message = scene.complaint(&PAIR);
    assert!(
        message.starts_with("rows.jsonl:1: the columns of the row are of no known format: `chosen`, `rejected`; name them in [data.columns]"),
        "{message}"
    );
}

#[test]
fn what_rows_lack_is_said_in_few_words() {
    for (row, words) in [
        (
            json!({"Prompt": "p", "Chosen": "a", "Rejected": "b"}),
            &["`Prompt`", "did you mean", "`prompt` by `Prompt`"][..],
        ),
        (
            json!({"q": "p", "chosen": "a", "bad": "b"}),
            &[
                "`q`",
                "`pairs`, lacks `prompt`, `rejected`",
                "the guide's page data",
            ],
        ),
        (
            json!({"prompt": "p", "choosen": "a", "rejected": "b"}),
            &["no chosen response", "`chosen` by `choosen`"],
        ),
        (
            json!({"prompt": "p", "chosen": "a", "rejected": null}),
            &["no chosen response", "column `rejected` is null"],
        ),
        (
            json!({"prompt": "p", "completion": "a"}),
            &["no rejected response", "`sft`", "expo sft"],
        ),
        (
            json!({"train": [{"prompt": "p", "chosen": "a", "rejected": "b"}]}),
            &["`train` is a list of rows", "the list itself"],
        ),
    ] {
        let message = Scene::new("auto", "byte-level", row.to_string()).complaint(&PAIR);
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert!(message.len() < 400, "{message}");
    }
    let mut scene = Scene::new("auto", "byte-level", ROW);
    scene.config.columns = serde_json::from_value(json!({"prompt": "q"})).unwrap();
    let message = scene.complaint(&PAIR);
    assert!(
        message.contains("has no `q`, which data.columns names for `prompt`"),
        "{message}"
    );
}

#[test]
fn labels_of_numbers_and_texts_are_labels() {
    for (label, role) in [
        (json!(1), Role::Chosen),
        (json!(0), Role::Rejected),
        (json!("true"), Role::Chosen),
        (json!("False"), Role::Rejected),
        (json!(1.0), Role::Chosen),
        (json!("TRUE"), Role::Chosen),
        (json!("0.0"), Role::Rejected),
        (json!(-1), Role::Rejected),
        (json!("undesirable"), Role::Rejected),
    ] {
        let row = json!({"prompt": "p", "completion": "c", "label": label}).to_string();
        let dataset = Scene::new("unpaired", "byte-level", row).open(&Needs { batch: &[], ..KTO });
        assert_eq!(
            examples(&dataset.unwrap())[0].responses[0].role,
            role,
            "{label}"
        );
    }
}

#[test]
fn judged_answers_are_not_imitated() {
    let said = [say("user", "Why?"), say("assistant", "No.")];
    let chat = json!([{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "No."}]);
    for row in [
        json!({"messages": said, "label": false}),
        json!({"messages": said, "kto_tag": false}),
        json!({"conversations": chat, "kto_tag": false}),
        json!({"prompt": "Why?", "response": "No.", "label": false}),
        json!({"instruction": "Why?", "input": "", "output": "No.", "kto_tag": false}),
    ] {
        let text = row.to_string();
        let scene = Scene::new("auto", "byte-level", text.clone());
        let format = Format::of_file(&scene.files).unwrap().name;
        assert_eq!(format, "unpaired", "{text}");
    }
    // A label that is no verdict says nothing.
    let row = json!({"messages": said, "label": "math"}).to_string();
    let scene = Scene::new("auto", "byte-level", row);
    assert_eq!(Format::of_file(&scene.files).unwrap().name, "sft");
}

#[test]
fn the_format_is_that_of_most_rows() {
    let bare = json!({"prompt": "p", "completion": "c", "label": null});
    let labelled = json!({"prompt": "p", "completion": "c", "label": true});
    let rows = [&bare, &labelled, &labelled].map(ToString::to_string);
    let scene = Scene::new("auto", "byte-level", rows.join("\n"));
    assert_eq!(Format::of_file(&scene.files).unwrap().name, "unpaired");
}
