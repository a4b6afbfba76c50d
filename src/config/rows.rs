//! The rows that a config names, for a look at them.

use serde::{Deserialize, Serialize};

use super::{
    BatchConfig, Config, ModelConfig, PreferenceData, ReferenceConfig, Source, check_model,
    check_rows, hint, losses,
};
use crate::error::{Error, Place, Result};
use crate::lab::story::StoryConfig;
use crate::loss::{Loss, Needs, WeightedLoss};
use crate::model::sampling::SampleConfig;
use crate::optim::{OptimizerConfig, ScheduleConfig};

/// The rows of a config of `expo train`, `expo sft` or `expo sample`.
#[derive(Debug, Clone, PartialEq)]
pub struct RowsConfig {
    /// The model whose tokenizer and template they go through.
    pub model: ModelConfig,
    /// The rows.
    pub data: PreferenceData,
    /// What is read of a row.
    pub needs: Needs,
    /// The seed of the run: which rows a weight with a fraction takes.
    pub seed: u64,
    /// Whether a loss is named. Without one, prompts are enough.
    pub names_a_loss: bool,
}

/// A config without `[run]`. Sections that rows do not depend on are read for their keys alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a section is there to have its keys checked")]
struct Sections {
    model: ModelConfig,
    data: PreferenceData,
    loss: Option<WeightedLoss>,
    reference: Option<ReferenceConfig>,
    sample: Option<SampleConfig>,
    batch: Option<BatchConfig>,
    optimizer: Option<OptimizerConfig>,
    schedule: Option<ScheduleConfig>,
    story: Option<StoryConfig>,
}

/// `[data]` alone.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct DataAlone {
    data: PreferenceData,
}

impl Source {
    /// Rows that no config names, with overrides of how they are read.
    ///
    /// # Errors
    /// If an override is of which rows they are, or of no key of `[data]`.
    pub(crate) fn of_rows(data: &PreferenceData, overrides: &[String]) -> Result<Self> {
        for set in overrides {
            let key = set.split('=').next().unwrap_or_default().trim();
            let name = key.strip_prefix("data.").unwrap_or_default();
            let name = name.split('.').next().unwrap_or_default();
            if [
                "",
                "train",
                "eval",
                "format",
                "columns",
                "samples",
                "unlabelled",
            ]
            .contains(&name)
            {
                return Err(Error::input("needs a config, where rows are given as files")
                    .hint("keys that are set there are those of [data] that say how a row is read")
                    .within(Place::Parameter("set", Some(set.clone()))));
            }
        }
        let text = toml::to_string(&DataAlone { data: data.clone() });
        let text = text.map_err(|error| Error::failed(error.to_string()))?;
        Self::parse(&text, overrides)
    }

    /// The rows of a source that names nothing else.
    pub(crate) fn rows(&self) -> Result<PreferenceData> {
        let read = self.read::<DataAlone>().and_then(|read| {
            let checked = read.data.validate();
            checked.map_err(|error| error.at_key("data"))?;
            Ok(read.data)
        });
        self.check(read)
    }
}

impl RowsConfig {
    /// The rows that a source names, checked. Without a loss they are those of supervised
    /// fine-tuning.
    pub fn of(source: &Source) -> Result<Self> {
        match source.table().contains_key("run") {
            true => Config::of_training(source).map(|config| Self::from(&config)),
            false => source.check(Self::without_run(source)),
        }
    }

    fn without_run(source: &Source) -> Result<Self> {
        hint::check_sections(source.table())?;
        if source.table().contains_key("loss") {
            losses::check(source.table())?;
        }
        let sections: Sections = source.read_run()?;
        let names_a_loss = sections.loss.is_some();
        let loss = match sections.loss {
            Some(loss) => loss,
            None => Loss::default_of("sft")?.into(),
        };
        loss.validate().map_err(|error| error.at_key("loss"))?;
        let checked = sections.data.validate();
        checked.map_err(|error| error.at_key("data"))?;
        check_model(&sections.model)?;
        check_rows(&loss, &sections.data)?;
        Ok(Self {
            model: sections.model,
            data: sections.data,
            needs: loss.needs(),
            seed: 0,
            names_a_loss,
        })
    }
}

impl From<&Config> for RowsConfig {
    fn from(config: &Config) -> Self {
        Self {
            model: config.model.clone(),
            data: config.data.clone(),
            needs: config.loss.needs(),
            seed: config.run.seed,
            names_a_loss: true,
        }
    }
}
