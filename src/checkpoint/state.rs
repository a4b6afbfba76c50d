//! The state of a run after a step: what `checkpoint-N` holds beside the model.
//!
//! `training_state.safetensors` holds the buffers, each tensor as `{buffer}.{parameter}` in the width
//! it is kept in; `training_state.json` everything else.

use std::path::Path;

use candle_core::DType;
use safetensors::Dtype;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::tensors::{self, Tensor, width};
use super::weights::{SaveDtype, check_weights};
use super::write_like;
use crate::error::{Error, Result};
use crate::io::durable::{Staging, json_text};
use crate::io::model_dir::ModelFiles;
use crate::io::untrusted;
use crate::model::Decoder;
use crate::model::parameters::{Master, Params};
use crate::model::peft::PeftFolder;
use crate::model::tensor_file::read_header;
use crate::model::weights::ModelFolder;

const TENSORS: &str = "training_state.safetensors";
const STATE: &str = "training_state.json";

/// The buffer of the weights themselves, where the model's files are not exact.
const WEIGHTS: &str = "weight";

/// Bytes that config.json, the tokenizer and headers take beside tensors, at most about.
pub const SMALL_FILES: u64 = 32 << 20;

/// All that a run is after a step.
pub struct Snapshot<'a> {
    /// The policy.
    pub model: &'a Decoder,
    /// Config, tokenizer and what else is saved beside the weights.
    pub files: &'a ModelFiles,
    /// Dtype of the model's files. Where it is not f32 the weights are in the state, too.
    pub dtype: SaveDtype,
    /// Buffers by name: the moments of what is trained, and a reference that has moved.
    pub buffers: Vec<(&'a str, &'a Params)>,
    /// Everything else.
    pub state: Value,
}

impl Snapshot<'_> {
    /// Refuses weights that do not fit the dtype, before anything is written.
    pub fn check(&self) -> Result<()> {
        check_weights(self.model, self.dtype)
    }

    /// Saves it as the new directory `target`.
    ///
    /// # Errors
    /// [`Kind::NonFinite`](crate::error::Kind::NonFinite) if a weight or a moment is not finite; else what the disk says. Nothing is
    /// left behind.
    pub fn save(&self, target: &Path) -> Result<()> {
        let mut staging = Staging::beside(target)?;
        write_like(self.model, self.files, &mut staging, self.dtype)?;
        let buffers = self.buffers();
        let tensors = buffers.iter().flat_map(|(name, buffer)| {
            let entries = buffer.layout().saved();
            entries.map(move |entry| {
                let name = format!("{name}.{}", entry.name);
                Tensor::of(name, buffer, entry, width_of(buffer))
            })
        });
        let (tensors, path) = (tensors.collect(), staging.path().join(TENSORS));
        staging.file(TENSORS, |out| tensors::write(out, &path, tensors))?;
        staging.bytes(STATE, json_text(&self.state)?.as_bytes())?;
        staging.seal()?;
        staging.settle(target)
    }

    /// The bytes that it takes on a disk, at most about.
    pub fn bytes(&self) -> u64 {
        let state = self.buffers().into_iter();
        let elements = |params: &Params| params.layout().saved_len() as u64;
        let state = state.map(|(_, buffer)| width(width_of(buffer)) as u64 * elements(buffer));
        let model = elements(self.model.weights()) * self.dtype.bytes();
        let others = self.files.other_tensors().bytes();
        model + others + state.sum::<u64>() + SMALL_FILES
    }

    fn buffers(&self) -> Vec<(&str, &Params)> {
        let exact = (self.dtype != SaveDtype::F32).then_some((WEIGHTS, self.model.weights()));
        self.buffers.iter().copied().chain(exact).collect()
    }
}

/// In what a buffer's values are exact.
fn width_of(buffer: &Params) -> Dtype {
    match (buffer.master(), buffer.flat().dtype()) {
        (Master::Itself, DType::BF16) => Dtype::BF16,
        (Master::Itself, DType::U8) => Dtype::U8,
        _ => Dtype::F32,
    }
}

/// The part of a checkpoint that is not tensors.
///
/// # Errors
/// If the directory has no state, or one that is not of this version of the program.
pub fn read_state<T: DeserializeOwned>(folder: &Path) -> Result<T> {
    let path = folder.join(STATE);
    if !path.exists() {
        return Err(Error::input("has no training state")
            .at(folder.display())
            .hint("only a checkpoint of a run can be resumed; a model starts a new run"));
    }
    let value = untrusted::json(&path, untrusted::CONFIG)?;
    serde_json::from_value(value).map_err(|error| {
        Error::input(error.to_string())
            .at(path.display())
            .hint("the checkpoint is of another version of expo")
    })
}

/// Sets the weights and the buffers to what they were when the checkpoint was saved.
///
/// # Errors
/// If the checkpoint is of another model or other buffers; they may have changed in part.
pub fn restore<'a>(
    folder: &Path,
    model: &'a mut Decoder,
    mut buffers: Vec<(&str, &'a mut Params)>,
) -> Result<()> {
    let path = folder.join(TENSORS);
    let weights = model.weights_mut();
    let (header, _) = read_header(&path)?;
    let first = weights.layout().saved().next();
    let first = first.map(|entry| format!("{WEIGHTS}.{}", entry.name));
    let exact = first.is_some_and(|name| header.info(&name).is_some());
    match exact {
        true => {}
        false if weights.layout().adapter.is_some() => {
            PeftFolder::open(folder)?.load_into(weights)?;
        }
        false => {
            ModelFolder::open(folder)?.load_into(weights)?;
        }
    }
    buffers.extend(exact.then_some((WEIGHTS, weights)));
    tensors::read(&path, &mut buffers)
}
