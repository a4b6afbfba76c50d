//! The head of a page: what was run, how far it is, and where the figures stand.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use super::estimator::Estimator;
use super::folder::Recorded;
use super::html::{grouped, number, section, table, text};
use crate::report::chart::PAGE_COLORS;
use crate::run_dir::{ACCURACY, Metric, SAMPLED_KL};

/// Where a run is, as a word and a class.
fn state(run: &Recorded) -> (&'static str, &'static str) {
    match (run.is_finished(), run.at_work) {
        (true, _) => ("finished", "done"),
        (false, Some(true)) => ("running", "going"),
        (false, Some(false)) => ("interrupted", "stopped"),
        (false, None) => ("not finished", "stopped"),
    }
}

fn badge(run: &Recorded) -> String {
    let (word, class) = state(run);
    format!("<span class=\"badge {class}\">{word}</span>")
}

/// What the run warned of, and what it did in words; nothing before it is finished.
pub fn findings(run: &Recorded) -> String {
    let Some(summary) = &run.summary else {
        return String::new();
    };
    let warnings = summary
        .warnings
        .iter()
        .map(|warning| format!("warning: {}", warning.text));
    let lines = warnings.chain(summary.findings.iter().cloned());
    let lines: String = lines
        .map(|line| format!("<li>{}</li>", text(&line)))
        .collect();
    match lines.is_empty() {
        true => String::new(),
        false => section("findings", "In words", &format!("<ul>{lines}</ul>\n")),
    }
}

/// The title and the tiles of one run.
pub fn of_one(run: &Recorded) -> String {
    let model = run.setting("model", "model_name_or_path");
    let model = model.and_then(toml::Value::as_str).unwrap_or("?");
    let loss = match run.run.loss.as_str() {
        "" => "?",
        loss => loss,
    };
    let mut html = format!(
        "<header id=\"overview\"><h1>{} {}</h1><p class=\"lead\"><b>{}</b> on {} · {}</p>\n",
        text(&run.name),
        badge(run),
        text(loss),
        text(model),
        text(&run.folder.display().to_string()),
    );
    html += &progress(run);
    html += "<ul class=\"tiles\">";
    let mut tile = |name: &str, value: String, more: String| {
        let _ = write!(
            html,
            "<li><span>{name}</span><strong>{value}</strong><small>{more}</small></li>"
        );
    };
    for (name, figure) in [
        ("Loss", "loss"),
        ("Accuracy", ACCURACY),
        ("Margin of rewards", "rewards/margins"),
        ("KL, nats", "kl"),
        ("Perplexity", "perplexity"),
        ("Log-ratio of chosen, nats", "log_ratios/chosen"),
        ("Entropy, nats", "entropy"),
    ] {
        let figure = run.name_of(figure);
        let eval = format!("eval_{figure}");
        let (split, figure) = match run.last(&eval) {
            Some(_) => ("evaluation", eval),
            None => ("training", figure),
        };
        let number_of = |value: Option<&Value>| value.and_then(Value::as_f64);
        let (first, last) = (number_of(run.first(&figure)), number_of(run.last(&figure)));
        if let (Some(first), Some(last)) = (first, last) {
            // What is 0 by definition before the first step is nothing to compare with.
            let from = match first {
                0.0 => String::new(),
                first => format!(", from {}", number(first)),
            };
            tile(name, number(last), format!("{split}{from}"));
        }
    }
    if let Some(tokens) = run.last("num_tokens").and_then(Value::as_u64) {
        let speed = mean_speed(run);
        let more = speed.map_or_else(String::new, |speed| format!("{} a second", number(speed)));
        tile("Tokens", grouped(tokens), more);
    }
    html += "</ul>\n";
    for remark in &run.remarks {
        let _ = writeln!(html, "<p class=\"warning\">{}</p>", text(remark));
    }
    html + "</header>\n"
}

/// Tokens per second over all that was timed.
fn mean_speed(run: &Recorded) -> Option<f64> {
    let (mut tokens, mut seconds) = (0.0, 0.0);
    for timing in run.timings.iter().filter(|timing| timing.step > 0) {
        tokens += timing.tokens_per_second * timing.seconds;
        seconds += timing.seconds;
    }
    (seconds > 0.0 && tokens.is_finite()).then(|| tokens / seconds)
}

fn progress(run: &Recorded) -> String {
    let at = run.last_step();
    match run.steps() {
        Some(steps) if steps > 0 => format!(
            "<p class=\"progress\"><progress value=\"{at}\" max=\"{steps}\">{at} of {steps}</progress> \
             step {at} of {steps}</p>\n"
        ),
        _ => format!("<p class=\"progress\">step {at}</p>\n"),
    }
}

/// A figure of a run in the table of several.
pub type Column = (&'static str, fn(&Recorded) -> Option<f64>);

/// The columns: the head with the unit, and the figure.
static COLUMNS: [Column; 10] = [
    ("loss, in its own unit", |run| run.latest("loss")),
    ("accuracy", |run| run.latest(&run.name_of(ACCURACY))),
    ("margin of rewards, in the loss's unit", |run| {
        run.latest("rewards/margins")
    }),
    ("margin of log-ratios, nats", |run| {
        Some(run.latest("log_ratios/chosen")? - run.latest("log_ratios/rejected")?)
    }),
    ("log-ratio chosen, nats", |run| {
        run.latest("log_ratios/chosen")
    }),
    ("log-ratio rejected, nats", |run| {
        run.latest("log_ratios/rejected")
    }),
    ("KL(pi || r) on answers, nats", |run| run.latest(SAMPLED_KL)),
    ("KL, nats", |run| run.latest("kl")),
    ("loss per token, nats", |run| run.latest("nll_per_token")),
    ("entropy, nats", |run| run.latest("entropy")),
];

/// The columns that any of the runs has.
pub fn known_columns(runs: &[Recorded]) -> Vec<&'static Column> {
    let known = |column: &&Column| runs.iter().any(|run| column.1(run).is_some());
    COLUMNS.iter().filter(known).collect()
}

/// The title and the table of several runs.
pub fn of_several(runs: &[Recorded]) -> String {
    let columns = known_columns(runs);
    let mut heads = vec!["run", "", "step"];
    heads.extend(columns.iter().map(|(head, _)| *head));
    let row = |(at, run): (usize, &Recorded)| {
        let steps = run
            .steps()
            .map_or_else(String::new, |steps| format!(" of {steps}"));
        let mut row = vec![
            format!(
                "<span class=\"dot c{}\"></span><a href=\"#run-{at}\">{}</a>",
                at % PAGE_COLORS,
                text(&run.name)
            ),
            badge(run),
            format!("{}{steps}", run.last_step()),
        ];
        row.extend(columns.iter().map(|(head, of)| {
            let value = of(run).map_or_else(|| "–".to_owned(), number);
            match (*head, Estimator::of(run)) {
                ("KL, nats", Some(estimator)) => {
                    format!("{value} <small>{}</small>", estimator.short())
                }
                _ => value,
            }
        }));
        row
    };
    let rows: Vec<Vec<String>> = runs.iter().enumerate().map(row).collect();
    let body = format!(
        "<p class=\"lead\">The last figures of each run: of evaluations where there are any, else of \
         training.</p>\n{}<p class=\"note\">{}</p>\n",
        table(&heads, &rows),
        notes(runs)
    );
    let mut html = format!("<header><h1>{} runs</h1>", runs.len());
    for run in runs {
        for remark in &run.remarks {
            let _ = writeln!(html, "<p class=\"warning\">{}</p>", text(remark));
        }
    }
    html + "</header>\n" + &section("overview", "Runs", &body)
}

/// What a reader of the table has to know.
fn notes(runs: &[Recorded]) -> String {
    let mut notes = String::new();
    let losses = runs.iter().map(|run| run.run.loss.as_str());
    if losses.collect::<BTreeSet<_>>().len() > 1 {
        notes += "Losses and rewards of different objectives are in units of their own and are not \
                  comparable; accuracies, and figures in nats, are. ";
    }
    let estimators = runs.iter().filter_map(Estimator::of);
    for estimator in estimators.collect::<BTreeSet<_>>() {
        let _ = write!(
            notes,
            "{}: {}. ",
            text(estimator.short()),
            text(estimator.about())
        );
    }
    notes.trim_end().to_owned()
}

/// First, last, lowest and highest of every figure of `metrics.jsonl`.
pub fn figures(run: &Recorded) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in run.records.iter().flat_map(|record| record.keys()) {
        if name != "step" && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    // A figure and that of evaluations below each other.
    let order = |name: &&str| name.strip_prefix("eval_").unwrap_or(name).to_owned();
    let bare: Vec<String> = names.iter().map(order).collect();
    names.sort_by_key(|name| {
        let place = bare.iter().position(|other| *other == order(name));
        (place, name.starts_with("eval_"))
    });
    let row = |name: &&str| {
        let points = run.points(name);
        let finite = || points.iter().filter(|(_, y)| y.is_finite());
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let meaning = Metric::named(name).map(Metric::plain).unwrap_or_default();
        let mut row = vec![format!(
            "<code>{}</code> <small>{}</small>",
            text(name),
            text(&meaning)
        )];
        let ends = [
            finite().next(),
            finite().next_back(),
            finite().min_by(by),
            finite().max_by(by),
        ];
        row.extend(ends.map(|point| match point {
            Some((step, y)) => format!("{} <small>at {step}</small>", number(*y)),
            None => "–".to_owned(),
        }));
        row
    };
    let rows: Vec<Vec<String>> = names.iter().map(row).collect();
    let table = table(&["metric", "first", "last", "lowest", "highest"], &rows);
    section(
        "figures",
        "Figures",
        &format!(
            "<p class=\"lead\">Every metric of <code>metrics.jsonl</code>, with the steps of its values.</p>\n{table}"
        ),
    )
}
