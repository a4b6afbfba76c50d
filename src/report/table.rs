//! A table of results: aligned text to read, CSV and JSON with every digit.

use serde_json::{Map, Value};

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number; all of its digits go to CSV and JSON, four significant ones to the text.
    Number(f64),
    /// Nothing was computed here.
    Empty,
}

/// Rows under named columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// What its file is called, without an extension.
    pub name: String,
    columns: Vec<String>,
    /// Of each column; empty where a table names none.
    units: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Option<f64>> for Cell {
    fn from(number: Option<f64>) -> Self {
        number.map_or(Self::Empty, Self::Number)
    }
}

impl Table {
    /// Without rows.
    pub fn new<C: Into<String>>(name: &str, columns: impl IntoIterator<Item = C>) -> Self {
        Self {
            name: name.to_owned(),
            columns: columns.into_iter().map(Into::into).collect(),
            units: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// With a unit below each column's name in text; files have names alone.
    #[must_use]
    pub fn with_units<U: Into<String>>(mut self, units: impl IntoIterator<Item = U>) -> Self {
        self.units = units.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a row.
    ///
    /// # Panics
    /// Where it has not one cell per column.
    pub fn push(&mut self, row: Vec<Cell>) {
        assert_eq!(row.len(), self.columns.len(), "a row of {}", self.name);
        self.rows.push(row);
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows, each with one cell per column.
    pub fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// With a header; numbers read back exactly.
    pub fn to_csv(&self) -> String {
        let quoted = |text: &str| match text.contains([',', '"', '\n']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        };
        let exact = |cell: &Cell| match cell {
            Cell::Text(text) => quoted(text),
            Cell::Number(whole) if whole.fract() == 0.0 && whole.abs() < 1e15 => {
                format!("{whole:.0}")
            }
            Cell::Number(number) => format!("{number:?}"),
            Cell::Empty => String::new(),
        };
        let header: Vec<String> = self.columns.iter().map(|name| quoted(name)).collect();
        let mut text = header.join(",") + "\n";
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(exact).collect();
            text += &(cells.join(",") + "\n");
        }
        text
    }

    /// A list of objects; a number that is not finite is `null`, as is an empty cell.
    pub fn to_json(&self) -> Value {
        let value = |cell: &Cell| match cell {
            Cell::Text(text) => Value::from(text.as_str()),
            Cell::Number(number) => Value::from(*number),
            Cell::Empty => Value::Null,
        };
        let object = |row: &Vec<Cell>| {
            let cells = self.columns.iter().cloned().zip(row.iter().map(value));
            Value::Object(cells.collect::<Map<String, Value>>())
        };
        self.rows.iter().map(object).collect()
    }

    /// Aligned columns for a terminal: words to the left, numbers to the right.
    pub fn to_text(&self) -> String {
        let shown = |row: &Vec<Cell>| row.iter().map(show).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = self.rows.iter().map(shown).collect();
        let wide = |column: usize| {
            let cells = rows.iter().map(|row| &row[column]);
            let all = cells
                .chain([&self.columns[column]])
                .chain(self.units.get(column));
            all.map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..self.columns.len()).filter_map(wide).collect();
        let words = |column: usize| {
            let mut cells = self.rows.iter().map(|row| &row[column]);
            cells.any(|cell| matches!(cell, Cell::Text(_)))
        };
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).enumerate();
            let padded = padded.map(|(column, (cell, &width))| match words(column) {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        let body: String = rows.iter().map(|row| line(row)).collect();
        let units = match self.units.is_empty() {
            true => String::new(),
            false => line(&self.units),
        };
        line(&self.columns) + &units + &body
    }
}

fn show(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        Cell::Number(number) => significant(*number),
        Cell::Empty => "-".to_owned(),
    }
}

/// Four significant digits, in the usual notation where that is short.
pub fn significant(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        size if (1e-3..1e4).contains(&size) => {
            let text = format!("{x:.*}", (3 - size.log10().floor() as i32).max(0) as usize);
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            }
        }
        _ => {
            let text = format!("{x:.1e}");
            text.replace(".0e", "e")
        }
    }
}

/// A count with a comma after every three digits.
pub fn grouped(count: impl TryInto<u64>) -> String {
    let digits = count.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("t", ["name", "x"]);
        table.push(vec!["a,b".into(), 0.1.into()]);
        table.push(vec!["c".into(), Cell::Empty]);
        table.push(vec!["d".into(), 1e-5.into()]);
        table.push(vec!["e".into(), 3.0.into()]);
        table
    }

    #[test]
    fn csv_keeps_every_digit_and_quotes_commas() {
        assert_eq!(table().to_csv(), "name,x\n\"a,b\",0.1\nc,\nd,1e-5\ne,3\n");
    }

    #[test]
    fn text_is_aligned() {
        let lines = "name     x\na,b    0.1\nc        -\nd     1e-5\ne        3\n";
        assert_eq!(table().to_text(), lines);
    }

    #[test]
    fn json_has_null_where_nothing_is() {
        let expected = serde_json::json!({"name": "c", "x": null});
        assert_eq!(table().to_json()[1], expected);
    }

    #[test]
    fn numbers_have_four_digits() {
        let cases = [
            (0.60484, "0.6048"),
            (100.0, "100"),
            (0.00012, "1.2e-4"),
            (99.98, "99.98"),
            (f64::INFINITY, "inf"),
            (-2.5, "-2.5"),
        ];
        for (x, text) in cases {
            assert_eq!(significant(x), text);
        }
    }
}
