//! Model folders: weights from safetensors into the flat buffer, and their content hash.
//!
//! Hides shards, dtypes and old tensors. Each tensor is read piece by piece into its place, so the
//! weights are held once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};

use super::arch::{Architecture, ConfigJson};
use super::decoder::Decoder;
use super::family::{Family, family};
use super::parameters::{Buffer, Entry, Layout, Master};
use crate::error::{Error, Result};

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// A model folder that was looked at but not loaded.
#[derive(Debug)]
pub struct ModelFolder {
    /// The folder.
    pub path: PathBuf,
    /// The model's shape.
    pub arch: Architecture,
    layout: Layout,
    /// Each parameter's file and place in it, in the layout's order.
    tensors: Vec<Stored>,
}

#[derive(Debug)]
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
        let config = ConfigJson::open(&path.join("config.json"))?;
        let family = family(&config)?;
        let arch = (family.architecture)(&config)?;
        let layout = Layout::new(&arch);
        let tensors = locate(path, &layout, &arch, family)?;
        Ok(Self {
            path: path.to_owned(),
            arch,
            layout,
            tensors,
        })
    }

    /// Loads the weights in `dtype` and hashes them on the way.
    pub fn load(&self, dtype: DType, device: &Device) -> Result<(Decoder, String)> {
        self.load_with(dtype, device, |_| Ok(Master::Itself))
    }

    /// As [`Self::load`]; `master` makes the place for what bf16 lacks, given the number of elements.
    pub fn load_with(
        &self,
        dtype: DType,
        device: &Device,
        master: impl FnOnce(usize) -> Result<Master>,
    ) -> Result<(Decoder, String)> {
        let layout = Arc::new(self.layout.clone());
        let master = master(layout.len)?;
        let weights = Buffer::zeros(layout, dtype, device)?.with_master(master);
        let hash = self.load_into(&weights)?;
        Ok((Decoder::new(self.arch.clone(), weights), hash))
    }

    /// As [`Self::load`], into weights that are there.
    ///
    /// # Errors
    /// If they are of another shape.
    pub fn load_into(&self, weights: &Buffer) -> Result<String> {
        if **weights.layout() != self.layout {
            return Err(Error::input("holds another model").at(self.path.display()));
        }
        let mut start = 0;
        self.read(|values| {
            weights.set(start, values)?;
            start += values.len();
            Ok(())
        })
    }

    /// SHA-256, hex, of the architecture and every parameter's name, shape, dtype and bytes in the
    /// order of names: the same however the weights are split over files.
    pub fn content_hash(&self) -> Result<String> {
        self.read(|_| Ok(()))
    }

    fn read(&self, mut sink: impl FnMut(&[f32]) -> Result<()>) -> Result<String> {
        let mut hasher = Sha256::new();
        hasher.update(format!("{:?}", self.arch));
        let mut values = Vec::with_capacity(PIECE / 2);
        let mut bytes = vec![0; PIECE];
        for (entry, stored) in self.layout.entries.iter().zip(&self.tensors) {
            let Stored { file, start, dtype } = stored;
            hasher.update(format!("{}{:?}{dtype:?}", entry.name, entry.shape));
            let io = |error: std::io::Error| Error::io(file, &error);
            let mut reader = File::open(file).map_err(io)?;
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
                    .hint("train from a checkpoint that is whole"));
                }
                sink(&values)?;
                left -= piece.len();
            }
        }
        Ok(format!("{:x}", hasher.finalize()))
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

/// Finds each parameter among the folder's safetensors files.
fn locate(
    folder: &Path,
    layout: &Layout,
    arch: &Architecture,
    family: &Family,
) -> Result<Vec<Stored>> {
    let mut found: BTreeMap<usize, Stored> = BTreeMap::new();
    let tied_head = format!("{}.weight", arch.names.head);
    for file in weight_files(folder)? {
        let (metadata, data_start) = read_header(&file)?;
        for (name, info) in metadata.tensors() {
            let Some(id) = layout.find(&name) else {
                // As in transformers, a tied model's own copy of the head is not read.
                let skip = family.ignored.iter().any(|end| name.ends_with(end))
                    || (arch.tied && name == tied_head);
                if skip {
                    continue;
                }
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
    let missing = layout
        .entries
        .iter()
        .enumerate()
        .find(|(id, _)| !found.contains_key(id));
    match missing {
        Some((_, entry)) => Err(Error::input(format!("tensor {} is missing", entry.name))
            .at(folder.display())
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

/// `model.safetensors`, or the shards that `model.safetensors.index.json` names.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    if single.is_file() {
        return Ok(vec![single]);
    }
    if !index.is_file() {
        return Err(Error::input("no weights in the folder")
            .at(folder.display())
            .hint("expected model.safetensors or model.safetensors.index.json"));
    }
    let names = super::hub::shards(&index)?;
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// The header of a safetensors file and where its data starts.
pub(crate) fn read_header(path: &Path) -> Result<(Metadata, u64)> {
    let io = |error: std::io::Error| Error::io(path, &error);
    let wrong = |what: String| {
        Error::input(what)
            .at(path.display())
            .hint("not a whole safetensors file: download it again")
    };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let size = reader.get_ref().metadata().map_err(io)?.len();
    let mut length = [0; 8];
    reader
        .read_exact(&mut length)
        .map_err(|_| wrong(format!("{size} bytes are too few")))?;
    let length = u64::from_le_bytes(length);
    if length > size.saturating_sub(8) || length > 100 << 20 {
        return Err(wrong(format!(
            "a header of {length} bytes in a file of {size}"
        )));
    }
    let mut header = vec![0; length as usize];
    reader.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| wrong(format!("bad header: {error}")))?;
    let expected = 8 + length + metadata.data_len() as u64;
    if size != expected {
        return Err(wrong(format!(
            "{size} bytes where the header promises {expected}"
        )));
    }
    Ok((metadata, 8 + length))
}
