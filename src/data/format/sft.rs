//! What a model is to imitate: a conversation, an answer to a prompt, or a text.
//!
//! *Why*: what is imitated is a chosen answer without a rejected one. So supervised fine-tuning is
//! one more loss on the same batches, and reads the rows of any other format too.

use super::definition::{Format, Reading, RowExample, TruncationMode, content, has, parted, text};
use crate::data::chat::Content;
use crate::data::rows::read::Row;
use crate::error::Error;
use crate::loss::Role;

pub(super) const FORMAT: Format = Format {
    name: "sft",
    names: &[
        "messages",
        "prompt",
        "completion",
        "text",
        "system",
        "tools",
        "chat_template_kwargs",
    ],
    columns: "messages: a conversation; or prompt and completion, strings or lists of messages; or text: \
              all of it is the answer",
    truncation: TruncationMode::KeepStart,
    has_pairs: false,
    writes_turns: false,
    splits_turns: true,
    // A conversation has prompt and answer in it.
    fits: |row| {
        let whole = 2 * has(row, &["messages"]);
        whole
            .max(has(row, &["prompt", "completion"]))
            .max(has(row, &["text"]))
    },
    read,
};

fn read(row: &Row) -> Reading {
    let layouts = ["messages", "completion", "text"];
    let given: Vec<&str> = layouts
        .into_iter()
        .filter(|name| row.get(name).is_some())
        .collect();
    let layout = match given.as_slice() {
        [] => "messages",
        [layout] => layout,
        several => {
            return Err(
                Error::input(format!("the row has columns {}", several.join(" and ")))
                    .hint("it is one of: messages; prompt and completion; text")
                    .at(&row.place)
                    .into(),
            );
        }
    };
    let (prompt, answer) = match layout {
        "completion" => {
            let parts = parted(content(row, "prompt")?, content(row, "completion")?);
            (Some(parts.0), parts.1)
        }
        "text" => (None, Content::Text(text(row, "text")?)),
        _ => match content(row, "messages")? {
            Content::Text(_) => return Err(row.wrong("messages", "a list of messages").into()),
            messages => (None, messages),
        },
    };
    Ok(RowExample {
        answers: vec![(Role::Chosen, answer)],
        ..RowExample::of_prompt(prompt)
    })
}
