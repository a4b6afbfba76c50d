//! `y = x W^T + b`.

use candle_core::Tensor;

use super::elementwise::add_assign;
use crate::error::Result;

/// `x` (n, in), `weight` (out, in), `bias` (out) -> (n, out).
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

/// The gradient with respect to `x`: `dy` (n, out) -> (n, in).
pub fn backward_input(dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    Ok(dy.matmul(weight)?)
}

/// Adds the gradient with respect to the weight, `dy^T x`, to `dweight` (out, in).
pub fn backward_weight(dy: &Tensor, x: &Tensor, dweight: &Tensor) -> Result<()> {
    add_assign(dweight, &dy.t()?.matmul(x)?)
}

/// Adds the gradient with respect to the bias, the column sums of `dy`, to `dbias` (out).
pub fn backward_bias(dy: &Tensor, dbias: &Tensor) -> Result<()> {
    add_assign(dbias, &dy.sum(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;

    #[test]
    fn backward_equals_autograd() {
        let (x, w, b) = (
            variable(1, &[5, 3]),
            variable(2, &[7, 3]),
            variable(3, &[7]),
        );
        let seed = variable(4, &[5, 7]);
        let y = linear(&x, &w, Some(&b)).unwrap();
        let want = autograd(&y, &seed, &[&x, &w, &b]);
        assert_close(&backward_input(&seed, &w).unwrap(), &want[0], "dx");
        let (dw, db) = (zeros_like(&w), zeros_like(&b));
        backward_weight(&seed, &x, &dw).unwrap();
        backward_bias(&seed, &db).unwrap();
        assert_close(&dw, &want[1], "dw");
        assert_close(&db, &want[2], "db");
    }
}
