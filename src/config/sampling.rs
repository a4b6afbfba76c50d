//! What `expo sample` does, as a file: a model, prompts, settings.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::prompt_source::PromptSource;
use super::{Config, ModelConfig, PreferenceData, Source};
use crate::checkpoint::SaveDtype;
use crate::error::{Error, Result};
use crate::model::peft::AdapterConfig;
use crate::model::sampling::SampleConfig;

/// Responses to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingConfig {
    /// The model that is drawn from; of a training run the reference, if it names one.
    pub model: ModelConfig,
    /// The adapter that the run trains, if it trains one.
    pub adapter: Option<AdapterConfig>,
    /// What is answered.
    pub prompts: PromptSource,
    /// How.
    pub sample: SampleConfig,
}

/// The config as a file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    model: ModelConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adapter: Option<AdapterConfig>,
    data: PreferenceData,
    #[serde(default)]
    sample: SampleConfig,
}

impl SamplingConfig {
    /// Reads a config file and applies overrides, as [`Config::open`] does. The config of a
    /// training run will do, too, where its samples are to be drawn: the model is then its
    /// reference.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::of(&Source::open(path, overrides)?)
    }

    /// As [`open`](Self::open), from the file's text.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        Self::of(&Source::parse(text, overrides)?)
    }

    /// What a source asks to be drawn, checked.
    pub fn of(source: &Source) -> Result<Self> {
        match source.table().contains_key("loss") {
            true => source.check(Self::of_run(Config::of(source)?)),
            false => source.check(Self::resolved(source)),
        }
    }

    fn resolved(source: &Source) -> Result<Self> {
        let Sections {
            model,
            adapter,
            data,
            sample,
        } = source.read_run()?;
        data.validate().map_err(|error| error.at_key("data"))?;
        sample.validate().map_err(|error| error.at_key("sample"))?;
        let unread_model = [
            ("recompute", model.recompute),
            ("trainable", model.trainable.is_some()),
            ("save_dtype", model.save_dtype != SaveDtype::default()),
            (
                "reference_revision",
                model.reference_revision.is_some() && model.reference.is_none(),
            ),
        ];
        let unread_model = unread_model.into_iter().find(|(_, set)| *set);
        let unread = data.unread_by_sampling().map(|key| ("data", key));
        match unread.or(unread_model.map(|(key, _)| ("model", key))) {
            Some((section, key)) => {
                let key = format!("{section}.{key}");
                Err(Error::input(format!("sampling does not read {key}"))
                    .hint("leave the key out")
                    .at_key(&key))
            }
            None => Ok(Self {
                model,
                adapter,
                prompts: data.into(),
                sample,
            }),
        }
    }

    /// What a training run has drawn.
    pub fn of_run(config: Config) -> Result<Self> {
        let Some(sample) = config.sample else {
            return Err(Error::input("the run draws no samples")
                .hint("set data.samples to \"auto\"")
                .at_key("data.samples"));
        };
        Ok(Self {
            // What only training reads is left out.
            model: ModelConfig {
                trainable: None,
                recompute: false,
                save_dtype: SaveDtype::default(),
                ..config.model
            },
            adapter: config.adapter,
            prompts: config.data.into(),
            sample,
        })
    }

    /// The resolved config as TOML, itself a valid config. Limits that are not set are written as
    /// their defaults.
    pub fn to_toml(&self) -> Result<String> {
        let sections = Sections {
            model: self.model.clone(),
            adapter: self.adapter.clone(),
            data: self.prompts.clone().into(),
            sample: self.sample.clone(),
        };
        toml::to_string(&sections).map_err(|error| Error::failed(error.to_string()))
    }
}
