//! What the program says of drivers and cards that it cannot use, and what it does where a driver does not
//! take a module: through the emulated driver, which its environment makes such a one.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::{command, gpu, score_args};

/// Whether the driver is the emulated one.
fn emulated() -> bool {
    let emulated = gpu().is_some() && std::env::var_os("EXPO_EMULATOR").is_some();
    if !emulated {
        eprintln!("skipped: needs the emulated driver");
    }
    emulated
}

/// Scores a few pairs with these variables set, into `scores.jsonl` of `place`.
fn score(place: &Path, variables: &[(&str, &str)]) -> Output {
    let args = score_args(place, "cuda:0");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = command(&place.join("cache"), &args);
    command.envs(variables.iter().copied());
    command.output().unwrap()
}

/// The scores, where they are made.
fn scores(place: &Path, variables: &[(&str, &str)]) -> String {
    let output = score(place, variables);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{variables:?}: {said}");
    let scores = fs::read_to_string(place.join("scores.jsonl")).unwrap();
    fs::remove_file(place.join("scores.jsonl")).unwrap();
    scores
}

/// Variables, and what is said then.
type Case<'a> = (&'a [(&'a str, &'a str)], [&'a str; 2]);

#[test]
fn what_cannot_be_used_is_refused_with_what_would_do() {
    if !emulated() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    // cuBLAS's workspace and next to nothing more.
    let memory = ((32 << 20) + 4096).to_string();
    let cases: [Case; 5] = [
        (
            &[("EXPO_EMULATOR_DRIVER", "12080")],
            ["for CUDA 12.8", "580 or later"],
        ),
        (
            &[("EXPO_EMULATOR_CARD", "75")],
            ["emulator on the CPU, has compute capability 7.5", "8.0"],
        ),
        (
            &[("NVIDIA_TF32_OVERRIDE", "1")],
            ["f32 matmuls inexact", "unset it"],
        ),
        (
            &[("EXPO_EMULATOR_MEMORY", &memory)],
            ["asked for", "0.03 GiB held"],
        ),
        (
            &[
                ("EXPO_EMULATOR_CARD", "120"),
                ("EXPO_EMULATOR_REFUSES", "ptx"),
            ],
            ["newer than the NVIDIA driver", "CUDA 13.0"],
        ),
    ];
    for (variables, wanted) in cases {
        let output = score(place.path(), variables);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variables:?}: {said}");
        for wanted in wanted {
            assert!(said.contains(wanted), "{variables:?}: {said}");
        }
    }
}

#[test]
fn ptx_serves_where_machine_code_does_not() {
    if !emulated() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let want = scores(place.path(), &[]);
    // A driver that refuses machine code, and a card that NVRTC does not know.
    for variable in [
        ("EXPO_EMULATOR_REFUSES", "cubin"),
        ("EXPO_EMULATOR_CARD", "120"),
    ] {
        assert_eq!(scores(place.path(), &[variable]), want, "{variable:?}");
    }
    let kernels = fs::read_dir(place.path().join("cache/expo/kernels")).unwrap();
    let names: Vec<_> = kernels.map(|file| file.unwrap().path()).collect();
    for end in ["cubin", "ptx"] {
        assert!(
            names
                .iter()
                .any(|name| name.extension().is_some_and(|x| x == end))
        );
    }
}

#[test]
fn damaged_machine_code_is_made_anew() {
    if !emulated() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let want = scores(place.path(), &[]);
    let folder = place.path().join("cache/expo/kernels");
    let files = || -> Vec<_> {
        let files = fs::read_dir(&folder).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    };
    let whole: Vec<_> = files()
        .into_iter()
        .map(|file| {
            let bytes = fs::read(&file).unwrap();
            fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
            (file, bytes)
        })
        .collect();
    assert!(!whole.is_empty());
    assert_eq!(scores(place.path(), &[]), want);
    for (file, bytes) in whole {
        assert!(fs::read(&file).unwrap() == bytes, "{file:?}");
    }
}
