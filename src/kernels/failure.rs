//! Failures of devices as errors of this crate.

use crate::error::Error;

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        use candle_core::Error as Candle;
        match error {
            // A backtrace is for those who work on candle.
            Candle::WithBacktrace { inner, .. } => Self::from(*inner),
            error => of_device(error.to_string()),
        }
    }
}

/// The error for what a device said.
pub(super) fn of_device(said: String) -> Error {
    match said.contains("OUT_OF_MEMORY") || said.contains("out of memory") {
        true => Error::input("the GPU is out of memory"),
        false => Error::Failed(said),
    }
}
