//! A progress bar: two lines at the bottom of a terminal that are drawn over themselves.
//!
//! Hides the terminal: its width, and how lines are taken back.
//!
//! *Why*: the cursor rests at the beginning of the first line, and what is drawn is erased from there
//! to the end of the screen. So nothing is left behind where the terminal is made narrower and wraps the
//! lines, or where it echoes Ctrl-C. No line is as wide as the terminal.

use std::io::Write as _;
use std::time::{Duration, Instant};

use console::Term;

use crate::cli::stop::{held_signal, hold_signals, name, release_signals};
use crate::cli::terminal::{printable, tell};

/// The time between two drawings.
const PAUSE: Duration = Duration::from_millis(100);

/// What a bar fills at most; on a terminal with less room it is left out.
const WIDEST: usize = 60;
const NARROWEST: usize = 10;

/// Erases from the cursor to the end of the screen.
const ERASE: &str = "\r\u{1b}[J";

/// A bar on the terminal that standard error is.
pub struct Bar {
    what: String,
    done: u64,
    total: u64,
    /// What stands below it, the most important first.
    figures: Vec<String>,
    drawn: Option<Instant>,
}

impl Bar {
    /// A bar of something that has `total` parts.
    pub fn new(what: &str, total: u64) -> Self {
        let mut bar = Self {
            what: printable(what).into_owned(),
            done: 0,
            total,
            figures: Vec::new(),
            drawn: None,
        };
        hold_signals();
        bar.draw();
        bar
    }

    /// How many parts there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// So many parts are done; `figures` stand below, as many as there is room for.
    pub fn set(&mut self, done: u64, figures: Vec<String>) {
        (self.done, self.figures) = (done, figures);
        if held_signal().is_some() {
            self.clear();
        }
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE) {
            self.draw();
        }
    }

    /// Writes something else in place of the bar, which is drawn again below it.
    pub fn suspend(&mut self, write: impl FnOnce()) {
        self.clear();
        write();
        hold_signals();
        self.draw();
    }

    /// Takes the bar back. Where a signal waited for that, the command ends here.
    pub fn clear(&mut self) {
        if self.drawn.take().is_some() {
            write(ERASE);
        }
        release_signals();
        if let Some(signal) = held_signal() {
            let (what, done, total) = (&self.what, self.done, self.total);
            let name = name(signal);
            tell(format!(
                "interrupted while {what} at {done}/{total} ({name})"
            ));
            std::process::exit(128 + signal as i32);
        }
    }

    fn draw(&mut self) {
        let size = Term::stderr().size_checked();
        let width = size.map_or(80, |(_, columns)| usize::from(columns));
        let lines = lines(&self.what, (self.done, self.total), &self.figures, width);
        let up = match lines.len() {
            0 | 1 => String::new(),
            lines => format!("\u{1b}[{}A", lines - 1),
        };
        write(&format!("{ERASE}{}{up}\r", lines.join("\r\n")));
        self.drawn = Some(Instant::now());
    }
}

fn write(text: &str) {
    let mut out = std::io::stderr().lock();
    // Where standard error is closed, nobody reads it.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The lines of a bar, each narrower than a terminal of `width` columns.
fn lines(what: &str, (done, total): (u64, u64), figures: &[String], width: usize) -> Vec<String> {
    let room = width.saturating_sub(1);
    let count = format!("{done}/{total}");
    let left = room.saturating_sub(console::measure_text_width(what) + count.len() + 4);
    let first = match left {
        NARROWEST.. => {
            let length = left.min(WIDEST);
            let share = done.min(total) as f64 / total.max(1) as f64;
            let full = (share * length as f64) as usize;
            let head = if full < length { ">" } else { "" };
            format!("{what} [{:<length$}] {count}", "=".repeat(full) + head)
        }
        _ => format!("{what} {count}"),
    };
    let mut second = String::new();
    for figure in figures {
        let gap = if second.is_empty() { "" } else { "  " };
        if second.len() + gap.len() + figure.len() > room {
            break;
        }
        second = second + gap + figure;
    }
    let first = console::truncate_str(&first, room, "").into_owned();
    [first, second]
        .into_iter()
        .filter(|line| !line.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_narrower_than_any_terminal() {
        let figures = [
            "ETA 1:02:03",
            "loss 0.1437",
            "accuracy 0.8500",
            "12.7 rows/s",
        ];
        let figures = figures.map(str::to_owned);
        for width in 0..200 {
            for (done, total) in [(0, 0), (0, 8), (5, 8), (8, 8), (123_456, 1_000_000)] {
                for what in ["training", "model-00001-of-00004.safetensors", "漢字"] {
                    let lines = lines(what, (done, total), &figures, width);
                    let widest = lines.iter().map(|line| console::measure_text_width(line));
                    assert!(
                        widest.max().unwrap_or(0) <= width.saturating_sub(1),
                        "{lines:?}"
                    );
                    assert!(lines.len() <= 2);
                }
            }
        }
    }

    #[test]
    fn figures_are_left_out_from_the_end() {
        let figures = ["ETA 0:06", "loss 0.1437", "accuracy 0.8500"].map(str::to_owned);
        let at = |width| lines("training", (2, 4), &figures, width);
        let wide = [
            "training [==========>         ] 2/4",
            "ETA 0:06  loss 0.1437",
        ];
        assert_eq!(at(36), wide);
        assert_eq!(at(24), ["training 2/4", "ETA 0:06  loss 0.1437"]);
        assert_eq!(at(10), ["training ", "ETA 0:06"]);
    }
}
