//! The papers' synthetic experiments: losses on a softmax over a few responses.
//!
//! Hides protocols behind [`Experiment::run`]: a config in, tables and figures out.
//!
//! *Why*: where the best policy is known, theory can be looked at. The losses are those of training,
//! asked for value and gradient as training asks them, so what holds here holds of the code that
//! trains models, and a new loss gets its curves and its verdict without a line here. Training is
//! one protocol; the other is the optimum with exact preferences, solved to convergence, because
//! "converged" is what the theorems speak of and a number of Adam steps is not.

mod closed_form;
mod config;
mod constraint;
mod contest;
mod grid;
mod interpolation;
mod policy;
mod preservation;
mod problem;
mod runs;
mod solve;
mod theory;
mod train;

use std::path::Path;

use serde_json::{Map, Value};

pub use closed_form::{ipo, rlhf};
pub use config::{
    Comparisons, Constraint, Data, Distance, Experiment, Interpolation, Penalty, Placement,
    Preservation, Theory,
};
pub use contest::{Contender, Losses, SampleTerm, Settings};
pub use grid::{Grid, Scale};
pub use problem::{Draws, Example, Prompt, Slope, Task};
pub use runs::{solve, solve_pairs};
pub use solve::{Solved, minimize};
pub use train::{Order, TrainConfig};

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
