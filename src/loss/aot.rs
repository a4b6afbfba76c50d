//! AOT on pairs: the margins of the policy as a distribution against those of the reference.
//!
//! Melnyk et al. 2024 (arXiv 2406.05882):
//!
//! ```text
//! L = -(1 - eps) log sigma(beta z) - eps log sigma(-beta z)
//! z = sort(d)_k - sort(d_r)_k,    k the rank of the pair in the optimizer-step batch
//! d = log pi(y_w|x) - log pi(y_l|x),    d_r = log r(y_w|x) - log r(y_l|x)
//! ```
//!
//! Sorted against sorted is optimal transport in one dimension: the policy's margins are to dominate the
//! reference's as a distribution, not pair by pair. The sort is over the whole optimizer-step batch,
//! whatever its micro-batches.
//!
//! Config: `configs/losses/aot.toml`. Oracle: `tests/losses/field.rs`.

use super::{
    About, Context, Dual, Needs, Objective, Response, Role, Scored, knobs, policy_logit, ranks,
    reference_logit, smoothed,
};

knobs! {
    /// The knobs of AOT.
    Aot {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// eps, the assumed share of flipped labels.
        label_smoothing: f64 = 0.0, in "[0, 0.5]";
    }
}

impl Aot {
    /// The loss of a pair against the reference's margin of the same rank.
    pub fn loss(&self, w: &Response, l: &Response, reference: f64) -> Dual {
        let z = policy_logit(w, l, false) - reference;
        smoothed(self.beta * z, self.label_smoothing)
    }
}

impl Objective for Aot {
    fn about(&self) -> About {
        About {
            formula: "\
L = -(1 - eps) log sigma(beta z) - eps log sigma(-beta z)
z = sort(d)_k - sort(d_r)_k,    k the rank of the pair in the optimizer-step batch
d = log pi(y_w|x) - log pi(y_l|x),    d_r = log r(y_w|x) - log r(y_l|x)",
            paper: "Melnyk et al. 2024 (arXiv 2406.05882)",
            config: "configs/losses/aot.toml",
            knobs: Self::KNOBS,
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            batch: &[Role::Chosen, Role::Rejected],
            soft_labels: false,
            ..Needs::referenced_pair()
        }
    }

    fn evaluate(&self, example: &Scored, batch: &Context) -> Dual {
        let (w, l) = example.expect_pair();
        self.loss(w, l, batch.matched[0])
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }

    fn contexts(&self, batch: &[Scored]) -> Vec<Context> {
        let pairs: Vec<_> = batch.iter().map(Scored::expect_pair).collect();
        let policy: Vec<f64> = pairs
            .iter()
            .map(|(w, l)| policy_logit(w, l, false).value)
            .collect();
        let mut reference: Vec<f64> = pairs
            .iter()
            .map(|(w, l)| reference_logit(w, l, false))
            .collect();
        reference.sort_by(f64::total_cmp);
        let matched = |rank: usize| Context {
            matched: [reference[rank], f64::NAN],
            ..Context::default()
        };
        ranks(&policy).into_iter().map(matched).collect()
    }
}
