//! Outputs that are something else than a new file: a device, a pipe, a link, an input, another's file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::fixture;

/// A directory with a model, rows, and a config of the user.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let rows = fs::read_to_string(fixture("pairs.jsonl")).unwrap();
        let rows: Vec<&str> = rows.lines().take(2).collect();
        fs::write(scene.path("rows.jsonl"), rows.join("\n") + "\n").unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_expo"));
        command
            .args(words)
            .current_dir(self.folder.path())
            .env("RAYON_NUM_THREADS", "1")
            .env("XDG_CACHE_HOME", self.path("cache"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// The words of `expo score` of the rows into `out`.
    fn score<'a>(model: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["score", "--model", model, "--data", "rows.jsonl"];
        let lengths = ["--max-length", "48", "--max-prompt-length", "24"];
        [&words[..], &lengths, &["--out", out], more].concat()
    }

    /// The words of `expo sample` into `out`.
    fn sample<'a>(model: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["sample", "--model", model, "--prompts", "rows.jsonl"];
        let few = ["--max-new-tokens", "2", "--max-prompt-length", "8"];
        [&words[..], &few, &["--out", out], more].concat()
    }

    /// A run directory without a run's weights.
    fn record(&self) {
        fs::create_dir(self.path("run")).unwrap();
        fs::write(self.path("run/run.json"), "{}").unwrap();
        fs::write(self.path("run/config.toml"), "").unwrap();
        fs::write(
            self.path("run/metrics.jsonl"),
            "{\"step\":1,\"loss\":0.5}\n",
        )
        .unwrap();
        fs::write(self.path("run/model.safetensors"), "weights").unwrap();
    }

    fn refuse(&self, words: &[&str], expected: &str) {
        let end = self.run(words);
        let said = String::from_utf8(end.stderr).unwrap();
        assert_eq!(end.status.code(), Some(2), "{words:?}: {said}");
        let error = said.lines().find(|line| line.starts_with("error: "));
        let error = error.unwrap_or_else(|| panic!("{words:?}: {said}"));
        assert!(error.contains(expected), "{words:?}: {error}");
    }
}

fn model() -> String {
    fixture("llama").to_str().unwrap().to_owned()
}

fn ok(end: Output) -> (String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(end.stdout), text(end.stderr));
    assert!(end.status.success(), "{err}");
    (out, err)
}

#[test]
fn an_output_that_is_an_input_is_refused() {
    let scene = Scene::new();
    let rows = fs::read(scene.path("rows.jsonl")).unwrap();
    fs::hard_link(scene.path("rows.jsonl"), scene.path("hard.jsonl")).unwrap();
    fs::create_dir(scene.path("below")).unwrap();
    let model = model();
    for out in [
        "rows.jsonl",
        "below/../rows.jsonl",
        "./rows.jsonl",
        "hard.jsonl",
    ] {
        let reads = "the same command";
        scene.refuse(&Scene::score(&model, out, &["--overwrite"]), reads);
        scene.refuse(&Scene::sample(&model, out, &["--overwrite"]), reads);
        let pairs = [
            "eval",
            "pairs",
            "--model",
            &model,
            "--data",
            "rows.jsonl",
            "--out",
            out,
            "--overwrite",
        ];
        scene.refuse(&pairs, reads);
        let judge = [
            "eval",
            "judge",
            "--samples",
            "rows.jsonl",
            "--against",
            "rows.jsonl",
        ];
        let judge = [&judge[..], &["--judge", "length"]].concat();
        scene.refuse(
            &[&judge[..], &["--out", out, "--overwrite"]].concat(),
            reads,
        );
        scene.refuse(&[&judge[..], &["--cache", out]].concat(), reads);
    }
    assert!(fs::read(scene.path("rows.jsonl")).unwrap() == rows);
}

#[test]
fn a_part_of_a_run_or_a_model_is_refused() {
    let scene = Scene::new();
    scene.record();
    let model = model();
    for name in [
        "run/metrics.jsonl",
        "run/model.safetensors",
        "run/margins.json",
    ] {
        let part = "is a part of the run ";
        scene.refuse(&["report", "run", "--out", name], part);
        scene.refuse(&Scene::score(&model, name, &["--overwrite"]), part);
        scene.refuse(&Scene::sample(&model, name, &["--overwrite"]), part);
    }
    assert_eq!(
        fs::read(scene.path("run/model.safetensors")).unwrap(),
        b"weights"
    );
    scene.refuse(
        &["bandit", "theory", "--out", "run/checkpoint-3"],
        "is a part of the run ",
    );
}

#[test]
fn a_report_replaces_reports_only() {
    let scene = Scene::new();
    scene.record();
    let report = |out: &str| scene.run(&["report", "run", "--out", out]);
    fs::write(scene.path("c.toml"), "[model]").unwrap();
    fs::write(scene.path("page.html"), "<!DOCTYPE html>\n<p>mine</p>").unwrap();
    for name in ["c.toml", "page.html", "rows.jsonl"] {
        let before = fs::read(scene.path(name)).unwrap();
        let expected = "already exists, and was not written by this command";
        scene.refuse(&["report", "run", "--out", name], expected);
        assert!(fs::read(scene.path(name)).unwrap() == before);
    }
    ok(report("r.html"));
    let page = fs::read(scene.path("r.html")).unwrap();
    ok(report("r.html"));
    ok(scene.run(&["report", "run"]));
    ok(scene.run(&["report", "run"]));
    fs::write(scene.path("empty.html"), "").unwrap();
    ok(report("empty.html"));
    let (out, err) = ok(report("-"));
    assert!(out.as_bytes() == page);
    assert_eq!(err, "-\n");
    scene.refuse(
        &["report", "run", "--watch", "--out", "-"],
        "a file is needed",
    );
}

#[test]
fn a_file_that_no_flag_gives_away_stays() {
    let scene = Scene::new();
    for (name, args) in [
        ("config.toml", &["bandit", "theory", "--out", "."][..]),
        ("kept.json", &[]),
    ] {
        fs::write(scene.path(name), "mine").unwrap();
        if !args.is_empty() {
            scene.refuse(args, "already");
        }
    }
    let model = model();
    let list = ["--alpaca-eval", "kept.json", "--generator", "mine"];
    ok(scene.run(&Scene::sample(&model, "s.jsonl", &[])));
    scene.refuse(
        &Scene::sample(&model, "s.jsonl", &list),
        "already exists, and was not written by this command",
    );
    let list = ["--alpaca-eval", "list.json", "--generator", "mine"];
    for _ in 0..2 {
        ok(scene.run(&Scene::sample(&model, "s.jsonl", &list)));
    }
    for name in ["config.toml", "kept.json"] {
        assert_eq!(fs::read(scene.path(name)).unwrap(), b"mine");
    }
}

#[test]
#[cfg(unix)]
fn links_pipes_sockets_and_directories_are_not_replaced() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let scene = Scene::new();
    scene.record();
    let model = model();
    fs::write(scene.path("precious"), "precious").unwrap();
    symlink("precious", scene.path("link")).unwrap();
    symlink("nowhere", scene.path("dangling")).unwrap();
    fs::create_dir(scene.path("directory")).unwrap();
    let made = Command::new("mkfifo").arg(scene.path("pipe")).status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(scene.path("socket")).unwrap();
    for (name, expected) in [
        ("link", "is a symbolic link to precious; "),
        ("dangling", "is a symbolic link to nowhere; "),
        ("directory", "is a directory, not a file"),
        ("pipe", "is a pipe, not a file"),
        ("socket", "is a socket, not a file"),
    ] {
        scene.refuse(&["report", "run", "--out", name], expected);
        scene.refuse(&Scene::score(&model, name, &["--overwrite"]), expected);
        scene.refuse(&Scene::sample(&model, name, &["--overwrite"]), expected);
        let list = ["--alpaca-eval", name, "--generator", "x"];
        scene.refuse(&Scene::sample(&model, "new.jsonl", &list), expected);
    }
    assert_eq!(fs::read(scene.path("precious")).unwrap(), b"precious");
    assert!(!scene.path("nowhere").exists() && !scene.path("new.jsonl").exists());
    let kind = |name: &str| fs::symlink_metadata(scene.path(name)).unwrap().file_type();
    assert!(kind("link").is_symlink() && kind("pipe").is_fifo() && kind("socket").is_socket());
}

#[test]
#[cfg(target_os = "linux")]
fn devices_are_written_to_and_not_replaced() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let scene = Scene::new();
    scene.record();
    let model = model();
    let is_device = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        found.file_type().is_char_device()
    };
    // Where it may be made, one of the test's own, so that nothing of the machine is at stake.
    let own = |name: &str, minor: &str| {
        let path = scene.path(name);
        let made = Command::new("mknod")
            .arg(&path)
            .args(["c", "1", minor])
            .output();
        let usable = || fs::OpenOptions::new().write(true).open(&path).is_ok();
        (made.is_ok_and(|end| end.status.success()) && usable()).then_some(path)
    };
    let (Some(null), Some(full)) = (own("null", "3"), own("full", "7")) else {
        eprintln!("skipped: no device can be made here");
        return;
    };
    for words in [
        vec!["report", "run", "--out", "null"],
        Scene::score(&model, "null", &["--overwrite"]),
        Scene::sample(&model, "null", &[]),
    ] {
        ok(scene.run(&words));
    }
    for words in [
        vec!["report", "run", "--out", "full"],
        Scene::score(&model, "full", &[]),
        Scene::sample(&model, "full", &["--overwrite"]),
    ] {
        let end = scene.run(&words);
        let said = String::from_utf8(end.stderr).unwrap();
        assert_eq!(end.status.code(), Some(1), "{said}");
        assert!(
            said.contains("error: full: No space left on device"),
            "{said}"
        );
    }
    assert!(is_device(&null) && is_device(&full));
    symlink("null", scene.path("link")).unwrap();
    scene.refuse(
        &Scene::score(&model, "link", &[]),
        "is a symbolic link to null",
    );
}

#[test]
fn standard_output_is_written_to_by_all_its_names() {
    let scene = Scene::new();
    let model = model();
    let names: &[&str] = match cfg!(target_os = "linux") {
        true => &["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"],
        false => &["-"],
    };
    for words in [Scene::score, Scene::sample] {
        ok(scene.run(&words(&model, "file", &[])));
        let file = fs::read_to_string(scene.path("file")).unwrap();
        fs::remove_file(scene.path("file")).unwrap();
        for name in names {
            let (out, err) = ok(scene.run(&words(&model, name, &["--json"])));
            assert!(out == file, "{name}: {out}");
            assert!(err.contains(&format!("\"out\":\"{name}\"")), "{err}");
            // Where standard output is a file, it is that file.
            let to = fs::File::create(scene.path("to")).unwrap();
            let mut command = scene.command(&words(&model, name, &[]));
            assert!(
                command
                    .stdout(to)
                    .stderr(Stdio::null())
                    .status()
                    .unwrap()
                    .success()
            );
            assert!(
                fs::read_to_string(scene.path("to")).unwrap() == file,
                "{name}"
            );
        }
    }
    assert!(!scene.path("-").exists());
    if cfg!(unix) {
        let (out, _) = ok(scene.run(&Scene::score(&model, "/dev/stderr", &["--json"])));
        assert!(out.contains("\"out\":\"/dev/stderr\""), "{out}");
    }
    scene.refuse(&["bandit", "theory", "--out", "-"], "a directory is needed");
    let config = format!("{model}/config.json");
    let init = [
        "init",
        "--config-json",
        &config,
        "--tokenizer",
        &model,
        "--out",
        "-",
    ];
    scene.refuse(&init, "a directory is needed");
    let list = ["--alpaca-eval", "list.json", "--generator", "x"];
    scene.refuse(&Scene::sample(&model, "-", &list), "is made of a file");
}

#[test]
#[cfg(unix)]
fn a_reader_that_wants_no_more_ends_the_command_quietly() {
    let scene = Scene::new();
    let model = model();
    for words in [Scene::score, Scene::sample] {
        let mut command = scene.command(&words(&model, "-", &[]));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let end = command.stdout(writer).stderr(Stdio::piped()).output();
        ok(end.unwrap());
    }
}
