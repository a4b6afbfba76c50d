//! What a run survives: kills, of ranks, too, faults of the disk, power cuts, signals, rivals, full disks,
//! other threads, damaged files.
//!
//! Each test drives the real program on a tiny model and prints lines `torture test=NAME key=value`,
//! which `scripts/torture.sh` makes a table of. `EXPO_TORTURE` is `short` or `full`.
//!
//! *Why*: a promise about any moment is kept at the moments nobody thought of, so they are drawn at
//! random, or all of them are tried. The seed is fixed and printed; what the clock adds is not.

#[path = "torture/command_lines.rs"]
mod command_lines;
#[path = "torture/disks.rs"]
mod disks;
#[path = "torture/faults.rs"]
mod faults;
#[path = "torture/folders.rs"]
mod folders;
#[path = "torture/kills.rs"]
mod kills;
#[path = "torture/mutations.rs"]
mod mutations;
#[path = "torture/outputs.rs"]
mod outputs;
#[path = "torture/owners.rs"]
mod owners;
#[path = "torture/power_cuts.rs"]
mod power_cuts;
#[path = "torture/program.rs"]
mod program;
#[path = "torture/ranks.rs"]
mod ranks;
#[path = "torture/signals.rs"]
mod signals;
#[path = "torture/threads.rs"]
mod threads;

use std::fmt::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A size of a test: how many rounds the short version has, and the full one.
fn size(short: usize, full: usize) -> usize {
    if is_full() { full } else { short }
}

fn is_full() -> bool {
    std::env::var("EXPO_TORTURE").is_ok_and(|size| size == "full")
}

/// Random numbers from a fixed seed (splitmix64).
struct Random(u64);

impl Random {
    const SEED: u64 = 20_251_122;

    fn new(test: &str) -> Self {
        println!("torture seed of {test}: {}", Self::SEED);
        Self(Self::SEED)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn time_below(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(limit.as_micros() as u64 + 1))
    }
}

/// What a test counted; what must be 0 is named so that the failure says which.
struct Report {
    test: &'static str,
    counts: Vec<(&'static str, String)>,
    failures: Vec<String>,
}

impl Report {
    fn new(test: &'static str) -> Self {
        Self {
            test,
            counts: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn count(&mut self, name: &'static str, value: impl ToString) {
        self.counts.push((name, value.to_string()));
    }

    /// Keeps what went wrong, and says it at once.
    fn fail(&mut self, what: String) {
        println!("{}: {what}", self.test);
        self.failures.push(what);
    }

    fn fail_all(&mut self, place: &str, found: Vec<String>) {
        for what in found {
            self.fail(format!("{place}: {what}"));
        }
    }

    /// How many of the failures hold this word.
    fn failed(&self, word: &str) -> usize {
        let held = self.failures.iter().filter(|what| what.contains(word));
        held.count()
    }

    /// Prints the line of the test, and fails it if anything went wrong.
    fn finish(self) {
        let mut line = format!("torture test={}", self.test);
        for (name, value) in &self.counts {
            let _ = write!(line, " {name}={value}");
        }
        println!("{line} failures={}", self.failures.len());
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
    }
}

/// Says that a part of a test could not be made here.
fn skip(test: &str, why: &str) {
    println!(
        "torture test={test} skipped={}",
        why.replace(char::is_whitespace, "_")
    );
}

/// Whether a command of the system succeeds.
fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    let command = command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Sends a signal to a process.
fn send(signal: &str, process: u32) {
    succeeds("kill", &[&format!("-{signal}"), &process.to_string()]);
}
