//! The head of a model that its `config.json` ties to the embedding.
//!
//! *Why*: some such models have a head of their own among their weights. Like transformers, expo
//! believes the weights: a copy of the embedding is tied, another head is not.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::files::{check, weight_files};
use super::pieces::PIECE;
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::io::untrusted;
use crate::model::arch::Architecture;
use crate::model::parameters::{Entry, Layout};
use crate::model::tensor_file::{decode, read_header, width};

/// The architecture, whose head is tied only if the weights in `folder` have none that differs from
/// the embedding.
///
/// # Errors
/// If a file cannot be read, or the head is of another shape than the embedding.
pub fn as_stored(folder: &Path, mut arch: Architecture) -> Result<Architecture> {
    if !arch.tied {
        return Ok(arch);
    }
    let layout = Layout::new(&arch);
    let embed = layout.id(&format!("{}.weight", arch.names.embed));
    let embed = &layout.entries[embed];
    let head = Entry {
        name: format!("{}.weight", arch.names.head),
        ..embed.clone()
    };
    let [stored_embed, stored_head] = find(folder, [embed, &head])?;
    if let (Some(a), Some(b)) = (stored_embed, stored_head) {
        arch.tied = equal(&a, &b, embed.range.len())?;
    }
    Ok(arch)
}

/// Where these parameters are among the weights, as far as they are there.
fn find(folder: &Path, entries: [&Entry; 2]) -> Result<[Option<Stored>; 2]> {
    let mut found = [None, None];
    // A file that is missing is somebody else's error.
    for file in weight_files(folder)?.0.iter().filter(|file| file.exists()) {
        let (metadata, data_start) = read_header(file)?;
        for (entry, found) in entries.iter().zip(&mut found) {
            if let Some(info) = metadata.info(&entry.name) {
                check(entry, info, file)?;
                *found = Some(Stored::new(file, data_start, info));
            }
        }
    }
    Ok(found)
}

/// Whether two tensors of so many elements have the same values, in whatever dtypes.
fn equal(a: &Stored, b: &Stored, elements: usize) -> Result<bool> {
    let open = |stored: &Stored| -> Result<_> {
        let io = |error: std::io::Error| Error::io(&stored.file, &error);
        let mut reader = BufReader::new(untrusted::open(&stored.file)?);
        reader.seek(SeekFrom::Start(stored.start)).map_err(io)?;
        Ok(reader)
    };
    let (mut readers, stored) = ([open(a)?, open(b)?], [a, b]);
    let (mut bytes, mut values) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut left = elements;
    while left > 0 {
        let n = left.min(PIECE / 4);
        for ((reader, stored), values) in readers.iter_mut().zip(stored).zip(&mut values) {
            bytes.resize(n * width(stored.dtype), 0);
            let io = |error: std::io::Error| Error::io(&stored.file, &error);
            reader.read_exact(&mut bytes).map_err(io)?;
            decode(stored.dtype, &bytes, values);
        }
        if values[0] != values[1] {
            return Ok(false);
        }
        left -= n;
    }
    Ok(true)
}
