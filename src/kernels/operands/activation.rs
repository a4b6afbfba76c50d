//! Which activation.

/// An activation, element by element: a share of its input, `x share(x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Phi(x)` with the exact normal distribution function: GELU, Hendrycks and Gimpel 2016.
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`, their approximation of it: `gelu_new` and
    /// `gelu_pytorch_tanh` of Hugging Face.
    GeluTanh,
    /// `x sigmoid(x)`: SiLU, or Swish, Ramachandran et al. 2017.
    Silu,
}
