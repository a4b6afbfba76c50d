//! `expo` beside a program that stands for `expo-cuda`, and a library that stands for NVIDIA's driver.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::cli::{Place, str};
use crate::support::fixture;

/// A directory with a copy of `expo`, a driver in `lib`, and what lies beside.
struct Installed {
    place: Place,
    expo: PathBuf,
}

/// A library without which [`Installed::real_program`] does not start.
const LIBRARY: &str = "libcublas.so.13";

impl Installed {
    /// With a driver of this text in C; `None`, said on stderr, where the test cannot be made.
    fn with_driver(driver: &str) -> Option<Self> {
        if expo::kernels::device::CUDA {
            eprintln!("skipped: this build has CUDA, and hands nothing over");
            return None;
        }
        if !Command::new("cc")
            .arg("--version")
            .output()
            .is_ok_and(|cc| cc.status.success())
        {
            eprintln!("skipped: there is no cc");
            return None;
        }
        let place = Place::new();
        let expo = place.path("expo");
        if fs::hard_link(env!("CARGO_BIN_EXE_expo"), &expo).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_expo"), &expo).unwrap();
        }
        fs::create_dir(place.path("lib")).unwrap();
        let installed = Self { place, expo };
        let driver = installed.place.write("driver.c", driver);
        installed.compile(&["-shared", "-fPIC", "-o", "lib/libcuda.so.1", str(&driver)]);
        Some(installed)
    }

    /// With a driver of CUDA 13.0 that has one GPU.
    fn with_gpu() -> Option<Self> {
        Self::with_driver(&driver(0, 13_000, 1))
    }

    fn compile(&self, args: &[&str]) {
        let mut cc = Command::new("cc");
        let cc = cc.args(args).current_dir(self.place.folder.path()).output();
        let cc = cc.unwrap();
        assert!(
            cc.status.success(),
            "{}",
            String::from_utf8_lossy(&cc.stderr)
        );
    }

    /// Puts a script in place of `expo-cuda`, which says this version.
    fn script(&self, version: &str, then: &str) {
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo '{version}'; exit 0; fi\n{then}\n"
        );
        let path = self.place.write("expo-cuda", text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Puts a script in place of `expo-cuda`, of the same version.
    fn same_version(&self, then: &str) {
        let version = self.run(&["--version"], &[]).stdout;
        let version = String::from_utf8(version).unwrap();
        self.script(&format!("{} with CUDA", version.trim()), then);
    }

    /// Puts a program in place of `expo-cuda` that needs a library which is not there.
    fn without_library(&self) {
        let text = "int needed(void) { return 0; }\n";
        let (library, program) = (
            self.place.write("library.c", text),
            self.place.write(
                "program.c",
                "int needed(void);\nint main(void) { return needed(); }\n",
            ),
        );
        let soname = format!("-Wl,-soname,{LIBRARY}");
        self.compile(&["-shared", "-fPIC", &soname, "-o", LIBRARY, str(&library)]);
        self.compile(&["-o", "expo-cuda", str(&program), LIBRARY]);
        fs::remove_file(self.place.path(LIBRARY)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command_of(&self.expo, args);
        command.env("LD_LIBRARY_PATH", self.place.path("lib"));
        command.env_remove("EXPO_CUDA");
        command
    }

    fn run(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = self.command(args);
        command.envs(variables.iter().copied()).output().unwrap()
    }
}

/// A driver in C: what `cuInit` returns, its version of CUDA and its GPUs.
fn driver(init: i32, version: i32, gpus: i32) -> String {
    format!(
        "int cuInit(unsigned flags) {{ (void)flags; return {init}; }}\n\
         int cuDriverGetVersion(int *version) {{ *version = {version}; return 0; }}\n\
         int cuDeviceGetCount(int *count) {{ *count = {gpus}; return 0; }}\n"
    )
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Scoring by a fixture's model, on a device.
fn score<'a>(model: &'a Path, rows: &'a Path, device: &'a str) -> Vec<&'a str> {
    let (model, rows) = (str(model), str(rows));
    let files = [
        "score",
        "--model",
        model,
        "--data",
        rows,
        "--out",
        "scores.jsonl",
        "--overwrite",
    ];
    [&files[..], &["--device", device]].concat()
}

#[test]
fn a_command_goes_to_the_program_for_cuda_in_the_same_process() {
    let Some(installed) = Installed::with_gpu() else {
        return;
    };
    installed.same_version("echo $$ \"$@\"; exit 7");
    let (model, rows) = (fixture("neox"), fixture("pairs.jsonl"));
    for device in ["auto", "cuda", "cuda:3"] {
        let args = score(&model, &rows, device);
        let mut command = installed.command(&args);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let id = child.id();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", err(&output));
        assert_eq!(out(&output), format!("{id} {}\n", args.join(" ")));
        assert_eq!(err(&output), "");
    }
    installed.same_version("kill -TERM $$; sleep 60");
    let killed = installed.run(&score(&model, &rows, "auto"), &[]);
    assert_eq!(killed.status.signal(), Some(15));
}

#[test]
fn configs_and_sweeps_say_where_they_are_computed() {
    let Some(installed) = Installed::with_gpu() else {
        return;
    };
    installed.same_version("echo \"cuda $1\"");
    let place = &installed.place;
    let config = place.config(&fixture("neox"), "dpo", "", "max_steps = 1");
    let text = fs::read_to_string(&config).unwrap();
    let base = text.replace("[loss.dpo]\n", "");
    let sweep = place.write(
        "sweep.toml",
        base.clone() + "[[sweep]]\nloss = [\"dpo\", \"ipo\"]\n",
    );
    let config = str(&config);
    for (args, handed_over) in [
        (vec!["train", "--config", config], true),
        (
            vec!["train", "--config", config, "--set", "model.device=cuda:0"],
            true,
        ),
        (vec!["sft", "--config", config, "--set", "loss=sft"], true),
        (vec!["sweep", "--config", str(&sweep)], true),
        (vec!["train", "--config", config, "--print-config"], false),
        (vec!["sweep", "--config", str(&sweep), "--list"], false),
        (vec!["plan", "--config", config], false),
        (vec!["train", "--help"], false),
        (vec!["losses"], false),
        (
            vec!["train", "--config", config, "--set", "model.device=cpu"],
            false,
        ),
        (vec!["train", "--config", "nowhere.toml"], false),
        (
            vec!["train", "--config", config, "--set", "model.device=3"],
            false,
        ),
    ] {
        let output = installed.run(&args, &[]);
        let (said, err) = (out(&output), err(&output));
        let want = format!("cuda {}\n", args[0]);
        assert_eq!(said == want, handed_over, "{args:?}: {said}{err}");
        assert!(!err.contains("warning"), "{args:?}: {err}");
    }
    // Where one run of many is not the CPU's, the GPU has them all.
    let cpu = base.replace("[model]\n", "[model]\ndevice = \"cpu\"\n");
    for (runs, handed_over) in [
        ("[[sweep]]\nloss = \"dpo\"\n", false),
        (
            "[[sweep]]\nloss = \"dpo\"\nmodel.device = [\"cpu\", \"auto\"]\n",
            true,
        ),
    ] {
        let sweep = place.write("sweep.toml", cpu.clone() + runs);
        let output = installed.run(&["sweep", "--config", str(&sweep)], &[]);
        assert_eq!(
            out(&output) == "cuda sweep\n",
            handed_over,
            "{}",
            err(&output)
        );
    }
}

#[test]
fn a_config_from_a_pipe_is_left_to_the_program_that_computes() {
    let Some(installed) = Installed::with_gpu() else {
        return;
    };
    installed.same_version("wc -l < \"$3\"");
    let mut child = installed
        .command(&["train", "--config", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"[model]\n\n[data]\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(out(&output).trim(), "3");
}

#[test]
fn without_a_gpu_the_cpu_computes_and_the_header_says_why() {
    let (model, rows) = (fixture("neox"), fixture("pairs.jsonl"));
    for (driver, why, refusal) in [
        (
            "",
            ", as there is no NVIDIA driver",
            "there is no NVIDIA driver",
        ),
        (
            &driver(100, 13_000, 0),
            ", as there is no GPU",
            "finds no GPU",
        ),
        (
            &driver(0, 13_000, 0),
            ", as there is no GPU",
            "finds no GPU",
        ),
        (
            &driver(0, 12_040, 0),
            ", as there is no GPU",
            "finds no GPU",
        ),
        (
            &driver(803, 13_000, 1),
            "",
            "the NVIDIA driver fails with error 803",
        ),
        (
            &driver(0, 12_080, 1),
            "",
            "the NVIDIA driver supports CUDA 12.8 only",
        ),
    ] {
        let Some(installed) = Installed::with_driver(driver) else {
            return;
        };
        installed.same_version("echo handed over; exit 7");
        let output = installed.run(&score(&model, &rows, "auto"), &[]);
        let err = err(&output);
        assert_eq!(output.status.code(), Some(0), "{err}");
        assert!(
            err.lines().any(|line| line == format!("device cpu{why}")),
            "{err}"
        );
        let warning = format!("warning: computing on the CPU: {refusal}");
        assert_eq!(err.contains(&warning), why.is_empty(), "{err}");
        let output = installed.run(&score(&model, &rows, "cuda:0"), &[]);
        let error = format!("error: --device: device \"cuda:0\": {refusal}");
        assert!(
            self::err(&output).starts_with(&error.replace("finds", "the NVIDIA driver finds")),
            "{}",
            self::err(&output)
        );
        assert_eq!(output.status.code(), Some(2));
        // Whoever knows better says so.
        let output = installed.run(&score(&model, &rows, "auto"), &[("EXPO_CUDA", "always")]);
        assert_eq!(
            (output.status.code(), out(&output)),
            (Some(7), "handed over\n")
        );
    }
}

#[test]
fn a_library_that_is_missing_is_named_with_what_to_install() {
    let Some(installed) = Installed::with_gpu() else {
        return;
    };
    installed.without_library();
    let (model, rows) = (fixture("neox"), fixture("pairs.jsonl"));
    let what =
        format!("expo-cuda does not start: {LIBRARY} is missing; install the libraries of CUDA 13");
    let output = installed.run(&score(&model, &rows, "auto"), &[]);
    let warnings: Vec<&str> = err(&output)
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    assert_eq!(
        (output.status.code(), warnings.len()),
        (Some(0), 1),
        "{}",
        err(&output)
    );
    assert!(warnings[0].contains(&what), "{}", warnings[0]);
    for (device, variables) in [("cuda:0", &[][..]), ("auto", &[("EXPO_CUDA", "always")])] {
        let output = installed.run(&score(&model, &rows, device), variables);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
        assert!(err(&output).contains(&what), "{}", err(&output));
    }
}

#[test]
fn a_program_for_cuda_of_another_version_is_refused() {
    let Some(installed) = Installed::with_gpu() else {
        return;
    };
    let (model, rows) = (fixture("neox"), fixture("pairs.jsonl"));
    // The second is a build without CUDA under the other's name.
    for version in [
        "expo 0.0.1 with CUDA",
        concat!("expo ", env!("CARGO_PKG_VERSION")),
        "another program",
    ] {
        installed.script(version, "echo handed over");
        for device in ["auto", "cuda:0"] {
            let output = installed.run(&score(&model, &rows, device), &[]);
            let err = err(&output);
            assert_eq!((output.status.code(), out(&output)), (Some(2), ""), "{err}");
            assert_eq!(err.lines().count(), 1, "{err}");
            assert!(
                err.contains(version) && err.contains("scripts/build_release.sh"),
                "{err}"
            );
        }
        let output = installed.run(&score(&model, &rows, "cpu"), &[]);
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn the_program_for_cuda_can_be_forbidden() {
    let Some(installed) = Installed::with_gpu() else {
        return;
    };
    installed.same_version("echo handed over");
    let (model, rows) = (fixture("neox"), fixture("pairs.jsonl"));
    let never = [("EXPO_CUDA", "never")];
    let output = installed.run(&score(&model, &rows, "auto"), &never);
    assert!(
        err(&output).lines().any(|line| line == "device cpu"),
        "{}",
        err(&output)
    );
    let output = installed.run(&score(&model, &rows, "cuda:0"), &never);
    assert!(
        err(&output).contains("this build of expo has no CUDA"),
        "{}",
        err(&output)
    );
    let output = installed.run(&score(&model, &rows, "auto"), &[("EXPO_CUDA", "yes")]);
    let want = "error: EXPO_CUDA is \"yes\"; valid: auto, always, never\n";
    assert_eq!((output.status.code(), err(&output)), (Some(2), want));
}

#[test]
fn a_gpu_without_the_program_for_cuda_is_told_how_to_build_it() {
    let Some(installed) = Installed::with_gpu() else {
        return;
    };
    let (model, rows) = (fixture("neox"), fixture("pairs.jsonl"));
    let output = installed.run(&score(&model, &rows, "cuda:0"), &[]);
    assert_eq!(output.status.code(), Some(2));
    let words = [
        "--device: ",
        "has no CUDA",
        "expo-cuda; scripts/build_release.sh builds both",
    ];
    for word in words {
        assert!(err(&output).contains(word), "{}", err(&output));
    }
    let output = installed.run(&score(&model, &rows, "auto"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}
