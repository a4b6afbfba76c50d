//! The head of a page: what was run, how far it is, and where the figures stand.

use std::fmt::Write;

use serde_json::Value;

use super::folder::Recorded;
use super::html::{figure, grouped, number, section, table, text};
use crate::report::chart::PAGE_COLORS;

/// Where a run is, as a word and a class.
fn state(run: &Recorded) -> (&'static str, &'static str) {
    match (run.is_finished(), run.at_work) {
        (true, _) => ("finished", "done"),
        (false, Some(true)) => ("going on", "going"),
        (false, Some(false)) => ("interrupted", "stopped"),
        (false, None) => ("not finished", "stopped"),
    }
}

fn badge(run: &Recorded) -> String {
    let (word, class) = state(run);
    format!("<span class=\"badge {class}\">{word}</span>")
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
        ("Accuracy", "rewards/accuracies"),
        ("Margin", "rewards/margins"),
        ("KL", "kl"),
        ("Log-ratio of chosen", "log_ratios/chosen"),
        ("Entropy", "entropy"),
    ] {
        let eval = format!("eval_{figure}");
        let (split, figure) = match run.last(&eval) {
            Some(_) => ("evaluation", eval.as_str()),
            None => ("training", figure),
        };
        let number_of = |value: Option<&Value>| value.and_then(Value::as_f64);
        let (first, last) = (number_of(run.first(figure)), number_of(run.last(figure)));
        if let (Some(first), Some(last)) = (first, last) {
            tile(
                name,
                number(last),
                format!("{split}, from {}", number(first)),
            );
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

/// Figures of a run in the table of several: the head, the names in the order of preference.
const COLUMNS: [(&str, &[&str]); 7] = [
    ("loss", &["eval_loss", "loss"]),
    (
        "accuracy",
        &["eval_rewards/accuracies", "rewards/accuracies"],
    ),
    ("margin", &["eval_rewards/margins", "rewards/margins"]),
    ("KL", &["eval_kl", "kl"]),
    ("entropy", &["eval_entropy", "entropy"]),
    (
        "log-ratio chosen",
        &["eval_log_ratios/chosen", "log_ratios/chosen"],
    ),
    (
        "log-ratio rejected",
        &["eval_log_ratios/rejected", "log_ratios/rejected"],
    ),
];

/// The title and the table of several runs.
pub fn of_several(runs: &[Recorded]) -> String {
    let mut heads = vec!["run", "", "step"];
    heads.extend(COLUMNS.iter().map(|(head, _)| *head));
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
        row.extend(COLUMNS.iter().map(|(_, names)| {
            let mut found = names.iter().filter_map(|name| run.last(name));
            figure(found.next())
        }));
        row
    };
    let rows: Vec<Vec<String>> = runs.iter().enumerate().map(row).collect();
    let body = format!(
        "<p class=\"lead\">The last figures of each: of evaluations where there are any, else of \
         training.</p>\n{}",
        table(&heads, &rows)
    );
    let mut html = format!("<header><h1>{} runs</h1>", runs.len());
    for run in runs {
        for remark in &run.remarks {
            let _ = writeln!(html, "<p class=\"warning\">{}</p>", text(remark));
        }
    }
    html + "</header>\n" + &section("overview", "Runs", &body)
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
        let mut row = vec![format!("<code>{}</code>", text(name))];
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
    let table = table(&["figure", "first", "last", "lowest", "highest"], &rows);
    section(
        "figures",
        "Figures",
        &format!(
            "<p class=\"lead\">Of <code>metrics.jsonl</code>, each with its step.</p>\n{table}"
        ),
    )
}
