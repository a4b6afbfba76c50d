//! Which losses have a value on a preference set, and that value.
//!
//! *Why*: a loss says what it reads, so which ones apply follows from the losses themselves. One that
//! is left out is named with the reason: a table with gaps that nobody explains looks like all there is.

use std::str::FromStr;

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::eval::figure::{Draws, Figure};
use crate::loss::{Loss, Needs, Objective, Role, Scored};

/// A loss with its knobs, as `dpo` or `dpo:beta=0.05,label_smoothing=0.1`.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// What was written.
    pub name: String,
    /// What it means.
    pub loss: Loss,
}

impl FromStr for Asked {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, knobs) = match text.split_once(':') {
            Some((name, knobs)) => (name, knobs.split(',').collect()),
            None => (text, Vec::new()),
        };
        let mut loss = Loss::default_of(name)?;
        for knob in knobs {
            let (key, value) = knob.split_once('=').ok_or_else(|| {
                Error::input(format!("`{knob}` sets no knob")).hint("e.g. dpo:beta=0.05")
            })?;
            loss = loss.with(key, value)?;
        }
        loss.validate()?;
        Ok(Self {
            name: text.to_owned(),
            loss,
        })
    }
}

/// What there is for losses to read, beside pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// Log-probs of a reference.
    pub reference: bool,
    /// Responses drawn from it, to every prompt.
    pub samples: bool,
    /// Answers to other prompts.
    pub mismatched: bool,
    /// Scores of both answers, in every row.
    pub scores: bool,
    /// Rows whose label is not 1.
    pub soft: usize,
}

impl Available {
    /// In these examples.
    pub(super) fn of(examples: &[Scored]) -> Self {
        let has = |role| examples.iter().all(|e| e.of(role).next().is_some());
        let mut responses = examples.iter().flat_map(|e| &e.responses);
        let soft = |e: &&Scored| e.preference.is_some_and(|p| p != 1.0);
        Self {
            reference: responses.all(|response| response.reference.is_finite()),
            samples: has(Role::Sampled),
            mismatched: has(Role::Mismatched),
            scores: examples.iter().all(|e| e.score_gap.is_some()),
            soft: examples.iter().filter(soft).count(),
        }
    }

    /// Before any row is read: all that was asked for will be there.
    pub fn before(reference: bool, samples: bool) -> Self {
        Self {
            reference,
            samples,
            mismatched: true,
            scores: true,
            soft: 0,
        }
    }

    /// Why a loss has no value here; `None` where it has one.
    fn lacks(&self, loss: &Loss) -> Option<String> {
        let needs = loss.needs();
        let why = if needs.on_policy {
            "needs samples that the policy draws anew".into()
        } else if needs.all.contains(&Role::Sampled) && !self.samples {
            "needs samples of the reference: --samples".into()
        } else if loss.reads(f64::NAN, 1.0) && !self.reference {
            "needs a reference: --reference".into()
        } else if needs.batch.contains(&Role::Mismatched) && !self.mismatched {
            format!(
                "needs answers to other prompts scored: --loss {}",
                loss.name()
            )
        } else if needs.scores && !self.scores {
            let name = loss.name();
            format!("needs score_chosen and score_rejected: --loss {name}")
        } else if !needs.soft_labels && self.soft > 0 {
            format!(
                "has no meaning for soft labels, which {} rows have",
                self.soft
            )
        } else {
            return None;
        };
        Some(why)
    }
}

/// What is read of a row for these losses, or for those that need nothing special.
///
/// # Errors
/// If one of them has no value on such rows.
pub fn needs(asked: &[Asked], available: Available) -> Result<Needs> {
    let mut needs = Needs {
        optional: match available.samples {
            true => &[Role::Sampled],
            false => &[],
        },
        shared: true,
        confidence: true,
        ..Needs::referenced_pair()
    };
    let mut groups = Vec::new();
    for (at, Asked { name, loss }) in asked.iter().enumerate() {
        if asked[..at].iter().any(|other| other.name == *name) {
            return Err(Error::input(format!("{name} is there twice")).at("--loss"));
        }
        if let Some(why) = available.lacks(loss) {
            return Err(Error::input(format!("the loss {name} {why}")).at("--loss"));
        }
        let own = loss.needs();
        needs.scores |= own.scores;
        if own.batch.contains(&Role::Mismatched) {
            needs.batch = &[Role::Mismatched];
            groups.push(own.mismatch_group);
        }
    }
    if groups.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(Error::input("mismatch_group has two values")
            .hint("answers go to other prompts in one way at a time")
            .at("--loss"));
    }
    needs.mismatch_group = groups.first().copied().flatten();
    Ok(needs)
}

/// A loss on the whole set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossFigure {
    /// The loss as it was asked for, or its name.
    pub loss: String,
    /// Its knobs.
    pub knobs: toml::Table,
    /// Mean over rows. What a loss reads of the whole batch is of the whole set, and held fixed in
    /// the interval.
    pub mean: Figure,
}

/// A loss without a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub loss: String,
    /// Why.
    pub why: String,
}

/// The losses of a set.
pub(super) struct Losses {
    pub figures: Vec<LossFigure>,
    pub left_out: Vec<LeftOut>,
    /// Of each figure the value of each row.
    pub values: Vec<Vec<f64>>,
}

/// The losses that were asked for, or all that have a value.
pub(super) fn losses(
    examples: &[Scored],
    asked: &[Asked],
    available: Available,
    draws: Draws,
) -> Result<Losses> {
    let mut all = asked.to_vec();
    if all.is_empty() {
        for name in Loss::NAMES {
            all.push(name.parse()?);
        }
    }
    let mut left_out = Vec::new();
    let mut applying = Vec::new();
    for Asked { name, loss } in all {
        match available.lacks(&loss) {
            None => applying.push(Asked { name, loss }),
            Some(why) if asked.is_empty() => left_out.push(LeftOut { loss: name, why }),
            Some(why) => {
                return Err(Error::input(format!("the loss {name} {why}")).at("--loss"));
            }
        }
    }
    let evaluated = applying.into_par_iter().map(|Asked { name, loss }| {
        let prepared = loss.prepare(examples);
        let values: Vec<f64> = examples
            .iter()
            .enumerate()
            .map(|(index, example)| loss.evaluate(example, prepared.of(index)).value)
            .collect();
        let figure = LossFigure {
            loss: name,
            knobs: loss.table(),
            mean: Figure::mean(&values, draws),
        };
        (figure, values)
    });
    let (figures, values) = evaluated.unzip();
    Ok(Losses {
        figures,
        left_out,
        values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_read_with_its_knobs() {
        let asked: Asked = "dpo:beta=0.05,label_smoothing=0.1".parse().unwrap();
        assert_eq!(asked.loss.knob("beta"), Some(0.05.into()));
        assert_eq!(asked.loss.knob("label_smoothing"), Some(0.1.into()));
        for (wrong, word) in [
            ("dop", "did you mean `dpo`?"),
            ("dpo:beta", "sets no knob"),
            ("dpo:bta=1", "did you mean `beta`?"),
            ("dpo:beta=-1", "beta = -1"),
        ] {
            let error = wrong.parse::<Asked>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn every_loss_applies_or_says_why() {
        let nothing = Available {
            mismatched: false,
            scores: false,
            ..Available::before(false, false)
        };
        let everything = Available::before(true, true);
        let applying = |available: Available| -> Vec<&str> {
            let applies = |name: &&&str| {
                let loss = Loss::default_of(name).unwrap();
                available.lacks(&loss).is_none()
            };
            Loss::NAMES.iter().filter(applies).copied().collect()
        };
        assert_eq!(applying(nothing), ["simpo", "sft", "orpo", "cpo"]);
        assert_eq!(applying(everything).len(), Loss::NAMES.len());
        let soft = Available {
            soft: 3,
            ..everything
        };
        assert!(!applying(soft).contains(&"kto"));
    }
}
