//! `expo plan`.

use std::fs;
use std::path::Path;

use super::{Place, str};
use crate::support::fixture;

fn planned(place: &Place, config: &Path, more: &[&str]) -> serde_json::Value {
    let args = [&["plan", "--json", "--config", str(config)], more].concat();
    serde_json::from_str(&place.succeed(&args)).unwrap()
}

#[test]
fn it_needs_no_weights_and_no_gpu() {
    let place = Place::new();
    let model = place.model("neox");
    fs::remove_file(model.join("model.safetensors")).unwrap();
    let eval = format!("eval = \"{}[:3]\"", str(&fixture("pairs.jsonl")));
    let config = place.config(&model, "dpo", &eval, "");
    let table = place.succeed(&["plan", "--config", str(&config)]);
    let heads = [
        "parameters ",
        "\nmemory ",
        "\ntokens ",
        "\nFLOPs ",
        "\ndisk ",
    ];
    assert!(heads.iter().all(|head| table.contains(head)), "{table}");
    // In brackets what is not in the total.
    let recompute = table.lines().find(|l| l.starts_with("  recompute"));
    assert!(recompute.unwrap().contains('('), "{table}");
    assert!(!table.contains("time on"), "{table}");

    let cpu = planned(&place, &config, &[]);
    let parts = &cpu["parameters"];
    // 304 rows of 32; of each of two blocks 3 * 32^2 + 32^2 + 2 * 32 * 48 weights, 3 * 32 + 32 + 48 + 32
    // biases and 4 * 32 of norms; 2 * 32 of the final norm.
    assert_eq!(parts["embedding"], 304 * 32);
    assert_eq!(parts["blocks"], 2 * (4096 + 3072 + 208 + 128));
    assert_eq!(parts["head"], 304 * 32 + 64);
    assert_eq!(
        cpu["memory"]["optimizer"],
        2 * cpu["memory"]["weights"].as_u64().unwrap()
    );
    assert_eq!(cpu["tokens"]["steps"], 3);
    assert!(cpu["time"].is_null() && cpu["parts"].is_null());
    assert!(cpu["left_out"].as_array().unwrap().is_empty());

    let gpu = ["--gpu", "h200", "--set", "model.dtype=bf16"];
    let table = [&["plan", "--config", str(&config)], &gpu[..]].concat();
    let table = place.succeed(&table);
    let part = |name: &str| table.lines().any(|line| line.starts_with(name));
    assert!(
        part("expected of a step") && part("  logits and gradient"),
        "{table}"
    );
    let gpu = planned(&place, &config, &gpu);
    let seconds = gpu["parts"]["total"]["seconds"].as_f64().unwrap();
    assert!(seconds > gpu["parts"]["matmuls"]["seconds"].as_f64().unwrap());
    assert_eq!(
        gpu["memory"]["weights"],
        cpu["memory"]["weights"].as_u64().unwrap() / 2
    );
    assert!(gpu["time"]["evaluation"].as_f64().unwrap() > 0.0);
    assert_eq!(gpu["flops"]["total"], cpu["flops"]["total"]);
    let by_hand = ["--memory", "1", "--tflops", "1000", "--bandwidth", "4"];
    let by_hand = planned(&place, &config, &by_hand);
    let seconds = by_hand["time"]["step"]["products"].as_f64().unwrap();
    let flops = by_hand["flops"]["total"]["step"].as_f64().unwrap();
    assert!((seconds / flops * 1e15 - 1.0).abs() < 1e-12);
    assert!(!place.path("out").exists() && !place.path("cache").exists());
}

#[test]
fn a_run_does_what_was_planned() {
    let place = Place::new();
    let run = "save_steps = 2\nsave_total_limit = 2\nnum_train_epochs = 2";
    let config = place.config(&fixture("neox"), "dpo", "unlabelled_ratio = 1.0", run);
    let plan = planned(&place, &config, &[]);
    let summary = place.succeed(&["train", "--json", "--config", str(&config)]);
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["steps"], plan["tokens"]["steps"]);
    let tokens = 2.0 * plan["tokens"]["per_epoch"].as_f64().unwrap();
    assert_eq!(summary["tokens"].as_f64().unwrap(), tokens);
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let model = plan["disk"]["model"].as_u64().unwrap();
    let header = size(&place.path("out/model.safetensors")) - model;
    assert!(header < 10_000, "{header}");
    let checkpoints = fs::read_dir(place.path("out")).unwrap();
    let names = checkpoints.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let kept: Vec<String> = names.filter(|n| n.starts_with("checkpoint-")).collect();
    assert_eq!(plan["disk"]["checkpoints"], kept.len());
    let tensors = ["model.safetensors", "training_state.safetensors"];
    let saved = tensors.map(|name| size(&place.path("out").join(&kept[0]).join(name)));
    let planned = plan["disk"]["checkpoint"].as_u64().unwrap();
    assert!(saved.iter().sum::<u64>() - planned < 30_000, "{saved:?}");
    let column = fs::read_dir(place.path("cache/expo/reference")).unwrap();
    let column = size(&column.last().unwrap().unwrap().path()) as f64;
    let share = plan["disk"]["reference"].as_f64().unwrap() / column;
    assert!((share - 1.0).abs() < 0.1, "{share}");
}

#[test]
fn what_the_run_draws_itself_is_said_to_be_left_out() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "cexpo", "samples = \"auto\"", "");
    let plan = planned(&place, &config, &["--set", "sample.max_new_tokens=8"]);
    assert!(
        plan["left_out"][0]
            .as_str()
            .unwrap()
            .contains("samples that the run draws")
    );
    assert!(plan["disk"]["samples"].as_u64().unwrap() > 0);
    let set = ["--set", "loss.cexpo.unsupervised=reverse_kl"];
    let config = place.config(&fixture("neox"), "cexpo", "", "");
    let plan = planned(&place, &config, &set);
    assert!(
        plan["left_out"][0]
            .as_str()
            .unwrap()
            .contains("samples of the policy")
    );
    assert_eq!(plan["memory"]["reference"], plan["memory"]["weights"]);
}

#[test]
fn a_config_without_a_loss_is_one_of_sft() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "sft", "", "");
    let text = fs::read_to_string(&config)
        .unwrap()
        .replace("[loss.sft]\n", "");
    let config = place.write("sft.toml", text);
    let plan = planned(&place, &config, &[]);
    // No reference is scored, and only chosen answers are trained on.
    assert_eq!(plan["flops"]["scoring"], 0.0);
    assert_eq!(plan["disk"]["reference"], 0);
}

/// Weights, gradients and moments alone are 0.5 MB.
#[test]
fn a_run_that_does_not_fit_is_refused_after_its_table() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "dpo", "", "");
    let plan = ["plan", "--config", str(&config), "--memory", "0.0005"];
    let refused = place.run(&plan);
    assert_eq!(refused.code, Some(2));
    for part in [
        "  optimizer states",
        "  total",
        "does not fit: ",
        " MiB needed, ",
        "Several GPUs do not make it fit",
        "GPU rtx-3070",
    ] {
        assert!(refused.out.contains(part), "{}", refused.out);
    }
    let error = refused.err;
    assert!(
        error.contains("MiB with micro_batch_tokens = 4096, and can use 0.5 MiB of the 0.5 MiB"),
        "{error}"
    );
    let refused = place.run(&[&plan[..], &["--json"]].concat());
    assert_eq!(refused.code, Some(2));
    let object: serde_json::Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(object["fits"], false);
    let remedies = object["remedies"].as_array().unwrap();
    assert_eq!(remedies.last().unwrap()["gpu"], "rtx-3070");
}

#[test]
fn several_gpus_are_said_to_be_used_one_by_one() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "dpo", "", "");
    let plan = ["plan", "--config", str(&config), "--gpu"];
    let one = place.succeed(&[&plan[..], &["rtx-4090"]].concat());
    let two = place.succeed(&[&plan[..], &["2x RTX 4090"]].concat());
    assert!(two.starts_with(one.trim_end()), "{two}");
    assert!(two.contains("the plan is for one of the 2"), "{two}");
    let json = planned(&place, &config, &["--gpu", "rtx-4090", "--gpus", "2"]);
    assert_eq!((&json["gpus"], &json["fits"]), (&2.into(), &true.into()));
    let shared = planned(&place, &config, &["--gpu", "rtx-4090", "--ranks", "2"]);
    assert_eq!(shared["device"]["ranks"], 2);
    assert!(shared["exchange"]["gradients"].as_u64().unwrap() > 0);
    assert!(shared["parts"].is_null() && shared["shared_step"]["exchange"].is_null());
    let more = ["--gpu", "rtx-4090", "--ranks", "2", "--link", "0.5"];
    let linked = planned(&place, &config, &more);
    let sent = &linked["exchange"];
    let sent = sent["gradients"].as_f64().unwrap() + sent["weights"].as_f64().unwrap();
    let step = &linked["shared_step"];
    assert!((step["exchange"].as_f64().unwrap() - sent / 0.5e9).abs() < 1e-12);
    let (alone, computing) = (step["alone"].as_f64(), step["computing"].as_f64());
    assert!(computing < alone && computing.unwrap() >= alone.unwrap() / 2.0);
    let text = place.succeed(&[&plan[..1], &["--config", str(&config)], &more].concat());
    assert!(text.contains("times as fast as one"), "{text}");
    let old = place.succeed(&[&plan[..], &["t4"]].concat());
    assert!(old.contains("needs compute capability 8.0"), "{old}");
    assert!(old.lines().all(|line| line.chars().count() <= 80), "{old}");
}

#[test]
fn samples_that_are_not_there_yet_are_left_out_and_named() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "cexpo", "samples = \"later.jsonl\"", "");
    let plan = planned(&place, &config, &[]);
    let left_out = plan["left_out"][0].as_str().unwrap();
    assert!(
        left_out.contains("later.jsonl does not exist yet"),
        "{left_out}"
    );
    let shown = place.succeed(&["data", "show", "--config", str(&config), "--row", "0"]);
    assert!(shown.contains("later.jsonl does not exist yet"), "{shown}");
    let shown = place.succeed(&["data", "show", "--config", str(&config), "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(
        shown["missing_samples"]
            .as_str()
            .unwrap()
            .ends_with("later.jsonl")
    );
}

#[test]
fn a_new_model_says_its_parameters_as_json() {
    let place = Place::new();
    let model = fixture("neox");
    let made = place.succeed(&[
        "init",
        "--json",
        "--config-json",
        str(&model),
        "--tokenizer",
        str(&model),
        "--out",
        "new",
    ]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    // As in the plan of this model, by hand.
    let parameters = 304 * 32 + 2 * (4096 + 3072 + 208 + 128) + 304 * 32 + 64;
    assert_eq!(
        (&made["parameters"], &made["output"]),
        (&parameters.into(), &"new".into())
    );
    assert!(place.path("new/model.safetensors").is_file());
}

#[test]
fn what_cannot_be_planned_is_refused() {
    let place = Place::new();
    let config = place.config(&fixture("neox"), "dpo", "", "");
    let refuse = |more: &[&str], words: &[&str]| {
        place.refuse(&[&["plan", "--config", str(&config)], more].concat(), words);
    };
    refuse(
        &["--gpu", "h201"],
        &["`h201`", "valid: rtx-3060", "h200", "--memory"],
    );
    refuse(&["--gpu", "a100"], &["a100-40gb or a100-80gb"]);
    refuse(&["--gpus", "2"], &["--gpus", "no GPU is named"]);
    refuse(&["--gpu", "2x l4", "--gpus", "3"], &["3 GPUs beside 2"]);
    refuse(&["--memory", "0"], &["memory is 0 GiB", "> 0"]);
    refuse(
        &["--gpu", "l4", "--ranks", "2", "--link", "0"],
        &["--link", "0 GB/s", "> 0"],
    );
    refuse(
        &["--memory", "80", "--set", "model.device=cpu"],
        &["model.device is \"cpu\""],
    );
    refuse(&["--set", "model.device=cuda:0"], &["cuda:0", "--gpu"]);
    let split = [
        "--set",
        "model.dtype=bf16",
        "--set",
        "optimizer.states=split",
    ];
    refuse(&split, &["states = \"split\"", "on the CPU"]);
    refuse(
        &["--set", "data.train=none.jsonl"],
        &["none.jsonl", "no such file"],
    );
    refuse(
        &["--set", "model.model_name_or_path=none"],
        &["none", "no such directory"],
    );
    refuse(
        &["--set", "model.reference=none"],
        &["model.reference", "no such directory"],
    );
    let both = place.run(&[
        "plan",
        "--config",
        str(&config),
        "--gpu",
        "h200",
        "--memory",
        "8",
    ]);
    assert_eq!(both.code, Some(2));
    let alone = place.run(&["plan", "--config", str(&config), "--tflops", "8"]);
    assert_eq!(alone.code, Some(2));
}
