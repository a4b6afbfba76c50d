//! The losses that are compared, each over its own range of lambda.
//!
//! Hides which knob the papers' lambda is: `lambda` where a loss has one, otherwise `beta`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::grid::Grid;
use super::problem::{reads_samples, unsuited};
use super::train::TrainConfig;
use crate::error::{Error, Result};
use crate::loss::{Knobs, Loss, Objective};

/// `[losses]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// Which ones, as a list or as words between commas; in the experiment `theory` also `all`.
    #[serde(deserialize_with = "words")]
    pub names: Vec<String>,
    /// What a loss that reads samples of the reference gets.
    pub sample_term: SampleTerm,
    /// Where each is looked at.
    pub lambda: Grid,
    /// What is different for a loss; of a loss that is not among the names nothing is read.
    #[serde(default)]
    pub settings: BTreeMap<String, Settings>,
}

/// The samples of the reference that a loss gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleTerm {
    /// The expectation over r, which is KL(r || pi) up to a constant.
    Exact,
    /// As the authors have it: that over the number of responses.
    Mean,
    /// One sample per drawn pair; with exact preferences the expectation.
    Drawn,
}

/// `[losses.settings.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Instead of that in `[train]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Instead of that in `[train]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_epochs: Option<usize>,
    /// Instead of `[losses.lambda]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<Grid>,
    /// Knobs of the loss, as in `[loss.NAME]` of a training run.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub knobs: toml::Table,
}

/// A loss with its range and its training.
#[derive(Debug, Clone)]
pub struct Contender {
    loss: Loss,
    knob: Option<&'static str>,
    divisor: f64,
    /// Values of lambda.
    pub grid: Grid,
    settings: Settings,
}

impl Losses {
    /// All of the losses with all values of lambda, or the first reason why not; where not `every`
    /// value has to be accepted, the losses alone. `overrides` are those of the command line: to
    /// set what is not read is an error there.
    pub(super) fn validate(&self, overrides: &[String], every: bool) -> Result<()> {
        self.lambda
            .validate()
            .map_err(|error| error.at("[losses.lambda]"))?;
        if self.names.is_empty() {
            return Err(Error::input("`names` is empty")
                .hint("name losses, e.g. [\"dpo\", \"cexpo\"]")
                .at("[losses]"));
        }
        let twice = |(i, name): &(usize, &String)| self.names[..*i].contains(name);
        if let Some((_, name)) = self.names.iter().enumerate().find(twice) {
            return Err(Error::input(format!("{name} is named twice")).at("losses.names"));
        }
        for name in self.settings.keys() {
            let known = Loss::default_of(name);
            known.map_err(|error| error.at("[losses.settings]"))?;
        }
        for set in overrides {
            let key = set.trim().strip_prefix("losses.settings.");
            let Some(name) = key.and_then(|key| key.split('.').next()) else {
                continue;
            };
            if !self.is_all() && !self.names.contains(&canonical(name)) {
                return Err(Error::input(format!("{name} is not among losses.names"))
                    .hint(format!("they are {}", self.names.join(", ")))
                    .at(format!("--set {set}")));
            }
        }
        if self.is_all() {
            return Ok(());
        }
        for name in &self.names {
            let contender = self.contender(name, 1)?;
            let values = contender.grid.values().into_iter().filter(|_| every);
            for lambda in values {
                contender.at(lambda)?;
            }
        }
        Ok(())
    }

    /// Whether every loss that there is is meant.
    pub fn is_all(&self) -> bool {
        self.names == ["all"]
    }

    /// The named losses, on prompts of `responses` responses.
    pub fn contenders(&self, responses: usize) -> Result<Vec<Contender>> {
        let each = self.names.iter();
        each.map(|name| self.contender(name, responses)).collect()
    }

    /// One loss, whether it is among the names or not.
    pub fn contender(&self, name: &str, responses: usize) -> Result<Contender> {
        if name == "all" {
            return Err(Error::input("\"all\" is no loss")
                .hint("alone, and in the experiment theory, it stands for all of them")
                .at("losses.names"));
        }
        let mut loss = Loss::default_of(name).map_err(|error| error.at("losses.names"))?;
        let own = self.settings.iter().find(|(key, _)| canonical(key) == name);
        let settings = own.map(|(_, own)| own.clone()).unwrap_or_default();
        let place = format!("losses.settings.{name}");
        for (key, value) in &settings.knobs {
            let set = loss.with(key, &value.to_string());
            loss = set.map_err(|error| error.at(&place))?;
        }
        if let Some(error) = unsuited(&loss) {
            return Err(error.at("losses.names"));
        }
        let knobs = loss.knobs();
        let knob = ["lambda", "beta"]
            .into_iter()
            .find(|knob| knobs.iter().any(|own| own.name == *knob));
        if let Some(knob) = knob.filter(|knob| settings.knobs.contains_key(*knob)) {
            return Err(Error::input(format!("`{knob}` is what is varied"))
                .hint(format!("set {place}.lambda"))
                .at(&place));
        }
        let grid = settings
            .lambda
            .clone()
            .unwrap_or_else(|| self.lambda.clone());
        grid.validate()
            .map_err(|error| error.at(format!("{place}.lambda")))?;
        let mean = self.sample_term == SampleTerm::Mean && reads_samples(&loss);
        Ok(Contender {
            loss,
            knob,
            divisor: if mean { responses as f64 } else { 1.0 },
            grid,
            settings,
        })
    }
}

/// The name of a loss that may be called by an alias.
fn canonical(name: &str) -> String {
    Loss::default_of(name)
        .map_or(name, |loss| loss.name())
        .to_owned()
}

fn words<'de, D: Deserializer<'de>>(input: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "expected names of losses, e.g. [\"dpo\", \"cexpo\"]"
    )]
    enum Words {
        List(Vec<String>),
        Text(String),
    }
    let list = |text: String| text.split(',').map(|word| word.trim().to_owned()).collect();
    let words = match Words::deserialize(input)? {
        Words::List(words) => words,
        Words::Text(text) => list(text),
    };
    Ok(words.iter().map(|word| canonical(word)).collect())
}

impl Contender {
    /// The loss's name.
    pub fn name(&self) -> &'static str {
        self.loss.name()
    }

    /// The knob that stands for lambda; none, and the loss is the same everywhere.
    pub fn knob(&self) -> Option<&'static str> {
        self.knob
    }

    /// The loss with lambda set.
    pub fn at(&self, lambda: f64) -> Result<Loss> {
        let loss = match self.knob {
            Some(knob) => self
                .loss
                .with(knob, &format!("{:?}", lambda / self.divisor))?,
            None => self.loss.clone(),
        };
        loss.validate()?;
        Ok(loss)
    }

    /// How it is trained.
    pub fn training(&self, common: &TrainConfig) -> Result<TrainConfig> {
        let own = &self.settings;
        let train = TrainConfig {
            learning_rate: own.learning_rate.unwrap_or(common.learning_rate),
            num_train_epochs: own.num_train_epochs.unwrap_or(common.num_train_epochs),
            ..common.clone()
        };
        let place = format!("losses.settings.{}", self.name());
        train.validate().map_err(|error| error.at(place))?;
        Ok(train)
    }
}
