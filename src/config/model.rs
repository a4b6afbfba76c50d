//! `[model]`: the policy and the reference, and in what and where they are computed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::checkpoint::SaveDtype;
use crate::error::{Error, Result};
use crate::kernels::quantized::Format;
use crate::model::numerics::Dtype;

/// In how few bits frozen matrices of blocks are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// As without quantization.
    #[default]
    None,
    /// bitsandbytes' 4-bit NormalFloat.
    Nf4,
    /// ggml's 8 bits with a scale per 32 numbers.
    #[serde(rename = "q8_0")]
    Q8_0,
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Nf4 => "nf4",
            Self::Q8_0 => "q8_0",
        })
    }
}

impl FromStr for Quantization {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [Self::None, Self::Nf4, Self::Q8_0];
        let found = all.into_iter().find(|format| format.to_string() == name);
        found.ok_or_else(|| {
            Error::input(format!("\"{name}\" is not a quantization")).hint("nf4 or q8_0, or none")
        })
    }
}

impl Quantization {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder, or a name on the hub.
    pub model_name_or_path: String,
    /// Branch, tag or commit of a model on the hub; `main` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The adapter of the model, a PEFT directory or a name on the hub. Training continues from it, as with
    /// `adapter.from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// The frozen reference, a folder or a name on the hub; the model itself by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Branch, tag or commit of the reference on the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_revision: Option<String>,
    /// Dtype that is computed in.
    #[serde(default)]
    pub dtype: Dtype,
    /// Dtype that weights are written in.
    #[serde(default)]
    pub save_dtype: SaveDtype,
    /// `auto`, `cpu`, `cuda:N`, or `cuda:N-M`, a process for each.
    #[serde(default = "auto")]
    pub device: String,
    /// Which parameters are trained: globs over Hugging Face's names, of which the last that matches
    /// decides; `!` in front freezes. All of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainable: Option<Vec<String>>,
    /// Store the matrices of blocks, which are then frozen, in few bits: `nf4` or `q8_0`, which without an
    /// adapter is for a head of its own, too.
    #[serde(default, skip_serializing_if = "Quantization::is_none")]
    pub quantization: Quantization,
    /// Whether scales of `nf4` are 8 bits; they are by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub double_quant: Option<bool>,
    /// Keep only block inputs of the forward pass and compute the rest again: less memory, a third
    /// more time, the same gradients.
    #[serde(default)]
    pub recompute: bool,
}

impl ModelConfig {
    /// The keys that may change when a run resumes: its weights do not depend on them, or a content hash
    /// stands for them in `run.json`.
    pub const FREE: &[&str] = &[
        "adapter",
        "device",
        "model_name_or_path",
        "reference",
        "reference_revision",
        "revision",
    ];

    /// The defaults, for the model `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            model_name_or_path: name.into(),
            revision: None,
            adapter: None,
            reference: None,
            reference_revision: None,
            dtype: Dtype::default(),
            save_dtype: SaveDtype::default(),
            device: auto(),
            trainable: None,
            quantization: Quantization::None,
            double_quant: None,
            recompute: false,
        }
    }
}

impl ModelConfig {
    /// The format that matrices of blocks are quantized to, if they are.
    ///
    /// # Errors
    /// If `double_quant` is set for another format than `nf4`.
    pub fn format(&self) -> Result<Option<Format>> {
        match (self.quantization, self.double_quant) {
            (Quantization::Nf4, double) => Ok(Some(Format::Nf4 {
                double: double.unwrap_or(true),
            })),
            (_, Some(_)) => Err(Error::input("double_quant is read with nf4 only")
                .hint("leave the key out, or set quantization = \"nf4\"")
                .at_key("model.double_quant")),
            (Quantization::Q8_0, None) => Ok(Some(Format::Q8_0)),
            (Quantization::None, None) => Ok(None),
        }
    }
}

fn auto() -> String {
    "auto".into()
}
