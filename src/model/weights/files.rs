//! Where the tensors of a model directory are: its safetensors files, their index, each tensor's place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use super::nf4::{self, Nf4};
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::io::model_dir::{self, OtherTensor, OtherTensors, read_index};
use crate::model::arch::{Architecture, ExpertWeights, Experts};
use crate::model::family::Family;
use crate::model::parameters::{Entry, Layout};
use crate::model::recognize;
use crate::model::tensor_file::read_header;

/// In what a parameter is stored.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A tensor of f32, f16 or bf16.
    Tensor(Stored),
    /// Several tensors of bitsandbytes.
    Nf4(Box<Nf4>),
}

/// The architecture with the names that the weights in `folder` have, where the family has several
/// spellings of them.
///
/// # Errors
/// If a file cannot be read.
pub fn named_as_stored(
    folder: &Path,
    mut arch: Architecture,
    family: &Family,
) -> Result<Architecture> {
    if !family.spelling.is_empty() {
        let mut other = arch.clone();
        for (from, to) in family.spelling {
            other.rename(from, to);
        }
        let embed = |arch: &Architecture| format!("{}.weight", arch.names.embed);
        if first_there(folder, [&embed(&arch), &embed(&other)])? == Some(1) {
            arch = other;
        }
    }
    if let Some(experts) = &arch.experts {
        let fused = experts.fused();
        let layer = experts.layers.iter().position(|&has| has).unwrap_or(0);
        let name = |experts: &Experts| match &experts.weights {
            ExpertWeights::Separate { prefix, parts } => {
                arch.block_name(layer, &format!("{prefix}0.{}.weight", parts[0]))
            }
            ExpertWeights::Fused { gate_up, .. } => arch.block_name(layer, gate_up),
        };
        if first_there(folder, [&name(experts), &name(&fused)])? == Some(1) {
            arch.experts = Some(fused);
        }
    }
    Ok(arch)
}

/// Which of two tensors is in the first file that has any of them.
fn first_there(folder: &Path, names: [&String; 2]) -> Result<Option<usize>> {
    // A file that is missing is somebody else's error.
    for file in weight_files(folder)?.0.iter().filter(|file| file.exists()) {
        let (metadata, _) = read_header(file)?;
        let there = names.iter().position(|name| metadata.info(name).is_some());
        if there.is_some() {
            return Ok(there);
        }
    }
    Ok(None)
}

/// Finds each parameter among the directory's safetensors files, and the tensors of the parts of the model
/// that are kept as they are.
pub(super) fn locate(
    folder: &Path,
    layout: &Layout,
    arch: &Architecture,
    family: &Family,
) -> Result<(Vec<Source>, OtherTensors)> {
    let mut found: BTreeMap<usize, Source> = BTreeMap::new();
    let mut nf4: BTreeMap<usize, nf4::Found> = BTreeMap::new();
    let mut others = OtherTensors::default();
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
            if family.kept.iter().any(|start| name.starts_with(start)) {
                others.add(OtherTensor::new(name, info, data_start), &file)?;
                continue;
            }
            let (parameter, part) = match layout.find(&name) {
                Some(id) => (Some(id), nf4::CODES),
                None => match nf4::part_of(&name) {
                    Some((parameter, part)) => (layout.find(parameter), part),
                    None => (None, nf4::CODES),
                },
            };
            let Some(id) = parameter else {
                return Err(Error::input(format!("unexpected tensor {name}"))
                    .at(file.display())
                    .hint("the weights and config.json must be of one model"));
            };
            let stored = Stored::new(&file, data_start, info);
            let other = if part != nf4::CODES || nf4::is_codes(info.dtype) {
                nf4.entry(id).or_default().insert(part, stored)
            } else {
                check(&layout.entries[id], info, &file)?;
                match found.insert(id, Source::Tensor(stored)) {
                    Some(Source::Tensor(other)) => Some(other),
                    _ => None,
                }
            };
            if let Some(other) = other {
                return Err(Error::input(format!(
                    "tensor {name} is also in {}",
                    other.file.display()
                ))
                .at(file.display()));
            }
        }
    }
    for (id, tensors) in nf4 {
        let entry = &layout.entries[id];
        let whole = Nf4::new(entry, tensors)?;
        if entry.shape.len() < 2 || arch.is_table(&entry.name) {
            let what = "is in NF4, which is read of linear layers alone";
            return Err(whole.wrong(nf4::CODES, what.into()));
        }
        if found.contains_key(&id) {
            return Err(whole.wrong(nf4::CODES, "is there twice, once in bits of NF4".into()));
        }
        found.insert(id, Source::Nf4(Box::new(whole)));
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
        None => Ok((found.into_values().collect(), others)),
    }
}

pub(super) fn check(entry: &Entry, info: &TensorInfo, file: &Path) -> Result<()> {
    let shape = entry.stored_shape();
    if info.shape != shape {
        return Err(Error::input(format!(
            "tensor {} has shape {:?}, config.json makes it {shape:?}",
            entry.name, info.shape
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
pub(super) fn weight_files(folder: &Path) -> Result<(Vec<PathBuf>, Option<Index>)> {
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
pub(super) struct Index {
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
