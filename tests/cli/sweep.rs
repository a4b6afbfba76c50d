//! `expo sweep`: what it runs, what it does not run again, and what it writes.

use std::fs;
use std::time::Duration;

use expo::config::SweepConfig;
use expo::ranks::Ranks;
use expo::session::{Reason, StopCondition};
use expo::train::{self, SweepStopped};

use super::{Place, str, text};
use crate::support::fixture;

const ENTRIES: &str = "[[sweep]]\nloss = [\"dpo\", \"ipo\"]\nbeta = [0.1, 0.5]\n\
                       [[sweep]]\nloss = \"rexpo\"\noptimizer.learning_rate = 1e-4\n";

/// A sweep over a base of its own.
fn sweep(place: &Place, entries: &str) -> std::path::PathBuf {
    let eval = format!("eval = {:?}", fixture("pairs.jsonl"));
    let base = place.config(&fixture("llama"), "simpo", &eval, "max_steps = 2");
    let out = place.path("out");
    let text = format!("base = {base:?}\n[run]\noutput_dir = {out:?}\n{entries}");
    place.write("sweep.toml", text)
}

#[test]
fn a_sweep_makes_each_run_once_and_compares_them() {
    let place = Place::new();
    let file = sweep(&place, ENTRIES);
    let command = ["sweep", "--config", str(&file)];
    let listed = place.succeed(&[&command[..], &["--list"]].concat());
    assert_eq!(listed.lines().count(), 5, "{listed}");
    let columns = |line: &str| line.split("  ").filter(|text| !text.is_empty()).count();
    assert!(listed.lines().all(|line| columns(line) == 3), "{listed}");
    assert!(!place.path("out").exists());

    let said = place.succeed(&command);
    for word in [
        "dpo",
        "beta=0.5",
        "accuracy",
        "optimizer.learning_rate=0.0001",
    ] {
        assert!(said.contains(word), "no {word} in {said}");
    }
    let csv = text(&place.path("out/sweep.csv"));
    assert_eq!(csv.lines().count(), 6, "{csv}");
    let run = place.path("out/dpo-beta=0.5");
    for name in [
        "model.safetensors",
        "summary.json",
        "config.toml",
        "metrics.jsonl",
    ] {
        assert!(run.join(name).is_file(), "{name}");
    }
    assert!(text(&place.path("out/frontier.svg")).starts_with("<svg"));
    assert!(
        fs::read(place.path("out/frontier.png"))
            .unwrap()
            .starts_with(b"\x89PNG")
    );

    // The step-0 figures are those of one reference: the sum of log-probs is the policy's own.
    let first = |run: &str| {
        let summary = text(&place.path("out").join(run).join("summary.json"));
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        summary["eval"]["first"]["eval_logps/chosen"].clone()
    };
    assert_eq!(first("dpo-beta=0.1"), first("ipo-beta=0.5"));

    // An interrupted run is made again, a finished one is not.
    let model = |run: &str| place.path("out").join(run).join("model.safetensors");
    let written = |run: &str| fs::metadata(model(run)).unwrap().modified().unwrap();
    let (kept, redone) = (written("dpo-beta=0.1"), written("ipo-beta=0.1"));
    fs::remove_file(place.path("out/ipo-beta=0.1/summary.json")).unwrap();
    let end = place.run(&command);
    assert_eq!(end.code, Some(0), "{}", end.err);
    assert!(
        end.err
            .contains("run 1 of 5: dpo beta=0.1, finished before"),
        "{}",
        end.err
    );
    assert_eq!(end.out, said);
    assert_eq!(written("dpo-beta=0.1"), kept);
    assert_ne!(written("ipo-beta=0.1"), redone);

    let end = place.run(&[&command[..], &["--set", "run.seed=1"]].concat());
    assert_eq!(end.code, Some(2), "{}", end.err);
    assert!(
        end.err.contains("another config: run.seed: 0 -> 1;")
            && end.err.contains("(--set run.overwrite=true)"),
        "{}",
        end.err
    );

    // Replaced, each run is made again, and then it is a finished one like any other.
    let replace = ["--set", "run.seed=1", "--set", "run.overwrite=true"];
    place.succeed(&[&command[..], &replace].concat());
    assert_ne!(written("dpo-beta=0.1"), kept);
    let end = place.run(&[&command[..], &replace[..2]].concat());
    assert!(end.err.contains("finished before"), "{}", end.err);
}

#[test]
fn a_sweep_over_seeds_prints_mean_deviation_and_interval() {
    let place = Place::new();
    let file = sweep(
        &place,
        "[[sweep]]\nloss = [\"dpo\", \"simpo\"]\nrun.seed = [0, 1, 2]\n",
    );
    let command = ["sweep", "--config", str(&file)];
    let listed = place.succeed(&[&command[..], &["--list", "--json"]].concat());
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[5]["settings"], "run.seed=2");
    let said = place.succeed(&command);
    for word in [
        "figure",
        "seeds",
        "95% low",
        "own unit",
        "are not comparable",
    ] {
        assert!(said.contains(word), "no {word} in {said}");
    }
    let rows = place.succeed(&[&command[..], &["--json"]].concat());
    let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
    let rows = rows.as_array().unwrap();
    let own = |row: &&serde_json::Value| row["loss"] == "dpo";
    let losses: Vec<f64> = rows[..6]
        .iter()
        .filter(own)
        .map(|row| row["eval loss"].as_f64().unwrap())
        .collect();
    let mean = losses.iter().sum::<f64>() / 3.0;
    let mut seeds = rows[6..].iter().filter(own);
    let row = seeds.find(|row| row["figure"] == "eval loss").unwrap();
    assert_eq!(row["seeds"], 3.0);
    assert!((row["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    let csv = text(&place.path("out/sweep_seeds.csv"));
    assert!(
        csv.starts_with("loss,settings,figure,seeds,mean,sd,95% low,95% high\n"),
        "{csv}"
    );
    // SimPO has no reference, so no log-ratio.
    let svg = text(&place.path("out/frontier.svg"));
    assert!(
        svg.contains("Not in the figure, without log-ratio chosen or"),
        "{svg}"
    );
    assert!(
        svg.contains("simpo run.seed=0") && svg.contains(">chance<"),
        "{svg}"
    );

    let place_of_report = place.succeed(&["report", str(&place.path("out")), "--json"]);
    let report: serde_json::Value = serde_json::from_str(&place_of_report).unwrap();
    assert_eq!(report["runs"].as_array().unwrap().len(), 6);
    assert_eq!(report["seeds"][0]["seeds"], 3.0);
    assert!(text(&place.path("out/report.html")).contains("Over seeds"));
}

#[test]
fn what_a_sweep_refuses() {
    let place = Place::new();
    for (entries, words) in [
        ("", &["sweep.toml", "[[sweep]]"][..]),
        (
            "[[sweep]]\nloss = \"dpo\"\nlambda = 1\n",
            &["sweep.toml:6: ", "lambda", "beta"],
        ),
        ("[[sweep]]\nloss = \"cexpo\"\n", &["cexpo", "samples"]),
        ("[[sweep]]\nloss = \"dop\"\n", &["`dop`", "`dpo`?"]),
    ] {
        let file = sweep(&place, entries);
        place.refuse(&["sweep", "--config", str(&file)], words);
    }
    let file = sweep(&place, "[[sweep]]\nloss = \"dpo\"\n");
    let command = [
        "sweep",
        "--config",
        str(&file),
        "--set",
        "loss.dpo.beta=0.3",
    ];
    place.refuse(&command, &["--set loss.dpo.beta=0.3", "[[sweep]]"]);
    // What is wrong only when a run begins has its place, too.
    let command = ["sweep", "--config", str(&file), "--set", "model.device=gpu"];
    place.refuse(&command, &["dpo: --set model.device=gpu: ", "cpu"]);
    let file = place.write(
        "none.toml",
        "base = \"none/such.toml\"\n[[sweep]]\nloss = \"dpo\"\n",
    );
    place.refuse(
        &["sweep", "--config", str(&file)],
        &["none/such.toml", "no such file"],
    );
}

/// A run that falls apart stops none of the others.
#[test]
fn a_run_that_is_not_finite_is_an_outcome() {
    let place = Place::new();
    let file = sweep(
        &place,
        "[[sweep]]\nloss = \"dpo\"\noptimizer.learning_rate = [1e30, 1e-4]\n\
         optimizer.optim = \"rmsprop\"\n",
    );
    let end = place.run(&["sweep", "--config", str(&file)]);
    assert_eq!(end.code, Some(3), "{}", end.err);
    let csv = text(&place.path("out/sweep.csv"));
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(
        end.out.contains("1e30") || end.out.contains("10000000000"),
        "{}",
        end.out
    );
}

/// A table of old figures beside new rows would compare what was never run.
#[test]
fn a_finished_run_whose_rows_have_changed_is_refused() {
    let place = Place::new();
    let file = sweep(&place, "[[sweep]]\nloss = \"dpo\"\n");
    let rows = text(&fixture("pairs.jsonl"));
    let train = place.write("rows.jsonl", &rows);
    let set = format!("data.train={}", str(&train));
    let command = ["sweep", "--config", str(&file), "--set", &set];
    place.succeed(&command);
    assert!(place.run(&command).err.contains("finished before"));
    let fewer: Vec<&str> = rows.lines().skip(1).collect();
    place.write("rows.jsonl", fewer.join("\n"));
    let end = place.run(&command);
    assert_eq!(end.code, Some(2), "{}", end.err);
    assert!(
        end.err.contains("the rows differ (data.train)"),
        "{}",
        end.err
    );
}

#[test]
fn a_sweep_whose_time_is_over_resumes_in_the_middle_of_a_run() {
    let place = Place::new();
    let base = place.config(&fixture("llama"), "simpo", "", "max_steps = 1000000");
    let out = place.path("out");
    let entries = "[[sweep]]\nloss = [\"dpo\", \"ipo\"]\n";
    let contents = format!("base = {base:?}\n[run]\noutput_dir = {out:?}\n{entries}");
    let file = place.write("sweep.toml", contents);
    let command = ["sweep", "--config", str(&file), "--max-time", "1s"];
    let newest = || fs::read_to_string(place.path("out/dpo/LATEST")).unwrap_or_default();
    // A loaded machine may need more than a second for the first step.
    let mut seen = vec![String::new()];
    for _ in 0..30 {
        let said = place.succeed(&command);
        assert!(said.starts_with("out of time after "), "{said}");
        assert!(said.ends_with("run the same command to resume\n"), "{said}");
        let newest = newest();
        if seen.last() != Some(&newest) {
            seen.push(newest);
        }
        if seen.len() == 3 {
            break;
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(!place.path("out/ipo").exists() && !place.path("out/sweep.csv").exists());
    let end = place.run(&[&command[..3], &["--max-time", "soon"]].concat());
    assert_eq!(end.code, Some(2));
    assert!(end.err.contains("is not a time"), "{}", end.err);
}

#[test]
fn a_sweep_whose_time_is_over_begins_no_further_run() {
    let place = Place::new();
    let one = sweep(&place, "[[sweep]]\nloss = \"dpo\"\n");
    let end = |done: usize| {
        let two = sweep(&place, "[[sweep]]\nloss = [\"dpo\", \"ipo\"]\n");
        let config = SweepConfig::open(&two, &[]).unwrap();
        let until = StopCondition {
            time: Some(Duration::ZERO),
            ..StopCondition::default()
        };
        let (outcomes, stopped) =
            train::sweep(&config, &until, &Ranks::alone(), &mut |_| {}).unwrap();
        assert_eq!(outcomes.len(), done);
        match stopped {
            Some(SweepStopped::BeforeRun {
                reason,
                done: finished,
                total,
            }) => assert_eq!((reason, finished, total), (Reason::Time, done, 2)),
            other => panic!("{other:?}"),
        }
        assert!(!place.path("out/ipo").exists());
    };
    end(0);
    sweep(&place, "[[sweep]]\nloss = \"dpo\"\n");
    place.succeed(&["sweep", "--config", str(&one)]);
    end(1);
}
