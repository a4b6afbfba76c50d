//! The files of a run directory: their names, and the records in them.
//!
//! Hides the spelling of names and keys. Whoever writes a file of a run and whoever reads it use the
//! same type from here.
//!
//! *Why*: a run directory outlives the program that wrote it. So reading is lenient: a key that an
//! older version did not write is absent or NaN, and an unknown key is ignored. Writing is strict: the
//! same run gives the same bytes, with keys in the order of the fields.
//!
//! | file | contents |
//! |---|---|
//! | [`RUN`] | [`RunRecord`]: what was run, on what |
//! | [`CONFIG`] | the resolved config |
//! | [`METRICS`] | a [`Record`] per line |
//! | [`TIMINGS`] | a [`TimingLine`] per line |
//! | [`GENERATIONS`] | a [`Generation`] per line |
//! | [`MARGINS`] | [`Margins`] of the last evaluation |
//! | [`NON_FINITE`] | a [`NonFiniteStep`] per line |
//! | [`SUMMARY`] | [`SummaryRecord`]: the run is finished |
//! | [`TENSORBOARD`] | a directory of event files |
//! | `checkpoint-STEP` | a directory per [checkpoint](checkpoint_name) |
//! | [`LATEST`] | the name of the newest checkpoint |

mod generation;
mod log;
mod margins;
mod metrics;
mod names;
mod non_finite;
mod record;
mod run_record;
mod summary;
#[cfg(test)]
mod tests;
mod timing;
mod warning;

pub use self::generation::{FinishReason, Generation};
pub use self::log::{Log, read_log};
pub use self::margins::{Margins, Pair, Side};
pub use self::metrics::{ACCURACY, Metric, Record, SAMPLED_KL, STRICT_ACCURACY, points, step};
pub use self::names::{
    CONFIG, FILES, GENERATIONS, LATEST, MARGINS, METRICS, NON_FINITE, RUN, SUMMARY, TENSORBOARD,
    TIMINGS, checkpoint_name, checkpoint_step, checkpoint_steps,
};
pub use self::non_finite::{NonFiniteResponse, NonFiniteRow, NonFiniteStep};
pub use self::run_record::{Change, Hashes, LeftOut, RowCounts, RunRecord};
pub use self::summary::{Best, FirstAndLast, SummaryRecord};
pub use self::timing::{Resumed, Timing, TimingLine};
pub use self::warning::RunWarning;
