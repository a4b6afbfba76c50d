//! A hub with one model, `org/name`, on a port of 127.0.0.1, and the ways it can misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const OTHER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// What goes wrong with one file; `(model)` stands for the answer about the model itself.
#[derive(Clone, Copy)]
pub enum Fault {
    Status(u16),
    /// The connection ends after so many bytes of the body, each time.
    CutAt(usize),
    /// The same, the first time only.
    CutOnce(usize),
    Body(&'static str),
    Etag(&'static str),
    NoHeaders,
    RedirectToNowhere,
}

#[derive(Clone, Debug)]
pub struct Request {
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
}

pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// Starts the server; its thread ends with the test process.
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
                // A client that hangs up is not the server's problem.
                let _ = answer(stream, &shared);
            }
        });
        Self { endpoint, state }
    }

    pub fn fault(&self, file: &str, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.faults.insert(file.to_string(), fault);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
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
        self.state.lock().unwrap().bytes_sent
    }

    pub fn forget(&self) {
        let mut state = self.state.lock().unwrap();
        state.requests.clear();
        state.bytes_sent = 0;
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    sum.iter().map(|b| format!("{b:02x}")).collect()
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_string();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_string()),
            None => break,
        };
    }
    let mut state = state.lock().unwrap();
    let token = headers.get("authorization");
    state.requests.push(Request {
        path: path.clone(),
        range: headers.get("range").cloned(),
        token: token.and_then(|t| t.strip_prefix("Bearer ").map(str::to_string)),
    });
    let reply = if let Some(revision) = path.strip_prefix("/api/models/org/name/revision/") {
        describe(&state, revision)
    } else if let Some(place) = path.strip_prefix("/org/name/resolve/") {
        let (commit, file) = place.split_once('/').unwrap_or_default();
        send(&mut state, commit, file, headers.get("range"))
    } else {
        reply(
            404,
            "X-Error-Code: RepoNotFound\r\n",
            b"Repository not found",
        )
    };
    stream.write_all(&reply)
}

fn describe(state: &State, revision: &str) -> Vec<u8> {
    match state.faults.get("(model)") {
        Some(Fault::Status(status)) => return reply(*status, "", b"no"),
        Some(Fault::Body(text)) => return reply(200, "", text.as_bytes()),
        _ => {}
    }
    let sha = match revision {
        "main" | COMMIT => COMMIT,
        "refs%2Fpr%2F1" | "v2" | OTHER_COMMIT => OTHER_COMMIT,
        _ => return reply(404, "X-Error-Code: RevisionNotFound\r\n", b"Invalid rev id"),
    };
    let names = state.files.keys();
    let siblings: Vec<_> = names
        .map(|f| format!(r#"{{"rfilename": "{f}"}}"#))
        .collect();
    let json = format!(
        r#"{{"id": "org/name", "sha": "{sha}", "siblings": [{}]}}"#,
        siblings.join(",")
    );
    reply(200, "Content-Type: application/json\r\n", json.as_bytes())
}

fn send(state: &mut State, commit: &str, file: &str, range: Option<&String>) -> Vec<u8> {
    let Some(content) = state.files.get(file).cloned() else {
        return reply(404, "X-Error-Code: EntryNotFound\r\n", b"Entry not found");
    };
    let fault = state.faults.get(file).copied();
    // As on the hub, only large files have their SHA-256 for an etag.
    let mut etag = match file.ends_with(".safetensors") {
        true => sha256(&content),
        false => sha256(&content)[..40].to_string(),
    };
    let mut served = content.clone();
    match fault {
        Some(Fault::Status(status)) => return reply(status, "", b"no"),
        Some(Fault::NoHeaders) => return reply(200, "", &content),
        Some(Fault::RedirectToNowhere) => {
            let headers = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\n");
            return reply(302, &headers, b"");
        }
        Some(Fault::Etag(odd)) => etag = odd.to_string(),
        Some(Fault::Body(text)) => served = text.as_bytes().to_vec(),
        _ => {}
    }
    let range = range.and_then(|r| r.strip_prefix("bytes=")).unwrap_or("0-");
    let (from, to) = range.split_once('-').unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap_or(0);
    let end = to.parse().map_or(served.len(), |to: usize| to + 1);
    if from >= served.len() {
        return reply(416, "", b"");
    }
    let body = &served[from..end.min(served.len())];
    state.bytes_sent += body.len();
    let headers = format!(
        "ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\nContent-Range: bytes {from}-{}/{}\r\n",
        from + body.len() - 1,
        served.len()
    );
    let mut whole = reply(206, &headers, body);
    // The one byte that asks for the size is left alone: the cut is in the file itself.
    if let Some(Fault::CutAt(n) | Fault::CutOnce(n)) = fault
        && body.len() > n
        && from < n
    {
        whole.truncate(whole.len() - body.len() + n);
        if matches!(fault, Some(Fault::CutOnce(_))) {
            state.faults.remove(file);
        }
    } else if let Some(Fault::CutAt(_)) = fault
        && body.len() > 1
    {
        whole.truncate(whole.len() - body.len());
    }
    whole
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
