//! Runs on several ranks: the same bytes on any number of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

use super::{LAUNCHERS, command, launched, processes, signal};
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
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new(sections: &str) -> Self {
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

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args(&self, out: &str, more: &[&str]) -> Vec<String> {
        let config = self.folder.path().join("run.toml").display().to_string();
        let out = format!("run.output_dir={}", self.out(out).display());
        let mut args = vec!["train".to_owned(), config, "--set".to_owned(), out];
        args.extend(more.iter().map(ToString::to_string));
        args
    }

    /// Runs it in one process.
    fn alone(&self, out: &str, more: &[&str]) {
        let output = expo().args(self.args(out, more)).output().unwrap();
        succeeded(&output);
    }
}

/// As [`launched`].
fn on(launcher: &str, ranks: usize, args: &[String]) -> Option<Output> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    launched(launcher, ranks, &args)
}

fn expo() -> Command {
    Command::new(env!("CARGO_BIN_EXE_expo"))
}

fn succeeded(output: &Output) {
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

fn assert_same(one: &Path, other: &Path, what: &str) {
    let (one, other) = (files(one), files(other));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other), "{what}");
    for (name, bytes) in &one {
        assert!(other[name] == *bytes, "{what}: {name} differs");
    }
}

/// Runs of every kind of loss and with every optimizer, with overrides: batch statistics, samples, a sum, on-policy
/// draws, a reference that moves, an adapter.
const RUNS: [(&str, &[&str]); 9] = [
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
const STEADY: &str = RUNS[8].0;

/// DPO by AdamW.
const PLAIN: &str = RUNS[0].0;

/// The overrides of a run as arguments.
fn set<'a>(overrides: &[&'a str]) -> Vec<&'a str> {
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

/// Every rank has to learn of what one of them meets: in its lanes, in what it draws, in what it scores.
#[test]
fn a_step_that_is_not_finite_is_recorded_alike() {
    let rate = "[optimizer]\noptim = \"adam\"\nlearning_rate = 1e12\nmax_grad_norm = 0.0\n";
    for loss in [
        "[loss.ipo]\n",
        "[loss.cexpo]\nunsupervised = \"reverse_kl\"\n[sample]\nmax_new_tokens = 8\nnum_samples = 2\n",
        "[loss.dpo]\n[reference]\nupdate = \"hard\"\nsteps = 1\n",
    ] {
        let scene = Scene::new(&format!("max_non_finite_steps = 9\n{loss}{rate}"));
        // Fewer rows than ranks: some have nothing to compute.
        let more = ["--set", "batch.batch_size=3"];
        let alone = expo().args(scene.args("alone", &more)).output().unwrap();
        for ranks in [2, 4] {
            let out = format!("on-{ranks}");
            let Some(output) = on(LAUNCHERS[0], ranks, &scene.args(&out, &more)) else {
                return;
            };
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), alone.status.code(), "{loss}: {said}");
            let steps = |out: &str| -> Vec<u64> {
                let text = fs::read_to_string(scene.out(out).join("non_finite.jsonl")).unwrap();
                let step = |line: &str| {
                    serde_json::from_str::<Value>(line).unwrap()["step"]
                        .as_u64()
                        .unwrap()
                };
                text.lines().map(step).collect()
            };
            assert_eq!(steps("alone"), steps(&out), "{loss}");
        }
    }
}

#[test]
fn a_sweep_goes_on_after_a_run_that_is_not_finite() {
    let scene = Scene::new("");
    let config = scene.folder.path().join("run.toml");
    let sweep = "[[sweep]]\nloss = \"ipo\"\noptimizer.learning_rate = [1e30, 1e-3]\n";
    let text = fs::read_to_string(&config).unwrap() + sweep;
    fs::write(&config, text).unwrap();
    let args = |out: &str| {
        let mut args = scene.args(out, &["--json"]);
        args[0] = "sweep".to_owned();
        args
    };
    let alone = expo().args(args("alone")).output().unwrap();
    assert_eq!(alone.status.code(), Some(3));
    for _ in 0..2 {
        // The second time everything is there.
        let Some(output) = on(LAUNCHERS[0], 2, &args("on-2")) else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
    }
    let read = |out: &str| fs::read(scene.out(out).join("sweep.json")).unwrap();
    assert!(read("alone") == read("on-2"));
}

#[test]
fn saves_that_fail_end_all_ranks_as_they_end_one_process() {
    let scene = Scene::new(PLAIN);
    let more = ["--set", "run.save_steps=1"];
    let Some(command) = command(LAUNCHERS[0], 2, &[]) else {
        return;
    };
    // In blocks of 512 bytes: less than any file of tensors. Not for the launcher, and without shared memory,
    // whose segments are files, too.
    let limited = ["sh", "-c", "ulimit -f 64; exec \"$@\"", "sh"];
    let mut words = command.get_args().map(|word| word.to_str().unwrap());
    let mut limited_command = Command::new(command.get_program());
    let launch: Vec<&str> = words.by_ref().take_while(|word| *word != "-n").collect();
    limited_command
        .args(launch)
        .args(["--mca", "btl", "self,tcp", "-n", words.next().unwrap()])
        .args(limited)
        .args(words)
        .args(scene.args("out", &more));
    for (name, value) in command.get_envs() {
        limited_command.env(name, value.unwrap_or_default());
    }
    let output = limited_command
        .env_remove("EXPO_MPI_LIBRARY")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("step 1 is not saved"), "{said}");
    assert!(
        said.contains("step 3 is not saved, nor were the 2 before it"),
        "{said}"
    );
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

/// The ranks of a run that is under way, after its first checkpoint.
fn under_way(scene: &Scene, out: &str, ranks: usize) -> Option<(Child, Vec<i32>)> {
    let long = ["--set", "run.max_steps=400", "--set", "run.save_steps=1"];
    let more = [&long[..], &["--set", "run.save_total_limit=2"]].concat();
    let args = scene.args(out, &more);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = command(LAUNCHERS[0], ranks, &args)?.spawn().unwrap();
    let latest = scene.out(out).join("LATEST");
    crate::support::wait_until("there is a checkpoint", || latest.exists());
    let mark = format!("run.output_dir={}", scene.out(out).display());
    let of_run = processes(|words| {
        let is_expo = words.first().is_some_and(|word| word.ends_with("/expo"));
        is_expo && words.contains(&mark)
    });
    assert_eq!(of_run.len(), ranks);
    Some((child, of_run))
}

/// Resumes the run to its end in one process, and holds it against one that was never interrupted.
fn resumes_to_the_same(scene: &Scene, out: &str) {
    let steps = fs::read_to_string(scene.out(out).join("LATEST")).unwrap();
    let step: u64 = steps.trim().rsplit('-').next().unwrap().parse().unwrap();
    let steps = format!("run.max_steps={}", step + 2);
    let more = [
        "--set",
        &steps,
        "--set",
        "run.save_steps=1",
        "--set",
        "run.save_total_limit=2",
    ];
    let allow = [&more[..], &["--allow-change", "run.max_steps"]].concat();
    scene.alone(out, &allow);
    let whole = format!("whole-{out}");
    scene.alone(&whole, &more);
    let model = |out: &str| fs::read(scene.out(out).join("model.safetensors")).unwrap();
    assert!(model(out) == model(&whole), "after step {step}");
}

#[test]
fn a_signal_at_one_rank_ends_all_after_the_step() {
    let scene = Scene::new(STEADY);
    let Some((child, ranks)) = under_way(&scene, "out", 2) else {
        return;
    };
    signal(ranks[1], "TERM");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{said}");
    assert!(said.contains("saved in"), "{said}");
    resumes_to_the_same(&scene, "out");
}

#[test]
fn the_launcher_passes_a_signal_on() {
    let scene = Scene::new(STEADY);
    let Some((child, _)) = under_way(&scene, "out", 2) else {
        return;
    };
    signal(child.id() as i32, "TERM");
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    // It gives its ranks a moment, in which a step may end; if not, the latest checkpoint is there.
    resumes_to_the_same(&scene, "out");
}

#[test]
fn a_killed_rank_ends_all_and_the_run_resumes() {
    let scene = Scene::new(STEADY);
    for victim in [0, 1] {
        let out = format!("out-{victim}");
        let Some((child, ranks)) = under_way(&scene, &out, 2) else {
            return;
        };
        signal(ranks[victim], "KILL");
        assert!(!child.wait_with_output().unwrap().status.success());
        crate::support::wait_until("every rank has ended", || {
            let left = processes(|words| words.iter().any(|word| word.ends_with(&out)));
            left.is_empty()
        });
        resumes_to_the_same(&scene, &out);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
