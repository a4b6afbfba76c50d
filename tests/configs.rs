//! The files under configs/: each is valid, the reference is complete, the tiny model is fresh.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use expo::checkpoint::{SaveDtype, save};
use expo::config::{
    BatchConfig, Config, DistributedConfig, ModelConfig, PreferenceData, ReferenceConfig,
    RunConfig, SamplingConfig, SweepConfig,
};
use expo::lab::bandit::Experiment;
use expo::lab::story::StoryConfig;
use expo::loss::{Loss, Objective, WeightedLoss};
use expo::model::arch::ConfigJson;
use expo::model::family::family;
use expo::model::init::fresh;
use expo::model::peft::AdapterConfig;
use expo::model::sampling::SampleConfig;
use expo::optim::{OptimizerConfig, ScheduleConfig};
use serde::de::DeserializeOwned;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The only file that is no run; `tests/story.rs` reads it.
const GRAMMAR: &str = "quickstart/grammar.toml";

fn toml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(toml_files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "toml")
            && !path.ends_with(GRAMMAR)
        {
            files.push(path);
        }
    }
    files
}

fn is_sweep(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    name.starts_with("sweep_") || name.ends_with("_sweep")
}

#[test]
fn every_file_is_valid_and_so_is_what_it_resolves_to() {
    let files = toml_files(&root().join("configs"));
    assert!(!files.is_empty());
    let (bandit, files): (Vec<_>, Vec<_>) = files.into_iter().partition(|path| {
        path.parent()
            .is_some_and(|folder| folder.ends_with("bandit"))
    });
    assert_eq!(bandit.len(), Experiment::names().len());
    for path in bandit {
        let config = Experiment::open(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        let name = path.file_stem().unwrap().to_string_lossy();
        assert_eq!(config, Experiment::built_in(&name, &[]).unwrap());
        let text = config.to_toml().unwrap();
        let again = Experiment::parse(&text, &[]);
        assert_eq!(
            config,
            again.unwrap_or_else(|error| panic!("{error}\n{text}"))
        );
    }
    let starts = |path: &PathBuf, start: &str| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(start)
    };
    let (sampling, others): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|path| starts(path, "sample_"));
    let (sweeps, training): (Vec<_>, Vec<_>) = others.into_iter().partition(|path| is_sweep(path));
    for path in sweeps {
        let sweep = SweepConfig::open(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert!(sweep.runs.len() > 1, "{}", path.display());
    }
    for path in sampling {
        let config = SamplingConfig::open(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        let text = config.to_toml().unwrap();
        let again = SamplingConfig::parse(&text, &[]);
        assert_eq!(
            config,
            again.unwrap_or_else(|error| panic!("{error}\n{text}"))
        );
    }
    for path in training {
        let config = Config::open(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        let text = config.to_toml().unwrap();
        let again = Config::parse(&text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(config, again, "{}", path.display());
        assert_eq!(again.to_toml().unwrap(), text, "{}", path.display());
    }
}

#[test]
fn every_loss_has_its_config_with_its_defaults() {
    for name in Loss::NAMES {
        let loss = Loss::default_of(name).unwrap();
        let config = Config::open(&root().join(loss.about().config), &[]);
        assert_eq!(
            config
                .unwrap_or_else(|error| panic!("{error}"))
                .loss
                .single(),
            Some(&loss)
        );
    }
}

#[test]
fn every_loss_of_the_papers_has_a_config_for_hh() {
    let files = toml_files(&root().join("configs"));
    let hh = files.iter().filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("hh_") && !is_sweep(path) && !path.parent().unwrap().ends_with("laptop")
    });
    // The papers train all weights.
    let whole = hh
        .map(|path| Config::open(path, &[]).unwrap())
        .filter(|config| config.adapter.is_none());
    let mut losses: Vec<_> = whole
        .map(|config| config.loss.single().unwrap().clone())
        .collect();
    losses.sort_by_key(|loss| Loss::NAMES.iter().position(|name| *name == loss.name()));
    // The papers' knobs for HH are the defaults.
    let papers = [
        "cexpo", "rexpo", "dpo", "ipo", "fdpo", "simpo", "kto", "sft",
    ];
    let defaults: Vec<_> = papers
        .iter()
        .map(|name| Loss::default_of(name).unwrap())
        .collect();
    assert_eq!(losses, defaults);
}

#[test]
fn tiny_takes_every_loss_that_needs_no_samples() {
    let path = root().join("configs/tiny.toml");
    for name in Loss::NAMES {
        let config = Config::open(&path, &[format!("loss={name}")]);
        assert_eq!(config.is_ok(), *name != "cexpo", "{name}");
    }
}

/// A section of the reference file: its name, whether it is active, and its lines without the
/// comment sign in front where it is not.
struct Section {
    name: String,
    active: bool,
    lines: Vec<String>,
}

fn reference() -> (String, Vec<Section>) {
    let text = fs::read_to_string(root().join("configs/reference.toml")).unwrap();
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = bare.strip_prefix('[').and_then(|b| b.strip_suffix(']')) {
            sections.push(Section {
                name: name.to_owned(),
                active: bare == line,
                lines: Vec::new(),
            });
        } else if let Some(section) = sections.last_mut().filter(|_| !line.is_empty()) {
            let line = if section.active { line } else { bare };
            section.lines.push(line.to_owned());
        }
    }
    (text, sections)
}

impl Section {
    /// The text of the keys that are set.
    fn set(&self) -> String {
        let set = self.lines.iter().filter(|line| !line.starts_with('#'));
        set.map(|line| format!("{line}\n")).collect()
    }

    /// The keys that are commented out, with their examples.
    fn examples(&self) -> Vec<&str> {
        let lines = self.lines.iter().filter_map(|line| line.strip_prefix("# "));
        lines.filter(|line| key(line).is_some()).collect()
    }

    fn keys(&self) -> BTreeSet<String> {
        let set = self.lines.iter().filter_map(|line| key(line));
        let examples = self.examples();
        set.chain(examples.into_iter().filter_map(key)).collect()
    }
}

fn key(line: &str) -> Option<String> {
    let (key, _) = line.split_once(" = ")?;
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    key.chars().all(word).then(|| key.to_owned())
}

/// The keys that a type reads, from its own complaint about one it does not.
fn keys_of<T: DeserializeOwned>(text: &str) -> BTreeSet<String> {
    let error = toml::from_str::<T>(text).err().expect("an unknown key");
    let quoted = error.message().split('`').skip(1).step_by(2);
    let keys = quoted.skip(1).map(str::to_owned).collect::<BTreeSet<_>>();
    assert!(!keys.is_empty(), "{error}");
    keys
}

fn complete<T: DeserializeOwned>(section: &Section) {
    assert_eq!(
        section.keys(),
        keys_of::<T>("no_such_key = 1"),
        "[{}]",
        section.name
    );
    for example in section.examples() {
        let text = section.set() + example;
        if let Err(error) = toml::from_str::<T>(&text) {
            panic!("[{}] {example}: {error}", section.name);
        }
    }
}

#[test]
fn the_reference_has_every_key() {
    let (_, sections) = reference();
    let mut losses = BTreeSet::new();
    for section in &sections {
        match section.name.as_str() {
            "model" => complete::<ModelConfig>(section),
            "adapter" => complete::<AdapterConfig>(section),
            "data" => complete::<PreferenceData>(section),
            "reference" => complete::<ReferenceConfig>(section),
            "sample" => complete::<SampleConfig>(section),
            "batch" => complete::<BatchConfig>(section),
            "optimizer" => complete::<OptimizerConfig>(section),
            "schedule" => complete::<ScheduleConfig>(section),
            "story" => complete::<StoryConfig>(section),
            "run" => complete::<RunConfig>(section),
            "distributed" => complete::<DistributedConfig>(section),
            other => {
                let name = other.strip_prefix("loss.").expect(other);
                // The weight is for sums and stands above them all.
                let mut known = keys_of::<WeightedLoss>(&format!("[{name}]\nno_such_key = 1"));
                assert!(known.remove("weight"));
                assert_eq!(section.keys(), known, "[{other}]");
                losses.insert(name.to_owned());
            }
        }
    }
    assert_eq!(losses.len(), Loss::NAMES.len());
    assert_eq!(sections.len(), 11 + losses.len());
}

#[test]
fn the_reference_has_every_default() {
    let (text, sections) = reference();
    let config = Config::parse(&text, &[]).unwrap();
    let required = r#"
        [model]
        model_name_or_path = "EleutherAI/pythia-2.8b"
        [data]
        format = "hh"
        train = "data/hh/train.jsonl.gz"
        [loss.rexpo]
        [run]
        output_dir = "runs/reference"
    "#;
    assert_eq!(config, Config::parse(required, &[]).unwrap());
    for section in &sections {
        if section.name == "reference" {
            let reference: ReferenceConfig = toml::from_str(&section.set()).unwrap();
            assert_eq!(reference, ReferenceConfig::default());
        }
        if section.name == "adapter" {
            let adapter: AdapterConfig = toml::from_str(&section.set()).unwrap();
            assert_eq!(adapter.completed(), AdapterConfig::default().completed());
        }
        if section.name == "sample" {
            let sample: SampleConfig = toml::from_str(&section.set()).unwrap();
            assert_eq!(sample, SampleConfig::default());
        }
        if section.name == "story" {
            let story: StoryConfig = toml::from_str(&section.set()).unwrap();
            let required = &section.set().lines().take(2).collect::<Vec<_>>().join("\n");
            assert_eq!(story, toml::from_str(required).unwrap());
        }
        if let Some(name) = section.name.strip_prefix("loss.") {
            let text = format!("[{name}]\n{}", section.set());
            let loss: WeightedLoss = toml::from_str(&text).unwrap();
            assert_eq!(loss, Loss::default_of(name).unwrap().into());
        }
    }
}

#[test]
fn the_tiny_model_is_what_init_makes_with_seed_0() {
    let source = root().join("configs/tiny/model");
    let config = ConfigJson::open(&source.join("config.json")).unwrap();
    let arch = (family(&config).unwrap().architecture)(&config).unwrap();
    let model = fresh(arch, 0, &Device::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("model");
    let files = expo::io::model_dir::ModelFiles::open(&source).unwrap();
    save(&model, &files, &made, SaveDtype::F32).unwrap();
    let bytes = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(bytes(&source) == bytes(&made));
}

#[test]
fn the_tiny_evaluation_asks_what_training_did_not() {
    let prompts = |name: &str| -> BTreeSet<String> {
        let path = root().join("configs/tiny").join(name);
        let text = fs::read_to_string(path).unwrap();
        let prompt = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            row["prompt"].as_str().unwrap().to_owned()
        };
        text.lines().map(prompt).collect()
    };
    let (train, eval) = (prompts("train.jsonl"), prompts("eval.jsonl"));
    assert!(!eval.is_empty() && train.is_disjoint(&eval));
}
