//! `[model]`: the policy and the reference, and in what and where they are computed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::checkpoint::SaveDtype;
use crate::error::{Error, Result};

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder, or a name on the hub.
    pub model_name_or_path: String,
    /// Branch, tag or commit of a model on the hub; `main` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
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
    /// `auto`, `cpu` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// Which parameters are trained: globs over Hugging Face's names, of which the last that matches
    /// decides; `!` in front freezes. All of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainable: Option<Vec<String>>,
    /// Keep only block inputs of the forward pass and compute the rest again: less memory, a third
    /// more time, the same gradients.
    #[serde(default)]
    pub recompute: bool,
}

/// Dtypes that expo computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Single precision.
    #[default]
    F32,
    /// Products of matrices round their operands to bf16 and sum in f32. On the processor weights,
    /// activations, gradients and moments stay f32. On a GPU weights and activations are bf16; the
    /// residual stream, logits and gradients are f32, weights and moments as `optimizer.states` says.
    Bf16,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::input(format!("\"{name}\" is no dtype")).hint("f32 or bf16")),
        }
    }
}

impl ModelConfig {
    /// The keys that may change when a run resumes: its weights do not depend on them, or a content hash
    /// stands for them in `run.json`.
    pub const FREE: &[&str] = &[
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
            reference: None,
            reference_revision: None,
            dtype: Dtype::default(),
            save_dtype: SaveDtype::default(),
            device: auto(),
            trainable: None,
            recompute: false,
        }
    }
}

fn auto() -> String {
    "auto".into()
}
