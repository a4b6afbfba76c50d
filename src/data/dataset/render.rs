//! From the contents of a row to the text that the model sees.
//!
//! Hides whether a chat template had a part in it, and where in an answer of several messages the
//! assistant speaks.
//!
//! *Why*: what is learned is what the model would write behind the prompt as it is rendered when it is asked.
//! So a prompt is the same text for all its answers, and what a template would write differently once an
//! answer follows is seen, not trained on.

mod turns;

use crate::data::chat::{ChatTemplate, Content, Message};
use crate::data::config::{AssistantTurns, TokenizeConfig};
use crate::data::format::RowExample;
use crate::data::rows::{Invalid, RowError};
use crate::data::tokens::{Tokenizer, Turn};
use crate::error::{Error, Result};
use crate::loss::Role;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use turns::{Chat, Key, Texts, Variables};

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
    /// The assistant's turns that are learned, in order; none where no chat template wrote the text.
    pub turns: Vec<Turn>,
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

    pub fn example(&self, row: RowExample) -> Rendering<TextExample> {
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
            Turns::Chat(chat) => {
                check_prompt(&chat.prompt)?;
                for (role, messages) in &chat.answers {
                    check_answer(*role, messages)?;
                }
                match chat.answers.is_empty() {
                    true => {
                        let text = self.prompt_text(&chat.prompt, chat.variables)?;
                        (text, true, Vec::new())
                    }
                    false => {
                        let ends = self.tokenizer.map_or(&[][..], Tokenizer::end_texts);
                        let (prompt, answers) = turns::split(self.template()?, &chat, ends)?;
                        (prompt, true, answers)
                    }
                }
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
    pub fn prompt(&self, row: RowExample) -> Rendering<(String, bool)> {
        if row.prompt.is_none() && matches!(row.answers.first(), Some((_, Content::Text(_)))) {
            let error = Error::input("the row has no prompt");
            return Err(error.hint("its whole text is the answer").into());
        }
        match self.conversation(row)? {
            Turns::Plain { prompt, .. } => Ok((prompt, false)),
            Turns::Chat(chat) => Ok((self.prompt_text(&chat.prompt, chat.variables)?, true)),
        }
    }

    /// Settles whether the template has a part, and where a conversation's prompt ends.
    fn conversation(&self, row: RowExample) -> Result<Turns> {
        let apply = self.config.apply_chat_template;
        let is_whole = row.prompt.is_none();
        let mut variables = self.config.chat.variables.clone();
        variables.extend(row.variables);
        let (prompt, mut answers) = match (row.prompt, row.answers) {
            (Some(prompt), answers) => (prompt, answers),
            (None, answers) => match self.split(answers)? {
                (None, _) if apply => {
                    return Err(Error::input("a plain text is not a conversation")
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
        Ok(Turns::Chat(Chat {
            prompt: messages(prompt, "user"),
            answers,
            variables,
            is_whole,
        }))
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
    fn template(&self) -> Rendering<&ChatTemplate> {
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

    fn prompt_text(&self, prompt: &[Message], variables: Variables) -> Rendering<String> {
        check_prompt(prompt)?;
        let conversations = vec![prompt.to_vec()];
        let mut texts = Texts::new(self.template()?, conversations, &variables);
        let key = Key::new(0, prompt.len(), true);
        texts.fetch(&[key])?;
        Ok(texts.get(key)?.text.clone())
    }
}

fn check_prompt(prompt: &[Message]) -> Rendering<()> {
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
        Some(_) => Ok(()),
    }
}

fn check_answer(role: Role, messages: &[Message]) -> Rendering<()> {
    let ends = [("begins", messages.first()), ("ends", messages.last())];
    let other = ends
        .iter()
        .find(|(_, message)| !message.is_some_and(Message::is_assistant));
    match other {
        None => Ok(()),
        Some((end, _)) => Err(Error::input(format!(
            "the {} answer {end} with a message that is not the assistant's",
            role.name()
        ))
        .hint("the answer is the assistant's, from its first message to its last")
        .into()),
    }
}

/// What a row becomes, or why not.
pub(super) type Rendering<T> = std::result::Result<T, RowError>;

type Contents = Vec<(Role, Content)>;

enum Turns {
    Plain {
        prompt: String,
        answers: Vec<(Role, String)>,
    },
    Chat(Chat),
}
