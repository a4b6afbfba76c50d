//! What is asked of a template, and what it answers.
//!
//! *Why*: a template may run in another process, and an exchange with it costs more than a short text. So
//! all texts of a row, or of many, are asked for at once; those of one conversation share its messages.

use super::message::Message;
use super::refusal::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::ops::Range;

/// Messages, and what a template gets beside them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Conversation<'a> {
    /// The messages.
    pub messages: &'a [Message],
    /// Variables by name, `tools` and `documents` among them.
    pub variables: &'a Map<String, Json>,
}

/// One text of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rendering {
    /// The number of the conversation.
    pub conversation: usize,
    /// How many of its messages.
    pub messages: usize,
    /// Whether what the template writes in front of the assistant's answer stands behind them.
    pub add_generation_prompt: bool,
}

impl Rendering {
    /// Of the first `messages` of a conversation.
    pub fn new(conversation: usize, messages: usize, add_generation_prompt: bool) -> Self {
        Self {
            conversation,
            messages,
            add_generation_prompt,
        }
    }
}

/// What a template wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The bytes of it that stand in `{% generation %}`, in order.
    pub spans: Vec<Range<usize>>,
}

/// Renderings of conversations, each of which is JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub conversations: Vec<Vec<u8>>,
    pub renderings: Vec<Rendering>,
}

/// A conversation as it arrives.
#[derive(Debug, Deserialize)]
pub(super) struct Arrived {
    pub messages: Vec<Json>,
    pub variables: Map<String, Json>,
}

/// The answers, in the order of the renderings.
pub(super) type Answers = Vec<Result<Rendered, Refusal>>;

/// A request as [`Interpreter::render`](super::interpreter::Interpreter::render) takes it.
pub(super) fn request(
    conversations: &[Conversation],
    renderings: &[Rendering],
) -> Result<Vec<u8>, Refusal> {
    let conversations = conversations.iter().map(serde_json::to_vec);
    let request = Request {
        conversations: conversations
            .collect::<Result<_, _>>()
            .map_err(Refusal::failed)?,
        renderings: renderings.to_vec(),
    };
    postcard::to_allocvec(&request).map_err(Refusal::failed)
}
