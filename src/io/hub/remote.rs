//! What one revision of a repository holds, and how its files come into the cache.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use ureq::http::{HeaderMap, Method, header};

use super::cached::{cut_short, is_whole, link, put_in_place};
use super::client::{Asked, Client};
use super::failure::{Answer, Failure, persist};
use super::kind::Kind;
use super::partial::{Part, STAGING};
use super::settings::HubSettings;
use crate::error::{Error, Result};
use crate::io::http::read_bounded;
use crate::io::untrusted::is_plain;

/// The bytes that an answer about a repository may have, after decompression.
const LONGEST_ANSWER: u64 = 16 << 20;
/// The bytes that it has at most as a rule.
const USUAL_ANSWER: u64 = 256 << 10;

/// How far one download is.
#[derive(Debug, Clone, Copy)]
pub struct Download<'a> {
    /// The name of the file.
    pub file: &'a str,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Why the hub did not answer, and whether a copy in the cache may be used in its place.
pub(super) struct Refusal {
    pub error: Error,
    pub cache_may_serve: bool,
}

/// What one revision holds, at the commit it pointed to when it was opened.
pub(super) struct Remote<'a> {
    kind: Kind,
    name: &'a str,
    client: Client<'a>,
    directory: &'a Path,
    commit: String,
    /// The files, and their sizes where the hub says them.
    files: HashMap<String, Option<u64>>,
}

/// What the hub says about a revision.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
}

/// What the hub says about a file.
#[derive(Default)]
struct Metadata {
    commit: Option<String>,
    etag: Option<String>,
    size: Option<u64>,
}

impl<'a> Remote<'a> {
    /// Asks what `revision` is, up to `attempts` times.
    pub(super) fn open(
        kind: Kind,
        name: &'a str,
        revision: &str,
        directory: &'a Path,
        settings: &'a HubSettings,
        attempts: u32,
    ) -> std::result::Result<Self, Refusal> {
        let refuse = |error: Error, cache_may_serve| Refusal {
            error: error.at(name),
            cache_may_serve,
        };
        let client = Client::new(settings).map_err(|error| refuse(error, false))?;
        // Mirrors that know nothing of `blobs` leave out the sizes.
        let path = format!(
            "{}{name}/revision/{}?blobs=true",
            kind.api(),
            escaped(revision, "")
        );
        let info = persist(&settings.patience, attempts, || ask(&client, &path));
        let noun = kind.noun();
        let info = info.map_err(|failure| {
            let (error, cache_may_serve) = match failure {
                Failure::Status {
                    name: Some(name), ..
                } if name == "RevisionNotFound" => {
                    let what = format!("the {noun} has no revision `{revision}`");
                    (Error::input(what), false)
                }
                Failure::Status { code: 404, .. } => {
                    let hub = settings.hub();
                    let what = format!("{}{hub} has no {noun} of this name", kind.not_here());
                    (Error::input(what), false)
                }
                Failure::Status { code, .. } => {
                    (refused(code, &format!("the {noun}"), kind, settings), true)
                }
                Failure::Odd(why) => (odd_answer(settings, &format!("the {noun}"), &why), false),
                failure => {
                    let hub = settings.hub();
                    let what = format!("{}{hub} cannot be reached: ", kind.not_here());
                    (Error::failed(what + &said(failure)), true)
                }
            };
            refuse(error, cache_may_serve)
        })?;
        let files = info.siblings.into_iter();
        Ok(Self {
            kind,
            name,
            client,
            directory,
            commit: info.sha,
            files: files.map(|file| (file.rfilename, file.size)).collect(),
        })
    }

    pub(super) fn commit(&self) -> &str {
        &self.commit
    }

    pub(super) fn snapshot(&self) -> PathBuf {
        self.directory.join("snapshots").join(&self.commit)
    }

    /// The names of its files, relative, with `/`.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// Brings `file` into the snapshot, unless it is there as long as the hub has it.
    pub(super) fn fetch(&self, file: &str, progress: &mut dyn FnMut(Download<'_>)) -> Result<()> {
        let pointer = self.snapshot().join(file);
        let there = match (fs::metadata(&pointer), self.files.get(file)) {
            (Err(_), _) => false,
            (Ok(found), Some(Some(size))) => found.len() == *size,
            (Ok(_), _) => !cut_short(&pointer),
        };
        if there {
            return Ok(());
        }
        let patience = &self.client.settings.patience;
        persist(patience, patience.attempts, || {
            self.attempt(file, &pointer, progress)
        })
        .map_err(|failure| self.explain(failure, file))
    }

    /// Removes the directory of partial downloads if nothing is left in it.
    pub(super) fn tidy(&self) {
        let _ = fs::remove_dir(self.directory.join(STAGING));
    }

    fn attempt(
        &self,
        file: &str,
        pointer: &Path,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Answer<()> {
        let (etag, size) = self.metadata(file)?;
        let blobs = self.directory.join("blobs");
        let blob = blobs.join(&etag);
        let there = || fs::metadata(&blob).is_ok_and(|found| found.len() == size);
        if !there() {
            let patience = &self.client.settings.patience;
            let part = Part::take(&self.directory.join(STAGING), &etag, patience.other_process)?;
            // Another process may have brought it while this one waited.
            if !there() {
                let mut report = |done| {
                    progress(Download {
                        file,
                        done,
                        total: size,
                    })
                };
                part.download(&self.client, &self.path(file), size, &mut report)?;
                if !is_whole(part.path(), &etag, size).map_err(Failure::local(part.path()))? {
                    fs::remove_file(part.path()).map_err(Failure::local(part.path()))?;
                    let why = "the file arrived incomplete".into();
                    return Err(Failure::Broken { why, grown: false });
                }
                fs::create_dir_all(&blobs).map_err(Failure::local(&blobs))?;
                fs::rename(part.path(), &blob).map_err(Failure::local(&blob))?;
            }
        }
        let directory = pointer.parent().unwrap_or(pointer);
        fs::create_dir_all(directory).map_err(Failure::local(pointer))?;
        let depth = file.matches('/').count();
        put_in_place(pointer, |new| link(&blob, depth, new)).map_err(Failure::local(pointer))
    }

    /// Where a file is. Files are asked for by commit: a branch that moves meanwhile would mix two
    /// commits.
    fn path(&self, file: &str) -> String {
        format!(
            "{}{}/resolve/{}/{}",
            self.kind.files(),
            self.name,
            self.commit,
            escaped(file, "/")
        )
    }

    /// The etag and the size of a file. They are what the hub itself says, where it leads to another
    /// host; the token does not go there.
    fn metadata(&self, file: &str) -> Answer<(String, u64)> {
        let path = self.path(file);
        let look = |method, range, found: &mut Metadata| {
            let asked = Asked {
                method,
                path: &path,
                range,
                silence: self.client.settings.patience.answer,
                bytes: 0,
            };
            self.look(&asked, found)
        };
        let mut found = Metadata::default();
        // As Python asks. Some mirrors refuse it, or say too little.
        match look(Method::HEAD, None, &mut found) {
            Err(
                failure @ Failure::Status {
                    code: 401 | 404, ..
                },
            ) => return Err(failure),
            Err(failure @ (Failure::Late(_) | Failure::Odd(_))) => return Err(failure),
            Err(failure @ Failure::Status { .. }) if failure.may_pass() => return Err(failure),
            _ if found.is_enough() => {}
            _ => look(Method::GET, Some("bytes=0-0".to_owned()), &mut found)?,
        }
        let size = found.size.or(*self.files.get(file).unwrap_or(&None));
        let (Some(commit), Some(etag), Some(size)) = (found.commit, found.etag, size) else {
            return Err(Failure::odd("without commit, etag or size"));
        };
        let etag = etag.trim_start_matches("W/").replace('"', "");
        if commit != self.commit || !is_plain(&etag) {
            return Err(Failure::odd("another commit, or an etag that is none"));
        }
        Ok((etag, size))
    }

    fn look(&self, asked: &Asked, found: &mut Metadata) -> Answer<()> {
        let mut enough = |headers: &HeaderMap| {
            found.add(headers);
            found.is_enough()
        };
        let response = self.client.ask(asked, &mut enough)?;
        found.add(response.headers());
        if !response.status().is_redirection() {
            found.add_last(response.headers());
        }
        Ok(())
    }

    fn explain(&self, failure: Failure, file: &str) -> Error {
        let what = format!("`{file}`");
        let settings = self.client.settings;
        match failure {
            Failure::Status { code, .. } => refused(code, &what, self.kind, settings),
            Failure::Odd(why) => odd_answer(settings, &what, &why),
            Failure::Busy => Error::failed(format!("another process keeps downloading {what}")),
            Failure::Local(text) => Error::failed(text),
            failure => Error::failed(format!("{what} cannot be downloaded: {}", said(failure))),
        }
        .at(self.name)
    }
}

fn ask(client: &Client, path: &str) -> Answer<Info> {
    let asked = Asked {
        method: Method::GET,
        path,
        range: None,
        silence: client.settings.patience.answer,
        bytes: USUAL_ANSWER,
    };
    let response = client.ask(&asked, &mut |_| false)?;
    let body = read_bounded(client.body(response), LONGEST_ANSWER);
    let Some(bytes) = body.map_err(|error| client.failure_of_body(error))? else {
        return Err(Failure::odd(format!(
            "more than {} MiB",
            LONGEST_ANSWER >> 20
        )));
    };
    let info: Info = serde_json::from_slice(&bytes).map_err(|_| Failure::odd("no description"))?;
    match is_commit(&info.sha) {
        true => Ok(info),
        false => Err(Failure::odd("no commit")),
    }
}

impl Metadata {
    /// What the hub says about a file that another host has. The first word counts.
    fn add(&mut self, headers: &HeaderMap) {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        self.commit = self.commit.take().or_else(|| text("x-repo-commit"));
        self.etag = self.etag.take().or_else(|| text("x-linked-etag"));
        let size = || text("x-linked-size")?.parse().ok();
        self.size = self.size.or_else(size);
    }

    /// What a server says about a file.
    fn add_last(&mut self, headers: &HeaderMap) {
        let text = |name: header::HeaderName| Some(headers.get(name)?.to_str().ok()?.to_owned());
        self.etag = self.etag.take().or_else(|| text(header::ETAG));
        let size = || match text(header::CONTENT_RANGE) {
            Some(range) => range.rsplit('/').next()?.parse().ok(),
            // Compressed, it says nothing of the file.
            None if headers.contains_key(header::CONTENT_ENCODING) => None,
            None => text(header::CONTENT_LENGTH)?.parse().ok(),
        };
        self.size = self.size.or_else(size);
    }

    fn is_enough(&self) -> bool {
        self.commit.is_some() && self.etag.is_some() && self.size.is_some()
    }
}

/// A failure as a part of a sentence.
fn said(failure: Failure) -> String {
    match failure {
        Failure::Broken { why, .. } | Failure::Late(why) | Failure::Odd(why) => why,
        Failure::Local(why) => why,
        Failure::Status { code, .. } => format!("the answer is {code}"),
        Failure::Busy => "another process is at it".into(),
    }
}

/// A part of an address: everything except letters, digits and `-._~+` and `kept` is escaped.
fn escaped(text: &str, kept: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || "-._~+".contains(byte as char);
    let one = |byte: u8| match plain(byte) || kept.contains(byte as char) {
        true => (byte as char).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

fn refused(status: u16, what: &str, kind: Kind, settings: &HubSettings) -> Error {
    let (hub, noun) = (settings.hub(), kind.noun());
    match (status, &settings.token) {
        (401, None) => Error::input(format!("{hub} does not show {what} to everyone (401)"))
            .hint("check the name; if it is private or gated, set HF_TOKEN to a token of yours"),
        (401, Some(_)) => Error::input(format!("{hub} refuses {what} (401)"))
            .hint("check the name, and that the token in HF_TOKEN is valid and may read it"),
        (403, None) => Error::input(format!("{what} is gated (403)")).hint(format!(
            "accept its terms on the {noun}'s page, then set HF_TOKEN"
        )),
        (403, Some(_)) => Error::input(format!("{what} is gated (403)")).hint(format!(
            "accept its terms on the {noun}'s page as the user of HF_TOKEN"
        )),
        (404, _) => Error::failed(format!("{hub} lists {what} but does not have it")),
        _ => Error::failed(format!("{hub} answered {status} for {what}")),
    }
}

fn odd_answer(settings: &HubSettings, what: &str, why: &str) -> Error {
    let hub = settings.hub();
    Error::failed(format!(
        "{hub} gave an answer about {what} that a hub does not give ({why}); is HF_ENDPOINT right?"
    ))
}

/// Whether a revision is a commit, which cannot move.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}
