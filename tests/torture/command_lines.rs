//! Damaged files for every command: what ends a process other than with one of its exit codes.
//!
//! A target is a command and the files that it reads. Again and again one of these files is
//! [changed](super::mutations) and the real program started on it, with a limit of memory and of time.
//! Counted are panics, signals, exit codes that the help does not name, failures without a message,
//! processes that do not end, and control characters that reach an output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::folders::names;
use super::mutations::mutate;
use super::program::memory;
use super::{Random, Report, is_full, send, size};
use crate::support::fixture;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(20);

/// KiB of address space that a command may ask for.
const ADDRESS_SPACE: u64 = 6 << 20;

/// A command, and the files that it reads; all in a directory ends in `/`.
struct Target(&'static str, &'static [&'static str]);

/// Trains, and ends by itself where a file asks for years of it.
const TRAIN: &str = "train --config c.toml --max-time 4s";

const TARGETS: [Target; 26] = [
    Target(
        "score --model model --data eval.jsonl --out o.jsonl",
        &["model/", "eval.jsonl"],
    ),
    Target(
        "data show --config c.toml --row 0",
        &["c.toml", "train.jsonl", "model/"],
    ),
    Target(
        "data show --config chat.toml --row 0",
        &["chat.toml", "chat.jsonl", "model/"],
    ),
    Target(
        "plan --config c.toml",
        &["c.toml", "train.jsonl", "model/config.json"],
    ),
    Target("loss dpo --file loss.jsonl", &["loss.jsonl"]),
    Target("loss wpo --file loss.jsonl", &["loss.jsonl"]),
    Target("loss kto --file kto.jsonl", &["kto.jsonl"]),
    Target("verify run", &["run/", "run/checkpoint-2/"]),
    Target("verify run/checkpoint-2", &["run/checkpoint-2/"]),
    Target("verify model", &["model/"]),
    Target(
        "eval alpaca --annotations annotations.json --difficulty difficulty.csv --gamed gamed.csv",
        &["annotations.json", "difficulty.csv", "gamed.csv"],
    ),
    Target("report run --out r.html", &["run/"]),
    Target(
        "train --config c.toml --resume auto --max-time 4s --set run.max_steps=4 \
         --allow-change run.max_steps",
        &["run/", "run/checkpoint-2/", "c.toml"],
    ),
    Target(
        "train --config c.toml --resume run/checkpoint-2 --max-time 4s --set run.output_dir=run2",
        &["run/checkpoint-2/"],
    ),
    Target(TRAIN, &["c.toml", "train.jsonl", "model/", "cache/"]),
    Target(
        "eval pairs --model model --data eval.jsonl",
        &["model/", "eval.jsonl"],
    ),
    Target("eval diversity --samples samples.jsonl", &["samples.jsonl"]),
    Target(
        "eval judge --samples samples.jsonl --against chosen --data eval.jsonl --judge length",
        &["samples.jsonl", "eval.jsonl"],
    ),
    Target(
        "eval judge --samples samples.jsonl --against chosen --data eval.jsonl --judge lexicon:w.txt",
        &["w.txt"],
    ),
    Target(
        "sample --model model --prompts eval.jsonl --num-samples 2 --max-new-tokens 4 --out samples.jsonl",
        &["samples.jsonl", "model/", "eval.jsonl"],
    ),
    Target(
        "sample --model model --prompt Hi --max-new-tokens 4",
        &["model/"],
    ),
    Target(
        "init --config-json model/config.json --tokenizer model/tokenizer.json --out fresh",
        &["model/config.json", "model/tokenizer.json"],
    ),
    Target("bandit --config bandit.toml", &["bandit.toml"]),
    Target("sweep --config sweep.toml --max-time 4s", &["sweep.toml"]),
    Target(
        "train --config c.toml --max-time 4s --set loss=cexpo --set data.samples=samples.jsonl \
         --set run.output_dir=run3",
        &["samples.jsonl"],
    ),
    Target(
        "train --config c.toml --max-time 4s --set data.reference_log_probs=o.jsonl \
         --set run.output_dir=run3",
        &["o.jsonl"],
    ),
];

/// Makes the files that the targets read.
fn prepare(base: &Path) {
    let write = |name: &str, text: String| fs::write(base.join(name), text).unwrap();
    fs::create_dir(base.join("model")).unwrap();
    for name in names(&fixture("llama")) {
        fs::copy(fixture("llama").join(&name), base.join("model").join(&name)).unwrap();
    }
    for name in ["annotations.json", "difficulty.csv", "gamed.csv"] {
        fs::copy(fixture("alpaca").join(name), base.join(name)).unwrap();
    }
    write(
        "model/chat_template.jinja",
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}\n{% endfor %}".to_owned(),
    );
    let pairs = fs::read_to_string(fixture("pairs.jsonl")).unwrap();
    let pairs: Vec<&str> = pairs.lines().collect();
    write("train.jsonl", pairs[..8].join("\n"));
    write("eval.jsonl", pairs[8..11].join("\n"));
    let chat = json!({"prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello."}],
        "rejected": [{"role": "assistant", "content": "No."}]});
    write("chat.jsonl", format!("{chat}\n{chat}\n"));
    let row = json!({"policy_chosen": -47.0, "policy_rejected": -60.0, "ref_chosen": -46.0,
        "ref_rejected": -61.0, "n_chosen": 9, "n_rejected": 12, "confidence_chosen": -1.0,
        "confidence_rejected": -2.0, "preference": 0.75});
    write("loss.jsonl", format!("{row}\n{row}\n"));
    let row = json!({"policy": -47.0, "ref": -46.0, "label": true, "policy_mismatched": [-50.0],
        "ref_mismatched": [-51.0]});
    write("kto.jsonl", format!("{row}\n{row}\n"));
    write("w.txt", "kind 1.5\nno -1\n".to_owned());
    let config = "[model]\nmodel_name_or_path = \"model\"\ndevice = \"cpu\"\n\
        [data]\nformat = \"pairs\"\ntrain = \"train.jsonl\"\nmax_length = 48\nmax_prompt_length = 24\n\
        [batch]\nbatch_size = 3\n[run]\noutput_dir = \"run\"\ncache_dir = \"cache\"\nmax_steps = 3\n\
        save_steps = 1\noverwrite = true\n";
    write(
        "c.toml",
        format!("{config}eval_steps = 2\n[loss.dpo]\nbeta = 0.1\n")
            .replace("[batch]", "eval = \"eval.jsonl\"\n[batch]"),
    );
    write(
        "chat.toml",
        format!("{config}[loss.dpo]\n")
            .replace("train.jsonl\"", "chat.jsonl\"\napply_chat_template = true"),
    );
    write(
        "sweep.toml",
        config.replace("save_steps = 1\noverwrite = true\n", "")
            + "[[sweep]]\nloss = [\"dpo\", \"ipo\"]\nbeta = [0.1, 0.3]\n",
    );
    write(
        "bandit.toml",
        "experiment = \"interpolation\"\n[problem]\noptimal = [0.6, 0.3, 0.1]\n\
         reference = [0.4, 0.4, 0.2]\n[data]\ncomparisons = 30\n[losses]\nnames = [\"dpo\", \"cexpo\"]\n\
         [losses.lambda]\nscale = \"log10\"\nfrom = -2\nto = 1\npoints = 3\n\
         [train]\nnum_train_epochs = 10\nnum_seeds = 2\n".to_owned(),
    );
    for made in [
        "train --config c.toml",
        "score --config c.toml --out o.jsonl",
        "sample --model model --prompts eval.jsonl --num-samples 2 --max-new-tokens 4 --out samples.jsonl",
    ] {
        let ended = run(base, made);
        assert_eq!(ended.code, Some(0), "{made}: {}", ended.text());
    }
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    hung: bool,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Ended {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }

    /// What is wrong with it.
    fn complaint(&self) -> Option<&'static str> {
        let has = |bytes: &[u8], piece: &[u8]| bytes.windows(piece.len()).any(|part| part == piece);
        let raw = |bytes: &[u8]| {
            bytes
                .iter()
                .any(|byte| matches!(byte, 0..=8 | 11..=31 | 127))
        };
        if has(&self.err, b"panicked") || self.code == Some(101) {
            return Some("panic");
        }
        if self.hung {
            return Some("hang");
        }
        match self.code {
            None => Some("signal"),
            Some(0..=3) if raw(&self.err) || raw(&self.out) => Some("escape"),
            Some(1 | 2) if self.err.iter().all(u8::is_ascii_whitespace) => Some("silent"),
            Some(0..=3) => None,
            Some(_) => Some("exit code"),
        }
    }
}

/// Runs a command, written as in a shell without quotes, in a directory.
fn run(directory: &Path, command: &str) -> Ended {
    let shell = format!("ulimit -v {ADDRESS_SPACE}; ulimit -c 0; exec \"$0\" \"$@\"");
    let (out, err) = (directory.join(".out"), directory.join(".err"));
    let file = |path: &PathBuf| fs::File::create(path).unwrap();
    let mut process = Command::new("bash")
        .args(["-c", &shell, env!("CARGO_BIN_EXE_expo")])
        .args(command.split_whitespace())
        .current_dir(directory)
        .envs([
            ("RAYON_NUM_THREADS", "1"),
            ("HF_HUB_OFFLINE", "1"),
            ("EXPO_CUDA", "never"),
        ])
        .env("XDG_CACHE_HOME", directory.join("cache"))
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .unwrap();
    let start = Instant::now();
    let mut hung = false;
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > LIMIT && !hung {
            hung = true;
            send("KILL", process.id());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let read = |path: &PathBuf| fs::read(path).unwrap_or_default();
    Ended {
        code: status.code(),
        hung,
        out: read(&out),
        err: read(&err),
    }
}

/// A copy of a directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(from, to).unwrap()),
        }
    }
}

/// Writes what a file's manifest says of it, so that what is in the file is met.
fn mend_manifest(file: &Path, bytes: &[u8]) -> Option<()> {
    let path = file.with_file_name("MANIFEST.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let name = file.file_name()?.to_str()?;
    let entry = manifest["files"].get_mut(name)?;
    *entry = json!({"bytes": bytes.len(), "sha256": format!("{:x}", Sha256::digest(bytes))});
    fs::write(path, manifest.to_string()).ok()
}

/// Changes one of the target's files; its name.
fn damage(directory: &Path, target: &Target, random: &mut Random) -> Option<String> {
    let chosen = target.1[random.below(target.1.len() as u64) as usize];
    let name = match chosen.ends_with('/') {
        false => chosen.to_owned(),
        true => {
            let mut files = names(&directory.join(chosen));
            files.retain(|name| directory.join(chosen).join(name).is_file());
            let at = random.below(files.len().max(1) as u64) as usize;
            format!("{chosen}{}", files.get(at)?)
        }
    };
    let path = directory.join(&name);
    let bytes = mutate(&name, &fs::read(&path).ok()?, random);
    fs::write(&path, &bytes).ok()?;
    if random.below(2) == 0 {
        let _ = mend_manifest(&path, &bytes);
    }
    Some(name)
}

#[test]
#[ignore = "run by scripts/torture.sh"]
fn commands_on_damaged_files() {
    let mut report = Report::new("damaged_files");
    let mut random = Random::new("damaged_files");
    let folder = tempfile::tempdir_in(memory()).unwrap();
    let (base, work) = (folder.path().join("base"), folder.path().join("work"));
    fs::create_dir(&base).unwrap();
    prepare(&base);
    // Ten minutes, and in the short version every target some times.
    let (start, long) = (Instant::now(), Duration::from_secs(600));
    let mut runs = 0;
    while runs < size(3 * TARGETS.len(), usize::MAX) && (!is_full() || start.elapsed() < long) {
        let _ = fs::remove_dir_all(&work);
        copy(&base, &work);
        let target = &TARGETS[runs % TARGETS.len()];
        let Some(name) = damage(&work, target, &mut random) else {
            runs += 1;
            continue;
        };
        let changed = fs::read(work.join(&name)).unwrap();
        let ended = run(&work, target.0);
        if let Some(what) = ended.complaint() {
            let kept = std::env::temp_dir().join(format!("expo-damaged-{runs}"));
            let _ = fs::write(&kept, changed);
            let (code, text) = (ended.code, ended.text());
            let kept = kept.display();
            report.fail(format!(
                "{what}: {} {name} ({kept}) {code:?} {text:.500}",
                target.0
            ));
        }
        runs += 1;
    }
    report.count("targets", TARGETS.len());
    report.count("runs", runs);
    for (name, what) in [
        ("panics", "panic:"),
        ("signals", "signal:"),
        ("hangs", "hang:"),
        ("escapes", "escape:"),
        ("silent", "silent:"),
        ("other_exit_codes", "exit code:"),
    ] {
        report.count(name, report.failed(what));
    }
    report.finish();
}
