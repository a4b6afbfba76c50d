//! A hub with one model, `org/name`, on a port of 127.0.0.1, and the ways it can misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Of what the hub makes of a dataset: the files whose names begin so.
pub const EXPORT_COMMIT: &str = "fedcba9876543210fedcba9876543210fedcba98";
pub const EXPORT: &str = "export:";
pub const OTHER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// What goes wrong with one file; `(model)` stands for the answer about the model itself.
#[derive(Clone)]
pub enum Fault {
    Status(u16),
    /// A status with headers, so many times.
    Times(usize, u16, &'static str),
    /// The connection ends after so many bytes of the body, each time.
    CutAt(usize),
    /// The same, the first time only.
    CutOnce(usize),
    Body(&'static str),
    Etag(&'static str),
    NoHeaders,
    RedirectToNowhere,
    /// As a hub sends a client to its storage, with the headers of a large file; the path follows.
    Storage(String),
    /// To another address, with a status and no other headers; the path follows.
    Moved(u16, String),
    /// To another address, and no more.
    Location(&'static str),
    /// The request is read, and nothing is answered.
    Silent,
    /// A byte now and then.
    Trickle,
    /// A byte now and then of what stands around a body.
    Chunks,
    /// A body without a length and without an end.
    Endless,
    /// Compressed, whatever was asked for.
    Gzip,
    /// These bytes, as if they were compressed.
    Compressed(Vec<u8>),
    /// Twice the bytes that HEAD promises.
    Twice,
    /// HEAD is answered so.
    NoHead(u16),
    /// HEAD is answered without a length, and ranges are not heeded.
    NoRange,
    /// A range that does not begin at 0 is answered so.
    NoResume(u16),
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    faults: BTreeMap<String, Fault>,
    requests: Vec<Request>,
    bytes_sent: usize,
    no_sizes: bool,
}

pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// Starts the server; its threads end with the test process.
    pub fn start(files: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            files: files
                .iter()
                .map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()))
                .collect(),
            ..State::default()
        }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // A client that hangs up is not the server's problem.
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { endpoint, state }
    }

    /// Its port.
    pub fn port(&self) -> &str {
        self.endpoint.rsplit(':').next().unwrap()
    }

    pub fn fault(&self, file: &str, fault: Fault) {
        self.locked().faults.insert(file.to_string(), fault);
    }

    /// As a mirror that says nothing of sizes.
    pub fn without_sizes(self) -> Self {
        self.locked().no_sizes = true;
        self
    }

    pub fn requests(&self) -> Vec<Request> {
        self.locked().requests.clone()
    }

    pub fn files_asked_for(&self) -> Vec<String> {
        let requests = self.requests().into_iter();
        let files = requests.filter(|r| r.path.contains("/resolve/"));
        files
            .map(|r| r.path.rsplit('/').next().unwrap().to_string())
            .collect()
    }

    /// Bytes of file bodies.
    pub fn bytes_sent(&self) -> usize {
        self.locked().bytes_sent
    }

    pub fn forget(&self) {
        let mut state = self.locked();
        state.requests.clear();
        state.bytes_sent = 0;
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    sum.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What is sent, and how it goes on.
struct Reply {
    bytes: Vec<u8>,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    End,
    Wait,
    Trickle,
    Pour,
}

impl From<Vec<u8>> for Reply {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            then: Then::End,
        }
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_string()),
            None => break,
        };
    }
    let request = Request {
        method,
        path,
        range: headers.get("range").cloned(),
        token: headers
            .get("authorization")
            .map(|t| t.strip_prefix("Bearer ").unwrap_or(t).to_string()),
    };
    let mut reply = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(request.clone());
        reply_to(&mut state, &request)
    };
    if request.method == "HEAD" && matches!(reply.then, Then::End) {
        let end = reply.bytes.windows(4).position(|four| four == b"\r\n\r\n");
        reply
            .bytes
            .truncate(end.map_or(reply.bytes.len(), |end| end + 4));
    }
    stream.write_all(&reply.bytes)?;
    loop {
        match reply.then {
            Then::End => return Ok(()),
            Then::Wait => {
                std::thread::sleep(Duration::from_secs(3));
                return Ok(());
            }
            Then::Trickle => {
                std::thread::sleep(Duration::from_millis(20));
                stream.write_all(b"{")?;
            }
            Then::Pour => stream.write_all(&[b'x'; 4096])?,
        }
    }
}

fn reply_to(state: &mut State, request: &Request) -> Reply {
    let path = request.path.replacen("/moved/", "/org/", 1);
    // Datasets are elsewhere, and otherwise as models are.
    let path = path.replacen("/api/datasets/", "/api/models/", 1);
    let path = path.replacen("/datasets/org/", "/org/", 1);
    let description = path.strip_prefix("/api/models/org/name/revision/");
    if let Some(revision) = description {
        let revision = revision.trim_end_matches("?blobs=true");
        return describe(state, request, revision);
    }
    let path = path.split('?').next().unwrap();
    if let Some(place) = path.strip_prefix("/org/name/resolve/") {
        let (commit, file) = place.split_once('/').unwrap_or_default();
        return send(state, request, commit, file);
    }
    if let Some(file) = path.strip_prefix("/storage/org/name/resolve/") {
        let file = file.split_once('/').unwrap_or_default().1;
        // As storage whose addresses are signed: for GET alone, and for nobody who has a token.
        if request.token.is_some() || request.method == "HEAD" {
            return reply(400, "", b"Only one auth mechanism allowed").into();
        }
        let content = state.files.get(file).cloned().unwrap_or_default();
        return part(state, "ETag: \"of-the-storage\"\r\n", &content, request).into();
    }
    let headers = "X-Error-Code: RepoNotFound\r\n";
    reply(404, headers, b"Repository not found").into()
}

/// The answer of a fault that is the same for a file and for the model.
fn of_fault(state: &mut State, request: &Request, name: &str) -> Option<Reply> {
    let then = |bytes: Vec<u8>, then| Some(Reply { bytes, then });
    let open = b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n".to_vec();
    match state.faults.get(name).cloned()? {
        Fault::Status(status) => Some(reply(status, "", b"no").into()),
        Fault::Times(0, ..) => None,
        Fault::Times(times, status, headers) => {
            let fault = Fault::Times(times - 1, status, headers);
            state.faults.insert(name.to_string(), fault);
            Some(reply(status, headers, b"later").into())
        }
        Fault::Moved(status, to) if !request.path.contains("/moved/") => {
            let path = request.path.replacen("/org/", "/moved/", 1);
            let headers = format!("Location: {to}{path}\r\n");
            Some(reply(status, &headers, b"").into())
        }
        Fault::Location(to) => {
            let headers = format!("Location: {to}\r\n");
            Some(reply(302, &headers, b"").into())
        }
        Fault::Silent => then(Vec::new(), Then::Wait),
        Fault::Trickle if request.method == "GET" => then(open, Then::Trickle),
        Fault::Chunks if request.method == "GET" => {
            let head = "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n";
            then(format!("{head}1;").into_bytes(), Then::Trickle)
        }
        Fault::Endless if request.method == "GET" => then(open, Then::Pour),
        Fault::Compressed(bytes) if request.method == "GET" => {
            Some(reply(200, "Content-Encoding: gzip\r\n", &bytes).into())
        }
        _ => None,
    }
}

fn describe(state: &mut State, request: &Request, revision: &str) -> Reply {
    if let Some(reply) = of_fault(state, request, "(model)") {
        return reply;
    }
    if let Some(Fault::Body(text)) = state.faults.get("(model)") {
        return reply(200, "", text.as_bytes()).into();
    }
    let sha = match revision {
        "main" | COMMIT => COMMIT,
        "refs%2Fpr%2F1" | "v2" | OTHER_COMMIT => OTHER_COMMIT,
        "refs%2Fconvert%2Fparquet" | EXPORT_COMMIT if has_export(state) => EXPORT_COMMIT,
        _ => {
            let headers = "X-Error-Code: RevisionNotFound\r\n";
            return reply(404, headers, b"Invalid rev id").into();
        }
    };
    let of_commit = |(name, content): (&String, &Vec<u8>)| {
        let exported = name.strip_prefix(EXPORT);
        let name = if sha == EXPORT_COMMIT {
            exported?
        } else {
            name
        };
        Some((name.to_owned(), content.clone()))
    };
    let siblings: Vec<_> = state
        .files
        .iter()
        .filter_map(of_commit)
        .map(|(name, content)| match state.no_sizes {
            true => format!(r#"{{"rfilename": "{name}"}}"#),
            false => format!(r#"{{"rfilename": "{name}", "size": {}}}"#, content.len()),
        })
        .collect();
    let json = format!(
        r#"{{"id": "org/name", "sha": "{sha}", "siblings": [{}]}}"#,
        siblings.join(",")
    );
    let headers = "Content-Type: application/json\r\n";
    match state.faults.get("(model)") {
        Some(Fault::Gzip) => {
            let headers = format!("{headers}Content-Encoding: gzip\r\n");
            reply(200, &headers, &gzip(json.as_bytes())).into()
        }
        _ => reply(200, headers, json.as_bytes()).into(),
    }
}

fn has_export(state: &State) -> bool {
    state.files.keys().any(|name| name.starts_with(EXPORT))
}

fn send(state: &mut State, request: &Request, commit: &str, file: &str) -> Reply {
    let exported = format!("{EXPORT}{file}");
    let file = if commit == EXPORT_COMMIT {
        &exported
    } else {
        file
    };
    let Some(content) = state.files.get(file).cloned() else {
        let headers = "X-Error-Code: EntryNotFound\r\n";
        return reply(404, headers, b"Entry not found").into();
    };
    if let Some(reply) = of_fault(state, request, file) {
        return reply;
    }
    let fault = state.faults.get(file).cloned();
    // As on the hub, only large files have their SHA-256 for an etag.
    let mut etag = match file.ends_with(".safetensors") {
        true => sha256(&content),
        false => sha256(&content)[..40].to_string(),
    };
    let mut served = content.clone();
    let head = request.method == "HEAD";
    let resumed = |range: &String| !range.starts_with("bytes=0-");
    match &fault {
        Some(Fault::NoHeaders) => return reply(200, "", &content).into(),
        Some(Fault::RedirectToNowhere) => {
            let headers = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\n");
            return reply(302, &headers, b"").into();
        }
        Some(Fault::Storage(to)) => {
            let headers = format!(
                "X-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}\r\n\
                 Location: {to}/storage{}\r\n",
                content.len(),
                request.path
            );
            return reply(302, &headers, b"to the storage").into();
        }
        Some(Fault::NoHead(status)) if head => return reply(*status, "", b"no").into(),
        Some(Fault::NoResume(status)) if request.range.as_ref().is_some_and(resumed) => {
            let headers = match status {
                206 => "Content-Range: bytes 0-0/1\r\n",
                _ => "",
            };
            return reply(*status, headers, &content).into();
        }
        Some(Fault::Etag(odd)) => etag = odd.to_string(),
        Some(Fault::Body(text)) => served = text.as_bytes().to_vec(),
        _ => {}
    }
    let headers = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\n");
    match &fault {
        Some(Fault::Gzip) => {
            let headers = format!("{headers}Content-Encoding: gzip\r\n");
            return reply(200, &headers, &gzip(&content)).into();
        }
        Some(Fault::NoRange) if head => {
            return format!("HTTP/1.1 200 X\r\n{headers}Connection: close\r\n\r\n")
                .into_bytes()
                .into();
        }
        Some(Fault::Twice) if !head => return reply(200, &headers, &content.repeat(2)).into(),
        Some(Fault::NoRange) => return reply(200, &headers, &content).into(),
        _ => {}
    }
    let mut whole = part(state, &headers, &served, request);
    if let Some(Fault::CutAt(n) | Fault::CutOnce(n)) = fault
        && !head
    {
        let from = request.range.as_deref().map_or(0, start_of);
        let sent = served.len().saturating_sub(from);
        whole.truncate(whole.len() - sent + n.saturating_sub(from).min(sent));
        if matches!(fault, Some(Fault::CutOnce(_))) {
            state.faults.remove(file);
        }
    }
    whole.into()
}

fn start_of(range: &str) -> usize {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    range.split('-').next().unwrap().parse().unwrap()
}

/// The bytes that were asked for.
fn part(state: &mut State, headers: &str, content: &[u8], request: &Request) -> Vec<u8> {
    let Some(range) = &request.range else {
        if request.method != "HEAD" {
            state.bytes_sent += content.len();
        }
        return reply(200, headers, content);
    };
    let (from, to) = (start_of(range), range.rsplit('-').next().unwrap());
    let end = to.parse().map_or(content.len(), |to: usize| to + 1);
    if from >= content.len() {
        return reply(416, "", b"");
    }
    let body = &content[from..end.min(content.len())];
    state.bytes_sent += body.len();
    let headers = format!(
        "{headers}Content-Range: bytes {from}-{}/{}\r\n",
        from + body.len() - 1,
        content.len()
    );
    reply(206, &headers, body)
}

fn reply(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    out
}
