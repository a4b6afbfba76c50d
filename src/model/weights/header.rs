//! What a folder of weights says of itself before a tensor is read: the headers of safetensors files,
//! and the index of those that lie in several.
//!
//! *Why*: a header is believed only as far as it agrees with the file, the index and `config.json`. So
//! it is all compared here and in [`super`], before memory is taken for any of it.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

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
            .hint("not a whole safetensors file: download it again")
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

/// The file of each tensor, by its name, as `model.safetensors.index.json` has it.
pub fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let index = untrusted::json_object(path, untrusted::INDEX)?;
    let map = index["weight_map"]
        .as_object()
        .ok_or_else(|| Error::input("no `weight_map` in it").at(path.display()))?;
    if map.is_empty() {
        return Err(Error::input("its `weight_map` is empty").at(path.display()));
    }
    let file = |(tensor, file): (&String, &serde_json::Value)| match file.as_str() {
        Some(name) if is_plain(name) && name.ends_with(".safetensors") => {
            Ok((tensor.clone(), name.to_owned()))
        }
        _ => Err(Error::input(format!("weight_map names {file}"))
            .hint("each value is the plain name of a .safetensors file in the same folder")
            .at(path.display())),
    };
    map.iter().map(file).collect()
}

/// One path component that cannot lead out of its folder, hide in it or be an option.
pub fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=255).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && !name.contains("..")
        && name.chars().all(allowed)
}
