//! Layouts of public datasets: which of their columns a format reads.
//!
//! Hides their columns.
//!
//! *Why*: a set is known by the columns it has. So a table says for each which of them a format's
//! columns are; it is asked only where the format cannot read the row as it is.

mod made;

use super::columns::{Columns, Path};
use crate::data::rows::read::Row;
use made::{asked, index, instruction, number, sign, turns, with_history};
use serde_json::{Map, Value as Json};

/// A set's columns, as a format reads them.
pub(super) struct Shape {
    pub format: &'static str,
    /// What tells it from others.
    needs: &'static [&'static str],
    /// From the format's names to what they are.
    pub takes: &'static [(&'static str, Take)],
}

/// Where a value of the format comes from.
pub(super) enum Take {
    /// As in `[data.columns]`.
    Path(&'static str),
    /// Made of these columns.
    Made(&'static [&'static str], fn(&Row) -> Option<Json>),
}

use Take::{Made, Path as At};

/// The first whose columns a row has is meant.
pub(super) static SHAPES: &[Shape] = &[
    // ShareGPT with two answers.
    Shape {
        format: "pairs",
        needs: &["conversations", "chosen", "rejected"],
        takes: &[("prompt", At("conversations"))],
    },
    // Orca.
    Shape {
        format: "pairs",
        needs: &["question", "chosen", "rejected"],
        takes: &[("prompt", At("question"))],
    },
    Shape {
        format: "pairs",
        needs: &["instruction", "chosen", "rejected"],
        takes: &[("prompt", Made(&["instruction", "input"], instruction))],
    },
    Shape {
        format: "pairs",
        needs: &["input", "chosen", "rejected"],
        takes: &[("prompt", At("input"))],
    },
    // OpenAI.
    Shape {
        format: "pairs",
        needs: &["input", "preferred_output", "non_preferred_output"],
        takes: &[
            ("prompt", At("input.messages")),
            ("chosen", At("preferred_output")),
            ("rejected", At("non_preferred_output")),
            ("tools", At("input.tools")),
        ],
    },
    // Comparisons by people: two conversations, two lists of turns, two answers.
    Shape {
        format: "compared",
        needs: &["conversation_a", "conversation_b", "winner"],
        takes: &[
            ("output_1", At("conversation_a")),
            ("output_2", At("conversation_b")),
            // A column that is the whole of both.
            ("prompt", Made(&[], |_| None)),
        ],
    },
    Shape {
        format: "compared",
        needs: &[
            "prompt",
            "response_a",
            "response_b",
            "winner_model_a",
            "winner_model_b",
        ],
        takes: &[
            (
                "prompt",
                Made(&["prompt", "response_a", "response_b"], |row| {
                    turns(row, None)
                }),
            ),
            (
                "output_1",
                Made(&["response_a"], |row| turns(row, Some("response_a"))),
            ),
            (
                "output_2",
                Made(&["response_b"], |row| turns(row, Some("response_b"))),
            ),
            (
                "winner",
                Made(&["winner_model_a", "winner_model_b", "winner_tie"], |row| {
                    sign(number(row, "winner_model_a")? - number(row, "winner_model_b")?)
                }),
            ),
        ],
    },
    // PKU-SafeRLHF.
    Shape {
        format: "compared",
        needs: &["prompt", "response_0", "response_1", "better_response_id"],
        takes: &[
            ("output_1", At("response_0")),
            ("output_2", At("response_1")),
            (
                "winner",
                Made(&["better_response_id"], |row| {
                    index(row, "better_response_id")
                }),
            ),
        ],
    },
    // SHP.
    Shape {
        format: "compared",
        needs: &["history", "human_ref_A", "human_ref_B", "labels"],
        takes: &[
            ("prompt", At("history")),
            ("output_1", At("human_ref_A")),
            ("output_2", At("human_ref_B")),
            (
                "winner",
                Made(&["labels"], |row| sign(number(row, "labels")? - 0.5)),
            ),
        ],
    },
    // HelpSteer3.
    Shape {
        format: "compared",
        needs: &["context", "response1", "response2", "overall_preference"],
        takes: &[
            ("prompt", At("context")),
            ("output_1", At("response1")),
            ("output_2", At("response2")),
            (
                "winner",
                Made(&["overall_preference"], |row| {
                    sign(-number(row, "overall_preference")?)
                }),
            ),
        ],
    },
    // HelpSteer2's preferences.
    Shape {
        format: "compared",
        needs: &["prompt", "response_1", "response_2", "preference_strength"],
        takes: &[
            ("output_1", At("response_1")),
            ("output_2", At("response_2")),
            (
                "winner",
                Made(&["preference_strength"], |row| {
                    sign(-number(row, "preference_strength")?)
                }),
            ),
        ],
    },
    // WebGPT.
    Shape {
        format: "compared",
        needs: &["question", "answer_0", "answer_1", "score_0", "score_1"],
        takes: &[
            (
                "prompt",
                Made(&["question"], |row| {
                    let question = row.get("question")?;
                    Some(question.get("full_text").unwrap_or(question).clone())
                }),
            ),
            ("output_1", At("answer_0")),
            ("output_2", At("answer_1")),
            (
                "winner",
                Made(&["score_0", "score_1"], |row| {
                    sign(number(row, "score_0")? - number(row, "score_1")?)
                }),
            ),
        ],
    },
    // Summaries of OpenAI.
    Shape {
        format: "compared",
        needs: &["info", "summaries", "choice"],
        takes: &[
            ("prompt", At("info.post")),
            ("output_1", At("summaries[0].text")),
            ("output_2", At("summaries[1].text")),
            ("winner", Made(&["choice"], |row| index(row, "choice"))),
        ],
    },
    // UltraFeedback as it was annotated.
    Shape {
        format: "ranked",
        needs: &["instruction", "completions"],
        takes: &[
            ("prompt", At("instruction")),
            ("answers", At("completions[].response")),
            (
                "scores",
                Made(&["completions"], |row| {
                    let path = |text: &str| text.parse::<Path>().ok()?.find(row);
                    let fine = path("completions[].fine-grained_score")?;
                    match fine.as_array()?.iter().all(Json::is_null) {
                        true => path("completions[].overall_score"),
                        false => Some(fine),
                    }
                }),
            ),
        ],
    },
    // Stack Exchange.
    Shape {
        format: "ranked",
        needs: &["question", "answers"],
        takes: &[
            ("prompt", At("question")),
            ("answers", At("answers[].text")),
            ("scores", At("answers[].pm_score")),
        ],
    },
    // Nectar.
    Shape {
        format: "ranked",
        needs: &["prompt", "answers"],
        takes: &[
            ("answers", At("answers[].answer")),
            ("ranks", At("answers[].rank")),
        ],
    },
    // Answers that are judged, under other names than KTO's.
    Shape {
        format: "unpaired",
        needs: &["prompt", "response", "label"],
        takes: &[("completion", At("response"))],
    },
    Shape {
        format: "unpaired",
        needs: &["messages", "label"],
        takes: &[
            ("prompt", Made(&["messages"], |row| asked(row, "messages"))),
            ("completion", At("messages[-1]")),
        ],
    },
    Shape {
        format: "unpaired",
        needs: &["messages", "kto_tag"],
        takes: &[
            ("prompt", Made(&["messages"], |row| asked(row, "messages"))),
            ("completion", At("messages[-1]")),
            ("label", At("kto_tag")),
        ],
    },
    Shape {
        format: "unpaired",
        needs: &["conversations", "kto_tag"],
        takes: &[
            (
                "prompt",
                Made(&["conversations"], |row| asked(row, "conversations")),
            ),
            ("completion", At("conversations[-1]")),
            ("label", At("kto_tag")),
        ],
    },
    Shape {
        format: "unpaired",
        needs: &["instruction", "output", "kto_tag"],
        takes: &[
            (
                "prompt",
                Made(&["instruction", "input", "history"], with_history),
            ),
            ("completion", At("output")),
            ("label", At("kto_tag")),
        ],
    },
    // ShareGPT.
    Shape {
        format: "sft",
        needs: &["conversations"],
        takes: &[("messages", At("conversations"))],
    },
    Shape {
        format: "sft",
        needs: &["conversation"],
        takes: &[("messages", At("conversation"))],
    },
    // Alpaca.
    Shape {
        format: "sft",
        needs: &["instruction", "output"],
        takes: &[
            (
                "prompt",
                Made(&["instruction", "input", "history"], with_history),
            ),
            ("completion", At("output")),
        ],
    },
    // Dolly.
    Shape {
        format: "sft",
        needs: &["instruction", "response"],
        takes: &[
            ("prompt", Made(&["instruction", "context"], instruction)),
            ("completion", At("response")),
        ],
    },
    // HelpSteer2.
    Shape {
        format: "sft",
        needs: &["prompt", "response"],
        takes: &[("completion", At("response"))],
    },
];

/// The shape of `format` that a row has.
pub(super) fn of(format: &str, row: &Row) -> Option<&'static Shape> {
    let mut of_format = SHAPES.iter().filter(|shape| shape.format == format);
    of_format.find(|shape| shape.fits(row))
}

impl Shape {
    /// Whether a row has its columns.
    pub fn fits(&self, row: &Row) -> bool {
        self.needs.iter().all(|column| row.get(column).is_some())
    }

    /// Whether the column is read.
    pub fn reads(&self, column: &str) -> bool {
        self.takes.iter().any(|(_, take)| match take {
            At(path) => path.split(['.', '[']).next() == Some(column),
            Made(columns, _) => columns.contains(&column),
        })
    }

    /// What it takes for the format's names.
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let taken = |take: &Take| match take {
            At(path) => format!("{path:?}"),
            Made(columns, _) => format!("of {}", columns.join(", ")),
        };
        let takes = self.takes.iter();
        takes.map(|(name, take)| (*name, taken(take))).collect()
    }

    /// Puts what the format reads among a row's fields, but for what `mapped` has put there.
    pub fn fill(&self, row: &Row, fields: &mut Map<String, Json>, mapped: &Columns) {
        let is_mapped = |name: &str| mapped.names().any(|other| other == name);
        for (name, take) in self.takes.iter().filter(|(name, _)| !is_mapped(name)) {
            let value = match take {
                At(path) => path.parse::<Path>().ok().and_then(|path| path.find(row)),
                Made(_, make) => make(row),
            };
            fields.insert((*name).to_owned(), value.unwrap_or(Json::Null));
        }
    }
}
