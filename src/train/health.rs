//! Signs that a run learns nothing, or not what was meant.
//!
//! Hides which figures say so, and from which value on. A warning says a fact with its number and then
//! the key to change; it rests on recorded figures and the config alone, so the same run warns alike.
//!
//! *Why*: such a run ends without an error, after days.

mod findings;
mod lengths;

use serde_json::Value;

use crate::config::Config;
use crate::data::RowReport;
use crate::loss::{KnobValue, Loss, WeightedLoss};
use crate::run_dir::{ACCURACY, Record, RunWarning};

pub(super) use findings::Figures;
pub(super) use lengths::{Generated, LengthPreference};

/// The share of rows that may be cut.
const CUT: f64 = 0.05;
/// The share of pairs that may be saturated before the first step.
const SATURATED: f64 = 0.5;
/// The share of pairs that may be clamped.
const CLAMPED: f64 = 0.1;
/// Of fewer pairs an accuracy says nothing.
const PAIRS: f64 = 20.0;
/// In fewer updates clipping is no habit.
const UPDATES: u64 = 10;
/// The two-sided 5% point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// What the config and the training rows show before the first step of `steps`.
pub(super) fn of_config(config: &Config, rows: &RowReport, steps: u64) -> Vec<RunWarning> {
    [
        learning_rate(config, steps),
        cut_rows(config, rows),
        single_rows(config, rows),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a record shows, of an evaluation or of training. `before` is the one before it of its kind, if
/// there is one, and `first` the first.
pub(super) fn of_record(
    config: &Config,
    steps: u64,
    of: &Sight,
    first: Option<&Record>,
    before: Option<&Record>,
) -> Vec<RunWarning> {
    let loss = &config.loss;
    let mut found = Vec::new();
    if before.is_none()
        && let Some(share) = of.figure("saturated").filter(|share| *share > SATURATED)
    {
        found.push(saturated(loss, share, of));
    }
    if let Some(share) = of.figure("clamped").filter(|share| *share > CLAMPED) {
        found.push(clamped(loss, share, of));
    }
    let epoch = |record: &Record| record.get("epoch").and_then(Value::as_f64);
    let was_early = before.is_none_or(|before| epoch(before).is_none_or(|epoch| epoch < 1.0));
    if was_early && epoch(of.record).is_some_and(|epoch| epoch >= 1.0) {
        found.extend(at_chance(of));
    }
    // While the rate rises from 0, an update may be too small to be seen.
    let warm = of.step() > config.schedule.warmup(steps) + 1;
    if let Some(first) = first.filter(|_| of.prefix == "eval_" && warm) {
        found.extend(unmoved(config, of, first));
    }
    found
}

/// What the updates show after the last step: how many of them were clipped, and the median of the
/// logged gradient norms.
pub(super) fn of_updates(
    config: &Config,
    (clipped, updates): (u64, u64),
    norm: f64,
) -> Option<RunWarning> {
    if clipped < updates || updates < UPDATES {
        return None;
    }
    let most = config.optimizer.max_grad_norm;
    let summed = |loss: &Loss| loss.knob("per_token") == Some(KnobValue::Flag(false));
    let per_token = config.loss.terms().iter().find(|loss| summed(loss));
    let or = match per_token {
        Some(loss) => format!(
            ", or set loss.{}.per_token = true: the loss is a sum over tokens",
            loss.name()
        ),
        None => String::new(),
    };
    Some(warning(
        "gradient_always_clipped",
        format!(
            "The gradient was clipped at every one of {updates} steps: its median norm is {norm:.3}, \
             and optimizer.max_grad_norm is {most}"
        ),
        format!("Raise optimizer.max_grad_norm above that{or}"),
    ))
}

/// A record with what it was averaged over.
pub(super) struct Sight<'a> {
    /// The record.
    pub record: &'a Record,
    /// What its names begin with: `eval_`, or nothing.
    pub prefix: &'static str,
    /// The pairs that its accuracy is of.
    pub pairs: f64,
}

impl Sight<'_> {
    fn figure(&self, name: &str) -> Option<f64> {
        let value = self.record.get(&format!("{}{name}", self.prefix))?;
        value.as_f64().filter(|figure| figure.is_finite())
    }

    fn step(&self) -> u64 {
        crate::run_dir::step(self.record)
    }
}

fn warning(code: &str, fact: String, remedy: String) -> RunWarning {
    RunWarning {
        code: code.into(),
        text: format!("{fact}. {remedy}."),
    }
}

fn learning_rate(config: &Config, steps: u64) -> Option<RunWarning> {
    if config.optimizer.learning_rate == 0.0 {
        return Some(warning(
            "learning_rate_zero",
            "optimizer.learning_rate is 0, so no weight will change".into(),
            "Set it, e.g. to 1e-6".into(),
        ));
    }
    let rates = || (0..steps).map(|step| config.schedule.factor(step, steps));
    let warmup = config.schedule.warmup(steps);
    if steps > 1 && warmup >= steps {
        return Some(warning(
            "warmup_longer_than_run",
            format!(
                "The warm-up takes {warmup} steps and the run has {steps}, so the learning rate gets no \
                 higher than {:.2e} of {:.2e}",
                config.optimizer.learning_rate * rates().fold(0.0, f64::max),
                config.optimizer.learning_rate
            ),
            "Set a smaller schedule.warmup_steps, or schedule.warmup_ratio = 0.1".into(),
        ));
    }
    (steps > 0 && rates().all(|factor| factor == 0.0)).then(|| {
        warning(
            "learning_rate_zero",
            format!("The schedule gives a learning rate of 0 at each of the {steps} steps"),
            "Set schedule.warmup_from_zero = false, or train for more steps".into(),
        )
    })
}

fn cut_rows(config: &Config, rows: &RowReport) -> Option<RunWarning> {
    let share = rows.cut.rows as f64 / rows.kept.max(1) as f64;
    if share <= CUT {
        return None;
    }
    let length = &config.data.rows.length;
    let (prompts, responses) = (rows.cut_prompts, rows.cut_responses);
    let mut keys = Vec::new();
    if responses > 0 {
        keys.push(format!("data.max_length ({})", length.max_length));
    }
    if prompts > 0 {
        keys.push(format!(
            "data.max_prompt_length ({})",
            length.max_prompt_length
        ));
    }
    Some(warning(
        "rows_cut",
        format!(
            "{:.0}% of the training rows are cut: {prompts} prompts and {responses} responses, which \
             then lack their end",
            100.0 * share
        ),
        format!("Raise {}", keys.join(" and ")),
    ))
}

fn single_rows(config: &Config, rows: &RowReport) -> Option<RunWarning> {
    let (batch, median) = (&config.batch, rows.example_tokens.median);
    if batch.batch_size < 2 || rows.kept < 2 {
        return None;
    }
    let (fact, remedy) = match (batch.gradient_accumulation_steps, batch.micro_batch_tokens) {
        (Some(parts), _) if parts >= batch.batch_size => (
            format!(
                "A batch of {} rows is computed in {parts} parts",
                batch.batch_size
            ),
            "set a smaller batch.gradient_accumulation_steps",
        ),
        (None, Some(most)) if most < 2 * median => (
            format!("batch.micro_batch_tokens is {most}, and the median row has {median} tokens"),
            "raise it",
        ),
        _ => return None,
    };
    Some(warning(
        "one_row_micro_batches",
        format!("{fact}, so most micro-batches hold one row, which is slow"),
        format!("If there is memory, {remedy}"),
    ))
}

fn saturated(loss: &WeightedLoss, share: f64, of: &Sight) -> RunWarning {
    let has = |name: &'static str| move |loss: &&Loss| loss.knob(name).is_some();
    let term = loss.terms().iter().find(has("length_normalized"));
    let name = term.map_or("NAME", Loss::name);
    let normalized = term.and_then(|loss| loss.knob("length_normalized"));
    let remedy = match normalized {
        Some(KnobValue::Flag(true)) => format!("Set a smaller loss.{name}.margin"),
        _ => format!(
            "Set loss.{name}.length_normalized = true, which compares log-probs per token, or a \
             loss.{name}.margin"
        ),
    };
    let percent = 100.0 * share;
    let when = match of.step() {
        0 => "before the first step".to_owned(),
        step => format!("by step {step}"),
    };
    // cEXPO's -log sigma(d) is flat on one side only.
    let fact = match name {
        "cexpo" => format!(
            "{percent:.0}% of the pairs are saturated {when}: those in the right order are too flat to \
             learn from, the others pull with full weight, whatever the difference"
        ),
        _ => format!("{percent:.0}% of the pairs are too flat to learn from {when} (saturated)"),
    };
    warning("saturated", fact, remedy)
}

fn clamped(loss: &WeightedLoss, share: f64, of: &Sight) -> RunWarning {
    let has_beta = |loss: &&Loss| loss.knob("beta").is_some();
    let key = match loss.terms().iter().find(has_beta) {
        Some(loss) => format!("loss.{}.beta or a smaller ", loss.name()),
        None => String::new(),
    };
    warning(
        "clamped",
        format!(
            "{:.0}% of the pairs have an exponent at its ceiling by step {} (clamped), so their gradient \
             is not that of the loss",
            100.0 * share,
            of.step()
        ),
        format!("Set a smaller {key}optimizer.learning_rate"),
    )
}

fn at_chance(of: &Sight) -> Option<RunWarning> {
    let accuracy = of.figure(ACCURACY).filter(|_| of.pairs >= PAIRS)?;
    // Wilson's interval of the accuracy holds 0.5 just where it lies among what a coin gives.
    let off = Z / (2.0 * of.pairs.sqrt());
    ((accuracy - 0.5).abs() <= off).then(|| {
        warning(
            "accuracy_at_chance",
            format!(
                "After the first epoch the reward accuracy is {accuracy:.2} on {} pairs, where guessing \
                 gives {:.2} to {:.2}",
                of.pairs,
                0.5 - off,
                0.5 + off
            ),
            match of.figure("log_ratios/chosen") {
                // It moved, but not towards the preferences: a larger step would not help.
                Some(shift) if shift.abs() > 1.0 => "Check that chosen and rejected are not swapped; \
                     the policy moves, so the rows may be too few or too noisy to learn from",
                _ => "Raise optimizer.learning_rate, and check that chosen and rejected are not swapped",
            }
            .into(),
        )
    })
}

fn unmoved(config: &Config, of: &Sight, first: &Record) -> Option<RunWarning> {
    let name = "eval_logps/chosen";
    let (was, is) = (first.get(name)?, of.record.get(name)?);
    let rate = config.optimizer.learning_rate;
    (was == is && rate > 0.0).then(|| {
        warning(
            "nothing_moved",
            format!(
                "After {} steps the log-probs of the evaluation rows are those of step {}, to the last \
                 digit: updates at optimizer.learning_rate = {rate:e} are lost in rounding",
                of.step(),
                crate::run_dir::step(first)
            ),
            "Raise it".into(),
        )
    })
}

#[cfg(test)]
mod tests;
