//! Where results go.

use std::fs;

use super::{Case, forbid, path, refused, train, words};
use crate::cli::Place;

fn drawn(place: &Place, out: &str) -> Option<Vec<String>> {
    place.write("p.txt", "a\n");
    words(&[
        "sample",
        "--model",
        &path("neox"),
        "--prompts",
        "p.txt",
        "--max-new-tokens",
        "4",
        "--out",
        out,
    ])
}

fn scored(out: &str) -> Option<Vec<String>> {
    words(&[
        "score",
        "--model",
        &path("neox"),
        "--data",
        &path("pairs.jsonl"),
        "--out",
        out,
    ])
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    refused("a run into a directory with others", |p| { fs::create_dir_all(p.path("lib/x")).unwrap(); train(p, "dpo", &["run.output_dir=lib"]) },
        &["lib: is not empty and holds no run of expo, but the directory x; choose another run.output_dir"]),
    refused("a run into a file", |p| { p.write("file", "mine"); train(p, "dpo", &["run.output_dir=file"]) },
        &["file", "is not a directory"]),
    refused("a run into a folder nobody may write to", |p| { fs::create_dir(p.path("shut")).unwrap(); let args = train(p, "dpo", &["run.output_dir=shut/out"]); forbid(&p.path("shut"), 0o555)?; args },
        &["shut", "permission denied"]),
    refused("samples into a folder", |p| { fs::create_dir(p.path("dir")).unwrap(); drawn(p, "dir") },
        &["dir", "is a directory, not a file"]),
    refused("samples below a file", |p| { p.write("file", ""); drawn(p, "file/s.jsonl") },
        &["file", "is not a directory"]),
    refused("samples into another run's file", |p| { let other = ["sample", "--model", &path("neox-sequential"), "--prompts", "p.txt", "--max-new-tokens", "4", "--out", "s.jsonl"]; p.write("p.txt", "a\n"); p.succeed(&other); drawn(p, "s.jsonl") },
        &["s.jsonl:1", "--overwrite"]),
    refused("samples into a file of rows", |p| { p.write("s.jsonl", "{\"prompt\": \"a\"}\n"); drawn(p, "s.jsonl") },
        &["s.jsonl:1", "--overwrite"]),
    refused("samples into a page", |p| { p.write("s.jsonl", "<html>\n"); drawn(p, "s.jsonl") },
        &["s.jsonl", "--overwrite"]),
    refused("scores into a folder", |p| { fs::create_dir(p.path("dir")).unwrap(); scored("dir") },
        &["dir", "is a directory, not a file"]),
    refused("scores below a file", |p| { p.write("file", ""); scored("file/out.jsonl") },
        &["file", "is not a directory"]),
    refused("scores into a folder nobody may write to", |p| { fs::create_dir(p.path("shut")).unwrap(); forbid(&p.path("shut"), 0o555)?; scored("shut/s.jsonl") },
        &["shut", "permission denied"]),
    refused("a new model into a file", |p| { p.write("file", "mine"); words(&["init", "--config-json", &path("neox"), "--tokenizer", &path("neox"), "--out", "file"]) },
        &["file", "already exists"]),
    refused("a new model below a file", |p| { p.write("file", "mine"); words(&["init", "--config-json", &path("neox"), "--tokenizer", &path("neox"), "--out", "file/model"]) },
        &["file", "is not a directory"]),
    refused("an experiment below a file", |p| { p.write("file", "mine"); words(&["bandit", "theory", "--out", "file/out"]) },
        &["file"]),
    refused("a sweep below a file", |p| { train(p, "dpo", &[])?; p.write("file", "mine"); p.write("s.toml", "base = \"run.toml\"\n[run]\noutput_dir = \"file/out\"\n[[sweep]]\nloss = \"dpo\"\n"); words(&["sweep", "--config", "s.toml"]) },
        &["file", "is not a directory"]),
];
