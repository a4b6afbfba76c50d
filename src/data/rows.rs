//! Files of rows, and the report of what became of each.

mod arrow;
mod columnar;
mod compressed;
mod csv;
mod expand;
mod files;
mod json_lines;
mod json_list;
mod mixture;
mod parquet;
pub mod read;
mod recognize;
pub mod report;
mod row;

pub use files::Files;
pub use mixture::{Weight, Weighted};
pub use report::{Invalid, Lines, PartCount, RowError, RowReport, Spread};
