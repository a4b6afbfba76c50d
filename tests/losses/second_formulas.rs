//! The formulas of the losses a second time, from the papers and not from `src`, without care for
//! overflow, on pairs where none occurs.

use expo::loss::{Role, Scored};

/// Everything that a loss may read of a pair: [chosen, rejected].
#[derive(Clone, Copy)]
pub struct Pair {
    pub policy: [f64; 2],
    pub reference: [f64; 2],
    pub tokens: [f64; 2],
    /// Sums over the first min(n_w, n_l) tokens.
    pub shared_policy: [f64; 2],
    pub shared_reference: [f64; 2],
    pub confidence: [f64; 2],
    pub scores: [f64; 2],
}

pub const PAIRS: [Pair; 4] = [
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
    pub fn scored(&self) -> Scored {
        let side = |role, i: usize| (role, self.policy[i], self.reference[i], self.tokens[i]);
        let responses = [side(Role::Chosen, 0), side(Role::Rejected, 1)];
        Scored::new(&responses, None)
            .with_confidence(&self.confidence)
            .with_score_gap(Some(self.scores[0] - self.scores[1]))
    }

    pub fn rho(&self, i: usize) -> f64 {
        self.policy[i] - self.reference[i]
    }

    pub fn h(&self) -> f64 {
        self.rho(0) - self.rho(1)
    }
}

pub fn sigma(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn js(rho: f64) -> f64 {
    (2.0 * rho.exp() / (1.0 + rho.exp())).ln()
}

/// A loss with its knobs, and its formula.
pub type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    fn(&Pair) -> f64,
);

/// Every loss that has a value on one pair.
pub const CASES: &[Case] = &[
    (
        "cexpo",
        &[("lambda", "0"), ("length_normalized", "true")],
        |x| {
            let mean = |i: usize| x.policy[i] / x.tokens[i];
            -sigma(mean(0) - mean(1)).ln()
        },
    ),
    (
        "rexpo",
        &[
            ("lambda", "0.4"),
            ("length_normalized", "true"),
            ("margin", "0.5"),
        ],
        |x| {
            let d = x.policy[0] / x.tokens[0] - x.policy[1] / x.tokens[1];
            let d_r = x.reference[0] / x.tokens[0] - x.reference[1] / x.tokens[1];
            (sigma(d - 0.5) - 0.4 * sigma(d_r) - 0.6).powi(2)
        },
    ),
    ("dpo", &[("beta", "0.2"), ("label_smoothing", "0.1")], |x| {
        let z = 0.2 * x.h();
        -0.9 * sigma(z).ln() - 0.1 * sigma(-z).ln()
    }),
    ("ipo", &[("beta", "0.5")], |x| (x.h() - 1.0).powi(2)),
    ("ipo", &[("average_log_prob", "true")], |x| {
        let mean = |i: usize| x.rho(i) / x.tokens[i];
        (mean(0) - mean(1) - 5.0).powi(2)
    }),
    ("fdpo", &[("beta", "0.3")], |x| {
        -sigma(0.3 * (js(x.rho(0)) - js(x.rho(1)))).ln()
    }),
    (
        "fdpo",
        &[("divergence", "forward_kl"), ("beta", "0.001")],
        |x| {
            let s = |rho: f64| 1.0 - (-rho).exp();
            -sigma(0.001 * (s(x.rho(0)) - s(x.rho(1)))).ln()
        },
    ),
    ("simpo", &[("gamma", "0.5")], |x| {
        let mean = |i: usize| x.policy[i] / x.tokens[i];
        -sigma(2.0 * (mean(0) - mean(1)) - 0.5).ln()
    }),
    ("kto", &[("desirable_weight", "1.5")], |x| {
        let good = 1.5 * (1.0 - sigma(0.1 * x.rho(0)));
        (good + 1.0 - sigma(-0.1 * x.rho(1))) / 2.0
    }),
    ("sft", &[], |x| -x.policy[0]),
    ("sft", &[("per_token", "true")], |x| {
        -x.policy[0] / x.tokens[0]
    }),
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
