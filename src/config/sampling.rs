//! What `expo sample` does, as a file: a model, prompts, settings.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::prompt_source::PromptSource;
use super::{Config, ModelConfig, PreferenceData, read};
use crate::checkpoint::SaveDtype;
use crate::error::{Error, Result};
use crate::io::untrusted;
use crate::model::sampling::SampleConfig;

/// Responses to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingConfig {
    /// The model that is drawn from; of a training run the reference, if it names one.
    pub model: ModelConfig,
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
    data: PreferenceData,
    #[serde(default)]
    sample: SampleConfig,
}

impl SamplingConfig {
    /// Reads a config file and applies overrides, as [`Config::open`] does. The config of a
    /// training run will do, too, where its samples are to be drawn: the model is then its
    /// reference.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = untrusted::text(path, untrusted::TOML)?;
        Self::parse(&text, overrides).map_err(|error| error.at(path.display()))
    }

    /// As [`open`](Self::open), from the file's text.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let table = read::table(text, overrides)?;
        if table.contains_key("loss") {
            return Self::of_run(Config::parse(text, overrides)?);
        }
        let Sections {
            model,
            data,
            sample,
        } = read::value(table, text, overrides)?;
        data.validate().map_err(|error| error.at("[data]"))?;
        sample.validate().map_err(|error| error.at("[sample]"))?;
        let unread_model = [
            ("recompute", model.recompute),
            ("save_dtype", model.save_dtype != SaveDtype::default()),
            (
                "reference_revision",
                model.reference_revision.is_some() && model.reference.is_none(),
            ),
        ];
        let unread_model = unread_model.into_iter().find(|(_, set)| *set);
        let unread = data.unread_by_sampling().map(|key| ("data", key));
        match unread.or(unread_model.map(|(key, _)| ("model", key))) {
            Some((section, key)) => Err(Error::input(format!(
                "expo sample does not read `{section}.{key}`"
            ))
            .hint("leave the key out")),
            None => Ok(Self {
                model,
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
                .at("data.samples"));
        };
        Ok(Self {
            // What only training reads is left out.
            model: ModelConfig {
                recompute: false,
                save_dtype: SaveDtype::default(),
                ..config.model
            },
            prompts: config.data.into(),
            sample,
        })
    }

    /// The resolved config as TOML, itself a valid config. Limits that are not set are written as
    /// their defaults.
    pub fn to_toml(&self) -> Result<String> {
        let sections = Sections {
            model: self.model.clone(),
            data: self.prompts.clone().into(),
            sample: self.sample.clone(),
        };
        toml::to_string(&sections).map_err(|error| Error::failed(error.to_string()))
    }
}
