//! Files of rows, conversations, samples and scores.

use std::fs::{self, File};
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Case, LFS, PAGE, accepted, forbid, path, pipe, refused, train, with_config, words};
use crate::cli::Place;
use crate::support::fixture;

const ROW: &str = "{\"prompt\": \"a\", \"chosen\": \" b\", \"rejected\": \" c\"}";
/// A run whose training rows are these bytes.
fn rows(place: &Place, name: &str, bytes: impl AsRef<[u8]>) -> Option<Vec<String>> {
    place.write(name, bytes);
    train(place, "dpo", &[&format!("data.train={name}")])
}

/// Lines that none is to be missing of.
fn lines(place: &Place, rows: &[&str]) -> Option<Vec<String>> {
    place.write("rows.jsonl", rows.join("\n") + "\n");
    train(
        place,
        "dpo",
        &["data.train=rows.jsonl", "data.on_invalid=error"],
    )
}

/// `expo data show` of these bytes.
fn show(place: &Place, name: &str, bytes: impl AsRef<[u8]>) -> Option<Vec<String>> {
    place.write(name, bytes);
    let set = format!("data.train={name}");
    with_config(place, "data show", "dpo", &[&set])
}

/// A run of `format` on one row.
fn formatted(place: &Place, format: &str, row: &str) -> Option<Vec<String>> {
    place.write("rows.jsonl", format!("{row}\n"));
    let format = format!("data.format={format}");
    let sets = ["data.train=rows.jsonl", &format, "data.on_invalid=error"];
    train(place, "dpo", &sets)
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

/// A row of 64 KiB that compresses badly, so that a cut file is cut in its middle.
fn long() -> String {
    let letters = (0..1_u32 << 16).map(|i| {
        let x = i.wrapping_mul(2_654_435_761) >> 24;
        char::from(b'a' + (x % 26) as u8)
    });
    format!(
        "{ROW}\n{}\n",
        ROW.replacen('a', &letters.collect::<String>(), 1)
    )
}

/// Conversations with a model whose template is `template`.
fn chat(place: &Place, template: Option<&str>) -> Option<Vec<String>> {
    let model = place.model("neox");
    if let Some(template) = template {
        fs::write(model.join("chat_template.jinja"), template).unwrap();
    }
    let turn = |role: &str, text: &str| format!("{{\"role\": {role:?}, \"content\": {text:?}}}");
    let (user, said) = (turn("user", "a"), turn("assistant", "b"));
    let row = format!("{{\"prompt\": [{user}], \"chosen\": [{said}], \"rejected\": [{said}]}}");
    place.write("chat.jsonl", row);
    let sets = [
        "data.train=chat.jsonl",
        "data.on_invalid=error",
        &format!("model.model_name_or_path={}", model.display()),
    ];
    train(place, "dpo", &sets)
}

/// A run with the score file that `expo score` writes of `model`, after `change`.
fn scored(
    place: &Place,
    model: &str,
    change: fn(String) -> String,
    sets: &[&str],
) -> Option<Vec<String>> {
    let scores = place.path("scores.jsonl");
    let to = scores.display().to_string();
    let score = [
        "score",
        "--model",
        &path(model),
        "--data",
        &path("pairs.jsonl"),
    ];
    let limits = [
        "--max-length",
        "128",
        "--max-prompt-length",
        "64",
        "--out",
        &to,
    ];
    place.succeed(&[&score[..], &limits].concat());
    fs::write(&scores, change(fs::read_to_string(&scores).unwrap())).unwrap();
    let given = "data.reference_log_probs=scores.jsonl";
    train(place, "dpo", &[&[given], sets].concat())
}

/// A run of cEXPO on a sample file of one line.
fn sampled(place: &Place, line: &str) -> Option<Vec<String>> {
    place.write("samples.jsonl", format!("{line}\n"));
    train(place, "cexpo", &["data.samples=samples.jsonl"])
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    refused("an LFS pointer as rows", |p| rows(p, "rows.jsonl", LFS),
        &["rows.jsonl", "pointer of Git LFS", "git lfs pull"]),
    refused("an LFS pointer as gzipped rows", |p| rows(p, "rows.jsonl.gz", LFS),
        &["rows.jsonl.gz", "pointer of Git LFS", "git lfs pull"]),
    refused("a web page as rows", |p| rows(p, "rows.jsonl", PAGE),
        &["rows.jsonl", "web page", "raw file"]),
    refused("UTF-16 with its mark", |p| { rows(p, "rows.jsonl", [&b"\xff\xfe"[..], &utf_16(ROW, u16::to_le_bytes)].concat()) },
        &["rows.jsonl", "UTF-16", "convert it to UTF-8"]),
    refused("UTF-16 without a mark", |p| rows(p, "rows.jsonl", utf_16(ROW, u16::to_be_bytes)),
        &["rows.jsonl", "NUL", "convert it to UTF-8"]),
    refused("Latin-1", |p| rows(p, "rows.jsonl", b"{\"prompt\": \"caf\xe9\"}\n"),
        &["rows.jsonl:1", "byte 16", "not UTF-8"]),
    accepted("lines that end in CR LF", |p| show(p, "rows.jsonl", format!("{ROW}\r\n{ROW}\r\n")),
        &["kept                           2\n"]),
    accepted("the byte order mark of UTF-8", |p| show(p, "rows.jsonl", format!("\u{feff}{ROW}\n")),
        &["kept                           1\n"]),
    accepted("a last line without its end", |p| show(p, "rows.jsonl", format!("{ROW}\n{ROW}")),
        &["kept                           2\n"]),
    accepted("rows between blank lines", |p| show(p, "rows.jsonl", format!("\n{ROW}\n \t\n{ROW}\n\n")),
        &["kept                           2\n"]),
    accepted("gzipped rows in two members", |p| { show(p, "rows.jsonl.gz", [gzipped(&format!("{ROW}\n")), gzipped(ROW)].concat()) },
        &["kept                           2\n"]),
    refused("NUL in a row", |p| lines(p, &[ROW, "{\"prompt\": \"a\0b\"}"]),
        &["rows.jsonl:2", "not JSON"]),
    refused("NUL in the first line", |p| lines(p, &["{\"prompt\": \"a\0b\"}"]),
        &["rows.jsonl", "NUL"]),
    refused("JSON 200 deep", |p| { lines(p, &[ROW, &format!("{}{}", "[".repeat(200), "]".repeat(200))]) },
        &["rows.jsonl:2", "recursion limit"]),
    refused("JSON without an end", |p| lines(p, &[ROW, &"{\"a\":".repeat(100_000)]),
        &["rows.jsonl:2", "recursion limit"]),
    refused("a number that JSON lacks", |p| lines(p, &["{\"prompt\": NaN}"]),
        &["rows.jsonl:1", "`prompt`"]),
    refused("half a surrogate", |p| lines(p, &["{\"prompt\": \"\\ud800\"}"]),
        &["rows.jsonl:1", "not JSON", "half of a character", "lone surrogate"]),
    refused("a row that was cut", |p| lines(p, &[ROW, &ROW[..20]]),
        &["rows.jsonl:2", "not JSON"]),
    refused("two rows on a line", |p| lines(p, &[&format!("{ROW}{ROW}")]),
        &["rows.jsonl:1", "trailing characters"]),
    refused("a list on a line of its own", |p| lines(p, &[ROW, "[1, 2]"]),
        &["rows.jsonl:2", "a JSON list, not an object"]),
    refused("a string as a row", |p| lines(p, &["\"a\""]),
        &["rows.jsonl:1", "not an object", "one JSON object"]),
    refused("a list of numbers", |p| rows(p, "rows.json", "[1, 2]"),
        &["rows.json: item 1", "not an object"]),
    refused("blank lines", |p| lines(p, &["", " ", "\t"]),
        &["rows.jsonl", "no rows", "one JSON object per line"]),
    refused("a gzip file that was cut", |p| { let all = gzipped(&long()); rows(p, "rows.jsonl.gz", &all[..all.len() / 2]) },
        &["rows.jsonl.gz:2", "damaged or cut off", "fetch the file again"]),
    refused("a gzip file of its header", |p| rows(p, "rows.jsonl.gz", &gzipped(ROW)[..10]),
        &["rows.jsonl.gz", "damaged or cut off"]),
    refused("garbage after gzip", |p| { rows(p, "rows.jsonl.gz", [&gzipped(&format!("{ROW}\n"))[..], b"garbage"].concat()) },
        &["rows.jsonl.gz:2", "damaged or cut off"]),
    refused("a damaged gzip file", |p| { let mut all = gzipped(&long()); let at = all.len() - 8; all[at] ^= 1; rows(p, "rows.jsonl.gz", all) },
        &["rows.jsonl.gz:", "damaged"]),
    refused("parquet that was cut", |p| rows(p, "rows.parquet", b"PAR1\x15\x04"),
        &["rows.parquet", "cannot be read as parquet", "fetch it again"]),
    refused("no parquet", |p| rows(p, "rows.parquet", ROW),
        &["rows.parquet", "not parquet, whatever its name says"]),
    refused("Arrow that was cut", |p| rows(p, "rows.arrow", b"\xff\xff\xff\xff\x10\x00"),
        &["rows.arrow", "cut off", "fetch"]),
    refused("a zip archive", |p| rows(p, "rows.jsonl", b"PK\x03\x04\x14\x00"),
        &["rows.jsonl", "zip", "unpack"]),
    refused("zstd that was cut", |p| rows(p, "rows.jsonl", b"\x28\xb5\x2f\xfd\x04"),
        &["rows.jsonl:1", "zstd", "damaged or cut off"]),
    refused("a table without rows", |p| rows(p, "rows.csv", "prompt,chosen,rejected\n"),
        &["rows.csv", "no rows", "column names"]),
    refused("a table with an open quote", |p| rows(p, "rows.csv", "prompt,chosen,rejected\n\"a,b,c\n"),
        &["rows.csv:2", "ends within a quoted cell"]),
    refused("a table by another name", |p| rows(p, "rows.jsonl", "prompt,chosen,rejected\na,b,c\n"),
        &["rows.jsonl: ", "looks like CSV", ".csv"]),
    refused("an object over several lines", |p| rows(p, "rows.jsonl", "{\n  \"prompt\": 1\n}\n"),
        &["rows.jsonl: ", "JSON over several lines", "a line of its own"]),
    refused("an empty directory as rows", |p| { fs::create_dir(p.path("rows")).unwrap(); train(p, "dpo", &["data.train=rows"]) },
        &["rows: ", "no data files", ".jsonl, .json, .parquet"]),
    refused("a pattern without files", |p| train(p, "dpo", &["data.train=rows/*.jsonl"]),
        &["rows/*.jsonl: ", "no file matches"]),
    refused("a name of the hub as rows", |p| train(p, "dpo", &["data.train=owner/pairs"]),
        &["owner/pairs: ", "no such file", "hub:owner/pairs:train"]),
    refused("rows below a file", |p| { p.write("file", ""); train(p, "dpo", &["data.train=file/rows.jsonl"]) },
        &["file/rows.jsonl", "is a file, not a directory"]),
    refused("a device as rows", |p| { fs::exists("/dev/zero").unwrap().then(|| train(p, "dpo", &["data.train=/dev/zero"]))? },
        &["/dev/zero"]),
    refused("rows nobody may read", |p| { forbid(&p.write("rows.jsonl", ROW), 0)?; train(p, "dpo", &["data.train=rows.jsonl"]) },
        &["rows.jsonl", "permission denied"]),
    refused("no files", |p| train(p, "dpo", &["data.train=[]"]),
        &["data.train", "the list of files is empty"]),
    refused("a slice beyond its file", |p| { p.write("rows.jsonl", ROW); train(p, "dpo", &["data.train=rows.jsonl[:2]"]) },
        &["rows.jsonl[:2]", "1 rows", "lies within"]),
    refused("a slice of nothing", |p| { p.write("rows.jsonl", ROW); train(p, "dpo", &["data.train=rows.jsonl[1:]"]) },
        &["rows.jsonl[1:]", "no row of 1"]),
    refused("no slice", |p| train(p, "dpo", &["data.train=rows.jsonl[a:b]"]),
        &["rows.jsonl[a:b]", "[:1000]"]),
    refused("a prompt that is a number", |p| { formatted(p, "pairs", "{\"prompt\": 1, \"chosen\": \"b\", \"rejected\": \"c\"}") },
        &["rows.jsonl:1", "column `prompt` is 1, not a string"]),
    refused("rows of unpaired as pairs", |p| { formatted(p, "pairs", "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": true}") },
        &["rows.jsonl:1", "no column `chosen`", "`completion`"]),
    refused("rows of pairs as unpaired", |p| formatted(p, "unpaired", ROW),
        &["rows.jsonl:1", "no column `completion`", "`chosen`"]),
    refused("rows of pairs as hh", |p| formatted(p, "hh", ROW),
        &["rows.jsonl:1", "no `\\n\\nAssistant:`", "on_invalid"]),
    refused("a label that is a number", |p| { formatted(p, "unpaired", "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": 2}") },
        &["rows.jsonl:1", "label", "2"]),
    refused("a preference above 1", |p| formatted(p, "pairs", &ROW.replace('}', ", \"preference\": 1.5}")),
        &["rows.jsonl:1", "preference", "1.5", "[0, 1]"]),
    refused("unpaired rows for a loss of pairs", |p| { formatted(p, "unpaired", "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": true}") },
        &["rows.jsonl:1", "no rejected response"]),
    refused("an empty answer, none of them usable", |p| { formatted(p, "pairs", "{\"prompt\": \"a\", \"chosen\": \"\", \"rejected\": \"c\"}") },
        &["rows.jsonl:1", "on_invalid"]),
    refused("conversations without a template", |p| chat(p, None),
        &["chat.jsonl:1", "no chat template", "data.chat_template"]),
    refused("a template that does not parse", |p| chat(p, Some("{% for m in messages %}")),
        &["chat_template.jinja"]),
    refused("a template that refuses", |p| chat(p, Some("{{ raise_exception('only poems') }}")),
        &["chat.jsonl:1", "only poems"]),
    refused("an unknown role", |p| { formatted(p, "sft", "{\"messages\": [{\"role\": \"usr\", \"content\": \"a\"}]}") },
        &["rows.jsonl:1", "\"usr\"", "`user`?"]),
    refused("max_length beyond the model", |p| train(p, "dpo", &["data.max_length=257"]),
        &["--set data.max_length=257: ", "256"]),
    refused("a prompt beyond the model", |p| { p.write("long.txt", "a ".repeat(400)); words(&["sample", "--model", &path("neox"), "--prompts", "long.txt", "--out", "out"]) },
        &["long.txt:1", "256"]),
    refused("one prompt beyond the model", |_| { words(&["sample", "--model", &path("neox"), "--prompt", &"a ".repeat(400)]) },
        &["256"]),
    refused("scores of other tokens", |p| { scored(p, "neox", |text| text, &["data.max_length=20", "data.max_prompt_length=2"]) },
        &["scores.jsonl", "row 0", "other tokens"]),
    refused("scores of another tokenizer", |p| scored(p, "llama", |text| text, &[]),
        &["scores.jsonl", "another tokenizer", "score again"]),
    refused("scores of another model", |p| { scored(p, "neox", |text| text, &[&format!("model.reference={}", path("neox-ref"))]) },
        &["scores.jsonl", "another model", "model.reference"]),
    refused("scores of two models", |p| { scored(p, "neox", |text| text.replacen("\"model\":\"", "\"model\":\"0", 1), &[]) },
        &["scores.jsonl:2", "another model", "one model"]),
    refused("a score that is above 0", |p| { scored(p, "neox", |text| text.replacen("\"log_prob\":-", "\"log_prob\":", 1), &[]) },
        &["scores.jsonl", "row 0", "log-prob above 0"]),
    refused("a score file that was cut", |p| scored(p, "neox", |text| text[..text.len() - 20].into(), &[]),
        &["scores.jsonl:24", "not a row of scores"]),
    refused("samples without tokens", |p| sampled(p, "{\"prompt\": \"a\"}"),
        &["samples.jsonl:1", "finish_reason", "token_ids"]),
    refused("samples of another tokenizer", |p| { sampled(p, "{\"prompt\": \"Is the duck kind?\", \"response\": \"b\", \"token_ids\": [339], \"finish_reason\": \"stop\", \"index\": 0, \"seed\": 0}") },
        &["samples.jsonl:1", "339", "another model"]),
    refused("samples of negative tokens", |p| { sampled(p, "{\"prompt\": \"Is the duck kind?\", \"response\": \"b\", \"token_ids\": [-1], \"finish_reason\": \"stop\", \"index\": 0, \"seed\": 0}") },
        &["samples.jsonl:1", "token_ids"]),
    refused("samples of other prompts", |p| { sampled(p, "{\"prompt\": \"nobody's\", \"response\": \"b\", \"token_ids\": [5], \"finish_reason\": \"stop\", \"index\": 0, \"seed\": 0}") },
        &["pairs.jsonl", "none of 24 rows", "the sample file has no response to the prompt; expo sample with this config"]),
    refused("pairs as samples", |p| { fs::copy(fixture("pairs.jsonl"), p.path("s.jsonl")).unwrap(); train(p, "cexpo", &["data.samples=s.jsonl"]) },
        &["s.jsonl:1", "token_ids"]),
    refused("rows as a .txt of gzip that is none", |p| { File::create(p.path("p.txt")).unwrap().write_all(b"\x1f\x8bno").unwrap(); words(&["sample", "--model", &path("neox"), "--prompts", "p.txt", "--out", "out"]) },
        &["p.txt", "damaged or cut off"]),
    refused("a pipe as rows", |p| { pipe(p, "pipe")?; train(p, "dpo", &["data.train=pipe"]) },
        &["pipe", "is a pipe, a socket or a device", "to a file first"]),
    refused("a template without an end", |p| { chat(p, Some("{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}")) },
        &["chat.jsonl:1"]),
    refused("an override without a config", |p| { p.write("rows.jsonl", ROW); words(&["data", "show", "rows.jsonl", "--set", "foo.bar=1"]) },
        &["--set foo.bar=1: --set needs a config", "--config FILE"]),
    refused("an override without a config, checked", |p| { p.write("rows.jsonl", ROW); words(&["data", "lint", "rows.jsonl", "--set", "foo.bar=1"]) },
        &["--set foo.bar=1: --set needs a config", "--config FILE"]),
    refused("an override of which rows are shown", |p| { p.write("rows.jsonl", ROW); words(&["data", "show", "rows.jsonl", "--model", &path("neox"), "--set", "data.train=x"]) },
        &["--set data.train=x", "needs a config"]),
    refused("rows of no known columns, shown", |p| { p.write("rows.jsonl", "{\"a\": 1}\n"); words(&["data", "show", "rows.jsonl"]) },
        &["rows.jsonl:1", "of no known format: `a`", "[data.columns]"]),
    refused("a row that cannot be used, shown", |p| { p.write("rows.jsonl", format!("{ROW}\n{{\"prompt\": \"a\"}}\n")); words(&["data", "show", "rows.jsonl", "--row", "1"]) },
        &["rows.jsonl:2", "no column `chosen`", "the row is left out"]),
    refused("a column that no format reads", |p| train(p, "dpo", &["data.columns.promt=question"]),
        &["no format reads `promt`", "`prompt`?"]),
    refused("a column that the format does not read", |p| train(p, "dpo", &["data.columns.label=x"]),
        &["--set data.columns.label=x", "does not read `label`"]),
    refused("a column that no row has", |p| train(p, "dpo", &["data.columns.prompt=question"]),
        &["none of 24 rows", "no `question`", "it has `prompt`"]),
    refused("a part that is none", |p| train(p, "dpo", &["data.max_invalid_fraction=-0.1"]),
        &["--set data.max_invalid_fraction=-0.1", "[0, 1]"]),
    refused("pairs of no ranking", |p| train(p, "dpo", &["data.pairing=all"]),
        &["pairing for format `pairs`"]),
];
