//! A table of wrong inputs, each with its exit code and the words of its message: the place, the
//! fact and what would be valid. What every refusal keeps is asserted of each of them: one last
//! line that begins with `error: `, no panic, no hang, and not a byte written.

#[path = "wrong/commands.rs"]
mod commands;
#[path = "wrong/eval.rs"]
mod eval;
#[path = "wrong/foreign.rs"]
mod foreign;
#[path = "wrong/models.rs"]
mod models;
#[path = "wrong/paths.rs"]
mod paths;
#[path = "wrong/rows.rs"]
mod rows;
#[path = "wrong/settings.rs"]
mod settings;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Place;
use crate::support::{fixture, holds_within};

/// Nothing here takes a second; a pipe without a writer would take forever.
const LIMIT: Duration = Duration::from_secs(20);

/// What Git LFS leaves where a file was not fetched.
const LFS: &str = "version https://git-lfs.github.com/spec/v1\n\
                   oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n\
                   size 12345\n";
/// What a server sends in the place of a file.
const PAGE: &str = "<!DOCTYPE html>\n<html><body>Not Found</body></html>\n";

/// A row of the table.
struct Case {
    name: &'static str,
    /// Makes the input; the arguments that meet it. `None`: it cannot be made on this machine.
    input: fn(&Place) -> Option<Vec<String>>,
    code: i32,
    /// What the message says, where there is an error; else what is said on stdout.
    says: &'static [&'static str],
}

/// Wrong input: exit code 2.
const fn refused(
    name: &'static str,
    input: fn(&Place) -> Option<Vec<String>>,
    says: &'static [&'static str],
) -> Case {
    Case {
        name,
        input,
        code: 2,
        says,
    }
}

/// Unusual input that is read all the same.
const fn accepted(
    name: &'static str,
    input: fn(&Place) -> Option<Vec<String>>,
    says: &'static [&'static str],
) -> Case {
    Case {
        name,
        input,
        code: 0,
        says,
    }
}

#[test]
fn every_wrong_input_has_its_message_and_its_exit_code() {
    let tables = [
        rows::CASES,
        models::CASES,
        settings::CASES,
        commands::CASES,
        paths::CASES,
        eval::CASES,
        foreign::CASES,
    ];
    let (mut cases, mut skipped, mut failed) = (0, 0, Vec::new());
    for case in tables.into_iter().flatten() {
        cases += 1;
        let place = Place::new();
        let Some(args) = (case.input)(&place) else {
            eprintln!("skipped: {}", case.name);
            skipped += 1;
            continue;
        };
        if let Err(why) = check(case, &place, &args) {
            failed.push(format!("{}: {why}", case.name));
        }
    }
    let passed = cases - skipped - failed.len();
    eprintln!("wrong_inputs cases={cases} passed={passed} skipped={skipped}");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn check(case: &Case, place: &Place, args: &[String]) -> Result<(), String> {
    let before = contents(place.folder.path());
    let logs = tempfile::tempdir().unwrap();
    let (out, err) = (logs.path().join("out"), logs.path().join("err"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut child = place
        .command(&args)
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    if !holds_within(LIMIT, || child.try_wait().unwrap().is_some()) {
        child.kill().unwrap();
        child.wait().unwrap();
        return Err("it hangs".into());
    }
    let status = child.wait().unwrap();
    let [out, err] = [out, err].map(|path| fs::read_to_string(path).unwrap());
    if status.code() != Some(case.code) {
        return Err(format!("{status}, not {}: {err}{out}", case.code));
    }
    if err.contains("panicked") {
        return Err(format!("it panics: {err}"));
    }
    let said = match case.code {
        0 => out.as_str(),
        _ => err.lines().last().unwrap_or_default(),
    };
    if case.code != 0 && !(said.starts_with("error: ") && out.is_empty()) {
        return Err(format!(
            "no error in the last line of {err}, or more in {out}"
        ));
    }
    if let Some(word) = case.says.iter().find(|word| !said.contains(**word)) {
        return Err(format!("no {word:?} in {said}"));
    }
    if case.code != 0 && contents(place.folder.path()) != before {
        return Err("it left something behind, or changed what was there".into());
    }
    Ok(())
}

/// Every file below a folder with its bytes, and every folder.
fn contents(folder: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        // A folder that is not readable is the subject of a test.
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            if path.is_dir() {
                left.push(path);
                found.insert(name, None);
            } else {
                // Neither a pipe nor a file without permission.
                let bytes = path.is_file().then(|| fs::read(&path).ok()).flatten();
                found.insert(name, bytes);
            }
        }
    }
    found
}

/// Arguments of a run on the fixture `neox` under `loss`, with overrides.
fn train(place: &Place, loss: &str, sets: &[&str]) -> Option<Vec<String>> {
    with_config(place, "train", loss, sets)
}

fn with_config(place: &Place, command: &str, loss: &str, sets: &[&str]) -> Option<Vec<String>> {
    let config = place.config(&fixture("neox"), loss, "", "");
    let mut args: Vec<String> = command.split(' ').map(String::from).collect();
    args.extend(["--config".into(), config.display().to_string()]);
    for set in sets {
        args.extend(["--set".into(), (*set).to_string()]);
    }
    Some(args)
}

fn words(args: &[&str]) -> Option<Vec<String>> {
    Some(args.iter().map(ToString::to_string).collect())
}

fn path(name: &str) -> String {
    fixture(name).display().to_string()
}

/// A pipe that nobody writes to.
fn pipe(place: &Place, name: &str) -> Option<()> {
    let made = Command::new("mkfifo").arg(place.path(name)).status();
    made.is_ok_and(|status| status.success()).then_some(())
}

/// Takes all permissions away; `None` where that keeps nobody out, as for root.
#[cfg(unix)]
fn forbid(path: &Path, mode: u32) -> Option<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let probe = path.join("probe");
    let is_kept_out = match path.is_dir() {
        true => File::create(&probe).is_err(),
        false => File::open(path).is_err(),
    };
    let _ = fs::remove_file(probe);
    is_kept_out.then_some(())
}

#[cfg(not(unix))]
fn forbid(_: &Path, _: u32) -> Option<()> {
    None
}
