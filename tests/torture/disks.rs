//! Full disks: a limit of the size of files, a small tmpfs, one without names left, one not writable.

use std::fs;
use std::path::{Path, PathBuf};

use super::folders::{differences, names, unreadable};
use super::program::{Ended, Stage, memory};
use super::{Random, Report, send, size, skip, succeeds};

/// A mount, for as long as this value lives.
pub struct Mounted {
    pub path: PathBuf,
}

impl Mounted {
    /// `None` where there is no right to mount.
    pub fn new(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let name = path.to_str().unwrap();
        let mounted = succeeds("mount", &["-t", "tmpfs", "-o", options, "tmpfs", name]);
        mounted.then(|| Self {
            path: path.to_owned(),
        })
    }

    /// A file in the place of another.
    pub fn bind(file: &Path, over: &Path) -> Option<Self> {
        let words = ["--bind", file.to_str()?, over.to_str()?];
        succeeds("mount", &words).then(|| Self {
            path: over.to_owned(),
        })
    }

    /// Changes its options.
    pub fn again(&self, options: &str) {
        let name = self.path.to_str().unwrap();
        let options = format!("remount,{options}");
        assert!(succeeds("mount", &["-o", &options, name]), "{options}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        succeeds("umount", &["-l", self.path.to_str().unwrap()]);
    }
}

/// What a run that met a full disk must be: ended with an error that says where, or complete.
fn judge(ended: &Ended, run: &Path, stage: &Stage, place: &str, report: &mut Report) {
    report.fail_all(place, ended.complaints());
    report.fail_all(place, unreadable(run));
    match ended.code {
        Some(0) => report.fail_all(place, differences(run, &stage.whole, false)),
        Some(1) => {}
        _ => report.fail(format!("{place}: wrong end: {ended:?}")),
    }
}

/// With room again it ends as if nothing had been.
fn go_on(stage: &Stage, run: &Path, place: &str, report: &mut Report) {
    match stage.finish(run) {
        Ok(()) => report.fail_all(place, differences(run, &stage.whole, false)),
        Err(what) => report.fail(format!("{place}: mismatch: {what}")),
    }
}

#[test]
#[ignore = "run by scripts/torture.sh"]
fn files_of_limited_size() {
    let mut report = Report::new("size_limits");
    let stage = Stage::new(&memory(), 8);
    // The weights take 119 KiB, the moments 238.
    let all: Vec<u64> = (0..=16).chain((20..=260).step_by(4)).collect();
    let limits: Vec<u64> = match size(0, 1) {
        0 => vec![0, 1, 3, 5, 8, 64, 118, 120, 236, 244],
        _ => all,
    };
    let mut stopped = 0;
    for limit in &limits {
        let run = stage.path(&format!("run-{limit}"));
        let shell = format!("ulimit -f {limit}; exec \"$0\" \"$@\"");
        let ended = stage.start(&["bash", "-c", &shell], &run, 1).wait();
        let place = format!("{limit} KiB");
        stopped += usize::from(ended.code != Some(0));
        judge(&ended, &run, &stage, &place, &mut report);
        go_on(&stage, &run, &place, &mut report);
        fs::remove_dir_all(&run).unwrap();
    }
    tell(report, limits.len(), stopped);
}

/// Of so many limits, how many stopped the run.
fn tell(mut report: Report, limits: usize, stopped: usize) {
    report.count("limits", limits);
    report.count("stopped", stopped);
    report.count("finished", limits - stopped);
    report.count("unreadable", report.failed("unreadable"));
    report.count("mismatches", report.failed("mismatch"));
    report.finish();
}

/// A file system that can hold so many files and folders and no more.
#[test]
#[ignore = "run by scripts/torture.sh"]
fn no_names_left() {
    let mut report = Report::new("inodes");
    let stage = Stage::new(&memory(), 8);
    let limits: Vec<usize> = match size(0, 1) {
        0 => vec![3, 9, 14, 22, 30],
        _ => (2..=60).collect(),
    };
    let mut stopped = 0;
    for limit in &limits {
        let options = format!("size=128m,nr_inodes={limit}");
        let Some(small) = Mounted::new(&stage.path(&format!("small-{limit}")), &options) else {
            return skip("inodes", "no right to mount a tmpfs");
        };
        let run = small.path.join("run");
        let ended = stage.start(&[], &run, 1).wait();
        let place = format!("{limit} inodes");
        stopped += usize::from(ended.code != Some(0));
        judge(&ended, &run, &stage, &place, &mut report);
        small.again("nr_inodes=10000");
        go_on(&stage, &run, &place, &mut report);
    }
    tell(report, limits.len(), stopped);
}

/// A disk that fills up while a checkpoint is written; every second time it gets room again.
#[test]
#[ignore = "run by scripts/torture.sh"]
fn the_disk_fills_up() {
    let mut report = Report::new("full_disk");
    let mut random = Random::new("full_disk");
    let stage = Stage::new(&memory(), 24);
    let rounds = size(6, 60);
    let (mut met, mut inside, mut stopped) = (0, 0, 0);
    for round in 0..rounds {
        let Some(small) = Mounted::new(&stage.path(&format!("small-{round}")), "size=96m") else {
            return skip("full_disk", "no right to mount a tmpfs");
        };
        let run = small.path.join("run");
        let place = format!("round {round}");
        let mut process = stage.start(&[], &run, 1);
        let save = 1 + random.below(12);
        let begins = [
            format!(".tmp-checkpoint-{save}-"),
            format!("checkpoint-{save}"),
        ];
        let has_begun = |name: &String| begins.iter().any(|begins| name.starts_with(begins));
        process.wait_until(|| names(&run).iter().any(has_begun));
        send("STOP", process.process());
        let filler = small.path.join("filler");
        let free = expo::io::durable::free_bytes(&small.path).unwrap();
        let left = random.below(400_000);
        fs::write(&filler, vec![1; free.saturating_sub(left) as usize]).unwrap();
        send("CONT", process.process());
        if round % 2 == 0 && process.wait_until_it_says("is not saved") {
            fs::remove_file(&filler).unwrap();
        }
        let ended = process.wait();
        met += usize::from(ended.err.contains("is not saved"));
        inside += usize::from(ended.err.contains("No space left"));
        stopped += usize::from(ended.code != Some(0));
        judge(&ended, &run, &stage, &place, &mut report);
        let _ = fs::remove_file(&filler);
        go_on(&stage, &run, &place, &mut report);
    }
    report.count("rounds", rounds);
    report.count("met", met);
    report.count("inside_a_write", inside);
    report.count("stopped", stopped);
    report.count("unreadable", report.failed("unreadable"));
    report.count("mismatches", report.failed("mismatch"));
    report.finish();
}
