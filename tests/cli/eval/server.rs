//! A chat endpoint on a port of 127.0.0.1, and the ways it can misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub authorization: Option<String>,
    pub body: Value,
}

impl Asked {
    pub fn question(&self) -> &str {
        self.body["messages"][0]["content"].as_str().unwrap()
    }

    /// What stands between the marks of the template.
    pub fn part(&self, mark: &str) -> &str {
        let (_, after) = self.question().split_once(&format!("<{mark}-")).unwrap();
        let (nonce, after) = after.split_once(">\n").unwrap();
        let end = format!("\n</{mark}-{nonce}>");
        after.split_once(&end).unwrap().0
    }
}

/// What is answered.
pub struct Answer {
    pub status: u16,
    pub headers: &'static str,
    pub body: Vec<u8>,
    pub after: Duration,
}

impl Answer {
    /// A chat completion.
    pub fn reply(text: &str) -> Self {
        let message = json!({"role": "assistant", "content": text});
        let usage = json!({"prompt_tokens": 100, "completion_tokens": 7});
        Self::of(
            200,
            json!({"choices": [{"message": message}], "usage": usage}).to_string(),
        )
    }

    pub fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: "",
            body: body.into(),
            after: Duration::ZERO,
        }
    }
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    at_once: usize,
    most_at_once: usize,
}

type Behaviour = dyn Fn(&Asked, usize) -> Answer + Send + Sync;

pub struct Server {
    pub base: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Answers the question of a number, counted from 0, as `behaviour` says. Its threads end with the
    /// test process.
    pub fn start(behaviour: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, behaviour) = (state.clone(), Arc::new(behaviour));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, behaviour) = (shared.clone(), behaviour.clone());
                // A client that hangs up is not the server's problem.
                std::thread::spawn(move || serve(stream, &shared, &*behaviour));
            }
        });
        Self { base, state }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.locked().asked.clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.locked().most_at_once
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, behaviour: &Behaviour) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut length, mut authorization) = (String::new(), 0, None);
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(": ") else {
            break;
        };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let asked = Asked {
        path,
        authorization,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let number = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(asked.clone());
        state.at_once += 1;
        state.most_at_once = state.most_at_once.max(state.at_once);
        state.asked.len() - 1
    };
    let answer = behaviour(&asked, number);
    std::thread::sleep(answer.after);
    state.lock().unwrap_or_else(PoisonError::into_inner).at_once -= 1;
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n{}\r\n",
        answer.status,
        answer.body.len(),
        answer.headers
    )?;
    stream.write_all(&answer.body)
}
