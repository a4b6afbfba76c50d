//! The losses of the field against formulas that are written here a second time, from the papers and
//! without care for overflow, on pairs where none occurs; and the members of the QPO family.

use super::configured;
use expo::loss::{Dual, Loss, Objective, Role, Scored};

/// Everything that a loss may read of a pair: [chosen, rejected].
#[derive(Clone, Copy)]
struct Pair {
    policy: [f64; 2],
    reference: [f64; 2],
    tokens: [f64; 2],
    /// Sums over the first min(n_w, n_l) tokens.
    shared_policy: [f64; 2],
    shared_reference: [f64; 2],
    confidence: [f64; 2],
    scores: [f64; 2],
}

const PAIRS: [Pair; 4] = [
    Pair {
        policy: [-45.25, -61.5],
        reference: [-47.0, -60.0],
        tokens: [21.0, 30.0],
        shared_policy: [-45.25, -40.0],
        shared_reference: [-47.0, -41.5],
        confidence: [-0.25, 0.125],
        scores: [7.5, 2.0],
    },
    Pair {
        policy: [-60.0, -45.0],
        reference: [-50.0, -50.0],
        tokens: [24.0, 18.0],
        shared_policy: [-44.0, -45.0],
        shared_reference: [-37.5, -50.0],
        confidence: [-0.5, -1.0],
        scores: [0.5, 0.25],
    },
    Pair {
        policy: [-100.0, -100.75],
        reference: [-100.25, -99.0],
        tokens: [40.0, 40.0],
        shared_policy: [-100.0, -100.75],
        shared_reference: [-100.25, -99.0],
        confidence: [0.0, 0.75],
        scores: [-1.0, -3.0],
    },
    Pair {
        policy: [-3.5, -8.25],
        reference: [-4.75, -6.0],
        tokens: [5.0, 9.0],
        shared_policy: [-3.5, -4.5],
        shared_reference: [-4.75, -3.5],
        confidence: [0.5, 0.25],
        scores: [9.0, 8.0],
    },
];

impl Pair {
    fn scored(&self) -> Scored {
        let side = |role, i: usize| (role, self.policy[i], self.reference[i], self.tokens[i]);
        let responses = [side(Role::Chosen, 0), side(Role::Rejected, 1)];
        Scored::new(&responses, None)
            .with_confidence(&self.confidence)
            .with_score_gap(Some(self.scores[0] - self.scores[1]))
    }

    fn rho(&self, i: usize) -> f64 {
        self.policy[i] - self.reference[i]
    }

    fn h(&self) -> f64 {
        self.rho(0) - self.rho(1)
    }
}

fn sigma(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn js(rho: f64) -> f64 {
    (2.0 * rho.exp() / (1.0 + rho.exp())).ln()
}

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

/// A loss with its knobs, and its formula.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], fn(&Pair) -> f64);

#[test]
fn losses_agree_with_their_published_formulas() {
    let cases: &[Case] = &[
        (
            "hinge",
            &[("divergence", "jensen_shannon"), ("beta", "0.5")],
            |x| (1.0 - 0.5 * (js(x.rho(0)) - js(x.rho(1)))).max(0.0),
        ),
        (
            "robust",
            &[("label_smoothing", "0.2"), ("divergence", "jensen_shannon")],
            |x| {
                let z = 0.1 * (js(x.rho(0)) - js(x.rho(1)));
                (-0.8 * sigma(z).ln() + 0.2 * sigma(-z).ln()) / 0.6
            },
        ),
        (
            "exo_pair",
            &[("beta", "0.5"), ("label_smoothing", "0.05")],
            |x| {
                let q = sigma(0.5 * x.h());
                q * (q / 0.95).ln() + (1.0 - q) * ((1.0 - q) / 0.05).ln()
            },
        ),
        (
            "exo_pair",
            &[("divergence", "alpha"), ("alpha", "0.1")],
            |x| {
                let s = |rho: f64| (1.0 - (-0.1 * rho).exp()) / 0.1;
                let q = sigma(0.1 * (s(x.rho(0)) - s(x.rho(1))));
                q * (q / 0.999).ln() + (1.0 - q) * ((1.0 - q) / 0.001).ln()
            },
        ),
        ("nca", &[("beta", "0.3")], |x| {
            let (w, l) = (0.3 * x.rho(0), 0.3 * x.rho(1));
            -sigma(w).ln() - 0.5 * sigma(-w).ln() - 0.5 * sigma(-l).ln()
        }),
        ("bco", &[("beta", "0.3")], |x| {
            -sigma(0.3 * x.rho(0)).ln() - sigma(-0.3 * x.rho(1)).ln()
        }),
        ("sppo_hard", &[("beta", "0.001")], |x| {
            (x.rho(0) - 500.0).powi(2) + (x.rho(1) + 500.0).powi(2)
        }),
        ("ipo_learned", &[("beta", "0.05"), ("gamma", "0.2")], |x| {
            // The scorer's optimum by golden section, over sigma(v) in (0, 1).
            let loss = |t: f64| (0.05 * x.h() - t).powi(2) - 0.2 * t.ln();
            let (mut low, mut high) = (1e-12, 1.0);
            for _ in 0..200 {
                let step = (5f64.sqrt() - 1.0) / 2.0 * (high - low);
                match loss(high - step) < loss(low + step) {
                    true => high = low + step,
                    false => low = high - step,
                }
            }
            loss((low + high) / 2.0)
        }),
        ("apo_zero", &[("beta", "0.3")], |x| {
            1.0 - sigma(0.3 * x.rho(0)) + sigma(0.3 * x.rho(1))
        }),
        ("apo_down", &[("beta", "0.3")], |x| {
            sigma(0.3 * x.rho(0)) + 1.0 - sigma(0.3 * x.h())
        }),
        ("discopop", &[("tau", "0.5"), ("beta", "0.2")], |x| {
            let z = 0.2 * x.h();
            let m = sigma(z / 0.5);
            -(1.0 - m) * sigma(z).ln() + m * (-z).exp()
        }),
        ("sigmoid_norm", &[("divergence", "jensen_shannon")], |x| {
            let (w, l) = (js(x.rho(0)) / x.tokens[0], js(x.rho(1)) / x.tokens[1]);
            -sigma(5.0 * (w - l)).ln()
        }),
        ("orpo", &[("lambda", "0.25")], |x| {
            let p = |i: usize| (x.policy[i] / x.tokens[i]).exp();
            let odds = |i: usize| p(i) / (1.0 - p(i));
            -p(0).ln() - 0.25 * sigma((odds(0) / odds(1)).ln()).ln()
        }),
        ("cpo", &[("alpha", "0.5")], |x| {
            let d = x.policy[0] - x.policy[1];
            -sigma(0.1 * d).ln() - 0.5 * x.policy[0] / x.tokens[0]
        }),
        ("rdpo", &[("alpha", "0.05")], |x| {
            -sigma(0.1 * x.h() + 0.05 * x.tokens[0] - 0.05 * x.tokens[1]).ln()
        }),
        ("dpop", &[("kappa", "5")], |x| {
            let penalty = (x.reference[0] - x.policy[0]).max(0.0);
            -sigma(0.3 * (x.h() - 5.0 * penalty)).ln()
        }),
        ("odpo", &[("alpha", "0.7")], |x| {
            -sigma(0.1 * x.h() - 0.7 * (x.scores[0] - x.scores[1]).ln()).ln()
        }),
        ("wpo", &[("beta", "0.1")], |x| {
            let weight = x.confidence[0].exp() * x.confidence[1].exp();
            -weight * sigma(0.1 * x.h()).ln()
        }),
        ("gpo", &[("f", "logistic")], |x| {
            (1.0 + (-0.1 * x.h()).exp()).ln()
        }),
        ("gpo", &[("f", "hinge")], |x| (1.0 - 0.1 * x.h()).max(0.0)),
        ("gpo", &[("f", "squared")], |x| (1.0 - 0.1 * x.h()).powi(2)),
        ("gpo", &[("f", "exponential")], |x| (-0.1 * x.h()).exp()),
        ("gpo", &[("f", "truncated_quadratic")], |x| {
            (1.0 - 0.1 * x.h()).max(0.0).powi(2)
        }),
        ("gpo", &[("f", "savage")], |x| {
            (1.0 + (0.1 * x.h()).exp()).powi(-2)
        }),
        (
            "qpo",
            &[("psi", "ipo"), ("mu", "jensen_shannon"), ("beta", "0.25")],
            |x| (js(x.rho(0)) - js(x.rho(1)) - 2.0).powi(2),
        ),
        (
            "qpo",
            &[("psi", "savage"), ("mu", "alpha"), ("alpha", "0.25")],
            |x| {
                let s = |rho: f64| (1.0 - (-0.25 * rho).exp()) / 0.25;
                (1.0 + (0.1 * (s(x.rho(0)) - s(x.rho(1)))).exp()).powi(-2)
            },
        ),
    ];
    for (name, knobs, formula) in cases {
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
