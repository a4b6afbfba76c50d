//! Scores of a pair's answers, such as a judge's grades.
//!
//! Hides what each use of them makes of a row.
//!
//! *Why*: a score says how much better an answer is, where a label says only which. What follows from
//! it is the user's to decide, so it is a key, and nothing happens by itself.

use crate::data::config::Scores;
use crate::data::format::RowExample;
use crate::data::rows::read::Row;
use crate::data::rows::report::Invalid;
use crate::error::{Error, Result};

/// Reads `score_chosen` and `score_rejected` for what they are to do, and for the loss if it is
/// `needed`; the reason where the row cannot be used.
pub(super) fn apply(
    scores: Scores,
    needed: bool,
    row: &Row,
    example: &mut RowExample,
) -> Result<Option<Invalid>> {
    if scores == Scores::Ignore && !needed {
        return Ok(None);
    }
    let hint = if needed { LOSS_HINT } else { HINT };
    let score = |column| {
        let value = row.need(column)?.as_f64();
        let finite = value.filter(|score| score.is_finite());
        finite.ok_or_else(|| row.wrong(column, "a number"))
    };
    let score = |column| score(column).map_err(|error| error.hint(hint));
    let (chosen, rejected) = (score("score_chosen")?, score("score_rejected")?);
    let margin = chosen - rejected;
    if scores == Scores::Check || needed {
        match margin {
            0.0 => return Ok(Some(Invalid::Tie)),
            margin if margin < 0.0 => return Ok(Some(Invalid::ScoresDisagree)),
            _ => {}
        }
    }
    if needed {
        example.scores = Some([chosen, rejected]);
    }
    if scores != Scores::BradleyTerry {
        return Ok(None);
    }
    let soft = 1.0 / (1.0 + (-margin).exp());
    match example.preference.replace(soft) {
        None => Ok(None),
        Some(_) => Err(Error::input("the row has a `preference` beside its scores")
            .hint("one of them is the soft label: leave out data.scores or the column")
            .at(&row.place)),
    }
}

const HINT: &str = "data.scores asks for score_chosen and score_rejected; \"ignore\" does not";

const LOSS_HINT: &str = "the loss reads score_chosen and score_rejected of every row";
