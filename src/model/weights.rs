//! Model directories: weights from safetensors into the flat buffer, and their content hash.
//!
//! Hides shards, dtypes and old tensors. Each tensor is read piece by piece into its place, so the
//! weights are held once.

pub(crate) mod head;
pub(super) mod header;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use sha2::{Digest, Sha256};

use super::arch::{Architecture, ConfigJson, Identity};
use super::decoder::Decoder;
use super::family::{Family, family};
use super::numerics::Numerics;
use super::parameters::{Entry, Layout, Params};
use super::recognize;
use super::trainable::select;
use crate::error::{Error, Result};
use crate::io::model_dir::{self, ModelFiles, read_index};
use crate::io::untrusted;
use crate::kernels::memory;
pub(crate) use header::read_header;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// A model directory that was looked at but not loaded.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// The directory.
    pub path: PathBuf,
    /// Its small files, as they were when it was opened.
    pub files: ModelFiles,
    /// The model's shape.
    pub arch: Architecture,
    layout: Layout,
    /// Each parameter's file and place in it, in the layout's order.
    tensors: Vec<Stored>,
}

#[derive(Debug, Clone)]
struct Stored {
    file: PathBuf,
    /// Where the bytes start, from the beginning of the file.
    start: u64,
    dtype: Dtype,
}

impl ModelFolder {
    /// Reads `config.json` and the headers of the safetensors files, and checks that every
    /// parameter is there once, in its shape, and nothing else is.
    pub fn open(path: &Path) -> Result<Self> {
        let files = ModelFiles::open(path)?;
        let config = ConfigJson::of(&files.get(model_dir::CONFIG))?;
        let family = family(&config)?;
        let arch = (family.architecture)(&config)?;
        let arch = head::as_stored(path, arch)?;
        let layout = Layout::new(&arch);
        let tensors = locate(path, &layout, &arch, family)?;
        Ok(Self {
            path: path.to_owned(),
            files,
            arch,
            layout,
            tensors,
        })
    }

    /// Loads the weights in `dtype` and hashes them on the way.
    ///
    /// # Errors
    /// If the memory that is available cannot hold them, before any is taken; if a weight is not
    /// finite.
    pub fn load(&self, dtype: DType, device: &Device) -> Result<(Decoder, String)> {
        self.load_with(Numerics::exact(dtype), device)
    }

    /// As [`Self::load`], to be computed, and where it says so updated, in `numerics`.
    pub fn load_with(&self, numerics: Numerics, device: &Device) -> Result<(Decoder, String)> {
        let dtype = numerics.storage;
        let held = check_memory(self.layout.len, dtype, device);
        held.map_err(|error| error.at(self.path.display()))?;
        let layout = Arc::new(self.layout.clone());
        let master = numerics.master_weights(self.master_len(dtype), device)?;
        let mut weights = Params::zeros(layout, dtype, device)?.with_master(master);
        let hash = self.load_into(&mut weights)?;
        let model = Decoder::new(self.arch.clone(), weights).with_numerics(numerics);
        Ok((model, hash))
    }

    /// The same model, of which those parameters are trained that `patterns`
    /// [`select`].
    ///
    /// # Errors
    /// If a pattern matches no parameter, or nothing is trained.
    pub fn with_trainable(mut self, patterns: &[String]) -> Result<Self> {
        self.layout = select(self.layout, patterns)?;
        Ok(self)
    }

    /// Its parameters, and which of them are trained.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The same model, whose parameters lie as in `layout`, if they are the same ones.
    #[must_use]
    pub fn with_layout(mut self, layout: &Layout) -> Self {
        if self.layout.same_parameters(layout) {
            self.layout = layout.clone();
        }
        self
    }

    /// How many elements need a master beside weights of this dtype: what is trained, and where a frozen
    /// weight is not stored in it, all, for frozen weights are saved as they were.
    fn master_len(&self, dtype: DType) -> usize {
        let mut all = self.layout.entries.iter().zip(&self.tensors);
        let exact = |stored: &Stored| dtype != DType::BF16 || stored.dtype == Dtype::BF16;
        match all.all(|(entry, stored)| entry.trainable || exact(stored)) {
            true => self.layout.trainable_len,
            false => self.layout.len,
        }
    }

    /// As [`Self::load`], into weights that are there.
    ///
    /// # Errors
    /// If they are of another shape.
    pub fn load_into(&self, weights: &mut Params) -> Result<String> {
        let layout = Arc::clone(weights.layout());
        if !layout.same_parameters(&self.layout) {
            return Err(Error::input("holds another model").at(self.path.display()));
        }
        self.read(|id, start, values| weights.set(layout.entries[id].range.start + start, values))
    }

    /// SHA-256, hex, of the architecture and every parameter's name, shape, dtype and bytes in the
    /// order of names: the same however the weights are split over files.
    pub fn content_hash(&self) -> Result<String> {
        self.read(|_, _, _| Ok(()))
    }

    /// Hashes the weights; `sink` gets them piece by piece, each with its parameter's index and where in
    /// the parameter it begins.
    fn read(&self, mut sink: impl FnMut(usize, usize, &[f32]) -> Result<()>) -> Result<String> {
        let mut hasher = Sha256::new();
        hasher.update(format!("{:?}", Identity(&self.arch)));
        let mut values = Vec::with_capacity(PIECE / 2);
        let mut bytes = vec![0; PIECE];
        let tensors = self.layout.entries.iter().zip(&self.tensors);
        for (id, (entry, stored)) in tensors.enumerate() {
            let mut start_of_piece = 0;
            let Stored { file, start, dtype } = stored;
            hasher.update(format!("{}{:?}{dtype:?}", entry.name, entry.shape));
            let io = |error: std::io::Error| Error::io(file, &error);
            let mut reader = untrusted::open(file)?;
            reader.seek(SeekFrom::Start(*start)).map_err(io)?;
            let mut left = entry.range.len() * width(*dtype);
            while left > 0 {
                let piece = &mut bytes[..left.min(PIECE)];
                reader.read_exact(piece).map_err(io)?;
                hasher.update(&*piece);
                decode(*dtype, piece, &mut values);
                if !values.iter().all(|x| x.is_finite()) {
                    return Err(Error::input(format!(
                        "tensor {} holds NaN or infinity",
                        entry.name
                    ))
                    .at(file.display())
                    .hint("train from a checkpoint with finite weights"));
                }
                sink(id, start_of_piece, &values)?;
                start_of_piece += values.len();
                left -= piece.len();
            }
        }
        Ok(format!("{:x}", hasher.finalize()))
    }
}

/// Refuses so many weights where host memory cannot hold them: the system would kill the
/// process. Where it does not say what is available, all fit.
pub(super) fn check_memory(elements: usize, dtype: DType, device: &Device) -> Result<()> {
    match device.is_cpu() {
        true => fits(
            elements as u64 * dtype.size_in_bytes() as u64,
            memory::available(),
        ),
        false => Ok(()),
    }
}

fn fits(bytes: u64, available: Option<u64>) -> Result<()> {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    match available.filter(|available| *available < bytes) {
        None => Ok(()),
        Some(available) => Err(Error::failed(format!(
            "the weights take {:.2} GiB of memory, and {:.2} GiB are available",
            gib(bytes),
            gib(available)
        ))),
    }
}

pub(crate) fn width(dtype: Dtype) -> usize {
    if dtype == Dtype::F32 { 4 } else { 2 }
}

pub(crate) fn decode(dtype: Dtype, bytes: &[u8], values: &mut Vec<f32>) {
    values.clear();
    match dtype {
        Dtype::F32 => {
            values.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
        }
        Dtype::F16 => values.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| half::f16::from_le_bytes(*b).to_f32()),
        ),
        _ => values.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| half::bf16::from_le_bytes(*b).to_f32()),
        ),
    }
}

/// Finds each parameter among the directory's safetensors files.
fn locate(
    folder: &Path,
    layout: &Layout,
    arch: &Architecture,
    family: &Family,
) -> Result<Vec<Stored>> {
    let mut found: BTreeMap<usize, Stored> = BTreeMap::new();
    let tied_head = format!("{}.weight", arch.names.head);
    // As in transformers, a tied model's own copy of the head is not read.
    let is_ignored = |name: &str| {
        let ignored = family.ignored.iter().any(|end| name.ends_with(end));
        ignored || (arch.tied && name == tied_head)
    };
    let (files, mut index) = weight_files(folder)?;
    // Where a tensor that is missing would be, or would be named.
    let place = index.as_ref().map(|index| index.path.clone());
    let place = place.or_else(|| files.first().cloned());
    let place = place.unwrap_or_else(|| folder.to_owned());
    for file in files {
        if let Some(Index { path, .. }) = &index
            && !file.exists()
        {
            return Err(
                Error::input(format!("names {}, which is not there", file.display()))
                    .at(path.display())
                    .hint("download the model again"),
            );
        }
        let (metadata, data_start) = read_header(&file)?;
        let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
        // Of several wrong tensors always the same one is named.
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        for (name, info) in tensors {
            if is_ignored(&name) && layout.find(&name).is_none() {
                continue;
            }
            if let Some(index) = &mut index {
                index.find(&name, &file)?;
            }
            let Some(id) = layout.find(&name) else {
                return Err(Error::input(format!("unexpected tensor {name}"))
                    .at(file.display())
                    .hint("the weights and config.json must be of one model"));
            };
            check(&layout.entries[id], info, &file)?;
            let start = data_start + info.data_offsets.0 as u64;
            let stored = Stored {
                file: file.clone(),
                start,
                dtype: info.dtype,
            };
            if let Some(other) = found.insert(id, stored) {
                return Err(Error::input(format!(
                    "tensor {name} is also in {}",
                    other.file.display()
                ))
                .at(file.display()));
            }
        }
    }
    if let Some(Index { path, files }) = &index
        && let Some((tensor, file)) = files.iter().find(|(name, _)| !is_ignored(name))
    {
        return Err(Error::input(format!("tensor {tensor} is not in {file}"))
            .at(path.display())
            .hint("the index and the weights must be of one model"));
    }
    let missing = layout
        .entries
        .iter()
        .enumerate()
        .find(|(id, _)| !found.contains_key(id));
    match missing {
        Some((_, entry)) => Err(Error::input(format!("tensor {} is missing", entry.name))
            .at(place.display())
            .hint("the weights and config.json must be of one model")),
        None => Ok(found.into_values().collect()),
    }
}

fn check(entry: &Entry, info: &TensorInfo, file: &Path) -> Result<()> {
    if info.shape != entry.shape {
        return Err(Error::input(format!(
            "tensor {} has shape {:?}, config.json makes it {:?}",
            entry.name, info.shape, entry.shape
        ))
        .at(file.display()));
    }
    if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        return Err(
            Error::input(format!("tensor {} has dtype {:?}", entry.name, info.dtype))
                .at(file.display())
                .hint("valid: F32, F16, BF16"),
        );
    }
    Ok(())
}

/// `model.safetensors`, or the shards that `model.safetensors.index.json` names; and that index.
fn weight_files(folder: &Path) -> Result<(Vec<PathBuf>, Option<Index>)> {
    let single = folder.join(model_dir::WEIGHTS);
    if single.is_file() {
        return Ok((vec![single], None));
    }
    let path = folder.join(model_dir::INDEX);
    if !path.is_file() {
        return Err(recognize::without_weights(folder).unwrap_or_else(|| {
            Error::input("no weights in the directory")
                .at(folder.display())
                .hint("expected model.safetensors or model.safetensors.index.json")
        }));
    }
    let files = read_index(&path)?;
    let names: BTreeSet<&String> = files.values().collect();
    let paths = names.into_iter().map(|name| folder.join(name)).collect();
    Ok((paths, Some(Index { path, files })))
}

/// `model.safetensors.index.json`.
struct Index {
    path: PathBuf,
    /// The file of each tensor that is yet to be found.
    files: BTreeMap<String, String>,
}

impl Index {
    /// Refuses a tensor that is not where the index has it.
    fn find(&mut self, tensor: &str, file: &Path) -> Result<()> {
        let index = self.path.display();
        let what = match self.files.remove(tensor) {
            Some(name) if file.ends_with(&name) => return Ok(()),
            Some(name) => format!("has tensor {tensor}, which {index} has in {name}"),
            None => format!("has tensor {tensor}, which {index} does not name"),
        };
        Err(Error::input(what)
            .at(file.display())
            .hint("the index and the weights must be of one model"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_memory_cannot_hold_are_refused() {
        let gib = 1 << 30;
        assert_eq!(fits(7 * gib, Some(7 * gib)), Ok(()));
        assert_eq!(fits(u64::MAX, None), Ok(()));
        assert_eq!(
            fits(30 * gib, Some(7 * gib)).unwrap_err().to_string(),
            "the weights take 30.00 GiB of memory, and 7.00 GiB are available"
        );
    }
}
