//! Statistics of a predicted token.

/// What one row of logits says of its label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenStatistics {
    /// log sum exp of the row.
    pub log_sum_exp: f64,
    /// log softmax at the label, in nats.
    pub log_prob: f64,
    /// Entropy of the softmax, in nats.
    pub entropy: f64,
    /// Whether the label has the largest logit.
    pub correct: bool,
    /// log of the sum of squared probabilities: of drawing the same token twice.
    pub log_collision: f64,
}
