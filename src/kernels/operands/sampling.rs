//! How tokens are drawn.

/// How logits are processed before a draw; the keys of `[sample]` of the same names, in their ranges.
#[derive(Debug, Clone, Copy)]
pub struct Processors {
    /// Logits are divided by it.
    pub temperature: f64,
    /// Only so many most likely tokens are drawn from; 0: all.
    pub top_k: usize,
    /// Only the smallest set of most likely tokens is drawn from whose mass reaches it.
    pub top_p: f64,
    /// Only tokens are drawn from that are at least so likely as the most likely one times it; 0: all.
    pub min_p: f64,
    /// What a positive logit of a token seen before is divided by and a negative one multiplied; 1: off.
    pub repetition_penalty: f64,
    /// Whether the most likely token is taken: only the penalty is read then.
    pub greedy: bool,
}
