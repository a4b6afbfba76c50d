//! Gradients, optima, draws.

use expo::lab::bandit::{Draws, Example, Experiment, Task, ipo, rlhf, solve, solve_pairs};
use expo::loss::Loss;

use super::{close, loss, prompt};

#[test]
fn gradients_agree_with_finite_differences() {
    let prompt = prompt();
    let theta = [0.4, -0.3, 0.7];
    let has_bandit = |name: &&&str| {
        let set = format!("losses.names={name}");
        Experiment::built_in("theory", &[set]).is_ok()
    };
    let losses: Vec<&&str> = Loss::NAMES.iter().filter(has_bandit).collect();
    assert!(losses.len() >= 7, "{losses:?}");
    for name in losses {
        let loss = Loss::default_of(name).unwrap();
        let task = Task::new(&loss, &prompt);
        let examples = prompt.population();
        let slope = task.evaluate(&theta, &examples);
        for i in 0..3 {
            let value = |by: f64| {
                let mut theta = theta;
                theta[i] += by;
                task.evaluate(&theta, &examples).value
            };
            let difference = (value(1e-6) - value(-1e-6)) / 2e-6;
            assert!((difference - slope.grad[i]).abs() < 1e-7, "{name} {i}");
        }
    }
}

#[test]
fn optima_are_those_of_the_closed_forms() {
    let prompt = prompt();
    for beta in [1e-5, 1e-3, 0.05, 0.1, 0.5, 1.0, 7.0, 100.0, 1e4] {
        for (name, formula) in [("dpo", rlhf(&prompt, beta)), ("ipo", ipo(&prompt, beta))] {
            let solved = solve(&loss(name, "beta", beta), &prompt);
            assert!(solved.converged, "{name} {beta}");
            assert!(close(&solved.policy(), &formula, 1e-9), "{name} {beta}");
        }
    }
}

/// With preferences that are Bradley and Terry's, f-DPO's residuals can all be 0: S(pi / r) is
/// log pi* / beta up to a constant, which normalisation finds.
#[test]
fn f_dpos_optimum_is_where_its_scores_are_the_rewards() {
    let prompt = prompt();
    for beta in [0.02, 0.1, 1.0, 10.0] {
        // S = log 2 + log sigma(rho), so that pi = r s / (1 - s) with s = sigma(rho).
        let policy = |constant: f64| -> Vec<f64> {
            let entries = prompt.optimal.iter().zip(&prompt.reference);
            let odds = |(optimal, reference): (&f64, &f64)| {
                let s = (optimal.ln() / beta + constant).exp() / 2.0;
                if s < 1.0 {
                    reference * s / (1.0 - s)
                } else {
                    f64::INFINITY
                }
            };
            entries.map(odds).collect()
        };
        let (mut low, mut high) = (-1e3, 1e3);
        for _ in 0..200 {
            let middle = (low + high) / 2.0;
            match policy(middle).iter().sum::<f64>() < 1.0 {
                true => low = middle,
                false => high = middle,
            }
        }
        let solved = solve(&loss("fdpo", "beta", beta), &prompt);
        assert!(solved.converged, "{beta}");
        assert!(close(&solved.policy(), &policy(low), 1e-8), "{beta}");
    }
}

#[test]
fn expos_optima_go_to_the_optimal_policy_and_to_the_reference() {
    let prompt = prompt();
    for name in ["cexpo", "rexpo"] {
        let low = solve(&loss(name, "lambda", 1e-5), &prompt);
        assert!(
            low.converged && close(&low.policy(), &prompt.optimal, 1e-5),
            "{name}"
        );
    }
    let high = solve(&loss("rexpo", "lambda", 1.0), &prompt);
    assert!(close(&high.policy(), &prompt.reference, 1e-12));
    let high = solve(&loss("cexpo", "lambda", 1e6), &prompt);
    assert!(close(&high.policy(), &prompt.reference, 1e-6));
}

#[test]
fn what_has_no_optimum_is_not_solved() {
    let prompt = prompt();
    let always = |chosen: usize, rejected: usize| Example {
        prompt: 0,
        chosen,
        rejected,
        sampled: None,
        weight: 1.0,
    };
    let pairs = [always(0, 1), always(1, 2)];
    assert!(!solve_pairs(&loss("dpo", "beta", 0.1), &prompt, &pairs).converged);
    assert!(solve_pairs(&loss("cexpo", "lambda", 0.1), &prompt, &pairs).converged);
}

#[test]
fn draws_do_not_change() {
    let pairs = Draws::new(0, 0).pairs(&[prompt()], 0, 8);
    let pairs: Vec<(usize, usize)> = pairs.iter().map(|p| (p.chosen, p.rejected)).collect();
    assert_eq!(pairs, [(1, 2), (0, 1), (1, 2), (1, 2), (0, 2), (0, 2)]);
}

#[test]
fn draws_have_the_preferences_of_the_optimal_policy() {
    let prompt = prompt();
    let pairs = Draws::new(1, 0).pairs(std::slice::from_ref(&prompt), 0, 90_000);
    let count = |i, j| {
        pairs
            .iter()
            .filter(|p| (p.chosen, p.rejected) == (i, j))
            .count() as f64
    };
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        let (one, other) = (count(i, j), count(j, i));
        assert!((one + other - 20_000.0).abs() < 500.0);
        assert!((one / (one + other) - prompt.preference(i, j)).abs() < 0.015);
    }
    let mut pairs = pairs;
    Draws::new(1, 1).samples(std::slice::from_ref(&prompt), &mut pairs);
    for (i, share) in prompt.reference.iter().enumerate() {
        let drawn = pairs.iter().filter(|pair| pair.sampled == Some(i)).count();
        assert!((drawn as f64 / pairs.len() as f64 - share).abs() < 0.01);
    }
}
