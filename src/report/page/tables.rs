//! Tables of a run: row counts, stories, events, config.

use std::fmt::Write;

use super::folder::Recorded;
use super::html::{exact, grouped, missing, number_or_dash, section, short, table, text};
use crate::lab::story::{Column, Estimate};
use crate::run_dir::{RowCounts, RunRecord, checkpoint_name, checkpoint_step};

/// A row of the table of row counts: in words, and its count.
type Counted = (&'static str, fn(&RowCounts) -> Option<usize>);

const CENSUS: [Counted; 16] = [
    ("rows", |of| of.rows),
    ("kept", |of| of.kept),
    ("prompts cut to max_prompt_length", |of| of.cut_prompts),
    ("answers cut to max_length", |of| of.cut_responses),
    ("answers without an end token", |of| of.unfinished_responses),
    ("answers that share a token with their prompt", |of| {
        of.boundary_merges
    }),
    ("tokens of answers that are context, not learned", |of| {
        of.context_tokens
    }),
    ("prompt tokens, median", |of| Some(of.prompt_tokens?.median)),
    ("prompt tokens, 95%", |of| Some(of.prompt_tokens?.p95)),
    ("prompt tokens, most", |of| Some(of.prompt_tokens?.max)),
    ("answer tokens, median", |of| {
        Some(of.response_tokens?.median)
    }),
    ("answer tokens, 95%", |of| Some(of.response_tokens?.p95)),
    ("answer tokens, most", |of| Some(of.response_tokens?.max)),
    ("row tokens, median", |of| Some(of.example_tokens?.median)),
    ("row tokens, 95%", |of| Some(of.example_tokens?.p95)),
    ("row tokens, most", |of| Some(of.example_tokens?.max)),
];

/// What became of the rows.
pub fn row_counts(run: &Recorded) -> String {
    let RunRecord {
        train,
        eval,
        unlabelled,
        ..
    } = &run.run;
    let splits = [("train", train), ("eval", eval), ("unlabelled", unlabelled)];
    let known = splits.into_iter();
    let splits: Vec<(&str, &RowCounts)> = known
        .filter_map(|(name, counts)| Some((name, counts.as_ref()?)))
        .collect();
    if splits.is_empty() {
        return missing("No row counts: <code>run.json</code> has none.");
    }
    let names = splits.iter().map(|(name, _)| *name);
    let heads: Vec<&str> = [""].into_iter().chain(names).collect();
    let cell = |count: Option<usize>| match count {
        Some(count) => format!("<data value=\"{count}\">{}</data>", grouped(count as u64)),
        None => "–".to_owned(),
    };
    let mut rows: Vec<Vec<String>> = CENSUS
        .iter()
        .map(|(word, of)| {
            let cells = splits.iter().map(|(_, counts)| cell(of(counts)));
            [word.to_string()].into_iter().chain(cells).collect()
        })
        .collect();
    let mut reasons: Vec<&str> = Vec::new();
    for (reason, _) in splits.iter().flat_map(|(_, counts)| &counts.invalid.0) {
        if !reasons.contains(&reason.as_str()) {
            reasons.push(reason);
        }
    }
    for (at, reason) in reasons.into_iter().enumerate() {
        let cells = splits.iter().map(|(_, counts)| {
            let mut found = counts.invalid.0.iter();
            match found.find(|(other, _)| other == reason) {
                Some((_, lines)) => format!(
                    "{} <small>lines {}</small>",
                    grouped(lines.rows as u64),
                    text(&lines.first.join(", "))
                ),
                None => "0".to_owned(),
            }
        });
        let word = format!("left out: {}", text(&reason.replace('_', " ")));
        rows.insert(2 + at, [word].into_iter().chain(cells).collect());
    }
    table(&heads, &rows)
}

/// A row of the stories: in words, and its estimate.
type Estimated = (&'static str, fn(&Column) -> Option<Estimate>);

const STORIES: [Estimated; 6] = [
    ("in the grammar", |of| Some(of.in_grammar)),
    ("score", |of| of.score),
    ("entropy, nats", |of| Some(of.entropy)),
    ("distinct-1", |of| Some(of.distinct_1)),
    ("distinct-2", |of| Some(of.distinct_2)),
    ("KL from the start, nats", |of| Some(of.kl)),
];

/// The samples of the grammar's stories, where the run is on them.
pub fn story(run: &Recorded) -> Option<String> {
    let columns = &run.summary.as_ref()?.story.as_ref()?.columns;
    let names = columns.iter().map(|column| column.name.as_str());
    let heads: Vec<&str> = [""].into_iter().chain(names).collect();
    let cell = |estimate: Option<Estimate>| {
        let Some(Estimate { value, error }) = estimate else {
            return "–".to_owned();
        };
        let value = number_or_dash(value);
        match error {
            Some(error) => format!("{value} <small>± {}</small>", short(error)),
            None => value,
        }
    };
    let rows: Vec<Vec<String>> = STORIES
        .iter()
        .map(|(word, of)| {
            let cells = columns.iter().map(|column| cell(of(column)));
            [word.to_string()].into_iter().chain(cells).collect()
        })
        .collect();
    let lead = "<p class=\"lead\">Samples before and after training, beside the policies that are known exactly.</p>\n";
    Some(section(
        "stories",
        "Stories",
        &format!("{lead}{}", table(&heads, &rows)),
    ))
}

/// Checkpoints, interruptions, changes, and values that were not finite.
pub fn events(run: &Recorded) -> String {
    let mut rows: Vec<(u64, String)> = Vec::new();
    for step in &run.resumed {
        rows.push((*step, "resumed from the checkpoint of this step".to_owned()));
    }
    for change in &run.run.changes {
        let what = format!(
            "<code>{}</code> changed from <code>{}</code> to <code>{}</code>",
            text(&change.key),
            text(&change.old.to_string()),
            text(&change.new.to_string()),
        );
        rows.push((change.step, what));
    }
    for line in &run.non_finite {
        let what = format!(
            "a value that is not finite, in a batch of {} rows: {}",
            line.rows.len(),
            text(&line.what)
        );
        rows.push((line.step, what));
    }
    let best = run
        .summary
        .as_ref()
        .and_then(|summary| summary.best.as_ref());
    for &step in &run.checkpoints {
        let name = checkpoint_name(step);
        let best = match best.filter(|best| checkpoint_step(&best.checkpoint) == Some(step)) {
            Some(best) => format!(", the best: {}", number_or_dash(best.value)),
            None => String::new(),
        };
        rows.push((step, format!("<code>{name}</code>{best}")));
    }
    rows.sort_by_key(|(step, _)| *step);
    let mut html = String::new();
    if run.checkpoints.is_empty() {
        html += &missing(
            "No checkpoints: set <code>run.save_steps</code> to write them; an interrupted run resumes \
             from the latest.",
        );
    }
    if !rows.is_empty() {
        let cells = |(step, what): (u64, String)| vec![step.to_string(), what];
        let rows: Vec<Vec<String>> = rows.into_iter().map(cells).collect();
        html += &table(&["step", "event"], &rows);
    }
    html
}

/// The resolved config and what it ran on.
pub fn config(run: &Recorded) -> String {
    let RunRecord {
        expo,
        machine,
        hashes,
        datasets,
        ..
    } = &run.run;
    let commits = datasets.iter();
    let commits = commits.map(|(name, commit)| (name.as_str(), Some(commit)));
    let rows: Vec<Vec<String>> = [
        ("expo", Some(expo)),
        ("machine", machine.as_ref()),
        ("policy", Some(&hashes.policy)),
        ("reference", hashes.reference.as_ref()),
        ("tokenizer", Some(&hashes.tokenizer)),
    ]
    .into_iter()
    .chain(commits)
    .map(|(name, value)| {
        let known = value.filter(|value| !value.is_empty());
        let value = known.map_or_else(|| "–".to_owned(), |value| text(value));
        vec![text(name).to_string(), format!("<code>{value}</code>")]
    })
    .collect();
    let config = match run.config.is_empty() {
        true => missing("No config: <code>config.toml</code> is not there."),
        false => format!("<pre>{}</pre>\n", text(&run.config)),
    };
    config + &table(&["", "what it ran on"], &rows)
}

/// The keys in which runs differ.
pub fn differences(runs: &[Recorded]) -> String {
    let flat: Vec<Vec<(String, String)>> = runs.iter().map(|run| flatten(&run.settings)).collect();
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in flat.iter().flatten() {
        if key != "run.output_dir" && !keys.contains(&key) {
            keys.push(key);
        }
    }
    let of = |settings: &Vec<(String, String)>, key: &str| {
        let found = settings.iter().find(|(other, _)| other == key);
        found.map(|(_, value)| value.clone())
    };
    keys.retain(|key| flat.iter().any(|one| of(one, key) != of(&flat[0], key)));
    if keys.is_empty() {
        return "<p class=\"lead\">The configs differ only in <code>run.output_dir</code>.</p>\n"
            .into();
    }
    let heads: Vec<&str> = ["run"]
        .into_iter()
        .chain(keys.iter().map(|key| key.as_str()))
        .collect();
    let rows: Vec<Vec<String>> = runs
        .iter()
        .zip(&flat)
        .map(|(run, settings)| {
            let cells = keys.iter().map(|key| match of(settings, key) {
                Some(value) => format!("<code>{}</code>", text(&value)),
                None => "–".to_owned(),
            });
            [text(&run.name)].into_iter().chain(cells).collect()
        })
        .collect();
    table(&heads, &rows)
}

pub(super) fn flatten(table: &toml::Table) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                let inner = flatten(inner).into_iter();
                all.extend(inner.map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            toml::Value::Float(x) => all.push((key.clone(), exact(*x))),
            value => {
                let mut text = String::new();
                let _ = write!(text, "{value}");
                all.push((key.clone(), text));
            }
        }
    }
    all
}
