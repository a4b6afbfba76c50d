//! The smallest policy there is: a softmax over a few responses.
//!
//! Probabilities are kept as logarithms: at the optima of small lambda most of them are below what
//! f64 can hold, and the losses read nothing but their logarithms.

/// log softmax(theta).
pub fn log_softmax(theta: &[f64]) -> Vec<f64> {
    let most = theta.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = theta.iter().map(|x| (x - most).exp()).sum();
    theta.iter().map(|x| x - most - sum.ln()).collect()
}

/// From a gradient with respect to each log pi to that with respect to theta.
pub fn pull_back(gradient: &[f64], log_policy: &[f64]) -> Vec<f64> {
    let total: f64 = gradient.iter().sum();
    let entries = gradient.iter().zip(log_policy);
    entries
        .map(|(g, log_pi)| g - log_pi.exp() * total)
        .collect()
}

/// Probabilities.
pub fn probabilities(theta: &[f64]) -> Vec<f64> {
    log_softmax(theta).into_iter().map(f64::exp).collect()
}

/// The logarithm of each probability.
pub fn logs(probabilities: &[f64]) -> Vec<f64> {
    probabilities.iter().map(|p| p.ln()).collect()
}

/// KL(p || q) in nats, of q its logarithms.
pub fn kl(p: &[f64], log_q: &[f64]) -> f64 {
    let entries = p.iter().zip(log_q).filter(|(p, _)| **p > 0.0);
    entries.map(|(p, log_q)| p * (p.ln() - log_q)).sum()
}

/// The total variation distance, half the sum of differences.
pub fn total_variation(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0
}

/// All mass on the most likely responses, equally where several are.
pub fn mode(p: &[f64]) -> Vec<f64> {
    let most = p.iter().copied().fold(0.0, f64::max);
    let is_most = |p: &f64| f64::from(*p > most - 1e-12);
    let count: f64 = p.iter().map(is_most).sum();
    p.iter().map(|p| is_most(p) / count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_pass_through_the_softmax_as_finite_differences_say() {
        let theta = [0.3, -1.0, 2.0];
        let weights = [0.5, -2.0, 1.5];
        let f = |theta: &[f64]| {
            let terms = log_softmax(theta).into_iter().zip(weights);
            terms.map(|(log_pi, w)| w * log_pi).sum::<f64>()
        };
        let gradient = pull_back(&weights, &log_softmax(&theta));
        for i in 0..3 {
            let moved = |by: f64| {
                let mut theta = theta;
                theta[i] += by;
                f(&theta)
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((slope - gradient[i]).abs() < 1e-8);
        }
    }

    #[test]
    fn far_logits_stay_finite() {
        assert_eq!(log_softmax(&[1e5, 0.0]), [0.0, -1e5]);
        assert_eq!(kl(&[1.0, 0.0], &[0.0, -1e5]), 0.0);
        assert_eq!(mode(&[0.4, 0.2, 0.4]), [0.5, 0.0, 0.5]);
    }
}
