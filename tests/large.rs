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

use crate::support::fixture;

const GIB: usize = 1 << 30;
const ROW: &str =
    "{\"prompt\": \"Is the duck kind?\", \"chosen\": \" Yes.\", \"rejected\": \" No.\"}\n";

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

fn config(folder: &Path, rows: &Path) -> PathBuf {
    let text = format!(
        "[model]\nmodel_name_or_path = {:?}\n\
         [data]\nformat = \"pairs\"\ntrain = {rows:?}\nmax_length = 128\nmax_prompt_length = 64\n\
         [loss.simpo]\n[run]\noutput_dir = {:?}\nmax_steps = 1\n",
        fixture("neox"),
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
    let status = loop {
        most = peak(&child).unwrap_or_default().max(most);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
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

/// A file of `bytes` bytes at least, of this piece again and again after `start`.
fn fill(writer: &mut dyn Write, start: &str, piece: &[u8], bytes: usize) {
    writer.write_all(start.as_bytes()).unwrap();
    let block = piece.repeat((1 << 20) / piece.len() + 1);
    let mut left = bytes;
    while left > 0 {
        writer.write_all(&block).unwrap();
        left = left.saturating_sub(block.len());
    }
}

fn plain(folder: &Path, name: &str, start: &str, piece: &[u8], bytes: usize) -> PathBuf {
    let path = folder.join(name);
    fill(&mut File::create(&path).unwrap(), start, piece, bytes);
    path
}

/// As [`plain`], gzipped: a thousandth of it on the disk.
fn bomb(folder: &Path, name: &str, start: &str, piece: &[u8]) -> PathBuf {
    let path = folder.join(name);
    let file = File::create(&path).unwrap();
    let mut encoder = GzEncoder::new(file, Compression::best());
    fill(&mut encoder, start, piece, GIB);
    encoder.finish().unwrap();
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < 8 << 20, "{size}");
    path
}

fn show(folder: &Path, rows: &Path) -> End {
    let config = config(folder, rows);
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
            let config = config(folder.path(), &path);
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
    let words = |name: &'static str| [name, "longer than 64 MiB", "a line of its own"];
    let rows = plain(here, "row.jsonl", "{\"prompt\": \"", b"a", GIB);
    refused("line", 1, &show(here, &rows), &words("row.jsonl:1"), 256.0);
    let start = format!("{ROW}{{\"prompt\": \"");
    let rows = plain(here, "row.jsonl", &start, b"a", GIB);
    refused(
        "second_line",
        2,
        &show(here, &rows),
        &words("row.jsonl:2"),
        256.0,
    );
    let rows = plain(here, "row.jsonl", "", b"[", GIB);
    refused(
        "deep_line",
        1,
        &show(here, &rows),
        &words("row.jsonl:1"),
        256.0,
    );
    let rows = plain(
        here,
        "rows.json",
        "[\n",
        ROW.trim_end().replace('}', "},\n").as_bytes(),
        GIB,
    );
    let list = ["rows.json", "longer than 256 MiB", "one object per line"];
    refused("list", GIB / ROW.len(), &show(here, &rows), &list, 768.0);

    let prompts = plain(here, "p.txt", "", b"why ", GIB);
    let (model, out) = (fixture("neox"), here.join("s.jsonl"));
    let args = [
        "--model",
        model.to_str().unwrap(),
        "--prompts",
        prompts.to_str().unwrap(),
    ];
    let end = run(
        here,
        &["sample"],
        &[&args[..], &["--out", out.to_str().unwrap()]].concat(),
    );
    refused("prompt", 1, &end, &words("p.txt:1"), 256.0);
    assert!(!out.exists());
}

#[test]
#[ignore = "takes minutes"]
fn a_gzip_bomb_is_refused_or_flat() {
    let folder = folder();
    let here = folder.path();
    let rows = bomb(here, "row.jsonl.gz", "{\"prompt\": \"", b"a");
    let line = ["row.jsonl.gz:1", "longer than 64 MiB"];
    refused("bomb_line", 1, &show(here, &rows), &line, 256.0);

    // A KiB each: every row is read, and left out.
    let row = format!(
        "{{\"prompt\": \"{}\", \"chosen\": \"\", \"rejected\": \"\"}}\n",
        "a".repeat(979)
    );
    assert_eq!(row.len(), 1 << 10);
    let rows = bomb(here, "rows.jsonl.gz", "", row.as_bytes());
    let none = [
        "rows.jsonl.gz",
        "none of 104",
        "rows is usable",
        "an answer is empty",
    ];
    refused("bomb_rows", GIB >> 10, &show(here, &rows), &none, 256.0);

    // One in 100 is kept.
    let mixed = row.repeat(99) + ROW;
    let rows = bomb(here, "rows.jsonl.gz", "", mixed.as_bytes());
    let end = show(here, &rows);
    report("bomb_kept", GIB >> 10, &end);
    assert_eq!(end.code, Some(0), "{}", end.said);
    assert!(end.peak < 256.0, "{} MiB", end.peak);
}
