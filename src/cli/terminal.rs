//! Text on its way to a terminal.
//!
//! *Why*: messages quote files, models, configs and servers, none of which may move the cursor, set a
//! title or turn the direction of a line. So every message and every answer passes here, wherever it
//! goes: what is in a log may be read on a terminal later.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The bytes of the longest message, and of what is kept of its end, where the remedy stands.
const LONGEST: usize = 4000;
const END: usize = 1000;

/// The text with control characters as JSON and TOML write them, e.g. `\u001b`; line breaks and tabs
/// stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_control(c) {
            // Each of them is a single UTF-16 unit.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A message: [`printable`], and without its middle where it is long.
pub fn message(text: &str) -> String {
    let text = printable(text);
    if text.len() <= LONGEST {
        return text.into_owned();
    }
    let is_boundary = |at: &usize| text.is_char_boundary(*at);
    let begin = (0..=LONGEST - END).rev().find(is_boundary).unwrap_or(0);
    let end = (text.len() - END..text.len()).find(is_boundary);
    let end = end.unwrap_or(text.len());
    let left_out = end - begin;
    format!(
        "{} [... {left_out} bytes left out ...] {}",
        &text[..begin],
        &text[end..]
    )
}

/// Whether this process says nothing, neither messages nor answers.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Lets another rank speak for this process.
pub fn silence() {
    SILENT.store(true, Relaxed);
}

/// Ends the [silence].
pub fn speak() {
    SILENT.store(false, Relaxed);
}

/// Whether another rank speaks for this process.
pub fn is_silent() -> bool {
    SILENT.load(Relaxed)
}

/// Writes a message as a line to standard error.
pub fn tell(text: impl Display) {
    if is_silent() {
        return;
    }
    // Where standard error is closed, nobody reads it.
    let _ = writeln!(
        std::io::stderr().lock(),
        "{}",
        message(text.to_string().trim_end())
    );
}

/// The columns of the terminal that standard output is; 80 where it is none.
pub fn width() -> usize {
    width_of(&console::Term::stdout())
}

/// The columns of a terminal to wrap text at; 80 where it is none.
pub fn width_of(terminal: &console::Term) -> usize {
    let size = terminal.size_checked();
    size.map_or(80, |(_, columns)| usize::from(columns).clamp(40, 120))
}

/// The text in lines of at most `width` columns that begin with `first` and `rest`. No word is parted: it may
/// be a path, a key or a flag.
pub fn wrap(text: &str, width: usize, first: &str, rest: &str) -> String {
    let options = textwrap::Options::new(width)
        .initial_indent(first)
        .subsequent_indent(rest)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}

/// C0, C1 and DEL, but for line breaks and tabs; and what sets the direction of text.
fn is_control(c: char) -> bool {
    let direction = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    direction || c.is_control() && !matches!(c, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out_and_other_text_stays() {
        assert_eq!(
            printable("a\x1b[31m\x07\r\u{9b}\u{202e}\x7f"),
            "a\\u001b[31m\\u0007\\u000d\\u009b\\u202e\\u007f"
        );
        let text = "two lines\n\tof text: ü 漢 🙂 مرحبا\n";
        assert!(matches!(printable(text), Cow::Borrowed(shown) if shown == text));
    }

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        let text = format!("file.json: {}; set a smaller one", "ü".repeat(100_000));
        let shown = message(&text);
        assert!(shown.len() < LONGEST + 60);
        assert!(shown.starts_with("file.json: ü") && shown.ends_with("; set a smaller one"));
        assert!(shown.contains("[... 196"), "{shown}");
        assert_eq!(message("short"), "short");
    }
}
