//! Headers of safetensors files, read before any tensor, and values in the dtypes that files have.
//!
//! *Why*: a header is believed only as far as it agrees with the file, the index and `config.json`. So
//! it is all compared here and in [`super::weights`], before memory is taken for any of it.

use std::io::{BufReader, Read};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::error::{Error, Result};
use crate::io::untrusted;

/// The bytes a header may have, as the format has it.
const LONGEST_HEADER: u64 = 100 << 20;

/// The header of a safetensors file and where its data starts. The tensors lie one after the other
/// from there to the end of the file.
pub fn read_header(path: &Path) -> Result<(Metadata, u64)> {
    let io = |error: std::io::Error| Error::io(path, &error);
    let wrong = |what: String| {
        Error::input(what)
            .at(path.display())
            .hint("the safetensors file is incomplete: download it again")
    };
    let mut reader = BufReader::new(untrusted::open(path)?);
    let size = reader.get_ref().metadata().map_err(io)?.len();
    let mut start = Vec::new();
    reader
        .by_ref()
        .take(8)
        .read_to_end(&mut start)
        .map_err(io)?;
    let Ok(length) = <[u8; 8]>::try_from(start.as_slice()).map(u64::from_le_bytes) else {
        return Err(wrong(format!("{size} bytes are too few")));
    };
    if length > size.saturating_sub(8) || length > LONGEST_HEADER {
        reader.take(64).read_to_end(&mut start).map_err(io)?;
        return Err(match untrusted::stand_in(&start) {
            Some((what, hint)) => Error::input(what).hint(hint).at(path.display()),
            None => wrong(format!("a header of {length} bytes in a file of {size}")),
        });
    }
    let mut header = vec![0; length as usize];
    reader.read_exact(&mut header).map_err(io)?;
    let bad = |why: String| wrong(format!("bad header: {why}"));
    let text = str::from_utf8(&header).map_err(|_| bad("not UTF-8".to_owned()))?;
    let value = untrusted::parse(text).map_err(|error| bad(error.to_string()))?;
    // It checks that the tensors leave no hole, do not overlap and are as long as their shapes.
    let metadata: Metadata =
        serde_json::from_value(value).map_err(|error| bad(error.to_string()))?;
    let expected = u64::try_from(metadata.data_len()).ok();
    match expected.and_then(|data| data.checked_add(8 + length)) {
        Some(expected) if expected == size => Ok((metadata, 8 + length)),
        Some(expected) => Err(wrong(format!(
            "{size} bytes where the header promises {expected}"
        ))),
        None => Err(bad("it promises more bytes than there can be".to_owned())),
    }
}

/// The bytes of an element.
pub(crate) fn width(dtype: Dtype) -> usize {
    if dtype == Dtype::F32 { 4 } else { 2 }
}

/// The values of so many bytes of F32, F16 or BF16, in f32.
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
