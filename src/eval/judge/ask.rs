//! Asking a judge all that is to be asked, each question once.
//!
//! Hides threads, the cache, and what ends a run before its last question.
//!
//! *Why*: one thread writes, so replies need no lock, and a question that two items share is one
//! question.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::cache::{Cache, Entry};
use super::calls::Call;
use super::endpoint::Endpoint;
use super::items::{Answer, Item};
use super::offline::Offline;
use super::reply::{Miss, Reply};
use super::template::{Grammar, Template};
use crate::error::{Error, Result};

/// Questions in a row that fail before the judge is given up.
const GIVE_UP: usize = 20;
/// The same where it has not answered any.
const NOT_EVEN_ONE: usize = 5;

/// Who judges.
pub enum Judge {
    /// A language model, asked by a template.
    Endpoint(Box<Endpoint>, Template),
    /// Something that runs here, by its name.
    Offline(Offline, String),
}

impl Judge {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Endpoint(endpoint, _) => endpoint.model(),
            Self::Offline(_, name) => name,
        }
    }

    /// Where it is asked; `None` of one that runs here.
    pub fn address(&self) -> Option<&str> {
        match self {
            Self::Endpoint(endpoint, _) => Some(endpoint.name()),
            Self::Offline(..) => None,
        }
    }

    /// The form of its verdicts.
    pub fn grammar(&self) -> Grammar {
        match self {
            Self::Endpoint(_, template) => template.grammar().clone(),
            Self::Offline(..) => Grammar::plain(),
        }
    }

    /// Everything that it is asked and sees, for a person.
    pub fn question(&self, prompt: &str, [a, b]: [&Answer; 2]) -> String {
        match self {
            Self::Endpoint(_, template) => template.render(prompt, &a.text, &b.text),
            Self::Offline(..) => format!("{prompt}\n\nA: {}\n\nB: {}", a.text, b.text),
        }
    }

    /// What its reply depends on.
    fn asked(&self, prompt: &str, [a, b]: [&Answer; 2]) -> Value {
        match self {
            Self::Endpoint(endpoint, template) => json!([
                endpoint.name(),
                template.text(),
                endpoint.body(&self.question(prompt, [a, b])),
            ]),
            Self::Offline(offline, _) => json!([
                offline.identity(),
                prompt,
                [&a.text, &b.text],
                [a.finished, b.finished],
            ]),
        }
    }

    fn reply(
        &self,
        prompt: &str,
        answers: [&Answer; 2],
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> std::result::Result<Reply, Miss> {
        match self {
            Self::Endpoint(endpoint, _) => {
                endpoint.ask(&endpoint.body(&self.question(prompt, answers)), stopped)
            }
            Self::Offline(..) if stopped() => Err(Miss::Stopped),
            Self::Offline(offline, _) => Ok(Reply {
                text: offline.reply(prompt, answers)?,
                prompt_tokens: None,
                completion_tokens: None,
            }),
        }
    }
}

/// What became of the questions.
#[derive(Debug, Default)]
pub struct Asked {
    /// Of each question its reply, or why there is none.
    pub replies: Vec<std::result::Result<Entry, String>>,
    /// Questions asked now.
    pub made: usize,
    /// Different questions.
    pub questions: usize,
    /// Whether it ended before the last question, because it was to.
    pub stopped: bool,
}

/// The key of each question.
pub fn keys(judge: &Judge, items: &[Item], calls: &[Call]) -> Vec<String> {
    let null = Answer::null();
    let key = |call: &Call| {
        let (prompt, answers) = call.texts(items, &null);
        hash(&judge.asked(prompt, answers).to_string())
    };
    calls.iter().map(key).collect()
}

fn hash(text: &str) -> String {
    format!("{:.32}", format!("{:x}", Sha256::digest(text)))
}

/// Asks every question whose reply is not in the cache, `concurrency` at a time; `progress` is told how
/// many replies there are and of how many questions. A judge that answers none of many on end is not
/// asked further.
///
/// # Errors
/// What no further attempt can mend, and what keeps the cache from being written. Replies that are on
/// their way are waited for.
pub fn ask(
    judge: &Judge,
    items: &[Item],
    calls: &[Call],
    cache: &mut Cache,
    concurrency: usize,
    stop: &(dyn Fn() -> bool + Sync),
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Asked> {
    let keys = keys(judge, items, calls);
    let questions: HashSet<&str> = keys.iter().map(String::as_str).collect();
    let mut due = HashSet::new();
    let todo: Vec<usize> = (0..calls.len())
        .filter(|&call| cache.get(&keys[call]).is_none() && due.insert(keys[call].as_str()))
        .collect();
    let total = questions.len();
    let mut done = total - todo.len();
    progress(done, total);
    let mut asked = Asked {
        questions: total,
        ..Asked::default()
    };
    let (next, ended, null) = (AtomicUsize::new(0), AtomicBool::new(false), Answer::null());
    let stopped = || ended.load(Relaxed) || stop();
    let (mut failed, mut fatal, mut in_a_row) = (HashMap::new(), None, 0);
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for started in 0..concurrency.min(todo.len()) {
            let send = send.clone();
            let (todo, next, null, stopped, ended) = (&todo, &next, &null, &stopped, &ended);
            let work = move || {
                while let Some(&call) = todo.get(next.fetch_add(1, Relaxed)) {
                    let (prompt, answers) = calls[call].texts(items, null);
                    let reply = judge.reply(prompt, answers, stopped);
                    if matches!(reply, Err(Miss::Fatal(_))) {
                        ended.store(true, Relaxed);
                    }
                    if send.send((call, reply)).is_err() || stopped() {
                        break;
                    }
                }
            };
            // With fewer threads than that it takes longer.
            if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, work) {
                if started == 0 {
                    fatal = Some(Error::failed(format!("no thread can be started: {error}")));
                }
                break;
            }
        }
        drop(send);
        for (call, reply) in receive {
            let key = keys[call].clone();
            match reply {
                Ok(reply) => {
                    in_a_row = 0;
                    asked.made += 1;
                    let written = cache.push(entry(judge, items, &calls[call], key, reply));
                    fatal = fatal.take().or(written.err());
                }
                Err(Miss::Failed(why)) => {
                    in_a_row += 1;
                    failed.insert(key, why);
                }
                Err(Miss::Refused(why)) => {
                    failed.insert(key, why);
                }
                Err(Miss::Stopped) => continue,
                Err(Miss::Fatal(error)) => fatal = fatal.take().or(Some(error)),
            }
            done += 1;
            progress(done, total);
            let most = if asked.made > 0 {
                GIVE_UP
            } else {
                NOT_EVEN_ONE
            };
            if fatal.is_some() || in_a_row >= most {
                ended.store(true, Relaxed);
            }
        }
    });
    cache.sync()?;
    if let Some(error) = fatal {
        return Err(error);
    }
    let reply = |key: &String| match cache.get(key) {
        Some(entry) => Ok(entry.clone()),
        None => Err(failed
            .get(key)
            .cloned()
            .unwrap_or_else(|| "not asked".into())),
    };
    asked.replies = keys.iter().map(reply).collect();
    asked.stopped = done < total && !ended.load(Relaxed);
    Ok(asked)
}

fn entry(judge: &Judge, items: &[Item], call: &Call, key: String, reply: Reply) -> Entry {
    Entry {
        key,
        kind: call.kind.name().into(),
        prompt: hash(&items[call.item].prompt),
        model_is: if call.model_first { "A" } else { "B" }.into(),
        judge: judge.name().into(),
        reply: reply.text,
        prompt_tokens: reply.prompt_tokens,
        completion_tokens: reply.completion_tokens,
    }
}
