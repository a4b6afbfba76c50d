//! What an experiment returns.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
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

    /// Writes each table as CSV, each figure as SVG and PNG, and `results.json` into a folder,
    /// which is made if need be; the names of the files.
    pub fn write(&self, folder: &Path) -> Result<Vec<String>> {
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, &error))?;
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        for table in std::iter::once(&self.summary).chain(&self.details) {
            files.push((format!("{}.csv", table.name), table.to_csv().into_bytes()));
        }
        for figure in &self.figures {
            files.push((format!("{}.svg", figure.name), figure.to_svg().into_bytes()));
            files.push((format!("{}.png", figure.name), figure.to_png()));
        }
        let json = format!("{:#}\n", self.to_json());
        files.push(("results.json".to_owned(), json.into_bytes()));
        for (name, bytes) in &files {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|error| Error::io(&path, &error))?;
        }
        Ok(files.into_iter().map(|(name, _)| name).collect())
    }
}
