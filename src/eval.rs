//! What became of a model: how it judges, how it is judged, how much variety it has.
//!
//! *Why*: each evaluation reads files that other commands wrote and gives numbers with intervals. None
//! needs another, and none trains.

pub mod alpaca;
pub mod diversity;
pub mod figure;
pub mod interval;
pub mod judge;
pub mod pairs;
