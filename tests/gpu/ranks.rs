//! Several processes with a GPU each, started as torchrun does, or by MPI: the same bytes as one.
//!
//! Needs several GPUs and NCCL, or the emulated driver, whose one GPU every process has for itself.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use expo::kernels::device::gpus;
use serde_json::Value;

use crate::ranks::training::{PLAIN, RUNS, Scene, assert_same, expo, set, succeeded};
use crate::ranks::{LAUNCHERS, command};

/// Whether so many processes have a GPU each; if not, says so.
fn has_gpus(ranks: usize) -> bool {
    let emulated = std::env::var_os("EXPO_EMULATOR").is_some();
    let there = super::gpu().is_some() && (emulated || gpus().unwrap_or(0) >= ranks);
    if !there {
        eprintln!("skipped: needs {ranks} GPUs");
    }
    there
}

/// A rank as torchrun starts it.
fn rank(rank: usize, size: usize, launch: usize, args: &[String]) -> Command {
    let mut command = expo();
    command
        .args(args)
        .env("RANK", rank.to_string())
        .env("WORLD_SIZE", size.to_string())
        .env("LOCAL_RANK", rank.to_string())
        .env("LOCAL_WORLD_SIZE", size.to_string())
        .env("MASTER_ADDR", "localhost")
        .env("MASTER_PORT", "29500")
        .env("TORCHELASTIC_RUN_ID", format!("test-{launch}"));
    apart(command)
}

/// With outputs of its own, on a core of its own.
fn apart(mut command: Command) -> Command {
    command
        .env("RAYON_NUM_THREADS", "1")
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn next_launch() -> usize {
    static LAUNCHES: AtomicUsize = AtomicUsize::new(0);
    LAUNCHES.fetch_add(1, Relaxed)
}

/// How so many ranks end.
fn launched(size: usize, args: &[String]) -> Vec<Output> {
    let launch = next_launch();
    let ranks = (0..size).map(|at| rank(at, size, launch, args).spawn().unwrap());
    let ranks: Vec<_> = ranks.collect();
    let ends = ranks
        .into_iter()
        .map(|rank| rank.wait_with_output().unwrap());
    ends.collect()
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(ToString::to_string).collect()
}

#[test]
fn a_check_sums_on_gpus_to_the_bits_of_one_process() {
    for ranks in [2, 3] {
        if !has_gpus(ranks) {
            return;
        }
        let args = [
            "ranks",
            "check",
            "--megabytes",
            "1",
            "--rounds",
            "1",
            "--json",
        ];
        let ends = launched(ranks, &words(&args));
        ends.iter().for_each(succeeded);
        let value: Value = serde_json::from_slice(&ends[0].stdout).unwrap();
        assert_eq!(value["ranks"], ranks);
        assert_eq!(value["sums_equal"], true);
        assert_eq!(value["launcher"], "torchrun");
        let library = value["library"].as_str().unwrap();
        assert!(library.starts_with("NCCL 2."), "{library}");
        assert!(value["device"].as_str().unwrap().starts_with("cuda:"));
        assert!(ends[1..].iter().all(|end| end.stdout.is_empty()));
    }
}

#[test]
fn a_run_has_the_same_bytes_on_any_number_of_gpus() {
    let split =
        "[loss.dpo]\n[optimizer]\noptim = \"adamw\"\nlearning_rate = 1e-3\nstates = \"split\"\n";
    // Emulated kernels are slow: four processes for two of the runs.
    for ((sections, overrides), most) in [
        (RUNS[0], 4),
        (RUNS[1], 2),
        (RUNS[4], 2),
        (RUNS[7], 2),
        ((split, &["model.dtype=bf16"][..]), 4),
    ] {
        let scene = Scene::new(sections);
        let more = set(overrides);
        scene.alone("alone", &more);
        for ranks in [2, 4].into_iter().filter(|ranks| *ranks <= most) {
            if !has_gpus(ranks) {
                return;
            }
            let out = format!("on-{ranks}");
            let cache = scene.out(&format!("cache-{ranks}"));
            let cache = format!("run.cache_dir={}", cache.display());
            let more = [&more[..], &["--set", &cache]].concat();
            launched(ranks, &scene.args(&out, &more))
                .iter()
                .for_each(succeeded);
            let what = format!("{ranks} GPUs, {sections}");
            assert_same(&scene.out("alone"), &scene.out(&out), &what);
        }
    }
}

#[test]
fn mpi_connects_the_processes_and_nccl_their_gpus() {
    if !has_gpus(2) {
        return;
    }
    let scene = Scene::new(PLAIN);
    scene.alone("alone", &[]);
    let args = scene.args("on-2", &[]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some(mut command) = command(LAUNCHERS[0], 2, &args) else {
        return;
    };
    succeeded(&command.output().unwrap());
    assert_same(&scene.out("alone"), &scene.out("on-2"), "2 GPUs by MPI");
}

/// One process that starts the others, as users without a launcher do.
fn on_two(scene: &Scene, out: &str, more: &[&str]) -> Command {
    let more = [&["--set", "model.device=cuda:0-1"], more].concat();
    let mut command = expo();
    command
        .args(scene.args(out, &more))
        .env("EXPO_EMULATOR_GPUS", "2");
    apart(command)
}

#[test]
fn one_command_starts_a_process_for_each_gpu() {
    if !has_gpus(2) {
        return;
    }
    let scene = Scene::new(PLAIN);
    scene.alone("alone", &[]);
    let output = on_two(&scene, "on-2", &[]).output().unwrap();
    succeeded(&output);
    assert_same(&scene.out("alone"), &scene.out("on-2"), "cuda:0-1");
    let check = [
        "ranks",
        "check",
        "--megabytes",
        "1",
        "--rounds",
        "1",
        "--json",
        "--device",
    ];
    let output = expo()
        .args(check)
        .arg("cuda:0-1")
        .env("EXPO_EMULATOR_GPUS", "2")
        .output()
        .unwrap();
    succeeded(&output);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&value["ranks"], &value["sums_equal"]),
        (&2.into(), &true.into())
    );
    // What one of them meets is the end of all.
    let mut wrong = on_two(&scene, "wrong", &["--set", "batch.lanes=3"]);
    let output = wrong.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("2 ranks cannot share 3 lanes"), "{said}");
    let refused = |device: &str, args: &[&str], words: &str| {
        let output = expo().args(args).arg(device).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    };
    let args = scene.args("wrong", &["--set"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    refused("model.device=cuda:0-77", &args, "GPUs that are not there");
    let sample = ["sample", "--model", "x", "--prompt", "a", "--device"];
    refused("cuda:0-1", &sample, "a command that computes on one");
}

/// A signal at the first process stops all, with everything saved.
#[cfg(unix)]
#[test]
fn a_signal_reaches_the_process_of_each_gpu() {
    if !has_gpus(2) {
        return;
    }
    let scene = Scene::new(PLAIN);
    let more = [
        "--set",
        "run.max_steps=1000000",
        "--set",
        "run.save_steps=1000000",
    ];
    let first = on_two(&scene, "out", &more).spawn().unwrap();
    let started = Instant::now();
    while !scene.out("out").join("metrics.jsonl").exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "no step");
        std::thread::sleep(Duration::from_millis(50));
    }
    crate::ranks::signal(first.id(), "TERM");
    let end = first.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&end.stderr);
    assert_eq!(end.status.code(), Some(143), "{said}");
    assert!(said.contains("interrupted after step"), "{said}");
    assert!(scene.out("out").join("LATEST").exists(), "{said}");
}

#[test]
fn a_gpu_that_is_named_is_refused_to_several_ranks() {
    if !has_gpus(2) {
        return;
    }
    let scene = Scene::new(PLAIN);
    let args = scene.args("out", &["--set", "model.device=cuda:0"]);
    let ends = launched(2, &args);
    let said = String::from_utf8_lossy(&ends[0].stderr);
    assert_eq!(ends[0].status.code(), Some(2), "{said}");
    assert!(said.contains("each rank takes a GPU of its own"), "{said}");
}

#[test]
fn ranks_end_when_one_of_them_is_gone() {
    if !has_gpus(2) {
        return;
    }
    let scene = Scene::new(PLAIN);
    let more = set(&[
        "distributed.timeout=5",
        "run.max_steps=1000000",
        "run.save_steps=1000000",
    ]);
    let (args, launch) = (scene.args("out", &more), next_launch());
    let mut ranks: Vec<_> = (0..2)
        .map(|at| rank(at, 2, launch, &args).spawn().unwrap())
        .collect();
    let started = Instant::now();
    let log = scene.out("out").join("metrics.jsonl");
    while !log.exists() {
        let ended = ranks[0].try_wait().unwrap();
        let late = started.elapsed() > Duration::from_secs(120);
        assert!(ended.is_none() && !late, "no step: {ended:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut second = ranks.pop().unwrap();
    second.kill().unwrap();
    second.wait().unwrap();
    let end = ranks.pop().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&end.stderr);
    assert_eq!(end.status.code(), Some(75), "{said}");
    assert!(
        said.contains("not all other ranks have come in 5 seconds"),
        "{said}"
    );
}
