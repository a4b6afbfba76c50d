//! What a run may not change from one process to the next: the part of `run.json` that is compared.
//!
//! *Why*: a run that goes on with other data, another loss or another learning rate is another run
//! under the old one's name. So everything the weights depend on is listed by the key that sets it,
//! with content hashes in the place of paths, and a change has to be asked for by name.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{Config, DistributedConfig, ModelConfig, PreferenceData, RunConfig};
use crate::data::Dataset;
use crate::error::{ALIKE, Error, Result, most_alike, nearest};
use crate::model::peft::AdapterConfig;
use crate::ranks::{Ranks, agree};

/// Sections with keys that may change, each list beside the fields it names.
const FREE: [(&str, &[&str]); 5] = [
    ("adapter", AdapterConfig::FREE),
    ("data", PreferenceData::FREE),
    ("distributed", DistributedConfig::FREE),
    ("model", ModelConfig::FREE),
    ("run", RunConfig::FREE),
];

/// The keys whose values are known last, from the weights.
const LATER: [&str; 3] = [
    "data.reference_log_probs",
    "model.model_name_or_path",
    "model.reference",
];

/// What a run has or has not by its loss: a reference, and how samples are drawn.
const OF_LOSS: [&str; 3] = ["data.reference_log_probs", "model.reference", "sample"];

/// Keys that act on more than the updates of steps: a run may take them up after its last step.
const BESIDE_STEPS: [&str; 9] = [
    "data.eval",
    "expo",
    "model.device",
    "model.save_dtype",
    "order",
    "run.eval_steps",
    "run.logging_steps",
    "run.max_steps",
    "run.num_train_epochs",
];

/// Whether a change acts in steps alone, so that after the last one it comes too late.
pub(super) fn acts_in_steps(change: &Change) -> bool {
    !BESIDE_STEPS.contains(&change.key.as_str())
}

fn is_free(path: &str) -> bool {
    path.split_once('.').is_some_and(|(section, key)| {
        let mut free = FREE.iter();
        free.any(|(name, keys)| *name == section && keys.contains(&key))
    })
}

/// What must be the same, by key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RunIdentity(pub Map<String, Value>);

/// What is not the same: the key with its old and its new value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Change {
    pub key: String,
    pub old: Value,
    pub new: Value,
}

impl RunIdentity {
    /// Of a config, the rows it names, and the tokenizer's hash. The policy and the reference are to
    /// be [set](Self::set) when their hashes are known.
    pub fn new(config: &Config, datasets: &[Dataset], tokenizer: &str) -> Result<Self> {
        let config_json =
            serde_json::to_value(config).map_err(|error| Error::failed(error.to_string()))?;
        let mut frozen = Self::default();
        frozen.set("expo", env!("CARGO_PKG_VERSION"));
        frozen.set("order", crate::data::ORDER_VERSION);
        frozen.set("model.tokenizer", tokenizer);
        frozen.flatten("", config_json);
        frozen.0.retain(|path, _| !is_free(path));
        let names = [
            Some("data.train"),
            config.data.eval.as_ref().map(|_| "data.eval"),
            config.data.unlabelled.as_ref().map(|_| "data.unlabelled"),
        ];
        for (name, dataset) in names.into_iter().flatten().zip(datasets) {
            frozen.set(name, dataset.fingerprint.as_str());
        }
        Ok(frozen)
    }

    /// Every key of a config, those that may change, too.
    pub fn of_all(config: &Config) -> Result<Self> {
        let mut values = Self::default();
        let json = serde_json::to_value(config);
        values.flatten("", json.map_err(|error| Error::failed(error.to_string()))?);
        Ok(values)
    }

    /// Refuses ranks that do not have the same values.
    pub fn agree(&self, ranks: &Ranks) -> Result<()> {
        let facts = self
            .0
            .iter()
            .map(|(key, value)| (key.as_str(), shown(value)));
        agree(ranks, &facts.collect::<Vec<_>>())
    }

    /// Sets a key.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    fn flatten(&mut self, path: &str, value: Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let path = match path {
                        "" => key,
                        path => format!("{path}.{key}"),
                    };
                    self.flatten(&path, value);
                }
            }
            value => self.set(path, value),
        }
    }

    /// What has changed since `old`, of the keys that are set here already; where not `all` are,
    /// others are left for later. A key that only one of the two has is null in the other.
    pub fn changes(&self, old: &Self, all: bool) -> Vec<Change> {
        let here = self.0.keys();
        let is_due = |key: &&String| all || !LATER.contains(&key.as_str());
        let gone = old.0.keys().filter(|key| !self.0.contains_key(*key));
        let gone = gone.filter(is_due);
        let value = |map: &Map<String, Value>, key: &String| map.get(key).cloned();
        let change = |key: &String| Change {
            key: key.clone(),
            old: value(&old.0, key).unwrap_or_default(),
            new: value(&self.0, key).unwrap_or_default(),
        };
        let changes = here.chain(gone).map(change);
        changes.filter(|change| change.old != change.new).collect()
    }

    /// Refuses keys, or sections of keys, that neither has.
    pub fn check_keys(&self, old: &Self, keys: &[String]) -> Result<()> {
        let known: BTreeSet<&str> = self.0.keys().chain(old.0.keys()).map(|k| &**k).collect();
        let Some(key) = keys
            .iter()
            .find(|key| !known.iter().any(|k| covers(key, k)))
        else {
            return Ok(());
        };
        if is_free(key) {
            return Err(Error::input(format!("`{key}` may change by itself")).hint("leave it out"));
        }
        let error = Error::input(format!("`{key}` is nothing that is compared"));
        let is_alike = |(_, likeness)| likeness > ALIKE;
        if most_alike(key, known.iter().copied()).is_some_and(is_alike) {
            return Err(error.hint(nearest(key, known)));
        }
        let changes = self.changes(old, false);
        let sections = known.iter().filter_map(|key| Some(key.split_once('.')?.0));
        let sections: BTreeSet<&str> = sections.collect();
        let sections: Vec<&str> = sections.into_iter().collect();
        let sections = sections.join(", ");
        Err(error.hint(match to_allow(&changes) {
            keys if keys.is_empty() => {
                format!("name keys, e.g. optimizer.learning_rate, or whole sections: {sections}")
            }
            keys => format!("changed: {keys}; or name whole sections: {sections}"),
        }))
    }
}

/// What two configs have differently, in words; paths count, too.
pub(super) fn differences(old: &Config, new: &Config) -> Result<String> {
    let (old, new) = (RunIdentity::of_all(old)?, RunIdentity::of_all(new)?);
    Ok(described(&new.changes(&old, true)))
}

/// Whether a key that is allowed to change is this one or its section.
fn covers(allowed: &str, key: &str) -> bool {
    let rest = key.strip_prefix(allowed);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Of changes those of other keys than the allowed ones. What only follows from other losses needs no
/// name of its own.
pub(super) fn refused(changes: &[Change], allowed: &[String]) -> Vec<Change> {
    let is_other = other_losses(changes).is_some();
    let follows = |change: &Change| {
        is_other
            && (change.old.is_null() || change.new.is_null())
            && OF_LOSS.iter().any(|key| covers(key, &change.key))
    };
    let is_allowed =
        |change: &Change| follows(change) || allowed.iter().any(|key| covers(key, &change.key));
    let refused = changes.iter().filter(|change| !is_allowed(change));
    refused.cloned().collect()
}

/// Changes in words. Of content that is compared by its hash they say what differs; where the losses
/// are others, their knobs are left out.
pub(super) fn described(changes: &[Change]) -> String {
    let mut texts = Vec::new();
    if let Some((old, new)) = other_losses(changes) {
        texts.push(format!("loss: {old} -> {new}"));
    }
    let is_knob = |change: &&Change| texts.is_empty() || !covers("loss", &change.key);
    let others: Vec<String> = changes.iter().filter(is_knob).map(one).collect();
    texts.extend(others);
    texts.join(", ")
}

/// The keys of changes as they are allowed: where the losses are others, all of theirs as one.
pub(super) fn to_allow(changes: &[Change]) -> String {
    let other = other_losses(changes).is_some();
    let name = |change: &Change| match other && covers("loss", &change.key) {
        true => "loss".to_owned(),
        false => change.key.clone(),
    };
    let mut keys: Vec<String> = Vec::new();
    for key in changes.iter().map(name) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.join(",")
}

/// The losses whose knobs are gone and those whose knobs are new, where both are there.
fn other_losses(changes: &[Change]) -> Option<(String, String)> {
    let names = |is_there: fn(&Change) -> bool| {
        let there = changes.iter().filter(|change| is_there(change));
        let mut names: Vec<&str> = there
            .filter_map(|change| change.key.split('.').nth(1))
            .collect();
        names.dedup();
        names.join(" + ")
    };
    let gone = names(|change| covers("loss", &change.key) && change.new.is_null());
    let new = names(|change| covers("loss", &change.key) && change.old.is_null());
    (!gone.is_empty() && !new.is_empty()).then_some((gone, new))
}

fn one(change: &Change) -> String {
    let Change { key, old, new } = change;
    let is_hash = |value: &Value| {
        let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        value.as_str().is_some_and(is_hex)
    };
    if !is_hash(old) && !is_hash(new) {
        return format!("{key}: {} -> {}", shown(old), shown(new));
    }
    match (key.as_str(), old.is_null(), new.is_null()) {
        (_, true, _) => format!("{key}: not set -> set"),
        (_, _, true) => format!("{key}: set -> not set"),
        ("model.tokenizer", ..) => "the tokenizer's files differ (model.tokenizer)".to_owned(),
        ("model.model_name_or_path", ..) => format!("the model's weights differ ({key})"),
        ("model.reference", ..) => format!("the reference's weights differ ({key})"),
        ("data.reference_log_probs", ..) => format!("the reference's log-probs differ ({key})"),
        _ => format!("the rows differ ({key})"),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not set".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SampleSource;
    use std::path::PathBuf;

    fn config(text: &str) -> Config {
        let head =
            "[model]\nmodel_name_or_path = \"m\"\n[data]\nformat = \"pairs\"\ntrain = \"x\"\n";
        Config::parse(&format!("{head}{text}\n[run]\noutput_dir = \"o\"\n"), &[]).unwrap()
    }

    fn frozen(text: &str) -> RunIdentity {
        RunIdentity::new(&config(text), &[], "t").unwrap()
    }

    #[test]
    fn changes_are_listed_and_allowed_by_name() {
        let old = frozen("[loss.dpo]\nbeta = 0.1");
        let new = frozen("[loss.dpo]\nbeta = 0.2\n[batch]\nbatch_size = 3");
        let allow = |keys: &[&str]| -> Vec<String> { keys.iter().map(|&k| k.into()).collect() };
        let changes = new.changes(&old, true);
        assert_eq!(
            described(&changes),
            "loss.dpo.beta: 0.1 -> 0.2, batch.batch_size: 64 -> 3"
        );
        assert_eq!(to_allow(&changes), "loss.dpo.beta,batch.batch_size");
        let keys = allow(&["loss.dpo.beta", "batch.batch_size"]);
        assert_eq!(refused(&changes, &keys), []);
        assert_eq!(refused(&changes, &allow(&["loss", "batch"])), []);
        assert_eq!(refused(&changes, &keys[..1]), changes[1..]);
        assert_eq!(refused(&changes, &allow(&["loss.dpo.bet"])), changes);
        assert_eq!(old.changes(&old, true), []);
        assert!(new.check_keys(&old, &allow(&["loss"])).is_ok());
        let message = new
            .check_keys(&old, &allow(&["loss.dpo.bata"]))
            .unwrap_err();
        assert!(
            message
                .to_string()
                .contains("did you mean `loss.dpo.beta`?"),
            "{message}"
        );
    }

    #[test]
    fn content_is_named_and_not_its_hash() {
        let mut old = frozen("[loss.dpo]");
        let mut new = frozen("[loss.simpo]\n[batch]\nmicro_batch_tokens = 9");
        old.set("model.tokenizer", "0".repeat(64));
        new.set("model.tokenizer", "1".repeat(64));
        new.set("data.eval", "1".repeat(64));
        let changes = new.changes(&old, true);
        assert_eq!(
            described(&changes),
            "loss: dpo -> simpo, the tokenizer's files differ (model.tokenizer), \
             batch.micro_batch_tokens: 4096 -> 9, data.eval: not set -> set"
        );
        assert!(
            to_allow(&changes).contains("loss,"),
            "{}",
            to_allow(&changes)
        );
    }

    #[test]
    fn another_loss_is_another_key_and_one_that_is_not_known_yet_can_wait() {
        let old = frozen("[loss.dpo]\nbeta = 0.1");
        let new = frozen("[loss.ipo]");
        let keys: Vec<String> = new.changes(&old, true).into_iter().map(|c| c.key).collect();
        assert!(keys.contains(&"loss.dpo.beta".into()), "{keys:?}");
        let mut whole = old.clone();
        whole.set("model.model_name_or_path", "hash");
        assert_eq!(old.changes(&whole, false), []);
        assert_eq!(old.changes(&whole, true).len(), 1);
    }

    #[test]
    fn every_free_key_is_a_key_of_its_own_section() {
        let mut config = config("[loss.dpo]");
        // Keys that are not set are not written.
        let path = || Some("x".into());
        let files = || Some(PathBuf::from("x").into());
        (config.model.revision, config.model.reference) = (path(), path());
        (config.model.reference_revision, config.model.adapter) = (path(), path());
        (config.data.eval, config.data.samples) = (files(), Some(SampleSource::Auto));
        (config.data.unlabelled, config.data.reference_log_probs) = (files(), Some("x".into()));
        config.adapter = Some(AdapterConfig {
            from: path(),
            ..AdapterConfig::default()
        });
        config.distributed.timeout = 1;
        let run = &mut config.run;
        (run.save_model, run.save_steps, run.save_total_limit) = (false, Some(1), Some(1));
        (run.metric_for_best_model, run.greater_is_better) = (path(), Some(true));
        (run.max_non_finite_steps, run.eval_prompts) = (1, 1);
        (run.eval_max_new_tokens, run.eval_margins) = (1, 1);
        (run.report_to, run.cache_dir) = (vec!["x".into()], Some("x".into()));
        let config = serde_json::to_value(config).unwrap();
        for (section, keys) in FREE {
            for key in keys {
                assert!(config[section].get(key).is_some(), "{section}.{key}");
            }
        }
    }
}
