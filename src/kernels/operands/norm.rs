//! Which norm.

/// A norm over the last dimension.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// `(x - mean) / sqrt(variance + epsilon) * weight + bias`, Ba et al. 2016.
    LayerNorm {
        /// Added to the variance.
        epsilon: f64,
    },
    /// `x / sqrt(mean of squares + epsilon) * weight + bias`, Zhang and Sennrich 2019, whose norm has
    /// no bias.
    Rms {
        /// Added to the mean of squares.
        epsilon: f64,
        /// Whether the factor is `1 + weight`, as in Gemma.
        plus_one: bool,
    },
}

impl Norm {
    /// What is added to the variance, or to the mean of squares.
    pub fn epsilon(self) -> f64 {
        match self {
            Self::LayerNorm { epsilon } | Self::Rms { epsilon, .. } => epsilon,
        }
    }

    /// Whether the mean is subtracted.
    pub(in crate::kernels) fn centered(self) -> bool {
        match self {
            Self::LayerNorm { .. } => true,
            Self::Rms { .. } => false,
        }
    }

    /// Whether 1 is added to the weight.
    pub(in crate::kernels) fn plus_one(self) -> bool {
        match self {
            Self::LayerNorm { .. } => false,
            Self::Rms { plus_one, .. } => plus_one,
        }
    }
}
