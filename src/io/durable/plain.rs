//! Plain files: what may be opened to be written, or replaced.
//!
//! *Why*: a symbolic link in a directory that came from elsewhere may lead to any file of the user, and
//! a device or a pipe that is replaced by a file is gone.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Refuses a path where something else than a plain file is. A symbolic link is not followed, and refused
/// wherever it leads.
pub fn check_plain(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(refusal(path, &found)),
        Ok(_) => Ok(()),
        // Nothing is there, nor below a file.
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(()),
            _ => Err(Error::io(path, &error)),
        },
    }
}

/// Refuses a symbolic link in the place of a directory.
pub fn check_no_link(path: &Path) -> Result<()> {
    // With a separator behind it a link is followed.
    let path: PathBuf = path.components().collect();
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_symlink() => Err(refusal(&path, &found)),
        _ => Ok(()),
    }
}

/// Opens a plain file with these options, or makes it if they say so; a symbolic link is not followed.
pub fn open_plain(path: &Path, options: &mut OpenOptions) -> Result<File> {
    check_plain(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // What was a plain file a moment ago may be a link now.
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    }
    options.open(path).map_err(|error| Error::io(path, &error))
}

fn refusal(path: &Path, found: &Metadata) -> Error {
    let what = match fs::read_link(path) {
        Ok(target) => format!("is a symbolic link to {}", target.display()),
        Err(_) if found.is_dir() => "is a directory, not a file".to_owned(),
        Err(_) => format!("is {}, not a file", kind(found.file_type())),
    };
    Error::input(what)
        .hint("only a plain file is written or replaced: remove it, or choose another path")
        .at(path.display())
}

#[cfg(unix)]
fn kind(found: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match found {
        found if found.is_fifo() => "a pipe",
        found if found.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn kind(_: FileType) -> &'static str {
    "a device"
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::io::durable::write_file;

    #[test]
    fn a_link_is_neither_followed_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (precious, link) = (folder.path().join("precious"), folder.path().join("link"));
        fs::write(&precious, "kept").unwrap();
        symlink(&precious, &link).unwrap();
        let expected = format!(
            "{}: is a symbolic link to {}; ",
            link.display(),
            precious.display()
        );
        let opened = open_plain(&link, OpenOptions::new().write(true));
        for error in [opened.map(drop), write_file(&link, b"x")] {
            let message = error.unwrap_err().to_string();
            assert!(message.starts_with(&expected), "{message}");
        }
        // A link to nothing, too.
        fs::remove_file(&precious).unwrap();
        assert!(write_file(&link, b"x").is_err());
        assert_eq!(fs::read_link(&link).unwrap(), precious);
        assert!(!precious.exists());
    }

    #[test]
    fn a_directory_that_is_gone_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        assert!(write_file(&gone.join("margins.json"), b"{}").is_err());
        assert!(!gone.exists());
    }
}
