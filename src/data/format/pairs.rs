//! Preference pairs, with a prompt of their own or as two conversations that begin alike.
//!
//! *Why*: texts are used as they are. Whether an answer begins with a space, or a prompt ends in a
//! template's last token, is for the file to say. Of two conversations the prompt is what they have
//! in common, message by message; of two texts nobody can say where an answer begins.

use super::definition::{Format, Reading, TruncationMode, content, has, pair, parted};
use crate::data::chat::Content;
use crate::data::rows::invalid::{Invalid, RowError};
use crate::data::rows::read::Row;

pub(super) const FORMAT: Format = Format {
    name: "pairs",
    names: &[
        "prompt",
        "chosen",
        "rejected",
        "system",
        "tools",
        "chat_template_kwargs",
        "preference",
        "score_chosen",
        "score_rejected",
    ],
    columns: "prompt, chosen, rejected, strings or lists of messages, or the lists chosen and rejected \
              alone; preference, score_chosen, score_rejected (optional)",
    truncation: TruncationMode::KeepStart,
    has_pairs: true,
    writes_turns: false,
    splits_turns: false,
    fits,
    read,
};

fn fits(row: &Row) -> usize {
    let are_lists = row.get("chosen").is_some_and(|chosen| chosen.is_array());
    match has(row, &["prompt", "chosen", "rejected"]) {
        0 if are_lists => has(row, &["chosen", "rejected"]),
        columns => columns,
    }
}

fn read(row: &Row) -> Reading {
    let are_texts = row.get("chosen").is_some_and(|chosen| chosen.is_string());
    if row.get("prompt").is_none() && fits(row) > 0 {
        return read_whole(row, content(row, "chosen")?, content(row, "rejected")?);
    }
    let lists = "without a prompt, chosen and rejected are lists of messages; whole transcripts \
                 are of format `hh`";
    let prompt = content(row, "prompt").map_err(|error| match error {
        RowError::Unusable(reason, error) if are_texts && row.get("prompt").is_none() => {
            RowError::Unusable(reason, error.hint(lists))
        }
        error => error,
    })?;
    let (chosen, rejected) = (content(row, "chosen")?, content(row, "rejected")?);
    let has_prompt = |content: &Content| match content {
        Content::Messages(messages) => messages.first().is_some_and(|m| !m.is_assistant()),
        Content::Text(_) => false,
    };
    match &prompt {
        // The conversations say it again, with what a text cannot say.
        Content::Text(_) if has_prompt(&chosen) && has_prompt(&rejected) => {
            read_whole(row, chosen, rejected)
        }
        Content::Messages(_) if has_prompt(&chosen) && has_prompt(&rejected) => {
            let (first, chosen) = parted(prompt.clone(), chosen);
            let (second, rejected) = parted(prompt, rejected);
            match first == second {
                true => pair(row, first, chosen, rejected),
                false => Err(Invalid::PromptDiffers.into()),
            }
        }
        _ => pair(row, prompt, chosen, rejected),
    }
}

/// Two conversations: the prompt is what they begin with.
pub(super) fn read_whole(row: &Row, chosen: Content, rejected: Content) -> Reading {
    let (Content::Messages(mut chosen), Content::Messages(mut rejected)) = (chosen, rejected)
    else {
        return Err(row
            .wrong("rejected", "a list of messages, as `chosen` is")
            .into());
    };
    // Each keeps an answer, also where the two are the same.
    let most = chosen.len().min(rejected.len()) - 1;
    let same = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b);
    let common = same.count().min(most);
    let answers = [&chosen[common], &rejected[common]];
    if common == 0 || answers.iter().any(|message| !message.is_assistant()) {
        return Err(Invalid::PromptDiffers.into());
    }
    let answer = chosen.split_off(common);
    let other = rejected.split_off(common);
    let messages = Content::Messages;
    pair(row, messages(chosen), messages(answer), messages(other))
}
