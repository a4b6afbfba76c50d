//! Which figures are drawn together, for one run and for several.
//!
//! *Why*: which metrics belong together is known; what a loss reports beside them gets a chart of its own,
//! so that nothing of `metrics.jsonl` is left out. What a metric means is in one list, [`Metric::ALL`].

use std::collections::BTreeSet;

use super::chart::{Chart, Scale};
use super::folder::Recorded;
use super::html;
use crate::report::chart::{Curve, Look, PAGE_COLORS};
use crate::run_dir::{ACCURACY, Metric, SAMPLED_KL, STRICT_ACCURACY};

/// Metrics in one frame.
struct Group {
    title: &'static str,
    /// The word of each in the legend, and its name in `metrics.jsonl`.
    metrics: &'static [(&'static str, &'static str)],
    scale: Scale,
}

const fn group(title: &'static str, metrics: &'static [(&'static str, &'static str)]) -> Group {
    Group {
        title,
        metrics,
        scale: Scale::Any,
    }
}

const fn scaled(scale: Scale, group: Group) -> Group {
    Group { scale, ..group }
}

const GROUPS: [Group; 15] = [
    group("Loss", &[("", "loss")]),
    scaled(Scale::Chance, group("Accuracy", &[("", ACCURACY)])),
    group("Margin of rewards", &[("", "rewards/margins")]),
    group(
        "Rewards",
        &[
            ("chosen", "rewards/chosen"),
            ("rejected", "rewards/rejected"),
        ],
    ),
    group("KL, nats", &[("", "kl")]),
    group("Loss per token, nats", &[("", "nll_per_token")]),
    group("Perplexity", &[("", "perplexity")]),
    group("Entropy, nats", &[("", "entropy")]),
    group(
        "Log-probs, nats",
        &[("chosen", "logps/chosen"), ("rejected", "logps/rejected")],
    ),
    group(
        "Log-ratios, nats",
        &[
            ("chosen", "log_ratios/chosen"),
            ("rejected", "log_ratios/rejected"),
        ],
    ),
    group("Log-prob margin, nats", &[("", "logps/margins")]),
    scaled(
        Scale::Chance,
        group("Log-prob accuracy", &[("", "logps/accuracies")]),
    ),
    scaled(
        Scale::Share,
        group("Token accuracy", &[("", "mean_token_accuracy")]),
    ),
    scaled(
        Scale::Linear,
        group("Learning rate", &[("", "learning_rate")]),
    ),
    group("Gradient norm", &[("", "grad_norm")]),
];

/// What is no curve of its own: positions, and what is a stand-in for another metric.
const OTHERWISE: [&str; 5] = [
    "step",
    "epoch",
    "num_tokens",
    "non_finite_steps",
    STRICT_ACCURACY,
];

/// The charts of one run.
pub fn of_one(run: &Recorded) -> Vec<Chart> {
    let marks = marks(run);
    let mut charts = Vec::new();
    for group in &GROUPS {
        let mut lines = Vec::new();
        for (at, (label, name)) in group.metrics.iter().enumerate() {
            let alone = group.metrics.len() == 1;
            let word = |split: &str| match alone {
                true => split.to_owned(),
                false => format!("{label}, {split}"),
            };
            let evaluations = run.curve(&format!("eval_{name}"));
            let (color, look) = match alone {
                true => (1, Look::Marked),
                false => (at, Look::MarkedDashed),
            };
            lines.push(line(&word("training"), at, Look::Line, run.curve(name)));
            lines.push(line(&word("evaluation"), color, look, evaluations));
        }
        charts.push(chart(group, lines, &marks, &[run]));
    }
    charts.extend(others(&[run]).into_iter().map(|name| {
        let lines = vec![
            line("training", 0, Look::Line, run.points(&name)),
            line(
                "evaluation",
                1,
                Look::Marked,
                run.points(&format!("eval_{name}")),
            ),
        ];
        other(&name, lines, &marks)
    }));
    charts
}

/// The charts of several runs, a colour for each.
pub fn of_several(runs: &[Recorded]) -> Vec<Chart> {
    let lines = |name: &str| {
        let mut lines = Vec::new();
        for (at, run) in runs.iter().enumerate() {
            let evaluations = run.curve(&format!("eval_{name}"));
            // What was trained on is a background to what was not.
            let look = if evaluations.is_empty() {
                Look::Line
            } else {
                Look::Faint
            };
            let label = |split: &str| format!("{}, {split}", run.name);
            lines.push(line(&label("training"), at, look, run.curve(name)));
            lines.push(line(&label("evaluation"), at, Look::Marked, evaluations));
        }
        // Whatever is in front of others is drawn last.
        lines.sort_by_key(|line| line.look != Look::Faint);
        lines
    };
    let all: Vec<&Recorded> = runs.iter().collect();
    let mut charts = Vec::new();
    for group in &GROUPS {
        for (label, name) in group.metrics {
            let mut chart = chart(group, lines(name), &[], &all);
            if !label.is_empty() {
                chart.title = format!("{}, {label}", group.title);
            }
            chart.id = (*name).to_owned();
            chart.legend = false;
            charts.push(chart);
        }
    }
    let more = others(&all).into_iter();
    charts.extend(more.map(|name| Chart {
        legend: false,
        ..other(&name, lines(&name), &[])
    }));
    charts
}

/// The colours of several runs, for all their charts.
pub fn legend(runs: &[Recorded]) -> String {
    let mut html = String::from("<ul class=\"legend shared\">");
    for (at, run) in runs.iter().enumerate() {
        let (color, name) = (at % PAGE_COLORS, html::text(&run.name));
        html += &format!("<li><span class=\"dot c{color}\"></span>{name}</li>");
    }
    html += "</ul>";
    if runs.iter().any(Recorded::has_evaluations) {
        html +=
            "<p class=\"lead\">Evaluations have dots; what was trained on is pale behind them.</p>";
    }
    html + "\n"
}

/// The charts of `timings.jsonl`.
pub fn of_time(runs: &[Recorded]) -> Vec<Chart> {
    let several = runs.len() > 1;
    let figures = [
        ("tokens_per_second", "Tokens per second", 1.0),
        ("rows_per_second", "Rows per second", 1.0),
        ("peak_memory_bytes", "Peak memory, MiB", (1u64 << 20) as f64),
        (
            "peak_gpu_memory_bytes",
            "Peak GPU memory, MiB",
            (1u64 << 20) as f64,
        ),
    ];
    let chart = |(name, title, unit): (&str, &str, f64)| {
        let lines = runs.iter().enumerate().map(|(at, run)| {
            // Step 0 is the reference's scoring pass, which is no training.
            let timings = run.timings.iter().filter(|timing| timing.step > 0);
            let points = timings.filter_map(|timing| {
                let (_, y) = timing.figures().find(|(figure, _)| *figure == name)?;
                Some((timing.step as f64, y / unit))
            });
            let label = if several {
                run.name.as_str()
            } else {
                "training"
            };
            line(label, at, Look::Line, points.collect())
        });
        Chart {
            id: format!("time/{name}"),
            title: title.to_owned(),
            about: match name {
                "tokens_per_second" | "rows_per_second" => "evaluations and saving left out".into(),
                _ => "of the process so far".into(),
            },
            lines: lines.collect(),
            legend: false,
            ..Chart::default()
        }
    };
    figures.into_iter().map(chart).collect()
}

/// One line on each figure that is asked for and not there.
pub fn missing(run: &Recorded) -> String {
    let mut html = String::new();
    let mut say = |what: &str| html += &html::missing(what);
    if run.records.is_empty() {
        say("No record yet: the first comes after <code>run.logging_steps</code> steps.");
        return html;
    }
    if !run.has_evaluations() {
        say(
            "No evaluation: name rows in <code>data.eval</code>. Without <code>run.eval_steps</code> they \
             are evaluated before the first step and after the last.",
        );
    }
    if run.first("loss").is_none() {
        say("No training record yet: the first comes after <code>run.logging_steps</code> steps.");
        return html;
    }
    let loss = match run.run.loss.as_str() {
        "" => "this loss".to_owned(),
        loss => html::text(loss),
    };
    if run.first("rewards/margins").is_none() {
        say(&format!(
            "No rewards of pairs: <code>{loss}</code> on these rows has none."
        ));
    }
    let sampled = format!("eval_{SAMPLED_KL}");
    if ["kl", "eval_kl", &sampled]
        .iter()
        .all(|name| run.first(name).is_none())
    {
        say(
            "No KL: set <code>run.eval_prompts</code> to have it estimated on the policy's answers. The \
             EXPO losses also estimate it on samples of the reference (<code>data.samples</code>), and \
             KTO on answers to other prompts. Log-ratios say how far the log-probs of the rows' answers \
             have moved.",
        );
    }
    html
}

fn line(label: &str, color: usize, look: Look, points: Vec<(f64, f64)>) -> Curve {
    Curve {
        label: label.to_owned(),
        color,
        look,
        points,
    }
}

fn chart(group: &Group, lines: Vec<Curve>, marks: &[(u64, String)], runs: &[&Recorded]) -> Chart {
    let name = group.metrics[0].1;
    let mut about = meaning(name);
    if group.scale == Scale::Chance {
        about += ". The line at 0.5 is chance";
    }
    let drawn = |run: &&&Recorded| run.has(name) || run.has(&run.name_of(name));
    let older = runs
        .iter()
        .filter(drawn)
        .filter(|run| run.name_of(name) != name);
    let older: Vec<&str> = older.map(|run| run.name.as_str()).collect();
    if !older.is_empty() {
        let older = older.join(", ");
        about += &format!(". In {older}, of an older version, a tie counts as wrong");
    }
    Chart {
        id: name.to_owned(),
        title: group.title.to_owned(),
        about,
        lines,
        marks: marks.to_vec(),
        scale: group.scale,
        legend: true,
    }
}

fn other(name: &str, lines: Vec<Curve>, marks: &[(u64, String)]) -> Chart {
    Chart {
        id: name.to_owned(),
        title: name.to_owned(),
        about: meaning(name),
        lines,
        marks: marks.to_vec(),
        scale: Scale::Any,
        legend: true,
    }
}

/// What a metric is, from the one list of metrics.
fn meaning(name: &str) -> String {
    match Metric::named(name) {
        Some(metric) => metric.plain(),
        None => "not a metric of this version of expo".to_owned(),
    }
}

/// The metrics of no group.
fn others(runs: &[&Recorded]) -> BTreeSet<String> {
    let records = runs.iter().flat_map(|run| &run.records);
    let names = records.flat_map(|record| record.keys());
    let names = names.map(|name| name.strip_prefix("eval_").unwrap_or(name));
    let known = |name: &str| {
        let mut grouped = GROUPS.iter().flat_map(|group| group.metrics);
        OTHERWISE.contains(&name) || grouped.any(|(_, metric)| *metric == name)
    };
    names
        .filter(|name| !known(name))
        .map(str::to_owned)
        .collect()
}

/// Where a run was resumed, and where it met a value that is not finite.
fn marks(run: &Recorded) -> Vec<(u64, String)> {
    let resumed = run.resumed.iter();
    let resumed = resumed.map(|step| (*step, format!("resumed after step {step}")));
    let met = run.non_finite.iter().map(|line| line.step);
    let met = met.map(|step| (step, format!("step {step}: a value that is not finite")));
    resumed.chain(met).collect()
}
