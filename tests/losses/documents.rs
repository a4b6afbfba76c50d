//! What documents say of the losses is generated from the losses: the table of the guide, the sections of
//! `configs/reference.toml`, and a first config of each loss.
//!
//! With `EXPO_UPDATE=1` in the environment these tests write what they otherwise compare.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{check, replaced};
use expo::loss::{Knob, Knobs, Loss, Objective, Range};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn losses() -> impl Iterator<Item = Loss> {
    Loss::NAMES
        .iter()
        .map(|name| Loss::default_of(name).unwrap())
}

#[test]
fn the_guide_has_the_table_of_losses() {
    let path = root().join("src/guide/losses.md");
    let text = fs::read_to_string(&path).unwrap();
    let head = "| loss | title | source | config |\n";
    let mut table = format!("{head}|---|---|---|---|\n");
    for loss in losses() {
        let (name, about) = (loss.name(), loss.about());
        let aliases: Vec<String> = loss.aliases().iter().map(|a| format!("`{a}`")).collect();
        let aliases = match aliases.is_empty() {
            true => String::new(),
            false => format!(" (alias {})", aliases.join(", ")),
        };
        let file = format!("src/loss/objectives/{name}.rs");
        assert!(root().join(&file).is_file(), "a loss has its name: {file}");
        let (title, paper, config) = (loss.title(), about.paper, about.config);
        writeln!(
            table,
            "| `{name}`{aliases} | {title} | {paper} | `{config}` |"
        )
        .unwrap();
    }
    check(
        &path,
        &replaced(&text, head, |line| !line.starts_with('|'), &table),
    );
}

#[test]
fn the_readme_counts_the_losses() {
    let path = root().join("README.md");
    let text = fs::read_to_string(&path).unwrap();
    check(&path, &counted(&text));
}

/// The text with the number of losses right where it says "one of 30 losses".
fn counted(text: &str) -> String {
    let digit = |c: char| c.is_ascii_digit();
    let mut parts = text.split("one of ").map(str::to_owned);
    let mut counted = parts.next().unwrap_or_default();
    for part in parts {
        let rest = part.trim_start_matches(digit);
        counted += "one of ";
        counted += &match rest.starts_with(" losses") {
            true => format!("{}{rest}", Loss::NAMES.len()),
            false => part,
        };
    }
    counted
}

/// A value for a knob that has none by default.
fn example(knob: &Knob) -> String {
    match knob.range {
        Range::Interval { low, high } if high.at.is_finite() => {
            ((low.at + high.at) / 2.0).to_string()
        }
        Range::Interval { low, .. } if low.included => low.at.to_string(),
        Range::Interval { low, .. } => (low.at + 1.0).to_string(),
        Range::Words(words) => format!("\"{}\"", words[0]),
        Range::Flag => "true".to_owned(),
    }
}

/// The config section of a loss with its defaults, comments from this column on.
fn section(loss: &Loss, column: usize) -> String {
    let mut text = format!("[loss.{}]\n", loss.name());
    for knob in loss.knobs() {
        let setting = match loss.knob(knob.name) {
            Some(value) => format!("{} = {value}", knob.name),
            None => format!("# {} = {}", knob.name, example(knob)),
        };
        // Its first sentence.
        let (meaning, _) = knob.meaning.split_once(". ").unwrap_or((knob.meaning, ""));
        let meaning = meaning.trim_end_matches('.');
        writeln!(text, "{setting:<column$}# {}: {meaning}", knob.range).unwrap();
    }
    text
}

#[test]
fn the_reference_has_the_sections_of_the_losses() {
    let path = root().join("configs/reference.toml");
    let text = fs::read_to_string(&path).unwrap();
    // One is in use, the others are commented out.
    let used = Loss::default_of("rexpo").unwrap();
    let mut sections = section(&used, 36);
    for loss in losses().filter(|loss| loss.name() != used.name()) {
        sections.push('\n');
        for line in section(&loss, 34).lines() {
            writeln!(sections, "# {line}").unwrap();
        }
    }
    sections.push('\n');
    let ends = |line: &str| line.starts_with("# [reference]");
    check(&path, &replaced(&text, "[loss.", ends, &sections));
}

/// A first small run, for a loss of pairs.
fn config(loss: &Loss) -> String {
    let name = loss.name();
    let knobs = loss.knobs().iter();
    let set = knobs.filter_map(|knob| Some(format!("{} = {}\n", knob.name, loss.knob(knob.name)?)));
    format!(
        "# {}. {}.\n\
         # Page: expo losses show {name}. The knobs are the defaults; the rest is that of a first small run.\n\
         \n[model]\nmodel_name_or_path = \"configs/tiny/model\"\n\
         \n[data]\nformat = \"pairs\"\ntrain = \"configs/tiny/train.jsonl\"\n\
         eval = \"configs/tiny/eval.jsonl\"\nmax_length = 128\nmax_prompt_length = 64\n\
         \n[loss.{name}]\n{}\
         \n[batch]\nbatch_size = 16\n\
         \n[optimizer]\nlearning_rate = 2e-4\n\
         \n[run]\noutput_dir = \"runs/losses/{name}\"\nnum_train_epochs = 1\n",
        loss.title(),
        loss.about().paper,
        set.collect::<String>(),
    )
}

#[test]
fn every_loss_has_a_first_config() {
    for loss in losses() {
        let path: PathBuf = root().join(loss.about().config);
        if !path.exists() {
            check(&path, &config(&loss));
        }
    }
    let dpop = Loss::default_of("dpop").unwrap();
    let written = fs::read_to_string(root().join(dpop.about().config)).unwrap();
    assert_eq!(config(&dpop), written);
}
