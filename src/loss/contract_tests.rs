//! What every loss of the table has to keep, whatever its formula.
//!
//! A loss declares in its own file, as [`Contract`], what only it knows: its value and slopes where
//! training starts, the knobs that change its formula, and where it is an exception.

mod particular;
mod step_0;

use super::{Loss, Objective, Response, Role, Scored};

/// Knobs to set, as for [`Loss::with`].
pub(crate) type Settings = &'static [(&'static str, &'static str)];

/// What a loss tells the tests that iterate the table.
#[diagnostic::on_unimplemented(
    message = "the loss `{Self}` does not say where it starts",
    label = "no `Contract`",
    note = "end its file with `#[cfg(test)] impl Contract for {Self}`: `step_0` has its value and \
            slopes where the policy is the reference, derived on paper"
)]
pub(crate) trait Contract {
    /// Its value and slopes on [the start](step_0::start), where the policy is the reference.
    fn step_0(&self) -> Step0;

    /// Settings that change the formula.
    fn variants(&self) -> &'static [Settings] {
        &[]
    }

    /// Whether the slope jumps at this pair.
    fn is_kink(&self, _w: &Response, _l: &Response) -> bool {
        false
    }

    /// Whether 0 bounds it from below.
    fn is_never_negative(&self) -> bool {
        true
    }

    /// Whether a label says the same from both sides.
    fn is_symmetric(&self) -> bool {
        true
    }

    /// The share of the value in what the gradient is the gradient of.
    fn value_share(&self) -> f64 {
        1.0
    }

    /// The slope at the start with respect to log pi of each of the two samples.
    fn sample_slope(&self) -> f64 {
        0.0
    }
}

/// A value and its slopes with respect to log pi(y_w) and log pi(y_l).
pub(crate) struct Step0 {
    pub value: f64,
    pub chosen: f64,
    pub rejected: f64,
}

impl Step0 {
    /// Of a function of log pi(y_w) - log pi(y_l), from its value and its slope in it.
    pub fn of_margin(value: f64, slope: f64) -> Self {
        Self {
            value,
            chosen: slope,
            rejected: -slope,
        }
    }
}

/// log r of the chosen and the rejected response of the start.
pub(crate) const REFERENCE: [f64; 2] = [-33.3, -33.9];
/// log r of its samples.
pub(crate) const SAMPLE: [f64; 2] = [-40.1, -41.1];
/// d_r of the start.
pub(crate) const D: f64 = 0.6;
/// Tokens of the chosen and of the rejected response of the start.
pub(crate) const LENGTH: f64 = 21.0;
/// The confidence of the chosen and of the rejected response.
pub(crate) const CONFIDENCE: [f64; 2] = [0.3, -0.2];
/// By how much the score of the chosen response is the higher one.
pub(crate) const SCORE_GAP: f64 = 2.0;
pub(crate) const LOG_2: f64 = std::f64::consts::LN_2;

/// sigma(x), without care for overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// log(1 + e^x), without care for overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    x.exp().ln_1p()
}

/// Every loss with the paper's knobs, and each setting that changes a formula.
fn losses() -> Vec<Loss> {
    let mut losses = Vec::new();
    for name in Loss::NAMES {
        let default = Loss::default_of(name).unwrap();
        let set = |loss: Loss, (key, value): &(&str, &str)| loss.with(key, value).unwrap();
        let variants = default.contract().variants().iter();
        losses.extend(variants.map(|knobs| knobs.iter().fold(default.clone(), set)));
        losses.push(default);
    }
    losses.iter().for_each(|loss| loss.validate().unwrap());
    losses
}

/// A pair with two samples and a mismatched answer: policy and reference log-probs of (w, l, s).
fn example(loss: &Loss, policy: [f64; 3], reference: [f64; 3], preference: Option<f64>) -> Scored {
    let example = Scored::new(
        &[
            (Role::Chosen, policy[0], reference[0], 21.0),
            (Role::Rejected, policy[1], reference[1], 30.0),
            (Role::Sampled, policy[2], reference[2], 25.0),
            (Role::Sampled, policy[2] - 3.0, reference[2] - 2.0, 12.0),
            (Role::Mismatched, -90.0, -91.5, 30.0),
        ],
        preference,
    );
    let part = |index: usize| (0.75 * policy[index], 0.75 * reference[index]);
    complete(
        loss,
        example,
        &[part(0), part(1), part(2), part(2), (-90.0, -91.5)],
    )
}

/// With what a few losses read beside log-probs and lengths; `shared` are sums of some tokens.
fn complete(loss: &Loss, example: Scored, shared: &[(f64, f64)]) -> Scored {
    let example = example
        .with_confidence(&[CONFIDENCE[0], CONFIDENCE[1], 0.0, 0.0, 0.0])
        .with_score_gap(Some(SCORE_GAP));
    match loss.needs().shared {
        true => example.with_shared(shared),
        false => example,
    }
}

const TUPLES: [([f64; 3], [f64; 3]); 9] = [
    ([-45.25, -61.5, -38.0], [-47.0, -60.0, -37.5]),
    ([-60.0, -45.0, -52.25], [-50.0, -50.0, -50.0]),
    ([-100.0, -100.0, -80.0], [-100.0, -100.0, -80.0]),
    ([-0.001, -0.002, -0.5], [-0.0015, -0.001, -0.25]),
    ([-350.75, -320.125, -200.0], [-340.5, -330.0, -190.0]),
    ([-33.3, -33.5, -40.1], [-34.4, -32.1, -40.1]),
    ([-1e3, -20.0, -30.0], [-20.0, -20.0, -31.0]),
    ([-20.0, -1e3, -30.0], [-20.0, -20.0, -31.0]),
    ([-1e4, -1.0, -1e4], [-1.0, -1e4, -1.0]),
];

fn soft_label(loss: &Loss, p: f64) -> Option<f64> {
    loss.needs().soft_labels.then_some(p)
}

/// The variable of this number: a response's log-prob, or after these its shared sum.
fn variable(example: &mut Scored, index: usize) -> &mut f64 {
    let count = example.responses.len();
    let response = &mut example.responses[index % count];
    match &mut response.shared {
        Some(shared) if index >= count => &mut shared.policy.value,
        _ => &mut response.policy.value,
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for loss in losses() {
        let contract = loss.contract();
        for (policy, reference) in TUPLES {
            for p in [None, soft_label(&loss, 0.7)] {
                let whole = example(&loss, policy, reference, p);
                if contract.is_kink(&whole.responses[0], &whole.responses[1]) {
                    continue;
                }
                // Statistics carry no gradient, so they stay while a log-prob moves.
                let batch = loss.prepare(std::slice::from_ref(&whole));
                let exact = loss.evaluate(&whole, batch.of(0));
                for index in 0..exact.grad.len() {
                    let value = *variable(&mut whole.clone(), index);
                    let step = 1e-4 * value.abs().min(1.0);
                    let at = |shift: f64| {
                        let mut moved = whole.clone();
                        *variable(&mut moved, index) += shift;
                        loss.evaluate(&moved, batch.of(0)).value
                    };
                    let slope = (at(step) - at(-step)) / (2.0 * step) / contract.value_share();
                    let error = (slope - exact.grad[index]).abs();
                    let scale = exact.value.abs().max(exact.grad[index].abs()).max(1.0);
                    assert!(
                        error < 1e-6 * scale,
                        "{loss:?} {whole:?}: {slope}, {exact:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn everything_is_finite_at_extreme_log_probs() {
    let extremes = [0.0, -1.0, -700.0, -1e3, -1e4];
    for loss in losses() {
        for w in extremes {
            for l in extremes {
                for (r_w, r_l) in [(w, l), (l, w), (0.0, -1e4), (-1e4, 0.0), (-1e3, -1e3)] {
                    for p in [None, soft_label(&loss, 0.3)] {
                        let example = example(&loss, [w, l, w], [r_w, r_l, r_w], p);
                        let dual = loss.evaluate_alone(&example);
                        let finite = dual.grad.iter().chain([&dual.value]).all(|x| x.is_finite());
                        let bounded = dual.value >= 0.0 || !loss.contract().is_never_negative();
                        assert!(finite && bounded, "{loss:?} {example:?}: {dual:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_certain_soft_label_is_a_hard_one() {
    for loss in losses() {
        for (policy, reference) in TUPLES {
            let hard = loss.evaluate_alone(&example(&loss, policy, reference, None));
            let soft = loss.evaluate_alone(&example(&loss, policy, reference, Some(1.0)));
            assert_eq!(hard, soft, "{loss:?}");
        }
    }
}

#[test]
fn a_label_says_the_same_from_both_sides() {
    let symmetric = losses()
        .into_iter()
        .filter(|loss| loss.needs().soft_labels && loss.contract().is_symmetric());
    for loss in symmetric {
        for (policy, reference) in TUPLES {
            for p in [0.0, 0.3, 0.5, 1.0] {
                let whole = example(&loss, policy, reference, Some(p));
                let mut swapped = whole.clone();
                swapped.preference = Some(1.0 - p);
                swapped.responses[0].role = Role::Rejected;
                swapped.responses[1].role = Role::Chosen;
                let (one, two) = (loss.evaluate_alone(&whole), loss.evaluate_alone(&swapped));
                let pairs = one
                    .grad
                    .iter()
                    .zip(&two.grad)
                    .chain([(&one.value, &two.value)]);
                for (a, b) in pairs {
                    let scale = a.abs().max(b.abs()).max(1e-9);
                    assert!(
                        (a - b).abs() <= 1e-9 * scale,
                        "{loss:?} {whole:?}: {one:?}, {two:?}"
                    );
                }
            }
        }
    }
}
