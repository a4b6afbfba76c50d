//! What a run says of itself: its header, warnings, and the divergence on its own answers.

use serde_json::Value;

use super::{Place, lines, str, text};
use crate::support::fixture;

/// A run of 4 steps that is evaluated before, in the middle and after, with answers to 3 prompts.
fn trained(place: &Place, loss: &str, rate: &str) -> String {
    let eval = format!("eval = {:?}", fixture("pairs.jsonl"));
    let run = "max_steps = 4\neval_steps = 2\neval_prompts = 3\neval_max_new_tokens = 8";
    let config = place.config(&fixture("neox"), loss, &eval, run);
    let rate = format!("optimizer.learning_rate={rate}");
    let end = place.run(&["train", "--config", str(&config), "--set", &rate]);
    assert_eq!(end.code, Some(0), "{}", end.err);
    end.err
}

/// The evaluations' values of a metric.
fn evaluations(place: &Place, name: &str) -> Vec<f64> {
    let records = lines(&place.path("out/metrics.jsonl"));
    let values = records.iter().filter_map(|record| record.get(name));
    values.map(|value| value.as_f64().unwrap()).collect()
}

#[test]
fn a_rate_of_0_is_warned_of_once_and_moves_nothing() {
    let place = Place::new();
    let said = trained(&place, "dpo", "0");
    let header = "loss dpo (beta = 0.1, label_smoothing = 0.0); device cpu, f32, ";
    assert_eq!(said.matches(header).count(), 1, "{said}");
    let warning = "warning: optimizer.learning_rate is 0, so no weight will change. ";
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    let summary: Value = serde_json::from_str(&text(&place.path("out/summary.json"))).unwrap();
    assert_eq!(summary["warnings"][0]["code"], "learning_rate_zero");
    assert_eq!(evaluations(&place, "eval_sampled_kl"), [0.0; 3]);
    assert_eq!(
        evaluations(&place, "eval_rewards/accuracies_ties_half"),
        [0.5; 3]
    );
    assert!(!text(&place.path("out/metrics.jsonl")).contains("-0.0,"));
}

#[test]
fn the_divergence_on_answers_is_there_for_a_loss_without_a_reference() {
    let place = Place::new();
    trained(&place, "simpo", "1e-2");
    let kl = evaluations(&place, "eval_sampled_kl");
    assert_eq!((kl.len(), kl[0]), (3, 0.0));
    assert!(kl[2] != 0.0 && kl[2].is_finite(), "{kl:?}");
    assert_eq!(evaluations(&place, "eval_sampled_kl_answers"), [3.0; 3]);
    let summary: Value = serde_json::from_str(&text(&place.path("out/summary.json"))).unwrap();
    let findings = summary["findings"].as_array().unwrap();
    assert!(
        findings[0].as_str().unwrap().starts_with("moved: "),
        "{findings:?}"
    );
}
