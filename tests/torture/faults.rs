//! A fault at the first, the second, ... the last call that changes a disk, of each kind of call.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::folders::{differences, unreadable};
use super::program::{Running, Stage, memory};
use super::{Report, is_full, skip, succeeds};

/// The calls. `open` is not among them: strace cannot tell one that creates from one that reads.
const CALLS: &str = "?write,?pwrite64,?writev,?fsync,?fdatasync,?rename,?renameat,?renameat2,\
                     ?mkdir,?mkdirat,?unlink,?unlinkat,?rmdir,?ftruncate,?flock";

const FAULTS: [&str; 3] = ["signal=KILL", "error=ENOSPC", "error=EIO"];

#[test]
#[ignore = "run by scripts/torture.sh"]
fn a_fault_at_every_call() {
    if !succeeds("strace", &["-V"]) {
        return skip("faults", "strace is not installed");
    }
    let mut report = Report::new("faults");
    let stage = Stage::new(&memory(), 5);
    let calls = calls(&stage);
    let total: usize = calls.values().sum();
    let (mut tried, mut met, mut by_itself) = (0, 0, 0);
    let mut turn = 0;
    for (call, count) in &calls {
        for at in 1..=*count {
            for fault in FAULTS {
                turn += 1;
                // Of the short version every call has its first and its last, and a part of the rest.
                let edge = at == 1 || at == *count;
                let chosen = is_full() || (edge && turn % 2 == 0) || turn % 17 == 0;
                if !chosen {
                    continue;
                }
                let run = stage.path(&format!("run-{turn}"));
                tried += 1;
                match one_fault(&stage, &run, (call, at, fault), &mut report) {
                    Some(0) => (met, by_itself) = (met + 1, by_itself + 1),
                    Some(_) => met += 1,
                    None => {}
                }
                let _ = fs::remove_dir_all(&run);
            }
        }
    }
    report.count("calls", total);
    report.count("faults", tried);
    report.count("met", met);
    report.count("finished_by_itself", by_itself);
    report.count("panics", report.failed("panic"));
    report.count("pathless", report.failed("pathless"));
    report.count("unreadable", report.failed("unreadable"));
    report.count("mismatches", report.failed("mismatch"));
    report.finish();
}

/// How often a run that begins makes each call.
fn calls(stage: &Stage) -> BTreeMap<String, usize> {
    let (run, log) = (stage.path("traced"), stage.path("trace"));
    let trace = format!("trace={CALLS}");
    let prefix = ["strace", "-f", "-qq", "-e", "signal=none", "-e", &trace];
    let ended = traced(stage, &prefix, &log, &run);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let mut by_process: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        let Some((process, call)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let Some((name, _)) = call.trim_start().split_once('(') else {
            continue;
        };
        *by_process
            .entry((name.to_owned(), process.to_owned()))
            .or_default() += 1;
    }
    // strace counts each thread by itself.
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for ((name, _), count) in by_process {
        let most = calls.entry(name).or_default();
        *most = count.max(*most);
    }
    assert!(calls.values().sum::<usize>() > 50, "{calls:?}");
    calls
}

/// Runs with one fault, then to the end without; the exit code of the first, 137 where it was
/// killed, if the fault was met.
fn one_fault(
    stage: &Stage,
    run: &Path,
    (call, at, fault): (&str, usize, &str),
    report: &mut Report,
) -> Option<i32> {
    let log = stage.path("trace");
    let (trace, inject) = (
        format!("trace={call}"),
        format!("inject={call}:{fault}:when={at}"),
    );
    let prefix = ["strace", "-f", "-qq", "-e", &trace, "-e", &inject];
    let ended = traced(stage, &prefix, &log, run);
    let place = format!("{call} {at} {fault}");
    let killed = ended.signal == Some(9);
    let log = fs::read_to_string(&log).unwrap_or_default();
    let met = killed || log.contains("(INJECTED)");
    if let (Some(signal), false) = (ended.signal, killed) {
        report.fail(format!("{place}: ended by signal {signal}"));
    }
    report.fail_all(&place, ended.complaints());
    report.fail_all(&place, unreadable(run));
    let whole = |found: Vec<String>| -> Vec<String> {
        let words = found.into_iter();
        words.map(|what| format!("{what}; {}", ended.err)).collect()
    };
    if ended.code == Some(0) {
        let found = differences(run, &stage.whole, false);
        report.fail_all(&place, whole(found));
    }
    match stage.finish(run) {
        Ok(()) => {
            let found = differences(run, &stage.whole, killed);
            report.fail_all(&place, whole(found));
        }
        Err(what) => report.fail(format!("{place}: mismatch: {what}")),
    }
    met.then(|| ended.code.unwrap_or(137))
}

/// A run under strace, with one thread and a cache of its own.
fn traced(stage: &Stage, prefix: &[&str], log: &Path, run: &Path) -> super::program::Ended {
    let log = log.to_str().unwrap();
    let prefix = [prefix, &["-o", log, "--"]].concat();
    let cache = stage.path("cache-of-one");
    let _ = fs::remove_dir_all(&cache);
    Running::start(stage.command_with(&prefix, run, 1, &cache)).wait()
}
