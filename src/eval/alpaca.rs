//! AlpacaEval 2's figures from its annotations: win rate, standard error, discrete win rate and the
//! length-controlled win rate.
//!
//! Hides the files and the regression.
//!
//! *Why*: these four numbers are compared between papers, so each follows the reference implementation
//! (`alpaca_eval`, `length_controlled_v1`) choice by choice: what a row without a preference counts in,
//! that lengths are divided by their standard deviation and not centred, that the indicator of a row
//! that is not gamed is the intercept, how the strength of the penalty is chosen. What it fetches, the
//! difficulty of instructions and the gamed rows, comes from files that the user names.

mod csv;
mod files;
mod regression;

use serde::Serialize;

use super::interval::{Interval, bootstrap};
use crate::error::{Error, Result};

pub use files::{Annotation, Annotations, Difficulty, Gamed, difficulties, gamed};
pub use regression::{FOLDS, Fit, Observation, cross_validated, fit, violation};

/// The weight of a gamed row: the strength of AlpacaEval's pull towards the baseline, 0.2, over its two
/// gamed models.
pub const GAMED_WEIGHT: f64 = 0.1;
const DRAWS: usize = 2000;

/// The figures, in percent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// The model, `generator_2`.
    pub model: Option<String>,
    /// What it is compared with, `generator_1`.
    pub baseline: Option<String>,
    /// Annotations that have a preference.
    pub annotations: usize,
    /// Annotations without one, which the win rates leave out.
    pub without_preference: usize,
    /// 100 mean(preference - 1).
    pub win_rate: f64,
    /// 100 sd / sqrt(n), with n - 1 in the standard deviation; `None` of a single annotation.
    pub standard_error: Option<f64>,
    /// The bootstrap's interval of the win rate, over annotations.
    pub bootstrap: Option<Interval>,
    /// 100 (wins + draws / 2) / n.
    pub discrete_win_rate: f64,
    /// Preferences above 1.5.
    pub wins: usize,
    /// Preferences below 1.5.
    pub losses: usize,
    /// Preferences of just 1.5, or 0, as older files have it.
    pub draws: usize,
    /// Mean characters of the model's outputs.
    pub mean_length: f64,
    /// Mean characters of the baseline's.
    pub baseline_length: f64,
    /// The win rate at a length difference of 0; `None` of fewer rows than its cross-validation takes.
    pub length_controlled_win_rate: Option<f64>,
    /// How that came about; `None` where model and baseline are one, whose rate is 50, and where there is
    /// no such rate.
    pub regression: Option<Regression>,
}

/// The fitted regression.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Regression {
    /// The coefficient of tanh((len_1 - len_2) / sd).
    pub length: f64,
    /// Of an instruction's difficulty; `None` without difficulties.
    pub difficulty: Option<f64>,
    /// Of the indicator of a row that is not gamed.
    pub not_gamed: f64,
    /// The inverse strength of the penalty, by cross-validation.
    pub c: f64,
    /// Gamed rows.
    pub gamed: usize,
}

/// The figures of annotations. Difficulties are one per annotation.
///
/// # Errors
/// If no annotation has a preference.
pub fn figures(
    annotations: &Annotations,
    difficulties: Option<&[f64]>,
    gamed: &[Gamed],
    seed: u64,
) -> Result<Figures> {
    let rows = &annotations.rows;
    let wins: Vec<f64> = rows.iter().filter_map(|row| row.win).collect();
    if wins.is_empty() {
        return Err(
            Error::input(format!("none of {} rows has a preference", rows.len()))
                .hint("an annotator that failed leaves null"),
        );
    }
    let n = wins.len() as f64;
    let mean = wins.iter().sum::<f64>() / n;
    let squares: f64 = wins.iter().map(|win| (win - mean).powi(2)).sum();
    let count = |holds: fn(f64) -> bool| wins.iter().filter(|win| holds(**win)).count();
    let (won, drawn) = (count(|win| win > 0.5), count(|win| win == 0.5));
    let of_units = |units: &[usize]| {
        100.0 * units.iter().map(|&unit| wins[unit]).sum::<f64>() / units.len() as f64
    };
    let length = |of: fn(&Annotation) -> usize| {
        rows.iter().map(|row| of(row) as f64).sum::<f64>() / rows.len() as f64
    };
    let same = annotations.model.is_some() && annotations.model == annotations.baseline;
    let controlled = match same {
        true => None,
        false => controlled(rows, difficulties, gamed)?,
    };
    let rate = controlled.as_ref().map(|(rate, _)| *rate);
    Ok(Figures {
        model: annotations.model.clone(),
        baseline: annotations.baseline.clone(),
        annotations: wins.len(),
        without_preference: rows.len() - wins.len(),
        win_rate: 100.0 * mean,
        standard_error: (n > 1.0).then(|| 100.0 * (squares / (n - 1.0) / n).sqrt()),
        bootstrap: bootstrap(wins.len(), DRAWS, seed, of_units),
        discrete_win_rate: 100.0 * (won as f64 + drawn as f64 / 2.0) / n,
        wins: won,
        losses: count(|win| win < 0.5),
        draws: drawn,
        mean_length: length(|row| row.length),
        baseline_length: length(|row| row.baseline_length),
        length_controlled_win_rate: if same { Some(50.0) } else { rate },
        regression: controlled.map(|(_, regression)| regression),
    })
}

/// The length-controlled win rate: the mean over all annotations, also those without a preference, of
/// what the regression says at a length difference of 0. `None` of too few rows.
fn controlled(
    rows: &[Annotation],
    difficulties: Option<&[f64]>,
    gamed: &[Gamed],
) -> Result<Option<(f64, Regression)>> {
    let gaps: Vec<f64> = rows
        .iter()
        .map(|row| row.baseline_length as f64 - row.length as f64)
        .collect();
    let scale = deviation(&gaps);
    let scaled = |gap: f64| if scale > 0.0 { gap / scale } else { 0.0 };
    let difficulty = |row: usize| difficulties.map(|all| all[row]);
    let features = |length: f64, difficulty: Option<f64>, not_gamed: f64| {
        let mut features = vec![length.tanh()];
        features.extend(difficulty);
        features.push(not_gamed);
        features
    };
    let gamed_rows = gamed.iter().map(|row| Observation {
        features: features(row.length, difficulties.and(Some(row.difficulty)), 0.0),
        target: row.win,
        weight: GAMED_WEIGHT,
    });
    let own = rows.iter().enumerate().filter_map(|(at, row)| {
        Some(Observation {
            features: features(scaled(gaps[at]), difficulty(at), 1.0),
            target: row.win?,
            weight: 1.0,
        })
    });
    let observations: Vec<Observation> = gamed_rows.chain(own).collect();
    if observations.len() < FOLDS {
        return Ok(None);
    }
    let Fit { weights, c } = cross_validated(&observations)?;
    let (length, not_gamed) = (weights[0], weights[weights.len() - 1]);
    let slope = difficulties.map(|_| weights[1]);
    let at_zero = |row: usize| {
        let z = not_gamed + slope.unwrap_or(0.0) * difficulty(row).unwrap_or(0.0);
        1.0 / (1.0 + (-z).exp())
    };
    let rate = (0..rows.len()).map(at_zero).sum::<f64>() / rows.len() as f64;
    let regression = Regression {
        length,
        difficulty: slope,
        not_gamed,
        c,
        gamed: gamed.len(),
    };
    Ok(Some((100.0 * rate, regression)))
}

/// The standard deviation, with n - 1.
fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if n > 1.0 {
        (squares / (n - 1.0)).sqrt()
    } else {
        0.0
    }
}
