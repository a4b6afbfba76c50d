use super::*;
use serde_json::json;

fn said(definition: &Value) -> String {
    Bounds::of(definition).unwrap_err().to_string()
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
}

fn sequence(steps: &[Value]) -> Value {
    json!({"normalizer": {"type": "Sequence", "normalizers": steps}})
}

// The steps of published models, by the names of their families.
#[test]
fn tokenizers_of_real_models_pass() {
    let space = "\u{2581}";
    let regex = |pattern: &str, content: &str| json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false});
    let split =
        json!({"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated"});
    let metaspace = json!({"type": "Metaspace", "replacement": space, "prepend_scheme": "always"});
    // An index of 4 bytes, and two texts: "a" and 33 bytes.
    let charsmap = "BAAAAAAAAABhAGJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYgA=";
    assert_eq!(longest_of_charsmap(charsmap), 33);
    let precompiled = json!({"type": "Precompiled", "precompiled_charsmap": charsmap});
    let template = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
        "pair": [{"SpecialToken": {}}, {"Sequence": {}}, {"SpecialToken": {}}, {"Sequence": {}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    });
    for (family, definition, growth) in [
        ("plain", json!({}), 1),
        (
            "gpt-neox, qwen",
            json!({"normalizer": {"type": "NFC"}, "pre_tokenizer": byte_level, "decoder": byte_level}),
            3,
        ),
        (
            "llama 2, mistral",
            sequence(&[
                json!({"type": "Prepend", "prepend": space}),
                replace(" ", space),
            ]),
            12,
        ),
        (
            "gemma",
            json!({"normalizer": replace(" ", space), "decoder": {"type": "Sequence", "decoders": [replace(space, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]}}),
            3,
        ),
        (
            "llama 3, deepseek",
            json!({
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, split, split, byte_level]},
                "post_processor": {"type": "Sequence", "processors": [byte_level, template]},
            }),
            1,
        ),
        (
            "t5",
            json!({
                "normalizer": {"type": "Sequence", "normalizers": [precompiled, {"type": "Strip"}, regex(" {2,}", space)]},
                "pre_tokenizer": metaspace,
            }),
            33 * 4,
        ),
        (
            "albert",
            sequence(&[
                replace("``", "\""),
                replace("''", "\""),
                json!({"type": "NFKD"}),
                json!({"type": "StripAccents"}),
                json!({"type": "Lowercase"}),
                precompiled,
            ]),
            11 * 3 * 33,
        ),
    ] {
        let bounds = Bounds::of(&definition);
        assert_eq!(bounds, Ok(Bounds { growth }), "{family}");
    }
}

#[test]
fn what_could_multiply_without_end_is_refused_at_its_key() {
    let hundred = replace("a", &"a".repeat(100));
    let long = "x".repeat(LONGEST_TOKEN + 1);
    let byte_levels = vec![json!({"type": "ByteLevel"}); 20];
    let doubling = json!({"type": "TemplateProcessing", "single": [{"Sequence": {}}, {"Sequence": {}}], "pair": []});
    let nested = json!({"type": "Sequence", "normalizers": [hundred, {"type": "Sequence", "normalizers": [hundred]}]});
    for (definition, expected) in [
        (
            sequence(&vec![hundred.clone(); 6]),
            "normalizer: makes a text up to 1000000000000 times as long; at most 4096 times",
        ),
        (
            json!({"normalizer": nested}),
            "normalizer: makes a text up to 10000 times as long",
        ),
        (
            json!({"decoder": {"decoders": [hundred]}}),
            "decoder: makes a text up to 300 times",
        ),
        (
            json!({"normalizer": {"type": "Replace", "normalizers": [], "pattern": {"Regex": ""}, "content": "x".repeat(4096)}}),
            "normalizer: makes a text up to 4097 times",
        ),
        (
            sequence(&[replace("", &long)]),
            "normalizer.0.content: is 4097 long; at most 4096",
        ),
        (
            sequence(&[json!({"type": "Prepend", "prepend": long})]),
            "normalizer.0.prepend: is 4097 long; at most 64",
        ),
        (
            sequence(&vec![json!({"type": "Strip"}); 64]),
            "normalizer.63: has more than 64 steps",
        ),
        (
            json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": byte_levels}}),
            "pre_tokenizer: makes a text up to 3486784401 times",
        ),
        (
            json!({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": long.repeat(2)}}}),
            "pre_tokenizer.pattern: is 8194 long; at most 8192",
        ),
        (
            json!({"post_processor": {"processors": vec![doubling; 30]}}),
            "post_processor: makes a text up to",
        ),
        (
            json!({"added_tokens": [{"content": long}]}),
            "added_tokens.0: is 4097 long; at most 4096",
        ),
        (
            json!({"added_tokens": vec![json!({"content": "x".repeat(4096)}); 1025]}),
            "added_tokens: is 4198400 long; at most 4194304",
        ),
        (
            json!({"model": {"vocab": {long.clone(): 0}}}),
            "model.vocab: a token: is 4097 long; at most 4096",
        ),
        (
            json!({"model": {"vocab": [[long, -1.0]]}}),
            "model.vocab: a token: is 4097 long",
        ),
        (
            json!({"model": {"end_of_word_suffix": "x".repeat(65)}}),
            "model.end_of_word_suffix: is 65 long; at most 64",
        ),
        (
            json!({"model": {"max_input_chars_per_word": u64::MAX}}),
            "model.max_input_chars_per_word: is 18446744073709551615 long",
        ),
    ] {
        let message = said(&definition);
        assert!(message.starts_with(expected), "{message}\n{expected}");
    }
}

#[test]
fn a_text_that_grows_too_long_is_seen_before_it_has_grown() {
    let definition = json!({
        "version": "1.0", "added_tokens": [], "normalizer": replace("a", &"a".repeat(200)),
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
    });
    let bounds = Bounds::of(&definition).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_bytes(definition.to_string()).unwrap();
    for fine in ["", "a", &"b\u{e9}".repeat(100_000), &"a".repeat(5000)] {
        assert_eq!(bounds.check(&tokenizer, fine), Ok(()));
    }
    let message = bounds.check(&tokenizer, &"a".repeat(10_000)).unwrap_err();
    assert_eq!(
        message.to_string(),
        "normalizer: makes more than 1228800 bytes of a text of 10000; \
         at most 16 times as many is supported"
    );
}
