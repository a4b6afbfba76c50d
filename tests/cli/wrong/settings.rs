//! Configs of runs and of sweeps.

use std::fs;

use super::{Case, accepted, forbid, refused, train, with_config, words};
use crate::cli::Place;
use crate::support::fixture;

/// A run whose config is this text.
fn text(place: &Place, bytes: impl AsRef<[u8]>) -> Option<Vec<String>> {
    place.write("wrong.toml", bytes);
    words(&["train", "--config", "wrong.toml"])
}

/// A run whose config has `to` in the place of `from`.
fn edited(place: &Place, from: &str, to: &str) -> Option<Vec<String>> {
    let good = fs::read_to_string(place.config(&fixture("neox"), "dpo", "", "")).unwrap();
    assert!(good.contains(from));
    text(place, good.replacen(from, to, 1))
}

/// A sweep of these entries over a good config.
fn sweep(place: &Place, more: &str) -> Option<Vec<String>> {
    place.config(&fixture("neox"), "dpo", "", "");
    place.write("sweep.toml", format!("base = \"run.toml\"\n{more}"));
    words(&["sweep", "--config", "sweep.toml"])
}

fn set(place: &Place, set: &str) -> Option<Vec<String>> {
    train(place, "dpo", &[set])
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    refused("an empty config", |p| text(p, ""),
        &["wrong.toml", "no loss", "[loss.dpo]"]),
    refused("a folder as config", |p| { fs::create_dir(p.path("wrong.toml")).unwrap(); words(&["train", "--config", "wrong.toml"]) },
        &["wrong.toml", "is a directory, not a file"]),
    refused("a config in UTF-16", |p| text(p, b"\xff\xfe[\0m\0]\0"),
        &["wrong.toml", "not UTF-8"]),
    refused("NUL in a config", |p| text(p, "[model]\n\0"),
        &["wrong.toml", "has NUL bytes"]),
    refused("a config nobody may read", |p| { forbid(&p.write("wrong.toml", ""), 0)?; words(&["train", "--config", "wrong.toml"]) },
        &["wrong.toml", "permission denied"]),
    refused("JSON as config", |p| text(p, "{\"model\": 1}"),
        &["wrong.toml: is JSON; a config is TOML"]),
    accepted("a config whose lines end in CR LF", |p| { let good = fs::read_to_string(p.config(&fixture("neox"), "dpo", "", "")).unwrap(); p.write("crlf.toml", good.replace('\n', "\r\n")); words(&["train", "--config", "crlf.toml", "--print-config"]) },
        &["[loss.dpo]\nbeta = 0.1"]),
    refused("an unknown section", |p| edited(p, "[batch]", "[optimiser]\n[batch]"),
        &["wrong.toml:10: ", "`optimiser`", "`optimizer`?"]),
    refused("a key twice", |p| edited(p, "batch_size = 8", "batch_size = 8\nbatch_size = 9"),
        &["wrong.toml:12: ", "duplicate key"]),
    refused("a section twice", |p| edited(p, "[optimizer]", "[batch]\n[optimizer]"),
        &["wrong.toml:12: ", "duplicate key"]),
    refused("a section that is a number", |p| set(p, "batch=8"),
        &["--set batch=8"]),
    refused("a string without its end", |p| edited(p, "format = \"pairs\"", "format = \"pairs"),
        &["wrong.toml:4: "]),
    refused("a fraction as a count", |p| edited(p, "batch_size = 8", "batch_size = 8.5"),
        &["wrong.toml:11: ", "8.5"]),
    refused("a count below 0", |p| edited(p, "batch_size = 8", "batch_size = -8"),
        &["wrong.toml:11: ", "-8"]),
    refused("a count beyond numbers", |p| edited(p, "batch_size = 8", "batch_size = 99999999999999999999"),
        &["wrong.toml:11: ", "99999999999999999999 is out of range"]),
    refused("a rate that is not a number", |p| set(p, "optimizer.learning_rate=nan"),
        &["--set optimizer.learning_rate=nan: learning_rate must be >= 0", "(got NaN)"]),
    refused("an infinite rate", |p| set(p, "optimizer.learning_rate=inf"),
        &["--set optimizer.learning_rate=inf: learning_rate must be >= 0", "(got inf)"]),
    refused("a norm below 0", |p| set(p, "optimizer.max_grad_norm=-1"),
        &["--set optimizer.max_grad_norm=-1: max_grad_norm must be >= 0", "(got -1)"]),
    refused("a norm that is not a number", |p| set(p, "optimizer.max_grad_norm=nan"),
        &["--set optimizer.max_grad_norm=nan: ", "(got NaN)"]),
    refused("a beta of 1", |p| set(p, "optimizer.adam_beta2=1"),
        &["--set optimizer.adam_beta2=1: adam_beta2 must be in [0, 1) (got 1)"]),
    refused("a key of another optimizer", |p| { train(p, "dpo", &["optimizer.optim=rmsprop", "optimizer.adam_beta1=0.5"]) },
        &["--set optimizer.adam_beta1=0.5: ", "rmsprop does not read adam_beta1"]),
    refused("an unknown optimizer", |p| set(p, "optimizer.optim=adagrad"),
        &["--set optimizer.optim=adagrad", "adamw"]),
    refused("an unknown schedule", |p| set(p, "schedule.lr_scheduler_type=cosin"),
        &["cosin", "cosine"]),
    refused("two warm-ups", |p| { train(p, "dpo", &["schedule.warmup_steps=1", "schedule.warmup_ratio=0.1"]) },
        &["--set schedule.warmup_ratio=0.1: ", "both warmup_steps and warmup_ratio"]),
    refused("two micro-batches", |p| { train(p, "dpo", &["batch.micro_batch_tokens=9", "batch.gradient_accumulation_steps=2"]) },
        &["--set batch.gradient_accumulation_steps=2: ", "both micro_batch_tokens", "give one"]),
    refused("more parts than rows", |p| set(p, "batch.gradient_accumulation_steps=9"),
        &["--set batch.gradient_accumulation_steps=9: ", "<= batch_size, 8 (got 9)"]),
    refused("no steps", |p| set(p, "run.max_steps=0"),
        &["--set run.max_steps=0: max_steps must be >= 1 (got 0)"]),
    refused("epochs below 0", |p| set(p, "run.num_train_epochs=-1"),
        &["--set run.num_train_epochs=-1: ", "must be > 0", "(got -1)"]),
    refused("endless epochs", |p| set(p, "run.num_train_epochs=inf"),
        &["--set run.num_train_epochs=inf: ", "finite (got inf)"]),
    refused("an unknown place to report to", |p| set(p, "run.report_to=[\"tensorbord\"]"),
        &["--set run.report_to=", "report_to names \"tensorbord\"", "did you mean `tensorboard`?"]),
    refused("prompts of no rows", |p| set(p, "run.eval_prompts=4"),
        &["--set run.eval_prompts=4: ", "eval_prompts without data.eval", "evaluation rows"]),
    refused("more margins than a page has room for", |p| set(p, "run.eval_margins=101"),
        &["--set run.eval_margins=101: eval_margins must be <= 100 (got 101)"]),
    refused("answers of no tokens", |p| set(p, "run.eval_max_new_tokens=0"),
        &["--set run.eval_max_new_tokens=0: ", "must be >= 1 (got 0)"]),
    refused("a limit of no checkpoints", |p| set(p, "run.save_total_limit=2"),
        &["--set run.save_total_limit=2: ", "save_total_limit without save_steps"]),
    refused("a seed below 0", |p| set(p, "run.seed=-1"),
        &["--set run.seed=-1: seed must be a whole number >= 0 (got -1)"]),
    refused("a limit of steps below 0", |p| set(p, "run.max_steps=-1"),
        &["--set run.max_steps=-1: max_steps must be a whole number >= 1 (got -1); leave the key out for no limit"]),
    refused("no limit of steps as a word", |p| set(p, "run.max_steps=none"),
        &["--set run.max_steps=none: ", "expected a whole number; leave the key out"]),
    refused("a boolean of Python", |p| set(p, "run.overwrite=True"),
        &["--set run.overwrite=True: ", "expected a boolean; write true"]),
    refused("a number in quotes", |p| set(p, "optimizer.learning_rate='1e-5'"),
        &["expected a number; write 1e-5 without quotes"]),
    refused("a number in the place of a loss", |p| set(p, "loss.dpo=0.1"),
        &["--set loss.dpo=0.1: a value in the place of a section; `loss.dpo` is a section; did you mean `loss.dpo.beta`?"]),
    refused("a part of a parameter's name", |p| set(p, "model.trainable=[\"query_key_value\"]"),
        &["matches no parameter", "globs match whole names: *query_key_value* matches gpt_neox.layers.0.attention.query_key_value."]),
    refused("a beta of 0", |p| set(p, "loss.dpo.beta=0"),
        &["--set loss.dpo.beta=0: beta must be in (0, inf) (got 0)"]),
    refused("a beta that is not a number", |p| set(p, "loss.dpo.beta=nan"),
        &["--set loss.dpo.beta=nan: beta must be", "(got NaN)"]),
    refused("a beta below 0 in a file", |p| edited(p, "[loss.dpo]", "[loss.dpo]\nbeta = -1"),
        &["wrong.toml:10: beta must be in (0, inf) (got -1)"]),
    refused("a loss that does not exist in a file", |p| edited(p, "[loss.dpo]", "[loss.dop]"),
        &["wrong.toml:9: there is no loss `dop`; did you mean `dpo`?"]),
    refused("a loss that does not exist", |p| set(p, "loss=nonsense"),
        &["--set loss=nonsense: there is no loss `nonsense`"]),
    refused("a rate below 0 in a file", |p| edited(p, "learning_rate = 1e-3", "learning_rate = -1"),
        &["wrong.toml:13: learning_rate must be >= 0", "(got -1)"]),
    refused("a section without a key that it needs", |p| edited(p, "train = ", "eval = "),
        &["wrong.toml:3: [data]: missing key `train`"]),
    refused("prompts for a loss of pairs", |p| set(p, "data.unlabelled=x.txt"),
        &["--set data.unlabelled=x.txt: ", "dpo", "leave the key out"]),
    refused("a moving reference without one", |p| train(p, "simpo", &["reference.steps=9"]),
        &["--set reference.steps=9: ", "simpo"]),
    refused("how to sample without samples", |p| set(p, "sample.top_k=4"),
        &["--set sample.top_k=4: ", "\"auto\""]),
    refused("a pattern that matches no parameter", |p| set(p, "model.trainable=[\"*\", \"!*.mpl.*\"]"),
        &["--set model.trainable=[\"*\", \"!*.mpl.*\"]: ", "\"!*.mpl.*\" matches no parameter", "for example embed_out.weight"]),
    refused("a misspelt parameter", |p| set(p, "model.trainable=[\"embed_out.weigth\"]"),
        &["--set model.trainable=[\"embed_out.weigth\"]: ", "did you mean `embed_out.weight`?"]),
    refused("a run that trains nothing", |p| set(p, "model.trainable=[\"*\", \"!*\"]"),
        &["--set model.trainable=[\"*\", \"!*\"]: ", "every parameter is frozen"]),
    refused("a revision of no reference", |p| set(p, "model.reference_revision=main"),
        &["--set model.reference_revision=main: ", "without model.reference"]),
    refused("a key below a key", |p| set(p, "run.seed.low=1"),
        &["--set run.seed.low=1"]),
    refused("a key of no section", |p| set(p, "runs.seed=1"),
        &["--set runs.seed=1", "`runs`", "`run`?"]),
    refused("a key without a name", |p| set(p, "run.=1"),
        &["--set run.=1"]),
    refused("no key", |p| set(p, "=1"),
        &["--set =1"]),
    refused("a GPU beyond numbers", |p| set(p, "model.device=cuda:99999999999999999999"),
        &["--set model.device=cuda:99999999999999999999: "]),
    refused("an unknown way to go on", |p| set(p, "data.on_invalid=ignore"),
        &["ignore", "skip"]),
    refused("an empty folder name", |p| set(p, "run.output_dir="),
        &["--set run.output_dir=: ", "output_dir is empty"]),
    refused("SFT's config for expo train", |p| with_config(p, "sft", "dpo", &[]),
        &["dpo", "expo train"]),
    refused("a sweep without its base", |p| { p.write("s.toml", "[[sweep]]\nloss = \"dpo\"\n"); words(&["sweep", "--config", "s.toml"]) },
        &["s.toml", "no [model]", "`base`"]),
    refused("a sweep with a loss of its own", |p| sweep(p, "[loss.dpo]\n[[sweep]]\nloss = \"dpo\"\n"),
        &["sweep.toml:2: ", "[loss]"]),
    refused("a sweep that runs one twice", |p| sweep(p, "[[sweep]]\nloss = [\"dpo\", \"dpo\"]\n"),
        &["sweep.toml:2: ", "dpo", "twice"]),
    refused("a sweep over nothing", |p| sweep(p, "[[sweep]]\nloss = \"dpo\"\nbeta = []\n"),
        &["sweep.toml:4: ", "beta", "no value"]),
    refused("a sweep without losses", |p| sweep(p, "[[sweep]]\nbeta = [0.1]\n"),
        &["sweep.toml:2: ", "no `loss`"]),
    refused("a sweep that is a table", |p| sweep(p, "[sweep]\nloss = \"dpo\"\n"),
        &["sweep.toml", "[[sweep]]"]),
    refused("a sweep with a wrong value", |p| sweep(p, "[[sweep]]\nloss = \"dpo\"\nbeta = [0.1, \"half\"]\n"),
        &["sweep.toml:4: ", "half"]),
    refused("a sweep with an unknown key", |p| sweep(p, "output = \"x\"\n[[sweep]]\nloss = \"dpo\"\n"),
        &["sweep.toml:2: unknown key `output`"]),
];
