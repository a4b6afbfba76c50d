//! Low-rank adapters: which layers have one, and of what rank and scale.
//!
//! Hu et al. 2021 (arXiv 2106.09685), Kalajdzievski 2023 (rsLoRA, arXiv 2312.03732), Liu et al. 2024
//! (DoRA, arXiv 2402.09353); semantics and files are those of PEFT.

/// An adapter of a model: what is trained beside its frozen weights.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adapter {
    /// The layers with a low-rank product, sorted by name.
    pub layers: Vec<LowRank>,
    /// Parameters that are trained whole, sorted by name: PEFT's `modules_to_save`.
    pub saved: Vec<String>,
    /// The share of a low-rank product's inputs that is set to zero in training, in [0, 1).
    pub dropout: f64,
}

/// `y = x W^T + scale (x A^T) B^T + b`, of a layer with weight W (out, in): A is (rank, in), B (out, rank).
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// The layer's name in the model's files, without `.weight`.
    pub layer: String,
    /// Rows of A.
    pub rank: usize,
    /// Factor of the product: alpha / rank, with rank stabilization alpha / sqrt(rank).
    pub scale: f64,
    /// Whether the rows of W + scale B A are scaled to learned magnitudes (out): DoRA.
    pub dora: bool,
}

impl Adapter {
    /// Whether a model with a tied head has one of its own beside this adapter: it changes head or
    /// embedding alone.
    pub fn unties(&self, embed: &str, head: &str) -> bool {
        let own =
            |name: &String| *name == format!("{embed}.weight") || *name == format!("{head}.weight");
        self.saved.iter().any(own) || self.layers.iter().any(|layer| layer.layer == head)
    }
}

impl LowRank {
    /// The name of W.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.layer)
    }

    /// The name of A.
    pub fn a(&self) -> String {
        format!("{}.lora_A.weight", self.layer)
    }

    /// The name of B.
    pub fn b(&self) -> String {
        format!("{}.lora_B.weight", self.layer)
    }

    /// The name of the magnitudes.
    pub fn magnitude(&self) -> String {
        format!("{}.lora_magnitude_vector", self.layer)
    }
}
