//! Inputs beyond memory: flat memory, or a refusal, through the real program.
//!
//! Takes minutes and gigabytes of disk: `cargo test --release --test main large -- --ignored
//! --nocapture --test-threads 1`. It prints a line for each case.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::support::{fixture, holds_within};

const GIB: usize = 1 << 30;
const ROW: &str =
    "{\"prompt\": \"Is the duck kind?\", \"chosen\": \" Yes.\", \"rejected\": \" No.\"}\n";

/// A case that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(3600);

/// How a case ended: its exit code, the last line it said, the most memory it had in MiB.
struct End {
    code: Option<i32>,
    said: String,
    out: String,
    peak: f64,
}

/// A folder on the disk of the build, for that of temporary files may be memory.
fn folder() -> TempDir {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(target).unwrap();
    TempDir::new_in(target).unwrap()
}

fn config(folder: &Path, model: &Path, rows: &Path) -> PathBuf {
    let text = format!(
        "[model]\nmodel_name_or_path = {:?}\n\
         [data]\nformat = \"pairs\"\ntrain = {rows:?}\nmax_length = 128\nmax_prompt_length = 64\n\
         [loss.simpo]\n[run]\noutput_dir = {:?}\nmax_steps = 1\n",
        model,
        folder.join("out"),
    );
    let path = folder.join("run.toml");
    fs::write(&path, text).unwrap();
    path
}

/// The most memory that a running process ever had, in MiB, as Linux says.
fn peak(child: &Child) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes / 1024.0)
}

fn run(folder: &Path, command: &[&str], more: &[&str]) -> End {
    let [out, err] = ["stdout", "stderr"].map(|name| folder.join(name));
    let mut child = Command::new(env!("CARGO_BIN_EXE_expo"))
        .args(command)
        .args(more)
        // Where tokens go that do not fit.
        .env("TMPDIR", folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let mut most = 0.0_f64;
    let ended = holds_within(LONGEST, || {
        // The peak is a high-water mark: looking seldom misses only the last moment.
        most = peak(&child).unwrap_or_default().max(most);
        child.try_wait().unwrap().is_some()
    });
    if !ended {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    assert!(ended, "it runs longer than {LONGEST:?}");
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let last = text(&err).lines().last().unwrap_or_default().to_owned();
    End {
        code: status.code(),
        said: last.replace(&folder.display().to_string(), ""),
        out: text(&out),
        peak: most,
    }
}

fn report(case: &str, rows: usize, end: &End) {
    let outcome = match end.code {
        Some(0) => "read",
        _ => end.said.as_str(),
    };
    eprintln!(
        "large case={case} rows={rows} peak_mib={:.0} outcome={outcome:?}",
        end.peak
    );
}

/// Refused with exit code 2 and these words, in this much memory.
#[track_caller]
fn refused(case: &str, rows: usize, end: &End, words: &[&str], most: f64) {
    report(case, rows, end);
    assert_eq!(end.code, Some(2), "{}", end.said);
    assert!(end.said.starts_with("error: "), "{}", end.said);
    for word in words {
        assert!(end.said.contains(word), "no {word:?} in {}", end.said);
    }
    assert!(end.peak < most, "{} MiB", end.peak);
}

/// A gibibyte at least, of this piece again and again after `start`; how often.
fn fill(writer: &mut dyn Write, start: &str, piece: &[u8]) -> usize {
    writer.write_all(start.as_bytes()).unwrap();
    let pieces = (1 << 20) / piece.len() + 1;
    let block = piece.repeat(pieces);
    let blocks = GIB.div_ceil(block.len());
    for _ in 0..blocks {
        writer.write_all(&block).unwrap();
    }
    blocks * pieces
}

fn plain(folder: &Path, name: &str, start: &str, piece: &[u8]) -> (PathBuf, usize) {
    let path = folder.join(name);
    let pieces = fill(&mut File::create(&path).unwrap(), start, piece);
    (path, pieces)
}

/// As [`plain`], gzipped: a thousandth of it on the disk.
fn bomb(folder: &Path, name: &str, start: &str, piece: &[u8]) -> (PathBuf, usize) {
    let path = folder.join(name);
    let file = File::create(&path).unwrap();
    let mut encoder = GzEncoder::new(file, Compression::best());
    let pieces = fill(&mut encoder, start, piece);
    encoder.finish().unwrap();
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < 8 << 20, "{size}");
    (path, pieces)
}

fn show(folder: &Path, rows: &Path) -> End {
    let config = config(folder, &fixture("neox"), rows);
    run(
        folder,
        &["data", "show", "--config"],
        &[config.to_str().unwrap()],
    )
}

/// A row's own place in memory, where a hundred times the rows take the memory of these and no more.
const BYTES_PER_ROW: f64 = 100.0;

/// Where tokens are kept before they go to the disk, twice.
const STORE: f64 = 130.0;

#[test]
#[ignore = "takes minutes and a gigabyte of disk"]
fn a_million_rows_take_the_memory_of_an_index() {
    let folder = folder();
    for (case, command) in [
        ("show", &["data", "show", "--config"][..]),
        ("train", &["train", "--config"]),
    ] {
        let mut peaks = Vec::new();
        for count in [10_000, 1_000_000] {
            let path = folder.path().join("rows.jsonl");
            let mut file = BufWriter::new(File::create(&path).unwrap());
            for row in 0..count {
                writeln!(
                    file,
                    "{{\"prompt\": \"Is duck {row} kind?\", \"chosen\": \" Yes, {row}.\", \"rejected\": \" No.\"}}"
                )
                .unwrap();
            }
            file.into_inner().unwrap();
            let config = config(folder.path(), &fixture("neox"), &path);
            let end = run(folder.path(), command, &[config.to_str().unwrap()]);
            report(case, count, &end);
            assert_eq!(end.code, Some(0), "{}", end.said);
            if case == "show" {
                let kept = format!("kept{count:>28}\n");
                assert!(end.out.contains(&kept), "{}", end.out);
            }
            let _ = fs::remove_dir_all(folder.path().join("out"));
            peaks.push(end.peak);
        }
        let allowed = STORE + 1e6 * BYTES_PER_ROW / 1_048_576.0;
        assert!(peaks[1] < peaks[0] + allowed, "{case}: {peaks:?}");
    }
}

#[test]
#[ignore = "takes a gigabyte of disk"]
fn a_line_of_a_gigabyte_is_refused() {
    let folder = folder();
    let here = folder.path();
    let second = format!("{ROW}{{\"prompt\": \"");
    for (case, line, start, piece) in [
        ("line", 1, "{\"prompt\": \"", b"a"),
        ("second_line", 2, second.as_str(), b"a"),
        ("deep_line", 1, "", b"["),
    ] {
        let (rows, _) = plain(here, "row.jsonl", start, piece);
        let place = format!("row.jsonl:{line}");
        let words = [place.as_str(), "longer than 64 MiB", "a line of its own"];
        refused(case, line, &show(here, &rows), &words, 256.0);
    }
    let (rows, _) = plain(here, "rows.json", "[{\"prompt\": \"", b"a");
    let words = [
        "rows.json",
        "item 1 is longer than 64 MiB",
        "one object per line",
    ];
    refused("list", 1, &show(here, &rows), &words, 256.0);

    let (prompts, _) = plain(here, "p.txt", "", b"why ");
    let out = here.join("s.jsonl");
    let paths = [&fixture("neox"), &prompts, &out].map(|path| path.display().to_string());
    let [model, prompts, to] = &paths;
    let args = ["--model", model, "--prompts", prompts, "--out", to];
    let end = run(here, &["sample"], &args);
    refused("prompt", 1, &end, &["p.txt:1", "longer than 64 MiB"], 256.0);
    assert!(!out.exists());
}

#[test]
#[ignore = "takes minutes"]
fn a_gzip_bomb_is_refused_or_flat() {
    let folder = folder();
    let here = folder.path();
    let (rows, _) = bomb(here, "row.jsonl.gz", "{\"prompt\": \"", b"a");
    let words = ["row.jsonl.gz:1", "longer than 64 MiB"];
    refused("bomb_line", 1, &show(here, &rows), &words, 256.0);

    // A KiB each: every row is read, and left out.
    let prompt = "a".repeat(979);
    let row = format!("{{\"prompt\": {prompt:?}, \"chosen\": \"\", \"rejected\": \"\"}}\n");
    assert_eq!(row.len(), 1 << 10);
    let (rows, count) = bomb(here, "rows.jsonl.gz", "", row.as_bytes());
    let none = format!("none of {count} rows is usable");
    let words = ["rows.jsonl.gz", none.as_str(), "an answer is empty"];
    refused("bomb_rows", count, &show(here, &rows), &words, 256.0);

    // One in 100 is kept.
    let mixed = row.repeat(99) + ROW;
    let (rows, hundreds) = bomb(here, "rows.jsonl.gz", "", mixed.as_bytes());
    let end = show(here, &rows);
    report("bomb_kept", hundreds * 100, &end);
    assert_eq!(end.code, Some(0), "{}", end.said);
    let kept = format!("kept{hundreds:>28}\n");
    assert!(end.out.contains(&kept), "{}", end.out);
    assert!(end.peak < 256.0, "{} MiB", end.peak);
}

/// A file that only claims its size: no block of it is on the disk.
fn hollow(path: &Path, bytes: usize) {
    File::create(path).unwrap().set_len(bytes as u64).unwrap();
}

#[test]
#[ignore = "is no concern of every build"]
fn files_that_are_read_whole_have_a_limit() {
    for (name, most) in [
        ("config.json", "16 MiB"),
        ("generation_config.json", "16 MiB"),
        ("tokenizer.json", "256 MiB"),
        ("model.safetensors.index.json", "64 MiB"),
    ] {
        let folder = folder();
        let here = folder.path();
        let model = here.join("model");
        fs::create_dir(&model).unwrap();
        for entry in fs::read_dir(fixture("neox")).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, model.join(from.file_name().unwrap())).unwrap();
        }
        let config = config(here, &model, &fixture("pairs.jsonl"));
        hollow(&model.join(name), GIB);
        if name.contains("index") {
            fs::remove_file(model.join("model.safetensors")).unwrap();
        }
        let end = run(here, &["train", "--config"], &[config.to_str().unwrap()]);
        refused(name, 0, &end, &[name, "more than", most], 1024.0);
        assert!(!here.join("out").exists());
    }
}
