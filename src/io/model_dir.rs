//! The files of a model directory in Hugging Face form, as transformers names them.
//!
//! *Why*: a model is complete only with its tokenizer and its chat templates. Which files those are is
//! said once, so that a download, a copy from a local directory and a saved model have the same ones.

mod others;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use self::others::{OtherTensor, OtherTensors};
use super::durable::{Staging, list};
use super::untrusted::{self, Document, Kind, is_plain};
use crate::error::{Error, Result};

/// The architecture and its sizes.
pub const CONFIG: &str = "config.json";
/// Weights in a single file.
pub const WEIGHTS: &str = "model.safetensors";
/// The file of each tensor, where the weights are in several.
pub const INDEX: &str = "model.safetensors.index.json";
/// What an adapter is and of which model, in PEFT's form.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The weights of an adapter.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// Defaults of generation, end tokens among them.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The tokenizer itself.
pub const TOKENIZER: &str = "tokenizer.json";
/// Special tokens and, in older models, the chat template.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Special tokens, in older models.
pub const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
/// The default chat template.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// The directory of chat templates for special uses, one `NAME.jinja` each.
pub const ADDITIONAL_TEMPLATES: &str = "additional_chat_templates";

/// How images and other inputs become tensors, in models that take more than text; the chat template of
/// older ones.
const PROCESSOR_FILES: [&str; 3] = [
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
];

/// The files of a tokenizer with its default chat template. Only the first is always present.
pub const TOKENIZER_FILES: [&str; 8] = [
    TOKENIZER,
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS_MAP,
    "added_tokens.json",
    CHAT_TEMPLATE,
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
];

/// The files that are parsed; one that exists and is not a plain file is an error.
const PARSED: [&str; 7] = [
    CONFIG,
    ADAPTER_CONFIG,
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS_MAP,
    CHAT_TEMPLATE,
];

/// Of all files of a model, the names of those that stay the same when its weights change: the
/// tokenizer's and the processor's files, the chat templates and [`GENERATION_CONFIG`]. Names are relative, with `/`.
pub fn companions<'a>(files: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = files
        .into_iter()
        .filter(|name| is_companion(name))
        .collect();
    found.sort_unstable();
    found
}

/// The names of the [`companions`] in a directory.
///
/// # Errors
/// If the directory cannot be read.
pub fn companions_in(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (prefix, directory) in [
        (String::new(), directory.to_owned()),
        (
            format!("{ADDITIONAL_TEMPLATES}/"),
            directory.join(ADDITIONAL_TEMPLATES),
        ),
    ] {
        if !directory.is_dir() {
            continue;
        }
        for path in list(&directory)?.into_iter().filter(|path| path.is_file()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            names.push(format!("{prefix}{name}"));
        }
    }
    names.retain(|name| is_companion(name));
    Ok(names)
}

/// What of a model stays when its weights change: the small files, [`CONFIG`] and the [`companions`], as
/// they were when the directory was opened, and tensors that nothing reads.
///
/// *Why*: what is parsed, what is hashed and what is saved with other weights are the same bytes,
/// whatever becomes of the directory meanwhile.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    directory: PathBuf,
    files: BTreeMap<String, Document>,
    others: OtherTensors,
}

impl ModelFiles {
    /// Reads them.
    ///
    /// # Errors
    /// If the directory cannot be listed. A file that cannot be read is the error of whoever asks for
    /// it.
    pub fn open(directory: &Path) -> Result<Self> {
        let names = PARSED.map(str::to_owned).into_iter();
        let names = names.chain(companions_in(directory)?);
        let read = |name: String| {
            let document = Document::read(&directory.join(&name), kind_of(&name));
            (name, document)
        };
        Ok(Self {
            directory: directory.to_owned(),
            files: names.map(read).collect(),
            others: OtherTensors::default(),
        })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of this name, which need not exist.
    pub fn get(&self, name: &str) -> Document {
        let known = self.files.get(name).cloned();
        known.unwrap_or_else(|| Document::absent(&self.directory.join(name)))
    }

    /// Has `file` under this name.
    pub fn replace(&mut self, name: &str, file: Document) {
        self.files.insert(name.to_owned(), file);
    }

    /// Has the companions of another directory in the place of its own.
    pub fn take_companions(&mut self, other: &Self) {
        let own = |name: &str| name == GENERATION_CONFIG || PROCESSOR_FILES.contains(&name);
        self.files
            .retain(|name, _| !is_companion(name) || own(name));
        let theirs = other.companions();
        let theirs = theirs.map(|(name, file)| (name.to_owned(), file.clone()));
        self.files.extend(theirs);
    }

    /// The tensors that nothing reads and that are saved beside the weights.
    pub fn other_tensors(&self) -> &OtherTensors {
        &self.others
    }

    /// Has these tensors saved beside the weights.
    pub fn set_other_tensors(&mut self, others: OtherTensors) {
        self.others = others;
    }

    /// The companions that exist.
    pub fn companions(&self) -> impl Iterator<Item = (&str, &Document)> {
        let files = self.files.iter().map(|(name, file)| (name.as_str(), file));
        files.filter(|(name, file)| is_companion(name) && file.exists())
    }

    /// Refuses a companion that cannot be read, and so not be saved.
    pub fn check(&self) -> Result<()> {
        let mut companions = self.companions();
        companions.try_for_each(|(_, file)| file.bytes().map(drop))
    }

    /// Writes the companions into a directory.
    pub fn write_companions(&self, staging: &mut Staging) -> Result<()> {
        let mut companions = self.companions();
        companions.try_for_each(|(name, file)| staging.bytes(name, file.bytes()?))
    }
}

/// What kind of file a name is of.
fn kind_of(name: &str) -> Kind {
    match name {
        TOKENIZER | "tokenizer.model" | "vocab.json" | "merges.txt" => untrusted::TOKENIZER,
        name if name.ends_with(".jinja") => untrusted::TEMPLATE,
        _ => untrusted::CONFIG,
    }
}

fn is_companion(name: &str) -> bool {
    let template = name
        .strip_prefix(ADDITIONAL_TEMPLATES)
        .and_then(|rest| rest.strip_prefix('/'));
    match template {
        Some(template) => is_plain(template) && template.ends_with(".jinja"),
        None => {
            let processor = PROCESSOR_FILES.contains(&name);
            processor || TOKENIZER_FILES.contains(&name) || name == GENERATION_CONFIG
        }
    }
}

/// Reads [`INDEX`]: the file of each tensor, by the tensor's name.
///
/// # Errors
/// If it names no tensor, or a file that is not a plain name of the same directory.
pub fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let index = untrusted::json_object(path, untrusted::INDEX)?;
    let map = index["weight_map"]
        .as_object()
        .ok_or_else(|| Error::input("no `weight_map` in it").at(path.display()))?;
    if map.is_empty() {
        return Err(Error::input("its `weight_map` is empty").at(path.display()));
    }
    let file = |(tensor, file): (&String, &serde_json::Value)| match file.as_str() {
        Some(name) if is_plain(name) && name.ends_with(".safetensors") => {
            Ok((tensor.clone(), name.to_owned()))
        }
        _ => Err(Error::input(format!("weight_map names {file}"))
            .hint("each value is the plain name of a .safetensors file in the same directory")
            .at(path.display())),
    };
    map.iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_are_the_tokenizer_files_and_plain_template_names() {
        let files = [
            "tokenizer.json",
            "model.safetensors",
            "additional_chat_templates/tool_use.jinja",
            "additional_chat_templates/../up.jinja",
            "additional_chat_templates/a/b.jinja",
            "additional_chat_templates/notes.txt",
            "generation_config.json",
            "config.json",
        ];
        assert_eq!(
            companions(files),
            [
                "additional_chat_templates/tool_use.jinja",
                "generation_config.json",
                "tokenizer.json"
            ]
        );
    }

    #[test]
    fn files_are_those_of_the_moment_when_they_were_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [(TOKENIZER, "{}"), ("merges.txt", "a b"), ("notes.txt", "")] {
            std::fs::write(path(name), text).unwrap();
        }
        let files = ModelFiles::open(folder.path()).unwrap();
        std::fs::write(path(TOKENIZER), "garbage").unwrap();
        std::fs::remove_file(path("merges.txt")).unwrap();
        std::fs::write(path(CHAT_TEMPLATE), "new").unwrap();
        let companions = files.companions();
        let companions = companions.map(|(name, file)| (name, file.bytes().unwrap()));
        let expected = [("merges.txt", &b"a b"[..]), (TOKENIZER, b"{}")];
        assert_eq!(companions.collect::<Vec<_>>(), expected);
        assert!(!files.get(CHAT_TEMPLATE).exists());
        let message = files.get(CONFIG).json_object().unwrap_err().to_string();
        assert!(
            message.ends_with("config.json: no such file or directory"),
            "{message}"
        );
    }

    #[test]
    fn companions_of_a_directory_are_those_of_its_file_list() {
        let folder = tempfile::tempdir().unwrap();
        let templates = folder.path().join(ADDITIONAL_TEMPLATES);
        std::fs::create_dir(&templates).unwrap();
        for path in [
            folder.path().join("merges.txt"),
            folder.path().join("weights.bin"),
            templates.join("rag.jinja"),
            templates.join("rag.txt"),
        ] {
            std::fs::write(path, "").unwrap();
        }
        let found = companions_in(folder.path()).unwrap();
        assert_eq!(found, ["merges.txt", "additional_chat_templates/rag.jinja"]);
    }
}
