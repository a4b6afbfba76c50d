//! Weighted sums of losses; one loss by itself is the simplest.
//!
//! Hides how the terms' needs become those of the whole, and how `weight` is read beside knobs that
//! do not know of it: `[loss.dpo]` with `weight = 0.8` and `[loss.sft]` with `weight = 0.2`.
//!
//! *Why*: MPO, RPO and their like are no formulas of their own. A run minimises a sum, and what it
//! asks of the data and of the step is asked of the sum.

mod read;

use super::{Context, Dual, Loss, Needs, Objective, Response, Role, Scored, about};
use crate::error::Result;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// One loss of a sum.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// What its value and gradient are multiplied with, in (0, inf).
    pub weight: f64,
    /// The loss.
    pub loss: Loss,
}

/// sum over terms of weight times loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Sum {
    terms: Vec<Term>,
}

impl From<Loss> for Sum {
    fn from(loss: Loss) -> Self {
        let terms = vec![Term { weight: 1.0, loss }];
        Self { terms }
    }
}

impl Sum {
    /// The terms, one at least.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The loss, where there is one alone.
    pub fn single(&self) -> Option<&Loss> {
        match self.terms.as_slice() {
            [term] => Some(&term.loss),
            _ => None,
        }
    }

    /// `dpo`, or `0.8 dpo + 0.2 sft`.
    pub fn name(&self) -> String {
        match self.single() {
            Some(loss) => loss.name().to_owned(),
            None => {
                let term = |term: &Term| format!("{} {}", term.weight, term.loss.name());
                self.terms.iter().map(term).collect::<Vec<_>>().join(" + ")
            }
        }
    }

    /// Checks the weights and the knobs of each term.
    pub fn validate(&self) -> Result<()> {
        for Term { weight, loss } in &self.terms {
            about::check("weight", *weight, "(0, inf)")
                .map_err(|error| error.at_key(loss.name()))?;
            loss.validate()?;
        }
        Ok(())
    }

    /// What all terms together ask for. Examples without a label have a meaning only where each term
    /// gives them one.
    pub fn needs(&self) -> Needs {
        let mut needs = self.terms.iter().map(|term| term.loss.needs());
        let first = needs.next().expect("a sum has a term");
        needs.fold(first, |a, b| Needs {
            all: union(a.all, b.all),
            any: union(a.any, b.any),
            unlabelled: intersection(a.unlabelled, b.unlabelled),
            optional: union(a.optional, b.optional),
            batch: union(a.batch, b.batch),
            mismatch_group: a.mismatch_group.or(b.mismatch_group),
            reference: a.reference || b.reference,
            soft_labels: a.soft_labels && b.soft_labels,
            shared: a.shared || b.shared,
            confidence: a.confidence || b.confidence,
            scores: a.scores || b.scores,
            on_policy: a.on_policy || b.on_policy,
        })
    }

    /// As [`Objective::contexts`], of each example one for each term.
    pub fn contexts(&self, batch: &[Scored]) -> Vec<Vec<Context>> {
        let of_terms: Vec<_> = self
            .terms
            .iter()
            .map(|term| term.loss.contexts(batch))
            .collect();
        (0..batch.len())
            .map(|index| of_terms.iter().map(|c| c[index]).collect())
            .collect()
    }

    /// As [`Objective::evaluate`], with the contexts of the terms.
    pub fn evaluate(&self, example: &Scored, contexts: &[Context]) -> Dual {
        let terms = self.terms.iter().zip(contexts);
        let mut terms =
            terms.map(|(term, context)| term.weight * term.loss.evaluate(example, context));
        let first = terms.next().expect("a sum has a term");
        terms.fold(first, |sum, term| sum + term)
    }

    /// The implicit reward of the first term that defines one.
    pub fn reward(&self, response: &Response) -> Option<f64> {
        self.terms
            .iter()
            .find_map(|term| term.loss.reward(response))
    }

    /// The figures of all terms, and where there are several the value of each, not weighted.
    pub fn diagnostics(&self, example: &Scored, contexts: &[Context]) -> Vec<(&'static str, f64)> {
        let mut figures = Vec::new();
        for (Term { loss, .. }, context) in self.terms.iter().zip(contexts) {
            if self.single().is_none() {
                figures.push((loss.term_name(), loss.evaluate(example, context).value));
            }
            for figure in loss.diagnostics(example, context) {
                if figures.iter().all(|(name, _)| *name != figure.0) {
                    figures.push(figure);
                }
            }
        }
        figures
    }
}

/// Every set of roles, at the place that its bits in the order of [`Role::ALL`] say.
const SETS: [&[Role]; 16] = {
    use Role::{Chosen as C, Mismatched as M, Rejected as R, Sampled as S};
    [
        &[],
        &[C],
        &[R],
        &[C, R],
        &[S],
        &[C, S],
        &[R, S],
        &[C, R, S],
        &[M],
        &[C, M],
        &[R, M],
        &[C, R, M],
        &[S, M],
        &[C, S, M],
        &[R, S, M],
        &[C, R, S, M],
    ]
};

fn bits(set: &[Role]) -> usize {
    let place = |role: &Role| Role::ALL.iter().position(|other| other == role);
    set.iter()
        .filter_map(place)
        .fold(0, |bits, place| bits | 1 << place)
}

fn union(a: &[Role], b: &[Role]) -> &'static [Role] {
    SETS[bits(a) | bits(b)]
}

fn intersection(a: &[Role], b: &[Role]) -> &'static [Role] {
    SETS[bits(a) & bits(b)]
}

impl Serialize for Sum {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.terms.len()))?;
        for Term { weight, loss } in &self.terms {
            let mut knobs = loss.table();
            if self.terms.len() > 1 || *weight != 1.0 {
                knobs.insert("weight".into(), (*weight).into());
            }
            map.serialize_entry(loss.name(), &knobs)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MPO: &str = "[dpo]\nweight = 0.8\nbeta = 0.5\n[sft]\nweight = 0.2\n";

    fn sum(text: &str) -> Sum {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_sum_is_read_and_written_as_tables_with_weights() {
        let mpo = sum(MPO);
        assert_eq!(mpo.name(), "0.8 dpo + 0.2 sft");
        let (weights, losses): (Vec<f64>, Vec<&Loss>) = mpo
            .terms()
            .iter()
            .map(|term| (term.weight, &term.loss))
            .unzip();
        assert_eq!(weights, [0.8, 0.2]);
        assert_eq!(losses[0].knob("beta"), Some(0.5.into()));
        for text in [MPO, "[typo]\nlambda = 2.0\n", "[dpo]\nweight = 3.0\n"] {
            let one = sum(text);
            assert_eq!(sum(&toml::to_string(&one).unwrap()), one);
        }
        assert_eq!(sum("[dpo]"), Loss::default_of("dpo").unwrap().into());
    }

    /// Also where one term reads more of a response than another does.
    #[test]
    fn the_order_of_terms_changes_nothing() {
        let pair = [
            (Role::Chosen, -20.0, -21.0, 9.0),
            (Role::Rejected, -30.0, -29.0, 12.0),
        ];
        let shared = [(-20.0, -21.0), (-22.0, -20.5)];
        let example = Scored::new(&pair, None).with_shared(&shared);
        let gradient = |text: &str| {
            let sum = sum(text);
            let contexts = sum.contexts(std::slice::from_ref(&example));
            sum.evaluate(&example, &contexts[0]).grad
        };
        let (kto, ld) = ("[kto]\nweight = 0.5\n", "[ld_dpo]\nweight = 0.5\n");
        let (one, other) = (
            gradient(&format!("{kto}{ld}")),
            gradient(&format!("{ld}{kto}")),
        );
        assert_eq!(one.len(), 4);
        assert!(
            one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-15),
            "{one:?} {other:?}"
        );
    }

    #[test]
    fn a_wrong_key_has_its_place() {
        let error = toml::from_str::<Sum>("[sft]\n[dpo]\nweight = 0.8\nbta = 1\n").unwrap_err();
        assert!(error.message().contains("unknown field `bta`"), "{error}");
        assert_eq!(error.span(), Some(25..28), "{error}");
        for (weight, word) in [
            ("0.0", "weight must be in (0, inf) (got 0)"),
            ("-1.0", "(got -1)"),
            ("inf", "(got inf)"),
        ] {
            let refused = sum(&format!("[dpo]\nweight = {weight}\n"))
                .validate()
                .unwrap_err();
            assert!(refused.to_string().contains(word), "{refused}");
        }
    }

    #[test]
    fn value_gradient_and_needs_are_those_of_the_terms() {
        let both = sum("[kto]\nweight = 0.5\n[dpo]\nweight = 2.0\n[sft]\nweight = 1.0");
        let responses = [
            (Role::Chosen, -45.25, -47.0, 21.0),
            (Role::Rejected, -61.5, -60.0, 30.0),
            (Role::Mismatched, -90.0, -91.5, 30.0),
        ];
        let batch = [Scored::new(&responses, None)];
        let whole = both.evaluate(&batch[0], &both.contexts(&batch)[0]);
        let mut want = Dual::constant(0.0, 3);
        for Term { weight, loss } in both.terms() {
            want = want + *weight * loss.evaluate(&batch[0], &loss.contexts(&batch)[0]);
        }
        assert_eq!(whole, want);
        let needs = both.needs();
        assert_eq!(needs.all, [Role::Chosen, Role::Rejected]);
        assert_eq!(needs.batch, [Role::Mismatched]);
        assert!(needs.reference && !needs.soft_labels);
        let figures = both.diagnostics(&batch[0], &both.contexts(&batch)[0]);
        let names: Vec<&str> = figures.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["loss/kto", "kl", "loss/dpo", "loss/sft"]);
    }

    #[test]
    fn sets_of_roles_are_at_their_places() {
        for (place, set) in SETS.iter().enumerate() {
            assert_eq!(bits(set), place);
        }
    }
}
