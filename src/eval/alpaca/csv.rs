//! Tables of comma-separated values.
//!
//! Hides quotes: a field in `"` may hold commas, line ends and, doubled, quotes.

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::untrusted;

/// A table with its header.
#[derive(Debug, PartialEq)]
pub struct Csv {
    header: Vec<String>,
    /// Each with the number of the line that it begins on.
    rows: Vec<(usize, Vec<String>)>,
}

impl Csv {
    /// Reads a file.
    pub fn open(path: &Path) -> Result<Self> {
        let text = untrusted::text(path, untrusted::CSV)?;
        Self::parse(&text).map_err(|error| error.at(path.display()))
    }

    /// The table of a text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut rows = records(text)?.into_iter();
        let Some((_, header)) = rows.next() else {
            return Err(Error::input("the file is empty").hint("the first line names the columns"));
        };
        let rows: Vec<_> = rows.collect();
        let columns = header.len();
        match rows.iter().find(|(_, row)| row.len() != columns) {
            Some((line, row)) => Err(Error::input(format!("{} fields", row.len()))
                .hint(format!("the header has {columns}"))
                .at_line(*line)),
            None => Ok(Self { header, rows }),
        }
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    /// The names of the columns.
    pub fn header(&self) -> impl Iterator<Item = &str> {
        self.header.iter().map(String::as_str)
    }

    /// The rows, each with the number of its line.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &[String])> {
        self.rows.iter().map(|(line, row)| (*line, row.as_slice()))
    }
}

fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>> {
    let mut records = Vec::new();
    let (mut line, mut begun) = (1, 1);
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut quoted, mut was_quoted) = (false, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            c if quoted => field.push(c),
            '"' if field.is_empty() && !was_quoted => (quoted, was_quoted) = (true, true),
            ',' => {
                fields.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\r' if matches!(rest.peek(), Some('\n') | None) => {}
            '\n' => {
                if !(fields.is_empty() && field.is_empty() && !was_quoted) {
                    fields.push(std::mem::take(&mut field));
                    records.push((begun, std::mem::take(&mut fields)));
                }
                (was_quoted, begun) = (false, line);
            }
            _ if was_quoted || c == '"' => {
                return Err(Error::input("a quote within a field")
                    .hint("a field with quotes stands in quotes, and those in it are doubled")
                    .at_line(line));
            }
            c => field.push(c),
        }
    }
    if quoted {
        return Err(Error::input("a quoted field has no end").at(format!("line {begun}")));
    }
    if !(fields.is_empty() && field.is_empty() && !was_quoted) {
        fields.push(field);
        records.push((begun, fields));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_commas_and_line_ends() {
        let table = Csv::parse("a,b\r\n1,\"x, \"\"y\"\"\nz\"\n\n\"\",2").unwrap();
        assert_eq!((table.column("b"), table.column("c")), (Some(1), None));
        let rows: Vec<_> = table.rows().collect();
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(
            rows,
            [(2, &row("1", "x, \"y\"\nz")[..]), (5, &row("", "2")[..])]
        );
    }

    #[test]
    fn what_is_no_table_is_named_with_its_line() {
        for (text, said) in [
            ("", "the file is empty"),
            ("a,b\n1", "line 2: 1 fields; the header has 2"),
            ("a\n\"1", "line 2: a quoted field has no end"),
            ("a\n\"1\"2", "line 2: a quote within a field"),
            ("a\nx\"", "line 2: a quote within a field"),
        ] {
            let error = Csv::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
