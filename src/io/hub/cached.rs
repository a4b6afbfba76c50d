//! Files of the cache: whole or not, and put in place in one step.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

/// The bytes that the header of a safetensors file may have.
const LONGEST_HEADER: u64 = 100 << 20;

/// Whether the file has its size and, where its etag is a SHA-256 (large files), that sum.
pub(super) fn is_whole(path: &Path, etag: &str, size: u64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() != size {
        return Ok(false);
    }
    if !is_sum(etag) {
        return Ok(true);
    }
    let mut sum = Sha256::new();
    io::copy(&mut file, &mut sum)?;
    let hex: String = sum.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(hex.eq_ignore_ascii_case(etag))
}

/// Whether an etag is a SHA-256, as that of every large file is.
pub(super) fn is_sum(etag: &str) -> bool {
    etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether a file ends before its time, as far as its kind shows it: safetensors are as long as their
/// header says, parquet ends as it begins, and an object of JSON with a brace. Nothing but the header is read.
pub(super) fn cut_short(path: &Path) -> bool {
    let kind = path.extension().and_then(|kind| kind.to_str());
    let looked = match kind {
        Some("safetensors") => weights_cut_short(path),
        Some("json") => json_cut_short(path),
        Some("parquet") => parquet_cut_short(path),
        _ => Ok(false),
    };
    // A file that cannot be read is an error where it is read.
    looked.unwrap_or(false)
}

fn weights_cut_short(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut start = [0; 8];
    if size < 8 {
        return Ok(true);
    }
    file.read_exact(&mut start)?;
    let length = u64::from_le_bytes(start);
    if length > LONGEST_HEADER {
        // No safetensors, and not for want of an end.
        return Ok(false);
    }
    if size - 8 < length {
        return Ok(true);
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)?;
    let Ok(metadata) = serde_json::from_slice::<Metadata>(&header) else {
        return Ok(false);
    };
    Ok(((size - 8 - length) as u128) < metadata.data_len() as u128)
}

/// It begins and ends alike.
fn parquet_cut_short(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let (mut start, mut end) = ([0; 4], [0; 4]);
    file.read_exact(&mut start)?;
    file.seek(SeekFrom::End(-4))?;
    file.read_exact(&mut end)?;
    Ok(start == *b"PAR1" && start != end)
}

fn json_cut_short(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(4096)))?;
    let mut end = Vec::new();
    file.take(4096).read_to_end(&mut end)?;
    Ok(end.trim_ascii_end().last() != Some(&b'}'))
}

/// Makes `path` in one step: `make` gets a unique name, which then becomes `path`.
pub(super) fn put_in_place(
    path: &Path,
    make: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let new = path.with_file_name(format!(".{name}.{}.{}", unique.0, unique.1));
    // A process of the same number may have died here before.
    let _ = fs::remove_file(&new);
    make(&new).and_then(|()| fs::rename(&new, path))
}

/// A link as Python writes it, from a file `depth` directories below its snapshot; a copy where there
/// are no links.
pub(super) fn link(blob: &Path, depth: usize, new: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let name = blob.file_name().unwrap_or_default();
        let target = Path::new(&"../".repeat(depth))
            .join("../../blobs")
            .join(name);
        if std::os::unix::fs::symlink(target, new).is_ok() {
            return Ok(());
        }
    }
    #[cfg(not(unix))]
    let _ = depth;
    fs::copy(blob, new).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_ends_before_its_time_is_known_by_its_kind() {
        let directory = tempfile::tempdir().unwrap();
        let short = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            fs::write(&path, bytes).unwrap();
            cut_short(&path)
        };
        let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let whole = [&(header.len() as u64).to_le_bytes(), &header[..], &[0; 8]].concat();
        for length in 0..whole.len() {
            assert!(short("model.safetensors", &whole[..length]), "{length}");
        }
        assert!(!short("model.safetensors", &whole));
        assert!(!short("model.safetensors", b"something else altogether"));
        for (text, cut) in [
            ("{}", false),
            (" {\"a\": 1}\n", false),
            ("", true),
            ("{\"a\"", true),
        ] {
            assert_eq!(short("config.json", text.as_bytes()), cut, "{text}");
        }
        assert!(!short("merges.txt", b""));
        assert!(!cut_short(&directory.path().join("none.json")));
    }
}
