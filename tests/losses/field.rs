//! The losses against their second formulas, and the members of the QPO family.

use super::configured;
use super::second_formulas::{CASES, PAIRS, Pair, sigma};
use expo::loss::{Dual, Loss, Objective, Scored};

fn loss(name: &str, knobs: &[(&str, &str)]) -> Loss {
    let knobs: Vec<_> = knobs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    configured(name, &knobs)
}

fn close(ours: f64, want: f64, tolerance: f64) -> bool {
    (ours - want).abs() <= tolerance * want.abs().max(1e-2)
}

/// d formula / d log pi of the chosen (0) or rejected (1) response.
fn slope(pair: &Pair, i: usize, formula: &dyn Fn(&Pair) -> f64) -> f64 {
    let at = |shift: f64| {
        let mut moved = *pair;
        moved.policy[i] += shift;
        formula(&moved)
    };
    // Richardson's extrapolation: an error of the fourth order in h.
    let central = |h: f64| (at(h) - at(-h)) / (2.0 * h);
    (4.0 * central(5e-4) - central(1e-3)) / 3.0
}

#[test]
fn losses_agree_with_their_published_formulas() {
    for (name, knobs, formula) in CASES {
        let loss = loss(name, knobs);
        for pair in &PAIRS {
            let ours = loss.evaluate_alone(&pair.scored());
            assert!(
                close(ours.value, formula(pair), 1e-9),
                "{name} {knobs:?}: {ours:?}"
            );
            for i in 0..2 {
                let want = slope(pair, i, formula);
                assert!(
                    close(ours.grad[i], want, 1e-6),
                    "{name} {knobs:?}: {ours:?}, {want}"
                );
            }
        }
    }
}

/// Losses whose second formula is not of one pair alone; their tests are below.
const NOT_OF_ONE_PAIR: [&str; 3] = ["ld_dpo", "aot", "aot_unpaired"];

#[test]
fn every_loss_has_a_second_formula() {
    for name in Loss::NAMES {
        let has_one = CASES.iter().any(|(other, ..)| other == name);
        assert!(
            has_one || NOT_OF_ONE_PAIR.contains(name),
            "{name} has no second formula: write it from its paper, not from src, as a row of CASES \
             in tests/losses/second_formulas.rs"
        );
    }
}

/// Its gradient has a part for all tokens of a response and one for those that both responses have.
#[test]
fn ld_dpo_agrees_with_its_published_formula() {
    for alpha in [0.0, 0.3, 1.0] {
        let loss = loss("ld_dpo", &[("alpha", &alpha.to_string())]);
        // Of the first min(n_w, n_l) tokens and of the rest.
        let formula = |x: &Pair| {
            let weighted = |shared: f64, all: f64| shared + alpha * (all - shared);
            let rho = |i: usize| {
                weighted(x.shared_policy[i], x.policy[i])
                    - weighted(x.shared_reference[i], x.reference[i])
            };
            -sigma(0.1 * (rho(0) - rho(1))).ln()
        };
        for pair in &PAIRS {
            let sums: Vec<_> = (0..2)
                .map(|i| (pair.shared_policy[i], pair.shared_reference[i]))
                .collect();
            let ours = loss.evaluate_alone(&pair.scored().with_shared(&sums));
            assert!(close(ours.value, formula(pair), 1e-9), "{alpha}: {ours:?}");
            for i in 0..2 {
                let all = slope(pair, i, &formula);
                let by_shared = |shift: f64| {
                    let mut moved = *pair;
                    moved.shared_policy[i] += shift;
                    formula(&moved)
                };
                let shared = (by_shared(1e-4) - by_shared(-1e-4)) / 2e-4;
                assert!(close(ours.grad[i], all, 1e-6), "{alpha}: {ours:?}, {all}");
                assert!(
                    close(ours.grad[2 + i], shared, 1e-5),
                    "{alpha}: {ours:?}, {shared}"
                );
            }
        }
    }
}

/// The mean over a batch, sorted the slow way.
fn aot(batch: &[Pair], paired: bool) -> f64 {
    let sorted = |value: &dyn Fn(&Pair) -> f64| {
        let mut values: Vec<f64> = batch.iter().map(value).collect();
        for i in 0..values.len() {
            for j in i + 1..values.len() {
                if values[j] < values[i] {
                    values.swap(i, j);
                }
            }
        }
        values
    };
    let (upper, lower) = match paired {
        true => (
            sorted(&|x| x.policy[0] - x.policy[1]),
            sorted(&|x| x.reference[0] - x.reference[1]),
        ),
        false => (sorted(&|x| x.rho(0)), sorted(&|x| x.rho(1))),
    };
    let term = |(u, l): (&f64, &f64)| {
        let z = 0.3 * (u - l);
        -0.9 * sigma(z).ln() - 0.1 * sigma(-z).ln()
    };
    upper.iter().zip(&lower).map(term).sum::<f64>() / batch.len() as f64
}

#[test]
fn the_sorted_losses_are_those_of_the_whole_batch() {
    for (name, paired) in [("aot", true), ("aot_unpaired", false)] {
        let loss = loss(name, &[("beta", "0.3"), ("label_smoothing", "0.1")]);
        let examples: Vec<Scored> = PAIRS.iter().map(Pair::scored).collect();
        let prepared = loss.prepare(&examples);
        let duals: Vec<Dual> = examples
            .iter()
            .enumerate()
            .map(|(index, example)| loss.evaluate(example, prepared.of(index)))
            .collect();
        let count = PAIRS.len() as f64;
        let mean = duals.iter().map(|dual| dual.value).sum::<f64>() / count;
        assert!(close(mean, aot(&PAIRS, paired), 1e-12), "{name}: {mean}");
        for (index, dual) in duals.iter().enumerate() {
            for i in 0..2 {
                let of_batch = |pair: &Pair| {
                    let mut batch = PAIRS;
                    batch[index] = *pair;
                    aot(&batch, paired)
                };
                let want = slope(&PAIRS[index], i, &of_batch);
                assert!(
                    close(dual.grad[i] / count, want, 1e-6),
                    "{name} {index}: {dual:?}, {want}"
                );
            }
        }
    }
}

#[test]
fn the_family_has_the_members_that_the_papers_name() {
    let pairs = || PAIRS.iter().map(Pair::scored);
    let same = |name: &str, knobs: &[(&str, &str)], member: &[(&str, &str)]| {
        let (one, other) = (loss(name, knobs), loss("qpo", member));
        for pair in pairs() {
            let (a, b) = (one.evaluate_alone(&pair), other.evaluate_alone(&pair));
            let numbers = a
                .grad
                .iter()
                .chain([&a.value])
                .zip(b.grad.iter().chain([&b.value]));
            for (a, b) in numbers {
                assert!(
                    (a - b).abs() <= 1e-13 * a.abs(),
                    "{name} {knobs:?}: {a} is not {b}"
                );
            }
        }
    };
    for beta in ["0.1", "2"] {
        let beta = ("beta", beta);
        same("dpo", &[beta], &[beta]);
        same("ipo", &[beta], &[beta, ("psi", "ipo")]);
        for f in [
            "logistic",
            "hinge",
            "squared",
            "exponential",
            "truncated_quadratic",
            "savage",
        ] {
            same("gpo", &[beta, ("f", f)], &[beta, ("psi", f)]);
        }
        for mu in ["reverse_kl", "forward_kl", "jensen_shannon", "alpha"] {
            same("fdpo", &[beta, ("divergence", mu)], &[beta, ("mu", mu)]);
        }
        same(
            "hinge",
            &[beta, ("divergence", "alpha")],
            &[beta, ("mu", "alpha"), ("psi", "hinge")],
        );
    }
    // IPO is the squared GPO at twice its beta, up to scale.
    let (ipo, squared) = (
        loss("ipo", &[]),
        loss("gpo", &[("f", "squared"), ("beta", "0.2")]),
    );
    for pair in pairs() {
        let (a, b) = (ipo.evaluate_alone(&pair), squared.evaluate_alone(&pair));
        assert!(close(a.value, b.value / 0.04, 1e-12));
    }
}

#[test]
fn names_of_the_field_lead_somewhere() {
    for (name, ours) in [
        ("slic", "hinge"),
        ("nca_pair", "nca"),
        ("bco_pair", "bco"),
        ("aot_pair", "aot"),
        ("aot_unpair", "aot_unpaired"),
        ("r-dpo", "rdpo"),
    ] {
        assert_eq!(Loss::default_of(name).unwrap().name(), ours);
    }
    let hint = |name: &str| Loss::default_of(name).unwrap_err().to_string();
    assert!(hint("cdpo").contains("dpo with label_smoothing"));
    assert!(hint("sigmoid").contains("it is dpo"));
}
