//! Training runs: trajectories of other programs, and of ourselves done another way.

mod accumulation;
mod adapter;
mod frozen;
mod losses;
mod resume;
mod timings;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use expo::config::{Config, SamplingConfig};
use expo::model::weights::ModelFolder;
use expo::sample::{Existing, Target, sample_run};
use expo::session::{Event, StopCondition};
use expo::train::Run;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{fixture, json, real_fixtures};

/// A run in a folder of its own, from a TOML text in which `{out}` stands for that folder.
fn train(toml: &str) -> (TempDir, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let toml = toml.replace("{out}", &folder.path().display().to_string());
    let config = Config::parse(&toml, &[]).unwrap_or_else(|error| panic!("{error}\n{toml}"));
    Run::open(config, &mut |_| {})
        .unwrap()
        .train(&mut |_| {})
        .unwrap();
    let text = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let records = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (folder, records)
}

fn numbers(records: &[Value], key: &str) -> Vec<f64> {
    records
        .iter()
        .filter_map(|record| record.get(key))
        .map(|x| x.as_f64().unwrap())
        .collect()
}

/// name -> (Euclidean norm, sum) of every parameter of a model folder.
fn norms(folder: &Path) -> Vec<(String, f64, f64)> {
    let (model, _) = ModelFolder::open(folder)
        .unwrap()
        .load(DType::F64, &Device::Cpu)
        .unwrap();
    let norm = |id: usize| {
        let values: Vec<f64> = model
            .weights()
            .view(id)
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        (
            values.iter().map(|x| x * x).sum::<f64>().sqrt(),
            values.iter().sum(),
        )
    };
    let entries = model.weights().layout().entries.iter().enumerate();
    entries
        .map(|(id, entry)| (entry.name.clone(), norm(id).0, norm(id).1))
        .collect()
}

fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    assert!(
        (got - want).abs() <= tolerance * want.abs().max(1e-3),
        "{what}: {got} is not {want}"
    );
}

/// Compares losses, gradient norms, learning rates and final parameters with an oracle.
fn compare(records: &[Value], run: &Path, oracle: &Value, what: &str) {
    let steps = oracle["steps"].as_array().unwrap();
    assert_eq!(records.len(), steps.len(), "{what}");
    for (record, step) in records.iter().zip(steps) {
        for (key, tolerance) in [
            ("loss", 1e-4),
            ("grad_norm", 1e-3),
            ("learning_rate", 1e-12),
            ("logps/chosen", 1e-4),
            ("logps/rejected", 1e-4),
            ("rewards/chosen", 1e-3),
            ("rewards/accuracies", 1e-9),
            ("entropy", 1e-3),
        ] {
            // TRL averages the entropy over micro-batches, not over tokens.
            let averaged = key == "entropy" && what.contains("ga2");
            if let (Some(want), false) = (step.get(key).and_then(Value::as_f64), averaged) {
                close(
                    record[key].as_f64().unwrap(),
                    want,
                    tolerance,
                    &format!("{what}: {key}"),
                );
            }
        }
    }
    for (name, norm, _) in norms(run) {
        let entry = oracle["final"]
            .get(&name)
            .unwrap_or(&oracle["final"]["lm_head.weight"]);
        close(
            norm,
            entry["norm"].as_f64().unwrap(),
            1e-3,
            &format!("{what}: {name}"),
        );
    }
}

fn head(model: &Path, reference: &Path, rows: &Path) -> String {
    format!(
        "[model]\nmodel_name_or_path = {model:?}\nreference = {reference:?}\n\
         [data]\nformat = \"pairs\"\ntrain = {rows:?}\nshuffle = false\n",
    )
}

const TAIL: &str = "[run]\noutput_dir = \"{out}/run\"\ncache_dir = \"{out}/cache\"\n";

#[test]
fn trajectories_of_trl_on_real_rows() {
    let Some(root) = real_fixtures() else { return };
    let rows = root.join("oracle/hh8_explicit.jsonl");
    let adam = "[optimizer]\noptim = \"adamw\"\nlearning_rate = 1e-3\n";
    let plain =
        |steps: usize| format!("[batch]\nbatch_size = 4\n{adam}{TAIL}max_steps = {steps}\n");
    let accumulated = format!(
        "[batch]\nbatch_size = 4\ngradient_accumulation_steps = 2\n{adam}weight_decay = 0.1\n\
         [schedule]\nlr_scheduler_type = \"cosine\"\nwarmup_steps = 2\n{TAIL}max_steps = 6\n"
    );
    for model in ["neox-tiny", "stories260k"] {
        let oracle = json(&root.join(format!("oracle/{model}.json")));
        let models = root.join("models");
        let head = head(
            &models.join(model),
            &models.join(format!("{model}-ref")),
            &rows,
        );
        let mut compared = 0;
        for (name, loss, tail) in [
            ("dpo_sigmoid_lr1e-3_b4_8steps", "[loss.dpo]\n", plain(8)),
            (
                "dpo_ipo_lr1e-3_b4_4steps",
                "[loss.ipo]\naverage_log_prob = true\n",
                plain(4),
            ),
            ("dpo_js_lr1e-3_b4_4steps", "[loss.fdpo]\n", plain(4)),
            (
                "dpo_sigmoid_ga2_b2_wd0.1_warmup2_cosine_6steps",
                "[loss.dpo]\n",
                accumulated.clone(),
            ),
        ] {
            let Some(want) = oracle["trl"].get(name) else {
                continue;
            };
            compared += 1;
            let (folder, records) = train(&format!("{head}{loss}{tail}"));
            compare(
                &records,
                &folder.path().join("run"),
                want,
                &format!("{model} {name}"),
            );
        }
        assert!(compared > 0, "{model}");
    }
}

/// TRL's KTO takes the mismatched answers from its own batch of 4 rows.
#[test]
fn trajectory_of_kto_on_real_rows() {
    let Some(root) = real_fixtures() else { return };
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl");
    let pairs = std::fs::read_to_string(root.join("oracle/hh8_explicit.jsonl")).unwrap();
    let unpaired = pairs.lines().enumerate().map(|(i, line)| {
        let pair: Value = serde_json::from_str(line).unwrap();
        let (label, side) = (i % 2 == 0, ["chosen", "rejected"][i % 2]);
        let row = serde_json::json!({
            "prompt": pair["prompt"], "completion": pair[side], "label": label,
        });
        format!("{row}\n")
    });
    std::fs::write(&rows, unpaired.collect::<String>()).unwrap();
    for model in ["neox-tiny", "stories260k"] {
        let oracle = json(&root.join(format!("oracle/{model}.json")));
        let models = root.join("models");
        let head = head(
            &models.join(model),
            &models.join(format!("{model}-ref")),
            &rows,
        );
        let head = head.replace("\"pairs\"", "\"unpaired\"");
        let (folder, records) = train(&format!(
            "{head}[loss.kto]\nmismatch_group = 4\n[batch]\nbatch_size = 4\n\
             [optimizer]\nlearning_rate = 1e-3\n{TAIL}max_steps = 4\n",
        ));
        let want = &oracle["trl"]["kto_lr1e-3_b4_4steps"];
        compare(
            &records,
            &folder.path().join("run"),
            want,
            &format!("{model} kto"),
        );
        for (got, want) in numbers(&records, "kl")
            .iter()
            .zip(want["steps"].as_array().unwrap())
        {
            close(*got, want["kl"].as_f64().unwrap(), 1e-3, "kl");
        }
    }
}

/// TRL's SFT: the completion's tokens, averaged over those of the batch.
#[test]
fn trajectory_of_sft_on_real_rows() {
    let Some(root) = real_fixtures() else { return };
    let rows = root.join("oracle/hh8_explicit.jsonl");
    for model in ["neox-tiny", "stories260k"] {
        let oracle = json(&root.join(format!("oracle/{model}.json")));
        let policy = root.join("models").join(model);
        let (folder, records) = train(&format!(
            "[model]\nmodel_name_or_path = {policy:?}\n\
             [data]\nformat = \"pairs\"\ntrain = {rows:?}\nshuffle = false\n\
             [loss.sft]\nper_token = true\n[batch]\nbatch_size = 4\nmicro_batch_tokens = 200\n\
             [optimizer]\nlearning_rate = 1e-3\n{TAIL}max_steps = 4\n",
        ));
        let mut want = oracle["trl"]["sft_prompt_completion_lr1e-3_b4_4steps"].clone();
        for step in want["steps"].as_array_mut().unwrap() {
            // TRL's entropy counts the prompt's tokens, too.
            step.as_object_mut().unwrap().remove("entropy");
        }
        compare(
            &records,
            &folder.path().join("run"),
            &want,
            &format!("{model} sft"),
        );
        let accuracies = want["steps"].as_array().unwrap().iter();
        for (got, want) in numbers(&records, "mean_token_accuracy")
            .iter()
            .zip(accuracies)
        {
            close(
                *got,
                want["mean_token_accuracy"].as_f64().unwrap(),
                1e-6,
                "accuracy",
            );
        }
        assert!(records[0].get("rewards/chosen").is_none());
    }
}

#[test]
fn trajectories_of_a_torch_loop_on_our_rows() {
    for model in ["neox", "llama"] {
        let oracle = json(&fixture(&format!("oracle/{model}.json")));
        let head = head(
            &fixture(model),
            &fixture(&format!("{model}-ref")),
            &fixture("pairs.jsonl"),
        );
        let (folder, records) = train(&format!(
            "{head}max_length = 128\nmax_prompt_length = 64\n[loss.dpo]\n[batch]\nbatch_size = 2\n\
             [optimizer]\nlearning_rate = 1e-3\n{TAIL}max_steps = 6\n",
        ));
        compare(
            &records,
            &folder.path().join("run"),
            &oracle["trajectory"],
            model,
        );
    }
}

fn ours(loss: &str, batch: &str) -> (TempDir, Vec<Value>) {
    ours_with(loss, batch, "")
}

fn ours_with(loss: &str, batch: &str, model: &str) -> (TempDir, Vec<Value>) {
    ours_with_knobs(loss, "", batch, model)
}

fn ours_with_knobs(loss: &str, knobs: &str, batch: &str, model: &str) -> (TempDir, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let rows = match loss {
        "odpo" => losses::scored_rows(folder.path()),
        _ => fixture("pairs.jsonl"),
    };
    let head = head(&fixture("llama"), &fixture("llama-ref"), &rows);
    // Samples belong to cEXPO alone.
    let samples: PathBuf = fixture("samples.jsonl");
    let samples = if loss == "cexpo" {
        format!("samples = {samples:?}\n")
    } else {
        String::new()
    };
    let head = head.replace("[model]\n", &format!("[model]\n{model}\n"));
    train(&format!(
        "{head}max_length = 128\nmax_prompt_length = 64\n{samples}[loss.{loss}]\n{knobs}\n\
         [batch]\nbatch_size = 8\n{batch}\n[optimizer]\nlearning_rate = 1e-3\n{TAIL}max_steps = 3\n",
    ))
}

/// The same run computed in other parts is the same run, for every loss.
#[test]
fn accumulation_changes_nothing_but_rounding() {
    // SFT has no reference, and its target is no pair.
    let preferences = expo::loss::Loss::NAMES
        .iter()
        .filter(|name| **name != "sft");
    for loss in preferences {
        let (_whole, whole) = ours(loss, "gradient_accumulation_steps = 1");
        let ratios = numbers(&whole, "log_ratios/chosen").len();
        assert_eq!(ratios, 3, "{loss}");
        for batch in ["gradient_accumulation_steps = 8", "micro_batch_tokens = 90"] {
            let (_parts, parts) = ours(loss, batch);
            for key in [
                "loss",
                "grad_norm",
                "rewards/chosen",
                "logps/chosen",
                "entropy",
            ] {
                for (a, b) in numbers(&whole, key).iter().zip(numbers(&parts, key)) {
                    close(b, *a, 2e-4, &format!("{loss} {batch} {key}"));
                }
            }
        }
    }
}

#[test]
fn the_same_run_twice_is_the_same_to_the_last_bit() {
    let ((a, _), (b, _)) = (ours("kto", ""), ours("kto", ""));
    for name in ["metrics.jsonl", "model.safetensors"] {
        let read = |folder: &TempDir| std::fs::read(folder.path().join("run").join(name)).unwrap();
        assert!(read(&a) == read(&b), "{name}");
    }
}

#[test]
fn recompute_and_the_dtype_of_saving_change_no_metric() {
    let (_plain, want) = ours("rexpo", "");
    let (folder, got) = ours_with("rexpo", "", "recompute = true\nsave_dtype = \"bf16\"");
    assert_eq!(got, want);
    let saved = ModelFolder::open(&folder.path().join("run")).unwrap();
    let (model, _) = saved.load(DType::F32, &Device::Cpu).unwrap();
    let weights: Vec<f32> = model.weights().flat().to_vec1().unwrap();
    assert!(
        weights.iter().all(|w| w.to_bits() & 0xffff == 0),
        "more digits than bf16 has"
    );
}

const SAMPLE: &str = "[sample]\nmax_new_tokens = 12\nnum_samples = 2\n";

/// A run of cEXPO on our rows.
fn cexpo(out: &Path, data: &str) -> String {
    let head = head(
        &fixture("llama"),
        &fixture("llama-ref"),
        &fixture("pairs.jsonl"),
    );
    let tail = TAIL.replace("{out}", &out.display().to_string());
    format!(
        "{head}max_length = 128\nmax_prompt_length = 64\n{data}\n[loss.cexpo]\nlambda = 0.1\n\
         [batch]\nbatch_size = 8\n[optimizer]\nlearning_rate = 1e-3\n{tail}max_steps = 3\n",
    )
}

/// What a run draws is what `expo sample` draws for it, from the reference, and is kept.
#[test]
fn a_run_draws_its_samples_itself() {
    let folder = tempfile::tempdir().unwrap();
    let auto = cexpo(folder.path(), &format!("samples = \"auto\"\n{SAMPLE}"));
    let open = |text: &str, events: &mut Vec<String>| {
        Run::open(Config::parse(text, &[]).unwrap(), &mut |event| {
            if let Event::Sampling { done, .. } = event {
                events.push(format!("{done}"));
            }
        })
        .unwrap()
    };
    let mut events = Vec::new();
    open(&auto, &mut events).train(&mut |_| {}).unwrap();
    assert!(events.len() > 1, "{events:?}");
    let metrics =
        |run: &str| std::fs::read_to_string(folder.path().join(run).join("metrics.jsonl"));
    let drawn = metrics("run").unwrap();

    let file = folder.path().join("samples.jsonl");
    let config = SamplingConfig::parse(&auto, &[]).unwrap();
    let target = Target {
        out: &expo::io::output::Output::File(file.clone()),
        existing: Existing::Continue,
        reference: None,
        alpaca_eval: None,
        until: &StopCondition::default(),
    };
    sample_run(&config, &target, &mut |_| {}).unwrap();
    let from_file = cexpo(folder.path(), &format!("samples = {file:?}"));
    let from_file = from_file.replace("/run\"", "/again\"");
    open(&from_file, &mut events).train(&mut |_| {}).unwrap();
    assert_eq!(metrics("again").unwrap(), drawn);

    let mut again = Vec::new();
    open(&auto.replace("/run\"", "/third\""), &mut again);
    assert_eq!(again.len(), 1, "drawn a second time: {again:?}");
}

/// Prompts without a preference add to the term over samples and to nothing else.
#[test]
fn unlabelled_prompts_join_at_their_ratio() {
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("prompts.jsonl");
    let rows = [
        "Who is in the barn?",
        "Is it?",
        "Where does the bear go at noon?",
    ];
    let rows = rows.map(|prompt| format!("{}\n", serde_json::json!({"prompt": prompt})));
    std::fs::write(&prompts, rows.concat()).unwrap();
    let data = |ratio: &str| {
        let unlabelled = format!("unlabelled = {prompts:?}\nunlabelled_ratio = {ratio}");
        cexpo(
            folder.path(),
            &format!("samples = \"auto\"\n{unlabelled}\n{SAMPLE}"),
        )
    };
    let run = |text: &str| {
        let mut rows = 0;
        let text = text.replace("[run]", "[run]\noverwrite = true");
        let run = Run::open(Config::parse(&text, &[]).unwrap(), &mut |_| {}).unwrap();
        run.train(&mut |event| {
            if let Event::Step { rows: now, .. } = event {
                rows += now;
            }
        })
        .unwrap();
        let text = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        (rows, first)
    };
    let plain = cexpo(folder.path(), &format!("samples = \"auto\"\n{SAMPLE}"));
    let ((few, alone), (more, mixed)) = (run(&plain), run(&data("0.5")));
    assert_eq!((few, more), (24, 24 + 12));
    // The first step's supervised term is a mean over the same eight pairs.
    let sampled = |record: &Value| record["loss"].as_f64().unwrap();
    assert_ne!(sampled(&alone), sampled(&mixed));
    for key in ["logps/chosen", "rewards/margins", "logps/accuracies"] {
        close(
            mixed[key].as_f64().unwrap(),
            alone[key].as_f64().unwrap(),
            1e-5,
            key,
        );
    }
}

/// RMSprop as in the official repository, through a whole run.
#[test]
fn the_other_optimizers_train_too() {
    for (optimizer, rate) in [
        ("rmsprop", "1e-3"),
        ("adam", "1e-3"),
        ("adamw_8bit", "1e-3"),
        ("lion", "5e-4"),
        ("muon", "1e-3"),
    ] {
        let head = head(
            &fixture("neox"),
            &fixture("neox-ref"),
            &fixture("pairs.jsonl"),
        );
        let (_folder, records) = train(&format!(
            "{head}max_length = 128\nmax_prompt_length = 64\n[loss.dpo]\n[batch]\nbatch_size = 24\n\
             [optimizer]\noptim = {optimizer:?}\nlearning_rate = {rate}\n\
             [schedule]\nlr_scheduler_type = \"constant_with_warmup\"\nwarmup_steps = 2\n\
             warmup_from_zero = false\n{TAIL}max_steps = 8\n",
        ));
        let losses = numbers(&records, "loss");
        assert!(losses[7] < 0.8 * losses[0], "{optimizer}: {losses:?}");
    }
}

/// Of the tiny model embedding, head and the larger matrices have moments in 8 bits: after eight steps, in
/// which the loss falls by a third, it is within 1% of AdamW's.
#[test]
fn moments_in_8_bits_train_as_those_in_f32_do() {
    let run = |optimizer: &str| {
        let head = head(
            &fixture("neox"),
            &fixture("neox-ref"),
            &fixture("pairs.jsonl"),
        );
        let (_folder, records) = train(&format!(
            "{head}max_length = 128\nmax_prompt_length = 64\n[loss.dpo]\n[batch]\nbatch_size = 24\n\
             [optimizer]\noptim = {optimizer:?}\nlearning_rate = 1e-3\n{TAIL}max_steps = 8\n",
        ));
        numbers(&records, "loss")
    };
    let (exact, coded) = (run("adamw"), run("adamw_8bit"));
    let off = |(a, b): (&f64, &f64)| (a / b - 1.0).abs();
    let most = coded.iter().zip(&exact).map(off).fold(0.0, f64::max);
    assert!(most > 0.0 && most < 0.01, "{most}: {coded:?} {exact:?}");
}

/// rEXPO reads no samples; where it is given some it reports their KL and trains no differently.
#[test]
fn samples_change_no_rexpo_run() {
    let samples = format!("samples = {:?}", fixture("samples.jsonl"));
    let run = |samples: &str| {
        let head = head(
            &fixture("llama"),
            &fixture("llama-ref"),
            &fixture("pairs.jsonl"),
        );
        train(&format!(
            "{head}max_length = 128\nmax_prompt_length = 64\n{samples}\n[loss.rexpo]\n\
             length_normalized = true\n[batch]\nbatch_size = 8\n\
             [optimizer]\nlearning_rate = 1e-3\n{TAIL}max_steps = 3\n",
        ))
    };
    let ((_a, without), (_b, with)) = (run(""), run(&samples));
    assert_eq!(numbers(&with, "kl").len(), 3);
    assert_eq!(numbers(&without, "kl").len(), 0);
    for (a, b) in numbers(&without, "loss").iter().zip(numbers(&with, "loss")) {
        close(b, *a, 1e-4, "loss");
    }
}

/// Samples of the policy are drawn for every step, the same whatever its parts, and their KL starts
/// at 0.
#[test]
fn samples_of_the_policy_are_drawn_for_every_step() {
    let run = |batch: &str, more: &str| {
        let folder = tempfile::tempdir().unwrap();
        let model = fixture("llama");
        let rows = fixture("pairs.jsonl");
        let tail = TAIL.replace("{out}", &folder.path().display().to_string());
        let text = format!(
            "[model]\nmodel_name_or_path = {model:?}\n\
             [data]\nformat = \"pairs\"\ntrain = {rows:?}\nshuffle = false\n\
             max_length = 128\nmax_prompt_length = 64\n\
             [loss.cexpo]\nlambda = 0.5\nunsupervised = \"reverse_kl\"\n\
             [sample]\nnum_samples = 3\nmax_new_tokens = 10\n{more}\n\
             [batch]\nbatch_size = 8\n{batch}\n[optimizer]\nlearning_rate = 1e-3\n{tail}max_steps = 4\n",
        );
        let config = Config::parse(&text, &[])?;
        Run::open(config, &mut |_| {})?.train(&mut |_| {})?;
        let text = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
        let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
        Ok::<Vec<Value>, expo::error::Error>(records.collect())
    };
    let whole = run("gradient_accumulation_steps = 1", "").unwrap();
    let kl = numbers(&whole, "kl");
    assert_eq!(kl.len(), 4);
    assert!(
        kl[0].abs() < 1e-5 && kl[1..].iter().all(|kl| kl.abs() > 1e-6),
        "{kl:?}"
    );
    let parts = run("gradient_accumulation_steps = 8", "").unwrap();
    for key in ["loss", "grad_norm", "kl"] {
        for (a, b) in numbers(&whole, key)
            .iter()
            .zip(numbers(&parts, key))
            .take(2)
        {
            close(b, *a, 1e-3, key);
        }
    }
    let other = run("", "seed = 1").unwrap();
    assert_ne!(numbers(&other, "kl")[1], kl[1]);
    let refused = run("", "top_k = 5").unwrap_err().to_string();
    assert!(
        refused.contains("top_k") && refused.contains("policy itself"),
        "{refused}"
    );
}

/// A mean over tokens is one over those of all evaluation rows, however they are taken in parts.
#[test]
fn evaluation_per_token_does_not_depend_on_the_batch() {
    let loss = |size: usize| {
        let (model, rows) = (fixture("llama"), fixture("pairs.jsonl"));
        let (_folder, records) = train(&format!(
            "[model]\nmodel_name_or_path = {model:?}\n\
             [data]\nformat = \"pairs\"\ntrain = {rows:?}\neval = {rows:?}\n\
             max_length = 128\nmax_prompt_length = 64\n[loss.sft]\nper_token = true\n\
             [batch]\nbatch_size = {size}\n{TAIL}max_steps = 1\n",
        ));
        numbers(&records, "eval_loss")[0]
    };
    let whole = loss(24);
    for size in [1, 5] {
        close(loss(size), whole, 1e-6, "eval_loss");
    }
}

/// What a loss reads of a batch, KTO's z0 or the order of AOT, is that of all evaluation rows.
#[test]
fn an_evaluation_of_a_loss_that_reads_its_batch_does_not_depend_on_the_batch() {
    let record = |loss: &str, size: usize| {
        let (model, rows) = (fixture("llama"), fixture("pairs.jsonl"));
        let reference = fixture("llama-ref");
        let (_folder, records) = train(&format!(
            "[model]\nmodel_name_or_path = {model:?}\nreference = {reference:?}\n\
             [data]\nformat = \"pairs\"\ntrain = {rows:?}\neval = {rows:?}\n\
             max_length = 128\nmax_prompt_length = 64\n[loss.{loss}]\n\
             [batch]\nbatch_size = {size}\n[optimizer]\nlearning_rate = 1e-30\n{TAIL}max_steps = 1\n",
        ));
        let kl = (loss == "kto").then(|| numbers(&records, "eval_kl")[0]);
        (numbers(&records, "eval_loss")[0], kl)
    };
    for loss in ["kto", "aot", "aot_unpaired"] {
        let (whole, kl) = record(loss, 48);
        for size in [3, 5] {
            let (part, part_kl) = record(loss, size);
            close(part, whole, 1e-6, loss);
            assert_eq!(part_kl.is_some(), kl.is_some());
            if let (Some(part), Some(whole)) = (part_kl, kl) {
                close(part, whole, 1e-5, "eval_kl");
            }
        }
    }
}
