//! INT and TERM at any time, once and twice.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::folders::{differences, steps, unreadable};
use super::program::{Stage, disk, memory};
use super::{Random, Report, send, size};

const SIGNALS: [(&str, i32); 2] = [("INT", 2), ("TERM", 15)];

#[test]
#[ignore = "run by scripts/torture.sh"]
fn signals_at_random() {
    let mut report = Report::new("signals");
    let mut random = Random::new("signals");
    let stages = [disk(), memory()].map(|base| Stage::new(&base, 16));
    let (mut saved, mut before, mut late) = (0, 0, 0);
    let rounds = size(16, 150);
    for round in 0..rounds {
        let stage = &stages[round / 2 % 2];
        let run = stage.path(&format!("run-{round}"));
        let place = format!("round {round}");
        let (name, number) = SIGNALS[round % 2];
        let mut process = stage.start(&[], &run, 1 + random.below(3));
        // Some of them before there is anything to save.
        let latest = match round % 5 {
            0 => Duration::from_millis(40),
            _ => stage.time,
        };
        process.work(random.time_below(latest));
        // From here on a signal is listened to.
        let begun = process.said().contains("training ");
        send(name, process.process());
        let ended = process.wait();
        match (ended.code, ended.signal) {
            (Some(code), None) if code == 128 + number => {
                saved += 1;
                let newest = steps(&run).last().copied();
                let newest = newest.map(|step| format!("checkpoint-{step};"));
                let last = ended.err.lines().last().unwrap_or_default();
                if !newest.is_some_and(|newest| last.contains(&newest)) {
                    report.fail(format!("{place}: lost: {}", ended.err));
                }
            }
            (None, Some(signal)) if signal == number && !begun => before += 1,
            (Some(0), None) => late += 1,
            _ => report.fail(format!("{place}: wrong end: {ended:?}")),
        }
        report.fail_all(&place, ended.complaints());
        go_on(stage, &run, &place, &mut report);
    }
    report.count("signals", rounds);
    report.count("saved_and_ended", saved);
    report.count("before_training", before);
    report.count("after_the_last_step", late);
    report.count("mismatches", report.failed("mismatch"));
    report.finish();
}

#[test]
#[ignore = "run by scripts/torture.sh"]
fn a_second_signal_ends_at_once() {
    let mut report = Report::new("second_signal");
    let mut random = Random::new("second_signal");
    let stages = [disk(), memory()].map(|base| Stage::new(&base, 16));
    let (mut at_once, mut longest) = (0, Duration::ZERO);
    let rounds = size(8, 100);
    for round in 0..rounds {
        let stage = &stages[round / 2 % 2];
        let run = stage.path(&format!("run-{round}"));
        let place = format!("round {round}");
        let mut process = stage.start(&[], &run, 1);
        process.wait_until(|| !steps(&run).is_empty());
        std::thread::sleep(random.time_below(stage.time / 2));
        let (first, second) = (SIGNALS[round % 2], SIGNALS[(round + 1) % 2]);
        let before = steps(&run);
        send(first.0, process.process());
        let start = Instant::now();
        send(second.0, process.process());
        let ended = process.wait();
        if !ended.err.contains("interrupted after step") && ended.code != Some(0) {
            at_once += 1;
            longest = longest.max(start.elapsed());
        }
        if ![128 + first.1, 128 + second.1, 0]
            .map(Some)
            .contains(&ended.code)
        {
            report.fail(format!("{place}: wrong end: {ended:?}"));
        }
        if steps(&run).last() < before.last() {
            report.fail(format!("{place}: lost: {before:?}, {:?}", steps(&run)));
        }
        go_on(stage, &run, &place, &mut report);
    }
    report.count("rounds", rounds);
    report.count("ended_at_once", at_once);
    report.count("longest_ms", longest.as_millis());
    report.count("lost", report.failed("lost"));
    report.count("mismatches", report.failed("mismatch"));
    report.finish();
}

/// Runs it to the end and compares it.
fn go_on(stage: &Stage, run: &Path, place: &str, report: &mut Report) {
    report.fail_all(place, unreadable(run));
    match stage.finish(run) {
        Ok(()) => report.fail_all(place, differences(run, &stage.whole, false)),
        Err(what) => report.fail(format!("{place}: mismatch: {what}")),
    }
    let _ = fs::remove_dir_all(run);
}
