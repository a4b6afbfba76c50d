//! Tests of the warnings on made-up figures.

use serde_json::{Value, json};

use super::*;
use crate::data::Spread;

fn config(more: &str) -> Config {
    let text = format!(
        "[model]\nmodel_name_or_path = \"m\"\n[data]\ntrain = \"t\"\neval = \"e\"\n\
         [run]\noutput_dir = \"r\"\n{more}"
    );
    Config::parse(&text, &[]).unwrap()
}

fn record(figures: Value) -> Record {
    figures.as_object().unwrap().clone()
}

/// The texts of the warnings about an evaluation after one before it.
fn texts(config: &Config, before: Option<Value>, now: Value, pairs: f64) -> Vec<String> {
    let before = before.map(record);
    let now = record(now);
    let of = Sight {
        record: &now,
        prefix: "eval_",
        pairs,
    };
    let found = of_record(config, 100, &of, before.as_ref(), before.as_ref());
    found.into_iter().map(|warning| warning.text).collect()
}

#[test]
fn saturated_pairs_before_the_first_step_name_the_knob_of_their_loss() {
    let at_start = |loss: &str, share: f64| {
        let now = json!({"step": 0, "epoch": 0.0, "eval_saturated": share});
        texts(&config(loss), None, now, 100.0)
    };
    assert_eq!(
        at_start("[loss.rexpo]", 0.94),
        [
            "94% of the pairs are too flat to learn from before the first step (saturated). Set \
          loss.rexpo.length_normalized = true, which compares log-probs per token, or a \
          loss.rexpo.margin."
        ]
    );
    let sum = "[loss.dpo]\nweight = 1.0\n[loss.rexpo]\nweight = 1.0\nlength_normalized = true";
    assert!(at_start(sum, 0.6)[0].ends_with("Set a smaller loss.rexpo.margin."));
    assert!(at_start("[loss.rexpo]", 0.5).is_empty());
    // Pairs that were learned are saturated, too.
    let later = json!({"step": 9, "epoch": 0.5, "eval_saturated": 0.9});
    let before = json!({"step": 0, "epoch": 0.0, "eval_saturated": 0.1});
    assert!(texts(&config("[loss.rexpo]"), Some(before), later, 100.0).is_empty());
}

#[test]
fn an_accuracy_that_guessing_gives_is_told_after_the_first_epoch() {
    let after = |accuracy: f64, pairs: f64, epochs: [f64; 2]| {
        let at = |epoch| json!({"step": 5, "epoch": epoch, "eval_rewards/accuracies_ties_half": accuracy});
        texts(
            &config("[loss.dpo]"),
            Some(at(epochs[0])),
            at(epochs[1]),
            pairs,
        )
    };
    assert_eq!(
        after(0.53, 100.0, [0.9, 1.0]),
        [
            "After the first epoch the reward accuracy is 0.53 on 100 pairs, where guessing gives 0.40 \
          to 0.60. Raise optimizer.learning_rate, and check that chosen and rejected are not swapped."
        ]
    );
    assert!(after(0.61, 100.0, [0.9, 1.0]).is_empty());
    assert!(
        after(0.53, 100.0, [0.5, 0.9]).is_empty(),
        "in the first epoch"
    );
    assert!(after(0.53, 100.0, [1.0, 2.0]).is_empty(), "told before");
    assert!(after(0.53, 19.0, [0.9, 1.0]).is_empty(), "too few pairs");
}

#[test]
fn log_probs_that_did_not_move_are_told_once_the_rate_is_up() {
    let after = |step: u64, schedule: &str| {
        let at = |step| json!({"step": step, "epoch": 0.1, "eval_logps/chosen": -80.25});
        let config = config(&format!("[loss.dpo]\n[schedule]\n{schedule}"));
        texts(&config, Some(at(0)), at(step), 100.0)
    };
    assert!(after(5, "warmup_steps = 2")[0].starts_with(
        "After 5 steps the log-probs of the evaluation rows are those of step 0, to the last digit"
    ));
    assert!(after(5, "warmup_steps = 5").is_empty());
}

#[test]
fn clamped_pairs_name_a_smaller_beta() {
    let now = json!({"step": 7, "epoch": 0.1, "eval_clamped": 0.25});
    let found = texts(&config("[loss.fdpo]"), None, now, 100.0);
    assert!(found[0].starts_with("25% of the pairs have an exponent at its ceiling by step 7"));
    assert!(
        found[0].ends_with("Set a smaller loss.fdpo.beta or a smaller optimizer.learning_rate.")
    );
}

fn codes(more: &str, rows: &RowReport, steps: u64) -> Vec<String> {
    let found = of_config(&config(more), rows, steps);
    found.into_iter().map(|warning| warning.code).collect()
}

#[test]
fn a_learning_rate_that_stays_at_0_or_warms_up_for_ever_is_told_before_the_first_step() {
    let rows = RowReport::default();
    let codes = |more: &str, steps| codes(&format!("[loss.dpo]\n{more}"), &rows, steps);
    assert!(codes("", 30).is_empty());
    assert_eq!(
        codes("[optimizer]\nlearning_rate = 0", 30),
        ["learning_rate_zero"]
    );
    let warmup = "[schedule]\nwarmup_steps = 30";
    assert_eq!(codes(warmup, 30), ["warmup_longer_than_run"]);
    assert!(codes(warmup, 31).is_empty());
    assert_eq!(
        codes("[schedule]\nwarmup_ratio = 0.1", 1),
        ["learning_rate_zero"]
    );
    let text = &of_config(&config(&format!("[loss.dpo]\n{warmup}")), &rows, 10)[0].text;
    assert_eq!(
        text,
        "The warm-up takes 30 steps and the run has 10, so the learning rate gets no higher than \
         3.00e-7 of 1.00e-6. Set a smaller schedule.warmup_steps, or schedule.warmup_ratio = 0.1."
    );
}

#[test]
fn rows_that_are_cut_and_rows_computed_one_by_one_are_told() {
    let mut rows = RowReport {
        kept: 100,
        cut_responses: 9,
        ..RowReport::default()
    };
    rows.cut.rows = 5;
    assert!(codes("[loss.dpo]", &rows, 9).is_empty());
    rows.cut.rows = 6;
    let found = of_config(&config("[loss.dpo]"), &rows, 9);
    assert_eq!(
        found[0].text,
        "6% of the training rows are cut: 0 prompts and 9 responses, which then lack their end. Raise \
         data.max_length (512)."
    );
    rows.cut.rows = 0;
    rows.example_tokens = Spread {
        median: 50,
        ..Spread::default()
    };
    let one = ["one_row_micro_batches"];
    assert_eq!(
        codes("[loss.dpo]\n[batch]\nmicro_batch_tokens = 99", &rows, 9),
        one
    );
    assert!(codes("[loss.dpo]\n[batch]\nmicro_batch_tokens = 100", &rows, 9).is_empty());
    let parts = "[loss.dpo]\n[batch]\nbatch_size = 8\ngradient_accumulation_steps = 8";
    assert_eq!(codes(parts, &rows, 9), one);
}

#[test]
fn clipping_at_every_step_is_told_with_the_median_norm() {
    let config = config("[loss.sft]");
    let told = of_updates(&config, (30, 30), 47.25).unwrap();
    assert_eq!(told.code, "gradient_always_clipped");
    assert_eq!(
        told.text,
        "The gradient was clipped at every one of 30 steps: its median norm is 47.250, and \
         optimizer.max_grad_norm is 1. Raise optimizer.max_grad_norm above that, or set \
         loss.sft.per_token = true: the loss is a sum over tokens."
    );
    assert_eq!(of_updates(&config, (29, 30), 47.25), None);
    assert_eq!(of_updates(&config, (9, 9), 47.25), None);
}
