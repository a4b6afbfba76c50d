//! `expo losses`: what there is to minimize, and the page of each loss.
//!
//! *Why*: every word comes from the losses themselves, so a new one is listed by its row alone.

use std::fmt::Write;

use clap::{Args, Subcommand};
use expo::error::Result;
use expo::loss::{Knob, KnobValue, Knobs, Loss, Needs, Objective, Role};
use serde_json::{Value, json};

use super::answer;

/// List the losses: formula, knobs with their defaults, paper.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = HELP)]
pub struct LossesArgs {
    #[command(subcommand)]
    command: Option<LossesCommand>,

    /// Print one JSON list, an object per loss: name, formula, knobs, paper, needs
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum LossesCommand {
    Show(ShowArgs),
}

/// Show one loss: formula, knobs with their ranges, what data it needs.
#[derive(Args)]
struct ShowArgs {
    /// Show this loss; its other names work, too
    name: String,

    /// Print one JSON object: name, formula, knobs, paper, needs
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  $ expo losses
  $ expo losses show cexpo
  $ expo losses --json";

const SYMBOLS: &str = "\
In the formulas: w the chosen and l the rejected response, pi the policy, r the
reference; rho = log pi(y|x) - log r(y|x), h = rho_w - rho_l,
d = log pi(y_w|x) - log pi(y_l|x), abar = log pi(y|x) / |y|,
sigma(x) = 1 / (1 + e^{-x}), Delta = S_w - S_l with S = rho or the score of
another divergence (see fdpo).
";

/// Runs the command.
pub fn run(args: &LossesArgs) -> anyhow::Result<()> {
    let text = match &args.command {
        Some(LossesCommand::Show(show)) => {
            let loss = Loss::default_of(&show.name)?;
            match show.json {
                true => pretty(&object(&loss))?,
                false => page(&loss)?,
            }
        }
        None => {
            let names = Loss::NAMES.iter();
            let losses: Vec<Loss> = names
                .map(|name| Loss::default_of(name))
                .collect::<Result<_>>()?;
            match args.json {
                true => pretty(&losses.iter().map(object).collect())?,
                false => list(&losses)?,
            }
        }
    };
    answer(&text)
}

fn pretty(value: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn list(losses: &[Loss]) -> anyhow::Result<String> {
    let mut text = String::new();
    for loss in losses {
        let about = loss.about();
        writeln!(text, "{}: {}", names(loss), loss.title())?;
        for line in about.formula.lines() {
            writeln!(text, "    {line}")?;
        }
        let knobs: Vec<String> = loss
            .knobs()
            .iter()
            .map(|knob| setting(loss, knob))
            .collect();
        writeln!(text, "  {}", knobs.join(", "))?;
        writeln!(text, "  {}\n", about.paper)?;
    }
    Ok(text + SYMBOLS)
}

fn page(loss: &Loss) -> anyhow::Result<String> {
    let about = loss.about();
    let mut text = format!("{}: {}\n\n", names(loss), loss.title());
    for line in about.formula.lines() {
        writeln!(text, "    {line}")?;
    }
    writeln!(text, "\n{SYMBOLS}\nPaper: {}", about.paper)?;
    writeln!(text, "Needs: {}", needs(&loss.needs()).join("; "))?;
    writeln!(text, "Config: {}\n\n[loss.{}]", about.config, loss.name())?;
    for knob in loss.knobs() {
        let setting = setting(loss, knob);
        writeln!(text, "{setting:<27} # {}: {}", knob.range, knob.meaning)?;
    }
    Ok(text)
}

fn names(loss: &Loss) -> String {
    match loss.aliases() {
        [] => loss.name().to_owned(),
        aliases => format!("{} (or {})", loss.name(), aliases.join(", ")),
    }
}

/// `key = default`, as in a config.
fn setting(loss: &Loss, knob: &Knob) -> String {
    match loss.knob(knob.name) {
        Some(value) => format!("{} = {value}", knob.name),
        None => format!("{} not set", knob.name),
    }
}

/// What the loss asks of data and training step, in words.
fn needs(needs: &Needs) -> Vec<String> {
    let list = |roles: &[Role]| {
        let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        names.join(", ")
    };
    let mut words = Vec::new();
    if !needs.all.is_empty() {
        words.push(format!("responses: {}", list(needs.all)));
    }
    if !needs.any.is_empty() {
        words.push(format!("responses, one at least: {}", list(needs.any)));
    }
    let flags = [
        (needs.reference, "a reference"),
        (!needs.reference, "no reference"),
        (
            needs.batch.contains(&Role::Mismatched),
            "answers to other prompts",
        ),
        (!needs.batch.is_empty(), "a statistic of the whole batch"),
        (needs.scores, "score_chosen and score_rejected"),
        (needs.confidence, "the policy's confidence in each token"),
        (
            needs.shared,
            "log-probs of the tokens that both responses have",
        ),
        (needs.soft_labels, "takes soft labels"),
        (!needs.soft_labels, "hard labels only"),
    ];
    words.extend(
        flags
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, word)| (*word).to_owned()),
    );
    words
}

fn object(loss: &Loss) -> Value {
    let (about, needs) = (loss.about(), loss.needs());
    let knob = |knob: &Knob| {
        json!({
            "name": knob.name,
            "default": loss.knob(knob.name).and_then(KnobValue::to_toml),
            "range": knob.range.to_string(),
            "meaning": knob.meaning,
        })
    };
    let names = |roles: &[Role]| roles.iter().map(|role| role.name()).collect::<Value>();
    json!({
        "name": loss.name(),
        "aliases": loss.aliases(),
        "title": loss.title(),
        "formula": about.formula,
        "paper": about.paper,
        "config": about.config,
        "knobs": loss.knobs().iter().map(knob).collect::<Value>(),
        "needs": {
            "all": names(needs.all),
            "any": names(needs.any),
            "batch": names(needs.batch),
            "reference": needs.reference,
            "scores": needs.scores,
            "soft_labels": needs.soft_labels,
        },
    })
}
