//! Tokenizers that would make a text longer without end.

use super::program::Scene;
use serde_json::{Value, json};

/// The tokenizer of the fixtures with a change; what is said of it, behind its place.
fn refusal(change: impl Fn(&mut Value)) -> String {
    let scene = Scene::new();
    scene.rows(r#"{"prompt": "aaaaaaaaaa", "chosen": "aa", "rejected": "a"}"#);
    let path = scene.model().join("tokenizer.json");
    let mut definition = crate::support::json(&path);
    change(&mut definition);
    std::fs::write(&path, definition.to_string()).unwrap();
    let refusal = scene.refusal("a tokenizer");
    let said = refusal.strip_prefix("model/tokenizer.json: ");
    said.unwrap_or(&refusal).to_owned()
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
}

#[test]
fn normalizers_that_multiply_are_refused() {
    let hundred = replace("a", &"a".repeat(100));
    for steps in [
        json!({"type": "Sequence", "normalizers": vec![hundred.clone(); 6]}),
        json!({"type": "Sequence", "normalizers": [
            {"type": "Sequence", "normalizers": [hundred, hundred]}, hundred,
        ]}),
        json!({"type": "Sequence", "normalizers": vec![json!({"type": "Prepend", "prepend": "aaaa"}); 12]}),
    ] {
        let said = refusal(|definition| definition["normalizer"] = steps.clone());
        assert!(
            said.starts_with("normalizer: makes a text up to "),
            "{said}"
        );
    }
    let long = "a".repeat(10_000_000);
    let said = refusal(|definition| definition["normalizer"] = replace("", &long));
    assert_eq!(said, "normalizer.content: is 10000000 long; at most 4096");
}

#[test]
fn a_text_that_a_tokenizer_makes_too_long_is_refused() {
    let scene = Scene::new();
    let prompt = "a".repeat(100_000);
    scene.rows(&json!({"prompt": prompt, "chosen": "b", "rejected": "c"}).to_string());
    let path = scene.model().join("tokenizer.json");
    let mut definition = crate::support::json(&path);
    definition["normalizer"] = replace("a", &"a".repeat(4000));
    std::fs::write(&path, definition.to_string()).unwrap();
    let said = scene.refusal("a long text");
    assert!(said.contains("normalizer: makes more than "), "{said}");
    // Among others it is a row that cannot be used.
    let good = json!({"prompt": "b", "chosen": "b", "rejected": "c"});
    let long = json!({"prompt": prompt, "chosen": "b", "rejected": "c"});
    scene.rows(&format!("{good}\n{long}\n{good}\n"));
    let (said, code) = scene.show();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn other_parts_that_multiply_are_refused() {
    let said = refusal(|definition| {
        let steps = vec![json!({"type": "ByteLevel"}); 30];
        definition["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": steps});
    });
    assert!(
        said.starts_with("pre_tokenizer: makes a text up to "),
        "{said}"
    );
    let said = refusal(|definition| {
        let steps = vec![replace("a", &"a".repeat(100)); 6];
        definition["decoder"] = json!({"type": "Sequence", "decoders": steps});
    });
    assert!(said.starts_with("decoder: makes a text up to "), "{said}");
    let said = refusal(|definition| {
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let template = json!({"type": "TemplateProcessing", "single": [text, text], "pair": [text, text], "special_tokens": {}});
        definition["post_processor"] =
            json!({"type": "Sequence", "processors": vec![template; 30]});
    });
    assert!(
        said.starts_with("post_processor: makes a text up to "),
        "{said}"
    );
}

#[test]
fn tokens_and_patterns_of_any_length_are_refused() {
    let said = refusal(|definition| {
        let token = json!({
            "id": 9999, "content": "a".repeat(10_000_000), "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        });
        definition["added_tokens"]
            .as_array_mut()
            .unwrap()
            .push(token);
    });
    assert!(said.starts_with("added_tokens."), "{said}");
    assert!(said.ends_with(" is 10000000 long; at most 4096"), "{said}");
    let said = refusal(|definition| {
        let pattern = json!({"Regex": "(a|b)".repeat(100_000)});
        definition["pre_tokenizer"] =
            json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
    });
    assert!(
        said.starts_with("pre_tokenizer.pattern: is 500000 long"),
        "{said}"
    );
}
