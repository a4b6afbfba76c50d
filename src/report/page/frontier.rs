//! What several runs gained against what it cost: distance from the reference, and diversity.

use std::fmt::Write;

use super::folder::Recorded;
use super::html::{missing, number, short, text};
use crate::lab::story::{Column, Estimate};
use crate::report::chart::{
    Anchor, Axis, Curve, Drawing, Form, Look, PAGE_COLORS, Plot, Role, Shape, is_drawn, room,
};
use crate::run_dir::points;

/// A quantity of a run at its end, and on the way where records have it.
struct Quantity {
    name: &'static str,
    /// In `summary.json`, where the run is on stories.
    story: Option<fn(&Column) -> Option<Estimate>>,
    /// Figures of records, the first that the run has.
    figures: &'static [&'static str],
}

const REWARD: [Quantity; 2] = [
    Quantity {
        name: "score of the stories",
        story: Some(|of| of.score),
        figures: &[],
    },
    Quantity {
        name: "accuracy of rewards",
        story: None,
        figures: &["eval_rewards/accuracies", "rewards/accuracies"],
    },
];
const DISTANCE: [Quantity; 3] = [
    Quantity {
        name: "KL from the start, nats",
        story: Some(|of| Some(of.kl)),
        figures: &[],
    },
    Quantity {
        name: "KL from the reference, nats",
        story: None,
        figures: &["eval_kl", "kl"],
    },
    Quantity {
        name: "log-ratio of chosen answers, nats",
        story: None,
        figures: &["eval_log_ratios/chosen", "log_ratios/chosen"],
    },
];
const DIVERSITY: [Quantity; 2] = [
    Quantity {
        name: "distinct-2 of the stories",
        story: Some(|of| Some(of.distinct_2)),
        figures: &[],
    },
    Quantity {
        name: "entropy of the next token, nats",
        story: None,
        figures: &["eval_entropy", "entropy"],
    },
];

impl Quantity {
    /// (step, value) in the order of steps.
    fn points(&self, run: &Recorded) -> Vec<(f64, f64)> {
        let told = run.summary.as_ref().zip(self.story);
        if let Some(value) = told.and_then(|(summary, of)| summary.story_after(of)) {
            return vec![(run.last_step() as f64, value)];
        }
        let mut all = self.figures.iter().map(|name| points(&run.records, name));
        all.find(|points| !points.is_empty()).unwrap_or_default()
    }
}

/// The first of quantities that every finished run has, or else the last.
fn choose<'a>(quantities: &'a [Quantity], runs: &[Recorded]) -> &'a Quantity {
    let known = |quantity: &&Quantity| {
        let has = runs.iter().filter(|run| !quantity.points(run).is_empty());
        has.count() == runs.len()
    };
    let last = &quantities[quantities.len() - 1];
    quantities.iter().find(known).unwrap_or(last)
}

/// The two frontiers.
pub fn frontiers(runs: &[Recorded]) -> String {
    let reward = choose(&REWARD, runs);
    let against = [
        ("Reward against distance", choose(&DISTANCE, runs)),
        ("Reward against diversity", choose(&DIVERSITY, runs)),
    ];
    let mut html = String::from(
        "<p class=\"lead\">Where each run ended, and by which evaluations it came there.</p>\n\
         <div class=\"charts two\">",
    );
    for (title, x) in against {
        html += &scatter(title, x, reward, runs);
    }
    html + "</div>\n"
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
/// Left, top, right, bottom.
const FRAME: [f64; 4] = [48.0, 24.0, 404.0, 252.0];

fn scatter(title: &str, x: &Quantity, y: &Quantity, runs: &[Recorded]) -> String {
    let paths: Vec<Vec<(f64, f64)>> = runs.iter().map(|run| path(x, y, run)).collect();
    let without: Vec<String> = runs
        .iter()
        .zip(&paths)
        .filter(|(_, path)| path.is_empty())
        .map(|(run, _)| text(&run.name))
        .collect();
    if without.len() == runs.len() {
        return missing(&format!(
            "No frontier of {} against {}: no run has a record of both.",
            y.name, x.name
        ));
    }
    let (across, up) = (axis(&paths, |point| point.0), axis(&paths, |point| point.1));
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
    for (at, (run, path)) in runs.iter().zip(&paths).enumerate() {
        shapes.extend(trace(at, run, path, &plot));
    }
    let svg = Drawing {
        width: WIDTH,
        height: HEIGHT,
        label: format!("{title}: {} over {}", y.name, x.name),
        shapes,
    }
    .to_element();
    let mut html = format!(
        "<figure class=\"chart frontier\"><figcaption><h3>{}</h3></figcaption>{svg}<ul class=\"legend\">",
        text(title)
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
            "<p class=\"note\">Without such figures: {}.</p>",
            without.join(", ")
        );
    }
    html + "</figure>\n"
}

/// The way of one run, with its name at the end.
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
    let (anchor, beside) = match x > FRAME[2] - 90.0 {
        true => (Anchor::End, x - 9.0),
        false => (Anchor::Start, x + 9.0),
    };
    let above = (y - 7.0).max(FRAME[1] + 9.0);
    shapes.push(Shape::text(Role::Name, &run.name, [beside, above], anchor));
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

fn axis(paths: &[Vec<(f64, f64)>], of: fn(&(f64, f64)) -> f64) -> Axis {
    let all = paths.iter().flatten().map(of);
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let room = room(low, high, 0.1);
    Axis::linear("", low - room, high + room)
}
