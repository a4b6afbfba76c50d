//! Texts of a run: answers of the policy beside the reference's, and pairs with extreme margins.

use std::fmt::Write;

use super::folder::Recorded;
use super::html::{missing, number, number_or_dash, section, text};
use crate::run_dir::{FinishReason, Generation, Pair, Side};

/// Answers between the first and the last that are shown.
const BETWEEN: usize = 10;

/// The answers to one prompt, in the order of steps.
struct Asked<'a> {
    prompt: &'a str,
    answers: Vec<&'a Generation>,
}

fn asked(run: &Recorded) -> Vec<Asked<'_>> {
    let mut all: Vec<Asked> = Vec::new();
    for line in &run.generations {
        let prompt = line.prompt.as_str();
        match all.iter_mut().find(|asked| asked.prompt == prompt) {
            Some(asked) => asked.answers.push(line),
            None => all.push(Asked {
                prompt,
                answers: vec![line],
            }),
        }
    }
    all
}

/// What the answer from before the first step is called: the reference's where they are one model.
fn before(run: &Recorded) -> &'static str {
    let hashes = &run.run.hashes;
    match hashes.reference.as_ref() == Some(&hashes.policy) {
        true => "Reference",
        false => "Before training",
    }
}

/// Samples of a run over the course of training.
pub fn samples(run: &Recorded) -> String {
    let asked = asked(run);
    if asked.is_empty() {
        return section(
            "samples",
            "Samples",
            &missing(match run.setting("data", "eval") {
                Some(_) => {
                    "No samples: set <code>run.eval_prompts</code>, e.g. to 4, to draw answers to as many prompts \
                 of the evaluation rows at each evaluation."
                }
                None => {
                    "No samples: name rows in <code>data.eval</code> and set <code>run.eval_prompts</code>, \
                 e.g. to 4, to draw answers to as many of their prompts at each evaluation."
                }
            }),
        );
    }
    let mut html = String::from(
        "<p class=\"lead\">Answers to the same prompts at each evaluation, drawn at temperature 1 with \
         the same random numbers.",
    );
    if run.run.hashes.reference.is_some() && before(run) != "Reference" {
        html += " The reference is not the model that the policy started from; its own answers are not drawn.";
    }
    html += "</p>\n";
    for asked in &asked {
        let _ = write!(html, "<article class=\"card\">{}", prompt(asked.prompt));
        html += "<div class=\"sides\">";
        let (first, last) = (asked.answers[0], asked.answers[asked.answers.len() - 1]);
        if first.step == 0 {
            html += &answer(before(run), first);
        } else if first.step < last.step {
            html += &answer(&format!("After step {}", first.step), first);
        }
        if last.step > 0 {
            html += &answer(&format!("Policy after step {}", last.step), last);
        }
        html += "</div>";
        let between = match asked.answers.len() {
            0..=2 => &[][..],
            count => &asked.answers[1..count - 1],
        };
        if !between.is_empty() {
            let every = between.len().div_ceil(BETWEEN);
            let shown: Vec<&&Generation> = between.iter().step_by(every).collect();
            let of = match shown.len() < between.len() {
                true => format!("{} of {}", shown.len(), between.len()),
                false => shown.len().to_string(),
            };
            let _ = write!(
                html,
                "<details><summary>In between: {of} evaluations</summary>"
            );
            html += "<div class=\"sides\">";
            for line in shown {
                html += &answer(&format!("After step {}", line.step), line);
            }
            html += "</div></details>";
        }
        html += "</article>\n";
    }
    section("samples", "Samples", &html)
}

/// The last answers of several runs side by side.
pub fn samples_of(runs: &[Recorded]) -> String {
    let all: Vec<Vec<Asked>> = runs.iter().map(asked).collect();
    let mut prompts: Vec<&str> = Vec::new();
    for asked in all.iter().flatten() {
        if !prompts.contains(&asked.prompt) {
            prompts.push(asked.prompt);
        }
    }
    if prompts.is_empty() {
        let how = "No samples: set <code>run.eval_prompts</code>, e.g. to 4, to draw answers to as many prompts \
                   of the evaluation rows (<code>data.eval</code>) at each evaluation.";
        return section("samples", "Samples", &missing(how));
    }
    let mut html = String::from(
        "<p class=\"lead\">The last answers of each run to the same prompts, and the first, from before \
         training.</p>\n",
    );
    for asked_for in prompts {
        let _ = write!(html, "<article class=\"card\">{}", prompt(asked_for));
        html += "<div class=\"sides\">";
        let mut first: Option<&str> = None;
        for (run, asked) in runs.iter().zip(&all) {
            let Some(asked) = asked.iter().find(|asked| asked.prompt == asked_for) else {
                continue;
            };
            let (start, last) = (asked.answers[0], asked.answers[asked.answers.len() - 1]);
            // Runs that began as one model began with one answer.
            if start.step == 0 && first != Some(&start.response) {
                first = Some(&start.response);
                html += &answer(before(run), start);
            }
            if last.step > 0 {
                html += &answer(&format!("{}, step {}", run.name, last.step), last);
            }
        }
        html += "</div></article>\n";
    }
    section("samples", "Samples", &html)
}

/// The pairs with the largest and the smallest margins of the last evaluation.
pub fn pairs(run: &Recorded) -> String {
    let title = "Pairs with the largest and the smallest margins";
    let Some(margins) = &run.margins else {
        let kept = run
            .setting("run", "eval_margins")
            .and_then(toml::Value::as_integer);
        return section(
            "pairs",
            title,
            &missing(match () {
                () if run.setting("data", "eval").is_none() => {
                    "No pairs: they are those of an evaluation; name rows in <code>data.eval</code>."
                }
                () if kept == Some(0) => {
                    "No pairs: <code>run.eval_margins</code> is 0; it is the number that an evaluation keeps."
                }
                () if !run.has_evaluations() => {
                    "No pairs yet: they are those of the last evaluation."
                }
                () => {
                    "No pairs: the loss has no reward of both a chosen and a rejected answer, or the run was \
                 made before expo kept them (<code>run.eval_margins</code>)."
                }
            }),
        );
    };
    let mut html = format!(
        "<p class=\"lead\">Of {} evaluation pairs after step {}; the margin is the reward of the \
         chosen answer minus that of the rejected one.</p>\n",
        margins.pairs, margins.step
    );
    for (pairs, title) in [
        (&margins.largest, "Largest"),
        (&margins.smallest, "Smallest"),
    ] {
        let _ = writeln!(html, "<h3>{title}</h3>");
        for pair in pairs {
            html += &one(pair);
        }
    }
    section("pairs", title, &html)
}

fn one(pair: &Pair) -> String {
    let side = |name: &str, word: &str, side: &Side| {
        format!(
            "<div class=\"side {name}\"><h4>{word}</h4><p class=\"said\" dir=\"auto\">{}</p>\
             <p class=\"figures\">reward {} · log-prob {} · of the reference {} · {} tokens</p></div>",
            said(&side.text),
            number_or_dash(side.reward),
            number_or_dash(side.log_prob),
            number_or_dash(side.reference_log_prob),
            number_or_dash(side.tokens),
        )
    };
    format!(
        "<details class=\"card pair\" open><summary>Margin {} <span>row {}</span></summary>{}\
         <div class=\"sides\">{}{}</div></details>\n",
        number_or_dash(pair.margin),
        pair.row,
        prompt(&pair.prompt),
        side("chosen", "Chosen", &pair.chosen),
        side("rejected", "Rejected", &pair.rejected),
    )
}

fn prompt(prompt: &str) -> String {
    format!(
        "<p class=\"prompt said\" dir=\"auto\">{}</p>",
        said(prompt.trim())
    )
}

fn said(words: &str) -> String {
    match words.trim().is_empty() {
        true => "<i>(nothing)</i>".to_owned(),
        // Most answers begin with the space that parts them from the prompt.
        false => text(words.trim()),
    }
}

fn answer(who: &str, line: &Generation) -> String {
    let end = match line.finish_reason {
        FinishReason::Length => " · cut at the limit",
        FinishReason::Stop => "",
    };
    format!(
        "<div class=\"side\"><h4>{}</h4><p class=\"said\" dir=\"auto\">{}</p>\
         <p class=\"figures\">log-prob {} · {} tokens{end}</p></div>",
        text(who),
        said(&line.response),
        number_or_dash(line.log_prob),
        number(line.tokens as f64),
    )
}
