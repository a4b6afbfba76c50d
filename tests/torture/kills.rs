//! SIGKILL at any time, half of them inside a save, over and over until the run is over.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::folders::{differences, names, unreadable};
use super::program::{Ended, Running, Stage, disk, memory};
use super::{Random, Report, size};

/// Kills of one run, after which it is left alone.
const KILLS_OF_A_RUN: usize = 25;

#[derive(Default)]
struct Kills {
    all: usize,
    inside_save: usize,
    inside_pruning: usize,
}

#[test]
#[ignore = "run by scripts/torture.sh"]
fn kills_at_random() {
    let mut report = Report::new("kills");
    let mut random = Random::new("kills");
    // A disk that syncs slowly is inside a save most of the time, memory hardly ever.
    let stages = [disk(), memory()].map(|base| Stage::new(&base, 24));
    let (mut kills, mut runs) = (Kills::default(), 0);
    let enough = size(60, 1000);
    // A run that is never hit ends by itself.
    while kills.all < enough && runs < enough {
        let stage = &stages[runs % 2];
        let run = stage.path(&format!("run-{runs}"));
        one_run(stage, &run, &mut kills, &mut random, &mut report);
        fs::remove_dir_all(&run).unwrap();
        runs += 1;
    }
    if kills.all < enough {
        report.fail("too few kills".to_owned());
    }
    report.count("kills", kills.all);
    report.count("inside_save", kills.inside_save);
    report.count("inside_pruning", kills.inside_pruning);
    report.count("runs", runs);
    report.count("unreadable", report.failed("unreadable"));
    report.count("mismatches", report.failed("mismatch"));
    report.finish();
}

/// Kills a run until it has ended all the same, and compares it.
fn one_run(stage: &Stage, run: &Path, kills: &mut Kills, random: &mut Random, report: &mut Report) {
    for attempt in 0.. {
        let threads = 1 + random.below(3);
        let process = stage.start(&[], run, threads);
        let ended = match (attempt < KILLS_OF_A_RUN, 2 * kills.inside_save <= kills.all) {
            (true, true) => kill_inside_a_save(process, run, random),
            (true, false) => kill_at(process, random.time_below(stage.time / 4)),
            (false, _) => process.wait(),
        };
        report.fail_all(&run.display().to_string(), ended.complaints());
        report.fail_all(&run.display().to_string(), unreadable(run));
        match ended {
            Ended { code: Some(0), .. } => break,
            Ended {
                signal: Some(9), ..
            } => {
                let left = names(run);
                let left = |start: &str| left.iter().any(|name| name.starts_with(start));
                kills.all += 1;
                kills.inside_save += usize::from(left(".tmp-checkpoint-"));
                kills.inside_pruning += usize::from(left(".trash-"));
            }
            other => return report.fail(format!("not gone on with: {other:?}")),
        }
    }
    let found = differences(run, &stage.whole, true);
    report.fail_all(&run.display().to_string(), found);
}

fn kill_at(mut process: Running, time: Duration) -> Ended {
    match process.work(time) {
        true => process.kill(),
        false => process.wait(),
    }
}

/// Waits for the beginning of one of the next saves, and a little longer.
fn kill_inside_a_save(mut process: Running, run: &Path, random: &mut Random) -> Ended {
    let saves = 1 + random.below(4);
    // What others left is swept up before the first save.
    let own = format!("-{}-", process.process());
    let (mut seen, mut last) = (0, String::new());
    let inside = process.wait_until(|| {
        let names = names(run).into_iter();
        let mut saving = names.filter(|n| n.starts_with(".tmp-checkpoint-") && n.contains(&own));
        if let Some(name) = saving.next()
            && name != last
        {
            (seen, last) = (seen + 1, name);
        }
        seen == saves
    });
    if !inside {
        return process.wait();
    }
    let longest = [0, 300, 1_000, 3_000, 10_000][random.below(5) as usize];
    sleep(random.time_below(Duration::from_micros(longest)));
    process.kill()
}
