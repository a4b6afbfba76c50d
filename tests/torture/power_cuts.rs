//! Power cuts: what a disk holds at any moment while the program is at work.
//!
//! A file system in an image, mounted through a loop device. The program is stopped at random moments
//! and the image copied: what had not reached the disk is not in the copy, as after a cut of power. Each
//! copy is mounted, which replays its journal, looked at, and the run in it resumed and compared.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::folders::{differences, steps, unreadable};
use super::program::{Running, Stage, memory};
use super::{Random, Report, send, size, skip, succeeds};

/// A file system: how it is made, the options it is mounted with, and the MiB of its image.
struct FileSystem {
    name: &'static str,
    make: &'static [&'static str],
    options: &'static str,
    mib: u64,
}

/// ext4 with the options that promise least; the others have no such choice. xfs asks for 300 MiB.
const FILE_SYSTEMS: [FileSystem; 3] = [
    FileSystem {
        name: "ext4",
        make: &["mkfs.ext4", "-q", "-F"],
        options: "data=writeback,noauto_da_alloc",
        mib: 192,
    },
    FileSystem {
        name: "xfs",
        make: &["mkfs.xfs", "-q", "-f"],
        options: "rw",
        mib: 320,
    },
    FileSystem {
        name: "btrfs",
        make: &["mkfs.btrfs", "-q", "-f"],
        options: "rw",
        mib: 320,
    },
];

/// Cuts of one run: so far apart that a run of some seconds meets them all over.
const CUTS_OF_A_RUN: usize = 20;

/// An image that is mounted, for as long as this value lives.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(image: &Path, at: &'a Path, options: &str) -> Option<Self> {
        let options = format!("loop,{options}");
        let (image, name) = (image.to_str()?, at.to_str()?);
        succeeds("mount", &["-o", &options, image, name]).then_some(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let name = self.0.to_str().unwrap_or_default();
        // A process that was just stopped may still hold a file.
        for _ in 0..100 {
            if succeeds("umount", &[name]) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
    }
}

#[test]
#[ignore = "run by scripts/torture.sh"]
fn power_cuts_on_ext4() {
    cut(&FILE_SYSTEMS[0]);
}

#[test]
#[ignore = "run by scripts/torture.sh"]
fn power_cuts_on_xfs() {
    cut(&FILE_SYSTEMS[1]);
}

#[test]
#[ignore = "run by scripts/torture.sh"]
fn power_cuts_on_btrfs() {
    cut(&FILE_SYSTEMS[2]);
}

#[derive(Default)]
struct Counts {
    cuts: usize,
    from_a_checkpoint: usize,
}

fn cut(system: &FileSystem) {
    let test = match system.name {
        "ext4" => "power_cuts_ext4",
        "xfs" => "power_cuts_xfs",
        _ => "power_cuts_btrfs",
    };
    let folder = tempfile::tempdir_in(memory()).unwrap();
    let image = folder.path().join("empty.img");
    if let Err(why) = prepare(system, &image) {
        return skip(test, &why);
    }
    let mut report = Report::new(test);
    let mut random = Random::new(test);
    let stage = Stage::new(&memory(), 24);
    let mut counts = Counts::default();
    let (enough, mut missed) = (size(3, 200), 0);
    while counts.cuts < enough {
        let wanted = CUTS_OF_A_RUN.min(enough - counts.cuts);
        let copies = copies(system, &stage, &image, wanted, &mut random);
        // A run may be over before the first of few cuts.
        missed = if copies.is_empty() { missed + 1 } else { 0 };
        if missed == 10 {
            report.fail("no run that could be cut".to_owned());
            break;
        }
        for copy in copies {
            look_at(system, &stage, &copy, &mut counts, &mut random, &mut report);
            fs::remove_file(copy).unwrap();
        }
    }
    report.count("cuts", counts.cuts);
    report.count("from_a_checkpoint", counts.from_a_checkpoint);
    report.count("unreadable", report.failed("unreadable"));
    report.count("mismatches", report.failed("mismatch"));
    report.finish();
}

/// An empty file system in an image, if it can be made and mounted here.
fn prepare(system: &FileSystem, image: &Path) -> Result<(), String> {
    File::create(image)
        .and_then(|file| file.set_len(system.mib << 20))
        .map_err(|error| error.to_string())?;
    let mut make: Vec<&str> = system.make.to_vec();
    make.extend(image.to_str());
    if !succeeds(make[0], &make[1..]) {
        return Err(format!("{} is missing or failed", make[0]));
    }
    let at = image.with_extension("mnt");
    fs::create_dir_all(&at).map_err(|error| error.to_string())?;
    match Mounted::new(image, &at, system.options) {
        Some(_) => Ok(()),
        None => Err(format!("{} cannot be mounted", system.name)),
    }
}

/// Begins a run on a copy of the empty file system and copies the disk at random moments of it.
fn copies(
    system: &FileSystem,
    stage: &Stage,
    empty: &Path,
    wanted: usize,
    random: &mut Random,
) -> Vec<PathBuf> {
    let (image, at) = (stage.path("disk.img"), stage.path("disk"));
    copy(empty, &image);
    fs::create_dir_all(&at).unwrap();
    let mounted = Mounted::new(&image, &at, system.options).expect("mounted before");
    let mut process = start(stage, &at, 1);
    let mut copies = Vec::new();
    // The mean is half of it, and a process that is stopped makes no way.
    let pause = 2 * stage.time / (wanted + 1) as u32;
    while copies.len() < wanted {
        sleep(random.time_below(pause));
        if !process.is_alive() {
            break;
        }
        send("STOP", process.process());
        // What was on its way to the disk arrives, or not.
        sleep(Duration::from_millis([0, 3, 10][random.below(3) as usize]));
        let path = stage.path(&format!("cut-{}.img", copies.len()));
        copy(&image, &path);
        copies.push(path);
        send("CONT", process.process());
    }
    process.kill();
    drop(mounted);
    fs::remove_file(image).unwrap();
    copies
}

/// Mounts a copy, looks at what is in it, resumes the run, and compares it.
fn look_at(
    system: &FileSystem,
    stage: &Stage,
    image: &Path,
    counts: &mut Counts,
    random: &mut Random,
    report: &mut Report,
) {
    let at = stage.path("disk");
    let place = format!("{} cut {}", system.name, counts.cuts);
    counts.cuts += 1;
    let Some(_mounted) = Mounted::new(image, &at, system.options) else {
        return report.fail(format!("{place}: unreadable: cannot be mounted"));
    };
    let run = at.join("run");
    report.fail_all(&place, unreadable(&run));
    counts.from_a_checkpoint += usize::from(!steps(&run).is_empty());
    let ended = start(stage, &at, 1 + random.below(3)).wait();
    report.fail_all(&place, ended.complaints());
    match ended.code {
        Some(0) => report.fail_all(&place, differences(&run, &stage.whole, true)),
        code => report.fail(format!(
            "{place}: mismatch: ended with {code:?}: {}",
            ended.err
        )),
    }
}

/// The run on a disk, whose cache is there, too.
fn start(stage: &Stage, disk: &Path, threads: u64) -> Running {
    let command = stage.command_with(&[], &disk.join("run"), threads, &disk.join("cache"));
    Running::start(command)
}

/// Copies an image, of which most is empty.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("--sparse=always")
        .args([from, to])
        .status();
    assert!(copied.is_ok_and(|status| status.success()), "cp {to:?}");
}
