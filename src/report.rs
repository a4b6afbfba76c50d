//! Results as tables, figures and pages.
//!
//! Hides formats: a [`Table`] knows text, CSV and JSON, a [`Figure`] knows SVG and PNG, a
//! [`page`](page::page) is a run as HTML, [`events`] are records for TensorBoard.

mod chart;
pub mod events;
mod markup;
pub mod page;
mod replicates;
mod table;

pub use chart::{Axis, COLORS, Curve, Figure, Look, Panel, Rule};
pub use replicates::Replicates;
pub use table::{Cell, Table, grouped, significant};
