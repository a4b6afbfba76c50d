//! The rows that a config names, for a look at them.

use std::path::Path;

use serde::Deserialize;
use toml::Table;

use super::{
    BatchConfig, Config, ModelConfig, PreferenceData, ReferenceConfig, check_model, check_rows,
    read,
};
use crate::error::Result;
use crate::io::untrusted;
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

impl RowsConfig {
    /// Reads a config file and applies overrides, as [`Config::open`] does. Without a loss the rows
    /// are those of supervised fine-tuning.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = untrusted::text(path, untrusted::TOML)?;
        let table = read::table(&text, overrides).map_err(|error| error.at(path.display()))?;
        match table.contains_key("run") {
            true => Config::open_training(path, overrides).map(|config| Self::from(&config)),
            false => {
                Self::without_run(table, &text, overrides).map_err(|error| error.at(path.display()))
            }
        }
    }

    fn without_run(table: Table, text: &str, overrides: &[String]) -> Result<Self> {
        if table.contains_key("loss") {
            read::losses(&table)?;
        }
        let sections: Sections = read::value(table, text, overrides)?;
        let loss = match sections.loss {
            Some(loss) => loss,
            None => Loss::default_of("sft")?.into(),
        };
        loss.validate()?;
        sections.data.validate().map_err(|e| e.at("[data]"))?;
        check_model(&sections.model)?;
        check_rows(&loss, &sections.data)?;
        Ok(Self {
            model: sections.model,
            data: sections.data,
            needs: loss.needs(),
        })
    }
}

impl From<&Config> for RowsConfig {
    fn from(config: &Config) -> Self {
        Self {
            model: config.model.clone(),
            data: config.data.clone(),
            needs: config.loss.needs(),
        }
    }
}
