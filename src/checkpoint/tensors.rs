//! safetensors files, written tensor by tensor and read into the buffers they came from.
//!
//! *Why*: the crate's own writer takes a file's name, so that what it writes could be neither hashed
//! on the way nor synced. It still makes the header, and its order of tensors is kept.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::{Error, Result};
use crate::io::model_dir::{OtherTensor, OtherTensors};
use crate::kernels::device::{download_bytes, upload_bytes};
use crate::model::parameters::{Entry, Params, Storage, transpose};
use crate::model::tensor_file::{decode, read_header};

/// Elements turned into bytes at a time.
const PIECE: usize = 1 << 20;

/// Bytes of an element.
pub(super) fn width(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// A tensor to be written under a name.
pub(super) struct Tensor<'a> {
    pub name: String,
    pub dtype: Dtype,
    shape: Vec<usize>,
    source: Source<'a>,
}

/// The values of a parameter that lies in no buffer, in its own order.
pub type Values<'a> = dyn Fn(&Entry) -> Result<Vec<f32>> + 'a;

enum Source<'a> {
    /// A parameter in no buffer.
    Computed(&'a Entry, &'a Values<'a>),
    /// A parameter in its own order.
    Buffer(&'a Params, &'a Entry),
    /// A matrix of this shape, to be transposed.
    Transposed(&'a Params, &'a Entry),
    Other(&'a OtherTensors, &'a OtherTensor),
}

impl<'a> Tensor<'a> {
    /// An entry of a buffer, as it is there.
    pub fn of(name: String, buffer: &'a Params, entry: &'a Entry, dtype: Dtype) -> Self {
        Self {
            name,
            dtype,
            shape: entry.shape.clone(),
            source: Source::Buffer(buffer, entry),
        }
    }

    /// A parameter as a model's files have it.
    pub fn stored(buffer: &'a Params, entry: &'a Entry, dtype: Dtype) -> Self {
        let tensor = Self::of(entry.name.clone(), buffer, entry, dtype);
        match entry.transposed {
            false => tensor,
            true => Self {
                shape: entry.stored_shape(),
                source: Source::Transposed(buffer, entry),
                ..tensor
            },
        }
    }

    /// A parameter as a model's files have it, whose values are computed when it is written.
    pub fn computed(entry: &'a Entry, values: &'a Values<'a>, dtype: Dtype) -> Self {
        Self {
            name: entry.name.clone(),
            dtype,
            shape: entry.stored_shape(),
            source: Source::Computed(entry, values),
        }
    }

    /// The same under another name.
    pub fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// A tensor of other files, as it is there.
    pub fn other(tensors: &'a OtherTensors, tensor: &'a OtherTensor) -> Self {
        Self {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            source: Source::Other(tensors, tensor),
        }
    }

    /// Its bytes in the file.
    pub fn bytes(&self) -> usize {
        match &self.source {
            Source::Buffer(_, entry)
            | Source::Transposed(_, entry)
            | Source::Computed(entry, _) => entry.elements() * width(self.dtype),
            Source::Other(_, tensor) => tensor.bytes,
        }
    }

    fn write(&self, out: &mut dyn Write, path: &Path) -> Result<()> {
        match &self.source {
            Source::Buffer(buffer, entry) if entry.storage == Storage::Flat => {
                for start in entry.range.clone().step_by(PIECE) {
                    let piece = start..entry.range.end.min(start + PIECE);
                    if self.dtype == Dtype::U8 {
                        let bytes = part(buffer, &piece).and_then(|part| download_bytes(&part))?;
                        out.write_all(&bytes)
                            .map_err(|error| Error::io(path, &error))?;
                        continue;
                    }
                    self.write_values(&buffer.values(piece)?, out, path)?;
                }
                Ok(())
            }
            Source::Buffer(buffer, entry) => {
                let values = buffer.read(buffer.layout().id(&entry.name))?;
                self.write_values(&values, out, path)
            }
            Source::Transposed(buffer, entry) => {
                let values =
                    transpose(&buffer.read(buffer.layout().id(&entry.name))?, &entry.shape);
                let mut pieces = values.chunks(PIECE);
                pieces.try_for_each(|piece| self.write_values(piece, out, path))
            }
            Source::Computed(entry, values) => {
                let values = values(entry)?;
                let values = match entry.transposed {
                    true => transpose(&values, &entry.shape),
                    false => values,
                };
                let mut pieces = values.chunks(PIECE);
                pieces.try_for_each(|piece| self.write_values(piece, out, path))
            }
            Source::Other(tensors, tensor) => tensors.copy(tensor, out, path),
        }
    }

    fn write_values(&self, values: &[f32], out: &mut dyn Write, path: &Path) -> Result<()> {
        if !values.iter().all(|x| x.is_finite()) {
            let what = format!("tensor {} holds NaN or infinity", self.name);
            return Err(Error::non_finite(what));
        }
        let peak = values.iter().fold(0f32, |peak, x| peak.max(x.abs()));
        if self.dtype == Dtype::F16 && peak > half::f16::MAX.to_f32() {
            let what = format!("tensor {} reaches {peak}, too much for f16", self.name);
            return Err(Error::input(what).hint("write f32 or bf16"));
        }
        let bytes = match self.dtype {
            Dtype::F32 => encode(values, f32::to_le_bytes),
            Dtype::F16 => encode(values, |x| half::f16::from_f32(x).to_le_bytes()),
            _ => encode(values, |x| half::bf16::from_f32(x).to_le_bytes()),
        };
        out.write_all(&bytes)
            .map_err(|error| Error::io(path, &error))
    }
}

/// Some elements of a buffer.
fn part(buffer: &Params, range: &Range<usize>) -> Result<candle_core::Tensor> {
    Ok(buffer.flat().narrow(0, range.start, range.len())?)
}

fn encode<const N: usize>(values: &[f32], bytes: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    let mut encoded = vec![0; values.len() * N];
    for (to, x) in encoded.as_chunks_mut().0.iter_mut().zip(values) {
        *to = bytes(*x);
    }
    encoded
}

/// Writes tensors of one or several dtypes; `path` is the file's name in errors.
pub(super) fn write(out: &mut dyn Write, path: &Path, mut tensors: Vec<Tensor>) -> Result<()> {
    // The crate's order: wide dtypes first, so that every tensor is aligned, then names.
    tensors.sort_by(|a, b| {
        let width = |tensor: &Tensor| std::cmp::Reverse(tensor.dtype.bitsize());
        (width(a), &a.name).cmp(&(width(b), &b.name))
    });
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.bytes();
        let info = TensorInfo {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        (tensor.name.clone(), info)
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let failed = |error: String| Error::failed(format!("{}: {error}", path.display()));
    let header = Metadata::new(Some(format), infos.collect()).map_err(|e| failed(e.to_string()))?;
    let mut header = serde_json::to_string(&header).map_err(|e| failed(e.to_string()))?;
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let io = |error| Error::io(path, &error);
    let length = (header.len() as u64).to_le_bytes();
    out.write_all(&length).map_err(io)?;
    out.write_all(header.as_bytes()).map_err(io)?;
    tensors
        .iter()
        .try_for_each(|tensor| tensor.write(out, path))
}

/// Reads the tensors of files into buffers: of each buffer those of all entries that are saved, named
/// `{name}.{entry}`. Where the buffers are `all` that there are, the files have no other tensor.
///
/// # Errors
/// If one is missing, has another shape or a value that is not finite, or another tensor is there.
pub(super) fn read(
    paths: &[PathBuf],
    buffers: &mut [(&str, &mut Params)],
    all: bool,
) -> Result<()> {
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let (header, data) = read_header(path)?;
        let file = File::open(path).map_err(|error| Error::io(path, &error))?;
        files.push((path, header, data, file));
    }
    let mut seen = HashSet::new();
    for (path, header, ..) in &files {
        if let Some(name) = header
            .tensors()
            .into_keys()
            .find(|name| !seen.insert(name.clone()))
        {
            let what = format!("tensor {name} is in two files");
            return Err(Error::input(what).at(path.display()));
        }
    }
    let first = paths.first().map_or(Path::new(""), PathBuf::as_path);
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    let mut known = 0;
    for (prefix, buffer) in buffers {
        let layout = Arc::clone(buffer.layout());
        for entry in layout.saved() {
            let name = format!("{prefix}.{}", entry.name);
            let found = files.iter_mut().find_map(|(path, header, data, file)| {
                Some((*path, header.info(&name)?.clone(), *data, file))
            });
            let missing = || Error::input(format!("tensor {name} is missing")).at(first.display());
            let (path, info, data, file) = found.ok_or_else(missing)?;
            let wrong = |what: String| Error::input(what).at(path.display());
            let io = |error: std::io::Error| Error::io(path, &error);
            if info.shape != entry.shape {
                let (shape, other) = (&entry.shape, &info.shape);
                return Err(wrong(format!(
                    "tensor {name} has shape {other:?}, not {shape:?}"
                )));
            }
            let coded = buffer.flat().dtype() == DType::U8;
            let fits = match info.dtype {
                Dtype::F32 | Dtype::BF16 => !coded,
                Dtype::U8 => coded,
                _ => false,
            };
            if !fits {
                return Err(wrong(format!("tensor {name} has dtype {:?}", info.dtype)));
            }
            let start = data + info.data_offsets.0 as u64;
            file.seek(SeekFrom::Start(start)).map_err(io)?;
            let range = entry.range.clone();
            for start in range.clone().step_by(PIECE) {
                let count = (range.end - start).min(PIECE);
                bytes.resize(count * width(info.dtype), 0);
                file.read_exact(&mut bytes).map_err(io)?;
                if coded {
                    let all = buffer.flat_mut();
                    upload_bytes(&bytes, all.narrowed(|x| x.narrow(0, start, count))?)?;
                    continue;
                }
                decode(info.dtype, &bytes, &mut values);
                if !values.iter().all(|x| x.is_finite()) {
                    return Err(wrong(format!("tensor {name} holds NaN or infinity")));
                }
                buffer.set(start, &values)?;
            }
            known += 1;
        }
    }
    let there: usize = files
        .iter()
        .map(|(_, header, ..)| header.tensors().len())
        .sum();
    match there.saturating_sub(known) {
        more if all && more > 0 => {
            let what = format!("{more} tensors that the run does not have");
            Err(Error::input(what).at(first.display()))
        }
        _ => Ok(()),
    }
}
