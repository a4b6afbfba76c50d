//! Why a row cannot be used.
//!
//! *Why*: a row is somebody's data, and a file has all kinds of them. What is wrong with one is a value
//! that is counted; only what no other row would change ends a reading.

use crate::error::{Error, Kind};
use std::fmt::{self, Display};

/// Why a row cannot be used: what it is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invalid {
    /// The line or item is not a JSON object.
    NotAnObject,
    /// A column that the format reads is not there.
    MissingColumn,
    /// A column that the format reads is null.
    NullColumn,
    /// A column is not what the format reads.
    Malformed,
    /// A conversation is an empty list.
    NoMessages,
    /// An item of a conversation is not an object with `role` and `content`.
    NotAMessage,
    /// A message has a role that templates do not know.
    UnknownRole,
    /// A message has no content, or null.
    NoContent,
    /// The content of a message is a number, an image or another thing than text.
    ContentIsNoText,
    /// A conversation has no message of the assistant.
    NoAssistantMessage,
    /// A conversation begins with the assistant.
    NoUserMessage,
    /// An answer begins with a message that is not the assistant's.
    NotTheAssistants,
    /// A conversation ends with a message that is not the assistant's.
    EndsWithUser,
    /// The rejected transcript or conversation does not begin with the prompt of the chosen one.
    PromptDiffers,
    /// HH: the chosen transcript has no `\n\nAssistant:`.
    NoAssistantTurn,
    /// An answer is empty or only white space.
    EmptyAnswer,
    /// AlpacaEval: the annotation has no preference.
    NoPreference,
    /// A comparison is a tie.
    NoWinner,
    /// Fewer than two of the answers have a rank.
    FewAnswers,
    /// The chosen answer has a lower score than the rejected one.
    ScoresDisagree,
    /// The two answers have the same score.
    Tie,
    /// The only answer is a rejected one, and the loss reads chosen ones.
    NothingChosen,
    /// The sample file has no response to the prompt.
    NoSample,
    /// The tokenizer makes no tokens of a text.
    TokenizerRefuses,
    /// The chat template fails or raises an exception.
    TemplateRefuses,
    /// The chat template writes the prompt, or a turn, differently once others follow.
    NotPrefixStable,
    /// The chat template does not write the content of an answer.
    AnswerNotRendered,
    /// An answer has no token with a log-prob: after an empty prompt the first one has none.
    NothingToScore,
}

impl Invalid {
    /// Whether the row is left out for what the user chose, and nothing is wrong with it.
    pub(in crate::data) fn is_choice(self) -> bool {
        matches!(
            self,
            Self::NoPreference
                | Self::NoWinner
                | Self::ScoresDisagree
                | Self::Tie
                | Self::NothingChosen
                | Self::NoSample
        )
    }

    /// Whether the columns are to blame.
    pub(in crate::data) fn is_of_columns(self) -> bool {
        matches!(
            self,
            Self::MissingColumn | Self::NullColumn | Self::Malformed
        )
    }

    /// Its name in the record of a run.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAnObject => "not_an_object",
            Self::MissingColumn => "missing_column",
            Self::NullColumn => "null_column",
            Self::Malformed => "malformed",
            Self::NoMessages => "no_messages",
            Self::NotAMessage => "not_a_message",
            Self::UnknownRole => "unknown_role",
            Self::NoContent => "no_content",
            Self::ContentIsNoText => "content_is_no_text",
            Self::NoAssistantMessage => "no_assistant_message",
            Self::NoUserMessage => "no_user_message",
            Self::NotTheAssistants => "not_the_assistants",
            Self::EndsWithUser => "ends_with_user",
            Self::PromptDiffers => "prompt_differs",
            Self::NoAssistantTurn => "no_assistant_turn",
            Self::EmptyAnswer => "empty_answer",
            Self::NoPreference => "no_preference",
            Self::NoWinner => "no_winner",
            Self::FewAnswers => "few_answers",
            Self::ScoresDisagree => "scores_disagree",
            Self::Tie => "tie",
            Self::NothingChosen => "nothing_chosen",
            Self::NoSample => "no_sample",
            Self::TokenizerRefuses => "tokenizer_refuses",
            Self::TemplateRefuses => "template_refuses",
            Self::NotPrefixStable => "not_prefix_stable",
            Self::AnswerNotRendered => "answer_not_rendered",
            Self::NothingToScore => "nothing_to_score",
        }
    }
}

/// Why a row does not become an example.
#[derive(Debug, Clone, PartialEq)]
pub enum RowError {
    /// The row is left out and counted, or refused with this error, as `on_invalid` says.
    Unusable(Invalid, Error),
    /// What no other row would change: a failure of the system, a model without a chat template.
    Fatal(Error),
}

/// An input error is the row's, under [`Invalid::Malformed`]; any other is fatal.
impl From<Error> for RowError {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::Input => Self::Unusable(Invalid::Malformed, error),
            _ => Self::Fatal(error),
        }
    }
}

impl From<Invalid> for RowError {
    fn from(reason: Invalid) -> Self {
        Self::Unusable(reason, Error::input(reason.to_string()))
    }
}

impl RowError {
    /// An input error of a text's tokens is the row's; any other is fatal.
    pub(in crate::data) fn of_tokens(error: Error) -> Self {
        match Self::from(error) {
            Self::Unusable(_, error) => Self::Unusable(Invalid::TokenizerRefuses, error),
            fatal @ Self::Fatal(_) => fatal,
        }
    }

    /// Names the place of the row.
    #[must_use]
    pub fn at(self, place: impl Display) -> Self {
        match self {
            Self::Unusable(reason, error) => Self::Unusable(reason, error.at(place)),
            Self::Fatal(error) => Self::Fatal(error.at(place)),
        }
    }

    /// Names the place of the row where the error names none.
    #[must_use]
    pub fn placed(self, place: impl Display) -> Self {
        let has_place = match &self {
            Self::Unusable(_, error) | Self::Fatal(error) => !error.places().is_empty(),
        };
        if has_place { self } else { self.at(place) }
    }

    /// The error, whatever became of the row.
    pub fn into_error(self) -> Error {
        match self {
            Self::Unusable(_, error) | Self::Fatal(error) => error,
        }
    }
}

impl Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnObject => "not a JSON object",
            Self::MissingColumn => "a column is missing",
            Self::NullColumn => "a column is null",
            Self::Malformed => "a column is not what the format reads",
            Self::NoMessages => "a conversation is an empty list",
            Self::NotAMessage => "a message is not an object with `role` and `content`",
            Self::UnknownRole => "a message has an unknown role",
            Self::NoContent => "a message has no content",
            Self::ContentIsNoText => "the content of a message is not text",
            Self::NoAssistantMessage => "the conversation has no message of the assistant",
            Self::NoUserMessage => "the conversation begins with the assistant",
            Self::NotTheAssistants => "an answer begins with a message that is not the assistant's",
            Self::EndsWithUser => {
                "the conversation ends with a message that is not the assistant's"
            }
            Self::PromptDiffers => "the two answers have different prompts",
            Self::NoAssistantTurn => "the transcript has no `\\n\\nAssistant:`",
            Self::EmptyAnswer => "an answer is empty or only white space",
            Self::NoPreference => "the annotation has no preference",
            Self::NoWinner => "neither answer won",
            Self::FewAnswers => "fewer than two of the answers have a rank",
            Self::ScoresDisagree => "the chosen answer has a lower score than the rejected one",
            Self::Tie => "the two answers have the same score",
            Self::NothingChosen => {
                "the only answer is a rejected one, which the loss does not read"
            }
            Self::NoSample => "the sample file has no response to the prompt",
            Self::TokenizerRefuses => "the tokenizer refuses a text",
            Self::TemplateRefuses => "the chat template refuses the messages",
            Self::NotPrefixStable => "the chat template is not prefix-stable for the messages",
            Self::AnswerNotRendered => "the chat template does not write the answer's content",
            Self::NothingToScore => "an answer has no token that could be scored",
        })
    }
}
