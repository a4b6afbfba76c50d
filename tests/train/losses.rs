//! Runs of losses that ask for more than log-probs, of sums of losses, and with a reference that moves.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use expo::checkpoint::{SaveDtype, save};
use expo::config::Config;
use expo::model::weights::ModelFolder;
use expo::sample::run_datasets;
use expo::score::score_run;
use expo::session::{Event, Session};
use expo::train::Run;
use serde_json::Value;

use super::{TAIL, close, head, numbers, ours, ours_with_knobs};
use crate::support::fixture;

/// Our rows with a score for each answer; in the last two the rejected one's is no lower.
pub fn scored_rows(folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(fixture("pairs.jsonl")).unwrap();
    let count = text.lines().count();
    let scored = text.lines().enumerate().map(|(number, line)| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        let gap = match count - number {
            1 => 0.0,
            2 => -1.0,
            _ => 0.5 + number as f64 / 4.0,
        };
        row["score_chosen"] = (3.0 + gap).into();
        row["score_rejected"] = 3.0.into();
        format!("{row}\n")
    });
    let path = folder.join("scored.jsonl");
    std::fs::write(&path, scored.collect::<String>()).unwrap();
    path
}

/// ODPO needs a score of every answer, the chosen one's the higher; other rows are counted.
#[test]
fn odpo_reads_the_scores_of_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let open = |rows: &Path, events: &mut Vec<String>| {
        let out = folder.path().display();
        let head = head(&fixture("llama"), &fixture("llama-ref"), rows);
        let text = format!(
            "{head}max_length = 128\nmax_prompt_length = 64\n[loss.odpo]\n{}",
            TAIL.replace("{out}", &out.to_string())
        );
        Run::open(Config::parse(&text, &[]).unwrap(), &mut |event| {
            if let Event::Rows(_, report) = event {
                events.extend(report.invalid.keys().map(ToString::to_string));
            }
        })
        .map(drop)
    };
    let mut reasons = Vec::new();
    open(&scored_rows(folder.path()), &mut reasons).unwrap();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    let error = open(&fixture("pairs.jsonl"), &mut reasons)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("score_chosen") && error.contains("the loss reads"),
        "{error}"
    );
}

/// Runs on all our rows in one batch, so that each step sees the same ones.
fn moving(out: &Path, model: &Path, reference: &Path, more: &str, steps: u64) -> Vec<Value> {
    let rows = fixture("pairs.jsonl");
    let head = head(model, reference, &rows);
    let tail = TAIL.replace("{out}", &out.display().to_string());
    let text = format!(
        "{head}eval = {rows:?}\nmax_length = 128\nmax_prompt_length = 64\n{more}\n[loss.dpo]\n\
         [batch]\nbatch_size = 64\n[optimizer]\nlearning_rate = 1e-3\n\
         [schedule]\nlr_scheduler_type = \"constant\"\n{tail}max_steps = {steps}\n",
    );
    let config = Config::parse(&text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Run::open(config, &mut |_| {})
        .unwrap()
        .train(&mut |_| {})
        .unwrap();
    let text = std::fs::read_to_string(out.join("run/metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// TR-DPO: a hard update makes each step the first one; a soft one makes the mean of the weights.
#[test]
fn the_reference_follows_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let (policy, reference) = (fixture("llama"), fixture("llama-ref"));
    let hard = "[reference]\nupdate = \"hard\"\nsteps = 1";
    let hard = moving(&out("hard"), &policy, &reference, hard, 3);
    let losses = numbers(&hard, "loss");
    close(
        losses[1],
        std::f64::consts::LN_2,
        1e-6,
        "loss after a hard update",
    );
    close(
        losses[2],
        std::f64::consts::LN_2,
        1e-6,
        "loss after another one",
    );
    assert!((losses[0] - losses[1]).abs() > 1e-3);
    close(
        numbers(&hard, "eval_loss")[1],
        std::f64::consts::LN_2,
        1e-6,
        "evaluation",
    );

    let frozen = moving(&out("frozen"), &policy, &reference, "", 2);
    let later = moving(
        &out("later"),
        &policy,
        &reference,
        "[reference]\nsteps = 3",
        2,
    );
    assert_eq!(frozen, later);

    let soft = "[reference]\nalpha = 0.25\nsteps = 1";
    let soft = moving(&out("soft"), &policy, &reference, soft, 2);
    moving(&out("one"), &policy, &reference, "", 1);
    let (one, mixed) = (out("one/run"), out("mixed"));
    let load = |folder: &Path| {
        ModelFolder::open(folder)
            .unwrap()
            .load(DType::F32, &Device::Cpu)
            .unwrap()
            .0
    };
    let (moved, mean) = (load(&one), load(&reference));
    let weights = mean.weights().flat();
    let sum = ((moved.weights().flat() * 0.25).unwrap() + (weights * 0.75).unwrap()).unwrap();
    weights.slice_set(&sum, 0, 0).unwrap();
    let files = expo::io::model_dir::ModelFiles::open(&one).unwrap();
    save(&mean, &files, &mixed, SaveDtype::F32).unwrap();
    let second = moving(&out("second"), &one, &mixed, "", 1);
    for key in [
        "loss",
        "log_ratios/chosen",
        "log_ratios/rejected",
        "grad_norm",
    ] {
        close(numbers(&soft, key)[1], numbers(&second, key)[0], 1e-4, key);
    }
}

/// A sum is its terms with their weights, each of which is reported, whatever its micro-batches.
#[test]
fn a_sum_of_losses_is_the_sum_of_its_terms() {
    let terms =
        "weight = 0.8\n[loss.sft]\nweight = 0.2\nper_token = true\n[loss.kto]\nweight = 2.0";
    let (_whole, whole) = ours_with_knobs("dpo", terms, "gradient_accumulation_steps = 1", "");
    let (_parts, parts) = ours_with_knobs("dpo", terms, "micro_batch_tokens = 90", "");
    let numbers = |records: &[Value], key: &str| {
        let numbers = numbers(records, key);
        assert_eq!(numbers.len(), 3, "{key}");
        numbers
    };
    for key in [
        "loss",
        "grad_norm",
        "loss/dpo",
        "loss/sft",
        "loss/kto",
        "rewards/margins",
        "kl",
    ] {
        for (a, b) in numbers(&whole, key).iter().zip(numbers(&parts, key)) {
            close(b, *a, 2e-4, key);
        }
    }
    let [dpo, sft, kto] = ["loss/dpo", "loss/sft", "loss/kto"].map(|key| numbers(&whole, key));
    for (step, loss) in numbers(&whole, "loss").iter().enumerate() {
        close(
            *loss,
            0.8 * dpo[step] + 0.2 * sft[step] + 2.0 * kto[step],
            1e-12,
            "loss",
        );
    }
    let (_dpo, alone) = ours("dpo", "");
    close(
        dpo[0],
        numbers(&alone, "loss")[0],
        1e-5,
        "the first step of dpo",
    );
}

/// A score file of a program that knew no shared sums is refused where they are read.
#[test]
fn ld_dpo_asks_for_shared_sums_in_a_score_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reference.jsonl");
    let config = |loss: &str, data: &str| {
        let out = folder.path().display().to_string();
        let head = head(
            &fixture("llama"),
            &fixture("llama-ref"),
            &fixture("pairs.jsonl"),
        );
        let text = format!(
            "{head}max_length = 128\nmax_prompt_length = 64\n{data}\n[loss.{loss}]\n{}",
            TAIL.replace("{out}", &out)
        );
        Config::parse(&text, &[]).unwrap()
    };
    let run = config("dpo", "");
    let session = Session::open(&run.model, &mut |_| {}).unwrap();
    let datasets = run_datasets(&run, &session, &mut |_| {}).unwrap();
    let out = expo::io::output::Output::File(file.clone());
    score_run(&run, &session, &datasets, &out, &mut |_| {}).unwrap();
    let given = format!("reference_log_probs = {file:?}");
    let open = |loss: &str| Run::open(config(loss, &given), &mut |_| {}).map(drop);
    open("ld_dpo").unwrap();
    let rows = std::fs::read_to_string(&file).unwrap();
    let without = rows.lines().map(|line| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        for side in ["chosen", "rejected"] {
            row[side].as_object_mut().unwrap().remove("shared").unwrap();
        }
        format!("{row}\n")
    });
    std::fs::write(&file, without.collect::<String>()).unwrap();
    open("dpo").unwrap();
    let error = open("ld_dpo").unwrap_err().to_string();
    assert!(error.contains("no `shared` log-probs"), "{error}");
}

/// LD-DPO in which every token counts is DPO, also through the head and the cached column.
#[test]
fn ld_dpo_with_all_tokens_is_dpo() {
    let ((_a, dpo), (_b, same)) = (
        ours("dpo", ""),
        ours_with_knobs("ld_dpo", "alpha = 1.0", "", ""),
    );
    for key in ["loss", "grad_norm", "rewards/margins"] {
        assert_eq!(numbers(&dpo, key).len(), 3);
        for (a, b) in numbers(&dpo, key).iter().zip(numbers(&same, key)) {
            close(b, *a, 1e-5, key);
        }
    }
}
