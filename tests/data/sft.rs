//! Rows to imitate, scores of pairs, and AlpacaEval's annotations.

use super::chat::{say, scene};
use super::*;
use expo::data::{AssistantTurns, Scores};

const SFT: Needs = Needs {
    all: &[Role::Chosen],
    reference: false,
    soft_labels: false,
    ..PAIR
};
const CHATML: &[&str] = &["<|im_end|>"];

fn turns() -> serde_json::Value {
    let messages = [
        say("user", "One?"),
        say("assistant", "1."),
        say("user", "Two?"),
        say("assistant", "2."),
    ];
    serde_json::json!({"messages": messages})
}

/// The scored text of a response.
fn scored(scene: &Scene, example: &Example) -> String {
    let response = &example.responses[0];
    let ids = response.ids.iter().enumerate();
    let ids = ids.filter(|(token, _)| example.is_scored(response, *token));
    let ids: Vec<u32> = ids.map(|(_, id)| *id).collect();
    scene.tokenizer.decode(&ids, false).unwrap()
}

#[test]
fn every_turn_of_the_assistant_is_scored_and_nothing_else() {
    let mut scene = scene("chatml", CHATML, "sft", &[turns()]);
    let dataset = scene.open(&SFT).unwrap();
    let example = &examples(&dataset)[0];
    let texts = scene.first(&SFT);
    assert_eq!(
        texts[0],
        "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\n"
    );
    let between = "\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(texts[1], format!("1.<|im_end|>{between}2.<|im_end|>"));
    assert_eq!(scored(&scene, example), "1.<|im_end|>2.<|im_end|>");
    // Byte by byte: 22 letters and 3 special tokens lie between the turns.
    let context = &example.responses[0].context;
    assert_eq!(context.len(), 1);
    assert_eq!(context[0].start, 3);
    assert_eq!(dataset.report.context_tokens, context[0].len());
    assert_eq!(example.scored_tokens(&example.responses[0]), 6);
    assert!(dataset.report.to_string().contains("context tokens"));

    // A cut within the context leaves the first turn, without its neighbours' scores.
    scene.config.length.max_length = example.prompt.len() + 5;
    scene.config.length.max_prompt_length = example.prompt.len();
    let cut = scene.open(&SFT).unwrap();
    assert_eq!(cut.report.context_tokens, 2);
    assert_eq!(scored(&scene, &examples(&cut)[0]), "1.<|im_end|>");
    assert_eq!(cut.report.cut_responses, 1);

    scene.config.length.max_length = 512;
    scene.config.tokens.assistant_turns = AssistantTurns::Last;
    let texts = scene.first(&SFT);
    assert!(texts[0].ends_with(between), "{texts:?}");
    assert_eq!(texts[1], "2.<|im_end|>");
    let last = scene.open(&SFT).unwrap();
    assert!(examples(&last)[0].responses[0].context.is_empty());
    assert_ne!(examples(&last)[0].hash(), example.hash());
}

#[test]
fn the_log_prob_of_turns_is_the_sum_over_them() {
    let model = crate::support::load(&fixture("neox"), candle_core::DType::F32);
    let tokenizer = Tokenizer::open(&fixture("neox")).unwrap();
    let ids = |text: &str| tokenizer.encode(text).unwrap();
    let (prompt, one, between, two) =
        (ids("the fox"), ids(" is fast"), ids(" and why"), ids(" so"));
    let score = |prompt: Vec<u32>, ids: Vec<u32>, context: Option<std::ops::Range<usize>>| {
        let mut response = expo::data::Response::new(Role::Chosen, ids);
        response.context.extend(context);
        let example = Example {
            row: 0,
            prompt,
            responses: vec![response],
            preference: None,
        };
        let column = expo::score::score(&model, &[example], 64).unwrap();
        column.score(0, 0).log_prob
    };
    let context = one.len()..one.len() + between.len();
    let whole = [&one[..], &between, &two].concat();
    let before = [&prompt[..], &one, &between].concat();
    let sum = score(prompt.clone(), one, None) + score(before, two, None);
    assert!((score(prompt, whole, Some(context)) - sum).abs() < 1e-4);
}

#[test]
fn turns_have_the_tokens_of_separate_tokenisation_too() {
    let mut scene = scene("chatml", CHATML, "sft", &[turns()]);
    let joint = scene.open(&SFT).unwrap();
    scene.config.tokens.tokenize = Tokenize::Separate;
    let separate = scene.open(&SFT).unwrap();
    // Byte-level without merges: the two agree in every token and range.
    assert_eq!(examples(&separate), examples(&joint));
}

#[test]
fn a_template_that_forgets_is_refused_where_all_turns_count() {
    // The style drops what was thought in earlier turns.
    let thought = |text: &str| say("assistant", &format!("<think>\nhm\n</think>\n\n{text}"));
    let messages = [
        say("user", "a"),
        thought("1."),
        say("user", "b"),
        thought("2."),
    ];
    let row = serde_json::json!({"messages": messages});
    let mut scene = scene("qwen", CHATML, "sft", &[row]);
    let message = scene.complaint(&SFT);
    assert!(
        message.starts_with("rows.jsonl:1: the chat template is not prefix-stable: after ")
            && message.contains("; data.assistant_turns = \"last\" takes"),
        "{message}"
    );
    scene.config.tokens.assistant_turns = AssistantTurns::Last;
    let texts = scene.first(&SFT);
    assert!(
        texts[0].contains("1.<|im_end|>") && !texts[0].contains("think"),
        "{texts:?}"
    );
    assert_eq!(texts[1], "<think>\nhm\n</think>\n\n2.<|im_end|>");
}

#[test]
fn prompts_with_completions_and_texts_are_imitated_too() {
    let rows = [
        serde_json::json!({"prompt": "p", "completion": " yes"}),
        serde_json::json!({"prompt": [say("user", "p")], "completion": [say("assistant", "yes")]}),
        serde_json::json!({"text": "all of it"}),
        turns(),
    ];
    let scene = scene("chatml", CHATML, "sft", &rows);
    let dataset = scene.open(&SFT).unwrap();
    let texts: Vec<String> = examples(&dataset)
        .iter()
        .map(|e| scored(&scene, e))
        .collect();
    // Nothing predicts the first letter of a text.
    assert_eq!(
        texts,
        [
            " yes<|im_end|>",
            "yes<|im_end|>",
            "ll of it<|im_end|>",
            "1.<|im_end|>2.<|im_end|>"
        ]
    );
    assert!(examples(&dataset)[2].prompt.is_empty());
    let begun = Scene::new("sft", "metaspace", r#"{"text": "ab"}"#);
    let example = &examples(&begun.open(&SFT).unwrap())[0];
    assert_eq!(begun.words(&example.prompt), ["<s>"]);
    assert_eq!(
        example.scored_tokens(&example.responses[0]),
        example.responses[0].ids.len()
    );

    let mut scene = self::scene("chatml", CHATML, "sft", &rows[2..3]);
    scene.config.tokens.apply_chat_template = true;
    assert!(
        scene
            .complaint(&SFT)
            .starts_with("rows.jsonl:1: a plain text is not a conversation")
    );
    let message = expo::data::prompts(&scene.files, &scene.config.prompts(), &scene.tokenizer);
    let message = message.unwrap_err().to_string();
    assert!(message.contains("the row has no prompt"), "{message}");
}

#[test]
fn rows_that_are_nothing_to_imitate_are_refused() {
    let mut pairs = Scene::new("pairs", "byte-level", ROW);
    pairs.config.tokens.assistant_turns = AssistantTurns::Last;
    let message = pairs.complaint(&PAIR);
    assert!(message.starts_with("[data]: assistant_turns for format `pairs`; "));
    for (row, what) in [
        (
            serde_json::json!({"messages": [say("user", "x")]}),
            "the conversation has no message of the assistant; ",
        ),
        (
            serde_json::json!({"messages": [say("user", "x"), say("assistant", "y"), say("user", "z")]}),
            "the chosen answer ends with a message that is not the assistant's; ",
        ),
        (
            serde_json::json!({"messages": [say("assistant", "y")]}),
            "the conversation begins with the assistant; ",
        ),
        (
            serde_json::json!({"messages": "x"}),
            "column `messages` is a string, not a list of messages; ",
        ),
        (
            serde_json::json!({"text": "x", "completion": "y"}),
            "the row has columns completion and text; it is one of: messages; prompt and completion; text",
        ),
        (
            serde_json::json!({"completion": "y"}),
            "the row has no column `prompt`, only `completion`; ",
        ),
        (
            serde_json::json!({"x": "y"}),
            "the row has no column `messages`, only `x`; format `sft` reads",
        ),
    ] {
        let message = scene("chatml", CHATML, "sft", &[row]).complaint(&SFT);
        assert!(
            message.starts_with(&format!("rows.jsonl:1: {what}")),
            "{message}\n{what}"
        );
    }
}

#[test]
fn chosen_answers_of_other_formats_are_imitated_and_rejected_ones_left_out() {
    let dataset = Scene::new("pairs", "byte-level", ROW).open(&SFT).unwrap();
    assert_eq!(examples(&dataset)[0].responses.len(), 1);
    let rows = "{\"prompt\": \"p\", \"completion\": \"no\", \"label\": false}\n\
                {\"prompt\": \"p\", \"completion\": \"yes\", \"label\": true}";
    let mut scene = Scene::new("unpaired", "byte-level", rows);
    for on_invalid in [OnInvalid::Skip, OnInvalid::Error] {
        scene.config.on_invalid = on_invalid;
        let dataset = scene.open(&SFT).unwrap();
        assert_eq!(dataset.report.invalid[&Invalid::NothingChosen].first, ["1"]);
        assert_eq!(dataset.len(), 1);
    }
}

fn graded(chosen: f64, rejected: f64) -> String {
    let row = serde_json::json!({
        "prompt": "p", "chosen": "yes", "rejected": "no",
        "score_chosen": chosen, "score_rejected": rejected,
    });
    row.to_string()
}

#[test]
fn scores_are_ignored_checked_or_made_soft_labels() {
    let rows = [graded(2.0, 1.0), graded(1.0, 1.0), graded(1.0, 3.0)];
    let mut scene = Scene::new("pairs", "byte-level", rows.join("\n"));
    let labels = |scene: &Scene| -> Vec<Option<f64>> {
        let dataset = scene.open(&PAIR).unwrap();
        examples(&dataset).iter().map(|e| e.preference).collect()
    };
    assert_eq!(labels(&scene), [None, None, None]);
    scene.config.scores = Scores::Check;
    let dataset = scene.open(&PAIR).unwrap();
    assert_eq!(dataset.report.invalid[&Invalid::Tie].first, ["2"]);
    assert_eq!(
        dataset.report.invalid[&Invalid::ScoresDisagree].first,
        ["3"]
    );
    assert_eq!(dataset.len(), 1);
    scene.config.scores = Scores::BradleyTerry;
    let found = labels(&scene);
    // sigma(1), sigma(0), sigma(-2)
    for (label, expected) in
        found
            .iter()
            .zip([0.731_058_578_630_004_9, 0.5, 0.119_202_922_022_117_56])
    {
        assert!((label.unwrap() - expected).abs() < 1e-15, "{label:?}");
    }
    let hard = Needs {
        soft_labels: false,
        ..PAIR
    };
    assert!(scene.complaint(&hard).contains("is a soft label"));
    for (row, what) in [
        (
            ROW.to_owned(),
            "the row has no column `score_chosen`, only `prompt`, `chosen`, `rejected`, `source`; data.scores asks for",
        ),
        (
            graded(1.0, 2.0).replace("1.0", "\"good\""),
            "column `score_chosen` is a string, not a number; ",
        ),
        (
            graded(1.0, 2.0).replace('}', ", \"preference\": 1.0}"),
            "the row has a `preference` beside its scores; ",
        ),
    ] {
        let mut scene = Scene::new("pairs", "byte-level", row);
        scene.config.scores = Scores::BradleyTerry;
        let message = scene.complaint(&PAIR);
        assert!(
            message.starts_with(&format!("rows.jsonl:1: {what}")),
            "{message}"
        );
    }
}

#[test]
fn annotations_of_alpaca_eval_are_pairs() {
    let row = |preference: serde_json::Value| {
        serde_json::json!({
            "instruction": "Why?", "output_1": "yes", "output_2": "no", "preference": preference,
        })
    };
    let rows = serde_json::json!([
        row(1.into()),
        row(2.0.into()),
        row(1.25.into()),
        row(().into())
    ]);
    let scene = Scene::new("alpaca_eval", "byte-level", rows.to_string());
    let dataset = scene.open(&PAIR).unwrap();
    let shown: Vec<(String, Option<f64>)> = examples(&dataset)
        .iter()
        .map(|e| (scene.words(&e.responses[0].ids).concat(), e.preference))
        .collect();
    assert_eq!(
        shown,
        [
            ("yes<|end|>".to_owned(), None),
            ("no<|end|>".to_owned(), None),
            ("yes<|end|>".to_owned(), Some(0.75)),
        ]
    );
    assert_eq!(dataset.report.invalid[&Invalid::NoPreference].first, ["4"]);
    // A loss without soft labels trains on the hard ones.
    let hard = Needs {
        soft_labels: false,
        ..PAIR
    };
    let rows = serde_json::json!([row(1.into()), row(2.into())]).to_string();
    assert_eq!(
        Scene::new("alpaca_eval", "byte-level", rows)
            .open(&hard)
            .unwrap()
            .len(),
        2
    );
    let message =
        Scene::new("alpaca_eval", "byte-level", row(0.into()).to_string()).complaint(&PAIR);
    assert!(
        message
            .starts_with("rows.jsonl:1: column `preference` is 0, not a number from 1 (output_1"),
        "{message}"
    );
}

#[test]
fn a_format_is_guessed_from_its_columns() {
    let chat = serde_json::json!([say("user", "p"), say("assistant", "a")]);
    for (row, name) in [
        (
            serde_json::json!({"chosen": "\n\nHuman: a", "rejected": "b"}),
            "hh",
        ),
        (
            serde_json::json!({"chosen": chat, "rejected": chat}),
            "pairs",
        ),
        (
            serde_json::json!({"prompt": "p", "chosen": "a", "rejected": "b"}),
            "pairs",
        ),
        (
            serde_json::json!({"prompt": "p", "chosen": chat, "rejected": chat, "messages": chat}),
            "pairs",
        ),
        (
            serde_json::json!({"prompt": "p", "completion": "c", "label": true}),
            "unpaired",
        ),
        (serde_json::json!({"prompt": "p", "completion": "c"}), "sft"),
        (serde_json::json!({"prompt": "p", "messages": chat}), "sft"),
        (serde_json::json!({"text": "t"}), "sft"),
        (serde_json::json!({"prompt": "p"}), "prompts"),
        (
            serde_json::json!({"instruction": "i", "output_1": "a", "output_2": "b"}),
            "alpaca_eval",
        ),
    ] {
        let scene = Scene::new("pairs", "byte-level", row.to_string());
        assert_eq!(Format::of_file(&scene.files).unwrap().name, name, "{row}");
    }
}

#[test]
fn a_row_is_shown_as_a_run_sees_it() {
    let rows = [["pqrs", "klmn", "no"], ["p", "", "no"], ["ab", "c", "d"]];
    let mut scene = Scene::pairs("byte-level", &rows);
    (
        scene.config.length.max_length,
        scene.config.length.max_prompt_length,
    ) = (6, 3);
    let look = |row| {
        let (config, tokenizer) = (&scene.config, &scene.tokenizer);
        Dataset::inspect(&scene.files, config, tokenizer, &PAIR, None, row)
    };
    let (dataset, first) = look(0).unwrap();
    assert_eq!(contents(&dataset), contents(&scene.open(&PAIR).unwrap()));
    assert_eq!(first.example, examples(&dataset)[0]);
    assert_eq!(
        (first.prompt.text.as_str(), first.prompt.cut),
        ("pqrs", true)
    );
    let cuts: Vec<bool> = first.responses.iter().map(|part| part.cut).collect();
    assert_eq!(cuts, [true, false]);
    assert_eq!(first.responses[0].text, "klmn");
    let (_, third) = look(2).unwrap();
    assert!(third.responses[0].merged && !third.responses[1].merged);
    assert_eq!(scene.strip(&third.place), "rows.jsonl:3");
    let message = |row| scene.strip(&look(row).unwrap_err().to_string());
    assert_eq!(
        message(1),
        "rows.jsonl:2: an answer is empty or only white space; the row is left out"
    );
    assert_eq!(
        message(3),
        "rows.jsonl: there is no row 3; rows are counted from 0; 3 were read"
    );
}
