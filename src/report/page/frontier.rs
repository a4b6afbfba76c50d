//! What several runs gained against what it cost: divergence from the reference, and diversity.

use std::fmt::Write;

use super::chart::{CHANCE, around_chance};
use super::estimator::Estimator;
use super::folder::Recorded;
use super::html::{missing, number, short, text};
use crate::lab::story::{Column, Estimate};
use crate::report::chart::{
    Anchor, Axis, Curve, Drawing, Form, Label, Look, PAGE_COLORS, Plot, Role, Shape, is_drawn,
    labels, room,
};
use crate::run_dir::{ACCURACY, SAMPLED_KL, STRICT_ACCURACY};

/// A quantity of a run at its end, and on the way where records have it.
struct Quantity {
    /// In a title.
    short: &'static str,
    /// Beside its axis.
    name: &'static str,
    /// In `summary.json`, where the run is on stories.
    story: Option<fn(&Column) -> Option<Estimate>>,
    /// A metric, of evaluations if there are any.
    metric: Option<&'static str>,
    /// What a run's `kl` has to be an estimate of.
    estimator: Option<Estimator>,
}

const fn of_story(
    short: &'static str,
    name: &'static str,
    story: fn(&Column) -> Option<Estimate>,
) -> Quantity {
    Quantity {
        short,
        name,
        story: Some(story),
        metric: None,
        estimator: None,
    }
}

const fn of_records(short: &'static str, name: &'static str, metric: &'static str) -> Quantity {
    Quantity {
        short,
        name,
        story: None,
        metric: Some(metric),
        estimator: None,
    }
}

const fn of_kl(estimator: Estimator, short: &'static str, name: &'static str) -> Quantity {
    Quantity {
        estimator: Some(estimator),
        ..of_records(short, name, "kl")
    }
}

const REWARD: [Quantity; 2] = [
    of_story("Score", "score of the stories", |of| of.score),
    of_records("Accuracy", "accuracy", ACCURACY),
];

const DIVERGENCE: [Quantity; 6] = [
    of_story(
        "KL",
        "KL(pi || start), nats: mean of log pi - log r over the stories",
        |of| Some(of.kl),
    ),
    of_records(
        "KL",
        "KL(pi || r), nats: on answers to run.eval_prompts",
        SAMPLED_KL,
    ),
    of_kl(
        Estimator::Forward,
        "KL",
        "KL(r || pi), nats: on the samples of the reference",
    ),
    of_kl(
        Estimator::Reverse,
        "KL",
        "KL(pi || r), nats: on the samples of the policy",
    ),
    of_kl(Estimator::Z0, "z0", "z0 of KTO, nats"),
    of_records(
        "log-ratio of the chosen answers",
        "log-ratio of the chosen answers, nats",
        "log_ratios/chosen",
    ),
];
const DIVERSITY: [Quantity; 2] = [
    of_story("distinct-2", "distinct-2 of the stories", |of| {
        Some(of.distinct_2)
    }),
    of_records("entropy", "entropy of the next token, nats", "entropy"),
];

impl Quantity {
    /// (step, value) in the order of steps.
    fn points(&self, run: &Recorded) -> Vec<(f64, f64)> {
        let told = run.summary.as_ref().zip(self.story);
        if let Some(value) = told.and_then(|(summary, of)| summary.story_after(of)) {
            return vec![(run.last_step() as f64, value)];
        }
        if self.estimator.is_some() && self.estimator != Estimator::of(run) {
            return Vec::new();
        }
        let Some(metric) = self.metric else {
            return Vec::new();
        };
        let mut all = [format!("eval_{metric}"), metric.to_owned()]
            .into_iter()
            .map(|name| {
                let name = run.name_of(&name);
                let mut points = run.points(&name);
                // With a tie as wrong, accuracy before the first step is 0 by definition.
                if name.ends_with(STRICT_ACCURACY) {
                    points.retain(|(step, _)| *step > 0.0);
                }
                points
            });
        all.find(|points| !points.is_empty()).unwrap_or_default()
    }
}

/// The first of quantities that every finished run has, or every run where none is finished; or else the last.
fn choose<'a>(quantities: &'a [Quantity], runs: &[Recorded]) -> &'a Quantity {
    let none_finished = !runs.iter().any(Recorded::is_finished);
    let known = |quantity: &&Quantity| {
        let mut counted = runs.iter().filter(|run| run.is_finished() || none_finished);
        counted.all(|run| !quantity.points(run).is_empty())
    };
    let last = &quantities[quantities.len() - 1];
    quantities.iter().find(known).unwrap_or(last)
}

/// The two frontiers.
pub fn frontiers(runs: &[Recorded]) -> String {
    let reward = choose(&REWARD, runs);
    let divergence = choose(&DIVERGENCE, runs);
    let mut html = String::from(
        "<p class=\"lead\">Where each run ended, and the evaluations on its way there.</p>\n\
         <div class=\"charts two\">",
    );
    for x in [divergence, choose(&DIVERSITY, runs)] {
        html += &scatter(x, reward, runs);
    }
    html += "</div>\n";
    if divergence.metric == Some(SAMPLED_KL) {
        let of = |run: &Recorded| {
            let answers = run.latest("sampled_kl_answers")?;
            let cut = 100.0 * run.latest("sampled_kl_cut").unwrap_or(f64::NAN);
            Some(format!(
                "{}: {answers} answers, {cut:.0}% cut",
                text(&run.name)
            ))
        };
        let each: Vec<String> = runs.iter().filter_map(of).collect();
        let _ = writeln!(
            html,
            "<p class=\"note\">KL(pi || r) is the mean of log pi - log r over answers of the policy to the \
             prompts of run.eval_prompts ({}).</p>",
            each.join("; ")
        );
    }
    if divergence.short.starts_with("log-ratio") {
        html += "<p class=\"note\">The log-ratio of the chosen answers is not a distance: it is negative \
                 where they became less likely than under the reference. These runs have no divergence \
                 by one estimator.</p>\n";
    }
    html
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
/// The mean width of a letter of a name, and its height.
const LETTER: f64 = 6.2;
const LINE: f64 = 11.0;
/// Left, top, right, bottom.
const FRAME: [f64; 4] = [48.0, 24.0, 404.0, 252.0];

fn scatter(x: &Quantity, y: &Quantity, runs: &[Recorded]) -> String {
    let title = format!("{} against {}", y.short, x.short);
    let paths: Vec<Vec<(f64, f64)>> = runs.iter().map(|run| path(x, y, run)).collect();
    let without: Vec<String> = runs
        .iter()
        .zip(&paths)
        .filter(|(_, path)| path.is_empty())
        .map(|(run, _)| text(&run.name))
        .collect();
    if without.len() == runs.len() {
        return missing(&format!(
            "No figure of {} against {}: no run has both.",
            y.name, x.name
        ));
    }
    let is_accuracy = y.metric == Some(ACCURACY);
    let across = axis(&paths, |point| point.0, false);
    let up = axis(&paths, |point| point.1, is_accuracy);
    let plot = Plot {
        x: &across,
        y: &up,
        frame: FRAME,
    };
    let [left, _, right, bottom] = FRAME;
    let mut shapes = plot.grid(true);
    let label = |text: &str, at, anchor| Shape::text(Role::Label, text, at, anchor);
    let middle = [(left + right) / 2.0, bottom + 38.0];
    shapes.push(label(y.name, [left, 12.0], Anchor::Start));
    shapes.push(label(x.name, middle, Anchor::Middle));
    if is_accuracy {
        let [_, chance] = plot.place((across.from, CHANCE));
        shapes.push(Shape {
            title: Some("0.5: chance".to_owned()),
            ..Shape::lines(Role::Rule, vec![vec![[left, chance], [right, chance]]])
        });
    }
    for (at, (run, path)) in runs.iter().zip(&paths).enumerate() {
        shapes.extend(trace(at, run, path, &plot));
    }
    let ends = runs.iter().zip(&paths).filter_map(|(run, path)| {
        Some(Label {
            text: &run.name,
            width: LETTER * run.name.chars().count() as f64,
            point: plot.place(*path.last()?),
        })
    });
    shapes.extend(labels(&ends.collect::<Vec<_>>(), LINE, FRAME));
    let svg = Drawing {
        width: WIDTH,
        height: HEIGHT,
        label: format!("{title}: {} over {}", y.name, x.name),
        shapes,
    }
    .to_element();
    let mut html = format!(
        "<figure class=\"chart frontier\"><figcaption><h3>{}</h3></figcaption>{svg}<ul class=\"legend\">",
        text(&title)
    );
    for (at, (run, path)) in runs.iter().zip(&paths).enumerate() {
        if let Some(&(to_x, to_y)) = path.last() {
            let _ = write!(
                html,
                "<li><span class=\"dot c{}\"></span>{}: {} at {}</li>",
                at % PAGE_COLORS,
                text(&run.name),
                number(to_y),
                number(to_x)
            );
        }
    }
    html += "</ul>";
    if !without.is_empty() {
        let _ = write!(
            html,
            "<p class=\"note\">Not in the figure, without {} or {}: {}.</p>",
            x.short,
            y.short,
            without.join(", ")
        );
    }
    html + "</figure>\n"
}

/// The way of one run.
fn trace(at: usize, run: &Recorded, path: &[(f64, f64)], plot: &Plot<'_>) -> Vec<Shape> {
    let Some(&end) = path.last() else {
        return Vec::new();
    };
    let mut shapes = plot.curve(&Curve {
        label: run.name.clone(),
        color: at,
        look: Look::Faint,
        points: path.to_vec(),
    });
    let [x, y] = plot.place(end);
    shapes.push(Shape {
        title: Some(format!(
            "{}: {} at {}",
            run.name,
            short(end.1),
            short(end.0)
        )),
        ..Shape::new(Role::Curve(at, Look::Dots), Form::Dots(vec![[x, y]], 5.0))
    });
    shapes
}

/// (x, y) at the steps that have both.
fn path(x: &Quantity, y: &Quantity, run: &Recorded) -> Vec<(f64, f64)> {
    let (x, y) = (x.points(run), y.points(run));
    let mut rest = y.iter().peekable();
    let both = x.iter().filter_map(|(step, x)| {
        // Both are in the order of steps.
        while rest.next_if(|(other, _)| other < step).is_some() {}
        let (_, y) = rest.next_if(|(other, _)| other == step)?;
        (is_drawn(*x) && is_drawn(*y)).then_some((*x, *y))
    });
    both.collect()
}

fn axis(paths: &[Vec<(f64, f64)>], of: fn(&(f64, f64)) -> f64, is_accuracy: bool) -> Axis {
    let all = paths.iter().flatten().map(of);
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let (low, high) = match is_accuracy {
        true => around_chance(low, high),
        false => (low, high),
    };
    let room = room(low, high, 0.1);
    Axis::linear("", low - room, high + room)
}
