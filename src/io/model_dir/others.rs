//! Tensors of a model directory that no part of expo reads, such as a vision tower's.
//!
//! *Why*: a model that is saved with other weights is complete only with them. They are copied from the
//! files they were found in, which are held open: a directory that is removed or replaced meanwhile still
//! has them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use crate::error::{Error, Result};
use crate::io::untrusted;

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// A tensor and its place in a safetensors file.
#[derive(Debug, Clone)]
pub struct OtherTensor {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The number of its bytes.
    pub bytes: usize,
    start: u64,
    file: usize,
}

/// Tensors of one or several files.
#[derive(Debug, Clone, Default)]
pub struct OtherTensors {
    tensors: Vec<OtherTensor>,
    files: Vec<Arc<Source>>,
}

/// A file as it was when it was opened.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    file: Mutex<File>,
    state: (u64, SystemTime),
}

impl OtherTensor {
    /// The tensor that a header describes, of a file whose data starts at `data`.
    pub fn new(name: String, info: &TensorInfo, data: u64) -> Self {
        let (start, end) = info.data_offsets;
        Self {
            name,
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: end - start,
            start: data + start as u64,
            file: 0,
        }
    }
}

impl OtherTensors {
    /// Adds a tensor of the file at `path`.
    ///
    /// # Errors
    /// If there is one of that name, or the file cannot be opened.
    pub fn add(&mut self, mut tensor: OtherTensor, path: &Path) -> Result<()> {
        if let Some(other) = self.tensors.iter().find(|other| other.name == tensor.name) {
            let place = self.files[other.file].path.display();
            let what = format!("tensor {} is also in {place}", tensor.name);
            return Err(Error::input(what).at(path.display()));
        }
        let known = self.files.iter().position(|file| file.path == path);
        tensor.file = match known {
            Some(file) => file,
            None => {
                self.files.push(Arc::new(Source::open(path)?));
                self.files.len() - 1
            }
        };
        self.tensors.push(tensor);
        Ok(())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &OtherTensor> {
        self.tensors.iter()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|tensor| tensor.bytes as u64).sum()
    }

    /// Writes the bytes of one of them; `to` is the file's name in errors.
    ///
    /// # Errors
    /// If the file has changed since it was opened.
    pub fn copy(&self, tensor: &OtherTensor, out: &mut dyn Write, to: &Path) -> Result<()> {
        let source = &self.files[tensor.file];
        let io = |error: std::io::Error| Error::io(&source.path, &error);
        // A thread that panicked has left nothing undone: each copy seeks first.
        let mut file = source.file.lock().unwrap_or_else(PoisonError::into_inner);
        if Source::state(&file).map_err(io)? != source.state {
            return Err(Error::input(format!(
                "has changed since it was opened, so tensor {} cannot be copied",
                tensor.name
            ))
            .at(source.path.display()));
        }
        file.seek(SeekFrom::Start(tensor.start)).map_err(io)?;
        let mut bytes = vec![0; PIECE.min(tensor.bytes)];
        let mut left = tensor.bytes;
        while left > 0 {
            let piece = &mut bytes[..left.min(PIECE)];
            file.read_exact(piece).map_err(io)?;
            out.write_all(piece)
                .map_err(|error| Error::io(to, &error))?;
            left -= piece.len();
        }
        Ok(())
    }
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let file = untrusted::open(path)?;
        let state = Self::state(&file).map_err(|error| Error::io(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            state,
        })
    }

    /// The length and the time of the last change.
    fn state(file: &File) -> std::io::Result<(u64, SystemTime)> {
        let metadata = file.metadata()?;
        Ok((metadata.len(), metadata.modified()?))
    }
}
