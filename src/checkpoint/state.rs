//! The state of a run after a step: what `checkpoint-N` holds beside the model.
//!
//! `training_state.safetensors` holds the buffers, each tensor as `{buffer}.{parameter}` in the width
//! it is kept in; `training_state.json` everything else. Of several ranks each writes the moments that it
//! has, into `training_state-00001-of-00004.safetensors` and so on: the tensors are the same.

use std::path::{Path, PathBuf};

use candle_core::DType;
use safetensors::Dtype;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::tensors::{self, Tensor, width};
use super::weights::{SaveDtype, check_weights};
use super::write_like;
use crate::error::{Error, Result};
use crate::io::durable::{StagedFile, Staging, json_text, list};
use crate::io::model_dir::ModelFiles;
use crate::io::untrusted;
use crate::model::Decoder;
use crate::model::parameters::{Master, Params};
use crate::model::peft::PeftFolder;
use crate::model::tensor_file::read_header;
use crate::model::weights::ModelFolder;
use crate::ranks::{Ranks, share, share_results};

const TENSORS: &str = "training_state";
const SUFFIX: &str = ".safetensors";
const STATE: &str = "training_state.json";

/// The buffer of the weights themselves, where the model's files are not exact.
const WEIGHTS: &str = "weight";
/// That of a reference that has moved.
pub const REFERENCE: &str = "reference";

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
    /// The moments of what this rank updates, by name.
    pub moments: Vec<(&'static str, &'a Params)>,
    /// Bytes of the moments of all ranks.
    pub moment_bytes: u64,
    /// A reference that has moved.
    pub reference: Option<&'a Params>,
    /// The ranks that have the moments.
    pub ranks: &'a Ranks,
    /// Everything else.
    pub state: Value,
}

impl Snapshot<'_> {
    /// Refuses weights that do not fit the dtype, before anything is written.
    pub fn check(&self) -> Result<()> {
        check_weights(self.model, self.dtype)
    }

    /// Saves it as the new directory `target`, on the first rank, unless it is not `ready` to; the others
    /// [save their part](Self::save_part) meanwhile.
    ///
    /// # Errors
    /// [`Kind::NonFinite`](crate::error::Kind::NonFinite) if a weight or a moment is not finite; else what the disk says. Nothing is
    /// left behind.
    pub fn save(&self, target: &Path, ready: Result<()>) -> Result<()> {
        let staging = ready.and_then(|()| Staging::beside(target));
        // The others wait to hear where, or that it is nowhere.
        let place = staging
            .as_ref()
            .ok()
            .map(|staging| staging.path().to_owned());
        share(self.ranks, PLACE, place)?;
        let mut staging = staging?;
        let own = write_like(self.model, self.files, &mut staging, self.dtype)
            .and_then(|()| self.part(staging.path()));
        for part in share_results(&self.ranks.without_limit(), PARTS, own, 0)? {
            staging.add(part);
        }
        staging.bytes(STATE, json_text(&self.state)?.as_bytes())?;
        staging.seal()?;
        staging.settle(target)
    }

    /// Saves this rank's part, on another rank than the first.
    ///
    /// # Errors
    /// If a rank could not save its part.
    pub fn save_part(&self) -> Result<()> {
        let places = share(self.ranks, PLACE, None::<PathBuf>)?;
        if let Some(place) = places.into_iter().flatten().next() {
            let own = self.part(&place);
            share_results(&self.ranks.without_limit(), PARTS, own, 0)?;
        }
        Ok(())
    }

    /// Writes this rank's buffers into a directory.
    fn part(&self, folder: &Path) -> Result<StagedFile> {
        let name = match self.ranks.size() {
            1 => format!("{TENSORS}{SUFFIX}"),
            size => part_name(self.ranks.rank() + 1, size),
        };
        let buffers = self.buffers();
        let tensors = buffers.iter().flat_map(|(name, buffer)| {
            let entries = buffer.layout().saved();
            entries.map(move |entry| {
                let name = format!("{name}.{}", entry.name);
                Tensor::of(name, buffer, entry, width_of(buffer))
            })
        });
        let (tensors, path) = (tensors.collect(), folder.join(&name));
        StagedFile::write(folder, &name, |out| tensors::write(out, &path, tensors))
    }

    /// The bytes that it takes on a disk, at most about.
    pub fn bytes(&self) -> u64 {
        let elements = |params: &Params| params.layout().saved_len() as u64;
        let whole = self.whole().into_iter();
        let whole = whole.map(|(_, buffer)| width(width_of(buffer)) as u64 * elements(buffer));
        let model = elements(self.model.weights()) * self.dtype.bytes();
        let others = self.files.other_tensors().bytes();
        model + others + self.moment_bytes + whole.sum::<u64>() + SMALL_FILES
    }

    /// What this rank saves.
    fn buffers(&self) -> Vec<(&'static str, &Params)> {
        let moments = self.moments.iter().copied();
        match self.ranks.is_first() {
            true => moments.chain(self.whole()).collect(),
            false => moments.collect(),
        }
    }

    /// What every rank has all of.
    fn whole(&self) -> Vec<(&'static str, &Params)> {
        let exact = (self.dtype != SaveDtype::F32).then_some((WEIGHTS, self.model.weights()));
        let reference = self.reference.map(|reference| (REFERENCE, reference));
        reference.into_iter().chain(exact).collect()
    }
}

/// What is asked for and given between ranks.
const PLACE: &str = "the place of a checkpoint";
const PARTS: &str = "the parts of a checkpoint";

/// The file of a part, from 1, of so many.
fn part_name(number: usize, count: usize) -> String {
    format!("{TENSORS}-{number:05}-of-{count:05}{SUFFIX}")
}

/// The files of a checkpoint that have its buffers.
fn tensor_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let whole = folder.join(format!("{TENSORS}{SUFFIX}"));
    if whole.exists() {
        return Ok(vec![whole]);
    }
    let mut parts = list(folder)?;
    parts.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(TENSORS) && name.ends_with(SUFFIX)
    });
    // Of one saving only, and all of them.
    let count = parts.len();
    let name = |number: usize| folder.join(part_name(number, count));
    if let Some(number) = (1..=count).find(|&number| parts[number - 1] != name(number)) {
        let missing = name(number);
        return Err(Error::input("is missing beside the other parts").at(missing.display()));
    }
    match count {
        // Whoever opens it says that it is not there.
        0 => Ok(vec![whole]),
        _ => Ok(parts),
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
/// `all` says that the buffers are those of every rank, so that there is nothing else in the checkpoint.
///
/// # Errors
/// If the checkpoint is of another model or other buffers; they may have changed in part.
pub fn restore<'a>(
    folder: &Path,
    model: &'a mut Decoder,
    mut buffers: Vec<(&str, &'a mut Params)>,
    all: bool,
) -> Result<()> {
    let paths = tensor_files(folder)?;
    let weights = model.weights_mut();
    // The first rank's has what is of no piece.
    let (header, _) = read_header(&paths[0])?;
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
    tensors::read(&paths, &mut buffers, all)
}
