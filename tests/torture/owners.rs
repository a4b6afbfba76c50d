//! Two processes and one folder.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::folders::{names, steps, unreadable};
use super::program::{Ended, Running, Stage, disk};
use super::{Report, send};

/// More steps than a test waits for.
const ENDLESS: &str = "run.max_steps=100000";

fn endless(stage: &Stage, run: &Path) -> Running {
    let mut command = stage.command(&[], run, 1);
    command.args([
        "--set",
        ENDLESS,
        "--set",
        "schedule.lr_scheduler_type=constant",
    ]);
    Running::start(command)
}

#[test]
#[ignore = "run by scripts/torture.sh"]
fn of_two_starters_one_wins() {
    let mut report = Report::new("owners");
    let stage = Stage::new(&disk(), 2);
    let rounds = 20;
    let (mut winners, mut stale) = (0, 0);
    for round in 0..rounds {
        let run = stage.path(&format!("run-{round}"));
        // Every second time there is a run already, whose owner was killed.
        if round % 2 == 1 {
            let mut first = endless(&stage, &run);
            first.wait_until(|| !steps(&run).is_empty());
            first.kill();
        }
        let mut both = [endless(&stage, &run), endless(&stage, &run)];
        let (winner, ended) = race(&mut both);
        let [a, b] = both;
        let (mut winner, loser) = match winner {
            0 => (a, b),
            _ => (b, a),
        };
        winners += 1;
        let place = format!("round {round}");
        let owner = format!("process {} on ", winner.process());
        let loser = loser.wait();
        if !ended || loser.code != Some(2) || !loser.err.contains(&owner) {
            report.fail(format!("{place}: two winners or a wrong end: {loser:?}"));
        }
        report.fail_all(&place, loser.complaints());
        let step = steps(&run).last().copied();
        if !winner.wait_until(|| steps(&run).last().copied() > step) {
            report.fail(format!("{place}: no winner: {}", winner.said()));
        }
        winner.kill();
        report.fail_all(&place, unreadable(&run));
        // The lock of the one that was killed holds nobody off.
        let before = gone_on_with(&run);
        let mut next = endless(&stage, &run);
        match next.wait_until(|| gone_on_with(&run) > before) {
            true => stale += 1,
            false => report.fail(format!("{place}: stale: {}", next.said())),
        }
        send("TERM", next.process());
        let next = next.wait();
        if next.code != Some(143) {
            report.fail(format!("{place}: wrong end: {next:?}"));
        }
        fs::remove_dir_all(&run).unwrap();
    }
    report.count("rounds", rounds);
    report.count("one_winner", winners - report.failed("winner"));
    report.count("stale_locks_passed", stale);
    report.finish();
}

/// Waits until one of two has ended; which one has not, and whether one has.
fn race(both: &mut [Running; 2]) -> (usize, bool) {
    for _ in 0..30_000 {
        for (index, running) in both.iter_mut().enumerate() {
            if !running.is_alive() {
                return (1 - index, true);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    (0, false)
}

/// How often a run was gone on with.
fn gone_on_with(run: &Path) -> usize {
    let timings = fs::read_to_string(run.join("timings.jsonl")).unwrap_or_default();
    timings.matches("\"resumed\":true").count()
}

#[test]
#[ignore = "run by scripts/torture.sh"]
fn one_that_was_robbed_stops_at_its_next_save() {
    let mut report = Report::new("fencing");
    let stage = Stage::new(&disk(), 2);
    let rounds = 5;
    for round in 0..rounds {
        let run = stage.path(&format!("run-{round}"));
        let place = format!("round {round}");
        let mut process = endless(&stage, &run);
        process.wait_until(|| steps(&run).len() > 1);
        let lock = run.join("run.lock");
        let mut owner: Value = crate::support::json(&lock);
        owner["token"] = json!("another");
        owner["host"] = json!("elsewhere");
        send("STOP", process.process());
        fs::write(stage.path("lock"), owner.to_string()).unwrap();
        fs::rename(stage.path("lock"), &lock).unwrap();
        let before = steps(&run);
        send("CONT", process.process());
        let Ended { code, err, .. } = process.wait();
        if code != Some(1) || !err.contains("on elsewhere has taken the run over") {
            report.fail(format!("{place}: wrong end: {code:?} {err}"));
        }
        // A save that was at work may end; no other begins.
        let after = steps(&run);
        let more = after.iter().filter(|step| !before.contains(step)).count();
        let model = names(&run).iter().any(|name| name == "model.safetensors");
        if more > 1 || model || crate::support::json(&lock) != owner {
            report.fail(format!("{place}: written: {before:?}, {after:?}"));
        }
        report.fail_all(&place, unreadable(&run));
        fs::remove_dir_all(&run).unwrap();
    }
    report.count("rounds", rounds);
    report.count("stopped", rounds - report.failed("wrong end"));
    report.count("written_after", report.failed("written"));
    report.finish();
}
