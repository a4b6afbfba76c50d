//! The losses by name.
//!
//! Hides which type stands behind a name: whoever holds a [`Loss`] calls [`Objective`] on it.
//!
//! *Why*: the one table of losses. A new one is its file and its row in `losses!` below; the config
//! section, the command line, the messages and the contract tests follow from the row.

use super::{
    About, Aot, AotUnpaired, ApoDown, ApoZero, Bco, Cexpo, Cpo, Discopop, Dpo, Dpop, ExoPair, Fdpo,
    Gpo, Hinge, Ipo, IpoLearned, Kto, LdDpo, Nca, Odpo, Orpo, Qpo, Rdpo, Rexpo, Robust, Sft,
    SigmoidNorm, Simpo, SppoHard, Wpo,
};
use super::{Context, Dual, Needs, Objective, Response, Role, Scored};
use crate::error::{Error, Result, nearest};
use serde::{Deserialize, Deserializer, Serialize};

macro_rules! losses {
    ($(#[doc = $title:literal] $name:literal $(| $alias:literal)* => $variant:ident,)+) => {
        /// A loss by name: in a config the table `[loss.dpo]`, that is `{dpo = {beta = 0.1}}`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum Loss {
            $(#[doc = $title] #[serde(rename = $name $(, alias = $alias)*)] $variant($variant),)+
        }

        impl Loss {
            /// Every name, without aliases.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The loss of this name or alias with the paper's knobs; otherwise the error names
            /// the nearest loss.
            pub fn default_of(name: &str) -> Result<Self> {
                match name {
                    $($name $(| $alias)* => Ok(Self::$variant($variant::default())),)+
                    _ => Err(unknown(name)),
                }
            }

            /// Its name in configs and on the command line.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// Other names that mean the same.
            pub fn aliases(&self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant(_) => &[$($alias),*],)+
                }
            }

            /// The figure of its value where it is a term of several.
            pub(super) fn term_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => concat!("loss/", $name),)+
                }
            }

            /// The loss of this name, which is no alias, from its config section.
            pub(super) fn deserialize_knobs<'de, D: Deserializer<'de>>(
                name: &str,
                from: D,
            ) -> std::result::Result<Self, D::Error> {
                match name {
                    $($name => $variant::deserialize(from).map(Self::$variant),)+
                    _ => Err(serde::de::Error::unknown_variant(name, Self::NAMES)),
                }
            }

            /// What it is, in a few words.
            pub fn title(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $title.trim_ascii().trim_end_matches('.'),)+
                }
            }

            fn objective(&self) -> &dyn Objective {
                match self {
                    $(Self::$variant(loss) => loss,)+
                }
            }
        }
    };
}

losses! {
    /// cEXPO, compositional EXPO.
    "cexpo" | "typo" => Cexpo,
    /// rEXPO, regression EXPO.
    "rexpo" => Rexpo,
    /// DPO, and cDPO with label smoothing.
    "dpo" => Dpo,
    /// IPO.
    "ipo" => Ipo,
    /// f-DPO: DPO under another divergence.
    "fdpo" => Fdpo,
    /// SimPO.
    "simpo" => Simpo,
    /// KTO, for answers that are good or bad by themselves.
    "kto" => Kto,
    /// Supervised fine-tuning.
    "sft" => Sft,
    /// The hinge of SLiC on DPO's margin.
    "hinge" | "slic" => Hinge,
    /// Robust DPO: unbiased under flipped labels.
    "robust" => Robust,
    /// EXO on pairs: the reverse KL to the label.
    "exo_pair" => ExoPair,
    /// NCA on pairs: noise contrastive alignment.
    "nca" | "nca_pair" => Nca,
    /// BCO on pairs: a binary classifier.
    "bco" | "bco_pair" => Bco,
    /// SPPO with hard labels.
    "sppo_hard" => SppoHard,
    /// IPO with a learned target.
    "ipo_learned" => IpoLearned,
    /// AOT: sorted margins against the reference's.
    "aot" | "aot_pair" => Aot,
    /// AOT without pairs: sorted chosen against rejected.
    "aot_unpaired" | "aot_unpair" => AotUnpaired,
    /// APO-zero: chosen up, rejected down.
    "apo_zero" => ApoZero,
    /// APO-down: both down, the rejected further.
    "apo_down" => ApoDown,
    /// DiscoPOP, the log-ratio modulated loss.
    "discopop" => Discopop,
    /// Length-normalised DPO.
    "sigmoid_norm" => SigmoidNorm,
    /// ORPO: SFT with an odds ratio.
    "orpo" => Orpo,
    /// CPO: DPO without a reference, with SFT.
    "cpo" => Cpo,
    /// R-DPO: DPO with a penalty on length.
    "rdpo" | "r-dpo" => Rdpo,
    /// DPO-Positive.
    "dpop" => Dpop,
    /// ODPO: DPO with an offset from scores.
    "odpo" => Odpo,
    /// GPO: any decreasing function of DPO's margin.
    "gpo" => Gpo,
    /// QPO: the family that the EXPO papers analyse.
    "qpo" => Qpo,
    /// WPO: DPO with pairs weighted by the policy.
    "wpo" => Wpo,
    /// LD-DPO: DPO with less weight on extra length.
    "ld_dpo" | "ld-dpo" => LdDpo,
}

/// Names of the field that are no loss of their own here, and what they are.
const ELSEWHERE: &[(&str, &str)] = &[
    ("cdpo", "it is dpo with label_smoothing above 0"),
    ("sigmoid", "it is dpo; without a reference it is cpo"),
    ("apo", "there are apo_zero and apo_down"),
    ("expo", "there are cexpo and rexpo"),
];

fn unknown(name: &str) -> Error {
    let known = ELSEWHERE.iter().find(|(other, _)| *other == name);
    let hint = match known {
        Some((_, what)) => (*what).to_owned(),
        None => nearest(name, Loss::NAMES.iter().copied()),
    };
    Error::input(format!("there is no loss `{name}`")).hint(hint)
}

impl Loss {
    /// The names of its knobs, in the order of their documentation.
    pub fn knobs(&self) -> Vec<&'static str> {
        self.about().knobs.iter().map(|knob| knob.name).collect()
    }

    /// The error of a key that this loss does not read; `None` where it does.
    pub fn unknown_knob(&self, key: &str) -> Option<Error> {
        let knobs = self.knobs();
        (!knobs.contains(&key)).then(|| {
            Error::input(format!("the loss {} has no knob `{key}`", self.name()))
                .hint(nearest(key, knobs.iter().copied()))
        })
    }

    /// The value of a knob, as in TOML; `None` where it is not set.
    pub fn knob(&self, key: &str) -> Option<toml::Value> {
        self.table().remove(key)
    }

    /// Its config section; a knob that is not set is not there.
    pub fn table(&self) -> toml::Table {
        let mut table = toml::Table::try_from(self).expect("a loss is a table");
        match table.remove(self.name()) {
            Some(toml::Value::Table(knobs)) => knobs,
            _ => unreachable!("a loss is a table of its knobs by its name"),
        }
    }

    /// Whether this log r or this length, given to every response, reaches the value where it is NaN:
    /// a NaN does not get lost in a formula, so the formula itself tells what it reads.
    pub fn reads(&self, reference: f64, tokens: f64) -> bool {
        let needs = self.needs();
        let read = |role: &&Role| {
            [needs.all, needs.any, needs.batch]
                .iter()
                .any(|roles| roles.contains(role))
        };
        let roles = Role::ALL.iter().filter(read);
        let responses: Vec<_> = roles.map(|role| (*role, -1.0, reference, tokens)).collect();
        let mut example = Scored::new(&responses, None)
            .with_score_gap(Some(1.0))
            .with_confidence(&vec![0.0; responses.len()]);
        if needs.shared {
            example = example.with_shared(&vec![(-1.0, reference); responses.len()]);
        }
        let contexts = self.contexts(std::slice::from_ref(&example));
        self.evaluate(&example, &contexts[0]).value.is_nan()
    }

    /// The same loss with the knob `key` set to `value`, written as in TOML; quotes around a word
    /// may be left out. Ranges are for [`Objective::validate`], when all knobs are set.
    pub fn with(&self, key: &str, value: &str) -> Result<Self> {
        if let Some(error) = self.unknown_knob(key) {
            return Err(error);
        }
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"))
            .ok()
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| value.into());
        let mut table = toml::Table::try_from(self).expect("a loss is a table");
        if let Some(toml::Value::Table(knobs)) = table.get_mut(self.name()) {
            knobs.insert(key.to_owned(), parsed);
        }
        let refused = |error: toml::de::Error| {
            Error::input(format!("{key} = {value}")).hint(error.message().trim())
        };
        table.try_into().map_err(refused)
    }
}

impl Objective for Loss {
    fn about(&self) -> About {
        self.objective().about()
    }

    fn needs(&self) -> Needs {
        self.objective().needs()
    }

    fn validate(&self) -> Result<()> {
        let place = |error: Error| error.at_key(self.name());
        for knob in self.about().knobs {
            let number = match self.knob(knob.name) {
                Some(toml::Value::Float(number)) => number,
                Some(toml::Value::Integer(number)) => number as f64,
                _ => continue,
            };
            knob.check(number).map_err(place)?;
        }
        self.objective().validate().map_err(place)
    }

    fn evaluate(&self, example: &Scored, batch: &Context) -> Dual {
        self.objective().evaluate(example, batch)
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        self.objective().reward(response)
    }

    fn context(&self, batch: &[Scored]) -> Context {
        self.objective().context(batch)
    }

    fn contexts(&self, batch: &[Scored]) -> Vec<Context> {
        self.objective().contexts(batch)
    }

    fn diagnostics(&self, example: &Scored, batch: &Context) -> Vec<(&'static str, f64)> {
        self.objective().diagnostics(example, batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_the_config_is_a_loss() {
        let loss = |text: &str| toml::from_str::<Loss>(text);
        let dpo = Dpo {
            beta: 2.0,
            ..Dpo::default()
        };
        assert_eq!(loss("[dpo]\nbeta = 2").unwrap(), Loss::Dpo(dpo));
        assert_eq!(loss("[typo]").unwrap(), Loss::Cexpo(Cexpo::default()));
        assert!(loss("[dpo]\nlambda = 2").is_err());
        assert!(loss("[dop]").is_err());
    }

    #[test]
    fn every_loss_survives_toml() {
        for name in Loss::NAMES {
            let loss = Loss::default_of(name).unwrap();
            assert_eq!(loss.name(), *name);
            loss.validate().unwrap();
            let text = toml::to_string(&loss).unwrap();
            assert_eq!(toml::from_str::<Loss>(&text).unwrap(), loss, "{text}");
        }
    }

    #[test]
    fn a_wrong_name_or_knob_is_told_the_nearest() {
        let message = |error: Error| error.to_string();
        assert_eq!(
            message(Loss::default_of("rxpo").unwrap_err()),
            "there is no loss `rxpo`; did you mean `rexpo`?"
        );
        let rexpo = Loss::default_of("rexpo").unwrap();
        assert_eq!(
            message(rexpo.with("lamda", "1").unwrap_err()),
            "the loss rexpo has no knob `lamda`; did you mean `lambda`?"
        );
        assert_eq!(
            message(rexpo.with("lambda", "2").unwrap().validate().unwrap_err()),
            "[rexpo]: lambda must be in [0, 1] (got 2)"
        );
    }

    #[test]
    fn knobs_are_set_by_their_toml_text() {
        let fdpo = Loss::default_of("fdpo").unwrap();
        for text in ["alpha", "\"alpha\""] {
            let alpha = fdpo.with("divergence", text).unwrap();
            alpha.with("alpha", "0.3").unwrap().validate().unwrap();
        }
        assert!(fdpo.with("divergence", "beta").is_err());
        assert!(fdpo.with("beta", "1\nalpha = 0.3").is_err());
        let kto = Loss::default_of("kto").unwrap();
        assert!(kto.with("mismatch_group", "4").is_ok());
        assert!(kto.with("mismatch_group", "-4").is_err());
    }

    #[test]
    fn ranges_refuse_nan_infinity_and_the_outside() {
        let cases = [
            ("cexpo", "lambda", &["-1", "inf", "nan"][..]),
            ("cexpo", "margin", &["-1", "inf", "nan"]),
            ("rexpo", "lambda", &["-0.1", "1.1", "nan"]),
            ("dpo", "beta", &["0", "-1", "inf", "nan"]),
            ("dpo", "label_smoothing", &["-0.1", "0.6", "nan"]),
            ("ipo", "beta", &["0", "nan"]),
            ("fdpo", "beta", &["0", "nan"]),
            ("fdpo", "alpha", &["0.5"]),
            ("simpo", "beta", &["0", "nan"]),
            ("simpo", "gamma", &["-1", "inf", "nan"]),
            ("kto", "beta", &["0", "nan"]),
            ("kto", "desirable_weight", &["-1", "nan"]),
            ("kto", "undesirable_weight", &["-1", "inf"]),
            ("kto", "mismatch_group", &["0", "1"]),
        ];
        for (name, knob, values) in cases {
            for value in values {
                let loss = Loss::default_of(name).unwrap().with(knob, value).unwrap();
                let error = loss.validate().unwrap_err().to_string();
                assert!(error.contains(knob), "{error}");
            }
        }
        let alpha = Loss::default_of("fdpo").unwrap();
        let alpha = alpha.with("divergence", "alpha").unwrap();
        for value in ["0", "1", "nan"] {
            assert!(alpha.with("alpha", value).unwrap().validate().is_err());
        }
    }
}
