//! What goes wrong on one rank: all learn of it, nothing is lost, and the run resumes.

use std::fs;
use std::process::{Child, Command};

use serde_json::Value;

use super::training::{PLAIN, STEADY, Scene, expo, on};
use super::{LAUNCHERS, command, processes, signal};

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
