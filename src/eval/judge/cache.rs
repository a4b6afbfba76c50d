//! The file of a judge's replies, which is the log of the run and its memory.
//!
//! Hides how a file that a killed process left is read and resumed.
//!
//! *Why*: a reply costs money or time, and it is asked for once. So it is on disk before the next one
//! is looked at, found again by a hash of everything that was asked, and never changed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::io::durable::open_plain;
use crate::io::lock::try_lock;
use crate::io::untrusted::{self, Line};

/// A line of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// A hash of the judge, where it is, and everything it was asked.
    pub key: String,
    /// What it was asked about: `item`, `null` or `identical`; `score`, where the reply is a model's score of
    /// one answer.
    pub kind: String,
    /// A hash of the prompt; not of a score.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// Where the model's response stood, `A` or `B`; not of a score.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model_is: String,
    /// The judge's name.
    pub judge: String,
    /// Its reply, to the letter.
    pub reply: String,
    /// Tokens of the question, where the judge says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Tokens of the reply, where the judge says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u64>,
}

/// Replies by their keys, and the file that they are appended to.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    // None where it is only looked at.
    file: Option<File>,
    // Of whole lines.
    bytes: u64,
    entries: HashMap<String, Entry>,
}

impl Cache {
    /// Opens the file, which need not be there yet, for this process alone. The line that was being
    /// written when a process was killed is cut off.
    ///
    /// # Errors
    /// If another process has it, or a line is none of a judge's replies.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |error: io::Error| Error::io(path, &error);
        let mut options = OpenOptions::new();
        let file = open_plain(path, options.read(true).append(true).create(true))?;
        if !try_lock(&file).map_err(io)? {
            return Err(Error::input("another process writes to it")
                .hint("wait for it, or name another file")
                .option("cache", "")
                .at(path.display()));
        }
        let (entries, bytes) = read(&file, path)?;
        file.set_len(bytes).map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            bytes,
            entries,
        })
    }

    /// What the file holds, which is not changed; nothing if it is not there.
    pub fn look(path: &Path) -> Result<Self> {
        let (entries, bytes) = match path.exists() {
            true => read(&untrusted::open(path)?, path)?,
            false => Default::default(),
        };
        Ok(Self {
            path: path.to_owned(),
            file: None,
            bytes,
            entries,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The reply to a question that was asked before.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Appends a reply.
    pub fn push(&mut self, entry: Entry) -> Result<()> {
        let text = serde_json::to_string(&entry).map_err(|e| Error::failed(e.to_string()))?;
        if let Some(file) = &mut self.file {
            // In one piece, so that a kill leaves whole lines and at most one that is torn.
            let line = format!("{text}\n");
            if let Err(error) = file.write_all(line.as_bytes()) {
                // What is there of it must not stand in front of the next one.
                let cut = file.set_len(self.bytes);
                return Err(Error::io(&self.path, &cut.err().unwrap_or(error)));
            }
            self.bytes += line.len() as u64;
        }
        self.entries.insert(entry.key.clone(), entry);
        Ok(())
    }

    /// Makes sure that everything is on the disk.
    pub fn sync(&self) -> Result<()> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_all);
        synced.map_err(|error| Error::io(&self.path, &error))
    }
}

/// The replies of a file, and the bytes of its whole lines.
fn read(file: &File, path: &Path) -> Result<(HashMap<String, Entry>, u64)> {
    let io = |error: io::Error| Error::io(path, &error);
    let length = file.metadata().map_err(io)?.len();
    let mut reader = BufReader::new(file);
    let (mut entries, mut bytes) = (HashMap::new(), 0);
    for number in 1.. {
        let line = match untrusted::line(&mut reader).map_err(io)? {
            Line::End => break,
            Line::TooLong => {
                return Err(untrusted::too_long().at(format!("{}:{number}", path.display())));
            }
            Line::Whole(line) => line,
        };
        let end = bytes + line.len() as u64 + 1;
        let torn = end > length;
        let lost = line.iter().all(|byte| *byte == 0);
        match serde_json::from_slice::<Entry>(&line) {
            Ok(entry) if !torn => {
                entries.insert(entry.key.clone(), entry);
            }
            // What a kill or a power cut leaves: the beginning of a line, or zeros.
            _ if torn && (lost || line.starts_with(&b"{\"key\":"[..line.len().min(7)])) => break,
            _ => {
                return Err(Error::input("is no reply of a judge")
                    .hint("name another file")
                    .option("cache", "")
                    .at(format!("{}:{number}", path.display())));
            }
        }
        bytes = end;
    }
    Ok((entries, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn entry(key: &str) -> Entry {
        Entry {
            key: key.into(),
            kind: "item".into(),
            prompt: "p".into(),
            model_is: "A".into(),
            judge: "length".into(),
            reply: "12 3\nA".into(),
            prompt_tokens: None,
            completion_tokens: Some(4),
        }
    }

    #[test]
    fn whatever_a_kill_leaves_of_the_last_line_the_others_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.jsonl");
        let mut cache = Cache::open(&path).unwrap();
        cache.push(entry("a")).unwrap();
        let first = fs::metadata(&path).unwrap().len() as usize;
        cache.push(entry("b")).unwrap();
        assert!(
            Cache::open(&path)
                .unwrap_err()
                .to_string()
                .contains("another process")
        );
        drop(cache);
        let bytes = fs::read(&path).unwrap();
        for end in first..bytes.len() {
            fs::write(&path, &bytes[..end]).unwrap();
            let mut cache = Cache::open(&path).unwrap();
            assert_eq!(cache.get("a"), Some(&entry("a")));
            assert_eq!(cache.get("b"), None);
            cache.push(entry("b")).unwrap();
            drop(cache);
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        fs::write(&path, [&bytes[..], &[0; 9]].concat()).unwrap();
        assert_eq!(Cache::look(&path).unwrap().get("b"), Some(&entry("b")));
    }

    #[test]
    fn another_file_is_not_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        for text in ["{\"prompt\": 1}\n", "{\"prompt\": 1}", "x", "\n"] {
            fs::write(&path, text).unwrap();
            let error = Cache::open(&path).unwrap_err().to_string();
            assert!(error.contains("rows.jsonl:1: is no reply"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
