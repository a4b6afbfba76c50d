//! Evaluations: samples, templates, judges, annotations.

use super::{Case, path, refused, words};
use crate::cli::Place;

const TEMPLATE: &str = "{prompt}\n{response_a}\n{response_b}\n{verdict:A|B}\n";
const SAMPLE: &str =
    "{\"prompt\": \"a\", \"response\": \"b\", \"finish_reason\": \"stop\", \"index\": 0}\n";
const ANNOTATION: &str =
    "{\"instruction\": \"a\", \"output_1\": \"b\", \"output_2\": \"c\", \"preference\": 1.5}\n";

/// Samples of the fixtures beside themselves.
fn judge(more: &[&str]) -> Option<Vec<String>> {
    let samples = path("samples.jsonl");
    let fixed = [
        "eval",
        "judge",
        "--samples",
        &samples,
        "--against",
        &samples,
    ];
    words(&[&fixed[..], more].concat())
}

/// Samples of a file beside the chosen answers of the fixtures.
fn chosen(place: &Place, samples: &str, more: &[&str]) -> Option<Vec<String>> {
    place.write("s.jsonl", samples);
    let fixed = [
        "eval",
        "judge",
        "--samples",
        "s.jsonl",
        "--judge",
        "length",
        "--against",
        "chosen",
    ];
    words(&[&fixed[..], more].concat())
}

fn template(place: &Place, text: &str) -> Option<Vec<String>> {
    place.write("t.txt", text);
    judge(&["--judge-model", "m", "--template", "t.txt"])
}

fn lexicon(place: &Place, text: &str) -> Option<Vec<String>> {
    place.write("l.txt", text);
    judge(&["--judge", "lexicon:l.txt"])
}

/// Annotations, with another file under `flag`.
fn alpaca(place: &Place, annotations: &str, other: &[&str]) -> Option<Vec<String>> {
    place.write("a.jsonl", annotations);
    let mut args = vec!["eval", "alpaca", "--annotations", "a.jsonl"];
    if let [flag, name, text] = other {
        place.write(name, text);
        args.extend([flag, name]);
    }
    words(&args)
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    refused("no samples to judge", |_| words(&["eval", "judge", "--samples", "none.jsonl", "--against", "x", "--judge", "length"]),
        &["none.jsonl", "no such file"]),
    refused("rows in the place of samples", |p| chosen(p, "{\"prompt\": \"a\", \"chosen\": \"b\"}\n", &["--data", &path("pairs.jsonl")]),
        &["s.jsonl:1", "finish_reason"]),
    refused("chosen answers of no rows", |p| chosen(p, SAMPLE, &[]),
        &["--against chosen", "--data"]),
    refused("rows beside another model's samples", |_| judge(&["--judge", "length", "--data", &path("pairs.jsonl")]),
        &["--data", "--against chosen"]),
    refused("samples of other prompts", |p| chosen(p, SAMPLE, &["--data", &path("pairs.jsonl")]),
        &["s.jsonl", "no prompt of it is in", "pairs.jsonl"]),
    refused("conversations without their template", |p| { p.write("c.jsonl", "{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"chosen\": [{\"role\": \"assistant\", \"content\": \"b\"}], \"rejected\": [{\"role\": \"assistant\", \"content\": \"c\"}]}\n"); chosen(p, SAMPLE, &["--data", "c.jsonl"]) },
        &["c.jsonl:1", "chat template", "name the model"]),
    refused("a number that no sample has", |_| judge(&["--judge", "length", "--index", "9"]),
        &["samples.jsonl", "index 9", "counted from 0"]),
    refused("no items", |_| judge(&["--judge", "length", "--max-items", "0"]),
        &["--max-items: max_items must be >= 1 (got 0)"]),
    refused("no question at once", |_| judge(&["--judge-model", "m", "--concurrency", "0"]),
        &["--concurrency: concurrency must be in [1, 1024] (got 0)"]),
    refused("items into the file of replies", |_| judge(&["--judge", "length", "--out", "r.jsonl", "--cache", "r.jsonl"]),
        &["r.jsonl", "replies", "another --out"]),
    refused("items into a file that is there", |p| { p.write("out.jsonl", "mine"); judge(&["--judge", "length", "--out", "out.jsonl"]) },
        &["out.jsonl", "already exists", "--overwrite"]),
    refused("replies into a file of rows", |p| { p.write("c.jsonl", SAMPLE); judge(&["--judge", "length", "--cache", "c.jsonl"]) },
        &["c.jsonl:1", "no reply of a judge", "--cache"]),
    refused("replies into a folder", |_| judge(&["--judge", "length", "--cache", "."]),
        &["is a directory"]),
    refused("a judge without a key", |_| judge(&["--judge-model", "m"]),
        &["OPENAI_API_KEY is not set", "OPENAI_BASE_URL", "length, lexicon:FILE", "(--judge)"]),
    refused("a template without a verdict", |p| template(p, &TEMPLATE.replace("{verdict:A|B}", "A or B?")),
        &["t.txt", "no {verdict:A|B}"]),
    refused("a template with another placeholder", |p| template(p, &TEMPLATE.replace("{prompt}", "{prompt}\n{question}")),
        &["t.txt:2: ", "unknown placeholder {question}", "valid: "]),
    refused("no template", |_| judge(&["--judge-model", "m", "--template", "none.txt"]),
        &["none.txt", "no such file"]),
    refused("a lexicon without weights", |p| lexicon(p, "kind 1\nbad\n"),
        &["l.txt:2: ", "1 columns", "`kind 1.5`"]),
    refused("a judge that is no model", |_| judge(&["--judge", "model:nowhere"]),
        &["--judge: ", "nowhere"]),
    refused("a reference beside a rule", |_| judge(&["--judge", "length", "--judge-reference", &path("neox")]),
        &["--judge-reference", "--judge model:MODEL"]),
    refused("a judge and a reference that read other tokens", |_| judge(&["--judge", &format!("model:{}", path("neox")), "--judge-reference", &path("llama")]),
        &["llama", "tokenizer"]),
    refused("no annotations", |_| words(&["eval", "alpaca", "--annotations", "none.json"]),
        &["none.json", "no such file"]),
    refused("annotations without outputs", |p| alpaca(p, "{\"instruction\": \"a\"}\n", &[]),
        &["a.jsonl:1", "`output_1`", "an annotation has"]),
    refused("a preference beyond 2", |p| alpaca(p, &ANNOTATION.replace("1.5", "2.5"), &[]),
        &["a.jsonl:1", "`preference` is 2.5", "from 1"]),
    refused("no preference at all", |p| alpaca(p, &ANNOTATION.replace("1.5", "null"), &[]),
        &["a.jsonl", "none of 1 rows has a preference"]),
    refused("a difficulty that overflows", |p| alpaca(p, ANNOTATION, &["--difficulty", "d.csv", "index,instruction_difficulty\n0,1e200\n"]),
        &["d.csv:2", "\"1e200\", which is out of range"]),
    refused("annotations of two models", |p| alpaca(p, &["x", "y"].map(|name| ANNOTATION.replace("{", &format!("{{\"generator_2\": \"{name}\", "))).concat(), &[]),
        &["a.jsonl:2", "generator_2", "one model"]),
    refused("a difficulty that is missing", |p| alpaca(p, ANNOTATION, &["--difficulty", "d.csv", "index,instruction_difficulty\n3,0.5\n"]),
        &["d.csv", "no difficulty of annotation 0", "its place from 0"]),
    refused("a difficulty that is no number", |p| alpaca(p, ANNOTATION, &["--difficulty", "d.csv", "index,instruction_difficulty\n0,hard\n"]),
        &["d.csv:2", "\"hard\", not a number"]),
    refused("difficulties without a name", |p| alpaca(p, ANNOTATION, &["--difficulty", "d.jsonl", "{\"instruction_difficulty\": 1}\n"]),
        &["d.jsonl:1", "no column `index`", "by `instruction`"]),
    refused("gamed rows that are none", |p| alpaca(p, ANNOTATION, &["--gamed", "g.csv", "index,preference,std_delta_len,instruction_difficulty\n0,1.7,0,0\n"]),
        &["g.csv:2", "preference is 1.7", "[0, 1]"]),
];
