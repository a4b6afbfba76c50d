//! Files of rows, and the report of what became of each.

mod expand;
mod files;
mod mixture;
pub mod read;
pub mod report;

pub use files::Files;
pub use mixture::{Weight, Weighted};
pub use report::{Invalid, Lines, PartCount, RowError, RowReport, Spread};
