//! One revision of one repository on the hub, and the way its files take into the cache.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::api::{Progress, RepoInfo};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use super::settings::HubSettings;
use crate::error::{Error, Result};
use crate::io::untrusted::{self, is_plain};

/// Connections break and proxies cut files short; a file is asked for this often.
const ATTEMPTS: u32 = 3;
/// hf-hub gives up after 5 s when another process downloads the same file; an hour is more use.
const WAITS_OF_5_S: u32 = 720;

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
    name: &'a str,
    settings: &'a HubSettings,
    folder: &'a Path,
    api: Api,
    repo: ApiRepo,
    info: RepoInfo,
}

impl<'a> Remote<'a> {
    pub(super) fn open(
        name: &'a str,
        revision: &str,
        folder: &'a Path,
        settings: &'a HubSettings,
    ) -> std::result::Result<Self, Refusal> {
        let stop = |error: Error| Refusal {
            error: error.at(name),
            cache_may_serve: false,
        };
        let mut builder = ApiBuilder::from_cache(Cache::new(staging(folder)))
            .with_progress(false)
            .with_token(settings.token.clone());
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder
            .build()
            .map_err(|e| stop(Error::failed(secretless(e.to_string(), settings))))?;
        let at = |revision: &str| {
            Repo::with_revision(name.to_string(), RepoType::Model, revision.to_string())
        };
        let request = api.repo(at(revision)).info_request();
        let answer = request.config().http_status_as_error(false).build().call();
        let mut answer = answer.map_err(|e| Refusal {
            error: Error::failed(secretless(
                format!(
                    "no such folder, and {} cannot be reached: {e}",
                    settings.hub()
                ),
                settings,
            ))
            .at(name),
            cache_may_serve: true,
        })?;
        let status = answer.status().as_u16();
        if status != 200 {
            let reason = answer.headers().get("x-error-code");
            let no_revision = reason.is_some_and(|r| r.as_bytes() == b"RevisionNotFound");
            let error = if no_revision {
                Error::input(format!("the model has no revision `{revision}`"))
            } else if status == 404 {
                let hub = settings.hub();
                Error::input(format!(
                    "no such folder, and {hub} has no model of this name"
                ))
            } else {
                refused(status, "the model", settings)
            };
            return Err(Refusal {
                error: error.at(name),
                cache_may_serve: status != 404,
            });
        }
        let odd = || stop(Error::failed(odd_answer(settings, "about the model")));
        let text = answer.body_mut().read_to_string().map_err(|_| odd())?;
        let info: RepoInfo = serde_json::from_str(&text).map_err(|_| odd())?;
        if !is_commit(&info.sha) {
            return Err(odd());
        }
        // Files are asked for by commit: a branch that moves meanwhile would mix two models.
        let repo = api.repo(at(&info.sha));
        Ok(Self {
            name,
            settings,
            folder,
            api,
            repo,
            info,
        })
    }

    pub(super) fn commit(&self) -> &str {
        &self.info.sha
    }

    pub(super) fn snapshot(&self) -> PathBuf {
        self.folder.join("snapshots").join(self.commit())
    }

    /// The names of its files, relative, with `/`.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.info.siblings.iter().map(|s| s.rfilename.as_str())
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.files().any(|name| name == file)
    }

    /// Brings `file` into the snapshot, unless it is there.
    pub(super) fn fetch(&self, file: &str, progress: &mut dyn FnMut(Download<'_>)) -> Result<()> {
        let pointer = self.snapshot().join(file);
        let (mut attempt, mut waits) = (1, 0);
        loop {
            if pointer.exists() {
                return Ok(());
            }
            match self.attempt(file, &pointer, progress) {
                Err(Trouble::Busy) if waits < WAITS_OF_5_S => waits += 1,
                Err(Trouble::Passing(_)) if attempt < ATTEMPTS => {
                    std::thread::sleep(Duration::from_millis(200 << attempt));
                    attempt += 1;
                }
                done => return done.map_err(|trouble| self.explain(trouble, file)),
            }
        }
    }

    /// Removes the folder of partial downloads, unless another process is using it.
    pub(super) fn tidy(&self) {
        let blobs = self.staged().join("blobs");
        let partial = fs::read_dir(blobs).is_ok_and(|mut entries| {
            entries.any(|e| e.is_ok_and(|e| e.path().extension().is_some_and(|x| x == "part")))
        });
        if !partial {
            // A folder that stays costs a few empty files and nothing else.
            let _ = fs::remove_dir_all(staging(self.folder));
        }
    }

    fn attempt(
        &self,
        file: &str,
        pointer: &Path,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> std::result::Result<(), Trouble> {
        let local = |path: &Path| {
            let path = path.display().to_string();
            move |e: io::Error| Trouble::Local(format!("{path}: {e}"))
        };
        let meta = guarded(|| self.api.metadata(&self.repo.url(file)))?;
        let etag = meta.etag().trim_start_matches("W/").to_string();
        if meta.commit_hash() != self.commit() || !is_plain(&etag) {
            return Err(Trouble::Odd);
        }
        let size = meta.size() as u64;
        let blob = self.folder.join("blobs").join(&etag);
        if fs::metadata(&blob).map_or(true, |found| found.len() != size) {
            let staged = self.download(file, &etag, size, progress)?;
            if !is_whole(&staged, &etag, size).map_err(local(&staged))? {
                fs::remove_file(&staged).map_err(local(&staged))?;
                return Err(Trouble::Passing("the file arrived incomplete".into()));
            }
            let blobs = self.folder.join("blobs");
            fs::create_dir_all(&blobs).map_err(local(&blobs))?;
            fs::rename(&staged, &blob).map_err(local(&blob))?;
        }
        let directory = pointer.parent().unwrap_or(pointer);
        fs::create_dir_all(directory).map_err(local(pointer))?;
        let depth = file.matches('/').count();
        put_in_place(pointer, |new| link(&blob, depth, new)).map_err(local(pointer))
    }

    /// Downloads into the staging folder and says where the bytes are.
    fn download(
        &self,
        file: &str,
        etag: &str,
        size: u64,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> std::result::Result<PathBuf, Trouble> {
        // What a run that was killed left behind: hf-hub resumes a shorter part, and chokes on a
        // complete one and on a link without its blob.
        let part = self
            .staged()
            .join("blobs")
            .join(etag)
            .with_extension("part");
        if fs::metadata(&part).is_ok_and(|found| found.len() >= size) {
            let _ = fs::remove_file(&part);
        }
        let pointer = self
            .staged()
            .join("snapshots")
            .join(self.commit())
            .join(file);
        let _ = fs::remove_file(pointer);
        let report = Report {
            file,
            done: 0,
            total: size,
            progress,
        };
        let path = guarded(|| self.repo.download_with_progress(file, report))?;
        let blob = fs::canonicalize(&path).map_err(|_| Trouble::Odd)?;
        let _ = fs::remove_file(path);
        Ok(blob)
    }

    fn staged(&self) -> PathBuf {
        staging(self.folder).join(self.folder.file_name().unwrap_or_default())
    }

    fn explain(&self, trouble: Trouble, file: &str) -> Error {
        let what = format!("`{file}`");
        match trouble {
            Trouble::Status(status) => refused(status, &what, self.settings),
            Trouble::Odd => Error::failed(odd_answer(self.settings, &what)),
            Trouble::Busy => Error::failed(format!("another process keeps downloading {what}")),
            Trouble::Local(text) => Error::failed(text),
            Trouble::Passing(text) => Error::failed(secretless(
                format!("{what} cannot be downloaded: {text}"),
                self.settings,
            )),
        }
        .at(self.name)
    }
}

enum Trouble {
    Status(u16),
    Odd,
    Busy,
    Local(String),
    Passing(String),
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::LockAcquisition(_) => Self::Busy,
            ApiError::MissingHeader(_)
            | ApiError::InvalidHeader(_)
            | ApiError::ParseIntError(_) => Self::Odd,
            // Our own errors come with the path; one that hf-hub passes on is the connection's or
            // a full disk, which a second attempt does not harm.
            other => match status_of(&other) {
                Some(status) if status < 500 && status != 429 => Self::Status(status),
                _ => Self::Passing(other.to_string()),
            },
        }
    }
}

/// hf-hub panics on some answers no hub gives, such as a redirect to nowhere.
fn guarded<T>(
    call: impl FnOnce() -> std::result::Result<T, ApiError>,
) -> std::result::Result<T, Trouble> {
    match untrusted::guarded("the hub", || Ok(call())) {
        Ok(result) => result.map_err(Trouble::from),
        Err(_) => Err(Trouble::Odd),
    }
}

/// The HTTP status in an error of hf-hub, whose client is the one copy of ureq that is linked.
fn status_of(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    }
}

fn refused(status: u16, what: &str, settings: &HubSettings) -> Error {
    let hub = settings.hub();
    match (status, &settings.token) {
        (401, None) => Error::input(format!("{hub} does not show {what} to everyone (401)"))
            .hint("check the name; if it is private or gated, set HF_TOKEN to a token of yours"),
        (401, Some(_)) => Error::input(format!("{hub} refuses {what} (401)"))
            .hint("check the name, and that the token in HF_TOKEN is valid and may read it"),
        (403, None) => Error::input(format!("{what} is gated (403)"))
            .hint("accept its terms on the model's page, then set HF_TOKEN"),
        (403, Some(_)) => Error::input(format!("{what} is gated (403)"))
            .hint("accept its terms on the model's page as the user of HF_TOKEN"),
        (404, _) => Error::failed(format!("{hub} lists {what} but does not have it")),
        _ => Error::failed(format!("{hub} answered {status} for {what}")),
    }
}

fn odd_answer(settings: &HubSettings, what: &str) -> String {
    let hub = settings.hub();
    format!("{hub} gave an answer {what} that a hub does not give; is HF_ENDPOINT right?")
}

/// Errors of other crates may quote a request; a secret in them ends here.
fn secretless(mut text: String, settings: &HubSettings) -> String {
    let endpoint = settings.endpoint.as_deref().unwrap_or_default();
    let password = endpoint
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .map(|(user, _)| user);
    for secret in [settings.token.as_deref(), password].into_iter().flatten() {
        text = text.replace(secret, "(secret)");
    }
    text.replace(['\n', '\r'], " ")
}

/// Whether a revision is a commit, which cannot move.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

fn staging(folder: &Path) -> PathBuf {
    folder.join(".downloading")
}

/// Whether the file has its size and, where its etag is a SHA-256 (large files), that sum.
fn is_whole(path: &Path, etag: &str, size: u64) -> io::Result<bool> {
    let mut file = fs::File::open(path)?;
    if file.metadata()?.len() != size {
        return Ok(false);
    }
    if etag.len() != 64 || !etag.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(true);
    }
    let mut sum = Sha256::new();
    io::copy(&mut file, &mut sum)?;
    let hex: String = sum.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(hex.eq_ignore_ascii_case(etag))
}

/// Makes `path` in one step: `make` gets a name nobody else uses, which then becomes `path`.
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
fn link(blob: &Path, depth: usize, new: &Path) -> io::Result<()> {
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

struct Report<'a> {
    file: &'a str,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(Download<'_>),
}

impl Progress for Report<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(Download {
            file: self.file,
            done: self.done,
            total: self.total,
        });
    }

    fn finish(&mut self) {}
}
