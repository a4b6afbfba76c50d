//! A number together with its gradient: forward-mode differentiation over a handful of variables.

use std::ops::{Div, Sub};

/// A value and its gradient with respect to each variable. Dtype f64 throughout.
#[derive(Debug, Clone, PartialEq)]
pub struct Dual {
    /// The value.
    pub value: f64,
    /// d value / d variable, one entry per response of the example.
    pub grad: Vec<f64>,
}

impl Dual {
    /// The variable number `index` of `variables`.
    pub fn variable(value: f64, index: usize, variables: usize) -> Self {
        let mut grad = vec![0.0; variables];
        grad[index] = 1.0;
        Self { value, grad }
    }
}

impl Sub<f64> for &Dual {
    type Output = Dual;
    fn sub(self, rhs: f64) -> Dual {
        Dual {
            value: self.value - rhs,
            grad: self.grad.clone(),
        }
    }
}

impl Div<f64> for &Dual {
    type Output = Dual;
    fn div(self, rhs: f64) -> Dual {
        Dual {
            value: self.value / rhs,
            grad: self.grad.iter().map(|g| g / rhs).collect(),
        }
    }
}
