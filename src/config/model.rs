//! `[model]`: the policy and the reference, and in what and where they are computed.

use serde::{Deserialize, Serialize};

use crate::checkpoint::SaveDtype;
use crate::model::numerics::Dtype;

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder, or a name on the hub.
    pub model_name_or_path: String,
    /// Branch, tag or commit of a model on the hub; `main` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The adapter of the model, a PEFT directory or a name on the hub. Training goes on with it, as with
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
            recompute: false,
        }
    }
}

fn auto() -> String {
    "auto".into()
}
