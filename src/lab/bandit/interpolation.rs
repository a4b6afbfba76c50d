//! From the optimal policy to the reference as lambda grows (EXPO figures 3, 4 and 8).

mod figures;

use rayon::prelude::*;

use figures::{curve_figure, sweep_figure};

use super::closed_form::population;
use super::config::Interpolation;
use super::contest::Contender;
use super::policy::{mode, probabilities, total_variation};
use super::problem::{Example, Prompt};
use super::report::Report;
use super::runs::{solve, solve_pairs, spread, train, with_samples, yes};
use super::solve::Solved;
use super::train::TrainConfig;
use crate::error::Result;
use crate::loss::Loss;
use crate::report::{Cell, Table};

/// Optima between two values of lambda, for the figure.
const FINER: usize = 10;
/// Points of a learning curve.
const CURVE_POINTS: usize = 200;

/// One loss at one lambda.
struct Place<'a> {
    contender: &'a Contender,
    lambda: f64,
    /// Whether the learning curves are kept: at both ends.
    curves: bool,
    solved: Solved,
    closed_form: Option<Vec<f64>>,
    /// Of each seed.
    trained: Vec<Trained>,
}

struct Trained {
    policy: Vec<f64>,
    /// (epoch, policy).
    curve: Vec<(usize, Vec<f64>)>,
}

/// A seed's pairs and the policy whose Bradley-Terry choices are the likeliest of them.
struct Drawn {
    seed: u64,
    pairs: Vec<Example>,
    fit: Solved,
}

pub fn run(config: &Interpolation) -> Result<Report> {
    let prompts = [config.problem.clone()];
    let [prompt] = &prompts;
    let contenders = config.losses.contenders(prompt.responses())?;
    // cEXPO without its second term is Bradley and Terry's likelihood.
    let likelihood = Loss::default_of("cexpo")?.with("lambda", "0")?;
    let draw = |seed| {
        let pairs = config.data.pairs(&prompts, seed);
        let fit = solve_pairs(&likelihood, prompt, &pairs);
        Drawn { seed, pairs, fit }
    };
    let drawn: Vec<Drawn> = config.train.seeds().into_iter().map(draw).collect();
    let places: Vec<(&Contender, f64, bool)> = contenders
        .iter()
        .flat_map(|contender| {
            let values = contender.grid.values();
            let last = values.len() - 1;
            let ends = move |i: usize| i == 0 || i == last;
            values
                .into_iter()
                .enumerate()
                .map(move |(i, lambda)| (contender, lambda, ends(i)))
        })
        .collect();
    let places = places
        .into_par_iter()
        .map(|(contender, lambda, curves)| {
            let loss = contender.at(lambda)?;
            let training = contender.training(&config.train)?;
            let one = |drawn: &Drawn| {
                let pairs = with_samples(
                    &drawn.pairs,
                    &prompts,
                    config.losses.sample_term,
                    drawn.seed,
                );
                trained(&loss, config, &pairs, &training, drawn.seed, curves)
            };
            Ok(Place {
                contender,
                lambda,
                curves,
                solved: solve(&loss, prompt),
                closed_form: population(&loss, prompt),
                trained: drawn.par_iter().map(one).collect::<Result<_>>()?,
            })
        })
        .collect::<Result<Vec<Place>>>()?;
    let optima = contenders
        .par_iter()
        .map(|contender| optima(contender, prompt))
        .collect::<Result<Vec<Vec<Optimum>>>>()?;
    Ok(Report {
        summary: summary(config, &places, &drawn),
        details: vec![
            sweep(config, &places, &drawn),
            optima_table(config, &contenders, &optima),
            curves(config, &places, &drawn),
        ],
        figures: vec![
            curve_figure(config, &contenders, &places, true),
            curve_figure(config, &contenders, &places, false),
            sweep_figure(config, &contenders, &places, &optima),
        ],
    })
}

/// A lambda with the policy that solves it.
type Optimum = (f64, Solved);

/// Over a finer grid than that of the training.
fn optima(contender: &Contender, prompt: &Prompt) -> Result<Vec<Optimum>> {
    let values = contender.grid.finer(FINER).values().into_iter();
    let solved = values.map(|lambda| Ok((lambda, solve(&contender.at(lambda)?, prompt))));
    solved.collect()
}

fn trained(
    loss: &Loss,
    config: &Interpolation,
    pairs: &[Example],
    training: &TrainConfig,
    seed: u64,
    keep: bool,
) -> Result<Trained> {
    let every = training.num_train_epochs.div_ceil(CURVE_POINTS);
    let mut curve = Vec::new();
    let observe = |epoch: usize, theta: &[Vec<f64>]| {
        if keep && (epoch.is_multiple_of(every) || epoch == training.num_train_epochs) {
            curve.push((epoch, probabilities(&theta[0])));
        }
    };
    let prompts = std::slice::from_ref(&config.problem);
    let theta = train(loss, prompts, pairs, training, seed, observe)?;
    Ok(Trained {
        policy: probabilities(&theta[0]),
        curve,
    })
}

/// `name_1`, `name_2`, ... for each response.
fn each(name: &str, responses: usize) -> Vec<String> {
    (1..=responses).map(|i| format!("{name}_{i}")).collect()
}

fn spreads(policies: &[&[f64]], responses: usize) -> (Vec<f64>, Vec<f64>) {
    let of = |i: usize| spread(&policies.iter().map(|p| p[i]).collect::<Vec<_>>());
    (0..responses).map(of).unzip()
}

fn furthest(p: &[f64], q: &[f64]) -> f64 {
    let gaps = p.iter().zip(q).map(|(p, q)| (p - q).abs());
    gaps.fold(0.0, f64::max)
}

impl Place<'_> {
    fn policies(&self) -> Vec<&[f64]> {
        let policies = self.trained.iter().map(|run| run.policy.as_slice());
        policies.collect()
    }

    /// The largest difference of a probability from the fit of the same pairs, over all seeds.
    fn gap_to_fit(&self, drawn: &[Drawn]) -> f64 {
        let runs = self.trained.iter().zip(drawn);
        let gaps = runs.map(|(run, drawn)| furthest(&run.policy, &drawn.fit.policy()));
        gaps.fold(0.0, f64::max)
    }

    fn closed_form_gap(&self) -> Option<f64> {
        let formula = self.closed_form.as_ref()?;
        Some(furthest(formula, &self.solved.policy()))
    }
}

/// Both ends of lambda.
fn summary(config: &Interpolation, places: &[Place], drawn: &[Drawn]) -> Table {
    let prompt = &config.problem;
    let n = prompt.responses();
    let mut columns = vec!["policy".to_owned(), "lambda".to_owned()];
    columns.extend(each("solved", n));
    columns.push("reaches".to_owned());
    columns.extend(each("trained", n));
    columns.extend(each("sd", n));
    columns.push("gap_to_fit".to_owned());
    let mut table = Table::new("summary", columns);
    let known = |name: &str, policy: &[f64]| {
        let mut row: Vec<Cell> = vec![name.into(), Cell::Empty];
        row.extend(policy.iter().map(|p| Cell::from(*p)));
        row.push("".into());
        row.extend(vec![Cell::Empty; 2 * n + 1]);
        row
    };
    table.push(known("pi*", &prompt.optimal));
    table.push(known("r", &prompt.reference));
    let fits: Vec<Vec<f64>> = drawn.iter().map(|drawn| drawn.fit.policy()).collect();
    let fits: Vec<&[f64]> = fits.iter().map(Vec::as_slice).collect();
    let (mean, sd) = spreads(&fits, n);
    let mut row: Vec<Cell> = vec!["Bradley-Terry fit of the pairs".into(), Cell::Empty];
    row.extend(vec![Cell::Empty; n]);
    let all = drawn.iter().all(|drawn| drawn.fit.converged);
    row.push(if all { "" } else { "not solved" }.into());
    row.extend(mean.into_iter().chain(sd).map(Cell::from));
    row.push(Cell::Empty);
    table.push(row);
    let ends = [
        ("pi*", prompt.optimal.clone()),
        ("mode of pi*", mode(&prompt.optimal)),
        ("r", prompt.reference.clone()),
    ];
    for place in places.iter().filter(|place| place.curves) {
        let solved = place.solved.policy();
        let near = ends
            .iter()
            .find(|(_, end)| total_variation(&solved, end) < 0.01);
        let reached = match (place.solved.converged, near) {
            (false, _) => "not solved",
            (true, Some((name, _))) => name,
            (true, None) => "between",
        };
        let (mean, sd) = spreads(&place.policies(), n);
        let mut row: Vec<Cell> = vec![place.contender.name().into(), place.lambda.into()];
        row.extend(solved.into_iter().map(Cell::from));
        row.push(reached.into());
        row.extend(mean.into_iter().chain(sd).map(Cell::from));
        row.push(place.gap_to_fit(drawn).into());
        table.push(row);
    }
    table
}

/// Every lambda.
fn sweep(config: &Interpolation, places: &[Place], drawn: &[Drawn]) -> Table {
    let n = config.problem.responses();
    let mut columns: Vec<String> = ["loss", "knob", "lambda"].map(String::from).into();
    columns.extend(each("solved", n));
    columns.extend(["converged", "closed_form_gap"].map(String::from));
    columns.extend(each("trained", n));
    columns.extend(each("sd", n));
    columns.push("gap_to_fit".to_owned());
    let mut table = Table::new("sweep", columns);
    for place in places {
        let (mean, sd) = spreads(&place.policies(), n);
        let mut row: Vec<Cell> = vec![
            place.contender.name().into(),
            place.contender.knob().unwrap_or_default().into(),
            place.lambda.into(),
        ];
        row.extend(place.solved.policy().into_iter().map(Cell::from));
        row.push(yes(place.solved.converged).into());
        row.push(place.closed_form_gap().into());
        row.extend(mean.into_iter().chain(sd).map(Cell::from));
        row.push(place.gap_to_fit(drawn).into());
        table.push(row);
    }
    table
}

fn optima_table(
    config: &Interpolation,
    contenders: &[Contender],
    optima: &[Vec<Optimum>],
) -> Table {
    let mut columns: Vec<String> = ["loss", "lambda"].map(String::from).into();
    columns.extend(each("pi", config.problem.responses()));
    columns.push("converged".to_owned());
    let mut table = Table::new("optima", columns);
    for (contender, optima) in contenders.iter().zip(optima) {
        for (lambda, solved) in optima {
            let mut row: Vec<Cell> = vec![contender.name().into(), (*lambda).into()];
            row.extend(solved.policy().into_iter().map(Cell::from));
            row.push(yes(solved.converged).into());
            table.push(row);
        }
    }
    table
}

fn curves(config: &Interpolation, places: &[Place], drawn: &[Drawn]) -> Table {
    let n = config.problem.responses();
    let mut columns: Vec<String> = ["loss", "lambda", "seed", "epoch"].map(String::from).into();
    columns.extend(each("pi", n));
    let mut table = Table::new("curves", columns);
    for place in places {
        for (run, drawn) in place.trained.iter().zip(drawn) {
            for (epoch, policy) in &run.curve {
                let mut row: Vec<Cell> = vec![
                    place.contender.name().into(),
                    place.lambda.into(),
                    (drawn.seed as f64).into(),
                    (*epoch as f64).into(),
                ];
                row.extend(policy.iter().map(|p| Cell::from(*p)));
                table.push(row);
            }
        }
    }
    table
}
