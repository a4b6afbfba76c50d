//! How much longer a tokenizer may make a text than it is.
//!
//! Hides where `tokenizer.json` can multiply: normalizers, pre-tokenizers and decoders that replace a
//! letter by many, one after the other; a post-processor that repeats the text; tokens and patterns
//! of any length.
//!
//! *Why*: six replacements of `a` by a hundred, in 20 KB of JSON, make 10^12 letters of each. A
//! tokenizer of a real model makes a text at most a few times longer. So what a definition could do in
//! the worst case is worked out from its steps before it is used; and where that is more than a few
//! times, each text is looked at piece by piece before it is taken as a whole.

use crate::error::{Error, Result};
use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer};

/// The bytes of one token. The longest of real vocabularies have some hundreds.
const LONGEST_TOKEN: usize = 4 << 10;

/// The bytes of all added tokens; their automaton takes some hundred times that.
const ADDED_TOKENS: usize = 4 << 20;

/// The bytes of a regular expression. Those of real models have some hundreds.
const LONGEST_PATTERN: usize = 8 << 10;

/// What a definition puts around each letter or word.
const LONGEST_AFFIX: usize = 64;

/// The steps of one kind, e.g. the normalizers.
const MOST_STEPS: usize = 64;

/// How many times longer steps of a kind may make the worst of texts. ALBERT's normalizers: some
/// hundreds; those of decoders that are trained by preferences: 12 or less.
const GROWTH: [(&str, usize); 4] = [
    ("normalizer", 4096),
    ("pre_tokenizer", 64),
    ("post_processor", 4096),
    ("decoder", 64),
];

/// Texts are looked at first where a definition could make them longer than so many times.
const HARMLESS: usize = 16;

/// The bytes of a text that are normalized at a time to see what becomes of it.
const PIECE: usize = 256;

/// What a text may become whatever its length, in bytes.
const ROOM: usize = 1 << 20;

/// What a tokenizer's normalizers may do to a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// How many times longer they make the worst of texts.
    growth: usize,
}

impl Bounds {
    /// Of a definition that is a JSON object.
    ///
    /// # Errors
    /// If it could make texts too long, or has parts too long, with the part's key.
    pub fn of(definition: &Value) -> Result<Self> {
        let mut growth = 1;
        for (key, most) in GROWTH {
            let mut steps = MOST_STEPS;
            let times = times(&definition[key], key, &mut steps)?;
            if times > most {
                return Err(Error::input(format!(
                    "{key}: makes a text up to {times} times as long"
                ))
                .hint(format!("at most {most} times is supported")));
            }
            if key == "normalizer" {
                growth = times;
            }
        }
        check_tokens(definition, growth)?;
        Ok(Self { growth })
    }

    /// Refuses a text that the normalizers would make much longer.
    pub fn check(&self, tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<()> {
        let Some(normalizer) = tokenizer.get_normalizer() else {
            return Ok(());
        };
        let most = ROOM + HARMLESS * text.len();
        if self.growth <= HARMLESS || self.growth.saturating_mul(text.len()) <= most {
            return Ok(());
        }
        let (mut rest, mut length) = (text, 0);
        while !rest.is_empty() {
            let whole = |at: &usize| rest.is_char_boundary(*at);
            let end = (PIECE..rest.len()).find(whole).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            rest = after;
            let mut piece = NormalizedString::from(piece);
            let done = normalizer.normalize(&mut piece);
            done.map_err(|error| Error::input(format!("normalizer: {error}")))?;
            length += piece.get().len();
            if length > most {
                return Err(Error::input(format!(
                    "normalizer: makes more than {length} bytes of a text of {}",
                    text.len()
                ))
                .hint(format!("at most {HARMLESS} times as many is supported")));
            }
        }
        Ok(())
    }
}

/// How many times longer a step, or all steps of a sequence, could make a text.
fn times(step: &Value, place: &str, steps: &mut usize) -> Result<usize> {
    if step.is_null() {
        return Ok(1);
    }
    *steps = steps.checked_sub(1).ok_or_else(|| {
        Error::input(format!("{place}: has more than {MOST_STEPS} steps"))
            .hint("real tokenizers have a few")
    })?;
    let bounded = |key: &str, most: usize| {
        let text = step[key].as_str().unwrap_or_default();
        within(&format!("{place}.{key}"), text.len(), most).map(|()| text.len())
    };
    let mut product = 1_usize;
    let lists = ["normalizers", "pretokenizers", "processors", "decoders"];
    let lists = lists.iter().filter_map(|key| step[key].as_array());
    for (index, step) in lists.flatten().enumerate() {
        let own = times(step, &format!("{place}.{index}"), steps)?;
        product = product.saturating_mul(own);
    }
    // Replace: a regular expression may match nothing, at every letter.
    let replaced = step["pattern"]["String"].as_str();
    let pattern = replaced.or_else(|| step["pattern"]["Regex"].as_str());
    if let Some(pattern) = pattern {
        within(&format!("{place}.pattern"), pattern.len(), LONGEST_PATTERN)?;
        let content = bounded("content", LONGEST_TOKEN)?;
        product = product.saturating_mul(match replaced {
            Some(replaced) if !replaced.is_empty() => content.div_ceil(replaced.len()).max(1),
            _ => 1 + content,
        });
    }
    // Before each part of a text that stands between added tokens.
    product = product.saturating_mul(1 + bounded("prepend", LONGEST_AFFIX)?);
    product = product.saturating_mul(1 + bounded("prefix", LONGEST_AFFIX)?);
    if let Some(map) = step["precompiled_charsmap"].as_str() {
        product = product.saturating_mul(longest_of_charsmap(map));
    }
    product = product.saturating_mul(match step["type"].as_str() {
        // The largest growths of UTF-8 text that Unicode's tables have.
        Some("NFKC" | "NFKD") => 11,
        Some("NFC" | "NFD" | "Lowercase" | "BertNormalizer" | "ByteLevel") => 3,
        // What is not named is one of the others that change letters.
        None => 3,
        // Its own letter has up to 4 bytes, and may stand before each part.
        Some("Metaspace") => 4,
        _ => 1,
    });
    Ok(product.saturating_mul(repeats(step)))
}

/// How many tokens a template of a post-processor puts in the place of one.
fn repeats(step: &Value) -> usize {
    let length = |template: &Value| template.as_array().map_or(1, Vec::len);
    let longest = |tokens: &serde_json::Map<String, Value>| {
        let ids = tokens.values().map(|token| length(&token["ids"]));
        ids.max().unwrap_or(1).max(1)
    };
    let ids = step["special_tokens"].as_object().map_or(1, longest);
    let templates = length(&step["single"]).max(length(&step["pair"]));
    templates.max(1).saturating_mul(ids)
}

/// The longest text that SentencePiece's table of a normalizer puts in the place of a letter: the
/// table is base64 of the length of an index (4 bytes), the index, and texts that end with NUL.
fn longest_of_charsmap(map: &str) -> usize {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(map.len() / 4 * 3);
    let (mut bits, mut have) = (0_u32, 0);
    for digit in map.bytes().filter_map(digit) {
        bits = (bits << 6) | u32::from(digit);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
    }
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return 1;
    };
    let index = u32::from_le_bytes(*length) as usize;
    let texts = rest.get(index..).unwrap_or_default();
    let longest = texts.split(|byte| *byte == 0).map(<[u8]>::len).max();
    longest.unwrap_or(1).max(1)
}

/// Refuses tokens and parts of the model that are too long.
fn check_tokens(definition: &Value, growth: usize) -> Result<()> {
    let mut bytes = 0_usize;
    for (index, token) in definition["added_tokens"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let length = token["content"].as_str().map_or(0, str::len);
        within(&format!("added_tokens.{index}"), length, LONGEST_TOKEN)?;
        // A token that is looked for in normalized texts is normalized itself.
        let normalized = token["normalized"].as_bool().unwrap_or(true);
        let times = if normalized {
            growth.div_ceil(HARMLESS)
        } else {
            1
        };
        bytes = bytes.saturating_add(length.saturating_mul(times));
    }
    within("added_tokens", bytes, ADDED_TOKENS)?;
    let model = &definition["model"];
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        let length = model[key].as_str().map_or(0, str::len);
        within(&format!("model.{key}"), length, LONGEST_AFFIX)?;
    }
    // WordPiece tries all parts of a word.
    let word = model["max_input_chars_per_word"].as_u64().unwrap_or(0);
    within(
        "model.max_input_chars_per_word",
        usize::try_from(word).unwrap_or(usize::MAX),
        1000,
    )?;
    let vocabulary = &model["vocab"];
    let mut tokens: Box<dyn Iterator<Item = &str>> = match vocabulary {
        Value::Object(tokens) => Box::new(tokens.keys().map(String::as_str)),
        Value::Array(tokens) => Box::new(tokens.iter().filter_map(|token| token[0].as_str())),
        _ => Box::new(std::iter::empty()),
    };
    match tokens.find(|token| token.len() > LONGEST_TOKEN) {
        Some(token) => within("model.vocab: a token", token.len(), LONGEST_TOKEN),
        None => Ok(()),
    }
}

/// Refuses more bytes, or letters, than a part may have.
fn within(place: &str, length: usize, most: usize) -> Result<()> {
    if length <= most {
        return Ok(());
    }
    Err(Error::input(format!("{place}: is {length} long")).hint(format!("at most {most}")))
}

#[cfg(test)]
mod tests;
