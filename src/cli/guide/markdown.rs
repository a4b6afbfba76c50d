//! Markdown as text for a terminal: wrapped, tables aligned, emphasis as ANSI styles or dropped.

use std::fmt::Write;
use std::mem::take;

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use textwrap::core::display_width;

use crate::cli::terminal::wrap;

/// How emphasis looks.
#[derive(Clone, Copy, PartialEq)]
pub enum Style {
    /// As escape sequences.
    Ansi,
    /// As in Markdown: code in backticks, headings underlined.
    Plain,
}

const BOLD: [&str; 2] = ["\u{1b}[1m", "\u{1b}[22m"];
const CODE: [&str; 2] = ["\u{1b}[36m", "\u{1b}[39m"];

/// The columns of a code block's margin, and of each level of a list.
const INDENT: usize = 2;

/// The text in lines of at most `width` columns, except for code blocks, whose lines stay whole.
pub fn render(markdown: &str, width: usize, style: Style) -> String {
    let mut page = Renderer {
        out: String::new(),
        width,
        style,
        text: String::new(),
        lists: Vec::new(),
        bullet: None,
        code: false,
        link: String::new(),
        rows: Vec::new(),
    };
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        page.event(event);
    }
    page.out.trim_end().to_owned() + "\n"
}

struct Renderer {
    out: String,
    width: usize,
    style: Style,
    /// The paragraph, heading, list item or cell that is being read.
    text: String,
    /// For each open list, the number of its next item; none where items have bullets.
    lists: Vec<Option<u64>>,
    /// The bullet of an item of which nothing is written yet.
    bullet: Option<String>,
    /// Whether a code block is being read.
    code: bool,
    /// Where the open link leads.
    link: String,
    /// The cells of the open table.
    rows: Vec<Vec<String>>,
}

impl Renderer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(Tag::List(first)) => {
                self.paragraph();
                self.lists.push(first);
            }
            Event::Start(Tag::Item) => self.bullet = Some(self.next_bullet()),
            Event::Start(Tag::CodeBlock(_)) => {
                self.paragraph();
                self.code = true;
            }
            Event::Start(Tag::Strong) => self.mark(BOLD[0]),
            Event::Start(Tag::Link { dest_url, .. }) => self.link = dest_url.into_string(),
            Event::Start(Tag::TableHead | Tag::TableRow) => self.rows.push(Vec::new()),
            Event::End(end) => self.end(end),
            Event::Text(text) if self.code => {
                for line in text.lines() {
                    let _ = writeln!(self.out, "{:INDENT$}{line}", "");
                }
            }
            Event::Text(text) => self.text += &text,
            Event::Code(code) => {
                let [begin, end] = match self.style {
                    Style::Ansi => CODE,
                    Style::Plain => ["`", "`"],
                };
                self.text += &format!("{begin}{code}{end}");
            }
            Event::SoftBreak | Event::HardBreak => self.text.push(' '),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.block(),
            TagEnd::Heading(level) => self.heading(level),
            TagEnd::Item => self.paragraph(),
            TagEnd::List(_) => {
                self.lists.pop();
                self.block();
            }
            TagEnd::CodeBlock => {
                self.code = false;
                self.out.push('\n');
            }
            TagEnd::Strong => self.mark(BOLD[1]),
            TagEnd::Link => {
                // A page of the guide is a topic of this command.
                if let Some(page) = self.link.strip_suffix(".md") {
                    let _ = write!(self.text, " (expo guide {})", page.replace('_', "-"));
                } else if self.link.starts_with("http") {
                    let _ = write!(self.text, " ({})", self.link);
                }
            }
            TagEnd::TableCell => {
                let cell = take(&mut self.text);
                self.rows.last_mut().expect("a cell is in a row").push(cell);
            }
            TagEnd::Table => self.table(),
            _ => {}
        }
    }

    fn mark(&mut self, escape: &str) {
        if self.style == Style::Ansi {
            self.text += escape;
        }
    }

    fn next_bullet(&mut self) -> String {
        match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{}. ", *number - 1)
            }
            _ => "- ".to_owned(),
        }
    }

    /// Writes the text that was read, behind the bullet of its item.
    fn paragraph(&mut self) {
        let text = take(&mut self.text);
        if text.trim().is_empty() {
            return;
        }
        let outer = INDENT * self.lists.len().saturating_sub(1);
        let bullet = self.bullet.take();
        let hanging = match (&bullet, self.lists.is_empty()) {
            (Some(bullet), _) => outer + bullet.len(),
            (None, true) => 0,
            (None, false) => outer + INDENT,
        };
        let first = format!("{:outer$}{}", "", bullet.unwrap_or_default());
        let rest = " ".repeat(hanging);
        let first = if first.trim().is_empty() {
            &rest
        } else {
            &first
        };
        self.out += &wrap(text.trim(), self.width.max(20), first, &rest);
        self.out.push('\n');
    }

    /// As [`paragraph`](Self::paragraph), with an empty line after what is in no list.
    fn block(&mut self) {
        self.paragraph();
        if self.lists.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    fn heading(&mut self, level: HeadingLevel) {
        let title = take(&mut self.text);
        let _ = match self.style {
            Style::Ansi => writeln!(self.out, "{}{title}{}\n", BOLD[0], BOLD[1]),
            Style::Plain => {
                let line = if level == HeadingLevel::H1 { "=" } else { "-" };
                writeln!(
                    self.out,
                    "{title}\n{}\n",
                    line.repeat(display_width(&title))
                )
            }
        };
    }

    fn table(&mut self) {
        let rows = take(&mut self.rows);
        let widths = self.widths(&rows);
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<Vec<_>> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| textwrap::wrap(cell, width))
                .collect();
            for line in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
                let mut text = String::new();
                for (cell, &width) in cells.iter().zip(&widths) {
                    let part = cell.get(line).map_or("", |part| part.as_ref());
                    let room = width.saturating_sub(display_width(part));
                    let _ = write!(text, "{part}{:room$}{:GAP$}", "", "");
                }
                self.out += text.trim_end();
                self.out.push('\n');
            }
            if number == 0 {
                let lines = widths.iter().map(|&width| "-".repeat(width));
                self.out += &lines.collect::<Vec<_>>().join(&" ".repeat(GAP));
                self.out.push('\n');
            }
        }
        self.out.push('\n');
    }

    /// The width of each column: that of its widest cell, the widest columns cut until all fit.
    fn widths(&self, rows: &[Vec<String>]) -> Vec<usize> {
        let columns = rows.first().map_or(0, Vec::len);
        let widest = |column| {
            rows.iter()
                .filter_map(move |row: &Vec<String>| row.get(column))
        };
        let mut widths: Vec<usize> = (0..columns)
            .map(|column| widest(column).map(|cell| display_width(cell)).max())
            .map(|width| width.unwrap_or(0).max(1))
            .collect();
        let room = self.width.saturating_sub(GAP * columns.saturating_sub(1));
        while widths.iter().sum::<usize>() > room {
            let widest = widths.iter_mut().max().expect("there are columns");
            if *widest <= NARROWEST {
                break;
            }
            *widest -= 1;
        }
        widths
    }
}

/// Columns between two columns of a table.
const GAP: usize = 2;
/// The columns that a column of a table keeps.
const NARROWEST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# A title

Some `code` and **strong** words, which are
wrapped, and [a page][resume].

- one item with more words than a line has
- two
  1. inner

```sh
a command --with many flags that is longer than a line
```

| name | meaning |
|---|---|
| `a` | a cell that has to be wrapped |

[resume]: exit_codes.md
";

    #[test]
    fn a_page_is_wrapped_with_its_lists_code_and_tables() {
        let want = "\
A title
=======

Some `code` and strong words,
which are wrapped, and a page
(expo guide exit-codes).

- one item with more words
  than a line has
- two
  1. inner

  a command --with many flags that is longer than a line

name  meaning
----  ------------------------
`a`   a cell that has to be
      wrapped
";
        assert_eq!(render(PAGE, 30, Style::Plain), want);
    }

    #[test]
    fn on_a_terminal_emphasis_is_escape_sequences() {
        let text = render(PAGE, 30, Style::Ansi);
        assert!(text.contains("\u{1b}[1mA title\u{1b}[22m"), "{text}");
        assert!(
            text.contains("\u{1b}[36mcode\u{1b}[39m") && !text.contains('`'),
            "{text}"
        );
    }
}
