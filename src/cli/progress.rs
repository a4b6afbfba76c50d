//! Progress of a command: a bar on a terminal, lines anywhere else.
//!
//! *Why*: a log file wants a line per fact and a person wants to know when it will be over. Nobody
//! may be there to read either, so nothing that goes wrong here stops a run.

mod bar;
mod header;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use expo::io::hub::Download;
use expo::run_dir::{ACCURACY, Record, SAMPLED_KL};
use expo::session::Event;

use bar::Bar;
use console::Term;

use super::terminal::{is_silent, tell, width_of, wrap};
use super::{dispatch, grouped};

/// The time between two lines about scoring or downloading.
const QUIET: Duration = Duration::from_secs(10);

/// The observer of a command.
pub struct Progress {
    terminal: bool,
    bar: Option<Bar>,
    pace: Pace,
    last_line: Instant,
    steps: u64,
    /// Those of the last training record.
    figures: Vec<String>,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal() && !is_silent(),
            bar: None,
            pace: Pace::new(),
            last_line: Instant::now(),
            steps: 0,
            figures: Vec::new(),
        }
    }

    /// Shows an event.
    pub fn show(&mut self, event: Event) {
        match event {
            Event::Device(device) => {
                let by = dispatch::other_name().map(|name| format!(", by {name}"));
                let why = dispatch::reason().map(|why| format!(", {why}"));
                let (by, why) = (by.unwrap_or_default(), why.unwrap_or_default());
                self.line(&format!("device {device}{by}{why}"));
            }
            Event::Download(download) => self.download(download),
            Event::Rows(split, report) => {
                self.close();
                self.line(&format!("{split}:\n{report}"));
            }
            Event::ReferenceFound(path) => {
                self.line(&format!("reference log-probs found in {}", path.display()));
            }
            Event::OtherReference(hash) => {
                self.line(&format!(
                    "the reference is another model than the policy: {hash:.16}"
                ));
            }
            Event::Scoring {
                done,
                total,
                tokens,
            } => self.scoring(done, total, tokens),
            Event::Prompts {
                prompts,
                cut,
                left_out,
            } => {
                for reason in left_out {
                    self.line(&format!("left out {reason}"));
                }
                self.line(&format!("{} prompts, {cut} of them cut", grouped(prompts)));
            }
            Event::Sampling {
                done,
                total,
                tokens,
            } => self.sampling(done, total, tokens),
            Event::SweepRun {
                number,
                total,
                name,
                found,
            } => {
                let found = if found { ", finished before" } else { "" };
                self.line(&format!("run {number} of {total}: {name}{found}"));
            }
            Event::SamplesKept { path, biased } => {
                let biased = match biased {
                    true => "; not drawn from the reference itself, so kl on them is biased",
                    false => "",
                };
                self.line(&format!("samples in {}{biased}", path.display()));
            }
            Event::Start(run) => {
                self.close();
                match self.terminal {
                    true => self.line(&header::lines(run, width_of(&Term::stderr())).join("\n")),
                    false => self.line(&header::line(run)),
                }
                (self.steps, self.figures) = (run.steps, Vec::new());
                self.open("training", run.steps);
            }
            Event::Step { step, rows, tokens } => {
                self.pace.rows += rows;
                self.pace.tokens += tokens;
                self.advance(step);
            }
            Event::Record(record) => self.record(record),
            Event::Warning(what) => {
                let text = format!("warning: {what}");
                match self.terminal {
                    true => self.line(&wrap(&text, width_of(&Term::stderr()), "", "")),
                    false => self.line(&text),
                }
            }
            Event::Saved(path) => self.line(&format!("saved {}", path.display())),
        }
    }

    /// Begins to count: so many are there already.
    pub fn count(&mut self, what: &str, done: usize, total: usize) {
        self.open(what, total as u64);
        self.pace.before = done;
    }

    /// So many are there now.
    pub fn counted(&mut self, what: &str, done: usize, total: usize) {
        let now = done.saturating_sub(self.pace.before).max(1) as f64;
        let seconds = self.pace.seconds();
        let left = clock(seconds / now * total.saturating_sub(done) as f64);
        let text = format!("{:.1} {what}/s  ETA {left}", now / seconds);
        if let Some(bar) = &mut self.bar {
            bar.set(done as u64, vec![text]);
        } else if done == total || self.is_due() {
            self.line(&format!("{done} of {total} {what}  {text}"));
        }
        if done == total {
            self.close();
        }
    }

    /// Takes back the bar that may be open.
    pub fn close(&mut self) {
        if let Some(mut bar) = self.bar.take() {
            bar.clear();
        }
    }

    fn download(&mut self, download: Download) {
        let Download { file, done, total } = download;
        if done >= total {
            self.close();
            let size = total as f64 / 1e6;
            self.line(&format!("downloaded {file}, {size:.1} MB"));
            return;
        }
        if self.bar.is_none() {
            self.open(file, total);
        }
        if let Some(bar) = &mut self.bar {
            let rate = done as f64 / 1e6 / self.pace.seconds();
            bar.set(done, vec![format!("{rate:.1} MB/s")]);
        } else if self.is_due() {
            let percent = 100.0 * done as f64 / total as f64;
            self.line(&format!("downloading {file}: {percent:.0}%"));
        }
    }

    fn scoring(&mut self, done: usize, total: usize, tokens: usize) {
        if done == 0 {
            return self.open("scoring", total as u64);
        }
        self.pass("scored", done, total, tokens);
    }

    fn sampling(&mut self, done: usize, total: usize, tokens: usize) {
        if tokens == 0 {
            if done > 0 {
                let (done, total) = (grouped(done), grouped(total));
                self.line(&format!("{done} of {total} samples found"));
            }
            self.open("sampling", total as u64);
            self.pace.before = done;
        }
        self.pass("drew", done, total, tokens);
    }

    /// A pass over rows is so far.
    fn pass(&mut self, did: &str, done: usize, total: usize, tokens: usize) {
        (self.pace.rows, self.pace.tokens) = (done, tokens);
        self.advance(done as u64);
        if !self.terminal && tokens > 0 && (done == total || self.is_due()) {
            let pace = self.pace.to_string(done as u64, total as u64);
            self.line(&format!("{did} {done} of {total} rows  {pace}"));
        }
        if done == total {
            self.close();
        }
    }

    fn record(&mut self, record: &Record) {
        let step = figure(record, "step").unwrap_or_default();
        let evaluation = record.contains_key("eval_loss");
        let text = format!(
            "{} {step:>6}/{}{}",
            if evaluation { "eval" } else { "step" },
            self.steps,
            in_columns(record, evaluation)
        );
        if evaluation {
            self.line(&text);
        } else if self.bar.is_some() {
            self.figures = figures(record, "").map(|(_, text)| text).collect();
            self.advance(step as u64);
        } else {
            let pace = self.pace.to_string(step as u64, self.steps);
            self.line(&format!("{text}  {pace}"));
        }
    }

    fn open(&mut self, what: &str, length: u64) {
        self.close();
        self.pace = Pace::new();
        if self.terminal {
            self.bar = Some(Bar::new(what, length));
        }
    }

    fn advance(&mut self, done: u64) {
        let Some(bar) = &mut self.bar else { return };
        let [rows, tokens, left] = self.pace.parts(done, bar.total());
        // What a narrow terminal should have stands first.
        let shown = |figures: &[String]| figures.to_vec();
        let (first, rest) = self.figures.split_at(self.figures.len().min(3));
        let figures = [vec![left], shown(first), vec![rows, tokens], shown(rest)];
        bar.set(done, figures.concat());
    }

    fn is_due(&mut self) -> bool {
        let due = self.last_line.elapsed() >= QUIET;
        if due {
            self.last_line = Instant::now();
        }
        due
    }

    fn line(&mut self, text: &str) {
        let write = || tell(text);
        match &mut self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// How fast it goes.
struct Pace {
    start: Instant,
    /// Rows that were there before.
    before: usize,
    rows: usize,
    tokens: usize,
}

impl Pace {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            before: 0,
            rows: 0,
            tokens: 0,
        }
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64().max(1e-6)
    }

    /// Rows per second, tokens per second, and the time that is left.
    fn parts(&self, done: u64, total: u64) -> [String; 3] {
        let seconds = self.seconds();
        let now = done.saturating_sub(self.before as u64).max(1);
        let left = seconds / now as f64 * total.saturating_sub(done) as f64;
        let rows = self.rows.saturating_sub(self.before) as f64 / seconds;
        [
            format!("{rows:.1} rows/s"),
            format!("{:.0} tokens/s", self.tokens as f64 / seconds),
            format!("ETA {}", clock(left)),
        ]
    }

    fn to_string(&self, done: u64, total: u64) -> String {
        self.parts(done, total).join("  ")
    }
}

/// Seconds as `h:mm:ss` or `m:ss`.
pub fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

fn figure(record: &Record, name: &str) -> Option<f64> {
    record.get(name)?.as_f64()
}

/// The figures of a record that tell how it goes, the most telling first: their label, and with it.
fn figures<'a>(
    record: &'a Record,
    prefix: &'a str,
) -> impl Iterator<Item = (&'static str, String)> + 'a {
    FIGURES.iter().filter_map(move |(name, label)| {
        let figure = figure(record, &format!("{prefix}{name}"))?;
        let text = match *label {
            "lr" if figure != 0.0 => format!("lr {figure:.2e}"),
            "lr" => "lr 0".to_owned(),
            "epoch" => format!("epoch {figure:.2}"),
            label => format!("{label} {figure:.4}"),
        };
        Some((*label, text))
    })
}

const FIGURES: [(&str, &str); 7] = [
    ("loss", "loss"),
    (ACCURACY, "accuracy"),
    ("rewards/margins", "margin"),
    (SAMPLED_KL, "KL"),
    ("learning_rate", "lr"),
    ("grad_norm", "grad_norm"),
    ("epoch", "epoch"),
];

/// The figures of a record as lines of a log have them, in columns.
fn in_columns(record: &Record, evaluation: bool) -> String {
    let prefix = if evaluation { "eval_" } else { "" };
    let mut text = String::new();
    if let Some(epoch) = figure(record, "epoch") {
        text += &format!("  epoch {epoch:.2}");
    }
    for (label, figure) in figures(record, prefix).filter(|(label, _)| *label != "epoch") {
        match figure.strip_prefix("margin ") {
            Some(margin) => text += &format!("  {label} {margin:>9}"),
            None => text += &format!("  {figure}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_is_a_line_of_figures() {
        let record = json!({"step": 3, "epoch": 0.5, "loss": 0.25, "learning_rate": 1e-6,
            "grad_norm": 2.0, "rewards/margins": -0.5, ACCURACY: 0.75});
        assert_eq!(
            in_columns(record.as_object().unwrap(), false),
            "  epoch 0.50  loss 0.2500  accuracy 0.7500  margin   -0.5000  lr 1.00e-6  grad_norm 2.0000"
        );
    }

    #[test]
    fn times_are_read_at_a_glance() {
        assert_eq!(clock(59.6), "1:00");
        assert_eq!(clock(3723.0), "1:02:03");
    }
}
