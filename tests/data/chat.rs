//! Chat templates, against transformers and in rows.

use super::*;
use expo::data::chat::{ChatTemplate, Message};

/// The tokens that end a response, by the template's style.
const CHATML: &[&str] = &["<|im_end|>", "<|end|>"];
const ZEPHYR: &[&str] = &["</s>"];

/// A scene whose model has the chat template of a fixture.
pub fn scene(template: &str, ends: &[&str], format: &str, rows: &[serde_json::Value]) -> Scene {
    let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    let mut scene = Scene::new(format, "byte-level", rows.join("\n"));
    let model = scene.folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture("chat").join(name), model.join(name)).unwrap();
    }
    if !template.is_empty() {
        let source = fixture("chat").join(format!("{template}.jinja"));
        std::fs::copy(source, model.join("chat_template.jinja")).unwrap();
    }
    let definition = crate::support::json(&model.join("tokenizer.json"));
    let ids: Vec<_> = ends
        .iter()
        .map(|end| &definition["model"]["vocab"][end])
        .collect();
    let config = serde_json::json!({"eos_token_id": ids});
    std::fs::write(model.join("generation_config.json"), config.to_string()).unwrap();
    scene.tokenizer = Tokenizer::open(&model).unwrap();
    scene
}

pub fn say(role: &str, content: &str) -> serde_json::Value {
    serde_json::json!({"role": role, "content": content})
}

impl Scene {
    /// Prompt and responses of the first example as text.
    pub fn first(&self, needs: &Needs) -> Vec<String> {
        let dataset = self.open(needs).unwrap();
        let example = &examples(&dataset)[0];
        let responses = example.responses.iter().map(|response| &response.ids);
        let all = std::iter::once(&example.prompt).chain(responses);
        all.map(|ids| self.tokenizer.decode(ids, false).unwrap())
            .collect()
    }

    pub fn template(&self, source: &str) {
        let path = self.folder.path().join("model/chat_template.jinja");
        std::fs::write(path, source).unwrap();
    }

    /// Opens the tokenizer again, with the template that is there now.
    pub fn reopen(&mut self) {
        let model = self.folder.path().join("model");
        self.tokenizer = Tokenizer::open(&model).unwrap();
    }
}

#[test]
fn templates_write_what_they_write_in_transformers() {
    let oracle = crate::support::json(&fixture("chat/oracle.json"));
    let cases = oracle["cases"].as_array().unwrap();
    assert!(cases.len() > 80);
    let (mut texts, mut errors) = (0, 0);
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let scene = scene(name, ZEPHYR, "pairs", &[]);
        let template = scene.tokenizer.chat_template().unwrap();
        let messages = case["messages"].as_array().unwrap().iter();
        let messages: Vec<Message> = messages.map(|m| Message::from_json(m).unwrap()).collect();
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        let rendered = template.render(&messages, prompt);
        let at = format!("{name}: {}", case["messages"]);
        if let Some(error) = case["error"].as_str() {
            let message = rendered.unwrap_err().to_string();
            let end = format!("the chat template refuses the messages: {error}");
            assert!(message.contains("chat_template.jinja:"), "{message}");
            assert!(message.ends_with(&end), "{message}");
            errors += 1;
        } else {
            let text = rendered.unwrap_or_else(|error| panic!("{at}: {error}"));
            assert_eq!(text, case["text"].as_str().unwrap(), "{at}");
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(scene.tokenizer.encode(&text).unwrap(), ids, "{at}");
            texts += 1;
        }
    }
    assert!(texts > 70 && errors > 5, "{texts} {errors}");
}

#[test]
fn the_date_is_todays() {
    let mut scene = scene("", ZEPHYR, "pairs", &[]);
    scene.template("{{ strftime_now('%Y-%m-%d') }} {{ strftime_now is defined }}");
    scene.reopen();
    let template = scene.tokenizer.chat_template().unwrap();
    let text = template
        .render(&[Message::new("user", "x")], false)
        .unwrap();
    let year: i32 = text[..4].parse().unwrap();
    assert!(
        year > 2024 && text.len() == 15 && text.ends_with(" True"),
        "{text}"
    );
}

#[test]
fn a_template_is_found_in_its_file_then_in_the_config() {
    let scene = scene("", ZEPHYR, "pairs", &[]);
    let folder = scene.folder.path().join("model");
    let config = |value: serde_json::Value| {
        let config = serde_json::json!({"chat_template": value, "eos_token": "</s>"});
        std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    };
    let render = || {
        let template =
            ChatTemplate::open(&folder).map_err(|error| scene.strip(&error.to_string()))?;
        let text = template.render(&[Message::new("user", "x")], false);
        text.map_err(|error| scene.strip(&error.to_string()))
    };
    assert_eq!(
        render().unwrap_err(),
        "model: the model has no chat template; set data.chat_template = \"chatml\", \"plain\" or a file, \
         give the directory a chat_template.jinja or its tokenizer_config.json a `chat_template`, or use rows \
         of plain strings"
    );
    config("one {{ eos_token }}".into());
    assert_eq!(render().unwrap(), "one </s>");
    let named = |name: &str| serde_json::json!([{"name": "tool_use", "template": "t"}, {"name": name, "template": "two"}]);
    config(named("default"));
    assert_eq!(render().unwrap(), "two");
    config(named("other"));
    assert_eq!(
        render().unwrap_err(),
        "model/tokenizer_config.json: chat_template: no template is named \"default\"; \
         there are only: \"tool_use\", \"other\""
    );
    config(3.into());
    assert!(
        render()
            .unwrap_err()
            .contains("is neither a template nor a list of them")
    );
    config("{{ messages[0].content.nothing() }}".into());
    assert!(
        render().unwrap_err().starts_with(
            "model/tokenizer_config.json: chat_template:1: the chat template fails: unknown method"
        ),
        "{:?}",
        render()
    );
    scene.template("three");
    assert_eq!(render().unwrap(), "three");
    scene.template("\n{% if %}");
    let message = render().unwrap_err();
    assert!(
        message.starts_with("model/chat_template.jinja:2: the chat template does not parse: "),
        "{message}"
    );
}

#[test]
fn a_pair_of_conversations_shares_the_prompt_and_ends_once() {
    let prompt = [say("system", "Be brief."), say("user", "Why?")];
    let pair = serde_json::json!({
        "prompt": prompt, "chosen": [say("assistant", "So.")], "rejected": [say("assistant", "No.")],
    });
    for (template, ends, start, answer, end) in [
        (
            "zephyr",
            ZEPHYR,
            "<|user|>\nWhy?</s>\n<|assistant|>\n",
            "So.",
            "</s>",
        ),
        (
            "chatml",
            CHATML,
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
            "So.",
            "<|im_end|>",
        ),
        (
            "llama3",
            &["<|end|>", "<|eot_id|>"],
            "Why?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            "So.",
            "<|eot_id|>",
        ),
        // No end token of the model: the text stays as rendered, and the model's is appended.
        (
            "chatml",
            &["</s>"],
            "<|im_start|>assistant\n",
            "So.<|im_end|>\n",
            "</s>",
        ),
    ] {
        let scene = scene(template, ends, "pairs", std::slice::from_ref(&pair));
        let texts = scene.first(&PAIR);
        assert!(texts[0].ends_with(start), "{texts:?}");
        assert_eq!(texts[1], format!("{answer}{end}"), "{template}");
        assert_eq!(texts[2], texts[1].replace("So", "No"));
        // Without a prompt column the prompt is what both begin with.
        let whole =
            |answer: &str| serde_json::json!([&prompt[0], &prompt[1], say("assistant", answer)]);
        let implicit = serde_json::json!({"chosen": whole("So."), "rejected": whole("No.")});
        let implicit = self::scene(template, ends, "pairs", &[implicit]);
        assert_eq!(implicit.first(&PAIR), texts);
    }
}

#[test]
fn strings_go_through_the_template_only_if_asked() {
    let row = serde_json::json!({"prompt": "Why?", "chosen": "So.", "rejected": "No."});
    let mut scene = scene("chatml", CHATML, "pairs", &[row]);
    assert_eq!(
        scene.first(&PAIR),
        ["Why?", "So.<|im_end|>", "No.<|im_end|>"]
    );
    scene.config.tokens.apply_chat_template = true;
    assert_eq!(
        scene.first(&PAIR),
        [
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
            "So.<|im_end|>",
            "No.<|im_end|>"
        ]
    );
    // The end of a conversation stays, the start of a text.
    (
        scene.config.length.max_length,
        scene.config.length.max_prompt_length,
    ) = (6, 3);
    assert!(scene.first(&PAIR)[0].ends_with("t\n"));
    scene.config.tokens.apply_chat_template = false;
    assert_eq!(scene.first(&PAIR)[0], "Why");
    scene.config.tokens.apply_chat_template = true;
    scene.config.format = Format::named("hh").unwrap();
    assert!(
        scene
            .complaint(&PAIR)
            .starts_with("[data]: apply_chat_template for format")
    );
}

#[test]
fn unpaired_rows_and_prompts_may_be_conversations() {
    let row = |label: bool| {
        serde_json::json!({
            "prompt": [say("user", if label { "a" } else { "b" })],
            "completion": [say("assistant", "So.")], "label": label,
        })
    };
    let scene = scene("chatml", CHATML, "unpaired", &[row(true), row(false)]);
    assert_eq!(scene.first(&KTO)[1], "So.<|im_end|>");
    let prompts =
        expo::data::prompts(&scene.files, &scene.config.prompts(), &scene.tokenizer).unwrap();
    assert_eq!(prompts.len(), 2);
    let text = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(prompts[0].text, text);
    assert_eq!(
        scene.tokenizer.decode(&prompts[0].ids, false).unwrap(),
        text
    );
}

#[test]
fn a_conversation_that_cannot_be_used_is_refused_with_its_row() {
    let user = [say("user", "Why?")];
    let (good, other) = ([say("assistant", "So.")], [say("assistant", "No.")]);
    let pair = |prompt: serde_json::Value, chosen: serde_json::Value| serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": other});
    let prompt =
        |message: serde_json::Value| pair(serde_json::json!([message]), serde_json::json!(good));
    let chosen = |messages: serde_json::Value| pair(serde_json::json!(user), messages);
    for (row, what) in [
        (
            prompt(serde_json::json!({"speaker": "human", "value": "x"})),
            "column `prompt`: message 1 has no `role`; a message is {\"role\": ..., \"content\": ...}",
        ),
        (
            prompt(say("usr", "x")),
            "column `prompt`: message 1 has the role \"usr\"; did you mean `user`?",
        ),
        (
            prompt(serde_json::json!({"role": 3, "content": "x"})),
            "column `prompt`: message 1 has a `role` that is not a string; ",
        ),
        (
            prompt(serde_json::json!({"role": "user", "content": [{"type": "text"}]})),
            "column `prompt`: message 1 has a list as `content`; contents are text; images",
        ),
        (
            serde_json::json!({"prompt": user, "chosen": good, "rejected": other, "images": ["a.png"]}),
            "column `images` holds images; models are trained on text",
        ),
        (
            prompt(serde_json::json!({"role": "user", "content": null})),
            "column `prompt`: message 1 has no `content`; ",
        ),
        (
            prompt(serde_json::json!({"role": "user", "content": 1})),
            "column `prompt`: message 1 has a `content` that is not a string; ",
        ),
        (
            prompt("Why?".into()),
            "column `prompt`: message 1 is not an object; ",
        ),
        (
            pair(serde_json::json!([]), serde_json::json!(good)),
            "column `prompt` is an empty list; a conversation has messages",
        ),
        (
            prompt(say("assistant", "x")),
            "the prompt's last message is the assistant's; to continue a message is not supported",
        ),
        (
            chosen(serde_json::json!([say("user", "So.")])),
            "the chosen answer begins with a message that is not the assistant's; ",
        ),
        (
            chosen(serde_json::json!([
                say("assistant", "So."),
                say("user", "x")
            ])),
            "the chosen answer ends with a message that is not the assistant's; ",
        ),
        (
            chosen("So.".into()),
            "a string beside a list of messages, where they belong together; write both",
        ),
        (
            serde_json::json!({"chosen": good, "rejected": "No."}),
            "column `rejected` is a string, not a list of messages, as `chosen` is; format `pairs`",
        ),
        (
            serde_json::json!({"chosen": "So.", "rejected": "No."}),
            "the row has no column `prompt`, only `chosen`, `rejected`; without a prompt, chosen",
        ),
    ] {
        let message = scene("chatml", CHATML, "pairs", &[row]).complaint(&PAIR);
        assert!(
            message.starts_with(&format!("rows.jsonl:1: {what}")),
            "{message}\n{what}"
        );
    }
    let row = pair(serde_json::json!(user), serde_json::json!(good));
    let refused = [
        ("", "model: the model has no chat template; "),
        (
            "{{ raise_exception('Never.') }}",
            "model/chat_template.jinja:1: the chat template refuses the messages: Never.",
        ),
        (
            "{{ messages | length }}",
            "the chat template is not prefix-stable: after \"\" it writes \"1\" where what comes first is rendered \
             alone, \"2\" in the whole conversation; name a training template",
        ),
    ];
    for (template, what) in refused {
        let mut scene = scene("", CHATML, "pairs", std::slice::from_ref(&row));
        if !template.is_empty() {
            scene.template(template);
            scene.reopen();
        }
        let message = scene.complaint(&PAIR);
        assert!(
            message.starts_with(&format!("rows.jsonl:1: {what}")),
            "{message}\n{what}"
        );
    }
    let transcripts = serde_json::json!({"chosen": good, "rejected": other});
    let message = scene("chatml", CHATML, "hh", &[transcripts]).complaint(&PAIR);
    assert_eq!(
        message,
        "rows.jsonl:1: column `chosen` is a list, not a string; lists of messages are of format `pairs`"
    );
}

#[test]
fn conversations_that_part_before_the_answer_are_no_pair() {
    let turns = |question: &str, answer: &str| {
        serde_json::json!([say("user", question), say("assistant", answer)])
    };
    let rows = [
        serde_json::json!({"chosen": turns("a", "So."), "rejected": turns("b", "No.")}),
        serde_json::json!({"chosen": turns("a", "So."), "rejected": turns("a", "No.")}),
        serde_json::json!({"chosen": turns("a", " "), "rejected": turns("a", "No.")}),
        serde_json::json!({"chosen": turns("a", "So."), "rejected": turns("a", "So.")}),
    ];
    let dataset = scene("chatml", CHATML, "pairs", &rows).open(&PAIR).unwrap();
    assert_eq!(dataset.report.invalid[&Invalid::PromptDiffers].first, ["1"]);
    assert_eq!(dataset.report.invalid[&Invalid::EmptyAnswer].first, ["3"]);
    assert_eq!(dataset.len(), 2);
    assert_eq!(
        examples(&dataset)[1].responses[0].ids,
        examples(&dataset)[1].responses[1].ids
    );
}
