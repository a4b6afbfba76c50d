//! A shorter way to the ids of a text, for tokenizers that split text as GPT-2's does.
//!
//! Hides when it may be taken: where the pre-tokenizer is GPT-2's, and the text has only letters that
//! normalizers leave as they are (ASCII, Latin-1, typographic quotes and dashes) and no special token. All other
//! texts go the way of the `tokenizers` crate.
//!
//! *Why*: that crate keeps, for each letter, where it came from, matches GPT-2's pattern by a
//! backtracking engine, and makes a string of every token. Where ids alone are wanted none of it is needed. Here
//! words are found by a loop over letters, and a word that came before has its ids in a table. The model is asked
//! for those of all others, so the ids are the same ones.

use std::collections::HashMap;
use std::sync::Mutex;

use regex::Regex;
use serde_json::Value;
use tokenizers::Model;

/// The words of a table, and the bytes of a word in one: some megabytes for each thread.
const WORDS: usize = 1 << 15;
const LONGEST_WORD: usize = 64;

/// Words with their ids.
type Table = HashMap<Box<str>, Box<[u32]>>;

/// The shorter way through one tokenizer.
pub(super) struct ByteLevel {
    /// Special tokens, none of which a text may have.
    special: Option<Regex>,
    /// Other added tokens, which part a text: the longest of those that begin at a place.
    added: Option<Regex>,
    ids: HashMap<String, u32>,
    /// One for each thread, so that none waits for another.
    tables: Vec<Mutex<Table>>,
}

impl ByteLevel {
    /// Of a definition, if it is such a one; `id` knows the ids of its tokens.
    pub fn of(definition: &Value, id: impl Fn(&str) -> Option<u32>) -> Option<Self> {
        let kind = |key: &str| definition[key]["type"].as_str();
        let normal = definition["normalizer"].is_null() || kind("normalizer") == Some("NFC");
        let splits = &definition["pre_tokenizer"];
        let by_pattern = splits.get("use_regex").is_none_or(|on| *on == true);
        let is_gpt2 = kind("pre_tokenizer") == Some("ByteLevel")
            && by_pattern
            && splits["add_prefix_space"] == false;
        // It changes where tokens are from alone.
        let processor = &definition["post_processor"];
        let only_offsets = processor.is_null() || kind("post_processor") == Some("ByteLevel");
        if !(normal && is_gpt2 && only_offsets) {
            return None;
        }
        let (mut special, mut added, mut ids) = (Vec::new(), Vec::new(), HashMap::new());
        for token in definition["added_tokens"].as_array().into_iter().flatten() {
            let content = token["content"].as_str().filter(|text| !text.is_empty())?;
            let is = |key: &str| token[key] == true;
            if is("special") || !is("normalized") {
                special.push(content);
            } else if ["single_word", "lstrip", "rstrip"].into_iter().any(is) {
                return None;
            } else {
                ids.insert(content.to_owned(), id(content)?);
                added.push(content);
            }
        }
        let tables = (0..rayon::current_num_threads()).map(|_| Mutex::default());
        Some(Self {
            special: any_of(special)?,
            added: any_of(added)?,
            ids,
            tables: tables.collect(),
        })
    }

    /// The ids of a text, if it can be taken this way.
    ///
    /// # Errors
    /// Of the model.
    pub fn encode(&self, model: &impl Model, text: &str) -> Option<tokenizers::Result<Vec<u32>>> {
        let is_plain = text.is_ascii() || text.chars().all(|letter| Class::of(letter).is_some());
        let has_special = || {
            let special = self.special.as_ref();
            special.is_some_and(|special| special.is_match(text))
        };
        (is_plain && !has_special()).then(|| self.ids(model, text))
    }

    fn ids(&self, model: &impl Model, text: &str) -> tokenizers::Result<Vec<u32>> {
        let thread = rayon::current_thread_index().unwrap_or(0);
        // A thread outside the pool shares the first one, and does without while it is taken.
        let mut table = self.tables[thread % self.tables.len()].try_lock().ok();
        let mut words = Words {
            model,
            table: table.as_deref_mut(),
            ids: Vec::with_capacity(text.len() / 3),
        };
        let mut start = 0;
        if let Some(added) = &self.added {
            for found in added.find_iter(text) {
                words.push_all(&text[start..found.start()])?;
                words.ids.extend(self.ids.get(found.as_str()));
                start = found.end();
            }
        }
        words.push_all(&text[start..])?;
        Ok(words.ids)
    }
}

/// A text on its way to ids.
struct Words<'a, M> {
    model: &'a M,
    table: Option<&'a mut Table>,
    ids: Vec<u32>,
}

impl<M: Model> Words<'_, M> {
    fn push_all(&mut self, text: &str) -> tokenizers::Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            let (word, others) = rest.split_at(first_word(rest));
            self.push(word)?;
            rest = others;
        }
        Ok(())
    }

    fn push(&mut self, word: &str) -> tokenizers::Result<()> {
        if let Some(known) = self.table.as_ref().and_then(|table| table.get(word)) {
            self.ids.extend_from_slice(known);
            return Ok(());
        }
        let tokens = self.model.tokenize(&letters(word))?;
        let own: Box<[u32]> = tokens.iter().map(|token| token.id).collect();
        self.ids.extend_from_slice(&own);
        if let Some(table) = &mut self.table
            && table.len() < WORDS
            && word.len() <= LONGEST_WORD
        {
            table.insert(word.into(), own);
        }
        Ok(())
    }
}

/// What finds any of the texts, the longest of those that begin at a place; `Some(None)` if there are none.
fn any_of(mut texts: Vec<&str>) -> Option<Option<Regex>> {
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let texts: Vec<String> = texts.into_iter().map(regex::escape).collect();
    match texts.is_empty() {
        true => Some(None),
        false => Regex::new(&texts.join("|")).ok().map(Some),
    }
}

/// A word in GPT-2's alphabet, which has a letter for each byte: printable Latin-1 is itself.
fn letters(word: &str) -> String {
    let letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae.. => u32::from(byte),
        ..=b' ' => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
        0xad => 0x143,
    };
    let letter = |byte| char::from_u32(letter(byte)).unwrap_or_default();
    word.bytes().map(letter).collect()
}

/// The bytes of the first word of a text by GPT-2's pattern
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
fn first_word(text: &str) -> usize {
    if text.starts_with('\'') {
        for end in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
            if text.starts_with(end) {
                return end.len();
            }
        }
    }
    let mut letters = text.char_indices().peekable();
    let class = |letter: char| Class::of(letter).unwrap_or(Class::Other);
    let Some((_, first)) = letters.next() else {
        return 0;
    };
    let mut own = class(first);
    // A space belongs to what follows it.
    if first == ' '
        && let Some(next) = letters.peek().map(|(_, letter)| class(*letter))
    {
        own = next;
    }
    // The last letter of the word so far.
    let mut last = 0;
    for (at, letter) in letters {
        if class(letter) == own {
            last = at;
            continue;
        }
        return match own {
            // The last one of several spaces belongs to what follows, or is a word of its own.
            Class::Space if last > 0 => last,
            _ => at,
        };
    }
    text.len()
}

/// What the pattern tells apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Digit,
    Other,
}

impl Class {
    /// `None` of a letter that may have to be normalized, or is not of the few that are told apart here.
    fn of(letter: char) -> Option<Self> {
        Some(match letter {
            '\t'..='\r' | ' ' => Self::Space,
            'a'..='z' | 'A'..='Z' => Self::Letter,
            '0'..='9' => Self::Digit,
            '\0'..='\x7f' => Self::Other,
            '\u{d7}' | '\u{f7}' | '\u{b0}' | '\u{b7}' => Self::Other,
            '\u{c0}'..='\u{ff}' => Self::Letter,
            // Dashes, quotes, a bullet, an ellipsis.
            '\u{2013}' | '\u{2014}' | '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' => {
                Self::Other
            }
            '\u{2022}' | '\u{2026}' => Self::Other,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
