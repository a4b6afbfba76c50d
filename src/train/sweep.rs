//! Many runs one after the other, and what comes out side by side.
//!
//! *Why*: a run's own folder says whether it is finished, and with which config. So a sweep that was
//! interrupted, or has got new entries, makes only what is missing.

use std::path::Path;

use super::{End, Opened, Resume, Run};
use crate::config::{PlannedRun, SweepConfig};
use crate::error::{Error, Result};
use crate::lab::story::{Grammar, Tilt};
use crate::report::{Axis, Cell, Curve, Figure, Look, Panel, Table};
use crate::run_dir::{ACCURACY, CONFIG, SummaryRecord};
use crate::session::{Event, Observer, StopCondition, Stopped};

/// A run of a sweep that came to its end.
#[derive(Debug)]
pub struct Outcome {
    /// The loss.
    pub loss: String,
    /// What was set.
    pub settings: String,
    /// The run's `summary.json`; none where it met a value that is not finite.
    pub summary: Option<SummaryRecord>,
    /// What it met.
    pub failure: Option<String>,
}

/// Makes the runs of a sweep that are not there yet, and goes on with one that was interrupted. One
/// that meets a value that is not finite is an outcome like another. Where `until` ends a run, the
/// outcomes are those before it.
///
/// # Errors
/// If a folder holds a run with another config, before any run is made; any other error of a run, those
/// before it being kept.
pub fn sweep(
    config: &SweepConfig,
    until: &StopCondition,
    observe: Observer,
) -> Result<(Vec<Outcome>, Option<Stopped>)> {
    let total = config.runs.len();
    let found: Vec<Option<SummaryRecord>> =
        config.runs.iter().map(finished).collect::<Result<_>>()?;
    let mut outcomes = Vec::with_capacity(total);
    for (number, (run, found)) in config.runs.iter().zip(found).enumerate() {
        let name = format!("{} {}", run.loss, run.settings);
        observe(Event::SweepRun {
            number: number + 1,
            total,
            name: name.trim(),
            found: found.is_some(),
        });
        let made = match found {
            Some(summary) => Ok(Ok(summary)),
            None => make(run, until, observe),
        };
        let (summary, failure) = match made {
            Ok(Ok(summary)) => (Some(summary), None),
            Ok(Err(stopped)) => return Ok((outcomes, Some(stopped))),
            Err(error) if error.is_non_finite() => (None, Some(error.to_string())),
            Err(error) => return Err(run.source.locate(error).at(name.trim())),
        };
        outcomes.push(Outcome {
            loss: run.loss.clone(),
            settings: run.settings.clone(),
            summary,
            failure,
        });
    }
    Ok((outcomes, None))
}

/// The summary of a run that was finished with just this config.
fn finished(run: &PlannedRun) -> Result<Option<SummaryRecord>> {
    let folder = &run.config.run.output_dir;
    let Ok(config) = std::fs::read_to_string(folder.join(CONFIG)) else {
        return Ok(None);
    };
    if config != run.config.to_toml()? {
        return Err(Error::input("holds a run with another config")
            .hint("choose another run.output_dir for the sweep, or remove the folder")
            .at(folder.display()));
    }
    SummaryRecord::open(folder)
}

fn make(
    run: &PlannedRun,
    until: &StopCondition,
    observe: Observer,
) -> Result<std::result::Result<SummaryRecord, Stopped>> {
    let mut run = match Run::open_with(run.config.clone(), &Resume::Auto, &[], observe)? {
        Opened::Run(run) => run,
        Opened::Finished(summary) => return Ok(Ok(*summary)),
    };
    run.until = until.clone();
    Ok(match run.train(observe)? {
        End::Finished(summary) => Ok(summary.record()),
        End::Stopped(stopped) => Err(stopped),
    })
}

/// A figure that is compared: the column's name, and where a summary has it.
type Compared = (&'static str, fn(&SummaryRecord) -> Option<f64>);

const FIGURES: [Compared; 5] = [
    ("eval loss", |of| of.evaluated("eval_loss")),
    ("accuracy", |of| of.evaluated(&format!("eval_{ACCURACY}"))),
    ("margin", |of| of.evaluated("eval_rewards/margins")),
    ("log-ratio chosen", |of| {
        of.evaluated("eval_log_ratios/chosen")
    }),
    ("log-ratio rejected", |of| {
        of.evaluated("eval_log_ratios/rejected")
    }),
];

/// The figures of the stories drawn after training.
const STORY: [Compared; 6] = [
    ("score", |of| of.story_after(|after| after.score)),
    ("KL", |of| of.story_after(|after| Some(after.kl))),
    ("entropy", |of| of.story_after(|after| Some(after.entropy))),
    ("distinct-1", |of| {
        of.story_after(|after| Some(after.distinct_1))
    }),
    ("distinct-2", |of| {
        of.story_after(|after| Some(after.distinct_2))
    }),
    ("in the grammar", |of| {
        of.story_after(|after| Some(after.in_grammar))
    }),
];

/// The outcomes as a table, a row per run; figures that no run has are left out.
pub fn comparison(outcomes: &[Outcome]) -> Table {
    let number = |outcome: &Outcome, (_, of): &Compared| of(outcome.summary.as_ref()?);
    let known: Vec<Compared> = STORY
        .into_iter()
        .chain(FIGURES)
        .filter(|compared| outcomes.iter().any(|o| number(o, compared).is_some()))
        .collect();
    let names = known.iter().map(|(name, _)| *name);
    let mut table = Table::new("sweep", ["loss", "settings"].into_iter().chain(names));
    for outcome in outcomes {
        let figures = known
            .iter()
            .map(|compared| Cell::from(number(outcome, compared)));
        let words = [outcome.loss.as_str(), outcome.settings.as_str()].map(Cell::from);
        table.push(words.into_iter().chain(figures).collect());
    }
    table
}

/// The frontier: what a policy gains against how far it is from the reference. On stories the score
/// against the KL, beside the best that any policy could do (q e^(c s), for every c) and the way from
/// the grammar to Bradley and Terry's optimum; elsewhere accuracy against how far the log-probs of
/// chosen answers moved. `None` where no run has both.
///
/// # Errors
/// If the grammar cannot be opened.
pub fn frontier(config: &SweepConfig, outcomes: &[Outcome]) -> Result<Option<Figure>> {
    let story = config
        .runs
        .first()
        .and_then(|run| run.config.story.as_ref());
    let (x, y) = match story {
        Some(_) => (STORY[1], STORY[0]),
        None => (FIGURES[3], FIGURES[1]),
    };
    let mut curves: Vec<Curve> = Vec::new();
    for outcome in outcomes {
        let at = |(_, of): Compared| of(outcome.summary.as_ref()?);
        let (Some(x), Some(y)) = (at(x), at(y)) else {
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
    let (from_y, to_y) = ends(|point| point.1);
    let to_x = to_x.min(1.05 * widest);
    for curve in &mut curves {
        curve.points.retain(|(x, _)| *x <= to_x);
    }
    Ok(Some(Figure {
        name: "frontier".into(),
        title: "what is gained, and how far from the reference".into(),
        columns: 1,
        panels: vec![Panel {
            title: String::new(),
            x: Axis::linear(x.0, from_x, to_x),
            y: Axis::linear(y.0, from_y, to_y),
            curves,
            rules: Vec::new(),
        }],
    }))
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
