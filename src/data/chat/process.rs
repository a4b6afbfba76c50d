//! A template in a process of its own: both ends of the two pipes.
//!
//! *Why*: a stack that overflows and an allocation that is refused end a process, and nothing less. So
//! it is one that does nothing else, and its end is an answer: of the template, not of the program.
//! How such a process is started is the program's to know, which is one of two, or a user's own.

use super::interpreter::Source;
use super::refusal::{ENDLESS, Refusal};
use super::request::Answers;
use super::worker::{Reply, Worker};
use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::sync::OnceLock;

/// What a template may hold, in bytes, with little to render. A text of the engine's own `'a' * 10**8`
/// fits.
const HEAP: usize = 128 << 20;

/// What it may hold for each byte of a conversation: as JSON, as the engine's values, as texts.
const HEAP_PER_BYTE: usize = 32;

/// What parsing may hold for each byte of the source.
const HEAP_PER_LETTER: usize = 256;

/// What it may allocate in all, in bytes, with little to render: a second's work. Real templates
/// allocate what they write some times over.
const WORK: u64 = 1 << 30;

/// The same, for each byte of a conversation: all before it may be copied once for each message.
const WORK_PER_BYTE: u64 = 1 << 16;

/// A process that [`serve`]s.
pub struct Link {
    /// Its input.
    pub requests: Box<dyn Write + Send>,
    /// Its output.
    pub replies: Box<dyn Read + Send>,
    /// Ends it if it has not ended; what it said last, for its user.
    pub end: Box<dyn FnMut() -> String + Send>,
}

/// Starts such a process.
pub type Start = fn() -> io::Result<Link>;

static START: OnceLock<Start> = OnceLock::new();

/// Has every template of this program rendered in a process that `start` starts; before the first is
/// opened.
pub fn render_in(start: Start) {
    START.get_or_init(|| start);
}

/// The memory of the process that renders.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Lets the process take so many bytes more than it has; an allocation beyond them ends it. Begins
    /// to count [`allocated`](Self::allocated) anew.
    pub allow: fn(usize),
    /// The bytes that were allocated since, freed or not.
    pub allocated: fn() -> u64,
}

/// Where a template is rendered.
pub(super) enum Host {
    /// In this process.
    Here(Worker),
    There(Link),
    /// Nowhere any more, and why.
    Over(Refusal),
}

impl Host {
    /// Parses a template where this program's are; whether it marks what the assistant says.
    pub fn start(source: Source) -> Result<(Self, bool), Refusal> {
        let (mut host, reply) = match START.get() {
            None => {
                let worker = Worker::start(source)?;
                let reply = worker.wait(|| None);
                (Self::Here(worker), reply)
            }
            Some(start) => {
                let mut link = start().map_err(|error| {
                    Refusal::failed(format!("no process for the chat template: {error}"))
                })?;
                let source = serde_json::to_vec(&source).map_err(Refusal::failed)?;
                let reply = link.ask(&source);
                (Self::There(link), reply)
            }
        };
        host.end_if_last(&reply);
        reply.map(|reply| (host, reply == [1]))
    }

    /// The answers to a [request](super::request::request).
    pub fn render(&mut self, request: Vec<u8>) -> Result<Answers, Refusal> {
        let reply = match self {
            Self::Here(worker) => {
                worker.ask(request);
                worker.wait(|| None)
            }
            Self::There(link) => link.ask(&request),
            Self::Over(refusal) => Err(refusal.clone()),
        };
        self.end_if_last(&reply);
        postcard::from_bytes(&reply?).map_err(Refusal::failed)
    }

    fn end_if_last(&mut self, reply: &Reply) {
        if let Err(refusal) = reply
            && refusal.last
        {
            *self = Self::Over(refusal.clone());
        }
    }
}

impl Link {
    fn ask(&mut self, request: &[u8]) -> Reply {
        let mut exchange = || -> io::Result<Reply> {
            let length = length_of(request);
            self.requests.write_all(&[&length, request].concat())?;
            self.requests.flush()?;
            let mut refused = [0];
            self.replies.read_exact(&mut refused)?;
            let length = read_length(&mut *self.replies)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let reply = read_bytes(&mut *self.replies, length)?;
            Ok(match refused {
                [0] => Ok(reply),
                _ => Err(serde_json::from_slice(&reply)?),
            })
        };
        exchange().unwrap_or_else(|error| Err(self.cause_of_death(&error)))
    }

    /// Why the process does not answer.
    fn cause_of_death(&mut self, error: &io::Error) -> Refusal {
        let said = (self.end)();
        if said.contains("memory allocation of") {
            let most = HEAP >> 20;
            return Refusal::last(format!(
                "the chat template makes values of more than {most} MiB"
            ));
        }
        if said.contains("overflowed its stack") {
            return Refusal::last("the chat template nests values too deep, or in themselves");
        }
        Refusal::failed(format!(
            "the chat template's process ended: {error}; {said}"
        ))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        (self.end)();
    }
}

/// Renders one template for the program at the other end of two pipes until that closes them.
///
/// # Errors
/// Of the pipes.
pub fn serve(input: &mut dyn Read, output: &mut dyn Write, meter: Meter) -> io::Result<()> {
    let mut worker: Option<Worker> = None;
    while let Some(length) = read_length(input)? {
        let heap = if worker.is_some() {
            HEAP_PER_BYTE
        } else {
            HEAP_PER_LETTER
        };
        (meter.allow)(HEAP.saturating_add(heap.saturating_mul(length)));
        let most = WORK.saturating_add(WORK_PER_BYTE.saturating_mul(length as u64));
        let stop = || ((meter.allocated)() > most).then(|| Refusal::last(ENDLESS));
        let bytes = read_bytes(input, length)?;
        let reply = match &worker {
            Some(worker) => {
                worker.ask(bytes);
                worker.wait(stop)
            }
            None => Worker::start(serde_json::from_slice(&bytes)?)
                .and_then(|started| worker.insert(started).wait(stop)),
        };
        let (refused, bytes) = match &reply {
            Ok(bytes) => (0, Cow::Borrowed(bytes.as_slice())),
            Err(refusal) => (1, Cow::Owned(serde_json::to_vec(refusal)?)),
        };
        output.write_all(&[refused])?;
        output.write_all(&length_of(&bytes))?;
        output.write_all(&bytes)?;
        output.flush()?;
        if reply.is_err_and(|refusal| refusal.last) {
            return Ok(());
        }
    }
    Ok(())
}

/// What stands in front of bytes: their number.
fn length_of(bytes: &[u8]) -> [u8; 8] {
    (bytes.len() as u64).to_le_bytes()
}

/// The number in front of bytes; `None` where nothing comes any more.
fn read_length(input: &mut dyn Read) -> io::Result<Option<usize>> {
    let mut length = [0; 8];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = usize::try_from(u64::from_le_bytes(length));
    length.map(Some).map_err(io::Error::other)
}

fn read_bytes(input: &mut dyn Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(length as u64).read_to_end(&mut bytes)?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
