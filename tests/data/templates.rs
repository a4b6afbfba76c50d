//! The template engine against transformers, other templates than the model's, and what they are given.

use super::chat::{say, scene};
use super::*;
use expo::data::chat::{ChatTemplate, Message};
use expo::io::model_dir::ModelFiles;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CHATML: &[&str] = &["<|im_end|>"];
const SFT: Needs = Needs {
    all: &[Role::Chosen],
    reference: false,
    soft_labels: false,
    ..PAIR
};

#[test]
fn constructs_of_templates_are_what_they_are_in_transformers() {
    let cases = crate::support::json(&fixture("chat/engine.json"));
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 300);
    let messages = [
        json!({"role": "user", "content": " Hi\nthere "}),
        json!({"role": "assistant", "content": "ho"}),
    ];
    let messages = messages.map(|message| Message::from_json(&message).unwrap());
    let special = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    for case in cases {
        let source = case[0].as_str().unwrap().to_owned();
        let template = ChatTemplate::new(source.clone(), "t".into(), BTreeMap::clone(&special));
        let text = template.and_then(|template| template.render(&messages, true));
        assert_eq!(
            text.as_ref().ok().map(String::as_str),
            case[1].as_str(),
            "{source}: {text:?}"
        );
    }
}

/// A model in the scene, with other files as these keys of `[data]` say.
fn with(scene: &mut Scene, change: impl FnOnce(&mut expo::data::ChatConfig)) -> Result<ModelFiles> {
    change(&mut scene.config.tokens.chat);
    let files = ModelFiles::open(&scene.folder.path().join("model"))?;
    let (tokenizer, files) = Tokenizer::with(&files, &scene.config.tokens.chat)?;
    scene.tokenizer = tokenizer;
    Ok(files)
}

fn conversation() -> Value {
    json!({"messages": [say("user", "One?"), say("assistant", "1.")]})
}

#[test]
fn another_template_is_a_file_or_has_a_name() {
    let mut scene = scene("chatml", CHATML, "sft", &[conversation()]);
    let model = scene.folder.path().join("model");
    let named = json!([{"name": "default", "template": "d"}, {"name": "short", "template":
        "{% for m in messages %}{{ m.role[0] + m.content }}{% endfor %}{% if add_generation_prompt %}a{% endif %}"}]);
    let config = json!({"chat_template": named, "eos_token": "</s>"});
    std::fs::write(model.join("tokenizer_config.json"), config.to_string()).unwrap();
    let file = scene.folder.path().join("own.jinja");
    std::fs::write(
        &file,
        "{% for m in messages %}\r\n<{{ m.content }}>{% endfor %}",
    )
    .unwrap();
    for (name, texts) in [
        (file.to_str().unwrap(), ["<One?>", "<1.><|im_end|>"]),
        ("short", ["uOne?a", "1.<|im_end|>"]),
        (
            "plain",
            ["### User:\nOne?\n\n### Assistant:\n", "1.</s><|im_end|>"],
        ),
        (
            "chatml",
            [
                "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\n",
                "1.<|im_end|>",
            ],
        ),
    ] {
        let files = with(&mut scene, |chat| chat.template = Some(name.into())).unwrap();
        assert_eq!(scene.first(&SFT), texts, "{name}");
        // What is saved is what was used.
        let saved = files.get("chat_template.jinja").text().unwrap();
        let again = ChatTemplate::new(
            saved,
            String::new(),
            [("eos_token".into(), "</s>".into())].into(),
        );
        let again = again
            .unwrap()
            .render(&[Message::new("user", "One?")], true)
            .unwrap();
        assert_eq!(again, texts[0]);
        assert!(
            files
                .get("tokenizer_config.json")
                .json()
                .unwrap()
                .get("chat_template")
                .is_none()
        );
    }
    for (name, what) in [
        (
            "nothing",
            "data.chat_template: there is no chat template \"nothing\"; it is a file, FILE.jinja, or one of: \
             default, short, chatml, plain",
        ),
        (
            "no/such.jinja",
            "data.chat_template: no/such.jinja: no such file",
        ),
    ] {
        let error = with(&mut scene, |chat| chat.template = Some(name.into()));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(what), "{error}");
    }
}

#[test]
fn variables_and_tools_reach_the_template() {
    let source = "{{ tools | tojson }}{{ thinking }}{{ date }}{{ messages[0].content }}:\
                  {% if messages|length > 1 %}{{ messages[1].content }}{% endif %}";
    let rows = [
        conversation(),
        json!({"tools": [{"name": "f"}], "chat_template_kwargs": {"date": "now"}}),
        json!({"tools": "[{\"name\": \"f\"}]", "chat_template_kwargs": "{\"date\": \"now\"}"}),
        json!({"tools": "[]", "chat_template_kwargs": null}),
        json!({"tools": "", "chat_template_kwargs": ""}),
    ];
    let rows = rows.map(|mut row| {
        row["messages"] = conversation()["messages"].clone();
        row
    });
    let mut scene = scene("chatml", CHATML, "sft", &rows);
    scene.config.tokens.chat.variables = json!({"thinking": false}).as_object().unwrap().clone();
    scene.template(source);
    scene.reopen();
    let dataset = scene.open(&SFT).unwrap();
    let prompts: Vec<String> = examples(&dataset)
        .iter()
        .map(|example| scene.tokenizer.decode(&example.prompt, false).unwrap())
        .collect();
    let (none, tools) = ("nullFalseOne?:", "[{\"name\": \"f\"}]FalsenowOne?:");
    assert_eq!(prompts, [none, tools, tools, none, none]);
    let one = expo::data::prompts(&scene.files, &scene.config.prompts(), &scene.tokenizer).unwrap();
    assert_eq!(one[1].text, tools);

    // Rows of plain text have such columns for something else.
    let text = Scene::new("pairs", "byte-level", ROW.replace("source", "tools"));
    assert_eq!(text.open(&PAIR).unwrap().len(), 1);
    for (key, value, what) in [
        (
            "tools",
            json!("[{"),
            "column `tools` is a string, not a list of tools",
        ),
        (
            "tools",
            json!({}),
            "column `tools` is an object, not a list of tools",
        ),
        (
            "chat_template_kwargs",
            json!([]),
            "column `chat_template_kwargs` is a list, not an object",
        ),
    ] {
        let mut row = conversation();
        row[key] = value;
        let message = self::scene("chatml", CHATML, "sft", &[row]).complaint(&SFT);
        assert!(
            message.starts_with(&format!("rows.jsonl:1: {what}")),
            "{message}"
        );
    }
    let variables = json!({"messages": []});
    scene.config.tokens.chat.variables = variables.as_object().unwrap().clone();
    assert!(
        scene
            .complaint(&SFT)
            .starts_with("[data]: chat_template_kwargs sets `messages`")
    );
}

#[test]
fn end_tokens_are_added_and_saved() {
    let mut scene = scene("chatml", &["<|end|>"], "sft", &[conversation()]);
    // The model ends with another token: said, and left to the user.
    assert_eq!(scene.first(&SFT)[1], "1.<|im_end|>\n<|end|>");
    let report = scene.open(&SFT).unwrap().report;
    assert_eq!(report.other_ends["<|im_end|>"], 1);
    let table = report.to_string();
    assert!(
        table.contains("set data.eos_token = \"<|im_end|>\""),
        "{table}"
    );

    let text = |token: &str| expo::data::TokenName::Text(token.into());
    let files = with(&mut scene, |chat| {
        chat.eos_token = Some(text("<|im_end|>"));
        chat.eot_tokens = vec![text("<|eot_id|>"), expo::data::TokenName::Id(6)];
    });
    let files = files.unwrap();
    assert_eq!(scene.tokenizer.ends(), [6, 0, 4]);
    assert_eq!(scene.first(&SFT)[1], "1.<|im_end|>");
    assert!(scene.open(&SFT).unwrap().report.other_ends.is_empty());
    let saved = |name: &str| files.get(name).json().unwrap();
    assert_eq!(
        saved("generation_config.json")["eos_token_id"],
        json!([6, 0, 4])
    );
    assert_eq!(saved("tokenizer_config.json")["eos_token"], "<|im_end|>");

    for (token, what) in [
        (
            text("<|im_ends|>"),
            "data.eos_token: \"<|im_ends|>\" is not in the vocabulary; did you mean `<|im_end|>`?",
        ),
        (
            text("1."),
            "data.eos_token: \"1.\" is not in the vocabulary",
        ),
        (
            expo::data::TokenName::Id(9999),
            "data.eos_token: 9999 is not a token id of the vocabulary",
        ),
    ] {
        let error = with(&mut scene, |chat| chat.eos_token = Some(token));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(what), "{error}");
    }
}
