//! The files: annotations, the difficulty of instructions, gamed rows.
//!
//! Annotations are AlpacaEval's `annotations.json`, a JSON list (or JSON lines) of objects with
//! `instruction`, `output_1`, `output_2`, `preference` in [1, 2], p(output_2 is better) + 1, or null, and
//! optionally `generator_1`, `generator_2`.
//!
//! Difficulties and gamed rows are JSON (a list or lines) or, by the name `.csv`, CSV with a header, as
//! AlpacaEval's `instruction_difficulty.csv` and `df_gamed.csv`:
//! - difficulty: `instruction_difficulty`, and `index` (the annotation's place from 0; in CSV also a
//!   first column without a name) or `instruction`.
//! - gamed: `preference` in [0, 1], `std_delta_len` (the scaled length difference),
//!   `instruction_difficulty`; with `index` it is a file of difficulties as well.
//!
//! Other columns are not read.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::csv::Csv;
use crate::data::read::{Row, rows};
use crate::error::{Error, Result};

/// An annotation.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// The instruction.
    pub instruction: String,
    /// p(output_2 is better), if there is one.
    pub win: Option<f64>,
    /// Characters of `output_1`, the baseline's.
    pub baseline_length: usize,
    /// Characters of `output_2`, the model's.
    pub length: usize,
}

/// The annotations of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotations {
    /// In the order of the file.
    pub rows: Vec<Annotation>,
    /// `generator_2`, if every row has it.
    pub model: Option<String>,
    /// `generator_1`.
    pub baseline: Option<String>,
}

impl Annotations {
    /// Reads a file.
    ///
    /// # Errors
    /// If its rows are of several models or baselines.
    pub fn open(path: &Path) -> Result<Self> {
        let mut all = Vec::new();
        let mut generators: [Option<String>; 2] = [None, None];
        for (number, record) in rows(path)?.enumerate() {
            let row = record?.row?;
            all.push(annotation(&row).map_err(|error| error.hint(COLUMNS))?);
            for (known, column) in generators.iter_mut().zip(["generator_1", "generator_2"]) {
                let name = row.get(column).map(|_| row.text(column)).transpose()?;
                if number > 0 && name != known.as_deref() {
                    let show =
                        |name: Option<&str>| name.map_or("missing".into(), |n| format!("{n:?}"));
                    let (name, first) = (show(name), show(known.as_deref()));
                    return Err(Error::input(format!(
                        "column `{column}` is {name}, not {first} as in the first row"
                    ))
                    .at(&row.place)
                    .hint("a file has the annotations of one model against one baseline"));
                }
                *known = name.map(str::to_owned);
            }
        }
        let [baseline, model] = generators;
        Ok(Self {
            rows: all,
            model,
            baseline,
        })
    }
}

const COLUMNS: &str =
    "an annotation has instruction, output_1, output_2, and preference in [1, 2] or null";

fn annotation(row: &Row) -> Result<Annotation> {
    let wrong = || {
        row.wrong(
            "preference",
            "a number from 1 (output_1 is better) to 2, or null",
        )
    };
    let win = match row
        .get("preference")
        .map(|value| value.as_f64().ok_or_else(wrong))
    {
        None => None,
        // A draw in older files.
        Some(Ok(0.0)) => Some(0.5),
        Some(Ok(preference)) if (1.0..=2.0).contains(&preference) => Some(preference - 1.0),
        Some(_) => return Err(wrong()),
    };
    let characters = |column| row.text(column).map(|text| text.chars().count());
    Ok(Annotation {
        instruction: row.text("instruction")?.to_owned(),
        win,
        baseline_length: characters("output_1")?,
        length: characters("output_2")?,
    })
}

/// The difficulty of an instruction, found by the annotation's place or its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Difficulty {
    /// Places from 0.
    by_index: HashMap<usize, f64>,
    by_instruction: HashMap<String, f64>,
}

/// A row of a model that wins by what it is not asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gamed {
    /// p(its output is better), in [0, 1].
    pub win: f64,
    /// The length difference, scaled.
    pub length: f64,
    /// The difficulty of its instruction.
    pub difficulty: f64,
}

/// Reads a file of difficulties.
pub fn difficulties(path: &Path) -> Result<Difficulty> {
    let mut found = Difficulty {
        by_index: HashMap::new(),
        by_instruction: HashMap::new(),
    };
    for cells in table(path)? {
        let value = cells.number("instruction_difficulty")?;
        let different =
            match (cells.index()?, cells.text("instruction")) {
                (Some(index), _) => *found.by_index.entry(index).or_insert(value) != value,
                (None, Some(text)) => *found.by_instruction.entry(text).or_insert(value) != value,
                (None, None) => return Err(cells.missing("index").hint(
                    "a row names its annotation by `index`, the place from 0, or by `instruction`",
                )),
            };
        if different {
            return Err(
                Error::input("a second difficulty of the same instruction").at(&cells.place)
            );
        }
    }
    Ok(found)
}

impl Difficulty {
    /// The difficulty of each annotation.
    ///
    /// # Errors
    /// Names the first annotation that the file lacks.
    pub fn of(&self, annotations: &[Annotation]) -> Result<Vec<f64>> {
        let find = |(index, row): (usize, &Annotation)| {
            let found = self
                .by_index
                .get(&index)
                .or_else(|| self.by_instruction.get(&row.instruction));
            found.copied().ok_or_else(|| {
                let start: String = row.instruction.chars().take(60).collect();
                Error::input(format!("no difficulty of annotation {index}, {start:?}"))
                    .hint("each annotation needs one, by its place from 0 or by its instruction")
            })
        };
        annotations.iter().enumerate().map(find).collect()
    }
}

/// Reads a file of gamed rows.
pub fn gamed(path: &Path) -> Result<Vec<Gamed>> {
    let read = |cells: Cells| {
        let win = cells.number("preference")?;
        if !(0.0..=1.0).contains(&win) {
            return Err(Error::input(format!("preference is {win}"))
                .hint("of a gamed row it lies in [0, 1]")
                .at(&cells.place));
        }
        if let Some(flag) = cells.text("not_gamed_baseline")
            && !["false", "0", "0.0"].contains(&flag.to_lowercase().as_str())
        {
            return Err(Error::input(format!("not_gamed_baseline is {flag:?}"))
                .hint("the file has gamed rows alone")
                .at(&cells.place));
        }
        Ok(Gamed {
            win,
            length: cells.number("std_delta_len")?,
            difficulty: cells.number("instruction_difficulty")?,
        })
    };
    table(path)?.into_iter().map(read).collect()
}

/// The largest magnitude of a difficulty or a length difference; real ones are a few units.
const LARGEST: f64 = 1e9;

/// The cells of a row that has a place.
struct Cells {
    place: String,
    cells: HashMap<String, String>,
    names: String,
}

impl Cells {
    fn text(&self, column: &str) -> Option<String> {
        self.cells
            .get(column)
            .filter(|cell| !cell.is_empty())
            .cloned()
    }

    fn missing(&self, column: &str) -> Error {
        let names = &self.names;
        Error::input(format!("no column `{column}`, only {names}")).at(&self.place)
    }

    fn number(&self, column: &str) -> Result<f64> {
        let text = self.text(column).ok_or_else(|| self.missing(column))?;
        let number = text.trim().parse::<f64>().ok();
        let number = number.filter(|number| number.is_finite());
        let wrong = |what: &str| Error::input(format!("column `{column}` is {text:?}, {what}"));
        match number {
            // Its square must be a number, too.
            Some(number) if number.abs() > LARGEST => Err(wrong("which is out of range")
                .at(&self.place)
                .hint(format!("a magnitude is at most {LARGEST:e}"))),
            Some(number) => Ok(number),
            None => Err(wrong("not a number").at(&self.place)),
        }
    }

    fn index(&self) -> Result<Option<usize>> {
        let Some(text) = self.text("index") else {
            return Ok(None);
        };
        // pandas writes whole numbers of a column with gaps as 3.0.
        let digits = text.strip_suffix(".0").unwrap_or(&text);
        match digits.parse() {
            Ok(index) => Ok(Some(index)),
            Err(_) => Err(Error::input(format!("column `index` is {text:?}"))
                .hint("it is a whole number from 0")
                .at(&self.place)),
        }
    }
}

/// The rows of a JSON or CSV file.
fn table(path: &Path) -> Result<Vec<Cells>> {
    let is_csv = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
    if !is_csv {
        return rows(path)?
            .map(|record| Ok(of_row(&record?.row?)))
            .collect();
    }
    let csv = Csv::open(path)?;
    let known = [
        "index",
        "instruction",
        "instruction_difficulty",
        "preference",
        "std_delta_len",
        "not_gamed_baseline",
    ];
    let mut columns: Vec<(&str, usize)> = known
        .into_iter()
        .filter_map(|name| Some((name, csv.column(name)?)))
        .collect();
    // pandas writes its index without a name.
    if csv.column("index").is_none() && csv.column("") == Some(0) {
        columns.push(("index", 0));
    }
    let cells = |(line, row): (usize, &[String])| Cells {
        place: format!("{}:{line}", path.display()),
        cells: columns
            .iter()
            .map(|&(name, at)| (name.to_owned(), row[at].clone()))
            .collect(),
        names: names_of(csv.header()),
    };
    let all: Vec<Cells> = csv.rows().map(cells).collect();
    match all.is_empty() {
        true => Err(Error::input("no rows below the header").at(path.display())),
        false => Ok(all),
    }
}

fn of_row(row: &Row) -> Cells {
    let cell = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let columns = row
        .columns()
        .map(|(name, value)| (name.to_owned(), cell(value)));
    Cells {
        place: row.place.to_string(),
        names: names_of(row.columns().map(|(name, _)| name)),
        cells: columns.collect(),
    }
}

fn names_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names
        .map(|name| format!("`{}`", name.escape_debug()))
        .collect();
    names.join(", ")
}
