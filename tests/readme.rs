//! The README: its commands are commands, its paths are there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use expo::config::{Config, SamplingConfig, SweepConfig};
use expo::lab::bandit::Experiment;
use expo::loss::Loss;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// The contents of the blocks fenced as `language`.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == format!("```{language}") {
            let block = lines.by_ref().take_while(|line| *line != "```");
            blocks.push(block.map(|line| format!("{line}\n")).collect());
        }
    }
    blocks
}

/// The commands of the sh blocks, as words, continued lines joined and comments dropped.
fn commands() -> Vec<Vec<String>> {
    let text: String = blocks("sh").concat().replace("\\\n", " ");
    let words = |line: &str| -> Vec<String> {
        let line = line.split(" #").next().unwrap_or_default();
        let words = line.split_whitespace();
        words
            .map(|word| word.trim_matches('\'').to_owned())
            .collect()
    };
    text.lines()
        .map(words)
        .filter(|words| !words.is_empty() && !words[0].starts_with('#'))
        .collect()
}

/// The arguments of expo in a command that runs it, before any redirection or pipe.
fn arguments(command: &[String]) -> Option<&[String]> {
    let words = command
        .rsplit(|word| word == "|")
        .next()
        .unwrap_or_default();
    let cargo = ["cargo", "run", "--release", "--"];
    let arguments = if words.first().is_some_and(|word| word == "expo") {
        &words[1..]
    } else if words.len() > cargo.len() && words[..cargo.len()] == cargo {
        &words[cargo.len()..]
    } else {
        return None;
    };
    let end = arguments
        .iter()
        .position(|word| ["<", ">"].contains(&word.as_str()));
    Some(&arguments[..end.unwrap_or(arguments.len())])
}

fn help(subcommand: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_expo"))
        .args(subcommand.split(' '))
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "there is no `expo {subcommand}`");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn its_commands_exist_with_their_flags_and_configs() {
    let mut pages = BTreeMap::new();
    let mut seen = 0;
    for command in commands() {
        if command[0].starts_with("scripts/") {
            assert!(root().join(&command[0]).is_file(), "{command:?}");
        }
        let Some(arguments) = arguments(&command) else {
            continue;
        };
        seen += 1;
        let (subcommand, rest) = arguments.split_first().expect("a subcommand");
        // Each evaluation has a page of its own.
        let name = match subcommand.as_str() {
            "eval" => format!("eval {}", rest[0]),
            name => name.to_owned(),
        };
        let page = pages.entry(name.clone()).or_insert_with(|| help(&name));
        for flag in rest.iter().filter(|word| word.starts_with("--")) {
            let known = page
                .split(|c: char| c.is_whitespace() || "[],".contains(c))
                .any(|word| word == flag);
            assert!(known, "{command:?}: {subcommand} has no {flag}");
        }
        let after = |flag: &str| {
            let pairs = rest.windows(2).filter(|pair| pair[0] == *flag);
            pairs.map(|pair| pair[1].clone()).collect::<Vec<_>>()
        };
        for config in after("--config") {
            let path = root().join(config);
            let sets = after("--set");
            let opened = match subcommand.as_str() {
                "bandit" => Experiment::open(&path, &sets).map(drop),
                "sample" => SamplingConfig::open(&path, &sets).map(drop),
                "sweep" => SweepConfig::open(&path, &sets).map(drop),
                "sft" => Config::open_sft(&path, &sets).map(drop),
                _ => Config::open(&path, &sets).map(drop),
            };
            opened.unwrap_or_else(|e| panic!("{command:?}: {e}"));
        }
        if subcommand == "bandit" && !rest[0].starts_with("--") {
            Experiment::built_in(&rest[0], &after("--set"))
                .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        }
        if subcommand == "loss" {
            let mut loss = Loss::default_of(&rest[0]).unwrap();
            for (key, value) in after("--set").iter().filter_map(|set| set.split_once('=')) {
                loss = loss.with(key, value).unwrap();
            }
        }
    }
    assert!(seen > 0);
}

#[test]
fn its_config_is_valid() {
    let configs = blocks("toml");
    assert!(!configs.is_empty());
    for text in configs {
        Config::parse(&text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
}

#[test]
fn every_path_of_its_map_is_there() {
    let map = blocks("text")
        .into_iter()
        .find(|block| block.contains("src/lib.rs"))
        .expect("the map of the repository");
    for line in map.lines() {
        let path = line.split_whitespace().next().expect("no empty line");
        assert!(root().join(path).exists(), "{path}");
    }
}
