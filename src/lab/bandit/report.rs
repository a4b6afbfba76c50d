//! What an experiment returns.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::io::durable::{create_directory, write_file};
use crate::report::{Figure, Table};

/// What an experiment found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The result in a few lines.
    pub summary: Table,
    /// Everything behind it.
    pub details: Vec<Table>,
    /// To be laid beside the papers'.
    pub figures: Vec<Figure>,
}

impl Report {
    /// The summary and all but the longest tables, by name.
    pub fn to_json(&self) -> Value {
        let short = self
            .details
            .iter()
            .filter(|table| table.rows().len() < 2000);
        let tables = std::iter::once(&self.summary).chain(short);
        let entries = tables.map(|table| (table.name.clone(), table.to_json()));
        Value::Object(entries.collect::<Map<String, Value>>())
    }

    /// Writes each table as CSV, each figure as SVG and PNG, `results.json`, and `config` as `config.toml`
    /// into a directory, which is made if need be; the names of the files.
    ///
    /// # Errors
    /// If one of them is there and not to be `replaced`; then none is written.
    pub fn write(&self, folder: &Path, config: &str, replace: bool) -> Result<Vec<String>> {
        create_directory(folder)?;
        let mut files = vec![("config.toml".to_owned(), config.as_bytes().to_vec())];
        for table in std::iter::once(&self.summary).chain(&self.details) {
            files.push((format!("{}.csv", table.name), table.to_csv().into_bytes()));
        }
        for figure in &self.figures {
            files.push((format!("{}.svg", figure.name), figure.to_svg().into_bytes()));
            files.push((format!("{}.png", figure.name), figure.to_png()));
        }
        let json = format!("{:#}\n", self.to_json());
        files.push(("results.json".to_owned(), json.into_bytes()));
        let paths = files.iter().map(|(name, _)| folder.join(name));
        let there = paths.clone().find(|path| path.symlink_metadata().is_ok());
        if let (Some(path), false) = (there, replace) {
            return Err(Error::input("already exists")
                .hint("name another directory, or replace what it holds")
                .option("overwrite", "")
                .at(path.display()));
        }
        for (path, (_, bytes)) in paths.zip(&files) {
            write_file(&path, bytes)?;
        }
        Ok(files.into_iter().map(|(name, _)| name).collect())
    }
}
