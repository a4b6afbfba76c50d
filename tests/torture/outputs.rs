//! Outputs that nobody reads or that are full: training goes on, and only what was printed is lost.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use super::disks::Mounted;
use super::folders::{differences, steps};
use super::program::{Ended, Running, Stage, memory};
use super::{Report, send, skip};

#[test]
#[ignore = "run by scripts/torture.sh"]
fn nobody_listens() {
    let mut report = Report::new("outputs");
    let stage = Stage::new(&memory(), 8);
    let shell = |redirections: &str| format!("exec \"$0\" \"$@\" {redirections}");
    let (mut complete, mut cases) = (0, 0);
    for redirections in [
        ">&-",
        "2>&-",
        "<&- >&- 2>&-",
        ">/dev/full",
        "2>/dev/full",
        ">/dev/full 2>/dev/full",
        ">&- 2>/dev/full",
    ] {
        let run = stage.path(&format!("run-{cases}"));
        cases += 1;
        let command = stage.command(&["bash", "-c", &shell(redirections)], &run, 1);
        let ended = Running::start(command).wait();
        // Only the table at the end may be what failed.
        let table = redirections.starts_with(">/dev/full");
        complete += judge(&ended, &run, &stage, redirections, table, &mut report);
    }
    for closed in ["stdout", "stderr"] {
        let run = stage.path(&format!("run-{cases}"));
        cases += 1;
        // A pipe whose reader is gone.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = stage.command(&[], &run, 1);
        match closed {
            "stdout" => command.stdout(writer).stderr(Stdio::piped()),
            _ => command.stderr(writer).stdout(Stdio::null()),
        };
        let ended = Running::start_as_it_is(command).wait();
        complete += judge(&ended, &run, &stage, closed, false, &mut report);
    }
    report.count("cases", cases);
    report.count("complete", complete);
    report.count("panics", report.failed("panic"));
    report.count("mismatches", report.failed("mismatch"));
    report.finish();
}

/// 1 if the run is complete.
fn judge(
    ended: &Ended,
    run: &Path,
    stage: &Stage,
    place: &str,
    may_fail: bool,
    report: &mut Report,
) -> usize {
    let code_is_right = ended.code == Some(0) || (may_fail && ended.code == Some(1));
    if !code_is_right {
        report.fail(format!("{place}: wrong end: {ended:?}"));
    }
    let found = differences(run, &stage.whole, true);
    let complete = found.is_empty() && run.join("summary.json").is_file();
    report.fail_all(place, found);
    if ended.err.contains("panicked") {
        report.fail(format!("{place}: panic: {}", ended.err));
    }
    usize::from(complete && code_is_right)
}

/// `metrics.jsonl` on a device that is full for good, and on one that gets room again.
#[test]
#[ignore = "run by scripts/torture.sh"]
fn a_full_log_stops_nothing() {
    let mut report = Report::new("full_log");
    let stage = Stage::new(&memory(), 40);
    let Some(device) = Mounted::new(&stage.path("device"), "size=4k") else {
        return skip("full_log", "no right to mount a tmpfs");
    };
    // The file of a run whose owner is gone, on the device; a link to it would be refused.
    let metrics = |run: &Path| {
        fs::create_dir_all(run).unwrap();
        let (file, log) = (device.path.join("metrics.jsonl"), run.join("metrics.jsonl"));
        for path in [&file, &log, &run.join("run.lock")] {
            File::create(path).unwrap();
        }
        Mounted::bind(&file, &log)
    };
    let whole = fs::read(stage.whole.join("metrics.jsonl")).unwrap();
    assert!(whole.len() > 5000, "more than the device holds");

    let full = stage.path("full");
    let _log = metrics(&full).expect("mounted before");
    let ended = stage.start(&[], &full, 1).wait();
    let warned = ended.err.contains("lines are kept in memory");
    let found = differences(&full, &stage.whole, true);
    let only_log = found == ["mismatch: metrics.jsonl"];
    if ended.code != Some(0) || !warned || !only_log {
        report.fail(format!("full: {found:?} {ended:?}"));
    }

    let later = stage.path("later");
    let _log = metrics(&later).expect("mounted before");
    let mut process = stage.start(&[], &later, 1);
    process.wait_until(|| steps(&later).last() >= Some(&25));
    send("STOP", process.process());
    device.again("size=1m");
    send("CONT", process.process());
    let ended = process.wait();
    report.fail_all("later", differences(&later, &stage.whole, true));
    if ended.code != Some(0) {
        report.fail(format!("later: {ended:?}"));
    }
    report.count("cases", 2);
    report.count("complete", 2usize.saturating_sub(report.failures.len()));
    report.count("caught_up", ended.err.contains("the logs have caught up"));
    report.finish();
}
