//! Several processes under the launchers of MPI that this machine has.

mod failures;
pub mod training;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use expo::ranks::{Ranks, agree, environment, open};
use serde_json::Value;

/// mpirun of Open MPI and mpiexec of MPICH, by the names that distributions give them.
pub const LAUNCHERS: [&str; 2] = ["mpirun.openmpi", "mpiexec.mpich"];

/// Longer than any of these runs takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The command of so many ranks of expo under a launcher; `None`, said on stdout, where the launcher is not
/// installed.
pub fn command(launcher: &str, ranks: usize, args: &[&str]) -> Option<Command> {
    command_of(launcher, ranks, Path::new(env!("CARGO_BIN_EXE_expo")), args)
}

fn command_of(launcher: &str, ranks: usize, program: &Path, args: &[&str]) -> Option<Command> {
    let found = Command::new(launcher).arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("skipped: {launcher} is not installed");
        return None;
    }
    let mut command = Command::new(launcher);
    if launcher.contains("openmpi") {
        command.arg("--oversubscribe");
    }
    command
        .args(["-n", &ranks.to_string()])
        .arg(program)
        .args(args)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("RAYON_NUM_THREADS", "1")
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("EXPO_MPI_LIBRARY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Some(command)
}

/// How so many ranks of expo end under a launcher; `None` where it is not installed.
pub fn launched(launcher: &str, ranks: usize, args: &[&str]) -> Option<Output> {
    Some(command(launcher, ranks, args)?.output().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn ranks_find_each_other_and_sum_to_the_bits_of_one_process() {
    for launcher in LAUNCHERS {
        for ranks in [1, 2, 4] {
            let args = ["ranks", "check", "--megabytes", "3", "--rounds", "2"];
            let Some(output) = launched(launcher, ranks, &args) else {
                continue;
            };
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(0), "{launcher}, {ranks}: {err}");
            let lines: Vec<&str> = out.lines().collect();
            if ranks == 1 {
                assert!(lines[0].starts_with("1 process: nothing"), "{out}");
                continue;
            }
            // One rank speaks.
            assert_eq!(lines.len(), 7, "{out}");
            assert!(lines[0].starts_with("library   "), "{out}");
            assert!(lines[1].starts_with(&format!("ranks     {ranks}, ")));
            assert!(lines[1].ends_with(&format!(" (0-{})", ranks - 1)), "{out}");
            assert_eq!(lines[2], "threads   1 at every rank");
            assert!(lines[4].starts_with("sums      right: "), "{out}");
            assert!(lines[6].starts_with("gather    3 MB in "), "{out}");
            assert!(lines.iter().all(|line| line.chars().count() <= 80), "{out}");
        }
    }
}

#[test]
fn a_check_is_printed_as_json() {
    for launcher in LAUNCHERS {
        let args = [
            "ranks",
            "check",
            "--megabytes",
            "1",
            "--rounds",
            "1",
            "--json",
        ];
        let Some(output) = launched(launcher, 3, &args) else {
            continue;
        };
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["ranks"], 3);
        assert_eq!(value["sums_equal"], true);
        assert_eq!(value["hosts"][0]["ranks"], serde_json::json!([0, 1, 2]));
        assert!(value["sum_seconds"].as_f64().unwrap() > 0.0, "{value}");
    }
}

/// Set where this binary runs as one of several ranks.
const AS_A_RANK: &str = "EXPO_TEST_AS_A_RANK";

#[test]
fn every_call_moves_what_it_says() {
    let program = std::env::current_exe().unwrap();
    let args = ["--exact", "ranks::as_a_rank", "--nocapture"];
    for (launcher, ranks) in LAUNCHERS
        .into_iter()
        .flat_map(|name| [(name, 2), (name, 5)])
    {
        let Some(mut command) = command_of(launcher, ranks, &program, &args) else {
            continue;
        };
        let output = command.env(AS_A_RANK, "1").output().unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{launcher}, {ranks}: {out}{err}");
        assert_eq!(out.matches("a rank is done").count(), ranks, "{out}");
    }
}

/// What each rank of the test above does; nothing otherwise.
#[test]
fn as_a_rank() {
    if std::env::var_os(AS_A_RANK).is_none() {
        return;
    }
    let ranks = open(&environment(), Duration::from_secs(60)).unwrap();
    // A rank that panics would leave the others waiting.
    let checked = std::panic::catch_unwind(|| check_calls(&ranks));
    if checked.is_err() {
        ranks.abort(1);
    }
    println!("a rank is done");
}

fn check_calls(ranks: &Ranks) {
    let (rank, size) = (ranks.rank(), ranks.size());
    // From none to several chunks.
    let bytes = |rank: usize| vec![rank as u8 + 1; rank * rank * 300_000];
    let all = ranks.gather("bytes of ranks", &bytes(rank)).unwrap();
    assert!(
        all.iter()
            .enumerate()
            .all(|(rank, got)| *got == bytes(rank))
    );
    for length in [0, 1, 3_000_001] {
        let first = vec![7; length];
        let mut got = if rank == 0 {
            first.clone()
        } else {
            bytes(rank)
        };
        ranks.broadcast("bytes of rank 0", &mut got).unwrap();
        assert!(got == first, "{length}");
    }
    // Whole numbers, whose sums are exact; the last rank has nearly all, rank 0 has none.
    for length in [0, 10, 1_000_003] {
        let end = |piece: usize| match piece {
            0 | 1 => 0,
            piece if piece == size => length,
            piece => piece.min(length),
        };
        let pieces: Vec<_> = (0..size).map(|at| end(at)..end(at + 1)).collect();
        let whole: Vec<f32> = (0..length)
            .map(|at| (at % 1000 * (rank + 1)) as f32)
            .collect();
        let mut piece = vec![-1.0; pieces[rank].len()];
        ranks
            .sum_pieces("sums", &whole, &pieces, &mut piece)
            .unwrap();
        let times = size * (size + 1) / 2;
        let want = pieces[rank].clone().map(|at| (at % 1000 * times) as f32);
        assert!(piece.iter().copied().eq(want), "{length}");
        let mut whole = vec![0; length];
        whole[pieces[rank].clone()].fill(rank as u8 + 1);
        ranks.gather_pieces("pieces", &mut whole, &pieces).unwrap();
        let from = |rank: usize| {
            whole[pieces[rank].clone()]
                .iter()
                .all(|&byte| byte == rank as u8 + 1)
        };
        assert!((0..size).all(from), "{length}");
    }
    assert_eq!(agree(ranks, &[("version", "1".into())]), Ok(()));
    let config = if rank == 1 { "bb" } else { "aa" };
    let facts = [("version", "1".into()), ("config", config.into())];
    let error = agree(ranks, &facts).unwrap_err();
    let words = "config differs: aa at rank";
    assert!(
        error.exit_code() == 2 && error.to_string().starts_with(words),
        "{error}"
    );
    ranks.barrier("the end").unwrap();
    ranks.finalize().unwrap();
    ranks.finalize().unwrap();
}

#[test]
fn without_a_launcher_it_is_one_process() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_expo"));
    let output = command.args(["ranks", "check"]).output().unwrap();
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(out.starts_with("1 process: nothing to exchange"), "{out}");
    assert!(out.contains("mpirun -n 4 expo ranks check"), "{out}");
}

#[test]
fn torchrun_without_gpus_is_told_what_starts_processes_on_cpus() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_expo"));
    command.args(["ranks", "check"]);
    let output = command
        .envs([("RANK", "1"), ("WORLD_SIZE", "3")])
        .output()
        .unwrap();
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(err.contains("mpirun or srun"), "{err}");
}

/// Each process would take itself for the only one, and all would write the same files.
#[test]
fn the_library_of_another_mpi_than_the_launchers_is_refused() {
    for (launcher, library) in [
        (LAUNCHERS[0], "libmpich.so.12"),
        (LAUNCHERS[1], "libmpi.so.40"),
    ] {
        let Some(mut command) = command(launcher, 2, &["ranks", "check"]) else {
            continue;
        };
        let output = command.env("EXPO_MPI_LIBRARY", library).output().unwrap();
        let err = text(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{launcher}: {err}");
        if err.contains("cannot open shared object file") {
            println!("skipped: {library} is not installed");
            continue;
        }
        let words = format!("but the library {library} ");
        assert!(err.contains(&words), "{launcher}: {err}");
        assert_eq!(text(&output.stdout), "");
    }
}

/// A launch that goes on until something happens to one of its ranks.
struct Endless {
    child: Child,
    /// The processes of its ranks.
    ranks: Vec<i32>,
}

/// Starts ranks that exchange for ever, and waits until they do. `mark` is a number of rounds that no other
/// test uses: processes are found by it.
fn endless(launcher: &str, count: usize, mark: &str, timeout: &str) -> Option<Endless> {
    let args = ["ranks", "check", "--megabytes", "1", "--rounds", mark];
    let args = [&args[..], &["--timeout", timeout]].concat();
    let mut child = command(launcher, count, &args)?.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let started = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("sums ")));
    assert!(started.is_some(), "{launcher} has not started its ranks");
    let ranks: Vec<i32> = processes(|words| {
        let is_expo = words.first().is_some_and(|word| word.ends_with("/expo"));
        is_expo && words.iter().any(|word| word == mark)
    });
    assert_eq!(ranks.len(), count);
    Some(Endless { child, ranks })
}

/// The processes whose command line is such a one.
fn processes(is_one: impl Fn(&[String]) -> bool) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words = line.split(|&byte| byte == 0).map(text);
        is_one(&words.collect::<Vec<_>>())
    })
    .collect()
}

/// The rank that a process has by its environment.
fn rank_of(process: i32) -> String {
    let variables = fs::read(format!("/proc/{process}/environ")).unwrap();
    let mut variables = variables.split(|&byte| byte == 0).map(text);
    let rank = variables.find_map(|variable| {
        let (name, value) = variable.split_once('=')?;
        ["OMPI_COMM_WORLD_RANK", "PMI_RANK"]
            .contains(&name)
            .then(|| value.to_owned())
    });
    rank.expect("a launcher says ranks")
}

pub fn signal(process: impl ToString, name: &str) {
    let id = process.to_string();
    let sent = Command::new("kill").args(["-s", name, &id]).status();
    assert!(sent.unwrap().success());
}

/// How the launcher ends, within the limit; no rank is left.
fn end(mut endless: Endless) -> Output {
    let start = Instant::now();
    while endless.child.try_wait().unwrap().is_none() {
        if start.elapsed() > LIMIT {
            endless.ranks.iter().for_each(|&rank| signal(rank, "KILL"));
            panic!("the launcher has not ended");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = endless.child.wait_with_output().unwrap();
    crate::support::wait_until("every rank has ended", || {
        let is_gone = |rank: &i32| {
            let status = fs::read_to_string(format!("/proc/{rank}/stat")).unwrap_or_default();
            status.is_empty() || status.contains(") Z ")
        };
        endless.ranks.iter().all(is_gone)
    });
    output
}

#[test]
fn a_rank_that_is_killed_ends_all() {
    for (launcher, mark) in LAUNCHERS.into_iter().zip(["1000001", "1000002"]) {
        let Some(endless) = endless(launcher, 3, mark, "60s") else {
            continue;
        };
        signal(endless.ranks[1], "KILL");
        let output = end(endless);
        assert!(!output.status.success(), "{launcher}: {:?}", output.status);
    }
}

#[test]
fn a_rank_that_stalls_is_named_and_all_end_with_75() {
    for (launcher, mark) in LAUNCHERS.into_iter().zip(["1000003", "1000004"]) {
        let Some(endless) = endless(launcher, 3, mark, "2s") else {
            continue;
        };
        let stalled = endless.ranks[1];
        let name = rank_of(stalled);
        signal(stalled, "STOP");
        let output = end(endless);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(75), "{launcher}: {err}");
        // A rank that waits for the stalled one may be late, too.
        let late = [
            format!("rank {name} has"),
            "ranks 0-1 have".to_owned(),
            "ranks 1-2 have".to_owned(),
            "ranks 0, 2 have".to_owned(),
        ];
        let is_named = late.iter().any(|late| {
            let words = format!("exchange of 1 MB: {late} not come in 2 seconds");
            late.contains(&name.to_string()) && err.contains(&words)
        });
        assert!(is_named, "{launcher}, rank {name}: {err}");
    }
}
