//! `[run]`: how long, with what records, into which folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::at_least_one;
use crate::error::{Error, Result, nearest};

/// `[run]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Where the model, its checkpoints and the records go.
    pub output_dir: PathBuf,
    /// Passes over the rows; may be a fraction.
    #[serde(default = "one_epoch")]
    pub num_train_epochs: f64,
    /// Optimizer steps; takes the place of `num_train_epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Seed of every random draw.
    #[serde(default)]
    pub seed: u64,
    /// Steps per line of `metrics.jsonl`, which averages over them.
    #[serde(default = "one")]
    pub logging_steps: u64,
    /// Steps between evaluations; without it only before the first step and after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_steps: Option<u64>,
    /// Whether the final model is written; a run that is only timed need not.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub save_model: bool,
    /// Steps between checkpoints; without it only the final model is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save_steps: Option<u64>,
    /// The number of checkpoints that are kept, the newest, 2 at least; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save_total_limit: Option<usize>,
    /// A figure of evaluations, e.g. `eval_loss`, by which the best checkpoint is told, which is kept
    /// beside the newest; `save_steps` is then a multiple of `eval_steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_for_best_model: Option<String>,
    /// Whether the best is the highest: by default for all figures whose name does not end in `loss`,
    /// `nll_per_token` or `perplexity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greater_is_better: Option<bool>,
    /// Steps whose loss or gradient is not finite that are passed over, without an update, before the
    /// run stops.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_non_finite_steps: u64,
    /// The prompts of evaluation rows that the policy answers at each evaluation, into
    /// `generations.jsonl`: the first of them, always the same.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub eval_prompts: u64,
    /// The most tokens of such an answer.
    #[serde(default = "answer_tokens", skip_serializing_if = "is_answer_tokens")]
    pub eval_max_new_tokens: usize,
    /// The pairs with the largest margins, and as many with the smallest, that each evaluation leaves
    /// in `margins.json`; at most 100.
    #[serde(default = "five", skip_serializing_if = "is_five")]
    pub eval_margins: usize,
    /// Who else is told of the records: `tensorboard`, in files of `output_dir/tensorboard`; or `none`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub report_to: Vec<String>,
    /// Whether a run that `output_dir` already holds is replaced.
    #[serde(default)]
    pub overwrite: bool,
    /// Where reference log-probs are kept between runs; the user's cache folder by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
}

fn one() -> u64 {
    1
}

fn one_epoch() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn five() -> usize {
    5
}

fn is_five(count: &usize) -> bool {
    *count == five()
}

fn answer_tokens() -> usize {
    64
}

fn is_answer_tokens(count: &usize) -> bool {
    *count == answer_tokens()
}

/// What `report_to` may name.
const REPORTS: [&str; 1] = ["tensorboard"];

/// The ends of names of figures that are better the lower they are.
const LOSSES: [&str; 3] = ["loss", "nll_per_token", "perplexity"];

/// What `report_to` may be instead, as in transformers.
const NO_REPORTS: &str = "none";

/// So that `margins.json` is a file that people and a page can read.
const MOST_MARGINS: usize = 100;

impl RunConfig {
    /// The keys that may change when a run resumes: its weights do not depend on them, or a content hash
    /// stands for them in `run.json`.
    pub const FREE: &[&str] = &[
        "cache_dir",
        "eval_margins",
        "eval_max_new_tokens",
        "eval_prompts",
        "greater_is_better",
        "max_non_finite_steps",
        "metric_for_best_model",
        "output_dir",
        "overwrite",
        "report_to",
        "save_model",
        "save_steps",
        "save_total_limit",
    ];

    /// Optimizer steps of the whole run, where an epoch has `per_epoch`.
    pub fn steps(&self, per_epoch: u64) -> u64 {
        let epochs = || (per_epoch as f64 * self.num_train_epochs).ceil() as u64;
        self.max_steps.unwrap_or_else(|| epochs().max(1))
    }

    pub(super) fn validate(&self) -> Result<()> {
        let epochs = self.num_train_epochs;
        if !(epochs > 0.0 && epochs.is_finite()) {
            return Err(Error::must_be("num_train_epochs", "> 0 and finite", epochs));
        }
        at_least_one("logging_steps", self.logging_steps)?;
        let counts = [
            ("max_steps", self.max_steps),
            ("eval_steps", self.eval_steps),
            ("save_steps", self.save_steps),
            ("save_total_limit", self.save_total_limit.map(|n| n as u64)),
        ];
        for (key, count) in counts {
            at_least_one(key, count.unwrap_or(1))?;
        }
        at_least_one("eval_max_new_tokens", self.eval_max_new_tokens)?;
        if self.eval_margins > MOST_MARGINS {
            let most = format!("<= {MOST_MARGINS}");
            return Err(Error::must_be("eval_margins", most, self.eval_margins));
        }
        self.validate_reports()?;
        self.validate_saving()?;
        if self.output_dir.as_os_str().is_empty() {
            return Err(Error::input("output_dir is empty").at_key("output_dir"));
        }
        Ok(())
    }

    /// Whether TensorBoard is to be told.
    pub fn tensorboard(&self) -> bool {
        self.report_to.iter().any(|name| name == REPORTS[0])
    }

    /// Of a figure of an evaluation and a later one, whether the later one is better.
    pub fn is_better(&self, metric: f64, than: f64) -> bool {
        let name = self.metric_for_best_model.as_deref().unwrap_or_default();
        let is_loss = LOSSES.iter().any(|loss| name.ends_with(loss));
        match self.greater_is_better.unwrap_or(!is_loss) {
            true => metric > than,
            false => metric < than,
        }
    }

    fn validate_reports(&self) -> Result<()> {
        let names: Vec<&str> = self.report_to.iter().map(String::as_str).collect();
        let mut unknown = names.iter().filter(|name| !REPORTS.contains(name));
        match unknown.next() {
            Some(name) if names[..] != [NO_REPORTS] => {
                let mut hint = nearest(name, [REPORTS[0], NO_REPORTS]);
                if hint.starts_with("valid") {
                    hint += "; every figure is also in metrics.jsonl";
                }
                let error = Error::input(format!("report_to names \"{name}\""));
                Err(error.hint(hint).at_key("report_to"))
            }
            _ => Ok(()),
        }
    }

    fn validate_saving(&self) -> Result<()> {
        let unread = |key: &str, other: &str, why: &str| {
            Err(Error::input(format!("{key} without {other}"))
                .hint(why)
                .at_key(key))
        };
        if self.save_total_limit.is_some() && self.save_steps.is_none() {
            let why = "no checkpoints are written that it could limit";
            return unread("save_total_limit", "save_steps", why);
        }
        if self.save_total_limit == Some(1) {
            return Err(Error::must_be("save_total_limit", ">= 2", 1)
                .hint("the newest checkpoint may turn out to be damaged"));
        }
        let Some(metric) = &self.metric_for_best_model else {
            return match self.greater_is_better {
                Some(_) => unread(
                    "greater_is_better",
                    "metric_for_best_model",
                    "name the figure",
                ),
                None => Ok(()),
            };
        };
        let Some(save) = self.save_steps else {
            let why = "no checkpoints are written of which one could be the best";
            return unread("metric_for_best_model", "save_steps", why);
        };
        let Some(eval) = self.eval_steps else {
            let why = "checkpoints are compared by evaluations made with them";
            return unread("metric_for_best_model", "eval_steps", why);
        };
        if !save.is_multiple_of(eval) {
            return Err(Error::input(format!(
                "save_steps must be a multiple of eval_steps, {eval} (got {save})"
            ))
            .hint("with metric_for_best_model every checkpoint is evaluated")
            .at_keys(&["save_steps", "eval_steps"]));
        }
        match metric.strip_prefix("eval_") {
            Some(_) => Ok(()),
            None => Err(
                Error::input(format!("metric_for_best_model is \"{metric}\""))
                    .hint("name a metric of evaluations in metrics.jsonl, e.g. \"eval_loss\"")
                    .at_key("metric_for_best_model"),
            ),
        }
    }
}
