//! Files of rows, and the report of what became of each.

mod arrow;
mod columnar;
mod compressed;
mod csv;
mod expand;
mod files;
pub mod invalid;
mod json_lines;
mod json_list;
mod json_row;
mod mixture;
mod parquet;
pub mod read;
mod recognize;
pub mod report;
mod row;

pub use files::Files;
pub use invalid::{Invalid, RowError};
pub use mixture::{Weight, Weighted};
pub use report::{Lines, PartCount, RowReport, Spread};
