//! A number together with its gradient: forward-mode differentiation over a handful of variables.
//!
//! Hides the chain rule, so that a loss is written as its paper writes it.
//!
//! *Why*: a tape or a tensor library is not needed for five variables, and a stable log-sigmoid put
//! together from tensor operations has the wrong slope at 0, exactly where training starts. Here
//! each function states its own slope, and [`Dual::log_sigmoid`] states the true one.

use super::math::{log_sigmoid, sigmoid, sigmoid_slope};
use std::ops::{Add, Div, Mul, Neg, Sub};

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

    /// A number that depends on none of `variables` variables.
    pub fn constant(value: f64, variables: usize) -> Self {
        Self {
            value,
            grad: vec![0.0; variables],
        }
    }

    /// e^x.
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        self.chain(value, value)
    }

    /// sigma(x) = 1 / (1 + e^-x), slope sigma(x) sigma(-x).
    pub fn sigmoid(self) -> Self {
        let x = self.value;
        self.chain(sigmoid(x), sigmoid_slope(x))
    }

    /// log sigma(x), slope sigma(-x): 0.5 at 0. Finite for every finite x.
    pub fn log_sigmoid(self) -> Self {
        let x = self.value;
        self.chain(log_sigmoid(x), sigmoid(-x))
    }

    /// softplus(x) = log(1 + e^x) = -log sigma(-x).
    pub fn softplus(self) -> Self {
        -(-self).log_sigmoid()
    }

    /// x^2.
    pub fn square(self) -> Self {
        let x = self.value;
        self.chain(x * x, 2.0 * x)
    }

    /// max(0, x), slope 0 at 0 and below. NaN stays NaN.
    pub fn relu(self) -> Self {
        if self.value <= 0.0 {
            Self::constant(0.0, self.grad.len())
        } else {
            self
        }
    }

    /// log(1 - e^x) for x < 0, also where e^x is near 0 or 1.
    pub fn log1m_exp(self) -> Self {
        let x = self.value;
        let value = if x > -std::f64::consts::LN_2 {
            (-x.exp_m1()).ln()
        } else {
            (-x.exp()).ln_1p()
        };
        self.chain(value, -1.0 / (-x).exp_m1())
    }

    /// min(x, `ceiling`): a constant, with no gradient, beyond the ceiling. NaN stays NaN.
    pub fn at_most(self, ceiling: f64) -> Self {
        if self.value > ceiling {
            Self::constant(ceiling, self.grad.len())
        } else {
            self
        }
    }

    /// f(self), where f has this `value` and this `slope` there.
    fn chain(mut self, value: f64, slope: f64) -> Self {
        self.value = value;
        self.grad.iter_mut().for_each(|g| *g *= slope);
        self
    }
}

impl Add for Dual {
    type Output = Dual;
    fn add(mut self, rhs: Dual) -> Dual {
        debug_assert_eq!(self.grad.len(), rhs.grad.len(), "numbers of two examples");
        self.value += rhs.value;
        self.grad
            .iter_mut()
            .zip(rhs.grad)
            .for_each(|(g, r)| *g += r);
        self
    }
}

impl Sub for Dual {
    type Output = Dual;
    fn sub(mut self, rhs: Dual) -> Dual {
        debug_assert_eq!(self.grad.len(), rhs.grad.len(), "numbers of two examples");
        self.value -= rhs.value;
        self.grad
            .iter_mut()
            .zip(rhs.grad)
            .for_each(|(g, r)| *g -= r);
        self
    }
}

impl Sub<&Dual> for &Dual {
    type Output = Dual;
    fn sub(self, rhs: &Dual) -> Dual {
        self.clone() - rhs.clone()
    }
}

impl Sub<f64> for Dual {
    type Output = Dual;
    fn sub(mut self, rhs: f64) -> Dual {
        self.value -= rhs;
        self
    }
}

impl Sub<f64> for &Dual {
    type Output = Dual;
    fn sub(self, rhs: f64) -> Dual {
        self.clone() - rhs
    }
}

impl Sub<Dual> for f64 {
    type Output = Dual;
    fn sub(self, rhs: Dual) -> Dual {
        let value = self - rhs.value;
        rhs.chain(value, -1.0)
    }
}

impl Add<Dual> for f64 {
    type Output = Dual;
    fn add(self, mut rhs: Dual) -> Dual {
        rhs.value += self;
        rhs
    }
}

impl Mul<Dual> for Dual {
    type Output = Dual;
    // The product rule is a sum.
    #[expect(clippy::suspicious_arithmetic_impl)]
    fn mul(self, rhs: Dual) -> Dual {
        let slopes = self.grad.iter().zip(&rhs.grad);
        let slopes = slopes.map(|(g, r)| g * rhs.value + self.value * r);
        Dual {
            value: self.value * rhs.value,
            grad: slopes.collect(),
        }
    }
}

impl Mul<Dual> for f64 {
    type Output = Dual;
    fn mul(self, rhs: Dual) -> Dual {
        let value = self * rhs.value;
        rhs.chain(value, self)
    }
}

impl Mul<&Dual> for f64 {
    type Output = Dual;
    fn mul(self, rhs: &Dual) -> Dual {
        self * rhs.clone()
    }
}

impl Div<f64> for Dual {
    type Output = Dual;
    fn div(mut self, rhs: f64) -> Dual {
        self.value /= rhs;
        self.grad.iter_mut().for_each(|g| *g /= rhs);
        self
    }
}

impl Div<f64> for &Dual {
    type Output = Dual;
    fn div(self, rhs: f64) -> Dual {
        self.clone() / rhs
    }
}

impl Neg for Dual {
    type Output = Dual;
    fn neg(self) -> Dual {
        -1.0 * self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Function = fn(Dual) -> Dual;

    const FUNCTIONS: [(&str, Function); 9] = [
        ("exp", Dual::exp),
        ("sigmoid", Dual::sigmoid),
        ("log_sigmoid", Dual::log_sigmoid),
        ("softplus", Dual::softplus),
        ("square", Dual::square),
        ("at_most", |x| x.at_most(0.5)),
        ("relu", |x| (x - 0.5).relu()),
        ("log1m_exp", |x| {
            (-(x.square() + Dual::constant(0.3, 1))).log1m_exp()
        }),
        ("product", |x| x.clone().sigmoid() * x.log_sigmoid()),
    ];

    fn at(x: f64) -> Dual {
        Dual::variable(x, 0, 1)
    }

    #[test]
    fn reports_slope_at_zero() {
        // A relu-based log-sigmoid reports 1.5 here and a minimum-based one 1.0.
        assert_eq!(at(0.0).log_sigmoid().grad, [0.5]);
        assert_eq!((-at(0.0)).log_sigmoid().grad, [-0.5]);
        assert_eq!(at(0.0).softplus().grad, [0.5]);
        assert_eq!(at(0.0).sigmoid().grad, [0.25]);
        assert_eq!(at(0.0).log_sigmoid().value, -std::f64::consts::LN_2);
    }

    #[test]
    fn stays_finite_far_from_zero() {
        for x in [104.0, 745.0, 1e4] {
            assert_eq!(at(x).log_sigmoid().grad[0], (-x).exp());
            assert_eq!(at(-x).log_sigmoid(), at(-x));
            assert_eq!(at(x).softplus(), at(x));
            assert_eq!(at(-x).sigmoid().value, (-x).exp());
        }
        assert_eq!(at(1e4).at_most(80.0).exp(), Dual::constant(80f64.exp(), 1));
    }

    #[test]
    fn one_minus_an_exponential_keeps_its_digits_at_both_ends() {
        for (x, value) in [(-1e-9, 1e-9_f64.ln()), (-50.0, -(-50f64).exp())] {
            let ours = at(x).log1m_exp().value;
            assert!((ours - value).abs() < 1e-9 * value.abs(), "{x}: {ours}");
        }
        assert_eq!(at(-1e4).log1m_exp(), Dual::constant(0.0, 1));
    }

    #[test]
    fn hands_nan_on() {
        for (name, f) in FUNCTIONS {
            assert!(f(at(f64::NAN)).value.is_nan(), "{name}");
        }
    }

    #[test]
    fn slopes_agree_with_finite_differences() {
        let h = 1e-6;
        for (name, f) in FUNCTIONS {
            for x in [-30.0, -3.0, -0.1, 0.0, 0.2, 2.0, 30.0] {
                let slope = (f(at(x + h)).value - f(at(x - h)).value) / (2.0 * h);
                let exact = f(at(x)).grad[0];
                let scale = f(at(x)).value.abs().max(1.0);
                assert!((slope - exact).abs() < 1e-8 * scale, "{name}({x})");
            }
        }
    }

    #[test]
    fn operators_are_linear_in_the_gradient() {
        let (x, y) = (Dual::variable(3.0, 0, 2), Dual::variable(5.0, 1, 2));
        let f = 2.0 * (&x - &y) / 4.0 + (1.0 - y) - 7.0 + (1.0 + x);
        assert_eq!(f.value, -1.0 - 4.0 - 7.0 + 4.0);
        assert_eq!(f.grad, [1.5, -1.5]);
    }
}
