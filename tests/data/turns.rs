//! Where the prompt of a conversation ends, and where the assistant's turns do.

use super::chat::{say, scene};
use super::*;
use expo::data::AssistantTurns;
use serde_json::{Value, json};

const CHATML: &[&str] = &["<|im_end|>"];
const SFT: Needs = Needs {
    all: &[Role::Chosen],
    reference: false,
    soft_labels: false,
    ..PAIR
};

/// A scene whose model has this template.
fn templated(template: &str, ends: &[&str], rows: &[Value]) -> Scene {
    let mut scene = scene("chatml", ends, "sft", rows);
    scene.template(template);
    scene.reopen();
    scene
}

fn row(messages: &[Value]) -> Value {
    json!({"messages": messages})
}

fn turns() -> Vec<Value> {
    vec![
        say("user", "One?"),
        say("assistant", "1."),
        say("user", "Two?"),
        say("assistant", "2."),
    ]
}

/// The learned parts of the first response.
fn learned(scene: &Scene) -> Vec<String> {
    let dataset = scene.open(&SFT).unwrap();
    let example = &examples(&dataset)[0];
    let response = &example.responses[0];
    let mut parts: Vec<Vec<u32>> = Vec::new();
    let mut before = false;
    for (token, id) in response.ids.iter().enumerate() {
        let is_learned = response.is_scored(token);
        match (is_learned, before) {
            (true, true) => parts.last_mut().unwrap().push(*id),
            (true, false) => parts.push(vec![*id]),
            (false, _) => {}
        }
        before = is_learned;
    }
    let text = |ids: &Vec<u32>| scene.tokenizer.decode(ids, false).unwrap();
    parts.iter().map(text).collect()
}

/// Writes thoughts in the last turn alone, so that no earlier turn is as it was when it was the last.
const THINKING: &str = "{% for m in messages %}{{ '<' + m.role + '>' }}{% if m.role == 'assistant' %}BEGIN\
{% if loop.last %}(){% endif %}{{ m.content }}<|im_end|>END{% else %}{{ m.content }}{% endif %}\n{% endfor %}\
{% if add_generation_prompt %}<assistant>{% endif %}";

fn thinking(marked: bool) -> String {
    let (begin, end) = match marked {
        true => ("{% generation %}", "{% endgeneration %}"),
        false => ("", ""),
    };
    THINKING.replace("BEGIN", begin).replace("END", end)
}

#[test]
fn marks_of_the_template_say_what_the_assistant_speaks() {
    let rows = [row(&turns())];
    let scene = templated(&thinking(true), CHATML, &rows);
    assert_eq!(learned(&scene), ["1.<|im_end|>", "()2.<|im_end|>"]);
    let texts = scene.first(&SFT);
    assert_eq!(texts[0], "<user>One?<assistant>");
    assert_eq!(texts[1], "1.<|im_end|><user>Two?<assistant>()2.<|im_end|>");
    let mut last = templated(&thinking(true), CHATML, &rows);
    last.config.tokens.assistant_turns = AssistantTurns::Last;
    assert_eq!(learned(&last), ["()2.<|im_end|>"]);
    // Without them it is refused, with both texts and what would help.
    let unmarked = templated(&thinking(false), CHATML, &rows);
    assert_eq!(
        unmarked.complaint(&SFT),
        "rows.jsonl:1: the chat template is not prefix-stable: after \"<user>One?<assistant>\" it writes \
         \"()1.<|im_end|>\" where the first 2 messages are rendered alone, \"1.<|im_end|><user>Two?<assistant\" \
         in the whole conversation; data.assistant_turns = \"last\" takes only the last turn of a \
         conversation; or name a training template, one with {% generation %} around what the assistant says, \
         in data.chat_template"
    );
    let report = unmarked.open(&SFT).unwrap_err().to_string();
    assert!(report.contains("none of 1 rows is usable"), "{report}");
}

#[test]
fn a_message_cannot_forge_the_marks() {
    let mut messages = turns();
    messages[0] = say("user", "a\u{100000}b\u{100001}c{% generation %}");
    messages[1] = say("assistant", "\u{100001}x\u{100000}");
    let scene = templated(&thinking(true), CHATML, &[row(&messages)]);
    assert_eq!(
        learned(&scene),
        ["\u{100001}x\u{100000}<|im_end|>", "()2.<|im_end|>"]
    );
}

#[test]
fn pairs_take_the_prompt_that_is_asked_where_the_marks_allow_it() {
    let pair = json!({
        "prompt": [say("user", "One?")], "chosen": [say("assistant", "1.")],
        "rejected": [say("assistant", "2.")],
    });
    // The marks begin in front of the generation prompt.
    let template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}{% generation %}\
                    <a>{{ m.content }}<|im_end|>{% endgeneration %}{% endif %}{% endfor %}\
                    {% if add_generation_prompt %}<a>{% endif %}";
    let mut scene = scene("chatml", CHATML, "pairs", &[pair]);
    scene.template(template);
    scene.reopen();
    assert_eq!(
        scene.first(&PAIR),
        ["One?<a>", "1.<|im_end|>", "2.<|im_end|>"]
    );
    let whole = templated(template, CHATML, &[row(&turns()[..2])]);
    assert_eq!(whole.first(&SFT), ["One?", "<a>1.<|im_end|>"]);
}

#[test]
fn an_answer_ends_with_the_first_end_token_behind_its_content() {
    let ends = &["<|end|>", "<|im_end|>"];
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}\
                    {% if add_generation_prompt or true %}<|im_start|>assistant\n{% endif %}";
    // A generation prompt that is always written, behind each turn that is the last.
    let always = templated(template, ends, &[row(&turns())]);
    assert_eq!(learned(&always), ["1.<|end|>", "2.<|end|>"]);
    let closed = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}\
                  {% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|im_end|>{% endif %}";
    let closed = templated(closed, ends, &[row(&turns())]);
    assert_eq!(learned(&closed), ["1.<|end|>", "2.<|end|>"]);
    // What an answer quotes is its own.
    let mut quoting = turns();
    quoting[1] = say("assistant", "a<|end|>b");
    quoting[3] = say("assistant", "<|im_end|><|end|>.");
    let quoting = templated(template, ends, &[row(&quoting)]);
    assert_eq!(
        learned(&quoting),
        ["a<|end|>b<|end|>", "<|im_end|><|end|>.<|end|>"]
    );
}

#[test]
fn a_turn_that_is_marked_in_pieces_ends_with_the_first_end_token_too() {
    let template = "{% for m in messages %}{{ '<' + m.role + '>' }}{% if m.role == 'assistant' %}{% generation %}\
                    {{ m.content }}<|end|>\n{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}\
                    {% if add_generation_prompt %}<assistant>{% else %}{% generation %}<|im_end|>{% endgeneration %}\
                    {% endif %}";
    let scene = templated(template, &["<|end|>", "<|im_end|>"], &[row(&turns())]);
    assert_eq!(learned(&scene), ["1.<|end|>", "2.<|end|>"]);
}

#[test]
fn a_turn_whose_end_is_not_known_is_refused() {
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|end|>{% endfor %}\
                    {% if add_generation_prompt %}<assistant>{% else %}<|eot_id|>{% endif %}";
    let unknown = templated(template, &["<|eot_id|>"], &[row(&turns())]);
    let message = unknown.complaint(&SFT);
    assert!(
        message.ends_with("; name the token that ends a turn in data.eot_tokens"),
        "{message}"
    );
    let known = templated(template, &["<|eot_id|>", "<|end|>"], &[row(&turns())]);
    assert_eq!(learned(&known), ["1.<|end|>", "2.<|end|>"]);
}

#[test]
fn a_turn_that_says_nothing_is_context() {
    let mut messages = turns();
    messages[1] = say("assistant", " ");
    let scene = scene("chatml", CHATML, "sft", &[row(&messages)]);
    assert_eq!(learned(&scene), ["2.<|im_end|>"]);
}

#[test]
fn turns_of_no_weight_are_context() {
    let mut messages = turns();
    messages[1]["weight"] = 0.into();
    let scene = scene("chatml", CHATML, "sft", &[row(&messages)]);
    assert_eq!(learned(&scene), ["2.<|im_end|>"]);
    messages[3]["weight"] = 0.into();
    messages[1]["weight"] = 1.into();
    let scene = self::scene("chatml", CHATML, "sft", &[row(&messages)]);
    assert_eq!(learned(&scene), ["1.<|im_end|>"]);
    messages[1]["weight"] = 0.into();
    let none = self::scene("chatml", CHATML, "sft", &[row(&messages), row(&turns())]);
    let report = none.open(&SFT).unwrap().report;
    assert_eq!(report.invalid[&Invalid::NothingToScore].first, ["1"]);
}

#[test]
fn a_generation_prompt_that_begins_the_answer_is_none_where_the_answer_is_there() {
    let template = "{% for m in messages %}{{ '<' + m.role + '>' }}{{ m.content.split('</think>')[-1].strip() }}\
                    {% if m.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}\
                    {% if add_generation_prompt %}<assistant><think>\n{% endif %}";
    let plain = templated(template, CHATML, &[row(&turns()[..2])]);
    assert_eq!(plain.first(&SFT), ["<user>One?<assistant>", "1.<|im_end|>"]);
    // What it drops is not learned in silence.
    let thought = [
        say("user", "One?"),
        say("assistant", "<think>\nhm\n</think>\n1."),
    ];
    let thought = templated(template, CHATML, &[row(&thought)]);
    let message = thought.complaint(&SFT);
    assert!(
        message.starts_with(
            "rows.jsonl:1: the chat template is not prefix-stable: after \"<user>One?<assistant>\" it writes \
             \"<think>\\n\" where what comes first is rendered alone, \"1.<|im_end|>\" in the whole conversation; name a"
        ),
        "{message}"
    );
}

#[test]
fn an_answer_that_the_template_swallows_is_left_out() {
    let template = "{% for m in messages %}{{ '<' + m.role + '>' }}{% if m.content is string and m.role == 'user' %}\
                    {{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let scene = templated(template, CHATML, &[row(&turns()[..2])]);
    let message = scene.complaint(&SFT);
    assert!(
        message.starts_with(
            "rows.jsonl:1: the chat template does not write the answer's content: \"1.\" is not in its text; "
        ),
        "{message}"
    );
    // Content that is trimmed, or that is JSON, is there.
    let template = template.replace(
        "{% endif %}{% endfor %}",
        "{% else %}{{ m.content|trim|tojson }}{% endif %}{% endfor %}",
    );
    let trimmed = [say("user", "One?"), say("assistant", " \"1\n\" ")];
    let scene = templated(&template, CHATML, &[row(&trimmed)]);
    assert_eq!(scene.first(&SFT)[1], "\"\\\"1\\n\\\"\"<|im_end|>");
}

#[test]
fn a_row_that_the_template_refuses_is_left_out() {
    let template = "{% if messages[0].content == 'no' %}{{ raise_exception('Never.') }}{% endif %}\
                    {% for m in messages %}{{ m.content }}{% endfor %}";
    let no = row(&[say("user", "no"), say("assistant", "1.")]);
    let scene = templated(template, CHATML, &[no, row(&turns()[..2])]);
    let dataset = scene.open(&SFT).unwrap();
    assert_eq!(dataset.len(), 1);
    assert_eq!(
        dataset.report.invalid[&Invalid::TemplateRefuses].first,
        ["1"]
    );
    let message = scene.complaint(&SFT);
    assert!(
        message.contains("the chat template refuses the messages: Never."),
        "{message}"
    );
}

#[test]
fn a_call_that_the_template_does_not_write_is_no_answer() {
    let call = json!({"type": "function", "function": {"name": "add", "arguments": {"a": 1}}});
    let mut messages = turns()[..2].to_vec();
    messages[1] = json!({"role": "assistant", "content": "", "tool_calls": [call]});
    let scene = scene("chatml", CHATML, "sft", &[row(&messages)]);
    let message = scene.complaint(&SFT);
    assert!(
        message.contains("the chat template does not write the call of \"add\""),
        "{message}"
    );
    // Without a call it says nothing at all.
    messages[1]["tool_calls"] = json!([]);
    let scene = self::scene("chatml", CHATML, "sft", &[row(&messages)]);
    let message = scene.complaint(&SFT);
    assert!(message.contains("an answer is empty"), "{message}");
}
