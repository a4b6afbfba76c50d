//! The oracle is the way of the `tokenizers` crate.

use std::path::PathBuf;
use std::sync::LazyLock;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::*;

fn definition() -> Value {
    // A test binary may run elsewhere than it was built.
    let root = std::env::var_os("CARGO_MANIFEST_DIR");
    let root = root.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let file = root.join("tests/fixtures/neox/tokenizer.json");
    let text = std::fs::read_to_string(file).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn both(definition: &Value) -> (ByteLevel, tokenizers::Tokenizer) {
    let inner = tokenizers::Tokenizer::from_bytes(definition.to_string()).unwrap();
    let own = ByteLevel::of(definition, |token| inner.token_to_id(token));
    let own = own.expect("it is GPT-2's");
    (own, inner)
}

fn oracle(inner: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    inner.encode_fast(text, false).unwrap().get_ids().to_vec()
}

/// Text of parts that the pattern tells apart, and of single bytes.
fn text(rng: &mut impl Rng) -> String {
    const PARTS: [&str; 28] = [
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "'s",
        "'",
        "'ll",
        "'re",
        "'veto",
        "I'd",
        "don't",
        "the",
        " a",
        "Z",
        "42",
        " 7",
        ".",
        " ...",
        "\u{b}",
        "\u{1f}",
        "\u{7f}",
        "\0",
        "\u{2019}s",
        "\u{201c}",
        "\u{e9}t\u{e9}",
        "\u{d7}",
    ];
    static LETTERS: LazyLock<Vec<char>> = LazyLock::new(|| {
        let all = '\0'..'\u{3000}';
        all.filter(|letter| Class::of(*letter).is_some()).collect()
    });
    let parts = rng.random_range(0..20);
    let part = |rng: &mut _| -> String {
        match Rng::random_range(rng, 0..4) {
            0 => LETTERS.choose(rng).unwrap().to_string(),
            _ => (*PARTS.choose(rng).unwrap()).to_owned(),
        }
    };
    (0..parts).map(|_| part(rng)).collect()
}

#[test]
fn text_has_the_ids_of_the_long_way() {
    let mut definition = definition();
    let added = |id: u64, content: &str| {
        json!({"id": id, "content": content, "special": false, "normalized": true, "single_word": false,
            "lstrip": false, "rstrip": false})
    };
    let tokens = definition["added_tokens"].as_array_mut().unwrap();
    // As GPT-NeoX has them, which the small one has not.
    tokens.extend((2..5).map(|spaces| added(3000 + spaces, &" ".repeat(spaces as usize))));
    let (own, inner) = both(&definition);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    for _ in 0..20_000 {
        let text = text(&mut rng);
        let ids = own.encode(inner.get_model(), &text).unwrap().unwrap();
        assert_eq!(ids, oracle(&inner, &text), "{text:?}");
    }
    let known = own.tables.iter().map(|table| table.lock().unwrap().len());
    assert!(known.sum::<usize>() > 100);
}

#[test]
fn long_words_and_full_tables_change_nothing() {
    let (own, inner) = both(&definition());
    let text: String = (0..80_000).map(|i| format!("{} ", i * 7919)).collect();
    let text = text + &"a".repeat(1000);
    for _ in 0..2 {
        let ids = own.encode(inner.get_model(), &text).unwrap().unwrap();
        assert_eq!(ids, oracle(&inner, &text));
    }
    // This thread has the first one.
    assert_eq!(own.tables[0].lock().unwrap().len(), WORDS);
}

#[test]
fn without_a_table_the_ids_are_the_same() {
    let (own, inner) = both(&definition());
    let taken = own.tables[0].lock().unwrap();
    let text = "The duck asked: \u{201c}Is a river kind?\u{201d}\n\n It's 42.";
    let ids = own.encode(inner.get_model(), text).unwrap().unwrap();
    assert_eq!(ids, oracle(&inner, text));
    assert!(taken.is_empty());
}

#[test]
fn other_texts_go_the_long_way() {
    let (own, inner) = both(&definition());
    for text in [
        "\u{3042}",
        "e\u{301}",
        "\u{a0}",
        "\u{212b}",
        "a<|endoftext|>b",
        "<|endoftext|>",
    ] {
        assert!(own.encode(inner.get_model(), text).is_none(), "{text:?}");
    }
}

#[test]
fn other_tokenizers_go_the_long_way() {
    let is_one = |key: &str, value: Value| {
        let mut definition = definition();
        definition[key] = value;
        ByteLevel::of(&definition, |_| Some(0)).is_some()
    };
    let splits = |prefix: bool, regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "use_regex": regex});
    assert!(is_one("normalizer", Value::Null));
    for kind in ["Lowercase", "NFD", "NFKC"] {
        assert!(!is_one("normalizer", json!({"type": kind})));
    }
    let stripping = json!([{"id": 1, "content": "<x>", "normalized": true, "lstrip": true}]);
    assert!(!is_one("added_tokens", stripping));
    assert!(is_one("pre_tokenizer", splits(false, true)));
    assert!(!is_one("pre_tokenizer", splits(true, true)));
    assert!(!is_one("pre_tokenizer", splits(false, false)));
    assert!(!is_one("pre_tokenizer", json!({"type": "Whitespace"})));
    assert!(is_one("post_processor", Value::Null));
    assert!(!is_one(
        "post_processor",
        json!({"type": "TemplateProcessing"})
    ));
}
