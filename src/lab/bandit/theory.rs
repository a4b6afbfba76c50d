//! Verdicts: which losses preserve, and which interpolate (EXPO Theorem 3.1, Proposition 4.2 and the
//! interpolation criteria).
//!
//! *Why*: the theorems are about optima with exact preferences, and those can be computed. A loss
//! that somebody adds is judged by what it does, not by who it is.

use rayon::prelude::*;

use super::config::Theory;
use super::contest::Contender;
use super::policy::{kl, logs, mode, total_variation};
use super::problem::Prompt;
use super::report::Report;
use super::runs::{solve, yes};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::report::{Cell, Table};

/// A limit is reached where the total variation from it is below.
const NEAR: f64 = 1e-3;
/// A good prompt is kept where KL(pi* || pi) stays below, which is above the solver's rounding and
/// below what any change of lambda does to a loss that does not keep it.
const KEPT: f64 = 1e-8;

/// What the optima of a loss do.
struct Verdict {
    knob: Option<&'static str>,
    /// The ends of lambda.
    ends: [f64; 2],
    /// Total variation at the lower end from pi* and from the mode of pi*, at the upper from r.
    to_optimal: f64,
    to_mode: f64,
    to_reference: f64,
    /// KL(pi* || pi) on the good prompt, the largest over every lambda that mends the bad one.
    good: f64,
    /// The bad prompt's smallest KL(pi* || pi) as a share of the reference's; the worse placement.
    bad: f64,
    /// Placements of the bad prompt at which some lambda mends it, of two.
    mended: usize,
    /// Optima, and those of them that were found.
    optima: usize,
    found: usize,
}

pub fn run(config: &Theory) -> Result<Report> {
    let names: Vec<String> = match config.losses.is_all() {
        true => Loss::NAMES.iter().map(|name| (*name).to_owned()).collect(),
        false => config.losses.names.clone(),
    };
    let verdicts: Vec<Result<Verdict>> = names.par_iter().map(|name| judge(config, name)).collect();
    let columns = [
        "loss",
        "knob",
        "from",
        "to",
        "tv_pi*_at_from",
        "tv_mode_at_from",
        "tv_r_at_to",
        "interpolation",
        "kl_good_worst",
        "kl_bad_best/r",
        "mends",
        "preserves",
        "optima_found",
    ];
    let mut summary = Table::new("summary", columns);
    for (name, verdict) in names.iter().zip(verdicts) {
        match verdict {
            Ok(verdict) => summary.push(verdict.row(name)),
            Err(error) if config.losses.is_all() => summary.push(not_judged(name, &error)),
            Err(error) => return Err(error),
        }
    }
    Ok(Report {
        summary,
        details: Vec::new(),
        figures: Vec::new(),
    })
}

fn not_judged(name: &str, error: &Error) -> Vec<Cell> {
    let why = error.to_string();
    let why = why.rsplit(": ").next().unwrap_or_default();
    let why = why.split(';').next().unwrap_or_default();
    let mut row: Vec<Cell> = vec![name.into(), "".into()];
    row.extend(vec![Cell::Empty; 5]);
    row.push(format!("no bandit: {why}").into());
    row.extend(vec![Cell::Empty; 2]);
    row.extend(["".into(), "".into(), "".into()]);
    row
}

fn judge(config: &Theory, name: &str) -> Result<Verdict> {
    let contender = config.losses.contender(name, config.problem.responses())?;
    let losses = accepted(&contender)?;
    let [first, last] = [&losses[0], &losses[losses.len() - 1]];
    let [low, high] = [first, last].map(|(_, loss)| solve(loss, &config.problem).policy());
    let optimal = &config.problem.optimal;
    let mut verdict = Verdict {
        knob: contender.knob(),
        ends: [first.0, last.0],
        to_optimal: total_variation(&low, optimal),
        to_mode: total_variation(&low, &mode(optimal)),
        to_reference: total_variation(&high, &config.problem.reference),
        good: 0.0,
        bad: 0.0,
        mended: 0,
        optima: 0,
        found: 0,
    };
    for bad in [config.bad.clone(), config.bad.swapped()] {
        verdict.mend(&losses, &config.good, &bad);
    }
    Ok(verdict)
}

/// The loss at each lambda of its range that it accepts: a share has no 100.
fn accepted(contender: &Contender) -> Result<Vec<(f64, Loss)>> {
    let values = contender.grid.values();
    let tried: Vec<(f64, Result<Loss>)> = values
        .into_iter()
        .map(|lambda| (lambda, contender.at(lambda)))
        .collect();
    let mut refusal = None;
    let mut losses = Vec::new();
    for (lambda, loss) in tried {
        match loss {
            Ok(loss) => losses.push((lambda, loss)),
            Err(error) => refusal = Some(error),
        }
    }
    match (losses.is_empty(), refusal) {
        (true, Some(error)) => Err(error),
        _ => Ok(losses),
    }
}

impl Verdict {
    /// Looks at the good prompt wherever this bad one is mended.
    fn mend(&mut self, losses: &[(f64, Loss)], good: &Prompt, bad: &Prompt) {
        let before = kl(&bad.optimal, &logs(&bad.reference));
        let mut best = f64::INFINITY;
        for (_, loss) in losses {
            let [kept, mended] = [good, bad].map(|prompt| {
                let solved = solve(loss, prompt);
                self.optima += 1;
                self.found += usize::from(solved.converged);
                kl(&prompt.optimal, &solved.log_policy())
            });
            best = best.min(mended);
            if mended < before * (1.0 - 1e-6) {
                self.good = self.good.max(kept);
            }
        }
        self.bad = self.bad.max(best / before);
        self.mended += usize::from(best < before * (1.0 - 1e-6));
    }

    fn interpolation(&self) -> &'static str {
        if self.knob.is_none() {
            return "no lambda";
        }
        match (
            self.to_optimal < NEAR,
            self.to_mode < NEAR,
            self.to_reference < NEAR,
        ) {
            (true, _, true) => "strong",
            (_, true, true) => "weak",
            _ => "neither",
        }
    }

    fn preserves(&self) -> bool {
        self.mended == 2 && self.good < KEPT
    }

    fn row(&self, name: &str) -> Vec<Cell> {
        vec![
            name.into(),
            self.knob.unwrap_or_default().into(),
            self.knob.map(|_| self.ends[0]).into(),
            self.knob.map(|_| self.ends[1]).into(),
            self.to_optimal.into(),
            self.to_mode.into(),
            self.to_reference.into(),
            self.interpolation().into(),
            self.good.max(0.0).into(),
            self.bad.into(),
            format!("{} of 2", self.mended).into(),
            yes(self.preserves()).into(),
            format!("{} of {}", self.found, self.optima).into(),
        ]
    }
}
