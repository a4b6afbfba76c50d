//! DPO and RLHF once something else binds the policy (TYPO figure 3, right).

use rayon::prelude::*;

use super::closed_form::{rlhf, rlhf_slope};
use super::config::{Constraint, Penalty};
use super::policy::{kl, log_softmax, logs, probabilities, pull_back};
use super::problem::{Example, Slope, Task};
use super::report::Report;
use super::runs::{spread, yes};
use super::solve::{Solved, minimize};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::report::{Axis, Cell, Curve, Figure, Look, Panel, Rule, Table};

struct Place {
    alpha: f64,
    dpo: Solved,
    rlhf: Solved,
    /// KL of the two trained policies, of each seed.
    trained: Vec<f64>,
}

pub fn run(config: &Constraint) -> Result<Report> {
    let loss = Loss::default_of("dpo")?.with("beta", &format!("{:?}", config.beta))?;
    // Equality without a penalty is the statement, wherever the range begins.
    let mut alphas = config.alpha.values();
    if alphas[0] > 0.0 {
        alphas.insert(0, 0.0);
    }
    let places = alphas
        .into_par_iter()
        .map(|alpha| {
            let seeds = config.train.seeds().into_iter();
            let trained = seeds.map(|seed| trained(config, &loss, alpha, seed));
            Ok(Place {
                alpha,
                dpo: solved(config, alpha, dpo_objective(config, &loss)),
                rlhf: solved(config, alpha, rlhf_objective(config)),
                trained: trained.collect::<Result<_>>()?,
            })
        })
        .collect::<Result<Vec<Place>>>()?;
    Ok(Report {
        summary: summary(config, &places),
        details: vec![distances(config, &places)],
        figures: vec![figure(config, &places)],
    })
}

fn dpo_objective<'a>(config: &'a Constraint, loss: &'a Loss) -> impl Fn(&[f64]) -> Slope + 'a {
    let task = Task::new(loss, &config.problem);
    let pairs = config.problem.population();
    move |theta| task.evaluate(theta, &pairs)
}

fn rlhf_objective(config: &Constraint) -> impl Fn(&[f64]) -> Slope {
    |theta| rlhf_slope(&config.problem, config.beta, theta)
}

fn solved(config: &Constraint, alpha: f64, objective: impl Fn(&[f64]) -> Slope) -> Solved {
    let start = logs(&config.problem.reference);
    minimize(
        |theta| penalised(config.penalty, alpha, theta, objective(theta)),
        &start,
    )
}

/// The objective plus alpha times the penalty.
fn penalised(penalty: Penalty, alpha: f64, theta: &[f64], objective: Slope) -> Slope {
    let (value, grad) = match penalty {
        Penalty::Theta => {
            let squares = theta.iter().map(|x| x * x).sum::<f64>();
            (squares, theta.iter().map(|x| 2.0 * x).collect::<Vec<_>>())
        }
        Penalty::Policy => {
            let log_policy = log_softmax(theta);
            let squares: Vec<f64> = log_policy.iter().map(|x| (2.0 * x).exp()).collect();
            let slopes: Vec<f64> = squares.iter().map(|x| 2.0 * x).collect();
            (squares.iter().sum(), pull_back(&slopes, &log_policy))
        }
    };
    let entries = objective.grad.iter().zip(grad);
    Slope {
        value: objective.value + alpha * value,
        grad: entries.map(|(g, p)| g + alpha * p).collect(),
    }
}

/// The papers' training of both, the same number of steps: KL(DPO || RLHF) at its end.
fn trained(config: &Constraint, loss: &Loss, alpha: f64, seed: u64) -> Result<f64> {
    let prompts = std::slice::from_ref(&config.problem);
    let pairs = config.data.pairs(prompts, seed);
    let task = Task::new(loss, &config.problem);
    let start = vec![logs(&config.problem.reference)];
    let bound =
        |theta: &[f64], objective| vec![penalised(config.penalty, alpha, theta, objective).grad];
    let dpo =
        |theta: &[Vec<f64>], batch: &[Example]| bound(&theta[0], task.evaluate(&theta[0], batch));
    let rlhf = |theta: &[Vec<f64>], _: &[Example]| {
        bound(
            &theta[0],
            rlhf_slope(&config.problem, config.beta, &theta[0]),
        )
    };
    let train = &config.train;
    let dpo = train.train(start.clone(), &pairs, seed, dpo, |_, _| ());
    let rlhf = train.train(start, &pairs, seed, rlhf, |_, _| ());
    let far = kl(&probabilities(&dpo[0]), &log_softmax(&rlhf[0]));
    match far.is_finite() {
        true => Ok(far),
        false => Err(Error::non_finite("the policy is not finite after training")),
    }
}

impl Place {
    fn distance(&self) -> f64 {
        // Rounding can take the KL of equal policies below 0.
        kl(&self.dpo.policy(), &self.rlhf.log_policy()).max(0.0)
    }
}

/// No penalty, the widest gap, the strongest penalty.
fn summary(config: &Constraint, places: &[Place]) -> Table {
    let widest = places
        .iter()
        .max_by(|a, b| a.distance().total_cmp(&b.distance()));
    let mut table = Table::new(
        "summary",
        [
            "where",
            "alpha",
            "kl_dpo_rlhf",
            "converged",
            "trained",
            "sd",
        ],
    );
    let last = places.last();
    let rows = [
        ("no penalty", places.first()),
        ("widest", widest),
        ("strongest penalty", last),
    ];
    for (name, place) in rows {
        let Some(place) = place else { continue };
        let (mean, sd) = spread(&place.trained);
        table.push(vec![
            name.into(),
            place.alpha.into(),
            place.distance().into(),
            yes(place.dpo.converged && place.rlhf.converged).into(),
            mean.into(),
            sd.into(),
        ]);
    }
    let formula = rlhf(&config.problem, config.beta);
    let gap = places
        .first()
        .map(|place| kl(&formula, &place.rlhf.log_policy()).max(0.0));
    table.push(vec![
        "closed form".into(),
        0.0.into(),
        gap.into(),
        "".into(),
        Cell::Empty,
        Cell::Empty,
    ]);
    table
}

fn distances(config: &Constraint, places: &[Place]) -> Table {
    let n = config.problem.responses();
    let mut columns = vec!["alpha".to_owned()];
    for name in ["dpo", "rlhf"] {
        columns.extend((1..=n).map(|i| format!("{name}_{i}")));
    }
    columns.extend(["kl_dpo_rlhf", "converged", "trained", "sd"].map(String::from));
    let mut table = Table::new("distances", columns);
    for place in places {
        let (mean, sd) = spread(&place.trained);
        let mut row: Vec<Cell> = vec![place.alpha.into()];
        row.extend(place.dpo.policy().into_iter().map(Cell::from));
        row.extend(place.rlhf.policy().into_iter().map(Cell::from));
        row.push(place.distance().into());
        row.push(yes(place.dpo.converged && place.rlhf.converged).into());
        row.extend([mean.into(), sd.into()]);
        table.push(row);
    }
    table
}

fn figure(config: &Constraint, places: &[Place]) -> Figure {
    let from = config.alpha.values()[0];
    let x = config.alpha.axis("\u{3b1}");
    let bound = places.iter().filter(|place| place.alpha >= from);
    let bound: Vec<&Place> = bound.collect();
    let panel = |title: &str, of: &dyn Fn(&Place) -> f64| {
        let points: Vec<(f64, f64)> = bound.iter().map(|place| (place.alpha, of(place))).collect();
        let start = places.first().map_or(0.0, of);
        let most = points.iter().fold(start, |most, (_, y)| most.max(*y));
        Panel {
            title: title.to_owned(),
            x: x.clone(),
            y: Axis::linear("KL(DPO | RLHF)", 0.0, (1.1 * most).max(1e-12)).with_room(),
            curves: vec![Curve {
                label: "DPO and RLHF with a penalty".to_owned(),
                color: 0,
                look: Look::Line,
                points,
            }],
            rules: vec![Rule {
                label: "without".to_owned(),
                color: None,
                y: start,
            }],
        }
    };
    let penalty = match config.penalty {
        Penalty::Theta => "\u{3b1} |\u{3b8}|\u{b2}",
        Penalty::Policy => "\u{3b1} |\u{3c0}|\u{b2}",
    };
    Figure {
        name: "constraint".to_owned(),
        title: format!("DPO is not RLHF under the penalty {penalty}"),
        columns: 2,
        panels: vec![
            panel("optimum", &Place::distance),
            panel("trained", &|place| spread(&place.trained).0),
        ],
        notes: Vec::new(),
    }
}
