//! From the contents of a row to the text that the model sees.
//!
//! Hides whether a chat template had a part in it, and where in an answer of several messages the
//! assistant speaks.
//!
//! *Why*: an answer is what follows the prompt's own rendering, the prompt's with the template's
//! generation prompt behind it. So a prompt is the same text for all its answers and for sampling,
//! and what a template would write differently once an answer follows is seen, not trained on.

use crate::data::chat::{ChatTemplate, Content, Message};
use crate::data::config::{AssistantTurns, TokenizeConfig};
use crate::data::format::RowExample;
use crate::data::rows::{Invalid, RowError};
use crate::data::tokens::Tokenizer;
use crate::error::{Error, Result};
use crate::loss::Role;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::ops::Range;

/// A prompt with its answers, as text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TextExample {
    pub prompt: String,
    /// Whether the chat template wrote it.
    pub is_chat: bool,
    pub answers: Vec<Answer>,
    pub preference: Option<f64>,
    pub scores: Option<[f64; 2]>,
}

/// An answer as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub role: Role,
    pub text: String,
    /// The assistant's turns, as bytes of the text, where it has others between them; else empty.
    pub turns: Vec<Range<usize>>,
}

pub(super) struct Renderer<'a> {
    config: &'a TokenizeConfig,
    // Rows of plain text need none.
    tokenizer: Option<&'a Tokenizer>,
    // Opened when the first conversation is seen.
    template: OnceCell<ChatTemplate>,
}

impl<'a> Renderer<'a> {
    pub fn new(config: &'a TokenizeConfig, tokenizer: impl Into<Option<&'a Tokenizer>>) -> Self {
        Self {
            config,
            tokenizer: tokenizer.into(),
            template: OnceCell::new(),
        }
    }

    pub fn example(&self, row: RowExample) -> std::result::Result<TextExample, RowError> {
        let (preference, scores) = (row.preference, row.scores);
        let (prompt, is_chat, answers) = match self.conversation(row)? {
            Turns::Plain { prompt, answers } => {
                let answer = |(role, text)| Answer {
                    role,
                    text,
                    turns: Vec::new(),
                };
                (prompt, false, answers.into_iter().map(answer).collect())
            }
            Turns::Chat { prompt, answers } => {
                let text = self.prompt_text(&prompt)?;
                let answers = answers
                    .into_iter()
                    .map(|(role, messages)| self.answer(&prompt, &text, role, messages))
                    .collect::<std::result::Result<_, RowError>>()?;
                (text, true, answers)
            }
        };
        Ok(TextExample {
            prompt,
            is_chat,
            answers,
            preference,
            scores,
        })
    }

    /// The text of the prompt alone, and whether the chat template wrote it.
    pub fn prompt(&self, row: RowExample) -> std::result::Result<(String, bool), RowError> {
        if row.prompt.is_none() && matches!(row.answers.first(), Some((_, Content::Text(_)))) {
            let error = Error::input("the row has no prompt");
            return Err(error.hint("its whole text is the answer").into());
        }
        match self.conversation(row)? {
            Turns::Plain { prompt, .. } => Ok((prompt, false)),
            Turns::Chat { prompt, .. } => Ok((self.prompt_text(&prompt)?, true)),
        }
    }

    /// Settles whether the template has a part, and where a conversation's prompt ends.
    fn conversation(&self, row: RowExample) -> Result<Turns> {
        let apply = self.config.apply_chat_template;
        let (prompt, mut answers) = match (row.prompt, row.answers) {
            (Some(prompt), answers) => (prompt, answers),
            (None, answers) => match self.split(answers)? {
                (None, _) if apply => {
                    return Err(Error::input("a text by itself is no conversation")
                        .hint("set data.apply_chat_template = false"));
                }
                (None, answers) => (Content::Text(String::new()), answers),
                (Some(prompt), answers) => (prompt, answers),
            },
        };
        let is_text = |content: &Content| matches!(content, Content::Text(_));
        let texts = answers
            .iter()
            .filter(|(_, content)| is_text(content))
            .count();
        if !apply && is_text(&prompt) && texts == answers.len() {
            let text = |content| match content {
                Content::Text(text) => text,
                Content::Messages(_) => String::new(),
            };
            let answers = answers
                .into_iter()
                .map(|(role, c)| (role, text(c)))
                .collect();
            return Ok(Turns::Plain {
                prompt: text(prompt),
                answers,
            });
        }
        let mixed = texts != if is_text(&prompt) { answers.len() } else { 0 };
        if mixed && !apply {
            return Err(Error::input(
                "a string beside a list of messages, where they belong together",
            )
            .hint("write both the same way, or set data.apply_chat_template = true"));
        }
        let messages = |content, role| match content {
            Content::Text(text) => vec![Message::new(role, &text)],
            Content::Messages(messages) => messages,
        };
        let answers = answers
            .drain(..)
            .map(|(role, content)| (role, messages(content, "assistant")))
            .collect();
        Ok(Turns::Chat {
            prompt: messages(prompt, "user"),
            answers,
        })
    }

    /// A whole conversation as prompt and answer; a text has no prompt.
    fn split(&self, mut answers: Contents) -> Result<(Option<Content>, Contents)> {
        let Some((_, Content::Messages(messages))) = answers.first_mut() else {
            return Ok((None, answers));
        };
        let mut turns = messages.iter();
        let at = match self.config.assistant_turns {
            AssistantTurns::All => turns.position(Message::is_assistant),
            AssistantTurns::Last => turns.rposition(Message::is_assistant),
        };
        let at = at.ok_or_else(|| {
            Error::input("the conversation has no message of the assistant")
                .hint("there is nothing to learn from it")
        })?;
        let answer = messages.split_off(at);
        let prompt = std::mem::replace(messages, answer);
        Ok((Some(Content::Messages(prompt)), answers))
    }

    // Without one no conversation can be read.
    fn template(&self) -> std::result::Result<&ChatTemplate, RowError> {
        self.opened().map_err(RowError::Fatal)
    }

    fn opened(&self) -> Result<&ChatTemplate> {
        if let Some(template) = self.template.get() {
            return Ok(template);
        }
        let tokenizer = self.tokenizer.ok_or_else(|| {
            Error::input("the row is a conversation, which a chat template makes a text of")
                .hint("name the model whose template it is")
        })?;
        let template = tokenizer.chat_template()?;
        Ok(self.template.get_or_init(|| template))
    }

    fn prompt_text(&self, prompt: &[Message]) -> std::result::Result<String, RowError> {
        match prompt.last() {
            None => {
                let error = Error::input("the conversation begins with the assistant")
                    .hint("a message of the user or the system comes before it");
                Err(RowError::Unusable(Invalid::NoUserMessage, error))
            }
            Some(last) if last.is_assistant() => {
                Err(Error::input("the prompt's last message is the assistant's")
                    .hint("to continue a message is not supported; end the prompt with the user's")
                    .into())
            }
            Some(_) => Ok(self.template()?.render(prompt, true)?),
        }
    }

    fn answer(
        &self,
        prompt: &[Message],
        prompt_text: &str,
        role: Role,
        messages: Vec<Message>,
    ) -> std::result::Result<Answer, RowError> {
        let name = role.name();
        let ends = [("begins", messages.first()), ("ends", messages.last())];
        if let Some((end, _)) = ends
            .iter()
            .find(|(_, m)| !m.is_some_and(Message::is_assistant))
        {
            return Err(Error::input(format!(
                "the {name} answer {end} with a message that is not the assistant's"
            ))
            .hint("the answer is the assistant's, from its first message to its last")
            .into());
        }
        let template = self.template()?;
        let all = [prompt, &messages].concat();
        let whole = template.render(&all, false)?;
        // The length of what stands in front, which nothing that follows may change.
        let before = |front: String, hint: &str| match whole.starts_with(&front) {
            true => Ok(front.len()),
            false => Err(Error::input(
                "the chat template writes the same messages differently once others follow",
            )
            .hint(hint)),
        };
        let start = before(
            prompt_text.to_owned(),
            "the rendering of prompt and answer must begin with that of the prompt",
        )?;
        let mut turns = Vec::new();
        let spoken = (prompt.len()..all.len()).filter(|&turn| all[turn].is_assistant());
        for turn in spoken.filter(|_| messages.len() > 1) {
            let hint = "data.assistant_turns = \"last\" takes only the last turn of a conversation";
            let from = before(template.render(&all[..turn], true)?, hint)?;
            let to = before(template.render(&all[..=turn], false)?, hint)?;
            turns.push(from.max(start) - start..to.max(start) - start);
        }
        Ok(Answer {
            role,
            text: whole[start..].to_owned(),
            turns,
        })
    }
}

type Contents = Vec<(Role, Content)>;

enum Turns {
    Plain {
        prompt: String,
        answers: Vec<(Role, String)>,
    },
    Chat {
        prompt: Vec<Message>,
        answers: Vec<(Role, Vec<Message>)>,
    },
}
