//! From a row to a prompt with its answers, as its configuration reads it.
//!
//! Hides where columns stand, the system message that has one of its own, and which are not read.
//!
//! *Why*: training, sampling and comparing read the same rows. So there is one way to read them.

use crate::data::chat::{Content, Message};
use crate::data::config::{PromptConfig, RowConfig};
use crate::data::format::{Columns, CommonRow, Format, RowExample, without_answer};
use crate::data::rows::read::Row;
use crate::data::rows::{Invalid, RowError};
use crate::error::Error;
use crate::loss::Role;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Reads rows of one layout.
pub(in crate::data) struct RowReader<'a> {
    format: &'a Format,
    columns: &'a Columns,
    apply_chat_template: bool,
    // The columns of the first rows, and those of them that were read.
    seen: BTreeSet<String>,
    read: BTreeSet<String>,
    rows: usize,
}

/// So many rows show which columns a file has.
const ROWS_THAT_SHOW: usize = 1000;

impl<'a> RowReader<'a> {
    /// For rows of `format` whose columns are their own.
    pub fn plain(format: &'a Format, columns: &'a Columns) -> Self {
        Self {
            format,
            columns,
            apply_chat_template: false,
            seen: BTreeSet::new(),
            read: BTreeSet::new(),
            rows: 0,
        }
    }

    /// For the rows of a dataset.
    pub fn of_rows(format: &'a Format, config: &'a RowConfig) -> Self {
        Self {
            apply_chat_template: config.tokens.apply_chat_template,
            ..Self::plain(format, &config.columns)
        }
    }

    /// For the rows of prompts.
    pub fn of_prompts(format: &'a Format, config: &'a PromptConfig) -> Self {
        Self {
            apply_chat_template: config.tokens.apply_chat_template,
            ..Self::plain(format, &config.columns)
        }
    }

    /// What the row says, and the row with its columns where the format looks for them.
    pub fn read<'r>(
        &mut self,
        row: &'r Row,
    ) -> std::result::Result<(RowExample, Cow<'r, Row>), RowError> {
        let (example, common, has_system) = self.contents(row)?;
        if self.rows < ROWS_THAT_SHOW {
            self.rows += 1;
            for (name, _) in row.columns() {
                let reads = self.format.reads(&common, row, self.columns, name);
                if reads && (has_system || name != "system") && !self.read.contains(name) {
                    self.read.insert(name.to_owned());
                }
                if !self.seen.contains(name) {
                    self.seen.insert(name.to_owned());
                }
            }
        }
        Ok((example, common.row))
    }

    /// As [`read`](Self::read), where nobody asks which columns were read; and whether a column `system`
    /// became a message.
    pub fn contents<'r>(
        &self,
        row: &'r Row,
    ) -> std::result::Result<(RowExample, CommonRow<'r>, bool), RowError> {
        let common = self.format.common(row, self.columns)?;
        let mut example = self.format.example(&common)?;
        let has_system = self.add_system(&common.row, &mut example)?;
        Ok((example, common, has_system))
    }

    /// The error of a row that lacks an answer, with what the row is.
    pub fn without_answer(&self, row: &Row, error: Error) -> Error {
        without_answer(self.format, row, error)
    }

    /// The columns that no row was read for.
    pub fn unread(&self) -> Vec<String> {
        self.seen.difference(&self.read).cloned().collect()
    }

    // A column `system` is the first message of a conversation that has none.
    fn add_system(
        &self,
        row: &Row,
        example: &mut RowExample,
    ) -> std::result::Result<bool, RowError> {
        let Some(system) = row
            .get("system")
            .filter(|_| self.format.names.contains(&"system"))
        else {
            return Ok(false);
        };
        let is_mapped = self.columns.names().any(|name| name == "system");
        let apply = self.apply_chat_template;
        let messages = match (&mut example.prompt, example.answers.first_mut()) {
            (Some(Content::Messages(messages)), _)
            | (None, Some((_, Content::Messages(messages)))) => messages,
            (Some(prompt), _) if apply => {
                if let Content::Text(text) = prompt {
                    *prompt = Content::Messages(vec![Message::new("user", text)]);
                }
                let Content::Messages(messages) = prompt else {
                    return Ok(false);
                };
                messages
            }
            _ if is_mapped => {
                return Err(RowError::Fatal(
                    Error::input("plain texts have no system message")
                        .hint("set data.apply_chat_template = true, or leave the column out")
                        .at_key("data.columns.system"),
                ));
            }
            _ => return Ok(false),
        };
        let Some(text) = system.as_str() else {
            return Err(row.wrong("system", "a string").into());
        };
        let begins = messages.first().is_some_and(Message::is_instruction);
        if !text.trim().is_empty() && !begins {
            messages.insert(0, Message::new("system", text));
        }
        Ok(!begins)
    }
}

/// Whether the answers are the assistant's, and say something.
pub(in crate::data) fn check_answers(example: &RowExample) -> std::result::Result<(), RowError> {
    let no_answer = |reason: Invalid, what: String, hint: &str| {
        Err(RowError::Unusable(reason, Error::input(what).hint(hint)))
    };
    for (role, answer) in &example.answers {
        let name = role.name();
        if let Content::Messages(messages) = answer {
            if !messages.iter().any(Message::is_assistant) && example.prompt.is_none() {
                return no_answer(
                    Invalid::NoAssistantMessage,
                    "the conversation has no message of the assistant".into(),
                    "there is nothing to learn from it",
                );
            }
            let begins = messages.first().is_some_and(Message::is_assistant);
            let all = "the answer is the assistant's, from its first message to its last";
            if example.prompt.is_some() && !begins {
                let what =
                    format!("the {name} answer begins with a message that is not the assistant's");
                return no_answer(Invalid::NotTheAssistants, what, all);
            }
            if !messages.last().is_some_and(Message::is_assistant) {
                let what =
                    format!("the {name} answer ends with a message that is not the assistant's");
                return no_answer(Invalid::EndsWithUser, what, all);
            }
        }
        if answer.is_blank() {
            return Err(Invalid::EmptyAnswer.into());
        }
    }
    Ok(())
}

/// Whether both answers say the same.
pub(super) fn is_tie(example: &RowExample) -> bool {
    match example.answers.as_slice() {
        [(Role::Chosen, chosen), (Role::Rejected, rejected)] => chosen == rejected,
        _ => false,
    }
}
