//! What a judge answers, or why it does not.

use crate::error::Error;

/// The reply of a judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Verbatim.
    pub text: String,
    /// Prompt tokens, if the judge reports them.
    pub prompt_tokens: Option<u64>,
    /// Completion tokens, if the judge reports them.
    pub completion_tokens: Option<u64>,
}

/// Why there is no reply.
#[derive(Debug)]
pub enum Miss {
    /// All attempts failed.
    Failed(String),
    /// The judge refuses this question; others may succeed.
    Refused(String),
    /// The run is stopping.
    Stopped,
    /// No further question can succeed.
    Fatal(Error),
}
