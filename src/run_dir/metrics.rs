//! `metrics.jsonl`.

use serde_json::{Map, Value};

/// A line of `metrics.jsonl`: metrics by name, null where one is not finite. Which there are depends on
/// the loss, so this is a map; `step` is always there.
pub type Record = Map<String, Value>;

/// The share of pairs whose margin is above 0, as TRL has it: a tie is wrong.
pub const STRICT_ACCURACY: &str = "rewards/accuracies";

/// The share of pairs whose margin is above 0, a tie as half: 0.5 where nothing was learned. What
/// tables, progress lines and charts call accuracy.
pub const ACCURACY: &str = "rewards/accuracies_ties_half";

/// KL(pi || r), estimated on the answers to the evaluation prompts: the divergence from the reference
/// that runs with different losses have in common.
pub const SAMPLED_KL: &str = "sampled_kl";

/// What a name in `metrics.jsonl` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name, without the `eval_` of an evaluation.
    pub name: &'static str,
    /// What it is.
    pub meaning: &'static str,
    /// In which records it is.
    pub when: &'static str,
}

impl Metric {
    /// Every metric, in the order of a record.
    pub const ALL: &'static [Self] = &[
        metric("step", "optimizer steps made", "always"),
        metric("epoch", "passes over the training rows", "always"),
        metric("loss", "the objective, mean over rows", "always"),
        metric(
            "nll_per_token",
            "-log pi per chosen token: SFT's loss with `per_token = true`, whatever that is set to",
            "`sft`, alone or in a sum",
        ),
        metric(
            "perplexity",
            "exp(`nll_per_token`)",
            "`sft`, alone or in a sum",
        ),
        metric("learning_rate", "of the last step", "training"),
        metric(
            "grad_norm",
            "norm of the gradient before clipping",
            "training",
        ),
        metric(
            "num_tokens",
            "tokens computed with gradient so far",
            "training",
        ),
        metric(
            "non_finite_steps",
            "steps so far without an update, because a value was not finite",
            "training, once there is one",
        ),
        metric(
            "entropy",
            "of the policy's next-token distribution, mean over the tokens of chosen and rejected \
             responses",
            "losses that read one of them",
        ),
        metric("rewards/chosen", REWARD, REWARDED),
        metric("rewards/rejected", REWARD, REWARDED),
        metric(
            "rewards/margins",
            "chosen reward minus rejected reward",
            PAIRED,
        ),
        metric(
            STRICT_ACCURACY,
            "share of pairs with a margin above 0, as in TRL: a tie counts as wrong, so it begins at 0",
            PAIRED,
        ),
        metric(
            ACCURACY,
            "share of pairs with a margin above 0, a tie counting as half, so it begins at 0.5: the \
             accuracy of tables, progress lines and charts",
            PAIRED,
        ),
        metric(
            "logps/chosen",
            LOG_PROB,
            "losses that read chosen responses",
        ),
        metric(
            "logps/rejected",
            LOG_PROB,
            "losses that read rejected responses",
        ),
        metric(
            "logps/margins",
            "`logps/chosen` minus `logps/rejected`",
            "pairs",
        ),
        metric(
            "logps/accuracies",
            "share of pairs with d > 0 (of means per token with `length_normalized`)",
            "`cexpo`, `rexpo`",
        ),
        metric("log_ratios/chosen", LOG_RATIO, REFERENCED),
        metric("log_ratios/rejected", LOG_RATIO, REFERENCED),
        metric(
            "kl",
            "EXPO: KL(r \\|\\| pi) estimated on `data.samples`, biased if they were drawn with top-k, \
             top-p or a penalty; with `unsupervised = \"reverse_kl\"` KL(pi \\|\\| r) on the policy's own; \
             KTO: z0",
            "`cexpo` and `rexpo` with samples, `kto`; of a sum the first term's",
        ),
        metric(
            SAMPLED_KL,
            "KL(pi \\|\\| r): mean over the policy's answers to the evaluation prompts, drawn at temperature \
             1, of log pi(y) - log r(y); answers that were cut count as far as they go",
            SAMPLED,
        ),
        metric(
            "sampled_kl_error",
            "its standard error over answers",
            SAMPLED,
        ),
        metric(
            "sampled_kl_per_token",
            "the same sum over all tokens of the answers",
            SAMPLED,
        ),
        metric(
            "sampled_kl_cut",
            "share of the answers that were cut at `run.eval_max_new_tokens`",
            SAMPLED,
        ),
        metric("sampled_kl_answers", "how many answers it is of", SAMPLED),
        metric(
            "mean_token_accuracy",
            "share of chosen tokens that are the policy's most likely ones",
            "losses that read chosen responses",
        ),
        metric(
            "saturated",
            "share of pairs where sigma(d - margin) is too flat to learn from: its slope is below 1e-4",
            "`cexpo`, `rexpo`",
        ),
        metric(
            "clamped",
            "share of pairs with an exponent at its ceiling",
            "forward KL and alpha of `fdpo`, `gpo` and `qpo` with an exponential",
        ),
        metric(
            "loss/NAME",
            "the term NAME, mean over rows, without its weight",
            "sums of losses",
        ),
    ];
}

impl Metric {
    /// The metric of a name in `metrics.jsonl`, with or without `eval_`; terms of a sum, `loss/dpo`, are
    /// one metric.
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = name.strip_prefix("eval_").unwrap_or(name);
        let name = match name.starts_with("loss/") {
            true => "loss/NAME",
            false => name,
        };
        Self::ALL.iter().find(|metric| metric.name == name)
    }

    /// The meaning as plain text: without the marks of Markdown.
    pub fn plain(&self) -> String {
        self.meaning.replace('`', "").replace("\\|", "|")
    }
}

const fn metric(name: &'static str, meaning: &'static str, when: &'static str) -> Metric {
    Metric {
        name,
        meaning,
        when,
    }
}

const SAMPLED: &str = "evaluation with `run.eval_prompts`, any loss";
const REWARD: &str = "implicit reward: beta rho; rho for EXPO; beta log pi / n for SimPO and CPO; \
                      lambda log pi / n for ORPO";
const REWARDED: &str =
    "losses that define a reward, so not `sft`; of a sum the first term that does";
const PAIRED: &str = "pairs, losses that define a reward";
const LOG_PROB: &str = "summed log-probability under the policy";
const LOG_RATIO: &str = "rho: how far the log-probability moved from the reference's";
const REFERENCED: &str = "losses with a reference, or a config that names one";

/// The optimizer step of a line; 0 if it names none.
pub fn step(line: &Record) -> u64 {
    line.get("step").and_then(Value::as_u64).unwrap_or(0)
}

/// The points (step, value) of a metric in lines that have it; null is NaN.
pub fn points(lines: &[Record], name: &str) -> Vec<(f64, f64)> {
    let with = lines.iter().filter_map(|r| Some((step(r), r.get(name)?)));
    with.map(|(step, value)| (step as f64, value.as_f64().unwrap_or(f64::NAN)))
        .collect()
}
