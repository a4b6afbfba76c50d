//! Where a tensor of a model directory is.

use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

/// Where a tensor is.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub file: PathBuf,
    /// Where the bytes start, from the beginning of the file.
    pub start: u64,
    pub bytes: usize,
    pub dtype: Dtype,
}

impl Stored {
    /// A tensor of a file whose data begins at `data_start`.
    pub fn new(file: &Path, data_start: u64, info: &TensorInfo) -> Self {
        let (start, end) = info.data_offsets;
        Self {
            file: file.to_owned(),
            start: data_start + start as u64,
            bytes: end - start,
            dtype: info.dtype,
        }
    }
}
