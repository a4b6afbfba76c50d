//! The losses by name.
//!
//! Hides which type stands behind a name: the holder of a [`Loss`] calls [`Objective`] on it.
//!
//! *Why*: names, aliases, sections and messages are the same for every loss, so they are made from
//! the rows of the table in [`objectives`](super::objectives) alone.

use serde::{Serialize, Serializer};

use super::knobs::WEIGHT;
use super::{
    About, Dual, Knob, KnobValue, Knobs, Loss, Needs, Objective, Prepared, Response, Role, Scored,
    WeightedLoss,
};
use crate::error::{Error, Result, nearest};

/// Makes the enum of all losses from the rows of their table: title, name and aliases, type.
macro_rules! losses {
    ($(
        #[doc = $title:literal]
        $name:literal $(| $alias:literal)* => $module:ident::$variant:ident,
    )+) => {
        $(pub use $module::$variant;)+

        /// A loss by name: in a config the table `[loss.dpo]`, that is `{dpo = {beta = 0.1}}`.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Loss {
            $(#[doc = $title] $variant($variant),)+
            /// One that the table does not have, see [`Loss::custom`].
            Custom($crate::loss::Custom),
        }

        impl Loss {
            /// Every name of the table, without aliases.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The loss of this name or alias with the paper's knobs.
            ///
            /// # Errors
            /// If there is none; the error names the nearest loss.
            pub fn default_of(name: &str) -> $crate::error::Result<Self> {
                match name {
                    $($name $(| $alias)* => Ok(Self::$variant($variant::default())),)+
                    _ => Err($crate::loss::list::unknown(name)),
                }
            }

            /// Its name in configs and on the command line.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                    Self::Custom(loss) => loss.name,
                }
            }

            /// Other names that mean the same.
            pub fn aliases(&self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant(_) => &[$($alias),*],)+
                    Self::Custom(_) => &[],
                }
            }

            /// What it is, in a few words.
            pub fn title(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $title.trim_ascii().trim_end_matches('.'),)+
                    Self::Custom(loss) => loss.name,
                }
            }

            /// What a sum of losses multiplies it with; 1 unless set.
            pub fn weight(&self) -> f64 {
                match self {
                    $(Self::$variant(loss) => loss.weight,)+
                    Self::Custom(loss) => loss.weight,
                }
            }

            /// The same loss with another weight, in (0, inf).
            pub fn weighted(mut self, weight: f64) -> Self {
                match &mut self {
                    $(Self::$variant(loss) => loss.weight = weight,)+
                    Self::Custom(loss) => loss.weight = weight,
                }
                self
            }

            /// The metric of its value where it is a term of several.
            pub(in $crate::loss) fn term_name(&self) -> std::borrow::Cow<'static, str> {
                match self {
                    $(Self::$variant(_) => concat!("loss/", $name).into(),)+
                    Self::Custom(loss) => format!("loss/{}", loss.name).into(),
                }
            }

            /// The loss of this name, not an alias, from its config section.
            pub(in $crate::loss) fn from_section<'de, D: serde::Deserializer<'de>>(
                name: &str,
                section: D,
            ) -> std::result::Result<Self, D::Error> {
                use serde::Deserialize;
                match name {
                    $($name => $variant::deserialize(section).map(Self::$variant),)+
                    _ => Err(serde::de::Error::unknown_variant(name, Self::NAMES)),
                }
            }

            pub(in $crate::loss) fn objective(&self) -> &dyn $crate::loss::Objective {
                match self {
                    $(Self::$variant(loss) => loss,)+
                    Self::Custom(loss) => &*loss.objective,
                }
            }

            /// What the contract tests are told of it.
            #[cfg(test)]
            pub(in $crate::loss) fn contract(&self) -> &dyn $crate::loss::contract_tests::Contract {
                match self {
                    $(Self::$variant(loss) => loss,)+
                    Self::Custom(loss) => panic!("{} is not in the table", loss.name),
                }
            }
        }
    };
}
pub(super) use losses;

const ONLINE: &str =
    "not supported: it is online RL against a reward model, and expo has offline losses";

/// Names of the field that are not losses of their own here, and what they are.
const ELSEWHERE: &[(&str, &str)] = &[
    ("cdpo", "it is dpo with label_smoothing above 0"),
    ("sigmoid", "it is dpo; without a reference it is cpo"),
    ("apo", "there are apo_zero and apo_down"),
    ("expo", "there are cexpo and rexpo"),
    (
        "rpo",
        "it is the sum of dpo and sft: loss.dpo.weight=1 and loss.sft.weight=1, each with its own weight",
    ),
    ("grpo", ONLINE),
    ("ppo", ONLINE),
    ("rloo", ONLINE),
    ("gspo", ONLINE),
    ("online_dpo", ONLINE),
];

/// The error of an unknown loss name.
pub(super) fn unknown(name: &str) -> Error {
    let plain = name.to_lowercase().replace('-', "_");
    let known = ELSEWHERE.iter().find(|(other, _)| *other == plain);
    let hint = match known {
        Some((_, what)) => (*what).to_owned(),
        None => nearest(name, Loss::NAMES.iter().copied()),
    };
    Error::input(format!("there is no loss `{name}`")).hint(hint)
}

impl Loss {
    /// Whether it has a knob of this name.
    pub fn has_knob(&self, key: &str) -> bool {
        self.knobs().iter().any(|knob| knob.name == key)
    }

    /// The losses with this knob and their defaults, in the order of [`NAMES`](Self::NAMES).
    pub fn with_knob(key: &str) -> impl Iterator<Item = Self> {
        let all = Self::NAMES
            .iter()
            .filter_map(|name| Self::default_of(name).ok());
        all.filter(move |loss| loss.has_knob(key))
    }

    /// The error of a key that this loss does not read; `None` where it does.
    pub fn unknown_knob(&self, key: &str) -> Option<Error> {
        let names = || self.knobs().iter().map(|knob| knob.name);
        (!self.has_knob(key)).then(|| {
            Error::input(format!("the loss {} has no knob `{key}`", self.name()))
                .hint(nearest(key, names()))
        })
    }

    /// The value of a knob; `None` if it is not set, or not a knob of this loss.
    pub fn knob(&self, key: &str) -> Option<KnobValue> {
        let mut knobs = self.knobs().iter().zip(self.values());
        let (_, value) = knobs.find(|(knob, _)| knob.name == key)?;
        (value != KnobValue::Unset).then_some(value)
    }

    /// Its knobs as in its config section, without `weight`; a knob that is not set is not there.
    pub fn table(&self) -> toml::Table {
        let knobs = self.knobs().iter().zip(self.values());
        knobs
            .filter_map(|(knob, value)| Some((knob.name.to_owned(), value.to_toml()?)))
            .collect()
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
        self.evaluate_alone(&example).value.is_nan()
    }

    /// The same loss with the knob `key` set to `value`, written as in TOML; quotes around a word
    /// may be left out. Ranges are for [`Objective::validate`], when all knobs are set.
    ///
    /// # Errors
    /// If it has no such knob, the value is of another type, or the loss is a custom one.
    pub fn with(&self, key: &str, value: &str) -> Result<Self> {
        if let Some(error) = self.unknown_knob(key) {
            return Err(error);
        }
        if let Self::Custom(loss) = self {
            return Err(Error::input(format!("{key} = {value}")).hint(format!(
                "the knobs of {} are set where it is made",
                loss.name
            )));
        }
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"))
            .ok()
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| value.into());
        let mut section = self.table();
        section.insert(key.to_owned(), parsed);
        let refused = |error: toml::de::Error| {
            Error::input(format!("{key} = {value}")).hint(error.message().trim())
        };
        let loss = Self::from_section(self.name(), toml::Value::Table(section)).map_err(refused)?;
        Ok(loss.weighted(self.weight()))
    }
}

/// As in a config, `{dpo = {beta = 0.1}}`.
impl Serialize for Loss {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        WeightedLoss::from(self.clone()).serialize(to)
    }
}

impl Knobs for Loss {
    fn knobs(&self) -> &'static [Knob] {
        self.objective().knobs()
    }

    fn values(&self) -> Vec<KnobValue> {
        self.objective().values()
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
        WEIGHT.check(self.weight().into()).map_err(place)?;
        for (knob, value) in self.knobs().iter().zip(self.values()) {
            knob.check(value).map_err(place)?;
        }
        if let Self::Custom(loss) = self {
            loss.validate()?;
        }
        self.objective().validate().map_err(place)
    }

    fn prepare(&self, batch: &[Scored]) -> Prepared {
        self.objective().prepare(batch)
    }

    fn evaluate(&self, example: &Scored, statistics: &[f64]) -> Dual {
        self.objective().evaluate(example, statistics)
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        self.objective().reward(response)
    }

    fn diagnostics(&self, example: &Scored, statistics: &[f64]) -> Vec<(&'static str, f64)> {
        self.objective().diagnostics(example, statistics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::objectives::{Cexpo, Dpo};

    #[test]
    fn a_table_of_the_config_is_a_loss() {
        let loss = |text: &str| {
            let sum: WeightedLoss = toml::from_str(text)?;
            Ok::<_, toml::de::Error>(sum.single().cloned().unwrap())
        };
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
            let again: WeightedLoss = toml::from_str(&text).unwrap();
            assert_eq!(again.single(), Some(&loss), "{text}");
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
