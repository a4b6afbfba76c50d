//! What `kl` in a run's records is an estimate of.
//!
//! *Why*: losses report what they compute anyway. So the figures of two losses may be different
//! divergences, and only those of one kind may share an axis.

use super::folder::Recorded;

/// What the metric `kl` of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Estimator {
    /// KL(r || pi), on samples of the reference.
    Forward,
    /// KL(pi || r), on samples of the policy.
    Reverse,
    /// KTO's z0.
    Z0,
}

impl Estimator {
    /// That of a run; `None` where it reports no `kl`.
    pub fn of(run: &Recorded) -> Option<Self> {
        if !run.has("kl") {
            return None;
        }
        // Of a sum, `0.8 kto + 0.2 sft`, that of the first term that has one.
        let terms = run
            .run
            .loss
            .split(" + ")
            .filter_map(|term| term.rsplit(' ').next());
        let mut estimates = terms.filter(|name| ["kto", "cexpo", "rexpo"].contains(name));
        let loss = estimates.next().unwrap_or_default();
        let knobs = run.settings.get("loss").and_then(|all| all.get(loss));
        let unsupervised = knobs.and_then(|knobs| knobs.get("unsupervised")?.as_str());
        Some(match (loss, unsupervised) {
            ("kto", _) => Self::Z0,
            (_, Some("reverse_kl")) => Self::Reverse,
            _ => Self::Forward,
        })
    }

    /// Its name on an axis and in a table.
    pub fn short(self) -> &'static str {
        match self {
            Self::Forward => "KL(r || pi)",
            Self::Reverse => "KL(pi || r)",
            Self::Z0 => "z0 of KTO",
        }
    }

    /// How it is estimated.
    pub fn about(self) -> &'static str {
        match self {
            Self::Forward => {
                "the mean of log r - log pi over the samples of the reference in data.samples, biased if \
                 they were drawn with top-k, top-p or a penalty"
            }
            Self::Reverse => "the mean of log pi - log r over the policy's own samples",
            Self::Z0 => {
                "the mean of log pi - log r over answers to other prompts, at least 0; no divergence of \
                 the two models"
            }
        }
    }
}
