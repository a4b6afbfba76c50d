//! Annotations of AlpacaEval: two outputs for an instruction, and how far the second is preferred.
//!
//! *Why*: `preference` lies in [1, 2] there, the index of the better output, and with several
//! annotators or a judge's probability something between. At its ends the label is hard, and the
//! better output is the chosen one; between them `output_1` is, with the probability that it wins.

use super::definition::{Format, Reading, RowExample, TruncationMode, has, text};
use crate::data::chat::Content;
use crate::data::rows::invalid::Invalid;
use crate::data::rows::read::Row;
use crate::loss::Role;

pub(super) const FORMAT: Format = Format {
    name: "alpaca_eval",
    names: &[
        "instruction",
        "output_1",
        "output_2",
        "preference",
        "score_chosen",
        "score_rejected",
    ],
    columns: "instruction, output_1, output_2; preference in [1, 2], the better output's number or between",
    truncation: TruncationMode::KeepStart,
    has_pairs: true,
    writes_turns: false,
    splits_turns: false,
    fits: |row| has(row, &["instruction", "output_1", "output_2"]),
    read,
};

fn read(row: &Row) -> Reading {
    let content = |column| text(row, column).map(Content::Text);
    let (first, second) = (content("output_1")?, content("output_2")?);
    let prompt = Some(content("instruction")?);
    // An annotator that failed leaves none.
    let Some(value) = row.get("preference") else {
        return Err(Invalid::NoPreference.into());
    };
    let preference = match value.as_f64() {
        Some(preference) if (1.0..=2.0).contains(&preference) => preference,
        _ => {
            return Err(row
                .wrong("preference", "a number from 1 (output_1 is better) to 2")
                .into());
        }
    };
    let (chosen, rejected) = match preference {
        2.0 => (second, first),
        _ => (first, second),
    };
    let is_soft = preference > 1.0 && preference < 2.0;
    Ok(RowExample {
        answers: vec![(Role::Chosen, chosen), (Role::Rejected, rejected)],
        preference: is_soft.then_some(2.0 - preference),
        ..RowExample::of_prompt(prompt)
    })
}
