//! What is looked for in the rows of a dataset.
//!
//! *Why*: one table has the name, the meaning and the level of every check, so that the report, its
//! JSON and the guide say the same.

use serde::{Serialize, Serializer};
use std::fmt::{self, Display};

/// Whether a finding is a fault, or only worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Most likely a fault in the data.
    Warning,
    /// Normal in many datasets.
    Note,
}

macro_rules! checks {
    ($($(#[$doc:meta])* $check:ident, $name:literal, $level:ident, $text:literal;)*) => {
        /// A check of one kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Check {
            $($(#[$doc])* $check,)*
        }

        impl Check {
            /// Every check, in the order of reports.
            pub const ALL: &[Self] = &[$(Self::$check),*];

            /// Its name in JSON.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$check => $name,)*
                }
            }

            /// How serious a finding is.
            pub fn level(self) -> Level {
                match self {
                    $(Self::$check => Level::$level,)*
                }
            }
        }

        impl Display for Check {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$check => $text,)*
                })
            }
        }
    };
}

checks! {
    /// The row cannot become an example.
    Unusable, "unusable", Warning, "the row cannot be used";
    /// An earlier row has the same prompt and the same answers.
    DuplicateRow, "duplicate_row", Warning, "prompt and answers are those of an earlier row";
    /// As [`DuplicateRow`](Self::DuplicateRow), case and white space aside.
    NearDuplicate, "near_duplicate", Warning,
        "prompt and answers are those of an earlier row but for case and white space";
    /// An earlier row has the same prompt, case and white space aside, and other answers.
    DuplicatePrompt, "duplicate_prompt", Note, "an earlier row has the prompt, with other answers";
    /// An earlier row has the same answers the other way round, or the answer with the other label.
    Contradiction, "contradiction", Warning,
        "an earlier row has the same answers with the opposite preference";
    /// An evaluation row whose prompt and answers are those of a training row.
    LeakedRow, "leaked_row", Warning, "prompt and answers are those of a training row";
    /// An evaluation row whose prompt is that of a training row, case and white space aside.
    LeakedPrompt, "leaked_prompt", Warning, "the prompt is that of a training row, the answers are others";
    /// The chosen answer is the rejected one.
    SameAnswers, "same_answers", Warning, "chosen and rejected answer are the same";
    /// `score_chosen` is lower than `score_rejected`.
    ScoresDisagree, "scores_disagree", Warning, "the chosen answer has the lower score";
    /// The soft label is below 1/2.
    LabelDisagrees, "label_disagrees", Warning, "the soft label prefers the rejected answer";
    /// The chosen answer is the longer one, or the shorter one, in more than 60% of the pairs.
    LengthBias, "length_bias", Warning, "the length tells chosen from rejected";
    /// One of the two labels is on less than a tenth of the answers.
    LabelImbalance, "label_imbalance", Warning, "nearly all answers have the same label";
    /// The prompt is empty or only white space.
    EmptyPrompt, "empty_prompt", Warning, "the prompt is empty or only white space";
    /// The prompt begins with white space.
    PromptBegin, "prompt_begins_with_space", Note, "the prompt begins with white space";
    /// The prompt ends with a space or a tab.
    PromptEnd, "prompt_ends_with_space", Warning,
        "the prompt ends with a space, which merges with the first token of an answer";
    /// One answer begins with white space and the other does not.
    AnswersBegin, "answers_begin_differently", Warning,
        "one answer begins with white space and the other does not";
    /// A text answer contains a turn of the user.
    TurnInAnswer, "turn_in_answer", Warning, "an answer contains a turn of the user";
    /// A message has a special token of a chat template in its content.
    RoleMarker, "role_marker", Warning, "a message has a marker such as <|im_start|> in its content";
    /// A text has more turns that begin than turns that end, or the other way round.
    UnbalancedMarkers, "unbalanced_markers", Warning, "turns that begin and turns that end do not match";
    /// Turns of the user and of the assistant do not alternate.
    TurnOrder, "turn_order", Warning, "turns of user and assistant do not alternate";
    /// The prompt or an answer has more tokens than the limits leave it.
    Cut, "cut", Note, "something is cut for length";
    /// Control characters other than tab and line ends.
    ControlCharacter, "control_character", Warning, "a text has control characters";
    /// U+FFFD, which stands for bytes that could not be read.
    ReplacementCharacter, "replacement_character", Warning, "a text has U+FFFD, a character that was lost";
    /// UTF-8 that was read as Windows-1252 or Latin-1.
    Mojibake, "mojibake", Warning, "a text has UTF-8 that was read in another encoding, such as Ã©";
    /// Zero-width, bidirectional or tag characters.
    InvisibleCharacter, "invisible_character", Note, "a text has invisible characters";
    /// Characters without a meaning in Unicode.
    PrivateCharacter, "private_character", Note, "a text has private use characters";
    /// Letters of a script that less than one row in a thousand has.
    RareScript, "rare_script", Note, "a text has letters of a script that few rows have";
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}
