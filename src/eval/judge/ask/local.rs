//! A judge that runs here scores answers. A rule does so at once; a model computes the answers of several
//! items together, and its scores are kept in the cache beside the replies.

use std::collections::HashSet;

use serde_json::json;

use super::super::cache::{Cache, Entry};
use super::super::items::Answer;
use super::super::offline::{Offline, reply};
use super::super::reply::{Miss, Reply};
use super::super::scorer::Scorer;
use super::{Replies, hash};
use crate::config::MICRO_BATCH_TOKENS;
use crate::data::Example;
use crate::data::pack::micro_batches;
use crate::error::{Error, Result};

/// Asks the calls `todo`, until `stop` says so.
pub fn ask(
    offline: &Offline,
    todo: Vec<usize>,
    stop: &(dyn Fn() -> bool + Sync),
    replies: &mut Replies,
) {
    let rule: &dyn Fn(&Answer) -> f64 = match offline {
        Offline::Length => &|answer| answer.characters() as f64,
        Offline::Lexicon(lexicon) => &|answer| lexicon.score(&answer.text),
        Offline::Model(scorer) => {
            if let Err(error) = ask_model(scorer, todo, stop, replies) {
                replies.fatal = Some(error);
            }
            return;
        }
    };
    let null = Answer::null();
    for call in todo {
        if stop() || replies.given_up {
            return;
        }
        let (_, answers) = replies.questions.calls[call].texts(replies.questions.items, &null);
        replies.take(call, scored(answers.map(rule)));
    }
}

fn scored(scores: [f64; 2]) -> std::result::Result<Reply, Miss> {
    Ok(Reply {
        text: reply(scores),
        prompt_tokens: None,
        completion_tokens: None,
    })
}

/// The calls about one item, with its answers that have no score yet.
struct Group {
    calls: Vec<usize>,
    /// Their keys, in the order of the example's responses.
    due: Vec<String>,
    example: Option<Example>,
}

fn ask_model(
    scorer: &Scorer,
    mut todo: Vec<usize>,
    stop: &(dyn Fn() -> bool + Sync),
    replies: &mut Replies,
) -> Result<()> {
    let (items, calls) = (replies.questions.items, replies.questions.calls);
    let null = Answer::null();
    let key = |prompt: &str, answer: &Answer| {
        let score = json!([
            scorer.identity(),
            "score",
            prompt,
            answer.text,
            answer.finished
        ]);
        hash(&score.to_string())
    };
    // An item's controls are asked with it: they have its prompt.
    todo.sort_by_key(|&call| calls[call].item);
    let mut groups: Vec<Group> = Vec::new();
    for same in todo.chunk_by(|&a, &b| calls[a].item == calls[b].item) {
        if stop() {
            return Ok(());
        }
        let (mut due, mut answers, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        let item = calls[same[0]].item;
        let prompt = &items[item].prompt;
        for answer in same
            .iter()
            .flat_map(|&call| calls[call].texts(items, &null).1)
        {
            let key = key(prompt, answer);
            if replies.cache.get(&key).is_none() && seen.insert(key.clone()) {
                due.push(key);
                answers.push(answer);
            }
        }
        let example = match answers.is_empty() {
            true => None,
            false => Some(Example {
                row: item,
                ..scorer.example(prompt, &answers)?
            }),
        };
        groups.push(Group {
            calls: same.to_vec(),
            due,
            example,
        });
    }
    let tokens = |group: &Group| {
        let example = group.example.as_ref();
        example.map_or(0, |e| {
            e.prompt.len() + e.responses.iter().map(|r| r.ids.len()).sum::<usize>()
        })
    };
    let lengths: Vec<usize> = groups.iter().map(tokens).collect();
    for range in micro_batches(&lengths, MICRO_BATCH_TOKENS) {
        if stop() || replies.given_up {
            return Ok(());
        }
        let batch = &mut groups[range];
        let examples: Vec<Example> = batch.iter_mut().filter_map(|g| g.example.take()).collect();
        let keys = batch
            .iter()
            .map(|group| &group.due)
            .filter(|due| !due.is_empty());
        for (keys, scores) in keys.zip(scorer.scores(&examples)?) {
            for (key, score) in keys.iter().zip(scores) {
                replies.cache.push(Entry {
                    key: key.clone(),
                    kind: "score".into(),
                    judge: replies.questions.judge.name().into(),
                    reply: score.to_string(),
                    ..Entry::default()
                })?;
            }
        }
        for call in batch.iter().flat_map(|group| &group.calls) {
            let (prompt, answers) = calls[*call].texts(items, &null);
            let [a, b] = answers.map(|answer| score(replies.cache, &key(prompt, answer)));
            replies.take(*call, scored([a?, b?]));
        }
    }
    Ok(())
}

/// The score that the cache has.
fn score(cache: &Cache, key: &str) -> Result<f64> {
    let entry = cache.get(key);
    let score = entry.and_then(|entry| entry.reply.parse().ok());
    score
        .filter(|score: &f64| score.is_finite())
        .ok_or_else(|| {
            Error::input(format!("the reply of key {key} is not a score"))
                .hint("remove this line, or name another file")
                .option("cache", "")
                .at(cache.path().display())
        })
}
