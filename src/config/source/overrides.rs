//! Overrides of a config: `section.key=value`.
//!
//! Hides their order. A loss is chosen before its knobs are set, and a term is added to a sum before
//! its other knobs are, wherever the overrides stand; among equals the later one wins.

use toml::{Table, Value};

use super::Source;
use super::origins::Origin;
use crate::error::{Error, Place, Result};

/// One override.
pub(in crate::config) struct Override {
    path: Vec<String>,
    value: Value,
    origin: Origin,
}

impl Override {
    /// Reads `section.key=value`. What is no value of TOML is a word.
    pub fn parse(assignment: &str) -> Result<Self> {
        let origin = Origin::of_override(assignment);
        let at = |error: Error| within(error, &origin);
        let (path, text) = assignment
            .split_once('=')
            .ok_or_else(|| at(Error::input("no `=`").hint("expected section.key=value")))?;
        let path: Vec<String> = path
            .trim()
            .split('.')
            .map(|part| part.trim().to_owned())
            .collect();
        if path.iter().any(String::is_empty) {
            let error = Error::input("a key is empty").hint("expected section.key=value");
            return Err(at(error));
        }
        let value = toml::from_str::<Table>(&format!("value = {text}"))
            .ok()
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(text.trim().to_owned()));
        Ok(Self {
            path,
            value,
            origin,
        })
    }

    /// Whether it is of a loss or its knobs.
    pub fn is_of_loss(&self) -> bool {
        self.path[0] == "loss"
    }

    /// The smaller comes first.
    fn rank(&self) -> u8 {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match path[..] {
            ["loss"] => 0,
            ["loss", _, "weight"] => 1,
            ["loss", _] if self.value.get("weight").is_some() => 1,
            _ => 2,
        }
    }

    fn apply(self, source: &mut Source) -> Result<()> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let place = self.origin.clone();
        let applied = match (path.as_slice(), self.value) {
            (["loss"], Value::String(name)) => source.set_loss(&name, self.origin),
            (path, value) => source.set(path, value, self.origin),
        };
        applied.map_err(|error| within(error, &place))
    }
}

impl Source {
    /// Applies overrides.
    pub(in crate::config) fn assign(&mut self, mut overrides: Vec<Override>) -> Result<()> {
        overrides.sort_by_key(Override::rank);
        overrides.into_iter().try_for_each(|one| one.apply(self))
    }
}

/// An error at the place of an override.
fn within(error: Error, origin: &Origin) -> Error {
    let places: Vec<Place> = origin.place().to_vec();
    places.into_iter().rev().fold(error, Error::within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::losses;

    /// The losses of a config with overrides, or the error.
    fn losses_of(text: &str, overrides: &[&str]) -> std::result::Result<String, String> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let source = Source::parse(text, &overrides).and_then(|source| {
            source.check(losses::check(source.table()))?;
            Ok(source)
        });
        let source = source.map_err(|error| error.to_string())?;
        Ok(source.table()["loss"].to_string())
    }

    const DPO: &str = "[loss.dpo]\nbeta = 0.3\n";
    const SUM: &str = "[loss.dpo]\nweight = 0.8\n[loss.sft]\nweight = 0.2\n";

    #[test]
    fn a_loss_is_chosen_wherever_the_override_stands() {
        let chosen = "{ simpo = { beta = 2.5 } }";
        for overrides in [
            ["loss=simpo", "loss.simpo.beta=2.5"],
            ["loss.simpo.beta=2.5", "loss=simpo"],
        ] {
            assert_eq!(losses_of(DPO, &overrides).unwrap(), chosen);
            assert_eq!(losses_of("", &overrides).unwrap(), chosen);
            assert_eq!(losses_of(SUM, &overrides).unwrap(), chosen);
        }
        let both = ["loss=ipo", "loss=kto"];
        assert_eq!(losses_of(DPO, &both).unwrap(), "{ kto = {} }");
        let knob = ["loss.dpo.beta=0.1"];
        assert_eq!(losses_of("", &knob).unwrap(), "{ dpo = { beta = 0.1 } }");
        assert_eq!(losses_of(DPO, &knob).unwrap(), "{ dpo = { beta = 0.1 } }");
    }

    #[test]
    fn a_knob_of_a_loss_that_the_config_does_not_have_drops_none() {
        for (text, overrides, loss) in [
            (DPO, &["loss=simpo", "loss.dpo.beta=0.1"][..], "simpo"),
            (DPO, &["loss.dpo.beta=0.1", "loss=simpo"], "simpo"),
            (SUM, &["loss.ipo.beta=0.1"], "dpo + sft"),
            (SUM, &["loss.ipo={}"], "dpo + sft"),
            ("", &["loss.dpo.beta=0.1", "loss.ipo.beta=0.1"], "dpo"),
        ] {
            let error = losses_of(text, overrides).unwrap_err();
            let fact = format!(": the loss is {loss}, not ");
            assert!(error.contains(&fact), "{error}");
            assert!(error.contains("to add it as a term"), "{error}");
        }
        let error = losses_of(DPO, &["loss=simpo", "loss.dpo.beta=0.1"]).unwrap_err();
        assert_eq!(
            error,
            "set loss.dpo.beta=0.1: the loss is simpo, not dpo; give loss.dpo.weight to add it as a \
             term, or select it instead (set loss=dpo)"
        );
    }

    #[test]
    fn a_weight_adds_a_term_to_the_sum() {
        for overrides in [
            [
                "loss.dpo.weight=1",
                "loss.sft.weight=0.1",
                "loss.sft.per_token=true",
            ],
            [
                "loss.sft.per_token=true",
                "loss.dpo.weight=1",
                "loss.sft.weight=0.1",
            ],
        ] {
            let sum = "{ dpo = { weight = 1 }, sft = { weight = 0.1, per_token = true } }";
            assert_eq!(losses_of("[loss.dpo]\n", &overrides).unwrap(), sum);
            assert_eq!(losses_of("", &overrides).unwrap(), sum);
        }
        let added = losses_of(SUM, &["loss.rexpo={ weight = 1.0 }"]).unwrap();
        assert_eq!(
            added,
            "{ dpo = { weight = 0.8 }, sft = { weight = 0.2 }, rexpo = { weight = 1.0 } }"
        );
        let error = losses_of(DPO, &["loss.sft.weight=0.1"]).unwrap_err();
        assert!(
            error.starts_with("set loss.sft.weight=0.1: 2 losses: dpo, sft; "),
            "{error}"
        );
        assert!(error.ends_with("set loss.dpo.weight"), "{error}");
    }

    #[test]
    fn a_knob_without_its_loss_is_told_where_it_stands() {
        for overrides in [["loss.beta=0.1"], ["loss={ beta = 0.1 }"]] {
            let error = losses_of(DPO, &overrides).unwrap_err();
            assert!(error.contains("`beta`"), "{error}");
            assert!(error.contains("`loss.dpo.beta`"), "{error}");
        }
    }
}
