//! What attends to what in a packed batch.

use std::ops::Range;

/// A range of tokens, and the range before it that they attend to as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Tokens that all of `own` attend to; empty for a prompt. It lies in the segments since the last
    /// one without a prefix.
    pub prefix: Range<usize>,
    /// The tokens; each attends to the prefix and to the own tokens up to itself.
    pub own: Range<usize>,
    /// Those of `own` whose output is computed.
    pub queries: Range<usize>,
}

impl Segment {
    /// A segment whose outputs are all computed.
    pub fn new(prefix: Range<usize>, own: Range<usize>) -> Self {
        Self {
            prefix,
            queries: own.clone(),
            own,
        }
    }
}
