//! Flags that several commands share: one definition, one text, one meaning.

use std::path::{Path, PathBuf};

use clap::Args;
use expo::config::{Dtype, MICRO_BATCH_TOKENS, ModelConfig, PromptSource, Quantization, Source};
use expo::data::format::Format;
use expo::data::{Files, RowConfig};
use expo::error::{Error, Result};
use expo::loss::Loss;

use super::tell;

/// The config of a command that cannot do without one.
#[derive(Args)]
pub struct ConfigArgs {
    /// Read this config, a TOML file; --config FILE is the same
    #[arg(value_name = "FILE", required_unless_present = "config")]
    file: Option<PathBuf>,

    /// Read this config, a TOML file
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,

    /// Set a key of the config; may be repeated, the last value wins
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// The config with its overrides.
    pub fn source(&self) -> Result<Source> {
        let (path, overrides) = self.parts();
        match self.file.is_some() && !path.exists() {
            true => Source::open(path, overrides).map_err(|error| of_word(path, error)),
            false => Source::open(path, overrides),
        }
    }

    /// The file, and the overrides.
    pub fn parts(&self) -> (&Path, &[String]) {
        let path = self.config.as_ref().or(self.file.as_ref());
        (path.map_or(Path::new(""), PathBuf::as_path), &self.set)
    }
}

/// The error of a word in the place of a config's path: a loss, or an override, belongs behind a flag.
fn of_word(path: &Path, error: Error) -> Error {
    let word = path.to_string_lossy();
    match Loss::default_of(&word.to_lowercase()) {
        Ok(loss) => error.hint(format!(
            "the loss is chosen in a config, or with --set loss={}",
            loss.name()
        )),
        Err(_) if word.contains('=') => error.hint(format!("a key is set with --set {word}")),
        Err(_) => error,
    }
}

/// How and where a model is computed.
#[derive(Args, Debug, Clone, PartialEq)]
pub struct ComputeArgs {
    /// Take this branch, tag or commit of a model on the hub
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,

    /// Put this adapter on the model: a PEFT directory, or owner/name on the hub
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<String>,

    /// Compute in f32 or bf16: matmuls round their operands to bf16; on a GPU weights and
    /// activations are bf16, too
    #[arg(long, value_name = "DTYPE", default_value_t)]
    pub dtype: Dtype,

    /// Store the matrices of blocks in few bits, nf4 or q8_0, which is for the head, too
    #[arg(
        long,
        value_name = "FORMAT",
        default_value_t,
        hide_default_value = true
    )]
    pub quantization: Quantization,

    /// Compute on this device: auto, cpu, cuda:N, or cuda:N-M where several processes share the work
    #[arg(long, default_value_t = ModelConfig::new("").device)]
    pub device: String,
}

impl Default for ComputeArgs {
    fn default() -> Self {
        Self {
            revision: None,
            adapter: None,
            dtype: Dtype::default(),
            quantization: Quantization::default(),
            device: ModelConfig::new("").device,
        }
    }
}

impl ComputeArgs {
    /// The model of this name, computed so.
    pub fn model(&self, name: &str) -> ModelConfig {
        ModelConfig {
            revision: self.revision.clone(),
            adapter: self.adapter.clone(),
            dtype: self.dtype,
            quantization: self.quantization,
            device: self.device.clone(),
            ..ModelConfig::new(name)
        }
    }
}

fn positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number from 1 on".into()),
        Ok(n) => Ok(n),
    }
}

/// How many tokens a pass over rows computes at once.
#[derive(Args)]
pub struct BatchArgs {
    /// Compute at most this many tokens at once
    #[arg(long, value_name = "N", default_value_t = MICRO_BATCH_TOKENS, value_parser = positive)]
    pub micro_batch_tokens: usize,
}

/// How rows with answers are read.
#[derive(Args)]
pub struct RowArgs {
    /// Read rows of this layout; by default the one that the first row has
    #[arg(long, value_parser = Format::named)]
    format: Option<&'static Format>,

    /// Cut a prompt with any one of its responses to this many tokens [default: 512, or what the
    /// model can hold]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,

    /// Cut the prompt of an example that is too long to this many tokens [default: 256, or half of
    /// what the model can hold]
    #[arg(long, value_name = "N")]
    max_prompt_length: Option<usize>,
}

impl RowArgs {
    /// How the rows of these files are read.
    pub fn rows(&self, files: &Files) -> Result<RowConfig> {
        let mut rows = RowConfig::new(format(self.format, files)?);
        let limits = (self.max_length, self.max_prompt_length);
        rows.length = rows.length.with_limits(limits.0, limits.1);
        Ok(rows)
    }

    /// Whether the limits are lowered to what a model can hold: where none is given.
    pub fn shrink(&self) -> bool {
        self.max_length.is_none() && self.max_prompt_length.is_none()
    }
}

/// Prompts to answer.
#[derive(Args)]
pub struct PromptArgs {
    /// Answer the prompts of these rows, of any layout, or of a .txt file with a prompt on each line
    #[arg(long, value_name = "FILE", value_parser = str::parse::<Files>, requires = "model")]
    pub prompts: Option<Files>,

    /// Read rows of this layout; by default the one that the first row has
    #[arg(long, requires = "prompts", value_parser = Format::named)]
    format: Option<&'static Format>,

    /// Put each prompt through the chat template, as the user's message
    #[arg(long, requires = "model")]
    pub chat: bool,

    /// Cut longer prompts to this many tokens; without it they are an error
    #[arg(long, value_name = "N", requires = "prompts")]
    max_prompt_length: Option<usize>,
}

impl PromptArgs {
    /// The prompts of the file, if one is named.
    pub fn source(&self) -> Result<Option<PromptSource>> {
        let Some(files) = &self.prompts else {
            return Ok(None);
        };
        if self.max_prompt_length == Some(0) {
            return Err(Error::must_be("max_prompt_length", ">= 1", 0));
        }
        let mut source = PromptSource::new(format(self.format, files)?, files.clone());
        source.rows.max_prompt_length = self.max_prompt_length;
        source.rows.tokens.apply_chat_template = self.chat;
        Ok(Some(source))
    }
}

/// The layout that is named, or that of the first row, which is then reported.
pub fn format(named: Option<&'static Format>, files: &Files) -> Result<&'static Format> {
    if let Some(format) = named {
        return Ok(format);
    }
    let format = Format::of_file(files)?;
    let hint = format.columns_hint();
    tell(format!("{files}: {hint}"));
    Ok(format)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_pass_takes_at_least_one_token() {
        assert_eq!(super::positive("1"), Ok(1));
        for text in ["0", "-1", "1.5", ""] {
            let message = super::positive(text).unwrap_err();
            assert_eq!(message, "expected a whole number from 1 on");
        }
    }
}
