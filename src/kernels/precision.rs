//! How exact a matmul is.

/// What the operands of a matmul are rounded to. Sums are f32 or f64 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Not rounded.
    #[default]
    Full,
    /// bf16, for f32 operands; f64 is never rounded.
    Bf16,
}
