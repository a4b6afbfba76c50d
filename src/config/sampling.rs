//! What `expo sample` does, as a file: a model, prompts, settings.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Config, ModelConfig, Source};
use crate::data::DataConfig;
use crate::error::{Error, Result};
use crate::model::sampling::SampleConfig;

/// Responses to draw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// The model that is drawn from; of a training run the reference, if it names one.
    pub model: ModelConfig,
    /// The rows whose prompts are answered: those of `train`, `eval` and `unlabelled`.
    pub data: DataConfig,
    /// How.
    #[serde(default)]
    pub sample: SampleConfig,
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
        let config: Self = source.read()?;
        let at = |section: &'static str| move |error: Error| error.at_key(section);
        config.data.validate().map_err(at("data"))?;
        config.sample.validate().map_err(at("sample"))?;
        let SamplingConfig { model, data, .. } = &config;
        let plain = (
            ModelConfig::new(""),
            DataConfig::new(data.format, data.train.clone()),
        );
        let set = [
            ("data.samples", data.samples.is_some()),
            (
                "data.reference_log_probs",
                data.reference_log_probs.is_some(),
            ),
            (
                "data.unlabelled_ratio",
                data.unlabelled_ratio != plain.1.unlabelled_ratio,
            ),
            ("data.official_truncation", data.official_truncation),
            ("data.shuffle", !data.shuffle),
            ("data.scores", data.scores != plain.1.scores),
            ("model.recompute", model.recompute),
            ("model.save_dtype", model.save_dtype != plain.0.save_dtype),
            (
                "model.reference_revision",
                model.reference_revision.is_some() && model.reference.is_none(),
            ),
        ];
        match set.iter().find(|(_, set)| *set) {
            Some((key, _)) => Err(Error::input(format!("sampling does not read {key}"))
                .hint("leave the key out")
                .at_key(key)),
            None => Ok(config),
        }
    }

    /// What a training run has drawn.
    pub fn of_run(config: Config) -> Result<Self> {
        let Some(sample) = config.sample else {
            return Err(Error::input("the run draws no samples")
                .hint("set data.samples to \"auto\"")
                .at_key("data.samples"));
        };
        let plain = DataConfig::new(config.data.format, config.data.train.clone());
        Ok(Self {
            model: ModelConfig {
                recompute: false,
                save_dtype: Default::default(),
                ..config.model
            },
            // What only training reads is left out.
            data: DataConfig {
                samples: None,
                reference_log_probs: None,
                unlabelled_ratio: plain.unlabelled_ratio,
                official_truncation: false,
                shuffle: true,
                scores: plain.scores,
                ..config.data
            },
            sample,
        })
    }

    /// The resolved config as TOML, itself a valid config.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::failed(error.to_string()))
    }
}
