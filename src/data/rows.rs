//! Files of rows, and the report of what became of each.

mod expand;
mod files;
pub mod invalid;
pub mod read;
pub mod report;

pub use files::Files;
pub use invalid::{Invalid, RowError};
pub use report::{Lines, RowReport, Spread};
