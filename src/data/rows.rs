//! Files of rows, and the report of what became of each.

mod expand;
mod files;
pub mod read;
pub mod report;

pub use files::Files;
pub use report::{Invalid, Lines, RowError, RowReport, Spread};
