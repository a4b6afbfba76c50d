//! Optima that have a formula, and RLHF's exact objective.
//!
//! *Why*: what the solver finds is held against them, in tests and in every table.

use super::policy::{log_softmax, logs, pull_back};
use super::problem::{Prompt, Slope};
use crate::loss::{Divergence, Loss};

/// r pi*^(1/beta), normalised: what RLHF and DPO with exact preferences aim at.
pub fn rlhf(prompt: &Prompt, beta: f64) -> Vec<f64> {
    let logits = logs(&prompt.optimal)
        .into_iter()
        .zip(logs(&prompt.reference));
    let logits: Vec<f64> = logits.map(|(s, r)| r + s / beta).collect();
    softmax(&logits)
}

/// IPO's with exact preferences of uniformly drawn pairs. The differences of log(pi/r) are the
/// least-squares fit of (2 p - 1) / (2 beta) over all pairs; over all pairs alike that is the mean
/// over the other responses.
pub fn ipo(prompt: &Prompt, beta: f64) -> Vec<f64> {
    let n = prompt.responses();
    let log_reference = logs(&prompt.reference);
    let logit = |i: usize| {
        let others = (0..n).filter(|j| *j != i);
        let targets = others.map(|j| (2.0 * prompt.preference(i, j) - 1.0) / (2.0 * beta));
        log_reference[i] + targets.sum::<f64>() / n as f64
    };
    softmax(&(0..n).map(logit).collect::<Vec<_>>())
}

/// The optimum of a loss with exact preferences; `None` where there is no formula for it.
pub fn population(loss: &Loss, prompt: &Prompt) -> Option<Vec<f64>> {
    match loss {
        Loss::Dpo(dpo) if dpo.label_smoothing == 0.0 => Some(rlhf(prompt, dpo.beta)),
        Loss::Ipo(loss) => Some(ipo(prompt, loss.beta)),
        Loss::Fdpo(fdpo) if fdpo.divergence == Divergence::ReverseKl => {
            Some(rlhf(prompt, fdpo.beta))
        }
        _ => None,
    }
}

/// -E_pi[log pi*] + beta KL(pi || r), RLHF's objective with its reward known, to be minimised.
pub fn rlhf_slope(prompt: &Prompt, beta: f64, theta: &[f64]) -> Slope {
    let log_policy = log_softmax(theta);
    let rewards = logs(&prompt.optimal);
    let log_reference = logs(&prompt.reference);
    let cost = |i: usize| beta * (log_policy[i] - log_reference[i]) - rewards[i];
    let weighted = |i: usize| log_policy[i].exp() * cost(i);
    let all = 0..theta.len();
    // The slope of the log-prob inside the KL drops out: probabilities add up to 1.
    let gradient: Vec<f64> = all.clone().map(weighted).collect();
    Slope {
        value: all.map(weighted).sum(),
        grad: pull_back(&gradient, &log_policy),
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    super::policy::probabilities(logits)
}
