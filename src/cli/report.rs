//! `expo report`: runs as one page, once or while they go on.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use clap::Args;
use expo::error::{Error, Result};
use expo::io::lock::is_locked;
use expo::io::output::Output;
use expo::report::page::{Recorded, is_page, page};
use expo::run_dir::SUMMARY;
use expo::session::Reason;

use super::answer;
use super::out::{Existing, answer_beside, file, open};
use super::stop::{ended, on_signal};

/// Makes one HTML file of a run, or of several side by side.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct ReportArgs {
    /// Folders of runs (run.output_dir), or of a sweep, which stands for its runs.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,

    /// The file, or - for standard output [default: report.html in the folder of the run or of the
    /// sweep]. An older report there is replaced, and no other file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Writes the file anew whenever the runs' files have changed, until they have ended; looks so
    /// often, and the open page loads itself anew so often.
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "5",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    watch: Option<u64>,
}

const HELP: &str = "\
The file needs no other and no network: it opens from a disk, on a phone, and prints; light and dark
follow the reader's system. Curves can be read without a script; with one the values are shown under
the pointer.

Of one run:
  curves     loss, accuracy, margin, rewards, KL, entropy, log-probs and whatever else is in
             metrics.jsonl, those of evaluations beside those of training; learning rate, gradient norm
  speed      timings.jsonl: tokens and rows per second, memory
  samples    answers to the same prompts at each evaluation, beside those of the reference
             (run.eval_prompts, in generations.jsonl)
  pairs      those with the largest and the smallest margins (run.eval_margins, in margins.json)
  events     checkpoints, where it was gone on with, changes, values that were not finite
  figures    of each the first, the last, the lowest and the highest
  data       what became of the rows; config: the resolved config and what it was run on
Of several runs: their last figures, the frontier of reward against the distance from the reference and
against diversity, the curves over each other, the last samples side by side, where the configs differ.

A run that goes on or was interrupted, or that has no evaluation, makes a page of what there is; what is
not there says which key has it made. Of very long runs not every point is drawn: the lowest and the
highest of each column of the chart are, and the page says so.

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
        return answer_beside(&out, &said(runs.len()));
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

/// What the folders say, each run once.
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

/// What is different when a file of the runs has changed, or who is at work on them.
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

/// Whether the run or the sweep of a folder has ended.
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
