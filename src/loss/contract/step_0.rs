//! Where the policy is the reference, each loss and its slopes have closed forms.

use super::super::{Divergence, Psi, Shape};
use super::*;

/// log r of the pair and of its first sample; every answer of the pair has 21 tokens.
const REFERENCE: [f64; 3] = [-33.3, -33.9, -40.1];
const D: f64 = 0.6;
const LENGTH: f64 = 21.0;
const LOG_2: f64 = std::f64::consts::LN_2;

fn sigma(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.exp().ln_1p()
}

/// f(0) and f'(0).
fn shape(f: Shape) -> (f64, f64) {
    match f {
        Shape::Logistic => (LOG_2, -0.5),
        Shape::Hinge | Shape::Exponential => (1.0, -1.0),
        Shape::Squared | Shape::TruncatedQuadratic => (1.0, -2.0),
        Shape::Savage => (0.25, -0.25),
    }
}

fn psi(psi: Psi, beta: f64) -> (f64, f64) {
    let scaled = |f| (shape(f).0, beta * shape(f).1);
    match psi {
        Psi::Ipo => (1.0 / (4.0 * beta * beta), -1.0 / beta),
        Psi::Logistic => scaled(Shape::Logistic),
        Psi::Hinge => scaled(Shape::Hinge),
        Psi::Squared => scaled(Shape::Squared),
        Psi::Exponential => scaled(Shape::Exponential),
        Psi::TruncatedQuadratic => scaled(Shape::TruncatedQuadratic),
        Psi::Savage => scaled(Shape::Savage),
    }
}

/// f''(1): the slope of S at rho = 0.
fn curvature(divergence: Divergence) -> f64 {
    match divergence {
        Divergence::JensenShannon => 0.5,
        _ => 1.0,
    }
}

/// The value and the slopes with respect to log pi(y_w) and log pi(y_l).
fn closed_form(loss: &Loss) -> (f64, f64, f64) {
    // Of a function of a margin, from its value and its slope in it.
    let margin = |(value, slope): (f64, f64)| (value, slope, -slope);
    match loss {
        Loss::Cexpo(k) => {
            let length = if k.length_normalized { LENGTH } else { 1.0 };
            let x = D / length - k.margin;
            margin((softplus(-x) + k.lambda * 40.6, -sigma(-x) / length))
        }
        Loss::Rexpo(k) => {
            let length = if k.length_normalized { LENGTH } else { 1.0 };
            let x = D / length;
            let residual = sigma(x - k.margin) - k.lambda * sigma(x) - (1.0 - k.lambda);
            if k.margin == 0.0 {
                let closed = ((1.0 - k.lambda) * sigma(-x)).powi(2);
                assert!((closed - residual * residual).abs() < 1e-15);
            }
            let slope = 2.0 * residual * sigma(x - k.margin) * sigma(k.margin - x) / length;
            margin((residual * residual, slope))
        }
        Loss::Dpo(k) => margin((LOG_2, -k.beta * (0.5 - k.label_smoothing))),
        Loss::Ipo(k) => {
            let length = if k.average_log_prob { LENGTH } else { 1.0 };
            margin((1.0 / (4.0 * k.beta * k.beta), -1.0 / k.beta / length))
        }
        Loss::Fdpo(k) => margin((LOG_2, -k.beta / 2.0 * curvature(k.divergence))),
        Loss::Simpo(k) => {
            let x = k.beta * D / LENGTH - k.gamma;
            margin((softplus(-x), -sigma(-x) * k.beta / LENGTH))
        }
        Loss::Kto(k) => {
            let half = (k.desirable_weight + k.undesirable_weight) / 2.0;
            let slope = |weight: f64| k.beta * weight / 8.0;
            (
                half / 2.0,
                -slope(k.desirable_weight),
                slope(k.undesirable_weight),
            )
        }
        Loss::Sft(k) => {
            let length = if k.per_token { LENGTH } else { 1.0 };
            (33.3 / length, -1.0 / length, 0.0)
        }
        Loss::Hinge(k) => margin((1.0, -k.beta * curvature(k.divergence))),
        Loss::Robust(k) => {
            let slope = -k.beta / 2.0 / (1.0 - 2.0 * k.label_smoothing);
            margin((LOG_2, slope * curvature(k.divergence)))
        }
        Loss::ExoPair(k) => {
            let eps = k.label_smoothing;
            let value = -LOG_2 - (eps * (1.0 - eps)).ln() / 2.0;
            let slope = k.beta * (eps / (1.0 - eps)).ln() / 4.0;
            margin((value, slope * curvature(k.divergence)))
        }
        Loss::Nca(k) => margin((2.0 * LOG_2, -k.beta / 4.0)),
        Loss::Bco(k) => margin((2.0 * LOG_2, -k.beta / 2.0)),
        Loss::SppoHard(k) => margin((1.0 / (2.0 * k.beta * k.beta), -1.0 / k.beta)),
        Loss::IpoLearned(k) => {
            let target = (k.gamma / 2.0).sqrt().min(1.0);
            let value = target * target - k.gamma * target.ln();
            margin((value, -2.0 * k.beta * target))
        }
        Loss::Aot(k) => margin((LOG_2, -k.beta * (0.5 - k.label_smoothing))),
        Loss::AotUnpaired(k) => margin((LOG_2, -k.beta * (0.5 - k.label_smoothing))),
        Loss::ApoZero(k) => margin((1.0, -k.beta / 4.0)),
        Loss::ApoDown(k) => (1.0, 0.0, k.beta / 4.0),
        Loss::Discopop(k) => {
            let value = 0.5 * LOG_2 + 0.5;
            assert!((value - 0.846574).abs() < 1e-6);
            let slope = k.beta * ((1.0 - LOG_2) / (4.0 * k.tau) - 0.75);
            margin((value, slope * curvature(k.divergence)))
        }
        Loss::SigmoidNorm(k) => margin((LOG_2, -k.beta / 2.0 / LENGTH * curvature(k.divergence))),
        Loss::Orpo(k) => {
            let (w, l) = (REFERENCE[0] / LENGTH, REFERENCE[1] / LENGTH);
            let odds = |mean: f64| mean.exp() / (1.0 - mean.exp());
            let x = (odds(w) / odds(l)).ln();
            let slope = |mean: f64| k.lambda * sigma(-x) / (1.0 - mean.exp()) / LENGTH;
            let value = -w + k.lambda * softplus(-x);
            (value, -1.0 / LENGTH - slope(w), slope(l))
        }
        Loss::Cpo(k) => {
            let slope = k.beta * sigma(-k.beta * D);
            let value = softplus(-k.beta * D) + k.alpha * 33.3 / LENGTH;
            (value, -slope - k.alpha / LENGTH, slope)
        }
        Loss::Rdpo(k) => margin((LOG_2, -k.beta / 2.0)),
        Loss::Dpop(k) => margin((LOG_2, -k.beta / 2.0)),
        // The gap of the scores is 2.
        Loss::Odpo(k) => {
            let odds = 2f64.powf(k.alpha);
            margin(((1.0 + odds).ln(), -k.beta * odds / (1.0 + odds)))
        }
        Loss::Gpo(k) => margin((shape(k.f).0, k.beta * shape(k.f).1)),
        Loss::Qpo(k) => {
            let (value, slope) = psi(k.psi, k.beta);
            margin((value, slope * curvature(k.mu)))
        }
        Loss::Wpo(k) => {
            let weight = (0.3_f64 - 0.2).exp();
            margin((weight * LOG_2, -weight * k.beta / 2.0))
        }
        Loss::LdDpo(k) => margin((LOG_2, -k.beta / 2.0)),
    }
}

#[test]
fn step_0_has_the_closed_forms() {
    let [w, l, s] = REFERENCE;
    let start = Scored::new(
        &[
            (Role::Chosen, w, w, LENGTH),
            (Role::Rejected, l, l, LENGTH),
            (Role::Sampled, s, s, 25.0),
            (Role::Sampled, s - 1.0, s - 1.0, 25.0),
            (Role::Mismatched, -90.0, -90.0, 30.0),
        ],
        None,
    );
    for loss in losses() {
        // Of answers of one length all tokens are shared.
        let all: Vec<_> = start
            .responses
            .iter()
            .map(|y| (y.reference, y.reference))
            .collect();
        let start = complete(&loss, start.clone(), &all);
        assert_eq!(start, start.at_reference());
        let step_0 = evaluate(&loss, &start);
        let count = start.responses.len();
        let slope =
            |index: usize| step_0.grad[index] + step_0.grad.get(count + index).unwrap_or(&0.0);
        let (value, slope_w, slope_l) = closed_form(&loss);
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs().max(1e-3);
        assert!(close(step_0.value, value), "{loss:?}: {step_0:?}, {value}");
        assert!(close(slope(0), slope_w), "{loss:?}: {step_0:?}, {slope_w}");
        assert!(close(slope(1), slope_l), "{loss:?}: {step_0:?}, {slope_l}");
        let sample = match &loss {
            Loss::Cexpo(k) => -k.lambda / 2.0,
            _ => 0.0,
        };
        assert_eq!(step_0.grad[2..count], [sample, sample, 0.0], "{loss:?}");
        match (&loss, loss.reward(&start.responses[0])) {
            (Loss::Simpo(_) | Loss::Orpo(_) | Loss::Cpo(_), _) => {}
            (Loss::Sft(_), reward) => assert_eq!(reward, None),
            (_, reward) => assert_eq!(reward, Some(0.0), "{loss:?}"),
        }
    }
}
