//! Weights of files in a run.

use std::fs;

use serde_json::Value;

use super::{Place, str};
use crate::support::fixture;

#[test]
fn a_weight_of_two_trains_as_the_file_twice_and_scores_it_once() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "dpo", "", "max_steps = 2");
    let pairs = fixture("pairs.jsonl");
    let pairs = str(&pairs);
    let weighted = format!(
        "data.train=[{{path = {pairs:?}, weight = 2}}, {:?}]",
        format!("{pairs}[:3]")
    );
    let twice = format!(
        "data.train=[{pairs:?}, {pairs:?}, {:?}]",
        format!("{pairs}[:3]")
    );
    let run = |name: &str, sets: &[&str]| {
        let out = place.path(name);
        let to = format!("run.output_dir={}", str(&out));
        let mut args = vec!["train", "--config", str(&config), "--set", &to];
        args.extend(sets.iter().flat_map(|set| ["--set", *set]));
        place.succeed(&args);
        fs::read_to_string(out.join("metrics.jsonl")).unwrap()
    };
    let expected = run("twice", &[&twice]);
    assert_eq!(run("weighted", &[&weighted]), expected);

    let scores = place.path("scores.jsonl");
    let score = [
        "score",
        "--config",
        str(&config),
        "--set",
        &weighted,
        "--out",
        str(&scores),
    ];
    let said = place.succeed(&score);
    assert!(said.starts_with("rows                      27\n"), "{said}");
    assert_eq!(fs::read_to_string(&scores).unwrap().lines().count(), 27);
    let given = format!("data.reference_log_probs={}", str(&scores));
    assert_eq!(run("scored", &[&weighted, &given]), expected);

    let show = [
        "data",
        "show",
        "--config",
        str(&config),
        "--set",
        &weighted,
        "--json",
    ];
    let census = serde_json::from_str::<Value>(&place.succeed(&show)).unwrap()["census"].take();
    assert_eq!(
        (&census["rows"], &census["mixture"][0]["examples"]),
        (&27.into(), &48.into())
    );
    let record = fs::read_to_string(place.path("weighted/run.json")).unwrap();
    assert!(record.contains("\"mixture\""), "{record}");
    let plain = fs::read_to_string(place.path("twice/run.json")).unwrap();
    assert!(!plain.contains("\"mixture\""), "{plain}");
    let plan = [
        "plan",
        "--config",
        str(&config),
        "--set",
        &weighted,
        "--json",
    ];
    let plan_of = |sets: &str| {
        let args = ["plan", "--config", str(&config), "--set", sets, "--json"];
        place.succeed(&args)
    };
    assert_eq!(place.succeed(&plan), plan_of(&twice));
}

#[test]
fn weights_print_as_a_config_and_are_for_training_rows_alone() {
    let place = Place::new();
    let pairs = fixture("pairs.jsonl");
    let pairs = str(&pairs);
    let config = place.config(&fixture("neox"), "dpo", "", "");
    let weighted = format!("data.train=[{{path = {pairs:?}, weight = 0.5}}]");
    let print = [
        "train",
        "--config",
        str(&config),
        "--set",
        &weighted,
        "--print-config",
    ];
    let printed = place.write("printed.toml", place.succeed(&print));
    let again = place.succeed(&["train", "--config", str(&printed), "--print-config"]);
    assert_eq!(fs::read_to_string(&printed).unwrap(), again);
    assert!(again.contains("weight = 0.5"), "{again}");
    let eval = format!("data.eval={{path = {pairs:?}, weight = 2}}");
    let config = str(&config);
    place.refuse(
        &["train", "--config", config, "--set", &eval],
        &["--set data.eval=", "eval has a file with a weight"],
    );
    let zero = format!("data.train={{path = {pairs:?}, weight = 0}}");
    place.refuse(
        &["train", "--config", config, "--set", &zero],
        &["weight must be in (0, 1000] (got 0)"],
    );
}
