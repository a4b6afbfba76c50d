//! `expo report` itself: where it writes, what it refuses, how it watches.

use std::process::{Child, Command, Output, Stdio};

use super::*;
use crate::support::wait_until;

fn expo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_expo"));
    command.arg("report").args(args).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A run that has not ended.
fn going() -> TempDir {
    let record = json!({"step": 1, "epoch": 0.5, "loss": 0.5});
    by_hand(&[
        ("run.json", json!({"loss": "dpo", "hashes": {}}).to_string()),
        ("metrics.jsonl", lines([record])),
    ])
}

fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_page_lies_in_the_folder_of_the_run_or_where_out_says() {
    let folder = going();
    let page = folder.path().join("report.html");
    for _ in 0..2 {
        let (code, out, err) = said(&expo(&[str(folder.path())]).output().unwrap());
        assert_eq!(
            (code, out),
            (Some(0), format!("{}\n", page.display())),
            "{err}"
        );
        assert_eq!(
            fs::read_to_string(&page).unwrap(),
            page_of(&[folder.path()], None)
        );
    }
    let other = going();
    let out = folder.path().join("both.html");
    let args = [str(folder.path()), str(other.path())];
    let (code, _, err) = said(&expo(&args).output().unwrap());
    assert_eq!(code, Some(2));
    assert!(err.contains("2 runs and no --out; name the file"), "{err}");
    let (code, said, err) = said(
        &expo(&[args[0], args[1], "--out", str(&out)])
            .output()
            .unwrap(),
    );
    assert_eq!(
        (code, said),
        (Some(0), format!("{}, 2 runs\n", out.display())),
        "{err}"
    );
    assert!(
        fs::read_to_string(&out)
            .unwrap()
            .contains("<h1>2 runs</h1>")
    );
}

#[test]
fn what_is_no_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    for (args, says) in [
        (
            vec![str(folder.path())],
            "holds no run: there is no run.json; name the output_dir",
        ),
        (vec![str(&gone)], "no such file or directory"),
        (
            vec![str(whole()), "--out", str(folder.path())],
            "is a directory, not a file",
        ),
        (vec![str(whole()), "--watch", "0"], "0 is not in 1..=86400"),
    ] {
        let (code, out, err) = said(&expo(&args).output().unwrap());
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(says), "{err}");
    }
    assert!(!folder.path().join("report.html").exists());
}

/// Waits until the page of a folder is as it should be.
fn until(page: &Path, what: impl Fn(&str) -> bool) {
    wait_until(str(page), || {
        fs::read_to_string(page).is_ok_and(|text| what(&text))
    });
}

fn watching(folder: &Path) -> Child {
    expo(&[str(folder), "--watch", "1"]).spawn().unwrap()
}

#[test]
fn it_watches_until_the_run_has_ended() {
    let folder = going();
    let page = folder.path().join("report.html");
    let child = watching(folder.path());
    until(&page, |text| data(text)["refresh"] == 1);
    let records = [1, 2].map(|step| json!({"step": step, "epoch": 0.5, "loss": 0.5}));
    fs::write(folder.path().join("metrics.jsonl"), lines(records)).unwrap();
    until(&page, |text| {
        drawn(&data(text), "loss", "training").len() == 2
    });
    fs::write(folder.path().join("summary.json"), "{\"steps\": 2}").unwrap();
    let (code, out, err) = said(&child.wait_with_output().unwrap());
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{err}");
    let text = fs::read_to_string(&page).unwrap();
    assert_eq!(data(&text)["refresh"], Value::Null);
    assert!(text.contains("finished</span>"));
}

#[test]
#[cfg(unix)]
fn a_signal_ends_it_and_the_page_waits_for_nobody() {
    let folder = going();
    let page = folder.path().join("report.html");
    let child = watching(folder.path());
    until(&page, |text| data(text)["refresh"] == 1);
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let (code, _, err) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(143), "{err}");
    assert_eq!(
        data(&fs::read_to_string(&page).unwrap())["refresh"],
        Value::Null
    );
}
