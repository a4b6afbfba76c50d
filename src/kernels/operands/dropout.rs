//! Which elements of a matrix dropout sets to zero.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::kernels::device::from_host;

/// The rows of a matrix, each with a key of its own. Whether an element is dropped is decided by the seed, its
/// row's key and its column alone, so that it does not depend on where in a batch the row is.
#[derive(Debug, Clone)]
pub struct RowKeys(Tensor);

/// A share of elements, set to zero; all others are divided by the share that is kept.
#[derive(Debug, Clone, Copy)]
pub struct Dropout<'a> {
    /// The share, in (0, 1).
    pub rate: f64,
    /// Another seed sets other elements to zero.
    pub seed: u64,
    /// Of the rows.
    pub keys: &'a RowKeys,
}

impl RowKeys {
    /// These keys on `device`.
    ///
    /// # Errors
    /// If the device has no memory for them.
    pub fn new(keys: &[u32], device: &Device) -> Result<Self> {
        Ok(Self(from_host(keys, keys.len(), device)?))
    }

    /// The keys of rows from `start` on.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self(self.0.narrow(0, start, len)?))
    }

    /// (rows), u32.
    pub(in crate::kernels) fn tensor(&self) -> &Tensor {
        &self.0
    }
}

impl Dropout<'_> {
    /// An element whose hash is below it is dropped.
    pub(in crate::kernels) fn threshold(&self) -> u32 {
        (self.rate * 2f64.powi(32)) as u32
    }

    /// The two halves of the seed.
    pub(in crate::kernels) fn seeds(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    /// What kept elements are multiplied by.
    pub(in crate::kernels) fn factor(&self) -> f64 {
        1.0 / (1.0 - self.rate)
    }
}
