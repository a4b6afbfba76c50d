//! Logistic regression with an L1 penalty, no intercept, weights and soft targets:
//!
//! min over w of |w|_1 + C sum_i s_i [ t_i softplus(-w.x_i) + (1 - t_i) softplus(w.x_i) ]
//!
//! Hides the solver, proximal Newton: the smooth part by its second-order expansion, the penalised
//! quadratic by coordinate descent, then a step as long as it pays.
//!
//! *Why*: the problem is convex and has three unknowns, so it is solved to the last digits and shown to
//! be by its optimality conditions. A soft target is what AlpacaEval makes two rows of, one of each
//! label with the weights t and 1 - t; the sum is the same.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::loss::math::{sigmoid, softplus};

/// A row of the regression.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// x.
    pub features: Vec<f64>,
    /// t in [0, 1].
    pub target: f64,
    /// s.
    pub weight: f64,
}

/// A fitted regression.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    /// w.
    pub weights: Vec<f64>,
    /// C.
    pub c: f64,
}

/// Parts of the cross-validation.
pub const FOLDS: usize = 5;
/// The inverse strengths that are tried: ten from 1e-4 to 1e4, scikit-learn's own.
const STRENGTHS: usize = 10;

/// The fit whose C, of ten from 1e-4 to 1e4 in equal ratios, has the least log loss in a
/// cross-validation of five parts, and of equals the least C. Parts are those of
/// `GroupKFold` of scikit-learn 1.9 (older ones put groups of one size in an order of their own):
/// observation i of n is in part (n - 1 - i) mod 5. The log loss of a part is the weighted
/// sum over its number of rows, and parts count alike.
///
/// # Errors
/// If there are fewer than five observations, or one is not finite.
pub fn cross_validated(observations: &[Observation]) -> Result<Fit> {
    let n = observations.len();
    if n < FOLDS {
        return Err(Error::input(format!("{n} preferences"))
            .hint(format!("the cross-validation takes {FOLDS} at least")));
    }
    let part = |row: usize| (n - 1 - row) % FOLDS;
    let mut losses = [0.0; STRENGTHS];
    for fold in 0..FOLDS {
        let split = |inside: bool| -> Vec<&Observation> {
            let rows = (0..n).filter(|&row| (part(row) == fold) == inside);
            rows.map(|row| &observations[row]).collect()
        };
        let (test, train) = (split(true), split(false));
        for (strength, loss) in losses.iter_mut().enumerate() {
            let weights = fit(&train, strength_of(strength))?;
            let sum: f64 = test
                .iter()
                .map(|row| row.weight * clipped_loss(row, &weights))
                .sum();
            *loss += sum / test.len() as f64;
        }
    }
    let best = (0..STRENGTHS).min_by(|&a, &b| losses[a].total_cmp(&losses[b]));
    let c = strength_of(best.unwrap_or(0));
    let all: Vec<&Observation> = observations.iter().collect();
    let weights = fit(&all, c)?;
    Ok(Fit { weights, c })
}

fn strength_of(number: usize) -> f64 {
    10f64.powf(-4.0 + 8.0 * number as f64 / (STRENGTHS - 1) as f64)
}

/// The log loss of a row, with the probability kept 1e-15 away from 0 and 1.
fn clipped_loss(row: &Observation, weights: &[f64]) -> f64 {
    let p = sigmoid(dot(&row.features, weights)).clamp(1e-15, 1.0 - 1e-15);
    -(row.target * p.ln() + (1.0 - row.target) * (1.0 - p).ln())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The objective.
fn objective(rows: &[&Observation], weights: &[f64], c: f64) -> f64 {
    let loss = rows.iter().map(|row| {
        let z = dot(&row.features, weights);
        row.weight * (row.target * softplus(-z) + (1.0 - row.target) * softplus(z))
    });
    norm(weights) + c * loss.sum::<f64>()
}

fn norm(weights: &[f64]) -> f64 {
    weights.iter().map(|weight| weight.abs()).sum()
}

/// The gradient of the smooth part, and its Hessian row by row.
fn expansion(rows: &[&Observation], weights: &[f64], c: f64) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = weights.len();
    let (mut gradient, mut hessian) = (vec![0.0; size], vec![vec![0.0; size]; size]);
    for row in rows {
        let z = dot(&row.features, weights);
        let slope = c * row.weight * (sigmoid(z) - row.target);
        let bend = c * row.weight * sigmoid(z) * sigmoid(-z);
        for (i, x) in row.features.iter().enumerate() {
            gradient[i] += slope * x;
            for (j, y) in row.features.iter().enumerate() {
                hessian[i][j] += bend * x * y;
            }
        }
    }
    (gradient, hessian)
}

/// By how much the conditions of an optimum are missed, at most: the gradient of the smooth part is
/// -sign(w) where w is not 0, and at most 1 in size where it is.
pub fn violation(rows: &[&Observation], weights: &[f64], c: f64) -> f64 {
    let (gradient, _) = expansion(rows, weights, c);
    worst(&gradient, weights)
}

fn worst(gradient: &[f64], weights: &[f64]) -> f64 {
    let missed = gradient
        .iter()
        .zip(weights)
        .map(|(&slope, &weight)| match weight {
            0.0 => (slope.abs() - 1.0).max(0.0),
            _ => (slope + weight.signum()).abs(),
        });
    missed.fold(0.0, f64::max)
}

/// The weights of the optimum.
///
/// # Errors
/// If a row is not finite.
pub fn fit(rows: &[&Observation], c: f64) -> Result<Vec<f64>> {
    let size = rows.first().map_or(0, |row| row.features.len());
    let mut weights = vec![0.0; size];
    // What rounding leaves of a gradient is in proportion to what it is the sum of.
    let scale: f64 = rows
        .iter()
        .map(|row| row.weight * norm(&row.features))
        .sum();
    let enough = 1e-13 * c * scale + 1e-13;
    let mut value = objective(rows, &weights, c);
    for _ in 0..200 {
        let (gradient, hessian) = expansion(rows, &weights, c);
        if worst(&gradient, &weights) <= enough {
            break;
        }
        let step = quadratic(&gradient, &hessian, &weights);
        let moved =
            |t: f64| -> Vec<f64> { weights.iter().zip(&step).map(|(w, d)| w + t * d).collect() };
        // What a full step would gain by the expansion; negative.
        let gain = dot(&gradient, &step) + norm(&moved(1.0)) - norm(&weights);
        let steps = (0..50).map(|halvings| 0.5f64.powi(halvings));
        let better = match gain.abs() > 1e-9 * (1.0 + value) {
            true => steps.map(|t| (t, moved(t))).find_map(|(t, moved)| {
                let new = objective(rows, &moved, c);
                (new <= value + 1e-4 * t * gain).then_some((new, moved))
            }),
            // The value says nothing any more, for rounding hides the gain; the conditions still do.
            false => {
                let nearer = violation(rows, &moved(1.0), c) < worst(&gradient, &weights);
                nearer.then(|| (objective(rows, &moved(1.0), c), moved(1.0)))
            }
        };
        let Some(better) = better else { break };
        (value, weights) = better;
    }
    match value.is_finite() {
        true => Ok(weights),
        false => Err(Error::input("a feature or a preference is not finite")
            .hint("lengths, difficulties and preferences are numbers")),
    }
}

/// The step d that minimises g.d + d.H.d / 2 + |w + d|_1, coordinate by coordinate.
fn quadratic(gradient: &[f64], hessian: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let size = weights.len();
    let mut step = vec![0.0; size];
    for _ in 0..10_000 {
        let mut largest = 0.0f64;
        for i in 0..size {
            // A column of zeros bends nothing; its weight goes to 0.
            let bend = hessian[i][i].max(1e-12);
            let slope = gradient[i] + dot(&hessian[i], &step);
            let at = weights[i] + step[i];
            let free = at - slope / bend;
            let new = free.signum() * (free.abs() - 1.0 / bend).max(0.0);
            largest = largest.max((new - at).abs());
            step[i] = new - weights[i];
        }
        if largest <= 1e-15 * (1.0 + norm(weights)) {
            break;
        }
    }
    step
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn rows(seed: u64, count: usize) -> Vec<Observation> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let row = |_| {
            let features = vec![
                random.random_range(-1.0..1.0),
                random.random_range(-3.0..3.0),
                f64::from(u8::from(random.random_bool(0.7))),
            ];
            let z: f64 = dot(&features, &[-1.0, 0.3, 0.5]);
            Observation {
                target: sigmoid(z + random.random_range(-2.0..2.0)),
                weight: random.random_range(0.1..1.0),
                features,
            }
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn every_fit_is_an_optimum() {
        for seed in 0..5 {
            let rows = rows(seed, 300);
            let rows: Vec<&Observation> = rows.iter().collect();
            for strength in 0..STRENGTHS {
                let c = strength_of(strength);
                let weights = fit(&rows, c).unwrap();
                let missed = violation(&rows, &weights, c);
                assert!(
                    missed < 1e-9 * (1.0 + c),
                    "{c}: {weights:?} misses by {missed}"
                );
            }
            // Nothing is worth its penalty.
            assert_eq!(fit(&rows, 1e-4).unwrap(), [0.0; 3]);
        }
    }

    #[test]
    fn one_unknown_has_a_closed_form() {
        // With x = 1: C (sigmoid(w) n - sum t) = -sign(w).
        let row = |target| Observation {
            features: vec![1.0],
            target,
            weight: 1.0,
        };
        let rows = [0.9, 0.8, 0.3, 1.0].map(row);
        let rows: Vec<&Observation> = rows.iter().collect();
        for c in [1.5, 10.0, 1e4] {
            let p: f64 = (3.0 - 1.0 / c) / 4.0;
            let expected = (p / (1.0 - p)).ln();
            assert!((fit(&rows, c).unwrap()[0] - expected).abs() < 1e-12);
        }
        assert_eq!(fit(&rows, 1.0).unwrap(), [0.0]);
    }

    #[test]
    fn labels_that_a_line_divides_have_an_optimum_too() {
        let row = |x: f64| Observation {
            features: vec![x, 0.0],
            target: f64::from(u8::from(x > 0.0)),
            weight: 1.0,
        };
        let rows = [-2.0, -1.0, 1.0, 2.0].map(row);
        let rows: Vec<&Observation> = rows.iter().collect();
        let weights = fit(&rows, 1e4).unwrap();
        assert!(violation(&rows, &weights, 1e4) < 1e-8, "{weights:?}");
        assert_eq!(weights[1], 0.0);
    }
}
