//! Runs on several ranks: the same bytes on any number of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use tempfile::TempDir;

use super::{LAUNCHERS, launched};
use crate::support::fixture;

/// What depends on time or place.
const APART: [&str; 5] = [
    "timings.jsonl",
    "summary.json",
    "run.lock",
    "config.toml",
    "MANIFEST.json",
];

/// A directory with a config of a small run of these sections, whose output goes to `out` below it.
pub struct Scene {
    pub folder: TempDir,
}

impl Scene {
    pub fn new(sections: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (model, rows) = (fixture("llama"), fixture("pairs.jsonl"));
        let cache = folder.path().join("cache");
        let rows = rows.display();
        let text = format!(
            "[model]\nmodel_name_or_path = {model:?}\ndtype = \"f32\"\n\
             [data]\nformat = \"pairs\"\ntrain = \"{rows}[:16]\"\neval = \"{rows}[16:]\"\n\
             max_length = 96\nmax_prompt_length = 48\n\
             [batch]\nbatch_size = 6\nmicro_batch_tokens = 200\nlanes = 4\n\
             [run]\noutput_dir = \"unset\"\ncache_dir = {cache:?}\nmax_steps = 4\nsave_steps = 2\n\
             eval_steps = 2\neval_prompts = 2\neval_max_new_tokens = 8\n{sections}"
        );
        fs::write(folder.path().join("run.toml"), text).unwrap();
        Self { folder }
    }

    pub fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn args(&self, out: &str, more: &[&str]) -> Vec<String> {
        let config = self.folder.path().join("run.toml").display().to_string();
        let out = format!("run.output_dir={}", self.out(out).display());
        let mut args = vec!["train".to_owned(), config, "--set".to_owned(), out];
        args.extend(more.iter().map(ToString::to_string));
        args
    }

    /// Runs it in one process.
    pub fn alone(&self, out: &str, more: &[&str]) {
        let output = expo().args(self.args(out, more)).output().unwrap();
        succeeded(&output);
    }
}

/// As [`launched`].
pub fn on(launcher: &str, ranks: usize, args: &[String]) -> Option<Output> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    launched(launcher, ranks, &args)
}

pub fn expo() -> Command {
    Command::new(env!("CARGO_BIN_EXE_expo"))
}

pub fn succeeded(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The tensors of `training_state*.safetensors`: a file for each rank has those of its piece.
fn state(folder: &Path, prefix: &str, all: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if is_state(&path) {
            let bytes = fs::read(path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                let tensor = format!("{:?} {:?} {:?}", view.dtype(), view.shape(), view.data());
                let known = all.insert(format!("{prefix}state {name}"), tensor.into_bytes());
                assert!(known.is_none(), "{name} twice");
            }
        }
    }
}

fn is_state(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.starts_with("training_state") && name.ends_with(".safetensors")
}

/// The files of a run, without those that depend on time or place, by their names below `folder`.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn collect(folder: &Path, prefix: &str, all: &mut BTreeMap<String, Vec<u8>>) {
        state(folder, prefix, all);
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let below = format!("{prefix}{name}");
            match entry.path().is_dir() {
                true => collect(&entry.path(), &format!("{below}/"), all),
                false if APART.contains(&&*name) || is_state(&entry.path()) => {}
                false => {
                    all.insert(below, fs::read(entry.path()).unwrap());
                }
            }
        }
    }
    let mut all = BTreeMap::new();
    collect(folder, "", &mut all);
    assert!(all.contains_key("model.safetensors") || all.contains_key("adapter_model.safetensors"));
    all
}

pub fn assert_same(one: &Path, other: &Path, what: &str) {
    let (one, other) = (files(one), files(other));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other), "{what}");
    for (name, bytes) in &one {
        assert!(other[name] == *bytes, "{what}: {name} differs");
    }
}

/// Runs of every kind of loss and with every optimizer, with overrides: batch statistics, samples, a sum, on-policy
/// draws, a reference that moves, an adapter.
pub const RUNS: [(&str, &[&str]); 9] = [
    (
        "[loss.dpo]\n[optimizer]\noptim = \"adamw\"\nlearning_rate = 1e-3\n",
        &[],
    ),
    (
        "[loss.kto]\n[optimizer]\noptim = \"adamw_8bit\"\nlearning_rate = 1e-3\n",
        &["model.dtype=bf16"],
    ),
    (
        "[loss.aot]\n[optimizer]\noptim = \"lion\"\nlearning_rate = 1e-4\n",
        &["model.save_dtype=bf16"],
    ),
    (
        "[loss.rexpo]\n[optimizer]\noptim = \"muon\"\nlearning_rate = 1e-3\n",
        &["model.dtype=bf16"],
    ),
    (
        "[loss.cexpo]\n[sample]\nmax_new_tokens = 8\n[optimizer]\nlearning_rate = 1e-3\n",
        &["data.samples=auto"],
    ),
    (
        "[loss.cexpo]\nunsupervised = \"reverse_kl\"\n[sample]\nmax_new_tokens = 8\nnum_samples = 2\n\
         [optimizer]\noptim = \"rmsprop\"\nlearning_rate = 1e-3\n",
        &[],
    ),
    (
        "[loss.dpo]\nweight = 1.0\n[loss.sft]\nweight = 0.1\n\
         [reference]\nupdate = \"soft\"\nsteps = 2\n[optimizer]\noptim = \"adam\"\nlearning_rate = 1e-3\n",
        &[],
    ),
    (
        "[loss.simpo]\n[adapter]\nr = 4\ndropout = 0.1\n[optimizer]\nlearning_rate = 1e-2\n",
        &["model.dtype=bf16"],
    ),
    (
        "[loss.ipo]\n[optimizer]\nlearning_rate = 1e-3\nmax_grad_norm = 0.0\n\
         [schedule]\nlr_scheduler_type = \"constant\"\n",
        // One tensor is trained, so that all ranks but one have nothing to update.
        &["model.trainable=model.norm.weight"],
    ),
];

/// Without a schedule, which the number of steps would change.
pub const STEADY: &str = RUNS[8].0;

/// DPO by AdamW.
pub const PLAIN: &str = RUNS[0].0;

/// The overrides of a run as arguments.
pub fn set<'a>(overrides: &[&'a str]) -> Vec<&'a str> {
    overrides.iter().flat_map(|it| ["--set", it]).collect()
}

#[test]
fn a_run_has_the_same_bytes_on_any_number_of_ranks() {
    // What computes does not depend on the library that moves its bytes.
    for (launcher, runs) in [(LAUNCHERS[0], &RUNS[..]), (LAUNCHERS[1], &RUNS[..1])] {
        for (sections, overrides) in runs {
            let scene = Scene::new(sections);
            let more = set(overrides);
            scene.alone("alone", &more);
            for ranks in [2, 4] {
                let out = format!("on-{ranks}");
                // Each draws and scores anew.
                let cache = format!(
                    "run.cache_dir={}",
                    scene.out(&format!("cache-{ranks}")).display()
                );
                let more = [&more[..], &["--set", &cache]].concat();
                let Some(output) = on(launcher, ranks, &scene.args(&out, &more)) else {
                    break;
                };
                succeeded(&output);
                let what = format!("{ranks} ranks, {sections}");
                assert_same(&scene.out("alone"), &scene.out(&out), &what);
            }
        }
    }
}

#[test]
fn moments_and_a_moved_reference_are_gone_on_with_by_another_number_of_ranks() {
    for (sections, overrides) in [RUNS[1], RUNS[3], RUNS[6]] {
        let scene = Scene::new(sections);
        let more = set(overrides);
        scene.alone("whole", &more);
        let Some(output) = on(LAUNCHERS[0], 2, &scene.args("moved", &more)) else {
            return;
        };
        succeeded(&output);
        let from = scene
            .out("moved")
            .join("checkpoint-2")
            .display()
            .to_string();
        let more = [&more[..], &["--resume", &from]].concat();
        succeeded(&on(LAUNCHERS[0], 4, &scene.args("moved", &more)).unwrap());
        assert_same(&scene.out("whole"), &scene.out("moved"), sections);
    }
}

#[test]
fn a_run_resumes_on_another_number_of_ranks() {
    let scene = Scene::new(PLAIN);
    scene.alone("whole", &[]);
    let launcher = LAUNCHERS[0];
    let Some(output) = on(launcher, 4, &scene.args("moved", &[])) else {
        return;
    };
    succeeded(&output);
    let from = scene
        .out("moved")
        .join("checkpoint-2")
        .display()
        .to_string();
    // It has its lanes from the run, not from the number of ranks.
    let config = scene.folder.path().join("run.toml");
    let text = fs::read_to_string(&config)
        .unwrap()
        .replace("lanes = 4\n", "");
    fs::write(&config, text).unwrap();
    let args = scene.args("moved", &["--resume", &from]);
    succeeded(&on(launcher, 2, &args).unwrap());
    assert_same(&scene.out("whole"), &scene.out("moved"), "2 ranks after 4");
    scene.alone("moved", &["--resume", &from]);
    assert_same(
        &scene.out("whole"),
        &scene.out("moved"),
        "one process after 4 ranks",
    );
}

#[test]
fn ranks_that_do_not_fit_the_lanes_are_refused_once() {
    let scene = Scene::new(PLAIN);
    let Some(output) = on(LAUNCHERS[0], 3, &scene.args("out", &[])) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let lines = said
        .lines()
        .filter(|line| line.contains("cannot share 4 lanes"));
    assert_eq!(lines.count(), 1, "{said}");
    assert!(said.contains("start one of 1, 2, 4 ranks"), "{said}");
    assert!(!scene.out("out").exists());
}

#[test]
fn scores_are_the_same_file_on_any_number_of_ranks() {
    let scene = Scene::new(PLAIN);
    let (model, rows) = (fixture("llama"), fixture("pairs.jsonl"));
    let args = |out: &str| -> Vec<String> {
        let out = scene.out(out);
        let words = [
            "score",
            "--model",
            path(&model),
            "--data",
            path(&rows),
            "--out",
            path(&out),
        ];
        let more = ["--micro-batch-tokens", "150"];
        words.iter().chain(&more).map(ToString::to_string).collect()
    };
    succeeded(&expo().args(args("alone.jsonl")).output().unwrap());
    let Some(output) = on(LAUNCHERS[0], 4, &args("on-4.jsonl")) else {
        return;
    };
    succeeded(&output);
    let read = |out: &str| fs::read(scene.out(out)).unwrap();
    assert!(read("alone.jsonl") == read("on-4.jsonl"));
}

#[test]
fn a_command_that_is_one_process_refuses_to_be_several() {
    let model = fixture("llama");
    let words = ["sample", "--model", path(&model), "--prompt", "a"];
    let args: Vec<String> = words.iter().map(ToString::to_string).collect();
    let Some(output) = on(LAUNCHERS[0], 2, &args) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("2 ranks of a command that is one process"),
        "{said}"
    );
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
