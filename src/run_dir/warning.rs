//! What a run warns of.

use serde::{Deserialize, Serialize};

/// A sign that a run learns nothing, or not what was meant: told once, and kept in `summary.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunWarning {
    /// What it is about: one of [`RunWarning::CODES`].
    pub code: String,
    /// The fact, then the remedy: a sentence each.
    pub text: String,
}

impl RunWarning {
    /// Every code with what it stands for.
    pub const CODES: &'static [(&'static str, &'static str)] = &[
        ("learning_rate_zero", "the learning rate is 0 at every step"),
        (
            "warmup_longer_than_run",
            "the learning rate never reaches `learning_rate`",
        ),
        (
            "rows_cut",
            "more than 5% of the training rows are cut by a length limit",
        ),
        (
            "one_row_micro_batches",
            "most micro-batches hold one row, which is slow",
        ),
        (
            "saturated",
            "EXPO: more than half of the pairs are too flat to learn from before the first step",
        ),
        (
            "clamped",
            "more than 10% of the pairs have an exponent at its ceiling",
        ),
        (
            "accuracy_at_chance",
            "after the first epoch the reward accuracy is what guessing gives, on 20 pairs or more",
        ),
        (
            "nothing_moved",
            "an evaluation equals the first one to the last digit: updates are lost in rounding",
        ),
        (
            "gradient_always_clipped",
            "every gradient of 10 steps or more was scaled down to `max_grad_norm`",
        ),
        (
            "no_sampled_kl",
            "the reference could not be loaded to score the answers to the evaluation prompts",
        ),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::Page;

    #[test]
    fn the_guide_lists_every_code() {
        let page = Page::find("training").unwrap().text;
        for (code, meaning) in RunWarning::CODES {
            let row = format!("| `{code}` | {meaning} |");
            assert!(page.contains(&row), "{row}");
        }
    }
}
