//! From a row's text to its tokens.
//!
//! Hides how answers of every origin become responses, and what happened to them on the way.
//!
//! *Why*: a row is built from itself alone, so rows are built on all cores and each can be shown by
//! itself just as a run sees it.

use super::render::{Answer, TextExample};
use super::samples::Sample;
use crate::data::config::RowConfig;
use crate::data::example::{Example, Response};
use crate::data::rows::read::Place;
use crate::data::tokens::length::{Cuts, cut};
use crate::data::tokens::{Continuation, TokenRule};
use crate::error::Result;
use crate::loss::Role;
use std::ops::Range;

/// A row between file and tokens.
pub(super) struct Draft {
    pub row: usize,
    pub place: Place,
    pub text: TextExample,
    pub samples: Vec<Sample>,
    pub mismatched: Vec<Answer>,
}

impl Draft {
    /// A row with nothing from elsewhere.
    pub fn new(row: usize, place: Place, text: TextExample) -> Self {
        Self {
            row,
            place,
            text,
            samples: Vec::new(),
            mismatched: Vec::new(),
        }
    }

    /// About the bytes that it takes in memory, its tokens included.
    pub fn bytes(&self) -> usize {
        let answers = self.text.answers.iter().chain(&self.mismatched);
        let samples = self.samples.iter().map(|sample| sample.response.len());
        let texts = answers.map(|answer| answer.text.len()).chain(samples);
        SMALL_PARTS + size_of::<Self>() + self.text.prompt.len() + texts.sum::<usize>()
    }
}

/// What the lists of a row and of its tokens take beside their contents, in bytes: a chunk of rows of a
/// few words is mostly that.
const SMALL_PARTS: usize = 1 << 10;

/// A row as tokens, and what was done to it.
pub(super) struct Built {
    pub example: Example,
    pub cuts: Cuts,
    /// Of each response: whether it shares a token with what stands in front of it.
    pub merged: Vec<bool>,
    /// The special token that an answer's template ends it with, if that is not an end token.
    pub other_end: Option<u32>,
}

pub(super) fn build(draft: &Draft, config: &RowConfig, rule: &TokenRule) -> Result<Built> {
    let text = &draft.text;
    let prompt = rule.prompt(&text.prompt)?;
    let answer = |answer: &Answer| respond(rule, &text.prompt, &prompt, answer, true);
    let sample = |sample: &Sample| match &sample.ids {
        Some(ids) => Ok(Responded {
            response: Response::new(Role::Sampled, ids.clone()),
            merged: false,
            other_end: None,
        }),
        None => {
            let answer = Answer {
                role: Role::Sampled,
                text: sample.response.clone(),
                turns: Vec::new(),
            };
            respond(rule, &text.prompt, &prompt, &answer, sample.finished)
        }
    };
    let built: Vec<Responded> = text
        .answers
        .iter()
        .map(answer)
        .chain(draft.samples.iter().map(sample))
        .chain(draft.mismatched.iter().map(answer))
        .collect::<Result<_>>()?;
    let merged = built.iter().map(|built| built.merged).collect();
    let other_end = built.iter().find_map(|built| built.other_end);
    let mut responses: Vec<Response> = built.into_iter().map(|built| built.response).collect();
    for response in &mut responses {
        response.score = text
            .scores
            .and_then(|[chosen, rejected]| match response.role {
                Role::Chosen => Some(chosen),
                Role::Rejected => Some(rejected),
                Role::Sampled | Role::Mismatched => None,
            });
    }
    let mut example = Example {
        row: draft.row,
        prompt,
        responses,
        preference: text.preference,
    };
    let cuts = cut(&mut example, config, rule.tokenizer, text.is_chat);
    Ok(Built {
        example,
        cuts,
        merged,
        other_end,
    })
}

/// An answer as tokens.
struct Responded {
    response: Response,
    /// Whether it shares a token with what stands in front of it.
    merged: bool,
    /// The special token that its template ends it with, if that is not an end token.
    other_end: Option<u32>,
}

fn respond(
    rule: &TokenRule,
    prompt: &str,
    prompt_ids: &[u32],
    answer: &Answer,
    finished: bool,
) -> Result<Responded> {
    let Answer { role, text, turns } = answer;
    let (Continuation { mut ids, merged }, mut own) = match turns.is_empty() {
        true => (rule.response(prompt, prompt_ids, text)?, Vec::new()),
        false => rule.response_in_turns(prompt, prompt_ids, text, turns)?,
    };
    let mut other_end = None;
    if finished {
        if let Some(turn) = turns.last().filter(|_| !rule.is_finished(&ids)) {
            other_end = rule.other_end(text, turn.said)?;
        }
        rule.finish(&mut ids)?;
    }
    own.resize(ids.len(), true);
    let mut response = Response::new(*role, ids);
    if !turns.is_empty() {
        response.context = gaps(&own);
    }
    Ok(Responded {
        response,
        merged,
        other_end,
    })
}

/// The ranges of what is false.
fn gaps(own: &[bool]) -> Vec<Range<usize>> {
    let mut gaps: Vec<Range<usize>> = Vec::new();
    for (index, _) in own.iter().enumerate().filter(|(_, own)| !**own) {
        match gaps.last_mut() {
            Some(gap) if gap.end == index => gap.end += 1,
            _ => gaps.push(index..index + 1),
        }
    }
    gaps
}
