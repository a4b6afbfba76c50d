//! `expo report`: runs as one page, once or while they train.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use clap::Args;
use expo::error::{Error, Result};
use expo::io::lock::is_locked;
use expo::io::output::Output;
use expo::report::page::{Recorded, is_page, over_seeds, page};
use expo::run_dir::SUMMARY;
use expo::session::Reason;
use serde_json::{Value, json};

use super::answer;
use super::out::{Existing, answer_beside, file, open};
use super::stop::{ended, on_signal};

/// Write one HTML page of a run, or of several side by side.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct ReportArgs {
    /// Directories of runs (run.output_dir), or of a sweep, which stands for its runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,

    /// Write to this file, or - for standard output; replaces an older report, and no other file
    /// [default: report.html in the directory of the run or of the sweep]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Rewrite the page whenever the runs' files change, until they end; check every SECONDS (5), and
    /// reload the open page as often
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "5",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    watch: Option<u64>,

    /// Print one JSON object: `out`, `runs` (name, directory, finished, step, last metrics), `seeds`
    #[arg(long, conflicts_with = "watch")]
    json: bool,
}

const HELP: &str = "\
The page is one file that needs no network: open it from disk, on a phone, or
print it. Light and dark follow the system. Charts can be read without
JavaScript; with it the values are shown under the pointer.

Of one run:
  curves     every metric of metrics.jsonl with what it means, evaluations
             beside training
  speed      timings.jsonl: tokens and rows per second, memory
  samples    answers to the same prompts at each evaluation, beside those of the
             reference (run.eval_prompts, in generations.jsonl)
  pairs      those with the largest and the smallest margins (run.eval_margins,
             in margins.json)
  events     checkpoints, resumes, changed keys, values that were not finite
  figures    the first, last, lowest and highest value of each metric
  data       what became of the rows; config: the resolved config and what it
             ran on
Of several runs: their last figures in named units, mean and 95% interval over
run.seed, accuracy or score against the divergence from the reference (where the
runs estimate the same one) and against diversity, the curves on top of each
other, the last samples side by side, where the configs differ.

Accuracy counts a tie as half, so that 0.5 is chance; of runs of older versions
a tie counts as wrong. The page of a run that is training, was interrupted or
has no evaluation shows what there is, and names the key that adds what is
missing. Of very long runs the lowest and the highest point of each column of a
chart are drawn, and the page says so.

Examples:
  $ expo report runs/quickstart
  $ expo report runs/quickstart --watch
  $ expo report runs/quickstart runs/quickstart_dpo --out compared.html
  $ expo report runs/sweep_quickstart";

/// Runs the command.
pub fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let out = out(args)?;
    let existing = Existing::Own(&is_report);
    let output = match args.watch {
        None => open(&out, existing, [])?,
        // It is written again and again.
        Some(_) => file(&out, existing, []).map(|()| Output::File(out.clone()))?,
    };
    let said = |count: usize| match count {
        1 => format!("{}\n", out.display()),
        count => format!("{}, {count} runs\n", out.display()),
    };
    let Some(seconds) = args.watch else {
        let runs = read(&args.runs)?;
        output.write_bytes(page(&runs, None).as_bytes())?;
        let text = match args.json {
            true => format!("{}\n", object(&runs, &out)),
            false => said(runs.len()),
        };
        return answer_beside(&out, &text);
    };
    let signal = on_signal()?;
    let mut before = None;
    loop {
        let trace = trace(&args.runs)?;
        let asked = signal.load(Relaxed);
        if asked != 0 || before.as_ref() != Some(&trace) {
            let runs = read(&args.runs)?;
            let over = args.runs.iter().all(|folder| is_over(folder, &runs));
            // Nobody writes the file any more: who has it open need not load it again.
            let refresh = (asked == 0 && !over).then_some(seconds);
            output.write_bytes(page(&runs, refresh).as_bytes())?;
            if over {
                return answer(&said(runs.len()));
            }
            if asked != 0 {
                let at = format!("while watching {} runs", args.runs.len());
                let then = format!("{} is as they were", out.display());
                return ended(Reason::Signal(asked), &at, &then);
            }
            if before.is_none() {
                answer(&said(runs.len()))?;
            }
            before = Some(trace);
        }
        wait(seconds, &signal);
    }
}

/// What the page shows, in short.
fn object(runs: &[Recorded], out: &Path) -> Value {
    let run = |run: &Recorded| {
        json!({
            "name": run.name,
            "directory": run.folder,
            "loss": run.run.loss,
            "finished": run.is_finished(),
            "step": run.last_step(),
            "metrics": run.last_metrics(),
        })
    };
    json!({
        "out": out,
        "runs": runs.iter().map(run).collect::<Value>(),
        "seeds": over_seeds(runs).map(|table| table.to_json()),
    })
}

/// Whether a file is a page that this command wrote.
fn is_report(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut start));
    read.is_ok() && is_page(&start)
}

/// Where the page goes.
fn out(args: &ReportArgs) -> Result<PathBuf> {
    match (&args.out, &args.runs[..]) {
        (Some(out), _) => Ok(out.clone()),
        (None, [folder]) => Ok(folder.join("report.html")),
        (None, runs) => Err(Error::input(format!("{} runs and no --out", runs.len()))
            .hint("name the file, e.g. --out report.html")),
    }
}

/// Reads the directories, each run once.
fn read(folders: &[PathBuf]) -> Result<Vec<Recorded>> {
    let mut runs: Vec<Recorded> = Vec::new();
    for folder in folders {
        for folder in Recorded::folders(folder)? {
            if runs.iter().any(|other| other.folder == folder) {
                continue;
            }
            let at_work = is_locked(&folder);
            let run = Recorded::open(&folder)?;
            runs.push(Recorded { at_work, ..run });
        }
    }
    // Runs of one name are told apart by their paths.
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for run in &mut runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = run.folder.display().to_string();
        }
    }
    Ok(runs)
}

/// Changes when a file of the runs does, or whether they are training.
fn trace(folders: &[PathBuf]) -> Result<impl PartialEq + use<>> {
    let mut trace = Vec::new();
    for folder in folders {
        let table = std::fs::metadata(folder.join(SWEEP)).and_then(|found| found.modified());
        for run in Recorded::folders(folder)? {
            let (files, at_work) = (Recorded::trace(&run), is_locked(&run));
            trace.push((run, files, at_work, table.as_ref().ok().copied()));
        }
    }
    Ok(trace)
}

/// What a sweep writes at its end.
const SWEEP: &str = "sweep.json";

/// Whether the run or the sweep of a directory has ended.
fn is_over(folder: &Path, runs: &[Recorded]) -> bool {
    let own = || runs.iter().filter(|run| run.folder.starts_with(folder));
    let is_sweep = own().all(|run| run.folder != folder);
    let changed = |path: PathBuf| {
        std::fs::metadata(path)
            .and_then(|found| found.modified())
            .ok()
    };
    let table = changed(folder.join(SWEEP));
    own().all(|run| {
        // A run that failed has no summary, and is over when the sweep is.
        let end = changed(run.folder.join(SUMMARY));
        match is_sweep {
            true => table.is_some() && end <= table && run.at_work != Some(true),
            false => run.is_finished(),
        }
    })
}

/// Waits, but not for a signal.
fn wait(seconds: u64, signal: &AtomicUsize) {
    for _ in 0..seconds * 10 {
        if signal.load(Relaxed) != 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
