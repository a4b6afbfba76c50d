//! `expo bandit`: files, the same bytes each time, one line for each bad input.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn expo(arguments: &[&str], threads: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_expo"))
        .arg("bandit")
        .args(arguments)
        .env("RAYON_NUM_THREADS", threads)
        .output()
        .unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap();
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, fs::read(entry.path()).unwrap())
    };
    entries.map(|entry| file(entry.unwrap())).collect()
}

#[test]
fn the_same_run_writes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, threads: &str| {
        let out = folder.path().join(name);
        let out = out.to_str().unwrap();
        let output = expo(
            &[
                "interpolation",
                "--out",
                out,
                "--set",
                "train.num_train_epochs=20",
                "--set",
                "losses.settings.fdpo.num_train_epochs=20",
                "--set",
                "losses.lambda.points=2",
                "--set",
                "train.num_seeds=2",
            ],
            threads,
        );
        assert!(output.status.success(), "{output:?}");
        files(Path::new(out))
    };
    let (one, two) = (run("one", "1"), run("two", "3"));
    assert!(one == two);
    let names: Vec<&str> = one.keys().map(String::as_str).collect();
    let expected = [
        "config.toml",
        "curves.csv",
        "curves_large.png",
        "curves_large.svg",
        "curves_small.png",
        "curves_small.svg",
        "optima.csv",
        "results.json",
        "summary.csv",
        "sweep.csv",
        "sweep.png",
        "sweep.svg",
    ];
    assert_eq!(names, expected);
    let curves = String::from_utf8(one["curves.csv"].clone()).unwrap();
    let mut lines = curves.lines();
    assert_eq!(lines.next(), Some("loss,lambda,seed,epoch,pi_1,pi_2,pi_3"));
    let start: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(start[..4], ["dpo", "1e-5", "0", "0"]);
    // 5 losses, 2 lambdas, 2 seeds, 21 epochs.
    assert_eq!(curves.lines().count(), 1 + 5 * 2 * 2 * 21);
    // What was run can be run again.
    let config = folder.path().join("one/config.toml");
    let again = expo(
        &["--config", config.to_str().unwrap(), "--print-config"],
        "1",
    );
    assert_eq!(again.stdout, one["config.toml"]);
}

#[test]
fn results_are_not_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let again = ["theory", "--out", out];
    assert!(expo(&again, "1").status.success());
    let refused = expo(&again, "1");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("add --overwrite"));
    assert!(
        expo(&["theory", "--out", out, "--overwrite"], "1")
            .status
            .success()
    );
    // Those of a training run never are.
    std::fs::write(folder.path().join("run.json"), "{}").unwrap();
    let refused = expo(&["theory", "--out", out, "--overwrite"], "1");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("holds a training run"));
}

#[test]
fn json_is_one_object() {
    let output = expo(
        &["theory", "--json", "--set", "losses.names=[\"dpo\"]"],
        "1",
    );
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["summary"][0]["loss"], "dpo");
    assert_eq!(json["summary"][0]["interpolation"], "weak");
}

#[test]
fn every_bad_input_is_one_line_and_exit_code_2() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["interpolate"],
            "no experiment `interpolate`; did you mean `interpolation`?",
        ),
        (
            &["theory", "--set", "losses.names=[\"dpp\"]"],
            "--set losses.names=[\"dpp\"]: there is no loss `dpp`",
        ),
        (
            &["interpolation", "--set", "losses.names=[\"kto\"]"],
            "the loss kto has no bandit",
        ),
        (
            &["interpolation", "--set", "losses.names=3"],
            "expected names of losses",
        ),
        (
            &["interpolation", "--set", "losses.names=[]"],
            "--set losses.names=[]: names is empty",
        ),
        (
            &["interpolation", "--set", "losses.names=[\"all\"]"],
            "\"all\" is no loss",
        ),
        (
            &["interpolation", "--set", "losses.names=[\"dpo\",\"dpo\"]"],
            "dpo is named twice",
        ),
        (
            &[
                "interpolation",
                "--set",
                "losses.names=[\"rexpo\"]",
                "--set",
                "losses.settings.rexpo.lambda.to=1",
            ],
            "lambda must be in [0, 1] (got 10)",
        ),
        (
            &[
                "interpolation",
                "--set",
                "losses.settings.simpo.learning_rate=1",
            ],
            "simpo is not among losses.names",
        ),
        (
            &["interpolation", "--set", "losses.settings.dpo.knobs.beta=1"],
            "beta is what is varied; set losses.settings.dpo.lambda",
        ),
        (
            &[
                "interpolation",
                "--set",
                "losses.settings.dpo.knobs.gamma=1",
            ],
            "the loss dpo has no knob `gamma`",
        ),
        (
            &[
                "interpolation",
                "--set",
                "losses.settings.dppo.learning_rate=1",
            ],
            "no loss `dppo`",
        ),
        (
            &[
                "interpolation",
                "--set",
                "losses.settings.dpo.learning_rate=-1",
            ],
            "--set losses.settings.dpo.learning_rate=-1: learning_rate must be > 0 and finite (got -1)",
        ),
        (
            &["interpolation", "--set", "losses.sample_term=exacd"],
            "did you mean `exact`?",
        ),
        (
            &["interpolation", "--set", "losses.lambda.points=1"],
            "--set losses.lambda.points=1: points must be in [2, 100000]",
        ),
        (
            &["interpolation", "--set", "losses.lambda.from=3"],
            "from must be below to",
        ),
        (
            &["interpolation", "--set", "losses.lambda.to=999"],
            "finite",
        ),
        (
            &["interpolation", "--set", "train.batch_sizes=1"],
            "did you mean `batch_size`?",
        ),
        (
            &["interpolation", "--set", "train.batch_size=0"],
            "--set train.batch_size=0: batch_size must be > 0",
        ),
        (
            &["interpolation", "--set", "problem.optimal=[0.5,0.5]"],
            "--set problem.optimal=[0.5,0.5]: 2 responses in optimal",
        ),
        (
            &["interpolation", "--set", "problem.optimal=[0.5,0.5,0.5]"],
            "add up to 1.5",
        ),
        (
            &["interpolation", "--set", "problem.optimal=[1.0,0,0]"],
            "a probability must be > 0 and finite (got 0)",
        ),
        (
            &["interpolation", "--set", "problem.optimal=[1]"],
            "a choice needs 2",
        ),
        (
            &["interpolation", "--set", "data.comparisons=0"],
            "--set data.comparisons=0: comparisons must be in [1, 10000000]",
        ),
        (
            &["interpolation", "--set", "data.comparisons=many"],
            "expected a number of draws",
        ),
        (
            &["interpolation", "--set", "data.comparisons=[[0,1],[1,0]]"],
            "expected 3 rows",
        ),
        (
            &["interpolation", "--set", "experiment=x"],
            "--set experiment=x: no experiment `x`",
        ),
        (
            &[
                "preservation",
                "--set",
                "good.optimal=[0.5,0.5]",
                "--set",
                "good.reference=[0.5,0.5]",
            ],
            "prompts of 2 and of 3 responses",
        ),
        (
            &["preservation", "--set", "placements=[]"],
            "--set placements=[]: placements is empty",
        ),
        (
            &["preservation", "--set", "distance=median"],
            "unknown value `median`",
        ),
        (
            &["constraint", "--set", "beta=0"],
            "--set beta=0: beta must be > 0 and finite (got 0)",
        ),
        (
            &["constraint", "--set", "alpha.from=-1"],
            "--set alpha.from=-1: alpha must be >= 0 (got -1)",
        ),
        (
            &["constraint", "--set", "losses.names=[\"dpo\"]"],
            "unknown key `losses`",
        ),
        (&["--config", "no/such.toml"], "no/such.toml: no such file"),
        (
            &["theory", "--out", "Cargo.toml"],
            "is a file, not a directory",
        ),
    ];
    for (arguments, part) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_expo"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .arg("bandit")
            .args(*arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_wrong_key_of_a_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let text = fs::read_to_string("configs/bandit/constraint.toml").unwrap();
    fs::write(&path, text.replace("penalty =", "penalti =")).unwrap();
    let output = expo(&["--config", path.to_str().unwrap()], "1");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let line = text
        .lines()
        .position(|line| line.starts_with("penalty"))
        .unwrap()
        + 1;
    let expected = format!(":{line}: unknown key `penalti`; did you mean `penalty`?");
    assert!(stderr.contains(&expected), "{stderr}");
    fs::write(&path, "beta = 1\n").unwrap();
    let output = expo(&["--config", path.to_str().unwrap()], "1");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("no key `experiment`; valid: interpolation, preservation"),
        "{stderr}"
    );
}
