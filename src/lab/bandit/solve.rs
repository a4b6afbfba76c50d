//! Optima of a few logits, to convergence.
//!
//! Hides the optimiser: Newton's method on the logits whose mean is 0, with a Hessian from
//! differences of gradients, absolute eigenvalues, damping, and a line search.
//!
//! *Why*: a fixed number of Adam steps does not reach the optima at small lambda, which lie 1e5
//! logits away. Newton's step knows no scale. Some of the losses are not convex; absolute
//! eigenvalues make every step a descent there.

use super::policy::{log_softmax, probabilities};
use super::problem::Slope;

/// Where a search ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Solved {
    /// The logits, with mean 0.
    pub theta: Vec<f64>,
    /// Whether it is a minimum, and not where the search was given up.
    pub converged: bool,
    /// Newton steps taken.
    pub steps: usize,
}

impl Solved {
    /// The policy.
    pub fn policy(&self) -> Vec<f64> {
        probabilities(&self.theta)
    }

    /// Its logarithms.
    pub fn log_policy(&self) -> Vec<f64> {
        log_softmax(&self.theta)
    }
}

const MOST_STEPS: usize = 300;
const MOST_HALVINGS: usize = 30;
/// Where Newton's step fails, shorter ones nearer to the gradient's direction are tried.
const DAMPINGS: [f64; 6] = [0.0, 1e-6, 1e-3, 1.0, 1e3, 1e6];
/// A step this small, relative to the distance from 0, counts as none.
const TOLERANCE: f64 = 1e-9;
/// Logits beyond have no optimum to go to.
const BEYOND: f64 = 1e12;

/// The minimum of `f` that is reached from `start`.
///
/// `f` either does not change where all logits are moved alike, or is least where their mean is 0.
pub fn minimize(f: impl Fn(&[f64]) -> Slope, start: &[f64]) -> Solved {
    let space = Space::new(start.len());
    let f = |z: &[f64]| {
        let slope = f(&space.lift(z));
        Slope {
            grad: space.project(&slope.grad),
            ..slope
        }
    };
    let mut z = space.project(start);
    let mut here = f(&z);
    let mut converged = false;
    let mut steps = 0;
    while steps < MOST_STEPS && size(&z) < BEYOND && is_finite(&here) {
        let shape = Curvature::new(&f, &z);
        let newton = size(&shape.step(&here.grad, 0.0, f64::INFINITY));
        converged = shape.is_bowl() && newton <= TOLERANCE * (1.0 + size(&z));
        let far = 10.0 * (1.0 + size(&z));
        let better = DAMPINGS.iter().find_map(|damping| {
            let step = shape.step(&here.grad, *damping, far);
            search(&f, &z, &here, &step)
        });
        let Some((next, there)) = better else {
            // No better number exists; Newton's step says whether that is rounding.
            converged = shape.is_bowl() && newton <= 1e-5 * (1.0 + size(&z));
            break;
        };
        (z, here) = (next, there);
        steps += 1;
        if converged {
            break;
        }
    }
    Solved {
        theta: space.lift(&z),
        converged,
        steps,
    }
}

fn size(z: &[f64]) -> f64 {
    z.iter().fold(0.0, |most, x| most.max(x.abs()))
}

fn is_finite(slope: &Slope) -> bool {
    slope.value.is_finite() && slope.grad.iter().all(|g| g.is_finite())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn moved(z: &[f64], step: &[f64], share: f64) -> Vec<f64> {
    z.iter().zip(step).map(|(z, s)| z + share * s).collect()
}

/// The Hessian in its eigenvectors.
struct Curvature {
    values: Vec<f64>,
    vectors: Vec<Vec<f64>>,
}

impl Curvature {
    fn new(f: &impl Fn(&[f64]) -> Slope, z: &[f64]) -> Self {
        let n = z.len();
        let h = 1e-5 * (1e-3 * size(z)).max(1.0);
        let row = |i: usize| -> Vec<f64> {
            let unit: Vec<f64> = (0..n).map(|j| f64::from(i == j)).collect();
            let (ahead, behind) = (f(&moved(z, &unit, h)), f(&moved(z, &unit, -h)));
            let slopes = ahead.grad.iter().zip(&behind.grad);
            slopes.map(|(a, b)| (a - b) / (2.0 * h)).collect()
        };
        let rows: Vec<Vec<f64>> = (0..n).map(row).collect();
        let entry = |i: usize, j: usize| (rows[i][j] + rows[j][i]) / 2.0;
        let hessian = (0..n).map(|i| (0..n).map(|j| entry(i, j)).collect());
        let hessian = hessian.collect();
        let (values, vectors) = eigen(hessian);
        Self { values, vectors }
    }

    /// Whether the Hessian is positive definite.
    fn is_bowl(&self) -> bool {
        self.values.iter().all(|value| *value > 0.0)
    }

    /// -|H|^-1 g, along each eigenvector at most `far`; damping, in units of the largest
    /// eigenvalue, turns it towards -g.
    fn step(&self, gradient: &[f64], damping: f64, far: f64) -> Vec<f64> {
        let most = size(&self.values).max(f64::MIN_POSITIVE);
        let mut step = vec![0.0; gradient.len()];
        for (value, vector) in self.values.iter().zip(&self.vectors) {
            let curvature = (value.abs() + damping * most).max(f64::MIN_POSITIVE);
            let along = (-dot(vector, gradient) / curvature).clamp(-far, far);
            step = moved(&step, vector, if along.is_finite() { along } else { 0.0 });
        }
        step
    }
}

/// The first of the halved steps that makes `f` smaller, or its gradient where `f` has no more
/// digits.
fn search(
    f: &impl Fn(&[f64]) -> Slope,
    z: &[f64],
    here: &Slope,
    step: &[f64],
) -> Option<(Vec<f64>, Slope)> {
    let slope = dot(&here.grad, step);
    let mut share = 1.0;
    for _ in 0..MOST_HALVINGS {
        let next = moved(z, step, share);
        let there = f(&next);
        let lower = there.value <= here.value + 1e-4 * share * slope && there.value < here.value;
        let level = there.value <= here.value + 1e-14 * here.value.abs()
            && size(&there.grad) < size(&here.grad);
        if is_finite(&there) && (lower || level) {
            return Some((next, there));
        }
        share /= 2.0;
    }
    None
}

/// Logits with mean 0, in orthonormal coordinates, one fewer than logits (Helmert's basis).
struct Space {
    basis: Vec<Vec<f64>>,
}

impl Space {
    fn new(n: usize) -> Self {
        let vector = |k: usize| {
            let length = ((k * (k + 1)) as f64).sqrt();
            let entry = |i: usize| match i {
                i if i < k => 1.0 / length,
                i if i == k => -(k as f64) / length,
                _ => 0.0,
            };
            (0..n).map(entry).collect()
        };
        Self {
            basis: (1..n).map(vector).collect(),
        }
    }

    fn lift(&self, z: &[f64]) -> Vec<f64> {
        let zero = vec![0.0; self.basis.len() + 1];
        let parts = self.basis.iter().zip(z);
        parts.fold(zero, |sum, (vector, z)| moved(&sum, vector, *z))
    }

    fn project(&self, theta: &[f64]) -> Vec<f64> {
        self.basis.iter().map(|vector| dot(vector, theta)).collect()
    }
}

/// Eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations.
fn eigen(mut a: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = a.len();
    let unit = |i: usize| (0..n).map(|j| f64::from(i == j)).collect();
    let mut vectors: Vec<Vec<f64>> = (0..n).map(unit).collect();
    for _ in 0..50 {
        let mut rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                let tiny = 1e-15 * (a[p][p].abs() * a[q][q].abs()).sqrt();
                if a[p][q].abs() <= tiny || !a[p][q].is_finite() {
                    continue;
                }
                rotated = true;
                let ratio = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                rotate(&mut a, &mut vectors, (p, q), (c, t * c));
            }
        }
        if !rotated {
            break;
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), vectors)
}

/// Turns the plane of the coordinates p and q; `vectors` has the eigenvectors as rows.
fn rotate(
    a: &mut [Vec<f64>],
    vectors: &mut [Vec<f64>],
    (p, q): (usize, usize),
    (c, s): (f64, f64),
) {
    let turn = |x: f64, y: f64| (c * x - s * y, s * x + c * y);
    for row in a.iter_mut() {
        (row[p], row[q]) = turn(row[p], row[q]);
    }
    for rows in [a, vectors] {
        for k in 0..rows[p].len() {
            (rows[p][k], rows[q][k]) = turn(rows[p][k], rows[q][k]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_solve_their_equation() {
        let a = vec![
            vec![2.0, -1.0, 0.5],
            vec![-1.0, 3.0, 0.2],
            vec![0.5, 0.2, -1.0],
        ];
        let (values, vectors) = eigen(a.clone());
        for (value, vector) in values.iter().zip(&vectors) {
            for (row, entry) in a.iter().zip(vector) {
                assert!((dot(row, vector) - value * entry).abs() < 1e-12);
            }
        }
        assert!((values.iter().sum::<f64>() - 4.0).abs() < 1e-12);
    }

    #[test]
    fn lifted_logits_have_mean_zero() {
        let space = Space::new(4);
        let theta = space.lift(&space.project(&[1.0, 2.0, 3.0, -6.0]));
        for (theta, expected) in theta.iter().zip([1.0, 2.0, 3.0, -6.0]) {
            assert!((theta - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn a_far_minimum_is_found_and_a_missing_one_is_not() {
        let bowl = |far: f64| {
            move |theta: &[f64]| {
                let d = theta[0] - theta[1] - far;
                Slope {
                    value: d * d,
                    grad: vec![2.0 * d, -2.0 * d],
                }
            }
        };
        let found = minimize(bowl(1e5), &[0.0, 0.0]);
        assert!(found.converged);
        assert!((found.theta[0] - found.theta[1] - 1e5).abs() < 1e-6);
        let slide = |theta: &[f64]| Slope {
            value: theta[1] - theta[0],
            grad: vec![-1.0, 1.0],
        };
        assert!(!minimize(slide, &[0.0, 0.0]).converged);
    }
}
