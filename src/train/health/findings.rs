//! The last lines of a run: displacement, saturation and length, in words.
//!
//! *Why*: a table of twenty figures shows these only to those who know where to look. A line is there
//! only where its figures are, and names a knob only where the figures call for it.

use super::lengths::{Generated, LengthPreference};
use crate::loss::{Loss, WeightedLoss};
use crate::run_dir::{ACCURACY, Record};

/// How much less likely, in nats, chosen answers may become before a remedy is named.
const DISPLACED: f64 = 1.0;

/// The figures that the lines are made of.
pub(in crate::train) struct Figures<'a> {
    pub loss: &'a WeightedLoss,
    /// The first and the last record: of evaluations, or of training where there are none.
    pub records: (&'a Record, &'a Record),
    /// What their names begin with: `eval_`, or nothing.
    pub prefix: &'static str,
    /// Of the last evaluation.
    pub lengths: Option<LengthPreference>,
    /// Of the first and the last answers to the evaluation prompts.
    pub generated: Option<(Generated, Generated)>,
}

impl Figures<'_> {
    /// The lines.
    pub fn lines(&self) -> Vec<String> {
        [self.moved(), self.saturated(), self.lengths()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn of(&self, record: &Record, name: &str) -> Option<f64> {
        let figure = record.get(&format!("{}{name}", self.prefix))?.as_f64()?;
        figure.is_finite().then_some(figure)
    }

    fn first(&self, name: &str) -> Option<f64> {
        self.of(self.records.0, name)
    }

    fn last(&self, name: &str) -> Option<f64> {
        self.of(self.records.1, name)
    }

    /// How far the log-prob of a role moved: from the reference, or from the first record on.
    fn shift(&self, role: &str) -> Option<f64> {
        let name = format!("logps/{role}");
        let since = || Some(self.last(&name)? - self.first(&name)?);
        self.last(&format!("log_ratios/{role}")).or_else(since)
    }

    fn moved(&self) -> Option<String> {
        let chosen = self.shift("chosen")?;
        let mut parts = vec![format!("chosen answers became {}", likely(chosen))];
        let rejected = self.shift("rejected");
        parts.extend(rejected.map(|shift| format!("rejected ones {}", likely(shift))));
        let mut text = parts.join(", ");
        for (name, label) in [(ACCURACY, "reward accuracy"), ("perplexity", "perplexity")] {
            if let (Some(first), Some(last)) = (self.first(name), self.last(name)) {
                text += &format!("; {label} {first:.2} -> {last:.2}");
            }
        }
        if rejected.is_some() && chosen < -DISPLACED {
            text += &format!(". {}", self.against_displacement());
        }
        Some(format!("moved: {text}"))
    }

    /// What keeps chosen answers likely, of what this loss does not have yet.
    fn against_displacement(&self) -> String {
        let has = |name: &str| self.loss.terms().iter().any(|loss| loss.name() == name);
        let mut knobs = Vec::new();
        if !has("dpop") {
            knobs.push("the loss dpop");
        }
        if !has("sft") {
            knobs.push("a weighted sft term");
        }
        knobs.push("a smaller optimizer.learning_rate");
        format!("To keep chosen answers likely: {}", either(&knobs))
    }

    fn saturated(&self) -> Option<String> {
        let percent = |share: f64| format!("{:.0}%", 100.0 * share);
        let change = |name: &str| {
            let (first, last) = (self.first(name)?, self.last(name)?);
            Some((
                format!("{} -> {}", percent(first), percent(last)),
                first,
                last,
            ))
        };
        if let Some((change, first, _)) = change("saturated") {
            let flag = |loss: &&Loss| {
                let off = crate::loss::KnobValue::Flag(false);
                loss.knob("length_normalized") == Some(off)
            };
            let knob = self.loss.terms().iter().find(flag).filter(|_| first > 0.5);
            let knob = knob.map(|loss| {
                let name = loss.name();
                format!(". To learn from more of them: loss.{name}.length_normalized = true")
            });
            let knob = knob.unwrap_or_default();
            return Some(format!("saturated pairs: {change}{knob}"));
        }
        let (change, _, last) = change("clamped")?;
        let knob = match last > 0.1 {
            true => ". To have their true gradient: a smaller beta or optimizer.learning_rate",
            false => "",
        };
        Some(format!("clamped pairs: {change}{knob}"))
    }

    /// Whether the loss does something about length already.
    fn is_length_normalized(&self) -> bool {
        let on = Some(crate::loss::KnobValue::Flag(true));
        self.loss.terms().iter().any(|loss| {
            let named = ["simpo", "sigmoid_norm", "rdpo", "ld_dpo"].contains(&loss.name());
            named || loss.knob("length_normalized") == on
        })
    }

    fn lengths(&self) -> Option<String> {
        let mut parts = Vec::new();
        let mut knob = "";
        if let Some(lengths) = &self.lengths {
            parts.push(format!(
                "the reward prefers the longer answer in {:.0}% of the pairs, the labels in {:.0}%",
                100.0 * lengths.by_reward(),
                100.0 * lengths.by_label()
            ));
            // One standard error at most: less may be chance.
            let off = 1.0 / (lengths.pairs as f64).sqrt();
            if lengths.by_reward() - lengths.by_label() > off && !self.is_length_normalized() {
                knob = ". Against a bias to length: a length-normalized loss (simpo, sigmoid_norm) or rdpo, ld_dpo";
            }
        }
        if let Some((first, last)) = &self.generated {
            let cut = match last.cut {
                0 => String::new(),
                cut => format!(", {cut} of {} cut at run.eval_max_new_tokens", last.answers),
            };
            parts.push(format!(
                "answers to the evaluation prompts {:.0} -> {:.0} tokens{cut}",
                first.mean(),
                last.mean()
            ));
        }
        (!parts.is_empty()).then(|| format!("length: {}{knob}", parts.join("; ")))
    }
}

/// `more likely (+3.1 nats)`.
fn likely(shift: f64) -> String {
    let word = match shift {
        shift if shift > 0.0 => "more likely",
        shift if shift < 0.0 => "less likely",
        _ => return "neither more nor less likely".into(),
    };
    format!("{word} ({shift:+.1} nats)")
}

fn either(words: &[&str]) -> String {
    match words {
        [one] => (*one).to_owned(),
        [all @ .., last] => format!("{} or {last}", all.join(", ")),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests;
