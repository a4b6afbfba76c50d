//! Muon: the mean of a matrix's gradients, orthogonalized.
//!
//! ```text
//! m = momentum * m + (1 - momentum) * g
//! u = momentum * m + (1 - momentum) * g           Nesterov's
//! w = (1 - rate * weight_decay) * w - rate * 0.2 * sqrt(max(rows, columns)) * orthogonal(u)
//! ```
//!
//! Jordan et al. 2024, with the scale of Liu et al. 2025 (Muon is Scalable for LLM Training, equation 4),
//! `torch.optim.Muon`'s `match_rms_adamw`. *Why* that scale: an update is about as large as one of AdamW,
//! so that one learning rate and one weight decay serve what Muon updates and what AdamW does.
//!
//! Muon updates the matrices of blocks, each as its file has it: stacked projections as one, fused
//! experts expert by expert. AdamW updates the rest: embeddings, the head, biases and norms.

use candle_core::Tensor;

use crate::error::Result;
use crate::kernels::optimizer::{self as kernel, Weights};
use crate::kernels::{Dst, Precision, elementwise, linear, mix};
use crate::model::parameters::{Entry, Layout};

/// The update of a matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Muon {
    /// Decay of the mean of gradients.
    pub momentum: f64,
    /// The learning rate.
    pub rate: f64,
    /// The share of a weight that is taken off, times the learning rate.
    pub weight_decay: f64,
}

/// The iteration's polynomial, odd: a x + b x^3 + c x^5 of singular values.
const POLYNOMIAL: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);

/// Iterations, after which singular values are between 0.7 and 1.2.
const ITERATIONS: usize = 5;

/// At most a matrix's norm is taken for this.
const EPSILON: f64 = 1e-7;

/// The root of the mean square of an update's elements, over the learning rate: AdamW's, about.
const RMS: f64 = 0.2;

/// Whether Muon updates a parameter: a matrix, or several, of a numbered block.
pub(super) fn is_hidden(entry: &Entry) -> bool {
    let is_number = |part: &str| part.parse::<usize>().is_ok();
    entry.shape.len() >= 2 && entry.name.split('.').any(is_number)
}

/// Rows and columns of each matrix of a parameter.
fn sides(shape: &[usize]) -> (usize, usize) {
    let columns = shape[shape.len() - 1];
    (shape[shape.len() - 2], columns)
}

impl Muon {
    /// At least the magnitude of what an update adds to a weight. No element of an orthogonalized matrix
    /// is over 2, and no side over 2^40.
    pub fn most(&self) -> f64 {
        2.0 * RMS * 2f64.powi(20) * self.rate
    }

    /// Updates a parameter and its mean, (elements) each, by gradients times `scale`.
    pub fn update(
        &self,
        entry: &Entry,
        mut weights: Weights,
        mut mean: Dst,
        (gradient, scale): (&Tensor, f64),
    ) -> Result<()> {
        let (rows, columns) = sides(&entry.shape);
        let size = rows * columns;
        for start in (0..entry.range.len()).step_by(size) {
            let matrix = |x: &Tensor| x.narrow(0, start, size)?.reshape((rows, columns));
            let gradient = matrix(gradient)?;
            let mut own = elementwise::copy(&gradient)?;
            elementwise::scale(&mut own, scale)?;
            let mut mean = mean.reborrow().narrowed(matrix)?;
            mix::mix(mean.reborrow(), &own, 1.0 - self.momentum)?;
            mix::mix(&mut own, &mean, self.momentum)?;
            let weights = weights.part(start..start + size)?;
            // On a GPU in bf16, as matmuls with the weights are.
            let norm = kernel::squared_norm(&own)?.sqrt();
            elementwise::scale(&mut own, 1.0 / norm.max(EPSILON))?;
            let direction = orthogonalized(elementwise::operand(&own, weights.stored())?)?;
            let direction = elementwise::operand(&direction, &gradient)?.flatten_all()?;
            let rate = self.rate * RMS * (rows.max(columns) as f64).sqrt();
            let keep = match entry.decay {
                true => 1.0 - self.rate * self.weight_decay,
                false => 1.0,
            };
            kernel::descend(keep, rate, weights, &direction)?;
        }
        Ok(())
    }
}

/// The nearest orthogonal matrix to one of norm 1, about: Newton-Schulz iterations from the shorter side.
fn orthogonalized(mut x: Tensor) -> Result<Tensor> {
    const FULL: Precision = Precision::Full;
    let (rows, columns) = x.dims2()?;
    let (a, b, c) = POLYNOMIAL;
    let scaled = |x: &Tensor, factor: f64| -> Result<Tensor> {
        let mut x = elementwise::copy(x)?;
        elementwise::scale(&mut x, factor)?;
        Ok(x)
    };
    for _ in 0..ITERATIONS {
        let wide = rows <= columns;
        // x x^T, or x^T x where that is smaller.
        let gram = match wide {
            true => linear::linear(&x, &x, None, x.dtype(), FULL)?,
            false => {
                let mut gram = elementwise::zeros((columns, columns), &x)?;
                linear::backward_weight(&x, &x, &mut gram, FULL)?;
                gram
            }
        };
        let mut polynomial = scaled(&gram, b)?;
        linear::linear_add(&scaled(&gram, c)?, &gram, &mut polynomial, FULL)?;
        let mut next = scaled(&x, a)?;
        match wide {
            true => linear::backward_input_add(&polynomial, &x, &mut next, FULL)?,
            false => linear::linear_add(&x, &polynomial, &mut next, FULL)?,
        }
        x = next;
    }
    Ok(x)
}

/// Floating-point operations of the matmuls of an update.
pub(super) fn flops(layout: &Layout) -> f64 {
    let each = |entry: &Entry| {
        let (rows, columns) = sides(&entry.shape);
        let (short, size) = (rows.min(columns) as f64, (rows * columns) as f64);
        let count = (entry.range.len() / (rows * columns)) as f64;
        count * ITERATIONS as f64 * (4.0 * size * short + 2.0 * short.powi(3))
    };
    let hidden = layout.entries.iter();
    let hidden = hidden.filter(|entry| entry.trainable && is_hidden(entry));
    hidden.map(each).sum()
}

/// Elements that the update of the largest matrix makes: it once more and its next, and three of its
/// shorter side.
pub(super) fn scratch(layout: &Layout) -> u64 {
    let each = |entry: &Entry| {
        let (rows, columns) = sides(&entry.shape);
        2 * rows * columns + 3 * rows.min(columns).pow(2)
    };
    let hidden = layout.entries.iter();
    let hidden = hidden.filter(|entry| entry.trainable && is_hidden(entry));
    hidden.map(each).max().unwrap_or(0) as u64
}

#[cfg(test)]
mod tests;
