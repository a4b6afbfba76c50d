//! Tests of the three lines on made-up figures.

use serde_json::{Value, json};

use super::*;

fn record(figures: Value) -> Record {
    figures.as_object().unwrap().clone()
}

fn lines(loss: &str, first: Value, last: Value) -> Vec<String> {
    let (first, last) = (record(first), record(last));
    Figures {
        loss: &Loss::default_of(loss).unwrap().into(),
        records: (&first, &last),
        prefix: "eval_",
        lengths: None,
        generated: None,
    }
    .lines()
}

#[test]
fn chosen_answers_that_became_less_likely_have_a_remedy() {
    let first = json!({"eval_rewards/accuracies_ties_half": 0.5});
    let last = json!({"eval_rewards/accuracies_ties_half": 0.68,
        "eval_log_ratios/chosen": -24.31, "eval_log_ratios/rejected": -41.2});
    assert_eq!(
        lines("dpo", first.clone(), last.clone()),
        [
            "moved: chosen answers became less likely (-24.3 nats), rejected ones less likely \
             (-41.2 nats); reward accuracy 0.50 -> 0.68. To keep chosen answers likely: the loss dpop, \
             a weighted sft term or a smaller optimizer.learning_rate"
        ]
    );
    assert!(lines("dpop", first, last)[0].ends_with(
        "To keep chosen answers likely: a weighted sft term or a smaller optimizer.learning_rate"
    ));
}

#[test]
fn a_loss_without_a_reference_moved_since_the_first_record() {
    let first = json!({"eval_logps/chosen": -90.0, "eval_perplexity": 40.0});
    let last = json!({"eval_logps/chosen": -80.0, "eval_perplexity": 12.5});
    assert_eq!(
        lines("sft", first, last),
        ["moved: chosen answers became more likely (+10.0 nats); perplexity 40.00 -> 12.50"]
    );
}

#[test]
fn saturated_pairs_name_the_knob_of_their_loss() {
    let saturated = |first: f64, last: f64| {
        let figures = |share| json!({"eval_saturated": share});
        lines("rexpo", figures(first), figures(last))
    };
    assert_eq!(
        saturated(0.94, 0.93),
        ["saturated pairs: 94% -> 93%. To learn from more of them: \
          loss.rexpo.length_normalized = true"]
    );
    assert_eq!(saturated(0.1, 0.6), ["saturated pairs: 10% -> 60%"]);
    let clamped = |share: f64| json!({"eval_clamped": share});
    assert_eq!(
        lines("gpo", clamped(0.0), clamped(0.25)),
        [
            "clamped pairs: 0% -> 25%. To have their true gradient: a smaller beta or \
          optimizer.learning_rate"
        ]
    );
}

#[test]
fn what_has_no_figures_is_not_spoken_of() {
    assert!(lines("dpo", json!({}), json!({"eval_logps/chosen": null})).is_empty());
}

fn bias(pairs: usize, longer_chosen: usize, longer_rewarded: usize) -> LengthPreference {
    let mut bias = LengthPreference::default();
    for pair in 0..pairs {
        let (long, short) = (9.0, 4.0);
        let chosen_is_longer = pair < longer_chosen;
        let (chosen, rejected) = if chosen_is_longer {
            (long, short)
        } else {
            (short, long)
        };
        let longer_wins = pair < longer_rewarded;
        let margin = if longer_wins == chosen_is_longer {
            1.0
        } else {
            -1.0
        };
        bias.add(chosen, rejected, margin);
    }
    bias
}

#[test]
fn a_bias_to_length_is_more_than_chance_would_give() {
    let of = |bias: LengthPreference| {
        let empty = Record::new();
        let figures = Figures {
            loss: &Loss::default_of("dpo").unwrap().into(),
            records: (&empty, &empty),
            prefix: "",
            lengths: Some(bias),
            generated: None,
        };
        figures.lines().remove(0)
    };
    let text = of(bias(100, 55, 71));
    assert!(
        text.starts_with(
            "length: the reward prefers the longer answer in 71% of the pairs, the labels in 55%. \
             Against a bias to length: "
        ),
        "{text}"
    );
    assert!(!of(bias(100, 55, 60)).contains("Against"));
    let mut none = LengthPreference::default();
    none.add(3.0, 3.0, 1.0);
    none.add(3.0, 4.0, 0.0);
    assert_eq!(none.pairs, 0);
}

#[test]
fn answers_are_those_of_the_first_and_the_last_evaluation() {
    use crate::run_dir::{FinishReason, Generation};
    let line = |step, tokens, finish_reason| Generation {
        step,
        row: 1,
        prompt: String::new(),
        response: String::new(),
        log_prob: -1.0,
        tokens,
        finish_reason,
    };
    let (stop, length) = (FinishReason::Stop, FinishReason::Length);
    let lines = [
        line(0, 10, stop),
        line(0, 20, stop),
        line(5, 64, length),
        line(9, 64, length),
        line(9, 30, stop),
    ];
    assert_eq!(Generated::first_and_last(&lines[..2]), None);
    let empty = Record::new();
    let figures = Figures {
        loss: &Loss::default_of("dpo").unwrap().into(),
        records: (&empty, &empty),
        prefix: "",
        lengths: None,
        generated: Generated::first_and_last(&lines),
    };
    assert_eq!(
        figures.lines(),
        [
            "length: answers to the evaluation prompts 15 -> 47 tokens, 1 of 2 cut at \
          run.eval_max_new_tokens"
        ]
    );
}
