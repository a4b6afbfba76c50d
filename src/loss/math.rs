//! The logistic function and its relatives on `f64`, without overflow and with all their digits.
//!
//! *Why*: losses, calibration and regressions must agree to the last bit on what sigma(x) is.

/// sigma(x) = 1 / (1 + e^-x).
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        x.exp() / (1.0 + x.exp())
    }
}

/// sigma'(x) = sigma(x) sigma(-x). A product, since 1 - sigma(x) is 0 in f64 from x = 37.
pub fn sigmoid_slope(x: f64) -> f64 {
    sigmoid(x) * sigmoid(-x)
}

/// log sigma(x) = -log(1 + e^-x).
pub fn log_sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        -(-x).exp().ln_1p()
    } else {
        x - x.exp().ln_1p()
    }
}

/// softplus(x) = log(1 + e^x) = -log sigma(-x).
pub fn softplus(x: f64) -> f64 {
    -log_sigmoid(-x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_digits_far_from_zero() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid_slope(0.0), 0.25);
        assert_eq!(softplus(0.0), std::f64::consts::LN_2);
        for x in [40.0, 104.0, 700.0] {
            assert_eq!(sigmoid(-x), (-x).exp());
            assert_eq!(sigmoid_slope(x), (-x).exp());
            assert_eq!(log_sigmoid(x), -(-x).exp());
            assert_eq!((log_sigmoid(-x), softplus(x)), (-x, x));
        }
        assert_eq!(
            (sigmoid(-1e4), softplus(-1e4), softplus(1e4)),
            (0.0, 0.0, 1e4)
        );
    }

    #[test]
    fn nan_stays_nan() {
        for f in [sigmoid, sigmoid_slope, log_sigmoid, softplus] {
            assert!(f(f64::NAN).is_nan());
        }
    }
}
