//! Weighted sums of losses; a single loss is the simplest.
//!
//! Hides how the terms' needs become those of the whole, and how a sum is written: `[loss.dpo]` with
//! `weight = 0.8` and `[loss.sft]` with `weight = 0.2`.
//!
//! *Why*: MPO, RPO and their like are not formulas of their own. A run minimises a sum, and what it
//! asks of the data and of the step is asked of the sum.

use std::borrow::Cow;
use std::fmt::{self, Formatter};

use serde::de::{self, DeserializeSeed, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Dual, Loss, Needs, Objective, Prepared, Response, Role, Scored};
use crate::error::{Error, Result};

/// sum over terms of weight times loss.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedLoss {
    terms: Vec<Loss>,
}

impl From<Loss> for WeightedLoss {
    fn from(loss: Loss) -> Self {
        Self { terms: vec![loss] }
    }
}

impl WeightedLoss {
    /// The sum of these losses, each with its [weight](Loss::weight).
    ///
    /// # Errors
    /// If there is none, or one of them twice.
    pub fn sum(terms: impl IntoIterator<Item = Loss>) -> Result<Self> {
        let terms: Vec<Loss> = terms.into_iter().collect();
        for (at, loss) in terms.iter().enumerate() {
            let name = loss.name();
            if terms[..at].iter().any(|other| other.name() == name) {
                return Err(Error::input(format!("the loss {name} is there twice")));
            }
        }
        match terms.is_empty() {
            true => Err(Error::input("no loss").hint("a sum has at least one")),
            false => Ok(Self { terms }),
        }
    }

    /// The terms, one at least.
    pub fn terms(&self) -> &[Loss] {
        &self.terms
    }

    /// The loss, where there is one alone.
    pub fn single(&self) -> Option<&Loss> {
        match self.terms.as_slice() {
            [loss] => Some(loss),
            _ => None,
        }
    }

    /// `dpo`, or `0.8 dpo + 0.2 sft`.
    pub fn name(&self) -> String {
        match self.single() {
            Some(loss) => loss.name().to_owned(),
            None => {
                let term = |loss: &Loss| format!("{} {}", loss.weight(), loss.name());
                self.terms.iter().map(term).collect::<Vec<_>>().join(" + ")
            }
        }
    }

    /// Checks the weights and the knobs of each term.
    ///
    /// # Errors
    /// If one lies outside its range, or the knobs of a loss contradict each other.
    pub fn validate(&self) -> Result<()> {
        self.terms.iter().try_for_each(Loss::validate)
    }

    /// What all terms together ask for. Examples without a label have a meaning only where each term
    /// gives them one.
    pub fn needs(&self) -> Needs {
        let mut needs = self.terms.iter().map(Loss::needs);
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

    /// As [`Objective::prepare`], of each term.
    pub fn prepare(&self, batch: &[Scored]) -> Vec<Prepared> {
        self.terms.iter().map(|loss| loss.prepare(batch)).collect()
    }

    /// As [`Objective::evaluate`], of the example at `index` of the batch that was
    /// [prepared](Self::prepare).
    pub fn evaluate(&self, example: &Scored, prepared: &[Prepared], index: usize) -> Dual {
        let terms = self.terms.iter().zip(prepared);
        let mut terms = terms
            .map(|(loss, prepared)| loss.weight() * loss.evaluate(example, prepared.of(index)));
        let first = terms.next().expect("a sum has a term");
        terms.fold(first, |sum, term| sum + term)
    }

    /// The implicit reward of the first term that defines one.
    pub fn reward(&self, response: &Response) -> Option<f64> {
        self.terms.iter().find_map(|loss| loss.reward(response))
    }

    /// The figures of all terms, and where there are several the value of each, not weighted. The
    /// arguments are those of [`evaluate`](Self::evaluate).
    pub fn diagnostics(
        &self,
        example: &Scored,
        prepared: &[Prepared],
        index: usize,
    ) -> Vec<(Cow<'static, str>, f64)> {
        let mut figures: Vec<(Cow<'static, str>, f64)> = Vec::new();
        for (loss, prepared) in self.terms.iter().zip(prepared) {
            let statistics = prepared.of(index);
            if self.single().is_none() {
                figures.push((loss.term_name(), loss.evaluate(example, statistics).value));
            }
            for (name, figure) in loss.diagnostics(example, statistics) {
                if figures.iter().all(|(known, _)| *known != name) {
                    figures.push((name.into(), figure));
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

impl Serialize for WeightedLoss {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.terms.len()))?;
        for loss in &self.terms {
            let mut section = loss.table();
            if self.terms.len() > 1 || loss.weight() != 1.0 {
                section.insert("weight".into(), loss.weight().into());
            }
            map.serialize_entry(loss.name(), &section)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for WeightedLoss {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        from.deserialize_map(Sections)
    }
}

/// Reads the table of losses, each section as the knobs of the loss that its key names.
struct Sections;

impl<'de> Visitor<'de> for Sections {
    type Value = WeightedLoss;

    fn expecting(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("a table of losses")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<WeightedLoss, A::Error> {
        let mut terms = Vec::new();
        while let Some(section) = map.next_key::<Section>()? {
            terms.push(map.next_value_seed(section)?);
        }
        match terms.is_empty() {
            true => Err(de::Error::custom("no loss")),
            false => Ok(WeightedLoss { terms }),
        }
    }
}

/// The section of the loss of this name.
struct Section(&'static str);

impl<'de> Deserialize<'de> for Section {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        match Loss::default_of(&name) {
            Ok(loss) => Ok(Self(loss.name())),
            Err(_) => Err(de::Error::unknown_variant(&name, Loss::NAMES)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Section {
    type Value = Loss;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Loss, D::Error> {
        Loss::from_section(self.0, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::KnobValue;

    const MPO: &str = "[dpo]\nweight = 0.8\nbeta = 0.5\n[sft]\nweight = 0.2\n";

    fn sum(text: &str) -> WeightedLoss {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_sum_is_read_and_written_as_tables_with_weights() {
        let mpo = sum(MPO);
        assert_eq!(mpo.name(), "0.8 dpo + 0.2 sft");
        let (weights, losses): (Vec<f64>, Vec<&Loss>) =
            mpo.terms().iter().map(|loss| (loss.weight(), loss)).unzip();
        assert_eq!(weights, [0.8, 0.2]);
        assert_eq!(losses[0].knob("beta"), Some(KnobValue::Number(0.5)));
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
            let prepared = sum.prepare(std::slice::from_ref(&example));
            sum.evaluate(&example, &prepared, 0).grad
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
        let error =
            toml::from_str::<WeightedLoss>("[sft]\n[dpo]\nweight = 0.8\nbta = 1\n").unwrap_err();
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
        let prepared = both.prepare(&batch);
        let whole = both.evaluate(&batch[0], &prepared, 0);
        let mut want = Dual::constant(0.0, 3);
        for loss in both.terms() {
            want = want + loss.weight() * loss.evaluate_alone(&batch[0]);
        }
        assert_eq!(whole, want);
        let needs = both.needs();
        assert_eq!(needs.all, [Role::Chosen, Role::Rejected]);
        assert_eq!(needs.batch, [Role::Mismatched]);
        assert!(needs.reference && !needs.soft_labels);
        let figures = both.diagnostics(&batch[0], &prepared, 0);
        let names: Vec<&str> = figures.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["loss/kto", "kl", "loss/dpo", "loss/sft"]);
    }

    #[test]
    fn sets_of_roles_are_at_their_places() {
        for (place, set) in SETS.iter().enumerate() {
            assert_eq!(bits(set), place);
        }
    }
}
