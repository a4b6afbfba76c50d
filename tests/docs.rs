//! README and guide: their commands run in the order in which they stand, their configs are valid, their
//! paths and links lead somewhere.

mod generated;
mod markdown;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use expo::config::{Config, SamplingConfig, Source, SweepConfig};
use expo::guide::PAGES;
use expo::lab::bandit::Experiment;
use expo::loss::Loss;

use markdown::{Block, Document};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README first, then the pages of the guide in their order.
fn documents() -> Vec<Document> {
    let pages = PAGES
        .iter()
        .map(|page| format!("src/guide/{}.md", page.name));
    let paths = ["README.md".to_owned()].into_iter().chain(pages);
    paths.map(|path| Document::read(root(), &path)).collect()
}

fn blocks(language: &str) -> Vec<Block> {
    let blocks = documents()
        .into_iter()
        .flat_map(|document| document.blocks());
    blocks.filter(|block| block.language == language).collect()
}

/// Whether a reader may be unable to run the block, as its first line says.
fn is_conditional(block: &Block) -> bool {
    ["# Needs ", "# Takes "]
        .iter()
        .any(|start| block.text.starts_with(start))
}

/// The arguments of each run of expo in a command.
fn runs_of_expo(command: &str) -> Vec<Vec<String>> {
    let words = command
        .split_whitespace()
        .map(|word| word.trim_matches('\'').to_owned());
    let words: Vec<String> = words.collect();
    let parts = words.split(|word| ["|", "&&", "||", ";"].contains(&word.as_str()));
    let cargo = ["cargo", "run", "--release", "--"];
    let arguments = |part: &[String]| {
        let rest = match part.first().map(String::as_str) {
            Some("expo") => &part[1..],
            _ => part.strip_prefix(&cargo.map(str::to_owned)[..])?,
        };
        let redirects = |word: &String| word.starts_with(['<', '>']) || word.starts_with("2>");
        let end = rest.iter().position(redirects).unwrap_or(rest.len());
        Some(rest[..end].to_vec())
    };
    parts.filter_map(arguments).collect()
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
fn their_commands_exist_with_their_flags_and_configs() {
    let mut pages = BTreeMap::new();
    let mut seen = 0;
    for block in blocks("sh") {
        for (line, command) in block.commands() {
            let place = format!("{}:{line}: {command}", block.path);
            let script = command
                .split_whitespace()
                .find(|word| word.starts_with("scripts/"));
            if let Some(script) = script {
                assert!(root().join(script).is_file(), "{place}");
            }
            for arguments in runs_of_expo(&command) {
                seen += 1;
                check(&place, &arguments, &mut pages);
            }
        }
    }
    assert!(seen > 0);
}

/// Checks that a command's flags are in its help and that its config and its `--set` are valid.
fn check(place: &str, arguments: &[String], pages: &mut BTreeMap<String, String>) {
    let Some((subcommand, rest)) = arguments
        .split_first()
        .filter(|(word, _)| !word.starts_with('-'))
    else {
        return;
    };
    let words = |count: usize| arguments[..count].join(" ");
    let name = match subcommand.as_str() {
        "eval" | "data" | "ranks" if rest.first().is_some_and(|word| !word.starts_with('-')) => {
            words(2)
        }
        _ => words(1),
    };
    let page = pages.entry(name.clone()).or_insert_with(|| help(&name));
    for flag in rest.iter().filter(|word| word.starts_with("--")) {
        let flag = flag.split('=').next().unwrap_or_default();
        let known = page
            .split(|c: char| c.is_whitespace() || "[],".contains(c))
            .any(|word| word == flag);
        assert!(known, "{place}: {name} has no {flag}");
    }
    let after = |flag: &str| {
        let pairs = rest.windows(2).filter(|pair| pair[0] == *flag);
        pairs.map(|pair| pair[1].clone()).collect::<Vec<_>>()
    };
    let positional = rest.first().filter(|word| word.ends_with(".toml")).cloned();
    for config in after("--config").into_iter().chain(positional) {
        let path = root().join(&config);
        let sets = after("--set");
        let opened = match subcommand.as_str() {
            // A reader's own file.
            _ if !config.starts_with("configs/") => Ok(()),
            "bandit" => Experiment::open(&path, &sets).map(drop),
            "sample" => SamplingConfig::open(&path, &sets).map(drop),
            "sweep" => SweepConfig::open(&path, &sets).map(drop),
            "sft" => Source::open(&path, &sets)
                .and_then(|source| Config::of_training(&source))
                .map(drop),
            _ => Config::open(&path, &sets).map(drop),
        };
        opened.unwrap_or_else(|e| panic!("{place}: {e}"));
    }
    if subcommand == "bandit" && !rest[0].starts_with("--") && !rest[0].ends_with(".toml") {
        Experiment::built_in(&rest[0], &after("--set")).unwrap_or_else(|e| panic!("{place}: {e}"));
    }
    if subcommand == "loss" {
        let mut loss = Loss::default_of(&rest[0]).unwrap();
        for (key, value) in after("--set").iter().filter_map(|set| set.split_once('=')) {
            loss = loss
                .with(key, value)
                .unwrap_or_else(|e| panic!("{place}: {e}"));
        }
    }
}

/// The programs that a command is made of, besides expo.
const TOOLS: [&str; 8] = ["cat", "cmp", "cp", "echo", "grep", "head", "ls", "tail"];

/// What is added to the commands of a config that takes a minute on an optimized build.
const SHORTER: [(&str, &[&str]); 1] = [(
    "configs/quickstart.toml",
    &[
        "data.train=configs/quickstart/train.jsonl.gz[:40]",
        "data.eval=configs/quickstart/eval.jsonl.gz[:10]",
        "run.num_train_epochs=1",
        "story.num_samples=2",
    ],
)];

/// The command with what makes it shorter.
fn shortened(command: &str) -> String {
    let mut command = command.replace("cargo run --release --", "expo");
    for (config, sets) in SHORTER {
        if command.contains(&format!("train --config {config}")) {
            for set in sets {
                command += &format!(" --set '{set}'");
            }
        }
    }
    command
}

/// As a reader would who types all of it, README first: one directory, no network.
#[test]
fn their_commands_work_in_the_order_in_which_they_stand() {
    let place = tempfile::tempdir().unwrap();
    copy(&root().join("configs"), &place.path().join("configs"));
    let home = place.path().join("home");
    fs::create_dir(&home).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_expo"));
    let path = [
        program.parent().unwrap().as_os_str(),
        std::ffi::OsStr::new("/usr/bin:/bin"),
    ];
    let run = |command: &str| -> Output {
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", &shortened(command)])
            .current_dir(place.path())
            .env("PATH", path.join(std::ffi::OsStr::new(":")))
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .unwrap()
    };
    let mut count = 0;
    for block in blocks("sh").iter().filter(|block| !is_conditional(block)) {
        for (line, command) in block.commands() {
            let first = command.split_whitespace().next().unwrap_or_default();
            if runs_of_expo(&command).is_empty() && !TOOLS.contains(&first) {
                continue;
            }
            count += 1;
            let started = std::time::Instant::now();
            let output = run(&command);
            eprintln!(
                "{:6.1} s  {}:{line}: {command}",
                started.elapsed().as_secs_f64(),
                block.path
            );
            assert!(
                output.status.success(),
                "{}:{line}: {command}\n{}{}",
                block.path,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    assert!(count > 0);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A block of TOML may be a part of a config: the rest is then that of `configs/tiny.toml`.
#[test]
fn their_configs_are_valid() {
    let configs = blocks("toml");
    assert!(!configs.is_empty());
    for block in configs {
        let place = format!("{}:{}", block.path, block.line);
        let part: toml::Table = block
            .text
            .parse()
            .unwrap_or_else(|e| panic!("{place}: {e}"));
        let base = fs::read_to_string(root().join("configs/tiny.toml")).unwrap();
        let mut whole: toml::Table = base.parse().unwrap();
        if part.contains_key("loss") {
            whole.remove("loss");
        }
        merge(&mut whole, part);
        Config::parse(&whole.to_string(), &[])
            .unwrap_or_else(|e| panic!("{place}: {e}\n{}", block.text));
    }
}

fn merge(into: &mut toml::Table, part: toml::Table) {
    for (key, value) in part {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// Paths in code spans and targets of links, from the root of the repository or the page's directory.
#[test]
fn their_paths_and_links_lead_somewhere() {
    const ROOTS: [&str; 6] = [
        "src/", "configs/", "scripts/", "tests/", "benches/", "fuzz/",
    ];
    for document in documents() {
        let directory = root().join(&document.path);
        let directory = directory.parent().unwrap();
        for (line, target) in document.links() {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            if path.starts_with("http") {
                continue;
            }
            let path = match path.is_empty() {
                true => root().join(&document.path),
                false => directory.join(path),
            };
            let place = format!("{}:{line}: {target}", document.path);
            assert!(path.exists(), "{place}");
            if !anchor.is_empty() {
                let anchors = markdown::anchors(&fs::read_to_string(&path).unwrap());
                assert!(
                    anchors.iter().any(|known| known == anchor),
                    "{place}: {anchors:?}"
                );
            }
        }
        for (line, code) in document.code() {
            let is_path = ROOTS.iter().any(|root| code.starts_with(root));
            if is_path && !code.contains([' ', '*', '{']) {
                assert!(
                    root().join(&code).exists(),
                    "{}:{line}: {code}",
                    document.path
                );
            }
        }
    }
}

#[test]
fn every_page_of_the_guide_is_listed_and_begins_with_a_title() {
    let mut files: Vec<String> = fs::read_dir(root().join("src/guide"))
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".md").map(str::to_owned)
        })
        .collect();
    files.sort();
    let mut pages: Vec<&str> = PAGES.iter().map(|page| page.name).collect();
    pages.sort_unstable();
    assert_eq!(files, pages);
    for page in PAGES {
        assert!(page.text.starts_with("# "), "{}", page.name);
    }
}

#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 200);
}
