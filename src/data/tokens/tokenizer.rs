//! A model directory's tokenizer with its begin and end tokens.
//!
//! Hides where those are written (four files may say something about them) and the `tokenizers`
//! crate.
//!
//! *Why*: which tokens begin and end a text is a fact about the model, found once. Everything that
//! trains, scores or samples asks the same value.

use super::bounds::Bounds;
use super::byte_level::ByteLevel;
use super::ends::end_tokens;
use crate::data::chat::ChatTemplate;
use crate::error::{Error, Result};
use crate::io::model_dir::{CONFIG, GENERATION_CONFIG, ModelFiles, TOKENIZER, TOKENIZER_CONFIG};
use crate::io::untrusted::{self, Document};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

/// The tokenizer of a model directory.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bounds: Bounds,
    // For most texts.
    short: Option<ByteLevel>,
    begin: Vec<u32>,
    ends: Vec<u32>,
    /// The file that the ends are from.
    ends_place: String,
    end_texts: Vec<String>,
    special: HashSet<u32>,
    /// The largest id of the vocabulary.
    largest: u32,
    hash: String,
    place: String,
    // Those that a chat template would be among.
    files: Option<ModelFiles>,
}

impl Tokenizer {
    /// As [`of`](Self::of), of the files that a model directory has now.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::of(&ModelFiles::open(dir)?)
    }

    /// Parses `tokenizer.json` of a model, and the end tokens from `generation_config.json`, else
    /// `config.json`, else `tokenizer_config.json`.
    pub fn of(files: &ModelFiles) -> Result<Self> {
        let definition = files.get(TOKENIZER);
        if !definition.exists() {
            return Err(Error::input("the directory has no tokenizer.json")
                .hint("save the model's fast tokenizer beside its weights")
                .at(files.directory().display()));
        }
        let configs = [GENERATION_CONFIG, CONFIG].map(|name| files.get(name));
        let mut tokenizer =
            Self::from_documents(&definition, &configs, &files.get(TOKENIZER_CONFIG))?;
        tokenizer.files = Some(files.clone());
        Ok(tokenizer)
    }

    /// As [`of`](Self::of) where the files are of several directories: the definition, the JSON files that
    /// may have `eos_token_id`, and the one that may have `eos_token`.
    pub fn from_documents(
        document: &Document,
        configs: &[Document],
        tokenizer_config: &Document,
    ) -> Result<Self> {
        let mut definition = document.json_object()?;
        // Lengths and randomness are this project's to decide, and so no part of the hash.
        for key in ["truncation", "padding"] {
            definition[key] = Value::Null;
        }
        if let Some(dropout) = definition["model"].get_mut("dropout") {
            *dropout = Value::Null;
        }
        let place = document.path().display().to_string();
        let bounds = Bounds::of(&definition).map_err(|error| error.at(&place))?;
        let text = definition.to_string();
        let inner = untrusted::guarded(&place, || parse(&text).map_err(|e| e.at(&place)))?;
        let short = ByteLevel::of(&definition, |token| inner.token_to_id(token));
        let (ends, ends_place) = end_tokens(document.path(), configs, tokenizer_config, &inner)?;
        let (begin, largest) = untrusted::guarded(&place, || {
            let begin = begin_tokens(&inner).map_err(|error| error.at(&place))?;
            Ok((begin, inner.get_vocab(true).into_values().max()))
        })?;
        let largest = largest.unwrap_or(0);
        let added = inner.get_added_tokens_decoder().into_iter();
        let special = added.filter_map(|(id, token)| token.special.then_some(id));
        let special = special.collect();
        let end_texts = ends
            .iter()
            .filter_map(|id| inner.id_to_token(*id))
            .collect();
        let mut hasher = Sha256::new();
        for end in &ends {
            hasher.update(end.to_le_bytes());
        }
        hasher.update(text.as_bytes());
        let hash = format!("{:x}", hasher.finalize());
        Ok(Self {
            inner,
            bounds,
            short,
            begin,
            ends,
            ends_place,
            end_texts,
            special,
            largest,
            hash,
            place,
            files: None,
        })
    }

    /// The ids of a text, without anything in front or behind.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.guarded(|inner| {
            self.bounds.check(inner, text)?;
            let short = self.short.as_ref();
            match short.and_then(|short| short.encode(inner.get_model(), text)) {
                Some(ids) => ids.map_err(|error| refused(&*error)),
                None => encode(inner, text, false),
            }
        })
    }

    /// The bytes of `text` that each of its ids stands for.
    pub fn offsets(&self, text: &str) -> Result<Vec<Range<usize>>> {
        self.guarded(|inner| {
            self.bounds.check(inner, text)?;
            let encoding = inner.encode(text, false);
            let encoding = encoding.map_err(|error| refused(&*error))?;
            let offsets = encoding.get_offsets().iter();
            Ok(offsets.map(|&(start, end)| start..end).collect())
        })
    }

    /// The model's chat template.
    ///
    /// # Errors
    /// If the model has none, or one that does not parse.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        match &self.files {
            Some(files) => ChatTemplate::of(files),
            None => Err(Error::input("a tokenizer file has no chat template")
                .hint("open the model directory")),
        }
    }

    /// The text of ids; special tokens are left out if `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.guarded(|inner| {
            inner
                .decode(ids, skip_special)
                .map_err(|error| Error::failed(format!("the tokenizer cannot decode: {error}")))
        })
    }

    /// The text that ids add to that of a prompt, without special tokens. By itself it may lose a space
    /// in front.
    pub fn after(&self, prompt: &[u32], ids: &[u32]) -> Result<String> {
        let before = self.decode(prompt, true)?;
        let whole = self.decode(&[prompt, ids].concat(), true)?;
        match whole.strip_prefix(&before) {
            Some(text) => Ok(text.to_owned()),
            None => self.decode(ids, true),
        }
    }

    // A definition that could be read may still make no sense of some texts.
    fn guarded<T>(&self, work: impl FnOnce(&tokenizers::Tokenizer) -> Result<T>) -> Result<T> {
        untrusted::guarded(&self.place, || {
            work(&self.inner).map_err(|error| error.at(&self.place))
        })
    }

    /// The text of ids one by one, after those of a prompt. By itself a text may lose a space in
    /// front.
    pub fn stream(&self, prompt: &[u32]) -> Result<TextStream<'_>> {
        Ok(TextStream {
            tokenizer: self,
            ids: prompt.to_vec(),
            told: self.decode(prompt, true)?,
        })
    }

    /// What each id adds to the text; an id that is a part of a letter as the definition has it.
    pub fn pieces(&self, ids: &[u32]) -> Result<Vec<String>> {
        let piece = |at: usize| {
            // A decoder may treat the first id otherwise than the rest.
            let from = at.saturating_sub(4);
            let (before, with) = (&ids[from..at], &ids[from..=at]);
            let (before, with) = (self.decode(before, false)?, self.decode(with, false)?);
            let added = with
                .strip_prefix(&before)
                .filter(|added| !added.contains('\u{fffd}'));
            Ok(match added {
                Some(added) if !added.is_empty() => added.to_owned(),
                _ => self.token(ids[at]).unwrap_or_default(),
            })
        };
        (0..ids.len()).map(piece).collect()
    }

    /// The text of one id, as the definition has it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token by its text, as the definition has it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The special tokens of the definition.
    pub fn special_tokens(&self) -> Vec<String> {
        let added = self.inner.get_added_tokens_decoder().into_values();
        let special = added.filter(|token| token.special);
        special.map(|token| token.content).collect()
    }

    /// Whether an id is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// What the tokenizer's own post-processor puts in front of a text; often nothing.
    pub fn begin(&self) -> &[u32] {
        &self.begin
    }

    /// Every token that ends a response; never empty.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The texts of the end tokens, as the definition has them.
    pub fn end_texts(&self) -> &[String] {
        &self.end_texts
    }

    /// The end token that is appended to a response: the first of [`ends`](Self::ends).
    pub fn eos(&self) -> u32 {
        self.ends[0]
    }

    /// The largest id that can come out: the model's embedding must have a row for it.
    pub fn max_id(&self) -> u32 {
        self.ends.iter().copied().fold(self.largest, u32::max)
    }

    /// Refuses an embedding that lacks rows for ids that can come out.
    pub fn check_fits(&self, rows: usize) -> Result<()> {
        let lacks = |id: u32| id as usize >= rows;
        if lacks(self.largest) {
            let largest = self.largest;
            return Err(Error::input(format!(
                "the tokenizer has ids up to {largest}, the embedding {rows} rows"
            ))
            .hint("tokenizer.json and the weights must be of one model"));
        }
        match self.ends.iter().find(|end| lacks(**end)) {
            None => Ok(()),
            Some(end) => Err(Error::input(format!(
                "`eos_token_id` {end} of {} is beyond the {rows} rows of the embedding",
                self.ends_place
            ))
            .hint("it is an id of the model's vocabulary")),
        }
    }

    /// Refuses the tokenizer of another model, if its directory has one, where an id is another token
    /// there: that model would read other texts.
    pub fn check_same(&self, files: &ModelFiles) -> Result<()> {
        if !files.get(TOKENIZER).exists() {
            return Ok(());
        }
        let other = Self::of(files)?;
        let own = self.inner.get_vocab(true).into_iter();
        let differs = own.filter_map(|(token, id)| {
            let there = other.inner.id_to_token(id)?;
            (there != token).then_some((id, token, there))
        });
        match differs.min() {
            None => Ok(()),
            Some((id, token, there)) => Err(Error::input(format!(
                "has another tokenizer: token {id} is {there:?} there, {token:?} for the policy"
            ))
            .at(files.directory().display())
            .hint("policy and reference must share a tokenizer")),
        }
    }

    /// SHA-256, in hex, of what determines the tokens of a text.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// Text that grows with its ids.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// The text so far, without what may yet change.
    told: String,
}

impl TextStream<'_> {
    /// What `id` adds; nothing while a character is not whole.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, true)?;
        // A character of several tokens looks like this until the last of them.
        let whole = text.trim_end_matches('\u{fffd}');
        Ok(self.tell(whole))
    }

    /// What is left to say at the end: a character that stayed a part.
    pub fn finish(mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids, true)?;
        Ok(self.tell(&text))
    }

    fn tell(&mut self, text: &str) -> String {
        let new = text.strip_prefix(&self.told).unwrap_or_default();
        self.told.push_str(new);
        new.to_owned()
    }
}

fn parse(definition: &str) -> Result<tokenizers::Tokenizer> {
    tokenizers::Tokenizer::from_bytes(definition).map_err(|error| {
        Error::input(format!("not a tokenizer: {error}"))
            .hint("it is the tokenizer.json of Hugging Face's fast tokenizers")
    })
}

fn encode(inner: &tokenizers::Tokenizer, text: &str, special: bool) -> Result<Vec<u32>> {
    let encoding = inner.encode_fast(text, special);
    let encoding = encoding.map_err(|error| refused(&*error))?;
    Ok(encoding.get_ids().to_vec())
}

fn refused(error: &dyn std::error::Error) -> Error {
    Error::input(format!("the tokenizer refuses the text: {error}"))
}

fn begin_tokens(inner: &tokenizers::Tokenizer) -> Result<Vec<u32>> {
    // A tokenizer may know no token for a letter: the first probe that yields any decides.
    for probe in ["a", " the", "0", "\n"] {
        let (bare, dressed) = (encode(inner, probe, false)?, encode(inner, probe, true)?);
        if bare.is_empty() {
            continue;
        }
        return match dressed.windows(bare.len()).position(|part| part == bare) {
            Some(at) => Ok(dressed[..at].to_vec()),
            None => Err(Error::input(
                "the post-processor changes the text's own tokens",
            )),
        };
    }
    Err(Error::input("the tokenizer yields no tokens"))
}
