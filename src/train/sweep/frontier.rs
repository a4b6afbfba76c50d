//! The outcomes of a sweep as a figure.

use std::path::Path;

use super::Outcome;
use super::comparison::{
    CHOSEN, Compared, EVAL_ACCURACY, EVAL_KL, EVAL_SAMPLED_KL, SCORE, STORY_KL,
};
use crate::config::{PlannedRun, SweepConfig};
use crate::error::Result;
use crate::lab::story::{Grammar, Tilt};
use crate::loss::{KnobValue, Loss};
use crate::report::{Axis, Curve, Figure, Look, Panel, Rule, significant};

/// What a policy gains against how far it is from the reference. On stories the score against the KL,
/// beside the best that any policy could do (q e^(c s), for every c) and the way from the grammar to
/// Bradley and Terry's optimum. Elsewhere accuracy: against the KL where all runs estimate the same one,
/// else against the log-ratio of the chosen answers, which is no distance. `None` where no run has both.
/// Runs that are not in the figure are named below it.
///
/// # Errors
/// If the grammar cannot be opened.
pub fn frontier(config: &SweepConfig, outcomes: &[Outcome]) -> Result<Option<Figure>> {
    let story = config
        .runs
        .first()
        .and_then(|run| run.config.story.as_ref());
    let (x, y, x_label, title) = match story {
        Some(_) => (STORY_KL, SCORE, "KL(pi || start), nats", "Score against KL"),
        None if all_have(&EVAL_SAMPLED_KL, outcomes) => (
            EVAL_SAMPLED_KL,
            EVAL_ACCURACY,
            "KL(pi || r), nats",
            "Accuracy against KL",
        ),
        None if estimate_one_kl(config, outcomes) => (
            EVAL_KL,
            EVAL_ACCURACY,
            "KL(r || pi), nats",
            "Accuracy against KL",
        ),
        None => (
            CHOSEN,
            EVAL_ACCURACY,
            "log-ratio of the chosen answers, nats",
            "Accuracy against the log-ratio of the chosen answers",
        ),
    };
    let mut notes = vec![estimator(&x, outcomes)];
    let mut curves: Vec<Curve> = Vec::new();
    let mut without: Vec<String> = Vec::new();
    for outcome in outcomes {
        let (Some(x), Some(y)) = (x.value(outcome), y.value(outcome)) else {
            without.push(name(outcome));
            continue;
        };
        match curves.iter_mut().find(|curve| curve.label == outcome.loss) {
            Some(curve) => curve.points.push((x, y)),
            None => curves.push(Curve {
                label: outcome.loss.clone(),
                color: curves.len(),
                look: Look::Dots,
                points: vec![(x, y)],
            }),
        }
    }
    if curves.is_empty() {
        return Ok(None);
    }
    if !without.is_empty() {
        notes.push(format!(
            "Not in the figure, without {} or {}: {}.",
            x.name,
            y.name,
            without.join(", ")
        ));
    }
    let widest = curves
        .iter()
        .flat_map(|curve| curve.points.iter().map(|(x, _)| *x));
    // A run that fell apart would press the others into the corner.
    let widest = widest
        .fold(1.0, f64::max)
        .min(story.map_or(f64::INFINITY, |_| 12.0));
    if let Some(story) = story {
        curves.extend(optima(
            &Grammar::open(&story.grammar)?,
            &story.prompts,
            curves.len(),
            widest,
        )?);
    }
    let ends = |of: fn(&(f64, f64)) -> f64| {
        let all = curves.iter().flat_map(|curve| curve.points.iter().map(of));
        let finite = all.filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let room = 0.05 * (high - low).max(1e-6);
        (low - room, high + room)
    };
    let (from_x, to_x) = ends(|point| point.0);
    let (mut from_y, mut to_y) = ends(|point| point.1);
    if story.is_none() {
        // Chance is in the frame.
        (from_y, to_y) = (from_y.min(CHANCE - 0.05), to_y.max(CHANCE + 0.05));
    }
    let to_x = to_x.min(1.05 * widest);
    let beyond = outcomes
        .iter()
        .filter(|outcome| x.value(outcome).is_some_and(|x| x > to_x));
    let beyond: Vec<String> = beyond
        .map(|outcome| {
            format!(
                "{} ({})",
                name(outcome),
                significant(x.value(outcome).unwrap_or(f64::NAN))
            )
        })
        .collect();
    if !beyond.is_empty() {
        notes.push(format!(
            "Beyond the frame to the right: {}.",
            beyond.join(", ")
        ));
    }
    for curve in &mut curves {
        curve.points.retain(|(x, _)| *x <= to_x);
    }
    Ok(Some(Figure {
        name: "frontier".into(),
        title: title.into(),
        columns: 1,
        panels: vec![Panel {
            title: String::new(),
            x: Axis::linear(x_label, from_x, to_x),
            y: Axis::linear(y.name, from_y, to_y),
            curves,
            rules: match story {
                Some(_) => Vec::new(),
                None => vec![Rule {
                    label: "chance".into(),
                    color: None,
                    y: CHANCE,
                }],
            },
        }],
        notes,
    }))
}

/// The accuracy of a coin.
const CHANCE: f64 = 0.5;

/// A run as a figure names it.
fn name(outcome: &Outcome) -> String {
    format!("{} {}", outcome.loss, outcome.settings)
        .trim()
        .to_owned()
}

/// Whether all runs report KL(r || pi) on samples of the reference: those of EXPO, unless it is told to
/// estimate another divergence.
fn estimate_one_kl(config: &SweepConfig, outcomes: &[Outcome]) -> bool {
    let is_expo = |run: &PlannedRun| {
        let reverse =
            |loss: &Loss| loss.knob("unsupervised") == Some(KnobValue::Word("reverse_kl"));
        let is_one = |loss: &Loss| matches!(loss.name(), "cexpo" | "rexpo") && !reverse(loss);
        run.config.loss.terms().iter().all(is_one)
    };
    config.runs.iter().all(is_expo) && all_have(&EVAL_KL, outcomes)
}

/// Whether every run that came to its end has the figure; of one that did not the figure says so.
fn all_have(figure: &Compared, outcomes: &[Outcome]) -> bool {
    let mut ended = outcomes
        .iter()
        .filter(|outcome| outcome.summary.is_some())
        .peekable();
    ended.peek().is_some() && ended.all(|outcome| figure.value(outcome).is_some())
}

/// How the figure across is made.
fn estimator(x: &Compared, outcomes: &[Outcome]) -> String {
    let mut summaries = outcomes
        .iter()
        .filter_map(|outcome| outcome.summary.as_ref());
    let story = summaries.find_map(|summary| summary.story.as_ref());
    match (x.name, story) {
        ("KL", Some(story)) => format!(
            "KL(pi || start): mean of log pi - log r over {} stories, {} for each of {} prompts.",
            story.prompts * story.samples,
            story.samples,
            story.prompts
        ),
        ("KL", None) => {
            "KL(r || pi): mean of log r - log pi over the samples of the reference for the \
                         evaluation rows."
                .to_owned()
        }
        ("sampled KL", _) => {
            let answers = outcomes.iter().filter_map(|outcome| {
                outcome
                    .summary
                    .as_ref()?
                    .evaluated("eval_sampled_kl_answers")
            });
            let most = answers.fold(0.0, f64::max);
            format!(
                "KL(pi || r): mean of log pi - log r over {most} answers of the policy to the prompts of \
                 run.eval_prompts."
            )
        }
        _ => "The log-ratio is no distance: it is negative where the answers became less likely."
            .to_owned(),
    }
}

/// Score against KL from the grammar, exactly, as means over the prompts of a file.
fn optima(grammar: &Grammar, prompts: &Path, color: usize, widest: f64) -> Result<Vec<Curve>> {
    let mut texts = Vec::new();
    for record in crate::data::read::rows(prompts)? {
        texts.push(record?.row?.text("prompt")?.to_owned());
    }
    let prompts: Vec<_> = texts
        .iter()
        .filter_map(|text| grammar.prompt(text))
        .collect();
    let at = |tilt: Tilt| {
        let tilted: Vec<_> = prompts.iter().map(|prompt| prompt.tilted(tilt)).collect();
        let mean = |of: &dyn Fn(usize) -> f64| {
            (0..tilted.len()).map(of).sum::<f64>() / tilted.len().max(1) as f64
        };
        (mean(&|i| tilted[i].kl()), mean(&|i| tilted[i].score()))
    };
    let steps = || (0..=40).map(|step| f64::from(step) / 40.0);
    let best = steps().map(|step| {
        at(Tilt {
            base: 1.0,
            score: 10.0 * step * step,
        })
    });
    let way = steps().map(|step| {
        at(Tilt {
            base: 1.0 - step,
            score: step,
        })
    });
    let curve = |label: &str, color, look, points: Vec<(f64, f64)>| Curve {
        label: label.into(),
        color,
        look,
        points: points.into_iter().filter(|(kl, _)| *kl <= widest).collect(),
    };
    Ok(vec![
        curve("best possible", color, Look::Line, best.collect()),
        curve("to Bradley-Terry", color + 1, Look::Dashed, way.collect()),
    ])
}
