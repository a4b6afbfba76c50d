//! The thread that a template is parsed and rendered on.
//!
//! *Why*: the engine recurses: over the expressions of a template, and over the values that it makes,
//! when it writes, compares and drops them. The stack that this takes is one of a known size, whoever
//! asks.

use super::interpreter::{Interpreter, Source};
use super::refusal::{ENDLESS, Refusal};
use crate::io::untrusted;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The stack, in bytes. Memory is taken as it is used.
const STACK: usize = 64 << 20;

/// How long one request may take. Real templates take less than a millisecond for a text.
const CLOCK: Duration = Duration::from_secs(60);

/// What a template answers: whether it marks what the assistant says once it is parsed, then
/// [`Answers`](super::request::Answers), as bytes.
pub(super) type Reply = Result<Vec<u8>, Refusal>;

/// A template on its own thread, which ends with it.
pub(super) struct Worker {
    requests: Sender<Vec<u8>>,
    replies: Receiver<Reply>,
}

impl Worker {
    /// Parses; the first [reply](Self::wait) says whether it could be.
    pub fn start(source: Source) -> Result<Self, Refusal> {
        let (requests, asked) = channel::<Vec<u8>>();
        let (answer, replies) = channel();
        let work = move || {
            let interpreter = match guarded(|| Interpreter::new(source)) {
                Ok(interpreter) => interpreter,
                Err(refusal) => {
                    let _ = answer.send(Err(refusal));
                    return;
                }
            };
            let mut reply = Ok(vec![u8::from(interpreter.has_spans)]);
            // Nobody waits for an answer any more once there is no one to ask.
            while answer.send(reply).is_ok() {
                let Ok(request) = asked.recv() else { return };
                reply = guarded(|| {
                    let answers = interpreter.render(&request)?;
                    postcard::to_allocvec(&answers).map_err(Refusal::failed)
                });
            }
        };
        let thread = thread::Builder::new().name("chat-template".into());
        let started = thread.stack_size(STACK).spawn(work);
        started.map_err(|error| {
            Refusal::failed(format!("no thread for the chat template: {error}"))
        })?;
        Ok(Self { requests, replies })
    }

    /// Asks for the texts of a [request](super::request::request).
    pub fn ask(&self, request: Vec<u8>) {
        // If the thread is gone, `wait` says so.
        let _ = self.requests.send(request);
    }

    /// The reply, unless the clock or `stop`, which is asked now and then, ends it before.
    pub fn wait(&self, stop: impl Fn() -> Option<Refusal>) -> Reply {
        let start = Instant::now();
        loop {
            match self.replies.recv_timeout(Duration::from_millis(20)) {
                Ok(reply) => return stop().map_or(reply, Err),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Refusal::last("the chat template ended its renderer"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(refusal) = stop() {
                return Err(refusal);
            }
            if start.elapsed() > CLOCK {
                let what = format!("{ENDLESS} within {} seconds", CLOCK.as_secs());
                return Err(Refusal::last(what));
            }
        }
    }
}

/// As [`untrusted::guarded`], for refusals.
fn guarded<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    untrusted::guarded("", || Ok(work())).unwrap_or_else(|panic| Err(Refusal::new(panic.fact())))
}
