//! Bounded reads of untrusted files.
//!
//! Hides how a file is opened and read whole under a size limit for its kind, how a file that is
//! not what its name says is recognized, the JSON parser that refuses duplicate keys, and the
//! conversion of library panics into errors.
//!
//! *Why*: a model directory or a dataset may be truncated, damaged or malicious. Whatever is in it, the
//! answer is one error that names the file: no panic, no endless wait on a pipe, no unbounded memory.
//! That holds because every file that this program did not write is read through here.

mod document;
mod json;

use std::any::Any;
use std::cell::Cell;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;

pub use document::Document;
pub use json::parse;

use crate::error::{Error, Result};

/// Longer lines are refused: a file without line ends must not fill the memory.
pub const LONGEST_LINE: usize = 64 << 20;

/// A kind of file that is read whole.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    name: &'static str,
    /// The bytes it may have.
    most: u64,
    /// Whether it may begin with `<`.
    markup: bool,
}

/// A config, a sweep, a grammar: TOML.
pub const TOML: Kind = Kind::new("a TOML file", 1 << 20);
/// `config.json` and its like.
pub const CONFIG: Kind = Kind::new("a JSON config", 16 << 20);
/// `tokenizer.json`, with the whole vocabulary.
pub const TOKENIZER: Kind = Kind::new("a tokenizer", 256 << 20);
/// `model.safetensors.index.json`, with a line for each tensor.
pub const INDEX: Kind = Kind::new("an index of weights", 64 << 20);
/// A chat template; those of real models have up to some 20 KiB.
pub const TEMPLATE: Kind = Kind {
    markup: true,
    ..Kind::new("a chat template", 1 << 20)
};
/// What a judge is asked.
pub const QUESTION: Kind = Kind {
    markup: true,
    ..Kind::new("a judge's template", 1 << 20)
};
/// Words with weights.
pub const LEXICON: Kind = Kind::new("a lexicon", 64 << 20);
/// A table of comma-separated values.
pub const CSV: Kind = Kind::new("a CSV file", 64 << 20);
/// A token, a commit: one line.
pub const WORD: Kind = Kind {
    markup: true,
    ..Kind::new("a line", 1 << 16)
};

impl Kind {
    const fn new(name: &'static str, most: u64) -> Self {
        Self {
            name,
            most,
            markup: false,
        }
    }

    /// A kind of text that may begin with `<`, of at most so many bytes.
    pub const fn text(name: &'static str, most: u64) -> Self {
        Self {
            name,
            most,
            markup: true,
        }
    }

    /// Refuses more bytes than this kind of file may have.
    pub fn check(&self, bytes: usize) -> Result<()> {
        if bytes as u64 <= self.most {
            return Ok(());
        }
        let most = match self.most >> 20 {
            0 => format!("{} KiB", self.most >> 10),
            mib => format!("{mib} MiB"),
        };
        Err(Error::input(format!("more than {most}")).hint(format!(
            "{} has at most that; is it the right file?",
            self.name
        )))
    }
}

/// Opens a file that must be a plain one: neither a directory nor a pipe, on which a read could block forever.
pub fn open(path: &Path) -> Result<File> {
    let io = |error: io::Error| Error::io(path, &error);
    let metadata = fs::metadata(path).map_err(io)?;
    if metadata.is_dir() {
        return Err(Error::io(path, &io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(Error::input("is a pipe, a socket or a device")
            .hint("write what it holds to a file first")
            .at(path.display()));
    }
    File::open(path).map_err(io)
}

/// All bytes of a file of this kind.
pub fn bytes(path: &Path, kind: Kind) -> Result<Vec<u8>> {
    let io = |error: io::Error| Error::io(path, &error);
    let fits = |bytes: u64| {
        let fits = kind.check(usize::try_from(bytes).unwrap_or(usize::MAX));
        fits.map_err(|error| error.at(path.display()))
    };
    let file = open(path)?;
    fits(file.metadata().map_err(io)?.len())?;
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(kind.most + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    fits(bytes.len() as u64)?;
    Ok(bytes)
}

/// The first bytes of a file, at most so many.
pub fn beginning(path: &Path, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(most as u64).read_to_end(&mut bytes);
    read.map_err(|error| Error::io(path, &error))?;
    Ok(bytes)
}

/// The text of a file of this kind, without a byte order mark.
pub fn text(path: &Path, kind: Kind) -> Result<String> {
    Document::read(path, kind).text()
}

/// The JSON of a file of this kind. A key that an object has twice is an error.
pub fn json(path: &Path, kind: Kind) -> Result<Value> {
    Document::read(path, kind).json()
}

/// As [`json`], of a file that holds an object.
pub fn json_object(path: &Path, kind: Kind) -> Result<Value> {
    Document::read(path, kind).json_object()
}

fn decode(mut bytes: Vec<u8>, kind: Kind) -> Result<String> {
    if let Some((what, hint)) = something_else(&bytes, kind.markup) {
        return Err(Error::input(what).hint(hint));
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::input("is not UTF-8 text")
            .hint(CONVERT)
            .at_line(line)
    })
}

/// What UTF-8 files of some editors begin with; it says nothing.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const CONVERT: &str = "convert it to UTF-8";

/// What a file is that cannot be UTF-8 text of its kind, and what to do about it; from its bytes or
/// its first line. With `markup` it may begin with `<`.
pub fn something_else(start: &[u8], markup: bool) -> Option<(&'static str, &'static str)> {
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        return Some(("the file is UTF-16, not UTF-8", CONVERT));
    }
    if start.contains(&0) {
        return Some(("the file has NUL bytes: UTF-16 or binary", CONVERT));
    }
    let angle = start.trim_ascii_start().starts_with(b"<");
    stand_in(start).or_else(|| (angle && !markup).then_some(WEB_PAGE))
}

const WEB_PAGE: (&str, &str) = (
    "the file is a web page, not the data itself",
    "fetch the raw file instead of the page about it",
);

/// What stands in the place of a file that was not fetched: a pointer of Git LFS, a web page.
pub fn stand_in(start: &[u8]) -> Option<(&'static str, &'static str)> {
    if start.starts_with(b"version https://git-lfs") {
        return Some((
            "the file is a pointer of Git LFS, not the data itself",
            "run `git lfs pull` where it comes from",
        ));
    }
    let start = start.trim_ascii_start();
    let page = ["<!doctype html", "<html"].into_iter().any(|tag| {
        let begin = start.get(..tag.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(tag.as_bytes()))
    });
    page.then_some(WEB_PAGE)
}

/// Whether a name is one path component that cannot lead out of its directory, hide in it or be taken
/// for an option.
pub fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=255).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && !name.contains("..")
        && name.chars().all(allowed)
}

/// A line of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// Longer than [`LONGEST_LINE`]; the reader stands somewhere in it.
    TooLong,
    /// There are no more.
    End,
}

/// The next line of a stream, in bounded memory.
pub fn line(reader: &mut (impl BufRead + ?Sized)) -> io::Result<Line> {
    let mut bytes = Vec::new();
    let limit = LONGEST_LINE as u64 + 1;
    let read = reader.take(limit).read_until(b'\n', &mut bytes)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(match (read, bytes.len() > LONGEST_LINE) {
        (0, _) => Line::End,
        (_, true) => Line::TooLong,
        (_, false) => Line::Whole(bytes),
    })
}

/// The error of a line that is [too long](Line::TooLong).
pub fn too_long() -> Error {
    Error::input("the line is longer than 64 MiB").hint("every row stands on a line of its own")
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside [`guarded`], so that a panic will become an error. For a program's
/// panic hook, which then has nothing to say.
pub fn is_guarded() -> bool {
    GUARDED.with(Cell::get)
}

/// What `work` returns; if it panics an error at `place` instead. For libraries that panic on what
/// they are given.
pub fn guarded<T>(place: impl Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = GUARDED.replace(true);
    // What a panic leaves half done is dropped with the closure.
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.unwrap_or_else(|panic| {
        Err(Error::input(format!(
            "its parts contradict each other: {}",
            said(&*panic)
        ))
        .hint("the file is damaged, or not what its name says")
        .at(place))
    })
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let line = text.and_then(|text| text.lines().next());
    line.unwrap_or("a library gave up on it").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_of(contents: &[u8], read: impl Fn(&Path) -> Result<()>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, contents).unwrap();
        let message = read(&path).unwrap_err().to_string();
        let place = path.display().to_string();
        let said = message.strip_prefix(&place).unwrap();
        said.trim_start_matches([':', ' ']).into()
    }

    fn text_of(contents: &[u8]) -> String {
        said_of(contents, |path| text(path, TOML).map(drop))
    }

    #[test]
    fn a_file_that_is_something_else_is_told_what_it_is() {
        for (contents, expected) in [
            (&b"\xff\xfea\0"[..], "the file is UTF-16"),
            (b"a\0b", "the file has NUL bytes"),
            (
                b"version https://git-lfs.github.com/spec/v1\n",
                "a pointer of Git LFS",
            ),
            (b" <!DOCTYPE html>", "a web page"),
            (b"<x>", "a web page"),
            (b"a\nb\xff", "2: is not UTF-8 text; convert it to UTF-8"),
        ] {
            let message = text_of(contents);
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(stand_in(b"<|im_start|>"), None);
        assert_eq!(stand_in(b"<HTML lang"), Some(WEB_PAGE));
    }

    #[test]
    fn a_byte_order_mark_says_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"\xef\xbb\xbf{\"a\": 1}").unwrap();
        let value = json(file.path(), CONFIG).unwrap();
        assert_eq!(value, serde_json::json!({"a": 1}));
    }

    #[test]
    fn a_file_over_its_limit_is_refused_without_being_read_to_its_end() {
        let message = said_of(b"", |path| {
            // Sparse: of a terabyte of zeros no byte is on the disk.
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(1 << 40).unwrap();
            text(path, TOML).map(drop)
        });
        assert_eq!(
            message,
            "more than 1 MiB; a TOML file has at most that; is it the right file?"
        );
    }

    #[test]
    fn json_says_line_and_column() {
        let message = |text: &str| said_of(text.as_bytes(), |path| json(path, CONFIG).map(drop));
        assert_eq!(
            message("{\n\"a\": [1,\n}"),
            "not JSON: expected value at line 3 column 1; fetch the file again"
        );
        assert_eq!(message(" \n"), "the file is empty; fetch the file again");
        assert!(message(&"[".repeat(200)).contains("recursion limit exceeded"));
        let object = said_of(b"[]", |path| json_object(path, CONFIG).map(drop));
        assert_eq!(object, "not a JSON object");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_waits_on_a_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        if !made.is_ok_and(|status| status.success()) {
            return;
        }
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let message = open(path).unwrap_err().to_string();
            assert!(
                message.contains("is a pipe, a socket or a device"),
                "{message}"
            );
        }
        let message = open(folder.path()).unwrap_err().to_string();
        assert!(message.ends_with("is a directory, not a file"), "{message}");
    }

    #[test]
    fn lines_are_bounded() {
        let mut reader = io::Cursor::new(b"a\n\nb".to_vec());
        let mut next = || line(&mut reader).unwrap();
        let whole = |text: &[u8]| Line::Whole(text.to_vec());
        assert_eq!(
            [next(), next(), next(), next()],
            [whole(b"a"), whole(b""), whole(b"b"), Line::End]
        );
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert_eq!(line(&mut endless).unwrap(), Line::TooLong);
    }

    #[test]
    fn a_panic_is_an_error_with_the_files_name() {
        let error = guarded("f.json", || -> Result<()> {
            assert!(is_guarded());
            panic!("slot {} is empty", 3)
        });
        let message = error.unwrap_err().to_string();
        assert!(
            message.starts_with("f.json: its parts contradict each other: slot 3 is empty; "),
            "{message}"
        );
        assert!(!is_guarded());
        assert_eq!(guarded("f.json", || Ok(3)), Ok(3));
    }
}
