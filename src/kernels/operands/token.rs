//! Statistics of a predicted token, and what its logits are made of.

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

/// What a model does to the head's logits: a logit z becomes `c tanh(m z / c)`, or `m z` without a cap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitTransform {
    /// The factor m.
    pub scale: f64,
    /// The soft cap c, if any, as in Gemma 2.
    pub softcap: Option<f64>,
}

impl LogitTransform {
    /// That of most models: none.
    pub const IDENTITY: Self = Self {
        scale: 1.0,
        softcap: None,
    };

    /// Whether a logit stays what it is.
    pub fn is_identity(self) -> bool {
        self == Self::IDENTITY
    }
}
