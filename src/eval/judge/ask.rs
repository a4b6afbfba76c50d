//! Asking a judge all that is to be asked, each question once.
//!
//! Hides threads, the cache, and what ends a run before its last question.
//!
//! *Why*: one thread writes, so replies need no lock, and a question that two items share is one
//! question.

mod local;
mod remote;

use std::collections::{HashMap, HashSet};

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

/// Asks every question whose reply is not in the cache: an endpoint `concurrency` at a time, a judge that
/// runs here, which has all cores, one after the other. `progress` is told how many replies there are and of
/// how many questions. A judge that answers none of many on end is not asked further.
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
    let mut replies = Replies {
        questions: Questions {
            judge,
            items,
            calls,
            keys: &keys,
        },
        cache,
        done: total - todo.len(),
        total,
        progress,
        made: 0,
        failed: HashMap::new(),
        fatal: None,
        in_a_row: 0,
        given_up: false,
    };
    (replies.progress)(replies.done, total);
    match judge {
        Judge::Endpoint(endpoint, template) => {
            remote::ask(endpoint, template, &todo, concurrency, stop, &mut replies);
        }
        Judge::Offline(offline, _) => local::ask(offline, todo, stop, &mut replies),
    }
    replies.end()
}

/// What is asked of whom.
#[derive(Clone, Copy)]
struct Questions<'a> {
    judge: &'a Judge,
    items: &'a [Item],
    calls: &'a [Call],
    keys: &'a [String],
}

/// The replies as they come.
struct Replies<'a> {
    questions: Questions<'a>,
    cache: &'a mut Cache,
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(usize, usize),
    made: usize,
    failed: HashMap<String, String>,
    fatal: Option<Error>,
    in_a_row: usize,
    given_up: bool,
}

impl Replies<'_> {
    /// Takes the reply to a call, or why there is none.
    fn take(&mut self, call: usize, reply: std::result::Result<Reply, Miss>) {
        let key = self.questions.keys[call].clone();
        match reply {
            Ok(reply) => {
                self.in_a_row = 0;
                self.made += 1;
                let written = self.cache.push(self.questions.entry(call, reply));
                self.fatal = self.fatal.take().or(written.err());
            }
            Err(Miss::Failed(why)) => {
                self.in_a_row += 1;
                self.failed.insert(key, why);
            }
            Err(Miss::Refused(why)) => {
                self.failed.insert(key, why);
            }
            Err(Miss::Stopped) => return,
            Err(Miss::Fatal(error)) => self.fatal = self.fatal.take().or(Some(error)),
        }
        self.done += 1;
        (self.progress)(self.done, self.total);
        let most = if self.made > 0 { GIVE_UP } else { NOT_EVEN_ONE };
        self.given_up |= self.fatal.is_some() || self.in_a_row >= most;
    }

    fn end(self) -> Result<Asked> {
        self.cache.sync()?;
        if let Some(error) = self.fatal {
            return Err(error);
        }
        let reply = |key: &String| match self.cache.get(key) {
            Some(entry) => Ok(entry.clone()),
            None => Err(self
                .failed
                .get(key)
                .cloned()
                .unwrap_or_else(|| "not asked".into())),
        };
        Ok(Asked {
            replies: self.questions.keys.iter().map(reply).collect(),
            made: self.made,
            questions: self.total,
            stopped: self.done < self.total && !self.given_up,
        })
    }
}

impl Questions<'_> {
    fn entry(&self, call: usize, reply: Reply) -> Entry {
        let asked = &self.calls[call];
        Entry {
            key: self.keys[call].clone(),
            kind: asked.kind.name().into(),
            prompt: hash(&self.items[asked.item].prompt),
            model_is: if asked.model_first { "A" } else { "B" }.into(),
            judge: self.judge.name().into(),
            reply: reply.text,
            prompt_tokens: reply.prompt_tokens,
            completion_tokens: reply.completion_tokens,
        }
    }
}
