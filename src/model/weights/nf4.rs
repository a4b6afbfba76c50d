//! Parameters that bitsandbytes quantized to NF4, as transformers saves them.
//!
//! Beside `X.weight`, the packed codes, lie `X.weight.absmax`, `X.weight.quant_map`, with double quantization
//! `X.weight.nested_absmax` and `X.weight.nested_quant_map`, and in `X.weight.quant_state.bitsandbytes__nf4`
//! JSON as bytes. All are read as they are, so that numbers are those that bitsandbytes computes.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use candle_core::{DType, Device};
use safetensors::Dtype;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::stored::Stored;
use crate::error::{Error, Result};
use crate::io::untrusted;
use crate::kernels::device::download;
use crate::kernels::quantized::{Format, NESTED_BLOCK, Parts, Quantized, Scales, dequantize};
use crate::model::parameters::Entry;

/// The packed codes, which have the parameter's own name.
pub(super) const CODES: &str = "";
const SCALES: &str = "absmax";
const MAP: &str = "quant_map";
const NESTED: &str = "nested_absmax";
const NESTED_MAP: &str = "nested_quant_map";
const STATE: &str = "quant_state.bitsandbytes__nf4";

/// What the names of a parameter's tensors end with, after a dot, and their dtypes.
const PARTS: [(&str, &[Dtype]); 6] = [
    (CODES, &[Dtype::U8]),
    (SCALES, &[Dtype::U8, Dtype::F32]),
    (MAP, &[Dtype::F32]),
    (NESTED, &[Dtype::F32]),
    (NESTED_MAP, &[Dtype::F32]),
    (STATE, &[Dtype::U8]),
];

/// The most bytes of JSON.
const LONGEST_STATE: usize = 1 << 12;

/// A parameter's tensors as they are found.
pub(super) type Found = BTreeMap<&'static str, Stored>;

/// The name of the parameter that a tensor belongs to, and which of its tensors it is; `None` where it has
/// no name of that kind.
pub(super) fn part_of(tensor: &str) -> Option<(&str, &'static str)> {
    PARTS.iter().skip(1).find_map(|(part, _)| {
        let name = tensor.strip_suffix(part)?.strip_suffix('.')?;
        Some((name, *part))
    })
}

/// Whether a tensor of that dtype in the place of a parameter is its packed codes.
pub(super) fn is_codes(dtype: Dtype) -> bool {
    dtype == Dtype::U8
}

/// A parameter in NF4.
#[derive(Debug, Clone)]
pub(super) struct Nf4 {
    name: String,
    /// (rows, in).
    shape: (usize, usize),
    tensors: Found,
    /// Of double quantization.
    offset: Option<f32>,
}

impl Nf4 {
    /// A parameter of its tensors.
    ///
    /// # Errors
    /// If one is missing or is of another dtype or size, or bitsandbytes quantized it otherwise than expo reads.
    pub fn new(entry: &Entry, tensors: Found) -> Result<Self> {
        let mut own = Self {
            name: entry.name.clone(),
            shape: entry.rows(),
            tensors,
            offset: None,
        };
        for (part, dtypes) in PARTS {
            if let Some(stored) = own.tensors.get(part)
                && !dtypes.contains(&stored.dtype)
            {
                return Err(own.wrong(part, format!("has dtype {:?}", stored.dtype)));
            }
        }
        let state = own.tensor(STATE)?;
        if state.bytes > LONGEST_STATE {
            return Err(own.wrong(STATE, format!("has {} bytes", state.bytes)));
        }
        let bytes = own.bytes(STATE)?;
        let text = String::from_utf8_lossy(&bytes);
        let state = untrusted::parse(&text).map_err(|why| own.wrong(STATE, why.to_string()))?;
        own.check_state(entry, &state)?;
        own.offset = match own.tensor(SCALES)?.dtype {
            Dtype::U8 => {
                let offset = state["nested_offset"].as_f64();
                let offset =
                    offset.ok_or_else(|| own.wrong(STATE, "has no `nested_offset`".into()));
                Some(offset? as f32)
            }
            _ => None,
        };
        let format = own.format();
        let n = own.shape.0 * own.shape.1;
        let blocks = n.div_ceil(format.block());
        own.check_bytes(CODES, n.div_ceil(2))?;
        own.check_bytes(MAP, 4 * 16)?;
        match own.offset {
            None => own.check_bytes(SCALES, 4 * blocks)?,
            Some(_) => {
                own.check_bytes(SCALES, blocks)?;
                own.check_bytes(NESTED, 4 * blocks.div_ceil(NESTED_BLOCK))?;
                own.check_bytes(NESTED_MAP, 4 * 256)?;
            }
        }
        Ok(own)
    }

    /// Its format.
    pub fn format(&self) -> Format {
        Format::Nf4 {
            double: self.offset.is_some(),
        }
    }

    /// The parameter's numbers as they are stored; `hasher` gets all bytes.
    pub fn read(&self, hasher: &mut Sha256) -> Result<Parts> {
        hasher.update(format!("{}{:?}nf4", self.name, self.shape));
        let mut take = |part: &str| -> Result<Vec<u8>> {
            let bytes = self.bytes(part)?;
            hasher.update(&bytes);
            Ok(bytes)
        };
        let (codes, scales, map) = (take(CODES)?, take(SCALES)?, take(MAP)?);
        let scales = match self.offset {
            None => Scales::Plain(floats(&scales)),
            Some(offset) => {
                let (nested, map) = (take(NESTED)?, take(NESTED_MAP)?);
                hasher.update(offset.to_le_bytes());
                Scales::Double {
                    codes: scales,
                    nested: floats(&nested),
                    map: floats(&map),
                    offset,
                }
            }
        };
        Ok(Parts::Nf4 {
            codes,
            map: floats(&map),
            scales,
        })
    }

    /// The numbers that it stands for, in the parameter's own order.
    pub fn values(&self) -> Result<Vec<f32>> {
        let parts = self.read(&mut Sha256::new())?;
        let matrix = Quantized::new(parts, self.shape, &Device::Cpu)?;
        download(&dequantize(&matrix, 0..self.shape.0, DType::F32)?)
    }

    /// An error in one of its tensors, which may be missing.
    pub fn wrong(&self, part: &str, what: String) -> Error {
        let dot = if part.is_empty() { "" } else { "." };
        let error = Error::input(format!("tensor {}{dot}{part} {what}", self.name));
        let file = self.tensors.get(part).or_else(|| self.tensors.get(CODES));
        match file {
            Some(stored) => error.at(stored.file.display()),
            None => error,
        }
    }

    fn check_state(&self, entry: &Entry, state: &Value) -> Result<()> {
        let other = |key: &str, valid: &str| {
            self.wrong(STATE, format!("has `{key}` = {}", state[key]))
                .hint(format!("expo reads bitsandbytes' NF4 with {valid}"))
        };
        if state["quant_type"] != "nf4" {
            return Err(other("quant_type", "quant_type \"nf4\""));
        }
        if state["blocksize"] != 64 {
            return Err(other("blocksize", "blocks of 64"));
        }
        let nested = &state["nested_blocksize"];
        if !nested.is_null() && *nested != NESTED_BLOCK {
            return Err(other("nested_blocksize", "nested blocks of 256"));
        }
        let shape = state["shape"].as_array().map(|shape| {
            let sides = shape.iter().map(|side| side.as_u64().unwrap_or(0) as usize);
            sides.collect::<Vec<_>>()
        });
        if shape.as_ref() != Some(&entry.shape) {
            return Err(self.wrong(
                STATE,
                format!(
                    "has `shape` = {}, config.json makes it {:?}",
                    state["shape"], entry.shape
                ),
            ));
        }
        Ok(())
    }

    fn check_bytes(&self, part: &str, expected: usize) -> Result<()> {
        let bytes = self.tensor(part)?.bytes;
        match bytes == expected {
            true => Ok(()),
            false => Err(self.wrong(part, format!("has {bytes} bytes instead of {expected}"))),
        }
    }

    fn tensor(&self, part: &str) -> Result<&Stored> {
        let missing = || {
            self.wrong(part, "is missing".into())
                .hint("the weights and config.json must be of one model")
        };
        self.tensors.get(part).ok_or_else(missing)
    }

    fn bytes(&self, part: &str) -> Result<Vec<u8>> {
        let Stored {
            file, start, bytes, ..
        } = self.tensor(part)?;
        let io = |error: std::io::Error| Error::io(file, &error);
        let mut reader = untrusted::open(file)?;
        reader.seek(SeekFrom::Start(*start)).map_err(io)?;
        let mut values = vec![0; *bytes];
        reader.read_exact(&mut values).map_err(io)?;
        Ok(values)
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let floats = bytes.as_chunks().0.iter();
    floats.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
