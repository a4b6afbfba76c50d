//! Damaged files: every prefix and every single-bit flip of small instances of each format.
//!
//! The parsers and the instances are those of the fuzz targets, and some larger files of the
//! repository. Of those, some hundred cases at a stride that is a prime are looked at; all of them
//! are in the test that is ignored.

mod data_files;
#[cfg(target_os = "linux")]
#[path = "hostile/limits.rs"]
mod limits;
mod models;
mod network;
mod numerics;
mod outputs;
#[path = "../fuzz/parsers.rs"]
mod parsers;
mod program;
mod runs;
mod templates;
mod tokenizers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;

use parsers::{PARSERS, Parser};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Larger files are looked at in steps.
const WHOLE: usize = 4096;

/// How many cases of a larger file there are, about.
const CASES: usize = 500;

/// How many mangled files each parser gets.
const MANGLED: usize = 5000;

/// Larger instances: the parser, and a file of the repository.
const LARGER: [(&str, &str); 4] = [
    ("tokenizer_json", "tests/fixtures/llama/tokenizer.json"),
    ("rows", "tests/fixtures/hh.jsonl"),
    ("rows", "configs/quickstart/eval.jsonl.gz"),
    ("story_file", "configs/quickstart/grammar.toml"),
];

/// What became of the cases of a format.
#[derive(Default)]
struct Outcomes {
    cases: usize,
    refused: usize,
    accepted: usize,
    panics: Vec<String>,
}

impl Outcomes {
    fn report(&self, format: &str) {
        println!(
            "format={format} cases={} refused={} accepted={} panics={}",
            self.cases,
            self.refused,
            self.accepted,
            self.panics.len()
        );
    }

    fn add(&mut self, parser: &Parser, folder: &Path, what: &str, bytes: &[u8]) {
        self.cases += 1;
        match catch_unwind(AssertUnwindSafe(|| parser.run(folder, bytes))) {
            Ok(Ok(())) => self.accepted += 1,
            Ok(Err(_)) => self.refused += 1,
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map_or("", |said| said);
                self.panics.push(format!("{what}: {said}"));
            }
        }
    }
}

/// Every damage that a stride leaves, of every instance; one line per format.
fn damage(parsers: &[&Parser], stride_of: impl Fn(usize) -> usize) {
    parsers::quiet();
    let mut panics = Vec::new();
    for parser in parsers {
        let folder = parsers::folder();
        parser.prepare(folder.path());
        for (seed, bytes) in instances(parser) {
            let mut outcomes = Outcomes::default();
            let mut add = |what: String, bytes: &[u8]| {
                outcomes.add(parser, folder.path(), &what, bytes);
            };
            for length in (0..bytes.len()).step_by(stride_of(bytes.len())) {
                add(
                    format!("{}/{seed} cut to {length}", parser.name),
                    &bytes[..length],
                );
            }
            let mut flipped = bytes.clone();
            for bit in (0..8 * bytes.len()).step_by(stride_of(bytes.len())) {
                flipped[bit / 8] ^= 1 << (bit % 8);
                add(format!("{}/{seed} bit {bit}", parser.name), &flipped);
                flipped[bit / 8] ^= 1 << (bit % 8);
            }
            outcomes.report(&format!("{}/{seed}", parser.name));
            panics.append(&mut outcomes.panics);
        }
    }
    assert!(
        panics.is_empty(),
        "{} panics: {:#?}",
        panics.len(),
        &panics[..panics.len().min(10)]
    );
}

/// The good ones among the seeds, and the larger files.
fn instances(parser: &Parser) -> Vec<(String, Vec<u8>)> {
    let mut all = parser.seeds();
    all.retain(|(name, _)| !name.starts_with("bad"));
    for (_, file) in LARGER.iter().filter(|(name, _)| *name == parser.name) {
        let path = parsers::repository().join(file);
        let name = file.rsplit_once('/').map_or(*file, |(_, name)| name);
        all.push((name.to_owned(), std::fs::read(path).unwrap()));
    }
    all
}

/// 1, or for larger files the least prime that makes few enough cases, a prefix for each byte and
/// a flip for each bit.
fn stride(length: usize) -> usize {
    if length <= WHOLE {
        return 1;
    }
    let is_prime = |n: &usize| (2..*n).all(|divisor| !n.is_multiple_of(divisor));
    let least = (9 * length).div_ceil(CASES);
    (least..).find(is_prime).unwrap_or(least)
}

fn named(names: &[&str]) -> Vec<&'static Parser> {
    PARSERS
        .iter()
        .filter(|parser| names.contains(&parser.name))
        .collect()
}

const MODELS: [&str; 5] = [
    "adapter_config",
    "adapter_weights",
    "config_json",
    "weight_index",
    "safetensors_header",
];
const TOKENIZERS: [&str; 1] = ["tokenizer_json"];
const TEMPLATES: [&str; 4] = [
    "generation_config",
    "tokenizer_config",
    "special_tokens_map",
    "chat_template",
];

#[test]
fn damaged_models_are_refused_or_still_models() {
    damage(&named(&MODELS), stride);
}

#[test]
fn damaged_tokenizers_are_refused_or_still_tokenizers() {
    damage(&named(&TOKENIZERS), stride);
}

#[test]
fn damaged_templates_are_refused_or_still_templates() {
    damage(&named(&TEMPLATES), stride);
}

fn rest() -> Vec<&'static Parser> {
    let others = [&MODELS[..], &TOKENIZERS, &TEMPLATES].concat();
    PARSERS
        .iter()
        .filter(|parser| !others.contains(&parser.name))
        .collect()
}

#[test]
fn damaged_rows_and_configs_are_refused_or_still_rows_and_configs() {
    damage(&rest(), stride);
}

#[test]
#[ignore = "every case of the larger files too: minutes"]
fn every_damage_is_refused_or_harmless() {
    damage(&PARSERS.iter().collect::<Vec<_>>(), |_| 1);
}

#[test]
fn the_seeds_of_the_fuzz_targets_are_read_or_refused_as_their_names_say() {
    parsers::quiet();
    let mut wrong = Vec::new();
    for parser in &PARSERS {
        let folder = parsers::folder();
        parser.prepare(folder.path());
        let seeds = parser.seeds();
        assert!(
            seeds.iter().any(|(name, _)| !name.starts_with("bad")),
            "{}",
            parser.name
        );
        for (name, bytes) in seeds {
            let done = parser.run(folder.path(), &bytes);
            println!("{}/{name}: {done:?}", parser.name);
            if done.is_ok() == name.starts_with("bad") {
                wrong.push(format!("{}/{name}: {done:?}", parser.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Several damages at once, drawn from a seed: bytes changed, cut out, doubled, brought over from
/// another instance, and words that parsers trip over put in.
fn mangle(rng: &mut ChaCha8Rng, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "18446744073709551615",
        "-1",
        "1e308",
        "0",
        "null",
        "true",
        "\"\"",
        "[",
        "{",
        "}",
        "{{",
        "\\u0000",
    ];
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        let end = (at + rng.random_range(1..40)).min(bytes.len());
        match rng.random_range(0..5) {
            0 if at < bytes.len() => bytes[at] = rng.random(),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 if !other.is_empty() => {
                let from = rng.random_range(0..other.len());
                let to = (from + 40).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            _ => {
                let word = WORDS[rng.random_range(0..WORDS.len())];
                drop(bytes.splice(at..end, word.bytes()));
            }
        }
    }
    bytes
}

#[test]
#[ignore = "minutes: what stands in for the fuzz targets where cargo-fuzz is not"]
fn files_that_were_mangled_are_refused_or_harmless() {
    parsers::quiet();
    let mut panics = Vec::new();
    for parser in &PARSERS {
        let folder = parsers::folder();
        parser.prepare(folder.path());
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut seeds = parser.seeds();
        seeds.retain(|(_, bytes)| bytes.len() <= WHOLE);
        let mut outcomes = Outcomes::default();
        for number in 0..MANGLED {
            let mut seed = || &seeds[rng.random_range(0..seeds.len())].1;
            let (bytes, other) = (seed(), seed());
            let bytes = mangle(&mut rng, bytes, other);
            let what = format!("{} mangled {number}", parser.name);
            outcomes.add(parser, folder.path(), &what, &bytes);
        }
        outcomes.report(parser.name);
        panics.append(&mut outcomes.panics);
    }
    assert!(panics.is_empty(), "{} panics: {panics:#?}", panics.len());
}

/// What the program says of a config and a tokenizer; its exit code.
fn init(config: &Path, tokenizer: &Path) -> (String, Option<i32>) {
    let folder = parsers::folder();
    let output = Command::new(env!("CARGO_BIN_EXE_expo"))
        .args(["init", "--config-json"])
        .arg(config)
        .arg("--tokenizer")
        .arg(tokenizer)
        .arg("--out")
        .arg(folder.path().join("out"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (said, output.status.code())
}

#[test]
fn the_program_says_one_line_and_no_word_of_a_panic() {
    let corpus = parsers::repository().join("fuzz/corpus");
    let config = corpus.join("config_json/llama");
    let (said, code) = init(&config, &corpus.join("tokenizer_json/bad_template"));
    assert_eq!(code, Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("bad_template: its parts contradict each other: "),
        "{said}"
    );
}

#[test]
fn a_model_that_no_memory_holds_is_refused_before_any_is_taken() {
    let folder = parsers::folder();
    let text = String::from_utf8(include_bytes!("../fuzz/corpus/config_json/llama").to_vec());
    let text = text
        .unwrap()
        .replace("\"hidden_size\":4", "\"hidden_size\":1048576");
    let config = folder.path().join("config.json");
    std::fs::write(
        &config,
        text.replace("\"vocab_size\":8", "\"vocab_size\":16777216"),
    )
    .unwrap();
    let tokenizer = parsers::repository().join("fuzz/corpus/tokenizer_json/bpe");
    let (said, code) = init(&config, &tokenizer);
    if cfg!(target_os = "linux") {
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("GiB of memory, and "), "{said}");
    }
}

/// A checkpoint as a run of one step leaves it.
fn checkpoint(folder: &Path) -> std::path::PathBuf {
    let fixture = crate::support::fixture;
    let (model, pairs) = (fixture("llama"), fixture("pairs.jsonl"));
    let (out, cache) = (folder.join("run"), folder.join("cache"));
    let text = format!(
        "[model]\nmodel_name_or_path = {model:?}\n[data]\nformat = \"pairs\"\n\
         train = \"{}[:2]\"\nmax_length = 48\nmax_prompt_length = 24\n[loss.dpo]\n\
         [run]\noutput_dir = {out:?}\ncache_dir = {cache:?}\nmax_steps = 1\nsave_steps = 1\n",
        pairs.display()
    );
    let config = expo::config::Config::parse(&text, &[]).unwrap();
    let run = expo::train::Run::open(config, &mut |_| {}).unwrap();
    run.train(&mut |_| {}).unwrap();
    out.join("checkpoint-1")
}

/// Writes cuts and flips over the file, all of them or of larger files those that a stride leaves, and
/// tells `look` of each.
fn each_damage(path: &Path, mut look: impl FnMut(&str)) {
    let whole = std::fs::read(path).unwrap();
    let step = match whole.len() {
        0..=1024 => 1,
        length => stride(length).max(11),
    };
    let mut put = |what: String, bytes: &[u8]| {
        std::fs::write(path, bytes).unwrap();
        look(&what);
    };
    for length in (0..whole.len()).step_by(step) {
        put(
            format!("{} cut to {length}", path.display()),
            &whole[..length],
        );
    }
    for bit in (0..8 * whole.len()).step_by(step) {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        put(format!("{} bit {bit}", path.display()), &flipped);
    }
    std::fs::write(path, whole).unwrap();
}

#[test]
fn no_damage_to_a_checkpoint_goes_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(folder.path());
    let manifest = checkpoint.join(expo::io::durable::MANIFEST);
    let parsed = |path: &Path| {
        let text = std::fs::read(path).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).ok()
    };
    let whole = parsed(&manifest);
    let files: Vec<_> = std::fs::read_dir(&checkpoint).unwrap().collect();
    for file in files {
        let file = file.unwrap().path();
        let mut outcomes = Outcomes::default();
        each_damage(&file, |what| {
            outcomes.cases += 1;
            match expo::io::durable::verify(&checkpoint) {
                Err(error) => {
                    let place = checkpoint.display().to_string();
                    assert!(error.to_string().contains(&place), "{what}: {error}");
                    outcomes.refused += 1;
                }
                // White space of the manifest is all that may be lost.
                Ok(_) => {
                    assert!(file == manifest && parsed(&manifest) == whole, "{what}");
                    outcomes.accepted += 1;
                }
            }
        });
        let name = file.file_name().unwrap().to_string_lossy();
        outcomes.report(&format!("checkpoint/{name}"));
    }
    assert!(expo::io::durable::verify(&checkpoint).is_ok());
}

/// With a manifest that agrees with the damage, and so is no help.
#[test]
fn a_damaged_state_is_refused_or_still_a_state() {
    use sha2::{Digest, Sha256};
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(folder.path());
    let manifest = checkpoint.join(expo::io::durable::MANIFEST);
    let whole: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let state = checkpoint.join("training_state.json");
    let mut outcomes = Outcomes::default();
    each_damage(&state, |what| {
        let bytes = std::fs::read(&state).unwrap();
        let mut agreeing = whole.clone();
        agreeing["files"]["training_state.json"] = serde_json::json!({
            "bytes": bytes.len(),
            "sha256": format!("{:x}", Sha256::digest(&bytes)),
        });
        std::fs::write(&manifest, agreeing.to_string()).unwrap();
        outcomes.cases += 1;
        let found = expo::train::verify(&checkpoint).unwrap();
        match &found[0].outcome {
            Ok(_) => outcomes.accepted += 1,
            Err(error) => {
                let place = checkpoint.display().to_string();
                assert!(error.to_string().contains(&place), "{what}: {error}");
                outcomes.refused += 1;
            }
        }
    });
    outcomes.report("training_state");
    let record = folder.path().join("run/run.json");
    let mut outcomes = Outcomes::default();
    each_damage(&record, |_| {
        outcomes.cases += 1;
        let found = expo::train::verify(&folder.path().join("run"));
        // Without its name's beginning it is no run; else it is whole or found damaged.
        match found.is_ok_and(|all| {
            all.iter()
                .all(|one| one.path != record || one.outcome.is_ok())
        }) {
            true => outcomes.accepted += 1,
            false => outcomes.refused += 1,
        }
    });
    outcomes.report("run_record");
}
