//! Preference pairs, with a prompt of their own or as two conversations that begin alike.
//!
//! *Why*: texts are used as they are. Whether an answer begins with a space, or a prompt ends in a
//! template's last token, is for the file to say. Of two conversations the prompt is what they have
//! in common, message by message; of two texts nobody can say where an answer begins.

use super::definition::{Format, Reading, TruncationMode, has, pair};
use crate::data::chat::Content;
use crate::data::rows::read::Row;
use crate::data::rows::report::Invalid;

pub(super) const FORMAT: Format = Format {
    name: "pairs",
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
    if row.get("prompt").is_some() || fits(row) == 0 {
        let lists = "without a prompt, chosen and rejected are lists of messages; whole transcripts \
                     are of format `hh`";
        row.need("prompt").map_err(|error| match are_texts {
            true => error.hint(lists),
            false => error,
        })?;
        let content = |column| Content::read(row, column);
        return pair(
            row,
            content("prompt")?,
            content("chosen")?,
            content("rejected")?,
        );
    }
    let (chosen, rejected) = (
        Content::read(row, "chosen")?,
        Content::read(row, "rejected")?,
    );
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
    let content = Content::Messages;
    pair(row, content(chosen), content(answer), content(other))
}
