//! Limits of the system and of sense: threads that cannot be started, counts that no memory holds,
//! control characters on their way to a terminal, no place for a cache.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::fixture;

/// A directory that anybody may read and write, with a model, rows and a config.
struct Scene {
    folder: TempDir,
}

/// How a command ended.
struct End {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        scene.open_to_all(scene.path(""));
        fs::create_dir(scene.path("model")).unwrap();
        for entry in fs::read_dir(fixture("llama")).unwrap() {
            let from = entry.unwrap().path();
            let to = scene.path("model").join(from.file_name().unwrap());
            fs::copy(from, to).unwrap();
        }
        fs::copy(fixture("pairs.jsonl"), scene.path("pairs.jsonl")).unwrap();
        scene.write(
            "run.toml",
            "[model]\nmodel_name_or_path = \"model\"\n\
             [data]\nformat = \"pairs\"\ntrain = \"pairs.jsonl[:6]\"\n\
             max_length = 64\nmax_prompt_length = 32\n[loss.dpo]\n[batch]\nbatch_size = 3\n\
             [run]\noutput_dir = \"run\"\n",
        );
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn open_to_all(&self, path: PathBuf) {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }

    fn command(&self, binary: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command
            .args(args)
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("HF_HUB_OFFLINE", "1")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn expo(&self, args: &[&str]) -> End {
        ended(&mut self.command(Path::new(env!("CARGO_BIN_EXE_expo")), args))
    }

    /// Runs a command that is refused: exit code 2 and a last line that has all of `words`.
    #[track_caller]
    fn refuse(&self, args: &[&str], words: &[&str]) {
        let end = self.expo(args);
        assert_eq!(end.code, Some(2), "{args:?}: {}", end.err);
        let last = end.err.lines().last().unwrap_or_default();
        for word in words {
            assert!(last.contains(word), "no {word:?} in {last:?}");
        }
    }
}

fn ended(command: &mut Command) -> End {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    End {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// The output has no control character but line breaks and tabs.
#[track_caller]
fn assert_printable(text: &str) {
    let odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!text.contains(odd), "{:?}", text.get(..4000));
}

/// Where root runs the tests, the limit of processes holds for other users alone.
#[test]
fn a_process_that_may_start_no_thread_computes_the_same() {
    let scene = Scene::new();
    let binary = scene.path("expo");
    fs::copy(env!("CARGO_BIN_EXE_expo"), &binary).unwrap();
    let train = ["train", "--config", "run.toml"];
    let limited = |args: &[&str]| {
        let shell = "ulimit -u 1 && exec \"$0\" \"$@\"";
        let mut words = vec!["bash", "-c", shell, binary.to_str().unwrap()];
        words.extend(args);
        let root = fs::metadata(&binary).unwrap().uid() == 0;
        let user = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        let words = match root {
            true => [&user[..], &words].concat(),
            false => words,
        };
        let mut command = scene.command(Path::new(words[0]), &words[1..]);
        command.env("RAYON_NUM_THREADS", "4");
        command
    };
    let can = limited(&["losses"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        println!("skipped: no user with a limit of processes here (setpriv)");
        return;
    }
    let end = ended(&mut limited(&train));
    assert_eq!(end.code, Some(0), "{}", end.err);
    // A limit of one process leaves room for a thread or not, as the system counts.
    let warned = end
        .err
        .starts_with("warning: the system lets this process start ");
    assert!(warned && end.err.contains(" of 4 threads"), "{}", end.err);
    let model = |run: &str| fs::read(scene.path(run).join("model.safetensors")).unwrap();
    let end = scene.expo(&[&train[..], &["--set", "run.output_dir=other"]].concat());
    assert_eq!(end.code, Some(0), "{}", end.err);
    assert!(model("run") == model("other"));
    for args in [
        &["score", "--config", "run.toml", "--out", "scores.jsonl"][..],
        &[
            "sample",
            "--model",
            "model",
            "--prompt",
            "Hi",
            "--max-new-tokens",
            "3",
        ],
        &["plan", "--config", "run.toml"],
        &["data", "show", "--config", "run.toml", "--row", "0"],
        &["verify", "run"],
        &["report", "run", "--out", "page.html"],
    ] {
        let end = ended(&mut limited(args));
        assert_eq!(end.code, Some(0), "{args:?}: {}", end.err);
    }
}

#[test]
fn the_number_of_threads_is_bounded_and_one_that_is_no_number_is_refused() {
    let scene = Scene::new();
    let sample = |threads: &str| {
        let args = [
            "sample",
            "--model",
            "model",
            "--prompt",
            "Hi",
            "--max-new-tokens",
            "3",
        ];
        let mut command = scene.command(Path::new(env!("CARGO_BIN_EXE_expo")), &args);
        ended(command.env("RAYON_NUM_THREADS", threads))
    };
    for many in ["100000", "99999999999999999999999"] {
        let end = sample(many);
        assert_eq!(end.code, Some(0), "{}", end.err);
        assert!(
            end.err.contains("warning: RAYON_NUM_THREADS is "),
            "{}",
            end.err
        );
        assert_eq!(end.out, sample("1").out);
    }
    let end = sample("two");
    assert_eq!(end.code, Some(2));
    assert_eq!(
        end.err,
        "error: RAYON_NUM_THREADS is \"two\"; expected a whole number of threads, or 0 for one per core\n"
    );
}

#[test]
fn counts_are_bounded_before_memory_is_asked_for() {
    let scene = Scene::new();
    let huge = "1000000000000000000";
    let sample = ["sample", "--model", "model", "--prompt", "Hi"];
    let prompts = [
        "sample",
        "--model",
        "model",
        "--prompts",
        "pairs.jsonl",
        "--out",
        "s.jsonl",
    ];
    for (flag, count) in [
        ("--num-samples", huge),
        ("--num-samples", "4000000000"),
        ("--batch-size", huge),
    ] {
        for args in [&sample[..], &prompts] {
            scene.refuse(
                &[args, &[flag, count]].concat(),
                &[
                    flag.trim_start_matches('-').replace('-', "_").as_str(),
                    "in [1, ",
                    count,
                ],
            );
        }
    }
    let lines: String = (0..200).map(|number| format!("Hi {number}\n")).collect();
    scene.write("prompts.txt", &lines);
    let many = [
        "sample",
        "--model",
        "model",
        "--prompts",
        "prompts.txt",
        "--out",
        "s.jsonl",
        "--num-samples",
        "1000000",
    ];
    scene.refuse(
        &many,
        &["prompts with 1000000 responses each", "at most 100000000"],
    );
    let bandit = |set: &'static str| ["bandit", "interpolation", "--out", "figures", "--set", set];
    for (set, words) in [
        ("train.num_seeds=10000000000", ["epochs", "10000000"]),
        (
            "train.num_train_epochs=18446744073709551615",
            ["num_train_epochs", ""],
        ),
        (
            "losses.lambda.points=1000000000",
            ["points must be in [2, 100000]", "1000000000"],
        ),
        (
            "data.comparisons=99999999999",
            ["comparisons must be in [1, 10000000]", ""],
        ),
        (
            "data.comparisons=[[0,9999999999,61],[1,0,1],[1,1,0]]",
            ["add up to more than 10000000", ""],
        ),
        (
            "data.comparisons=[[0,9223372036854775807,9223372036854775807],[9,0,1],[1,1,0]]",
            ["add up to more than 10000000", ""],
        ),
    ] {
        scene.refuse(&bandit(set), &words);
    }
    let judge = [
        "eval",
        "judge",
        "--samples",
        "pairs.jsonl",
        "--against",
        "chosen",
        "--data",
        "pairs.jsonl",
        "--judge-model",
        "m",
        "--concurrency",
        huge,
    ];
    scene.refuse(&judge, &["concurrency must be in [1, 1024]"]);
    for bootstrap in ["0", huge] {
        let pairs = [
            "eval",
            "pairs",
            "--model",
            "model",
            "--data",
            "pairs.jsonl",
            "--bootstrap",
            bootstrap,
        ];
        scene.refuse(&pairs, &["bootstrap", bootstrap]);
    }
    let values: Vec<String> = (1..=150).map(|number| format!("1e-{number}")).collect();
    let values = values.join(", ");
    scene.write(
        "sweep.toml",
        &format!("base = \"run.toml\"\n[[sweep]]\nloss = \"dpo\"\nbeta = [{values}]\n\"optimizer.learning_rate\" = [{values}]\n"),
    );
    scene.refuse(
        &["sweep", "--config", "sweep.toml"],
        &["more than 10000 runs"],
    );
}

#[test]
fn no_control_character_of_a_file_or_an_argument_reaches_a_terminal() {
    let scene = Scene::new();
    let config = fs::read_to_string(scene.path("model/config.json")).unwrap();
    let wrong = "\\u001b]0;title\\u0007\\u009b31m\\u202e\\r";
    for (key, value) in [("model_type", "llama"), ("hidden_act", "silu")] {
        let changed = config.replacen(&format!("\"{value}\""), &format!("\"{wrong}\""), 1);
        assert_ne!(changed, config, "{key}");
        scene.write("model/config.json", &changed);
        for args in [
            &["plan", "--config", "run.toml"][..],
            &["train", "--config", "run.toml"],
            &["sample", "--model", "model", "--prompt", "Hi"],
            &[
                "init",
                "--config-json",
                "model/config.json",
                "--tokenizer",
                "model/tokenizer.json",
                "--out",
                "new",
            ],
        ] {
            let end = scene.expo(args);
            assert_eq!(end.code, Some(2), "{args:?}: {}", end.err);
            assert!(
                end.err.contains("\\u001b]0;title\\u0007"),
                "{args:?}: {}",
                end.err
            );
            assert_printable(&end.err);
        }
    }
    scene.write("model/config.json", &config);
    let odd = "\x1b]0;title\x07";
    for args in [
        &["train", "--config", odd][..],
        &["train", "--config", "run.toml", "--set", odd],
        &[
            "train",
            "--config",
            "run.toml",
            "--set",
            "run.output_dir=\x1b[31m/x\x07\0y",
        ],
        &["losses", odd],
        &["verify", odd],
        &["report", odd, "--out", "x.html"],
        &[
            "score",
            "--model",
            odd,
            "--data",
            "pairs.jsonl",
            "--out",
            "o.jsonl",
        ],
        &[odd],
        &["train", odd],
    ] {
        if args.iter().any(|arg| arg.contains('\0')) {
            continue;
        }
        let end = scene.expo(args);
        assert_eq!(end.code, Some(2), "{args:?}: {}", end.err);
        assert_printable(&end.err);
        assert_printable(&end.out);
    }
}

/// Drawn bytes of a random model are any characters.
#[test]
fn what_a_model_says_reaches_a_terminal_without_control_characters() {
    let scene = Scene::new();
    let args = [
        "sample",
        "--model",
        "model",
        "--prompt",
        "Hi",
        "--max-new-tokens",
        "100",
    ];
    let mut written = false;
    for seed in 0..4 {
        for samples in ["1", "2"] {
            let seed = seed.to_string();
            let end =
                scene.expo(&[&args[..], &["--seed", &seed, "--num-samples", samples]].concat());
            assert_eq!(end.code, Some(0), "{}", end.err);
            assert_printable(&end.out);
            written |= end.out.contains("\\u00");
        }
    }
    assert!(written, "no control character was drawn");
}

#[test]
fn a_long_message_is_cut_in_its_middle() {
    let scene = Scene::new();
    let long = "x".repeat(100_000);
    let end = scene.expo(&["losses", &long]);
    assert_eq!(end.code, Some(2));
    assert!(end.err.len() < 5000, "{}", end.err.len());
    assert!(end.err.contains(" bytes left out ...] "), "{}", end.err);
    assert!(end.err.starts_with("error: "));
}

#[test]
fn without_a_place_for_a_cache_a_run_warns_and_ends_the_same() {
    let scene = Scene::new();
    scene.write("file", "");
    let run = |name: &str, more: &[&str], change: &dyn Fn(&mut Command)| {
        let set = format!("run.output_dir={name}");
        let args = [&["train", "--config", "run.toml", "--set", &set], more].concat();
        let mut command = scene.command(Path::new(env!("CARGO_BIN_EXE_expo")), &args);
        change(&mut command);
        let end = ended(&mut command);
        assert_eq!(end.code, Some(0), "{}", end.err);
        (
            end.err,
            fs::read(scene.path(name).join("model.safetensors")).unwrap(),
        )
    };
    let without_home = |command: &mut Command| {
        for variable in ["HOME", "USERPROFILE", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
    };
    for (loss, what) in [
        (
            &[][..],
            "the reference's log-probs are not kept for another run",
        ),
        (
            &[
                "--set",
                "loss=cexpo",
                "--set",
                "data.samples=auto",
                "--set",
                "sample.max_new_tokens=4",
            ],
            "the samples are not kept for another run",
        ),
    ] {
        let (_, whole) = run("whole", loss, &|_| {});
        let (err, homeless) = run("homeless", loss, &without_home);
        assert!(
            err.contains("warning: no cache directory: HOME is not set"),
            "{err}"
        );
        assert!(err.contains(what), "{err}");
        let unwritable = [loss, &["--set", "run.cache_dir=file/below"]].concat();
        let (err, blocked) = run("blocked", &unwritable, &|_| {});
        assert!(err.contains("warning: ") && err.contains(what), "{err}");
        assert!(homeless == whole && blocked == whole);
        for name in ["whole", "homeless", "blocked"] {
            fs::remove_dir_all(scene.path(name)).unwrap();
        }
    }
}
