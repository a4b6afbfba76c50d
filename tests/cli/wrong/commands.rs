//! Arguments.

use super::{Case, path, refused, with_config, words};
use crate::cli::Place;

fn draw(place: &Place, more: &[&str]) -> Option<Vec<String>> {
    place.write("p.txt", "a\n");
    words(
        &[
            &[
                "sample",
                "--model",
                &path("neox"),
                "--prompts",
                "p.txt",
                "--out",
                "s.jsonl",
            ],
            more,
        ]
        .concat(),
    )
}

fn plan(place: &Place, more: &[&str]) -> Option<Vec<String>> {
    let mut args = with_config(place, "plan", "dpo", &[])?;
    args.extend(words(more)?);
    Some(args)
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    refused("the page of no loss", |_| words(&["losses", "show", "nosuch"]),
        &["`nosuch`", "valid: "]),
    refused("the page of almost a loss", |_| words(&["losses", "show", "dop"]),
        &["`dop`", "did you mean `dpo`?"]),
    refused("the numbers of no loss", |_| words(&["loss", "nosuch"]),
        &["`nosuch`"]),
    refused("the numbers of no file", |_| words(&["loss", "dpo", "--file", "none.jsonl"]),
        &["none.jsonl", "no such file"]),
    refused("the numbers of no JSON", |p| { p.write("x.jsonl", "zebra\n"); words(&["loss", "dpo", "--file", "x.jsonl"]) },
        &["x.jsonl:1", "bad JSON", "one object"]),
    refused("a knob of another loss", |_| words(&["loss", "dpo", "--set", "lambda=1"]),
        &["lambda", "beta"]),
    refused("a plan of no config", |_| words(&["plan", "--config", "none.toml"]),
        &["none.toml", "no such file"]),
    refused("a plan of rows", |p| { p.write("rows.jsonl", "{\"prompt\": 1}\n"); words(&["plan", "--config", "rows.jsonl"]) },
        &["rows.jsonl: holds a row in JSON, not a config", "data.train"]),
    refused("a plan for memory that is no number", |p| plan(p, &["--memory", "nan"]),
        &["memory is NaN", "> 0"]),
    refused("a plan for memory below 0", |p| plan(p, &["--memory=-3"]),
        &["memory is -3", "> 0"]),
    refused("a plan for an endless GPU", |p| plan(p, &["--memory", "8", "--tflops", "inf", "--bandwidth", "1"]),
        &["rate of matmuls is inf TFLOP/s", "> 0 and finite"]),
    refused("a row that is not there", |p| { let mut args = with_config(p, "data show", "dpo", &[])?; args.extend(words(&["--row", "99"])?); Some(args) },
        &["no row 99", "24"]),
    refused("rows that the config lacks", |p| { let mut args = with_config(p, "data show", "dpo", &[])?; args.extend(words(&["--split", "eval"])?); Some(args) },
        &["data.eval", "--split"]),
    refused("a temperature that is no number", |p| draw(p, &["--temperature", "nan"]),
        &["temperature", "NaN"]),
    refused("a penalty below 0", |p| draw(p, &["--repetition-penalty=-1"]),
        &["repetition_penalty", "-1"]),
    refused("no tokens to draw", |p| draw(p, &["--max-new-tokens", "0"]),
        &["max_new_tokens must be >= 1 (got 0)"]),
    refused("no batch to draw", |p| draw(p, &["--batch-size", "0"]),
        &["batch_size must be in [1, 65536] (got 0)"]),
    refused("no prompt length", |p| draw(p, &["--max-prompt-length", "0"]),
        &["--max-prompt-length: max_prompt_length must be >= 1 (got 0)"]),
    refused("a chat with a model without a template", |p| draw(p, &["--chat"]),
        &["no chat template", "data.chat_template"]),
    refused("a GPU to draw with that is not there", |p| draw(p, &["--device", "cuda:7"]),
        &["cuda:7"]),
    refused("an empty prompt", |_| words(&["sample", "--model", &path("neox"), "--prompt", ""]),
        &["empty"]),
    refused("neither prompts nor a prompt", |_| words(&["sample", "--model", &path("neox"), "--out", "s.jsonl"]),
        &["neither --prompts nor --prompt", "--prompt TEXT, or --prompts FILE and --out FILE"]),
    refused("a model to score with that is not there", |_| words(&["score", "--model", "./nowhere", "--data", &path("pairs.jsonl"), "--out", "out"]),
        &["--model: ", "nowhere"]),
    refused("rows of no known format", |p| { p.write("x.jsonl", "{\"zebra\": 1}\n"); words(&["score", "--model", &path("neox"), "--data", "x.jsonl", "--out", "out"]) },
        &["x.jsonl", "no known format", "pairs"]),
    refused("a new model of a folder without config.json", |_| { words(&["init", "--config-json", &path("chat"), "--tokenizer", &path("neox"), "--out", "out"]) },
        &["config.json", "no such file"]),
    refused("no experiment", |_| words(&["bandit", "nosuch"]),
        &["nosuch", "interpolation"]),
    refused("an experiment of nothing", |p| { p.write("b.toml", ""); words(&["bandit", "--config", "b.toml"]) },
        &["b.toml", "experiment"]),
    refused("an experiment that is not one", |_| { words(&["bandit", "theory", "--set", "problem.optimal=[0.5, 0.6, 0.7]"]) },
        &["problem", "optimal"]),
    refused("an experiment of negative shares", |_| { words(&["bandit", "theory", "--set", "problem.optimal=[-1.0, 1.0, 1.0]"]) },
        &["problem", "optimal"]),
];
