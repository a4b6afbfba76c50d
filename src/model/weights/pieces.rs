//! Tensors of safetensors files piece by piece: read, hashed and given away at the same time.
//!
//! Hides the threads. While the caller takes one batch of pieces, another thread hashes that batch, and a third
//! one reads the next from disk.
//!
//! *Why*: SHA-256 goes over bytes one after the other and is the slowest of the three. Loading then takes
//! as long as the hash alone.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::mem;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::stored::Stored;
use crate::error::{Error, Result};
use crate::io::untrusted;
use crate::model::parameters::Entry;
use crate::model::tensor_file::{decode, width};

/// Bytes decoded at a time: with their values they stay in a core's own cache.
pub(super) const PIECE: usize = 128 << 10;
/// Bytes read at a time, at least, where there are as many.
const BATCH: usize = 4 << 20;

/// A part of a tensor, at most [`PIECE`] bytes.
struct Piece<'a> {
    entry: &'a Entry,
    stored: &'a Stored,
    /// Its first byte in the tensor.
    start: usize,
    len: usize,
}

/// What takes values: of this tensor, from this element on.
type Sink<'a> = dyn FnMut(&Entry, usize, &[f32]) -> Result<()> + 'a;

/// Gives the values of tensors to `sink`, in order, each piece with its tensor and its first element there, as
/// the file has them. The hasher, where there is one, gets each tensor's name, shape and dtype, then its bytes.
///
/// # Errors
/// If a file cannot be read, or a value is not finite.
pub(super) fn read<'a>(
    tensors: impl Iterator<Item = (&'a Entry, &'a Stored)>,
    mut hasher: Option<&mut Sha256>,
    sink: &mut Sink,
) -> Result<()> {
    let batches = batches(tensors);
    let mut batches = batches.iter();
    let mut reader = Reader::default();
    let (mut bytes, mut next) = (Vec::new(), Vec::new());
    let mut batch = batches.next();
    if let Some(batch) = batch {
        reader.read(batch, &mut bytes)?;
    }
    let mut values = Vec::with_capacity(PIECE / 2);
    while let Some(pieces) = batch {
        batch = batches.next();
        let (mut was_read, mut taken) = (Ok(()), Ok(()));
        // On this thread, which may be the only one that has the device.
        rayon::in_place_scope(|scope| {
            if let Some(batch) = batch {
                scope.spawn(|_| was_read = reader.read(batch, &mut next));
            }
            if let Some(hasher) = &mut hasher {
                scope.spawn(|_| hash(pieces, &bytes, hasher));
            }
            taken = take(pieces, &bytes, &mut values, sink);
        });
        taken.and(was_read)?;
        mem::swap(&mut bytes, &mut next);
    }
    Ok(())
}

/// The pieces of all tensors, in order, by batches.
fn batches<'a>(tensors: impl Iterator<Item = (&'a Entry, &'a Stored)>) -> Vec<Vec<Piece<'a>>> {
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for (entry, stored) in tensors {
        let all = entry.elements() * width(stored.dtype);
        // One without elements is hashed, too.
        for start in (0..all.max(1)).step_by(PIECE) {
            if bytes >= BATCH {
                batches.push(Vec::new());
                bytes = 0;
            }
            let len = PIECE.min(all - start);
            bytes += len;
            batches.last_mut().expect("there is a batch").push(Piece {
                entry,
                stored,
                start,
                len,
            });
        }
    }
    batches
}

/// Reads from the file that was read last without opening it again.
#[derive(Default)]
struct Reader<'a> {
    open: Option<(&'a Path, File)>,
}

impl<'a> Reader<'a> {
    /// Replaces `bytes` by those of a batch.
    fn read(&mut self, batch: &[Piece<'a>], bytes: &mut Vec<u8>) -> Result<()> {
        bytes.resize(batch.iter().map(|piece| piece.len).sum(), 0);
        let mut rest = bytes.as_mut_slice();
        // Pieces of one tensor follow each other in its file.
        for tensor in batch.chunk_by(|one, next| std::ptr::eq(one.stored, next.stored)) {
            let len = tensor.iter().map(|piece| piece.len).sum();
            let (part, others) = rest.split_at_mut(len);
            rest = others;
            let Stored { file, start, .. } = tensor[0].stored;
            let io = |error: std::io::Error| Error::io(file, &error);
            let file = self.file(file)?;
            let start = start + tensor[0].start as u64;
            file.seek(SeekFrom::Start(start)).map_err(io)?;
            file.read_exact(part).map_err(io)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &'a Path) -> Result<&mut File> {
        let open = match self.open.take() {
            Some((known, file)) if known == path => file,
            _ => untrusted::open(path)?,
        };
        Ok(&mut self.open.insert((path, open)).1)
    }
}

fn hash(batch: &[Piece], bytes: &[u8], hasher: &mut Sha256) {
    let mut rest = bytes;
    for Piece {
        entry,
        stored,
        start,
        len,
    } in batch
    {
        if *start == 0 {
            let Stored { dtype, .. } = stored;
            hasher.update(format!("{}{:?}{dtype:?}", entry.name, entry.stored_shape()));
        }
        let (part, others) = rest.split_at(*len);
        hasher.update(part);
        rest = others;
    }
}

fn take(batch: &[Piece], bytes: &[u8], values: &mut Vec<f32>, sink: &mut Sink) -> Result<()> {
    let mut rest = bytes;
    for Piece {
        entry,
        stored,
        start,
        len,
    } in batch
    {
        let (part, others) = rest.split_at(*len);
        rest = others;
        decode(stored.dtype, part, values);
        if !all_finite(values) {
            return Err(
                Error::input(format!("tensor {} holds NaN or infinity", entry.name))
                    .at(stored.file.display())
                    .hint("train from a checkpoint with finite weights"),
            );
        }
        sink(entry, start / width(stored.dtype), values)?;
    }
    Ok(())
}

/// Whether no value is NaN or infinite. Without an early end it is a loop of vector instructions.
fn all_finite(values: &[f32]) -> bool {
    let magnitude = |x: &f32| x.to_bits() & 0x7fff_ffff;
    let largest = values.iter().map(magnitude).fold(0, u32::max);
    largest < f32::INFINITY.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parameters::{Init, Storage};
    use safetensors::Dtype;

    #[test]
    fn nan_and_infinity_are_not_finite() {
        assert!(all_finite(&[]) && all_finite(&[0.0, -0.0, f32::MIN, f32::MAX, f32::MIN_POSITIVE]));
        for wrong in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!all_finite(&[1.0, wrong, 2.0]));
        }
    }

    #[test]
    fn every_element_comes_once_in_order_and_is_hashed() {
        let directory = tempfile::tempdir().unwrap();
        // One goes over several batches, others share one, and two files are read in turn.
        let elements = [3, BATCH / 2 + PIECE, 1, 0, 5, PIECE / 2];
        let mut tensors = Vec::new();
        let mut expected = Sha256::new();
        for (at, &elements) in elements.iter().enumerate() {
            let name = format!("tensor{at}");
            let file = directory.path().join(format!("{}", at % 2));
            let value = |i: usize| half::bf16::from_bits((i * 7 + at) as u16 % 0x7f80);
            let bytes: Vec<u8> = (0..elements).flat_map(|i| value(i).to_le_bytes()).collect();
            let mut whole = std::fs::read(&file).unwrap_or_default();
            let start = whole.len() as u64;
            whole.extend(&bytes);
            std::fs::write(&file, whole).unwrap();
            expected.update(format!("{name}[{elements}]BF16"));
            expected.update(&bytes);
            let stored = Stored {
                file,
                start,
                bytes: bytes.len(),
                dtype: Dtype::BF16,
            };
            let values: Vec<f32> = (0..elements).map(|i| value(i).to_f32()).collect();
            tensors.push((entry(name, elements), stored, values));
        }
        let mut hasher = Sha256::new();
        let mut found: Vec<Vec<f32>> = vec![Vec::new(); tensors.len()];
        let all = tensors.iter().map(|(entry, stored, _)| (entry, stored));
        read(all, Some(&mut hasher), &mut |entry, start, values| {
            let found = &mut found[entry.name["tensor".len()..].parse::<usize>().unwrap()];
            assert_eq!(found.len(), start);
            found.extend(values);
            Ok(())
        })
        .unwrap();
        for ((.., values), found) in tensors.iter().zip(&found) {
            assert!(values == found);
        }
        assert_eq!(hasher.finalize(), expected.finalize());
    }

    fn entry(name: String, elements: usize) -> Entry {
        Entry {
            name,
            shape: vec![elements],
            transposed: false,
            range: 0..elements,
            storage: Storage::Flat,
            decay: false,
            trainable: true,
            init: Init::Zero,
        }
    }
}
