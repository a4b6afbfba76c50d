//! `expo eval judge` with judges that need no network.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::{End, Place, lines, str};
use crate::support::fixture;

fn offline(place: &Place, more: &[&str]) -> Value {
    let end = judged(place, more);
    assert_eq!(end.code, Some(0), "{}", end.err);
    serde_json::from_str(&end.out).unwrap()
}

fn judged(place: &Place, more: &[&str]) -> End {
    let (samples, rows) = (fixture("samples.jsonl"), fixture("pairs.jsonl"));
    let fixed = [
        "--samples",
        str(&samples),
        "--against",
        "chosen",
        "--data",
        str(&rows),
    ];
    let cache = ["--json", "--cache", "replies.jsonl"];
    place.run(&[&["eval", "judge"], &fixed[..], &cache, more].concat())
}

/// A model, and a reference with the same tokenizer, which its fixture lacks.
fn model_and_reference(place: &Place) -> (PathBuf, PathBuf) {
    let (model, reference) = (fixture("neox"), place.model("neox-ref"));
    let tokenizer = "tokenizer.json";
    fs::copy(model.join(tokenizer), reference.join(tokenizer)).unwrap();
    (model, reference)
}

#[test]
fn a_rule_judges_without_a_network() {
    let place = Place::new();
    let found = offline(&place, &["--judge", "length", "--out", "rows.jsonl"]);
    // By hand: each row says how long both are.
    let rows = lines(&place.path("rows.jsonl"));
    assert_eq!(rows.len(), 24);
    let mut wins = 0;
    for row in &rows {
        let of = |at: usize| row["characters"][at].as_u64().unwrap();
        let outcome = match of(0).cmp(&of(1)) {
            std::cmp::Ordering::Greater => "win",
            std::cmp::Ordering::Less => "loss",
            std::cmp::Ordering::Equal => "tie",
        };
        assert_eq!(row["outcome"], outcome);
        wins += usize::from(outcome == "win");
    }
    assert_eq!(found["wins"], json!(wins));
    assert_eq!(found["length"]["share_of_longer"], json!(1.0));
    assert_eq!(found["identical"]["share_of_ties"], json!(1.0));
    assert_eq!(found["null"]["share_lost"].as_f64().unwrap(), 1.0);
    assert_eq!(found["endpoint"], Value::Null);
    place.write("words.txt", "# kind words\nkind 2\nno -1\n");
    let found = offline(&place, &["--judge", "lexicon:words.txt", "--both-orders"]);
    assert_eq!(found["inconsistent"], json!(0));
    assert_eq!(found["judge"], "lexicon:words.txt");
    assert!(found["losses"].as_u64().unwrap() > 0);
    // The replies of both judges are in one file.
    assert!(
        lines(&place.path("replies.jsonl"))
            .iter()
            .any(|line| line["judge"] == "length")
    );
}

#[test]
fn a_model_judges_by_its_log_probs() {
    let place = Place::new();
    let (model, reference) = model_and_reference(&place);
    let judge = format!("model:{}", str(&model));
    // The log-probs that `expo score` finds for the same texts.
    let rows = fixture("pairs.jsonl");
    let scores = |folder: &PathBuf, name: &str| -> Vec<f64> {
        place.succeed(&[
            "score",
            "--model",
            str(folder),
            "--data",
            str(&rows),
            "--out",
            name,
        ]);
        let row = |row: &Value| row["chosen"]["log_prob"].as_f64().unwrap();
        lines(&place.path(name)).iter().map(row).collect()
    };
    let (policy, base) = (scores(&model, "policy"), scores(&reference, "base"));
    let found = offline(
        &place,
        &[
            "--judge",
            &judge,
            "--judge-reference",
            str(&reference),
            "--out",
            "rows.jsonl",
        ],
    );
    assert_eq!(found["items"], json!(24));
    let written = lines(&place.path("rows.jsonl"));
    for (row, (policy, base)) in written.iter().zip(policy.iter().zip(&base)) {
        let call = &row["calls"][0];
        let reply = call["reply"].as_str().unwrap();
        let scores: Vec<f64> = reply
            .lines()
            .next()
            .unwrap()
            .split(' ')
            .map(|s| s.parse().unwrap())
            .collect();
        let against = scores[usize::from(call["model_is"] == "A")];
        assert!(
            (against - (policy - base)).abs() < 1e-4,
            "{against} {}",
            policy - base
        );
    }
    let alone = offline(&place, &["--judge", &judge]);
    assert_ne!(alone["wins"], found["wins"]);
    assert_eq!(alone["asked"], alone["questions"]);
}

/// An answer has one score: comparisons that share the cache compute it once, and it has the same bits whatever
/// is in the batch.
#[test]
fn an_answer_is_scored_once_with_the_same_bits_whatever_the_batch() {
    let place = Place::new();
    let (model, reference) = model_and_reference(&place);
    let name = format!("model:{}", str(&model));
    let judge = ["--judge", &name, "--judge-reference", str(&reference)];
    let scores = |file: &str| -> BTreeMap<String, String> {
        let of = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
        let lines = lines(&place.path(file));
        let scores = lines.iter().filter(|line| line["kind"] == "score");
        scores
            .map(|line| (of(line, "key"), of(line, "reply")))
            .collect()
    };
    let whole = offline(&place, &judge);
    let first = scores("replies.jsonl");
    // Of each item both answers, and the empty one of the null controls.
    assert_eq!(first.len(), 24 * 3);
    let found = offline(&place, &[&judge[..], &["--both-orders"]].concat());
    assert_eq!(scores("replies.jsonl"), first);
    assert_eq!(found["inconsistent"], json!(0));
    assert_eq!(found["asked"], json!(24));

    // Scores without replies, as where a run was killed between the two.
    let cache = place.path("replies.jsonl");
    let text = fs::read_to_string(&cache).unwrap();
    let kept = text
        .lines()
        .filter(|line| line.contains("\"kind\":\"score\""));
    fs::write(
        &cache,
        kept.map(|line| format!("{line}\n")).collect::<String>(),
    )
    .unwrap();
    let again = offline(&place, &judge);
    assert_eq!(
        (&again["asked"], &again["wins"]),
        (&whole["asked"], &whole["wins"])
    );
    assert_eq!(scores("replies.jsonl"), first);

    // Each item by itself, without controls.
    let (samples, rows) = (fixture("samples.jsonl"), fixture("pairs.jsonl"));
    for number in 0..lines(&samples).len() {
        let one = format!("{}[{number}:{}]", str(&samples), number + 1);
        let fixed = ["eval", "judge", "--samples", &one, "--against", "chosen"];
        let more = ["--data", str(&rows), "--controls", "0"];
        place.succeed(&[&fixed[..], &more, &judge, &["--cache", "alone.jsonl"]].concat());
    }
    let alone = scores("alone.jsonl");
    let same = first.iter().filter(|(key, score)| {
        let alone = alone.get(*key);
        assert!(alone.is_none_or(|alone| alone == *score), "{key}");
        alone.is_some()
    });
    assert_eq!(same.count(), 48);

    // A score that is none.
    let broken = text.replacen(
        "\"kind\":\"score\",\"judge\"",
        "\"kind\":\"score\",\"x\":1,\"judge\"",
        1,
    );
    let at = broken.find("\"x\":1").unwrap();
    let reply = at + broken[at..].find("\"reply\":\"").unwrap() + 9;
    let broken = format!("{}NaN{}", &broken[..reply], &broken[reply..]);
    let without: Vec<&str> = broken
        .lines()
        .filter(|line| line.contains("\"kind\":\"score\""))
        .collect();
    fs::write(&cache, without.join("\n") + "\n").unwrap();
    let end = judged(&place, &judge);
    assert_eq!(end.code, Some(2));
    for word in ["replies.jsonl: ", "is not a score", "--cache"] {
        assert!(end.err.contains(word), "{}", end.err);
    }
}

/// A judge with few positions: what is longer is left out, cut or refused, and counted.
#[test]
fn items_longer_than_the_context_of_a_judge_are_skipped_cut_or_refused() {
    let place = Place::new();
    let model = place.model("neox");
    let path = model.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(40);
    fs::write(&path, config.to_string()).unwrap();
    let judge = format!("model:{}", str(&model));
    let found = offline(&place, &["--judge", &judge]);
    let (items, skipped) = (found["items"].as_u64(), found["skipped"].as_u64());
    assert!(skipped > Some(0) && items > Some(0), "{found}");
    assert_eq!(items.unwrap() + skipped.unwrap(), 24);
    assert_eq!((&found["failed"], &found["cut"]), (&json!(0), &json!(0)));
    assert!(found["win_rate"].is_number(), "{found}");
    let cut = offline(&place, &["--judge", &judge, "--too-long", "cut"]);
    let count = |key: &str| cut[key].as_u64().unwrap();
    assert_eq!(count("items") + count("skipped"), 24);
    assert!(
        count("cut") > 0 && count("skipped") < skipped.unwrap(),
        "{cut}"
    );
    assert!(cut["win_rate"].is_number(), "{cut}");
    let refused = judged(&place, &["--judge", &judge, "--too-long", "fail"]);
    assert_eq!(refused.code, Some(2));
    for word in ["tokens, and the judge has a context of 40", "--too-long"] {
        assert!(refused.err.contains(word), "{}", refused.err);
    }
    let alone = judged(&place, &["--judge", "length", "--too-long", "cut"]);
    assert_eq!(alone.code, Some(2));
    assert!(alone.err.contains("--too-long"), "{}", alone.err);
}

#[test]
fn both_numbers_of_a_sample_can_be_judged() {
    let place = Place::new();
    let samples = fixture("samples.jsonl");
    let args = [
        "eval",
        "judge",
        "--samples",
        str(&samples),
        "--against",
        str(&samples),
    ];
    let more = ["--judge", "length", "--json", "--cache", "c.jsonl"];
    let found: Value = serde_json::from_str(&place.succeed(&[&args[..], &more].concat())).unwrap();
    assert_eq!((&found["items"], &found["ties"]), (&json!(24), &json!(24)));
    let second = place.succeed(&[&args[..], &more, &["--index", "1"]].concat());
    let found: Value = serde_json::from_str(&second).unwrap();
    assert_eq!(found["items"], json!(4));
}
