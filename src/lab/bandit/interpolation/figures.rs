//! Learning curves and policies over lambda, a panel for each loss.

use super::{Optimum, Place, Trained, spreads};
use crate::lab::bandit::config::Interpolation;
use crate::lab::bandit::contest::Contender;
use crate::lab::bandit::runs::lambda_label;
use crate::report::{Axis, Curve, Figure, Look, Panel, Rule, significant};

/// pi* as dashed lines in the colours of the responses.
fn dashed(optimal: &[f64]) -> Vec<Rule> {
    let rule = |(i, y): (usize, &f64)| Rule {
        label: format!("\u{3c0}*(y{})", i + 1),
        color: Some(i),
        y: *y,
    };
    optimal.iter().enumerate().map(rule).collect()
}

fn probability_axis() -> Axis {
    Axis::linear("probability of a response", 0.0, 1.0)
}

/// The most probabilities that a note lists.
const FEW: usize = 8;

/// What the responses and the dashed lines are.
fn notes(config: &Interpolation) -> Vec<String> {
    let problem = &config.problem;
    let n = problem.responses();
    let list = |policy: &[f64]| {
        let few = policy.iter().take(FEW).map(|share| significant(*share));
        let more = (policy.len() > FEW).then(|| "...".to_owned());
        few.chain(more).collect::<Vec<_>>().join(", ")
    };
    vec![format!(
        "y1 to y{n} are the {n} responses to the one prompt; \u{3c0}(y) is the probability that the \
         trained policy gives to one. Dashed: \u{3c0}*, the policy that the preferences were drawn from \
         ({}). Training begins at the reference ({}).",
        list(&problem.optimal),
        list(&problem.reference)
    )]
}

/// Learning curves at the smallest or the largest lambda.
pub fn curve_figure(
    config: &Interpolation,
    contenders: &[Contender],
    places: &[Place],
    small: bool,
) -> Figure {
    let n = config.problem.responses();
    let panel = |contender: &Contender| {
        let mut ends = places
            .iter()
            .filter(|place| place.curves && place.contender.name() == contender.name());
        let place = if small { ends.next() } else { ends.next_back() };
        let runs = place.map_or(&[][..], |place| &place.trained);
        let mut curves = Vec::new();
        for i in 0..n {
            let points = |run: &Trained| -> Vec<(f64, f64)> {
                let points = run.curve.iter().map(|(epoch, pi)| (*epoch as f64, pi[i]));
                points.collect()
            };
            let seeds: Vec<Vec<(f64, f64)>> = runs.iter().map(points).collect();
            let mean = |k: usize| {
                let y = seeds.iter().map(|seed| seed[k].1).sum::<f64>() / seeds.len() as f64;
                (seeds[0][k].0, y)
            };
            let mean: Vec<_> = (0..seeds.first().map_or(0, Vec::len)).map(mean).collect();
            let faint = |points| curve(String::new(), i, Look::Faint, points);
            curves.extend(seeds.into_iter().map(faint));
            curves.push(curve(format!("\u{3c0}(y{})", i + 1), i, Look::Line, mean));
        }
        let epochs = runs.first().and_then(|run| run.curve.last());
        let lambda = place.map_or(f64::NAN, |place| place.lambda);
        Panel {
            title: format!("{}, \u{3bb} = {}", contender.name(), significant(lambda)),
            x: Axis::linear("epoch", 0.0, epochs.map_or(1.0, |(epoch, _)| *epoch as f64)),
            y: probability_axis(),
            curves,
            rules: dashed(&config.problem.optimal),
        }
    };
    let size = if small { "small" } else { "large" };
    Figure {
        name: format!("curves_{size}"),
        title: format!("Learning curves at {size} \u{3bb}, mean and each seed"),
        columns: contenders.len().min(5),
        panels: contenders.iter().map(panel).collect(),
        notes: notes(config),
    }
}

fn curve(label: String, color: usize, look: Look, points: Vec<(f64, f64)>) -> Curve {
    Curve {
        label,
        color,
        look,
        points,
    }
}

/// Policies over lambda: lines for optima, dots with bars of one standard deviation for training.
pub fn sweep_figure(
    config: &Interpolation,
    contenders: &[Contender],
    places: &[Place],
    optima: &[Vec<Optimum>],
) -> Figure {
    let n = config.problem.responses();
    let panel = |(contender, optima): (&Contender, &Vec<Optimum>)| {
        let own = places
            .iter()
            .filter(|place| place.contender.name() == contender.name());
        let own: Vec<&Place> = own.collect();
        let mut curves = Vec::new();
        for i in 0..n {
            let solved = optima
                .iter()
                .map(|(lambda, solved)| (*lambda, solved.policy()[i]));
            let solved = solved.collect();
            curves.push(curve(
                format!("\u{3c0}(y{}), optimum", i + 1),
                i,
                Look::Line,
                solved,
            ));
            let mut dots = Vec::new();
            for place in &own {
                let (mean, sd) = spreads(&place.policies(), n);
                dots.push((place.lambda, mean[i]));
                let bar = [mean[i] - sd[i], mean[i] + sd[i]].map(|y| (place.lambda, y));
                curves.push(curve(String::new(), i, Look::Bar, bar.to_vec()));
            }
            curves.push(curve(
                format!("\u{3c0}(y{}), trained", i + 1),
                i,
                Look::Dots,
                dots,
            ));
        }
        Panel {
            title: contender.name().to_owned(),
            x: contender.grid.axis(&lambda_label(contender.knob())),
            y: probability_axis(),
            curves,
            rules: dashed(&config.problem.optimal),
        }
    };
    Figure {
        name: "sweep".to_owned(),
        title: "Converged policies over \u{3bb}".to_owned(),
        columns: contenders.len().min(5),
        panels: contenders.iter().zip(optima).map(panel).collect(),
        notes: notes(config),
    }
}
