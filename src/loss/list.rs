//! The losses by name.
//!
//! Hides which type stands behind a name: whoever holds a [`Loss`] calls [`Objective`] on it.
//!
//! *Why*: the one table of losses. A new one is its file and its row in `losses!` below; the config
//! section, the command line, the messages and the contract tests follow from the row.

use super::{Cexpo, Dpo, Fdpo, Ipo, Kto, Rexpo, Sft, Simpo};
use super::{Context, Dual, Needs, Objective, Response, Scored};
use crate::error::{Error, Result, nearest};
use serde::{Deserialize, Serialize};

macro_rules! losses {
    ($($(#[$doc:meta])* $name:literal $(| $alias:literal)? => $variant:ident,)+) => {
        /// A loss by name: in a config the table `[loss.dpo]`, that is `{dpo = {beta = 0.1}}`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum Loss {
            $($(#[$doc])* #[serde(rename = $name $(, alias = $alias)?)] $variant($variant),)+
        }

        impl Loss {
            /// Every name, without aliases.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The loss of this name or alias with the paper's knobs; otherwise the error names
            /// the nearest loss.
            pub fn default_of(name: &str) -> Result<Self> {
                match name {
                    $($name $(| $alias)? => Ok(Self::$variant($variant::default())),)+
                    _ => Err(Error::input(format!("there is no loss `{name}`"))
                        .hint(nearest(name, Self::NAMES.iter().copied()))),
                }
            }

            /// Its name in configs and on the command line.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
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
    /// cEXPO.
    "cexpo" | "typo" => Cexpo,
    /// rEXPO.
    "rexpo" => Rexpo,
    /// DPO and cDPO.
    "dpo" => Dpo,
    /// IPO.
    "ipo" => Ipo,
    /// f-DPO.
    "fdpo" => Fdpo,
    /// SimPO.
    "simpo" => Simpo,
    /// KTO.
    "kto" => Kto,
    /// Supervised fine-tuning.
    "sft" => Sft,
}

impl Loss {
    /// The names of its knobs, in the order of their documentation.
    pub fn knobs(&self) -> Vec<String> {
        let json = serde_json::to_value(self).expect("knobs are numbers, words and flags");
        let knobs = json[self.name()].as_object().expect("knobs are a struct");
        knobs.keys().cloned().collect()
    }

    /// The error of a key that this loss does not read; `None` where it does.
    pub fn unknown_knob(&self, key: &str) -> Option<Error> {
        let knobs = self.knobs();
        (!knobs.iter().any(|knob| knob == key)).then(|| {
            Error::input(format!("the loss {} has no knob `{key}`", self.name()))
                .hint(nearest(key, knobs.iter().map(String::as_str)))
        })
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
    fn needs(&self) -> Needs {
        self.objective().needs()
    }

    fn validate(&self) -> Result<()> {
        let place = |error: Error| error.at(format!("loss.{}", self.name()));
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
            "loss.rexpo: lambda = 2; it lies in [0, 1]"
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
