//! Scores of a pair's answers, such as a judge's grades.
//!
//! Hides what each use of them makes of a row.
//!
//! *Why*: a score says how much better an answer is, where a label says only which. What follows from
//! it is the user's to decide, so it is a key, off by default.

use crate::data::config::Scores;
use crate::data::format::RowExample;
use crate::data::rows::invalid::{Invalid, RowError};
use crate::data::rows::read::Row;
use crate::error::Error;

/// Reads `score_chosen` and `score_rejected` for what they are to do, and for the loss if it is
/// `needed`.
pub(super) fn apply(
    scores: Scores,
    needed: bool,
    row: &Row,
    example: &mut RowExample,
) -> std::result::Result<(), RowError> {
    if scores == Scores::Ignore && !needed {
        return Ok(());
    }
    let hint = if needed { LOSS_HINT } else { HINT };
    let score = |column| {
        let value = row.need(column)?;
        // A table of texts has no other way to say it.
        let parsed = || value.as_str()?.trim().parse().ok();
        let finite = value
            .as_f64()
            .or_else(parsed)
            .filter(|score: &f64| score.is_finite());
        finite.ok_or_else(|| row.wrong(column, "a number"))
    };
    let score = |column| score(column).map_err(|error| error.hint(hint));
    let (chosen, rejected) = (score("score_chosen")?, score("score_rejected")?);
    let margin = chosen - rejected;
    if scores == Scores::Check || needed {
        match margin {
            0.0 => return Err(Invalid::Tie.into()),
            margin if margin < 0.0 => return Err(Invalid::ScoresDisagree.into()),
            _ => {}
        }
    }
    if needed {
        example.scores = Some([chosen, rejected]);
    }
    if scores != Scores::BradleyTerry {
        return Ok(());
    }
    let soft = 1.0 / (1.0 + (-margin).exp());
    match example.preference.replace(soft) {
        None => Ok(()),
        Some(_) => Err(Error::input("the row has a `preference` beside its scores")
            .hint("one of them is the soft label: leave out data.scores or the column")
            .at(&row.place)
            .into()),
    }
}

const HINT: &str = "data.scores asks for score_chosen and score_rejected; \"ignore\" does not";

const LOSS_HINT: &str = "the loss reads score_chosen and score_rejected of every row";
