//! A model, and its reference if there is one, on a preference set.
//!
//! Hides what each figure is of: d = log pi(y_w|x) - log pi(y_l|x) of the model by itself, the rewards
//! rho = log pi(y|x) - log r(y|x) and their margin h = rho_w - rho_l beside a reference, sums over
//! tokens and means per token.
//!
//! *Why*: everything follows from two or four log-probs per row, so it is arithmetic on the host, and
//! the rows are what is drawn again for the intervals.

mod calibration;
mod losses;
mod margins;
#[cfg(test)]
mod oracle;
mod pass;

use serde::Serialize;
use serde_json::{Map, Value};

use super::figure::Draws;
use crate::error::{Error, Result};
use crate::loss::{Response, Scored};

pub use calibration::{BINS, Bin, Calibration};
pub use losses::{Asked, Available, LeftOut, LossFigure, needs};
pub use margins::{Bucket, Displacement, Margins, QUANTILES};
pub use pass::{PairRows, Pairs, score_pairs};

use calibration::sigmoid;
use margins::{differences, lengths};

/// How a preference set is evaluated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The losses; all that have a value where there is none.
    pub losses: Vec<Asked>,
    /// beta of the prediction sigma(beta h), in (0, inf).
    pub beta: f64,
    /// Into how many parts the rows are split by length.
    pub length_buckets: usize,
    /// How intervals are drawn.
    pub draws: Draws,
}

impl Settings {
    /// The defaults, for these losses.
    pub fn new(losses: Vec<Asked>) -> Self {
        Self {
            losses,
            beta: 0.1,
            length_buckets: 5,
            draws: Draws::default(),
        }
    }

    /// Checks what is no number or out of range.
    pub fn validate(&self) -> Result<()> {
        if !(self.beta > 0.0 && self.beta.is_finite()) {
            let what = format!("beta is {}", self.beta);
            return Err(Error::input(what).hint("it lies in (0, inf)"));
        }
        for (name, count) in [
            ("length-buckets", self.length_buckets),
            ("bootstrap", self.draws.count),
        ] {
            if !(1..=1_000_000).contains(&count) {
                return Err(Error::input(format!("{name} is {count}")).hint("from 1 to 1000000"));
            }
        }
        Ok(())
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Rows.
    pub rows: usize,
    /// Rows whose label p(chosen > rejected) is not 1.
    pub soft_labels: usize,
    /// beta of sigma(beta h).
    pub beta: f64,
    /// How the intervals were drawn, over rows.
    pub bootstrap: Draws,
    /// The losses that have a value here.
    pub losses: Vec<LossFigure>,
    /// The others.
    pub left_out: Vec<LeftOut>,
    /// The margin d, of log-probs.
    pub policy: Margins,
    /// The margin h, of rewards rho, where there is a reference.
    pub reward: Option<Margins>,
    /// How log-probs moved from the reference.
    pub displacement: Option<Displacement>,
    /// sigma(beta h) where there is a reference, then sigma(d).
    pub calibration: Vec<Calibration>,
    /// By n_w - n_l, of h where there is a reference, else of d.
    pub lengths: Vec<Bucket>,
}

/// A number of each of a row's two answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Both {
    /// Of the chosen one.
    pub chosen: f64,
    /// Of the rejected one.
    pub rejected: f64,
}

/// A row, with all that the figures are made of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Its number from 0 in its files.
    pub row: usize,
    /// log pi(y|x), in nats.
    pub log_probs: Both,
    /// |y|.
    pub tokens: Both,
    /// log r(y|x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Both>,
    /// log pi(y|x) - log r(y|x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho: Option<Both>,
    /// log pi(y_w|x) - log pi(y_l|x).
    pub d: f64,
    /// rho_w - rho_l.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h: Option<f64>,
    /// sigma(beta h), or without a reference sigma(d).
    pub p: f64,
    /// p(chosen > rejected) by the row.
    pub label: f64,
    /// The losses by their names.
    pub losses: Map<String, Value>,
}

/// Evaluates examples, each with a chosen and a rejected response, whose rows have these numbers.
///
/// # Errors
/// If there is none, or a loss that was asked for has no value here.
pub fn evaluate(
    rows: &[usize],
    examples: &[Scored],
    settings: &Settings,
) -> Result<(Report, Vec<Line>)> {
    settings.validate()?;
    let pairs: Option<Vec<_>> = examples.iter().map(Scored::pair).collect();
    let pairs = pairs.filter(|pairs| !pairs.is_empty());
    let pairs = pairs.ok_or_else(|| Error::failed("there are no pairs to evaluate"))?;
    let available = Available::of(examples);
    let draws = settings.draws;
    let found = losses::losses(examples, &settings.losses, available, draws)?;
    let labels: Vec<f64> = examples
        .iter()
        .map(|e| e.preference.unwrap_or(1.0))
        .collect();
    let both = |of: &dyn Fn(&Response) -> f64| -> Vec<Both> {
        let both = pairs.iter().map(|(w, l)| Both {
            chosen: of(w),
            rejected: of(l),
        });
        both.collect()
    };
    let log_probs = both(&|y| y.policy.value);
    let tokens = both(&|y| y.tokens);
    let reference = both(&|y| y.reference);
    let rho = both(&|y| y.policy.value - y.reference);
    let with = |has: bool| has.then_some(());
    let policy = Margins::new(&log_probs, &tokens, &labels, draws);
    let reward = with(available.reference).map(|()| Margins::new(&rho, &tokens, &labels, draws));
    let (d, h) = (differences(&log_probs), differences(&rho));
    let odds: Vec<f64> = h.iter().map(|h| settings.beta * h).collect();
    let mut calibration = Vec::new();
    if available.reference {
        calibration.push(Calibration::new("sigma(beta h)", &odds, &labels, draws));
    }
    calibration.push(Calibration::new("sigma(d)", &d, &labels, draws));
    let (margin, odds) = match available.reference {
        true => (&h, &odds),
        false => (&d, &d),
    };
    let report = Report {
        rows: examples.len(),
        soft_labels: available.soft,
        beta: settings.beta,
        bootstrap: draws,
        losses: found.figures,
        left_out: found.left_out,
        policy,
        reward,
        displacement: with(available.reference).map(|()| Displacement::new(&rho, draws)),
        calibration,
        lengths: lengths(
            &differences(&tokens),
            margin,
            &labels,
            settings.length_buckets,
            draws,
        ),
    };
    let line = |at: usize| Line {
        row: rows[at],
        log_probs: log_probs[at],
        tokens: tokens[at],
        reference: with(available.reference).map(|()| reference[at]),
        rho: with(available.reference).map(|()| rho[at]),
        d: d[at],
        h: with(available.reference).map(|()| h[at]),
        p: sigmoid(odds[at]),
        label: labels[at],
        losses: report
            .losses
            .iter()
            .zip(&found.values)
            .map(|(figure, values)| (figure.loss.clone(), values[at].into()))
            .collect(),
    };
    let lines = (0..examples.len()).map(line).collect();
    Ok((report, lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::Role;

    fn pair(w: f64, l: f64, r: [f64; 2], n: [f64; 2], label: Option<f64>) -> Scored {
        let responses = [
            (Role::Chosen, w, r[0], n[0]),
            (Role::Rejected, l, r[1], n[1]),
        ];
        Scored::new(&responses, label)
            .with_confidence(&[0.0, 0.0])
            .with_shared(&[(w, r[0]), (l, r[1])])
    }

    #[test]
    fn a_model_that_is_its_reference_has_no_reward() {
        let examples: Vec<Scored> = [(-5.0, -9.0, 3.0), (-8.0, -7.0, 9.0)]
            .map(|(w, l, n)| pair(w, l, [w, l], [n, 4.0], None))
            .to_vec();
        let settings = Settings::new(Vec::new());
        let (report, lines) = evaluate(&[3, 7], &examples, &settings).unwrap();
        let reward = report.reward.unwrap();
        // Strict: a margin of 0 is not right.
        assert_eq!((reward.accuracy.value, reward.margin.value), (0.0, 0.0));
        assert_eq!(report.policy.accuracy.value, 0.5);
        assert_eq!(report.policy.accuracy_per_token.value, 1.0);
        assert_eq!(report.policy.quantiles[3], 1.5);
        assert_eq!(report.displacement.unwrap().chosen_fell.value, 0.0);
        let value = |name: &str| {
            let figure = report.losses.iter().find(|loss| loss.loss == name);
            figure.unwrap().mean.value
        };
        for (name, want) in [("dpo", 2f64.ln()), ("ipo", 25.0), ("hinge", 1.0)] {
            assert!((value(name) - want).abs() < 1e-12, "{name}");
            assert!((lines[1].losses[name].as_f64().unwrap() - want).abs() < 1e-12);
        }
        let left: Vec<&str> = report.left_out.iter().map(|l| l.loss.as_str()).collect();
        assert_eq!(left, ["cexpo", "kto", "odpo"]);
        assert_eq!((lines[0].row, lines[1].row, lines[1].p), (3, 7, 0.5));
        assert_eq!(report.calibration[0].bins[0].right, Some(0.5));
    }

    #[test]
    fn without_a_reference_there_is_no_reward() {
        let none = [f64::NAN; 2];
        let examples = [
            pair(-5.0, -9.0, none, [2.0, 3.0], Some(0.75)),
            pair(-9.0, -5.0, none, [2.0, 9.0], Some(0.75)),
        ];
        let settings = Settings::new(Vec::new());
        let (report, lines) = evaluate(&[0, 1], &examples, &settings).unwrap();
        assert!(report.reward.is_none() && report.displacement.is_none());
        assert_eq!(report.calibration.len(), 1);
        assert_eq!((report.policy.accuracy.value, report.soft_labels), (0.5, 2));
        let text = serde_json::to_value(&lines[0]).unwrap();
        assert!(text.get("h").is_none() && text.get("reference").is_none());
        assert_eq!(text["label"], 0.75);
        let asked = Settings::new(vec!["dpo".parse().unwrap()]);
        let error = evaluate(&[0, 1], &examples, &asked).unwrap_err();
        assert!(error.to_string().contains("needs a reference"), "{error}");
    }
}
