//! Ranks that are killed or stopped at random times, over and over, each launch on another number of
//! ranks than the one before, until the run is over.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::folders::unreadable;
use super::program::{Running, Stage, memory};
use super::{Random, Report, send, size, skip, succeeds};

/// Launches of one run that something happens to, after which it is left alone.
const DISTURBED: usize = 12;

/// Lanes of the run, and the numbers of ranks that fit them.
const LANES: &str = "batch.lanes=4";
const RANKS: [&str; 3] = ["1", "2", "4"];

/// How long a rank waits for the others in a step.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Counts {
    kills: usize,
    stalls: usize,
    waited_for: usize,
    runs: usize,
}

#[test]
#[ignore = "run by scripts/torture.sh"]
fn ranks_at_random() {
    const LAUNCHER: &str = "mpirun.openmpi";
    if !succeeds(LAUNCHER, &["--version"]) {
        return skip("ranks", &format!("{LAUNCHER} is not installed"));
    }
    let mut report = Report::new("ranks");
    let mut random = Random::new("ranks");
    let stage = Stage::new(&memory(), 24);
    let whole = stage.path("whole-lanes");
    let mut alone = stage.command(&[], &whole, 1);
    alone.args(["--set", LANES]);
    assert_eq!(Running::start(alone).wait().code, Some(0));
    let mut counts = Counts::default();
    let enough = size(10, 100);
    while counts.kills + counts.stalls < enough && counts.runs < enough {
        let run = stage.path(&format!("run-{}", counts.runs));
        for attempt in 0.. {
            let ranks = RANKS[random.below(3) as usize];
            let prefix = [LAUNCHER, "--oversubscribe", "-n", ranks];
            let mut command = stage.command(&prefix, &run, 1);
            command
                .args([
                    "--set",
                    LANES,
                    "--set",
                    &format!("distributed.timeout={}", TIMEOUT.as_secs()),
                ])
                .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
                .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
            let disturbed = attempt < DISTURBED;
            match launch(command, &run, &stage, disturbed, &mut counts, &mut random) {
                Ok(true) => break,
                Ok(false) => report.fail_all(&run.display().to_string(), unreadable(&run)),
                Err(what) => {
                    report.fail(what);
                    break;
                }
            }
        }
        for name in ["model.safetensors", "metrics.jsonl"] {
            let read = |run: &Path| fs::read(run.join(name)).unwrap_or_default();
            if read(&run) != read(&whole) {
                report.fail(format!("mismatch: {} {name}", run.display()));
            }
        }
        fs::remove_dir_all(&run).unwrap();
        counts.runs += 1;
    }
    report.count("kills", counts.kills);
    report.count("stalls", counts.stalls);
    report.count("waited_for", counts.waited_for);
    report.count("runs", counts.runs);
    report.count("unreadable", report.failed("unreadable"));
    report.count("mismatches", report.failed("mismatch"));
    report.finish();
}

/// One launch, in which a random rank is killed or stopped at a random time; whether the run is over.
fn launch(
    command: Command,
    run: &Path,
    stage: &Stage,
    disturbed: bool,
    counts: &mut Counts,
    random: &mut Random,
) -> Result<bool, String> {
    let mut process = Running::start(command);
    let mut happened = false;
    let time = random.time_below(stage.time);
    let (victim, stalls) = (random.next() as usize, random.below(4) == 0);
    let is_there = || !ranks_of(run).is_empty();
    if disturbed && process.wait_until(is_there) {
        std::thread::sleep(time);
        let ranks = ranks_of(run);
        if let Some(rank) = ranks.get(victim % ranks.len().max(1)) {
            send(if stalls { "STOP" } else { "KILL" }, *rank);
            happened = true;
            match stalls {
                true => counts.stalls += 1,
                false => counts.kills += 1,
            }
            if stalls {
                // Alone it has nobody who waits for it. In a step the others do not wait for long; at the start
                // and in what takes its time, such as a save, they wait until it goes on.
                let patience = match ranks.len() {
                    1 => Duration::from_millis(50),
                    _ => 4 * TIMEOUT,
                };
                let start = Instant::now();
                while process.is_alive() && start.elapsed() < patience {
                    std::thread::sleep(Duration::from_millis(20));
                }
                if process.is_alive() {
                    send("CONT", *rank);
                    counts.waited_for += 1;
                }
            }
        }
    }
    let ended = process.wait();
    if ended.err.contains("panicked") {
        return Err(format!("panic: {}", ended.err));
    }
    match ended.code {
        Some(0) => Ok(true),
        _ if happened => Ok(false),
        code => Err(format!("not gone on with: {code:?} {}", ended.err)),
    }
}

/// The processes of the ranks that work on a run.
fn ranks_of(run: &Path) -> Vec<u32> {
    let output = format!("run.output_dir={}", run.display());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_rank = |id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0);
        words
            .next()
            .is_some_and(|program| program.ends_with(b"/expo"))
            && words.any(|word| word == output.as_bytes())
    };
    let mut ranks: Vec<u32> = ids.filter(is_rank).collect();
    ranks.sort_unstable();
    ranks
}
