//! Keeping a good prompt while mending a bad one (EXPO figure 5).

use rayon::prelude::*;

use super::config::{Distance, Placement, Preservation};
use super::contest::Contender;
use super::grid::Scale;
use super::policy::{kl, log_softmax, logs};
use super::problem::Prompt;
use super::report::Report;
use super::runs::{solve, spread, train, with_samples, yes};
use super::solve::Solved;
use crate::error::Result;
use crate::report::{Axis, COLORS, Cell, Curve, Figure, Look, Panel, Rule, Table};

/// The prompts in the order of their logits.
const PROMPTS: [&str; 2] = ["good", "bad"];

/// One loss at one lambda under one placement.
struct Place<'a> {
    placement: Placement,
    contender: &'a Contender,
    lambda: f64,
    /// Where lambda lies in its range, from 0 to 1.
    share: f64,
    /// Of each prompt: whether solved, the distance from pi*, that of each trained seed.
    prompts: Vec<Outcome>,
}

struct Outcome {
    converged: bool,
    solved: f64,
    trained: Vec<f64>,
}

pub fn run(config: &Preservation) -> Result<Report> {
    let contenders = config.losses.contenders(config.good.responses())?;
    let mut jobs: Vec<(Placement, &Contender, f64, f64)> = Vec::new();
    for placement in &config.placements {
        for contender in &contenders {
            let values = contender.grid.values();
            let last = (values.len() - 1) as f64;
            let shares = (0..values.len()).map(|i| i as f64 / last);
            jobs.extend(
                values
                    .iter()
                    .zip(shares)
                    .map(|(l, s)| (*placement, contender, *l, s)),
            );
        }
    }
    let places = jobs
        .into_par_iter()
        .map(|(placement, contender, lambda, share)| {
            let prompts = outcomes(config, placement, contender, lambda)?;
            Ok(Place {
                placement,
                contender,
                lambda,
                share,
                prompts,
            })
        })
        .collect::<Result<Vec<Place>>>()?;
    let figure = |placement: &Placement| figure(config, *placement, &contenders, &places);
    Ok(Report {
        summary: summary(config, &contenders, &places),
        details: vec![distances(&places)],
        figures: config.placements.iter().map(figure).collect(),
    })
}

impl Placement {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Notebook => "notebook",
        }
    }
}

impl Preservation {
    fn prompts(&self, placement: Placement) -> [Prompt; 2] {
        let bad = match placement {
            Placement::Text => self.bad.clone(),
            Placement::Notebook => self.bad.swapped(),
        };
        [self.good.clone(), bad]
    }

    fn distance(&self, prompt: &Prompt, log_policy: &[f64]) -> f64 {
        let kl = kl(&prompt.optimal, log_policy);
        match self.distance {
            Distance::Sum => kl,
            Distance::Mean => kl / prompt.responses() as f64,
        }
    }

    /// How far the references are, where training begins.
    fn references(&self, placement: Placement) -> [f64; 2] {
        let distance = |prompt: &Prompt| self.distance(prompt, &logs(&prompt.reference));
        self.prompts(placement).each_ref().map(distance)
    }
}

fn outcomes(
    config: &Preservation,
    placement: Placement,
    contender: &Contender,
    lambda: f64,
) -> Result<Vec<Outcome>> {
    let loss = contender.at(lambda)?;
    let training = contender.training(&config.train)?;
    let prompts = config.prompts(placement);
    let run = |seed: u64| {
        let pairs = config.data.pairs(&prompts, seed);
        let pairs = with_samples(&pairs, &prompts, config.losses.sample_term, seed);
        train(&loss, &prompts, &pairs, &training, seed, |_, _| ())
    };
    let trained: Vec<Vec<Vec<f64>>> = config
        .train
        .seeds()
        .into_iter()
        .map(run)
        .collect::<Result<_>>()?;
    let outcome = |(index, prompt): (usize, &Prompt)| {
        let solved: Solved = solve(&loss, prompt);
        let far = |theta: &Vec<Vec<f64>>| config.distance(prompt, &log_softmax(&theta[index]));
        Outcome {
            converged: solved.converged,
            solved: config.distance(prompt, &solved.log_policy()),
            trained: trained.iter().map(far).collect(),
        }
    };
    Ok(prompts.iter().enumerate().map(outcome).collect())
}

impl Place<'_> {
    fn is(&self, placement: Placement, contender: &Contender) -> bool {
        self.placement == placement && self.contender.name() == contender.name()
    }
}

/// The worst on the good prompt and the best on the bad one, over lambda.
fn summary(config: &Preservation, contenders: &[Contender], places: &[Place]) -> Table {
    let columns = [
        "placement",
        "loss",
        "good_worst",
        "bad_best",
        "at_lambda",
        "bad_reference",
        "bad_improved",
        "good_worst_trained",
        "bad_best_trained",
    ];
    let mut table = Table::new("summary", columns);
    for &placement in &config.placements {
        let [_, reference] = config.references(placement);
        for contender in contenders {
            let own = || places.iter().filter(|place| place.is(placement, contender));
            let good = own().map(|place| place.prompts[0].solved);
            let best = own().min_by(|a, b| a.prompts[1].solved.total_cmp(&b.prompts[1].solved));
            let improved = own()
                .filter(|place| place.prompts[1].solved < reference)
                .count();
            let trained =
                |prompt: usize| own().map(move |place| spread(&place.prompts[prompt].trained).0);
            table.push(vec![
                placement.name().into(),
                contender.name().into(),
                good.fold(0.0, f64::max).into(),
                best.map(|place| place.prompts[1].solved).into(),
                best.map(|place| place.lambda).into(),
                reference.into(),
                format!("{improved} of {}", own().count()).into(),
                trained(0).fold(0.0, f64::max).into(),
                trained(1).fold(f64::INFINITY, f64::min).into(),
            ]);
        }
    }
    table
}

fn distances(places: &[Place]) -> Table {
    let columns = [
        "placement",
        "prompt",
        "loss",
        "lambda",
        "solved",
        "converged",
        "trained",
        "sd",
    ];
    let mut table = Table::new("distances", columns);
    for place in places {
        for (name, outcome) in PROMPTS.iter().zip(&place.prompts) {
            let (mean, sd) = spread(&outcome.trained);
            table.push(vec![
                place.placement.name().into(),
                (*name).into(),
                place.contender.name().into(),
                place.lambda.into(),
                outcome.solved.into(),
                yes(outcome.converged).into(),
                mean.into(),
                Cell::from(sd),
            ]);
        }
    }
    table
}

/// Good and bad prompt side by side: above the optima, below the papers' training.
fn figure(
    config: &Preservation,
    placement: Placement,
    contenders: &[Contender],
    places: &[Place],
) -> Figure {
    let references = config.references(placement);
    let mut panels = Vec::new();
    for solved in [true, false] {
        for (prompt, name) in PROMPTS.iter().enumerate() {
            let line = |(color, contender): (usize, &Contender)| {
                let own = places.iter().filter(|place| place.is(placement, contender));
                let point = |place: &Place| {
                    let outcome = &place.prompts[prompt];
                    let y = match solved {
                        true => outcome.solved,
                        false => spread(&outcome.trained).0,
                    };
                    (common_place(config, place.share), y)
                };
                Curve {
                    label: contender.name().to_owned(),
                    color,
                    // Beyond the colours that can be told apart, the lines are.
                    look: if color < COLORS {
                        Look::Line
                    } else {
                        Look::Dashed
                    },
                    points: own.map(point).collect(),
                }
            };
            let what = if solved { "optimum" } else { "trained" };
            panels.push(Panel {
                title: format!("{name} prompt, {what}"),
                x: x_axis(config, contenders),
                // Far losses leave the frame; near ones can be told apart.
                y: Axis::linear(y_label(config), 0.0, 4.0 * references[1]).with_room(),
                curves: contenders.iter().enumerate().map(line).collect(),
                rules: vec![Rule {
                    label: "reference".to_owned(),
                    color: None,
                    y: references[prompt],
                }],
            });
        }
    }
    Figure {
        name: format!("preservation_{}", placement.name()),
        title: format!(
            "Distance from \u{3c0}*, bad prompt as in the {}",
            placement.name()
        ),
        columns: 2,
        panels,
        notes: notes(placement),
    }
}

/// What the two prompts are.
fn notes(placement: Placement) -> Vec<String> {
    let bad = match placement {
        Placement::Text => "as in the text of the paper",
        Placement::Notebook => {
            "as in the notebook of its authors, with \u{3c0}* and the reference exchanged"
        }
    };
    vec![format!(
        "On the good prompt the reference is close to \u{3c0}*, the policy that the preferences were drawn \
         from; on the bad one it is far from it, {bad}. The closer to 0, the better."
    )]
}

/// All losses share the axis of `[losses.lambda]`; one with a range of its own is stretched to it.
fn common_place(config: &Preservation, share: f64) -> f64 {
    let grid = &config.losses.lambda;
    grid.from + (grid.to - grid.from) * share
}

fn x_axis(config: &Preservation, contenders: &[Contender]) -> Axis {
    let grid = &config.losses.lambda;
    let scale = match grid.scale {
        Scale::Linear => "\u{3bb}",
        Scale::Ln => "ln \u{3bb}",
        Scale::Log10 => "log10 \u{3bb}",
    };
    let own = contenders
        .iter()
        .filter(|contender| contender.grid != *grid);
    let own = own.map(|contender| {
        let values = contender.grid.values();
        let (from, to) = (values[0], values[values.len() - 1]);
        format!("{}: \u{3bb} {from} to {to}", contender.name())
    });
    let own: Vec<String> = own.collect();
    let label = match own.is_empty() {
        true => scale.to_owned(),
        false => format!("{scale} ({})", own.join(", ")),
    };
    Axis::linear(&label, grid.from, grid.to)
}

fn y_label(config: &Preservation) -> &'static str {
    match config.distance {
        Distance::Sum => "KL(\u{3c0}* | \u{3c0})",
        Distance::Mean => "KL(\u{3c0}* | \u{3c0}) / responses",
    }
}
