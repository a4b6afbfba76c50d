//! The keys of a run by section, as serde reads them: for messages about keys that stand elsewhere.

use std::cell::Cell;

use serde::de::value::Error;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use toml::{Table, Value};

use super::{
    BatchConfig, DistributedConfig, ModelConfig, PreferenceData, ReferenceConfig, RunConfig,
};
use crate::lab::story::StoryConfig;
use crate::loss::Loss;
use crate::model::peft::AdapterConfig;
use crate::model::sampling::SampleConfig;
use crate::optim::{OptimizerConfig, ScheduleConfig};

/// A section, the key that its name is most likely meant as, and all its keys.
pub(super) struct Section {
    pub name: &'static str,
    pub main: &'static str,
    pub keys: &'static [&'static str],
}

/// The keys that hold a list of words; a word alone stands for a list of one.
const LISTS: [(&str, &str); 5] = [
    ("adapter", "modules_to_save"),
    ("run", "report_to"),
    ("model", "trainable"),
    ("sample", "stop"),
    ("data", "eot_tokens"),
];

/// Makes a list of one of every value alone where a list is read.
pub(super) fn list_single(config: &mut Table) {
    for (section, key) in LISTS {
        let section = config.get_mut(section).and_then(Value::as_table_mut);
        if let Some(value) = section.and_then(|section| section.get_mut(key))
            && (value.is_str() || value.is_integer())
        {
            *value = Value::Array(vec![value.clone()]);
        }
    }
}

/// All sections but `[loss]`, those that every run has first.
pub(super) fn sections() -> [Section; 11] {
    let section = |name, main, keys| Section { name, main, keys };
    [
        section("run", "output_dir", keys::<RunConfig>()),
        section("batch", "batch_size", keys::<BatchConfig>()),
        section("optimizer", "optim", keys::<OptimizerConfig>()),
        section("schedule", "lr_scheduler_type", keys::<ScheduleConfig>()),
        section("data", "train", keys::<PreferenceData>()),
        section("model", "model_name_or_path", keys::<ModelConfig>()),
        section("adapter", "r", keys::<AdapterConfig>()),
        section("sample", "num_samples", keys::<SampleConfig>()),
        section("reference", "update", keys::<ReferenceConfig>()),
        section("story", "grammar", keys::<StoryConfig>()),
        section("distributed", "timeout", keys::<DistributedConfig>()),
    ]
}

/// Whether a run has this section.
pub(super) fn is_section(name: &str) -> bool {
    name == "loss" || sections().iter().any(|section| section.name == name)
}

/// Whether a dotted key is one of a run.
pub(super) fn is_key(key: &str) -> bool {
    match key.split('.').collect::<Vec<_>>()[..] {
        ["loss", name, knob] => {
            Loss::default_of(name).is_ok_and(|loss| knob == "weight" || loss.has_knob(knob))
        }
        ["loss", name] => Loss::default_of(name).is_ok(),
        [name, key] => {
            let sections = sections();
            let found = sections.iter().find(|section| section.name == name);
            found.is_some_and(|section| section.keys.contains(&key))
        }
        [name] => is_section(name),
        _ => false,
    }
}

/// The fields of a struct that is read as a section.
fn keys<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let found = Cell::new(&[][..]);
    // It reads nothing: that is its error.
    let _ = T::deserialize(Fields(&found));
    found.get()
}

/// Hands out no value, and notes what it is asked for.
struct Fields<'a>(&'a Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0.set(fields);
        Err(Error::custom("no value"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no value"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_alone_is_a_list_of_one() {
        let text =
            "[run]\nreport_to = \"a\"\nseed = 1\n[data]\neot_tokens = [3]\n[sample]\nstop = 1\n";
        let mut config: Table = toml::from_str(text).unwrap();
        list_single(&mut config);
        let text = "[run]\nreport_to = [\"a\"]\nseed = 1\n[data]\neot_tokens = [3]\n[sample]\nstop = [1]\n";
        assert_eq!(config, toml::from_str(text).unwrap());
        for (section, key) in LISTS {
            assert!(is_key(&format!("{section}.{key}")), "{section}.{key}");
        }
    }

    #[test]
    fn every_section_has_its_keys_and_its_main_key() {
        for section in sections() {
            let main = section.keys.contains(&section.main);
            assert!(
                main,
                "{}.{}: {:?}",
                section.name, section.main, section.keys
            );
        }
        for key in [
            "run.seed",
            "data.max_length",
            "loss.dpo.beta",
            "loss.dpo.weight",
            "loss",
            "run",
        ] {
            assert!(is_key(key), "{key}");
        }
        for key in [
            "run.beta",
            "loss.dpo.gamma",
            "seed",
            "loss.dop.beta",
            "run.seed.low",
        ] {
            assert!(!is_key(key), "{key}");
        }
    }
}
