//! `expo loss`: the project's own oracle table through the program, its answers and its errors.

use super::{knobs, list, number, numbers, table};
use crate::support::fixture;
use expo::loss::{Knobs, Loss, Objective};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// The table has every digit, so that a loss has to keep them also where it is tiny.
fn close(ours: f64, oracle: f64) -> bool {
    (ours - oracle).abs() <= (1e-9 * oracle.abs()).max(1e-300)
}

/// The answer of `expo losses {arguments}`.
fn expo_losses(arguments: &[&str]) -> String {
    let program = Command::new(env!("CARGO_BIN_EXE_expo"))
        .arg("losses")
        .args(arguments)
        .output();
    let output = program.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `expo loss {arguments}` on the lines.
fn expo_loss(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_expo"))
        .arg("loss")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Beside the reading of the output, or both sides would wait on a full pipe. A program that
    // stops at a wrong line closes its input early.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn answers(arguments: &[&str], input: &str) -> Vec<Value> {
    let output = expo_loss(arguments, input);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn line(tuple: &Value, preference: f64) -> Value {
    let (policy, reference) = (numbers(&tuple["policy"]), numbers(&tuple["reference"]));
    let tokens = numbers(&tuple["tokens"]);
    json!({
        "policy_chosen": policy[0], "policy_rejected": policy[1], "policy_sampled": policy[2],
        "ref_chosen": reference[0], "ref_rejected": reference[1], "ref_sampled": reference[2],
        "n_chosen": tokens[0], "n_rejected": tokens[1], "preference": preference,
    })
}

#[test]
fn expo_loss_agrees_with_the_projects_own_table() {
    let table = table(&fixture("losses.json"));
    let rows = list(&table, "rows");
    let same = |a: &Value, b: &Value| a["loss"] == b["loss"] && a["knobs"] == b["knobs"];
    let mut losses = 0;
    for group in rows.chunk_by(same) {
        losses += 1;
        let sets: Vec<String> = knobs(&group[0]["knobs"])
            .iter()
            .map(|(key, value)| format!("--set={key}={value}"))
            .collect();
        let mut arguments = vec![group[0]["loss"].as_str().unwrap()];
        arguments.extend(sets.iter().map(String::as_str));
        let input: String = group
            .iter()
            .map(|row| {
                let tuple = &table["tuples"][row["tuple"].as_u64().unwrap() as usize];
                format!("{}\n", line(tuple, number(&row["preference"])))
            })
            .collect();
        let answers = answers(&arguments, &input);
        assert_eq!(answers.len(), group.len());
        for (answer, row) in answers.iter().zip(group) {
            let keys = ["policy_chosen", "policy_rejected", "policy_sampled"];
            assert!(
                close(number(&answer["loss"]), number(&row["value"])),
                "{row}: {answer}"
            );
            for (key, oracle) in keys.iter().zip(numbers(&row["grad"])) {
                // What the loss does not read is not there.
                let ours = answer["grad"].get(key).map_or(0.0, number);
                assert!(close(ours, oracle), "{row}: {answer}");
            }
            let sampled = answer["grad"].get("policy_sampled").is_some();
            let reads = row["loss"] == "cexpo" && row["knobs"]["lambda"] != 0.0;
            assert_eq!(sampled, reads, "{row}: {answer}");
        }
    }
    assert_eq!(losses, 22);
}

#[test]
fn expo_loss_takes_kto_rows_as_one_batch() {
    let table = table(&fixture("losses.json"));
    for batch in list(&table, "kto") {
        let sets: Vec<String> = knobs(&batch["knobs"])
            .iter()
            .map(|(key, value)| format!("--set={key}={value}"))
            .collect();
        let mut arguments = vec!["kto"];
        arguments.extend(sets.iter().map(String::as_str));
        let names = [
            "policy",
            "ref",
            "label",
            "policy_mismatched",
            "ref_mismatched",
        ];
        let line = |row: &Value| {
            let values = row.as_array().unwrap().iter().cloned();
            let object: Map<String, Value> =
                names.map(str::to_owned).into_iter().zip(values).collect();
            format!("{}\n", Value::from(object))
        };
        let input: String = list(batch, "rows").iter().map(line).collect();
        let (values, grads) = (numbers(&batch["values"]), numbers(&batch["grads"]));
        let answers = answers(&arguments, &input);
        assert_eq!(answers.len(), values.len());
        for (row, answer) in answers.iter().enumerate() {
            assert!(
                close(number(&answer["loss"]), values[row]),
                "{batch}: {answer}"
            );
            assert!(
                close(number(&answer["grad"]["policy"]), grads[row]),
                "{batch}: {answer}"
            );
            assert_eq!(answer["grad"].as_object().unwrap().len(), 1);
        }
    }
}

const PAIR: &str =
    r#"{"policy_chosen":-45.25,"policy_rejected":-61.5,"ref_chosen":-47,"ref_rejected":-60}"#;

#[test]
fn expo_loss_keeps_the_order_of_the_input_and_takes_lists() {
    let text = |arguments: &[&str], input: &str| {
        String::from_utf8(expo_loss(arguments, input).stdout).unwrap()
    };
    let step_0 = PAIR.replace("-45.25", "-47").replace("-61.5", "-60");
    let help = text(&["--help"], "");
    let example = text(&["dpo", "--set", "beta=0.1"], &step_0);
    assert!(
        help.contains(&step_0) && help.contains(&example),
        "{example}"
    );
    assert_eq!(
        text(&["dpo", "--set", "beta=0.5"], PAIR),
        "{\"loss\":0.17974463538565905,\"grad\":{\"policy_chosen\":-0.0822582314482816,\
         \"policy_rejected\":0.0822582314482816}}\n"
    );
    let samples = r#"{"policy_sampled":[-3,-5],"policy_rejected":-2,"policy_chosen":-2}"#;
    assert_eq!(
        text(&["typo", "--set", "lambda=1", "--set", "lambda=2"], samples),
        "{\"loss\":8.693147180559945,\"grad\":{\"policy_sampled\":[-1.0,-1.0],\
         \"policy_rejected\":0.5,\"policy_chosen\":-0.5}}\n"
    );
    assert_eq!(
        text(&["cexpo"], "\n{\"policy_sampled\":-2}\r\n\n"),
        "{\"loss\":0.1,\"grad\":{\"policy_sampled\":-0.05}}\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pairs.jsonl");
    std::fs::write(&file, PAIR).unwrap();
    let from_file = text(&["dpo", "--file", file.to_str().unwrap()], "");
    assert_eq!(from_file, text(&["dpo"], PAIR));
}

#[test]
fn expo_loss_says_in_one_line_what_is_wrong() {
    let kto = r#"{"policy":-1,"ref":-1,"label":1,"policy_mismatched":-1,"ref_mismatched":-1}"#;
    let cases: [(&[&str], &str, i32, &str); 22] = [
        (&["dpo"], "{\"policy_chosen\":", 2, "<stdin>:1: bad JSON"),
        (&["dpo"], "[1]", 2, "<stdin>:1: bad JSON"),
        (
            &["dpo"],
            "{\"policy_chosen\":NaN}",
            2,
            "<stdin>:1: bad JSON",
        ),
        (
            &["dpo"],
            "{\"policy_chosn\":1}",
            2,
            "did you mean `policy_chosen`?",
        ),
        (
            &["dpo"],
            "{\"policy_chosen\":1}",
            2,
            "no column `ref_chosen`",
        ),
        (
            &["dpo"],
            "{\"policy_chosen\":null}",
            2,
            "policy_chosen is null; it is a number",
        ),
        (
            &["dpo"],
            "{\"policy_chosen\":[1]}",
            2,
            "policy_chosen is [1]; it is a number",
        ),
        (
            &["dpo"],
            "{\"policy_sampled\":[]}",
            2,
            "or a list of numbers",
        ),
        (&["dpo"], "{\"n_chosen\":0}", 2, "a length is above 0"),
        (&["simpo"], PAIR, 2, "no column `n_chosen`"),
        (
            &["ipo", "--set", "average_log_prob=true"],
            PAIR,
            2,
            "no column `n_chosen`",
        ),
        (&["cexpo"], PAIR, 2, "no column `policy_sampled`"),
        (&["kto"], PAIR, 2, "unknown column `policy_chosen`"),
        (&["kto"], kto, 2, "label is 1; it is true"),
        (&["dop"], "", 2, "there is no loss `dop`"),
        (&["dpo", "--set", "bta=1"], "", 2, "did you mean `beta`?"),
        (&["dpo", "--set", "beta=x"], "", 2, "beta = x"),
        (&["dpo", "--set", "beta"], "", 2, "write --set KEY=VALUE"),
        (&["rexpo", "--set", "lambda=2"], "", 2, "it lies in [0, 1]"),
        (
            &["fdpo", "--set", "alpha=0.5"],
            "",
            2,
            "only divergence = \"alpha\" reads it",
        ),
        (
            &["dpo", "--file", "no/such.jsonl"],
            "",
            2,
            "no/such.jsonl: no such file",
        ),
        (
            &["ipo"],
            "{\"policy_chosen\":-1e308,\"policy_rejected\":1,\"ref_chosen\":1,\"ref_rejected\":1}",
            3,
            "<stdin>:1",
        ),
    ];
    for (arguments, input, code, message) in cases {
        let output = expo_loss(arguments, input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?} {input}: {stderr}"
        );
        assert!(stderr.contains(message), "{arguments:?} {input}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(output.stdout.is_empty());
    }
    // The rows before the wrong one are answered, and the message names its line.
    let output = expo_loss(&["dpo"], &format!("{PAIR}\n\n{PAIR}\n{{}}\n"));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("<stdin>:4: no column")
    );
}

#[test]
fn the_help_page_leads_to_the_losses() {
    let help = String::from_utf8(expo_loss(&["--help"], "").stdout).unwrap();
    assert!(help.contains("expo losses"));
    assert!(help.lines().all(|line| line.len() <= 100));
}

#[test]
fn the_list_and_the_pages_have_every_loss_and_knob() {
    let list = expo_losses(&[]);
    let json: Value = serde_json::from_str(&expo_losses(&["--json"])).unwrap();
    assert!(list.lines().all(|line| line.len() <= 100), "{list}");
    for (name, object) in Loss::NAMES.iter().zip(json.as_array().unwrap()) {
        let loss = Loss::default_of(name).unwrap();
        let about = loss.about();
        assert_eq!(object["name"], *name);
        assert_eq!(object["formula"], about.formula);
        let page = expo_losses(&["show", name]);
        for text in [&list, &page] {
            assert!(
                about.formula.lines().all(|line| text.contains(line)),
                "{name}"
            );
            assert!(
                text.contains(about.paper) && text.contains(loss.title()),
                "{name}"
            );
        }
        for (knob, row) in loss.knobs().iter().zip(object["knobs"].as_array().unwrap()) {
            assert!(
                list.contains(knob.name) && page.contains(knob.meaning),
                "{name}: {knob:?}"
            );
            assert_eq!(
                row["default"].is_null(),
                loss.knob(knob.name).is_none(),
                "{name}"
            );
        }
        for alias in loss.aliases() {
            assert_eq!(expo_losses(&["show", alias]), page);
        }
    }
}

#[test]
fn expo_loss_takes_what_a_few_losses_read_beside_log_probs() {
    let with = |more: &str| PAIR.replace('}', &format!(",{more}}}"));
    let one = |arguments: &[&str], line: &str| answers(arguments, line)[0].clone();
    let dpo = one(&["dpo"], PAIR);
    let scores = with(r#""score_chosen":3,"score_rejected":2"#);
    assert_eq!(one(&["odpo"], &scores), dpo);
    let weights = with(r#""confidence_chosen":0.5,"confidence_rejected":-0.5"#);
    assert_eq!(one(&["wpo", "--set", "beta=0.1"], &weights), dpo);
    let sums = r#""policy_chosen_shared":-45.25,"ref_chosen_shared":-47,
        "policy_rejected_shared":-30,"ref_rejected_shared":-31"#;
    let shared = one(
        &["ld_dpo", "--set", "alpha=1"],
        &with(&sums.replace('\n', " ")),
    );
    assert_eq!(shared["loss"], dpo["loss"]);
    assert_eq!(
        shared["grad"]["policy_rejected"],
        dpo["grad"]["policy_rejected"]
    );
    assert_eq!(shared["grad"]["policy_rejected_shared"], 0.0);
    for (name, line, message) in [
        ("odpo", PAIR.to_owned(), "no column `score_chosen`"),
        (
            "odpo",
            scores.replace(":3", ":2"),
            "the chosen response has the higher one",
        ),
        ("wpo", PAIR.to_owned(), "no column `confidence_chosen`"),
        (
            "ld_dpo",
            PAIR.to_owned(),
            "no column `policy_chosen_shared`",
        ),
    ] {
        let output = expo_loss(&[name], &line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && stderr.contains(message),
            "{stderr}"
        );
    }
}

/// In a batch of lines the sort is over all of them.
#[test]
fn expo_loss_sorts_the_lines_of_aot() {
    // d = (5, 0, 2), d_r = (1, 7, -1): sorted (0, 2, 5) against (-1, 1, 7).
    let line = |d: f64, d_r: f64| json!({"policy_chosen": d, "policy_rejected": 0, "ref_chosen": d_r, "ref_rejected": 0});
    let input = format!(
        "{}\n{}\n{}\n",
        line(5.0, 1.0),
        line(0.0, 7.0),
        line(2.0, -1.0)
    );
    let answers = answers(&["aot", "--set", "beta=1"], &input);
    for (answer, z) in answers.iter().zip([5.0_f64 - 7.0, 0.0 + 1.0, 2.0 - 1.0]) {
        assert!(
            close(number(&answer["loss"]), (-z).exp().ln_1p()),
            "{answer}"
        );
        let slope = -1.0 / (1.0 + z.exp());
        assert!(
            close(number(&answer["grad"]["policy_chosen"]), slope),
            "{answer}"
        );
    }
}
