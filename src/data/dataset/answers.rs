//! The chosen answers of files as text, by their prompts.
//!
//! Hides formats, chat templates and rows that cannot be used.
//!
//! *Why*: a judge reads texts, and what a template writes around an answer is no part of it. So the
//! prompt is the text that samples name, and the answer is what the row itself says.

use super::render::Renderer;
use super::row::RowReader;
use crate::data::chat::{Content, Message};
use crate::data::config::TokenizeConfig;
use crate::data::format::{Columns, Format, RowExample};
use crate::data::rows::{Files, RowError};
use crate::data::tokens::Tokenizer;
use crate::error::Result;
use crate::loss::Role;
use std::collections::HashMap;

/// What the rows of files hold for a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChosenAnswers {
    /// The chosen answer to each prompt before any cut; of several the first row's.
    pub by_prompt: HashMap<String, String>,
    /// Rows.
    pub rows: usize,
    /// Rows without a chosen answer of one turn, or that cannot be used for another reason.
    pub unusable: usize,
    /// Rows whose prompt an earlier one has.
    pub repeated: usize,
}

/// Reads the chosen answer of every row. Conversations need the `tokenizer` of the model whose chat
/// template the prompts went through.
pub fn chosen_answers(
    files: &Files,
    format: &Format,
    tokenizer: Option<&Tokenizer>,
) -> Result<ChosenAnswers> {
    let tokens = TokenizeConfig::default();
    let renderer = Renderer::new(&tokens, tokenizer);
    let columns = Columns::default();
    let mut reader = RowReader::plain(format, &columns);
    let mut found = ChosenAnswers::default();
    for record in files.records() {
        let (_, record) = record?;
        found.rows += 1;
        let example = match record.row.map_err(RowError::from) {
            Ok(row) => reader.read(&row).map(|(example, _)| example),
            Err(error) => Err(error),
        };
        let example = match example {
            Ok(example) => example,
            Err(RowError::Fatal(error)) => return Err(error),
            Err(RowError::Unusable(..)) => {
                found.unusable += 1;
                continue;
            }
        };
        let Some(answer) = chosen(&example).filter(|answer| !answer.trim().is_empty()) else {
            found.unusable += 1;
            continue;
        };
        let (prompt, _) = match renderer.prompt(example) {
            Ok(prompt) => prompt,
            Err(RowError::Fatal(error)) => return Err(error.at(&record.place)),
            Err(RowError::Unusable(..)) => {
                found.unusable += 1;
                continue;
            }
        };
        match found.by_prompt.contains_key(&prompt) {
            true => found.repeated += 1,
            false => {
                found.by_prompt.insert(prompt, answer);
            }
        }
    }
    Ok(found)
}

/// The chosen answer, if it is one turn.
fn chosen(example: &RowExample) -> Option<String> {
    let mut answers = example.answers.iter();
    let (_, answer) = answers.find(|(role, _)| *role == Role::Chosen)?;
    let messages = match (answer, &example.prompt) {
        (Content::Text(text), Some(_)) => return Some(text.clone()),
        // A whole text has no prompt.
        (Content::Text(_), None) => return None,
        (Content::Messages(messages), Some(_)) => messages.as_slice(),
        (Content::Messages(messages), None) => {
            let first = messages.iter().position(Message::is_assistant)?;
            &messages[first..]
        }
    };
    match messages {
        [answer] => answer.text().map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &str, format: &str) -> ChosenAnswers {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, rows).unwrap();
        let files = Files::from(path);
        chosen_answers(&files, Format::named(format).unwrap(), None).unwrap()
    }

    #[test]
    fn answers_are_found_by_prompt_and_what_is_left_out_is_counted() {
        let rows = concat!(
            "{\"prompt\": \"a\", \"chosen\": \" b\", \"rejected\": \"c\"}\n",
            "{\"prompt\": \"a\", \"chosen\": \"d\", \"rejected\": \"c\"}\n",
            "{\"prompt\": \"e\", \"chosen\": \" \", \"rejected\": \"c\"}\n",
        );
        let found = read(rows, "pairs");
        assert_eq!(found.by_prompt, HashMap::from([("a".into(), " b".into())]));
        assert_eq!((found.rows, found.unusable, found.repeated), (3, 1, 1));
        let rows = "{\"chosen\": \"\\n\\nHuman: x\\n\\nAssistant: y\", \
                    \"rejected\": \"\\n\\nHuman: x\\n\\nAssistant: z\"}\n";
        let prompt = "\n\nHuman: x\n\nAssistant:".to_owned();
        assert_eq!(read(rows, "hh").by_prompt[&prompt], " y");
    }
}
