//! A run as it was written: one TOML file and the overrides of the command line.
//!
//! Hides where a key came from; an error names the file and line, or the override.
//!
//! *Why*: parsing touches neither disk nor device, so a config can be checked, printed and compared
//! anywhere. What is printed resolved is itself a valid config.

mod data;
mod model;
mod prompt_source;
pub(crate) mod read;
mod reference;
mod rows;
mod run;
mod sampling;
mod sweep;

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::io::untrusted;
use crate::lab::story::StoryConfig;
use crate::loss::{Loss, Role, WeightedLoss};
use crate::model::sampling::SampleConfig;
use crate::optim::{OptimizerConfig, ScheduleConfig, States};

pub use crate::model::numerics::Dtype;
pub use data::{PreferenceData, SampleSource};
pub use model::ModelConfig;
pub use prompt_source::PromptSource;
pub use reference::{ReferenceConfig, Update};
pub use rows::RowsConfig;
pub use run::RunConfig;
pub use sampling::SamplingConfig;
pub use sweep::{PlannedRun, SweepConfig};

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The policy and the reference.
    pub model: ModelConfig,
    /// Rows and how they become tokens.
    pub data: PreferenceData,
    /// Whether the reference follows the policy; it is frozen without this section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceConfig>,
    /// How the reference's samples are drawn where `data.samples` is `"auto"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleConfig>,
    /// One objective with its knobs, `[loss.dpo]`, or several, each with a `weight`.
    pub loss: WeightedLoss,
    /// Batches.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Updates.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// Learning rate over time.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// Length, records and results.
    pub run: RunConfig,
    /// On the grammar's stories: what samples before and after training are held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub story: Option<StoryConfig>,
}

/// `[batch]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Dataset rows per optimizer step.
    pub batch_size: usize,
    /// The most tokens computed at once; a longer example is computed alone. Gradients do not
    /// depend on it beyond rounding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch_tokens: Option<usize>,
    /// Instead of `micro_batch_tokens`: the number of equal parts a batch is computed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_accumulation_steps: Option<usize>,
}

/// Tokens computed at once unless the config says otherwise.
pub const MICRO_BATCH_TOKENS: usize = 4096;

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            batch_size: 64,
            micro_batch_tokens: None,
            gradient_accumulation_steps: None,
        }
    }
}

impl Config {
    /// Reads a config file and applies overrides of the form `section.key=value`, the later
    /// winning, then checks it. `loss=NAME` takes that loss with its defaults; an override of
    /// another loss's knob, `loss.NAME.key=value`, also replaces the loss.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = untrusted::text(path, untrusted::TOML)?;
        Self::parse(&text, overrides).map_err(|error| error.at(path.display()))
    }

    /// As [`open`](Self::open), from the file's text.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let table = read::table(text, overrides)?;
        read::losses(&table)?;
        Self::resolved(table, text, overrides)
    }

    /// As [`open`](Self::open), for supervised fine-tuning: the loss is `sft`, which need not be
    /// named, and no other.
    pub fn open_sft(path: &Path, overrides: &[String]) -> Result<Self> {
        let place = |error: Error| error.at(path.display());
        let text = untrusted::text(path, untrusted::TOML)?;
        let mut table = read::table(&text, overrides).map_err(place)?;
        let sft = Table::from_iter([("sft".to_owned(), Value::Table(Table::new()))]);
        table.entry("loss").or_insert(Value::Table(sft));
        read::losses(&table).map_err(place)?;
        let config = Self::resolved(table, &text, overrides).map_err(place)?;
        match config.loss.single() {
            Some(Loss::Sft(_)) => Ok(config),
            _ => Err(Error::input(format!("the loss is {}", config.loss.name()))
                .hint("expo sft has the loss sft; expo train has the others")
                .at(path.display())),
        }
    }

    /// As [`open`](Self::open) where the config names a loss, else as [`open_sft`](Self::open_sft).
    pub fn open_training(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = untrusted::text(path, untrusted::TOML)?;
        let table = read::table(&text, overrides).map_err(|error| error.at(path.display()))?;
        match table.contains_key("loss") {
            true => Self::open(path, overrides),
            false => Self::open_sft(path, overrides),
        }
    }

    /// The same run with another loss, such as an objective of the caller's own
    /// ([`Loss::custom`](crate::loss::Loss::custom)) or a sum.
    ///
    /// # Errors
    /// If a knob or weight lies outside its range, or the loss needs what the rest of the config does
    /// not provide.
    pub fn with_loss(mut self, loss: impl Into<WeightedLoss>) -> Result<Self> {
        self.loss = loss.into();
        self.resolve()?;
        Ok(self)
    }

    fn resolved(table: Table, text: &str, overrides: &[String]) -> Result<Self> {
        let mut config: Self = read::value(table, text, overrides)?;
        config.resolve()?;
        Ok(config)
    }

    /// Checks everything that needs no file, and fills in defaults that depend on other keys.
    fn resolve(&mut self) -> Result<()> {
        self.loss.validate()?;
        self.data.validate().map_err(|error| error.at("[data]"))?;
        check_model(&self.model)?;
        self.schedule
            .validate()
            .map_err(|error| error.at("[schedule]"))?;
        self.optimizer = self
            .optimizer
            .resolve()
            .map_err(|error| error.at("[optimizer]"))?;
        if self.model.dtype == Dtype::F32 {
            self.check_states("where model.dtype is \"f32\"")?;
        }
        self.batch.resolve().map_err(|error| error.at("[batch]"))?;
        self.run.validate().map_err(|error| error.at("[run]"))?;
        check_rows(&self.loss, &self.data)?;
        let needs = self.loss.needs();
        if needs.on_policy {
            self.check_on_policy(needs.all.contains(&Role::Sampled))
                .map_err(|error| error.at("[sample]"))?;
        }
        match self.data.samples == Some(SampleSource::Auto) || needs.on_policy {
            true => self.sample.get_or_insert_default().validate(),
            // Beside a file it tells how the file was drawn.
            false if self.sample.is_some() && self.data.samples.is_none() => {
                Err(Error::input("is read only where data.samples is \"auto\"")
                    .hint("leave the section out"))
            }
            false => Ok(()),
        }
        .map_err(|error| error.at("[sample]"))?;
        if let Some(story) = &self.story {
            story.validate().map_err(|error| error.at("[story]"))?;
        }
        self.check_reference()
            .map_err(|error| error.at("[reference]"))?;
        if self.run.metric_for_best_model.is_some() && self.data.eval.is_none() {
            return Err(Error::input("`metric_for_best_model` without `data.eval`")
                .hint("checkpoints are compared by evaluations")
                .at("[run]"));
        }
        if self.run.eval_prompts > 0 && self.data.eval.is_none() {
            return Err(Error::input("`eval_prompts` without `data.eval`")
                .hint("they are the prompts of evaluation rows")
                .at("[run]"));
        }
        if self.model.reference_revision.is_some() && self.model.reference.is_none() {
            return Err(
                Error::input("model.reference_revision without model.reference")
                    .hint("name the reference too"),
            );
        }
        Ok(())
    }

    fn check_reference(&self) -> Result<()> {
        let Some(reference) = &self.reference else {
            return Ok(());
        };
        if !self.loss.needs().reference {
            let what = format!("the loss {} reads no reference", self.loss.name());
            return Err(Error::input(what).hint("leave the section out"));
        }
        if self.data.reference_log_probs.is_some() {
            return Err(
                Error::input("only a model can move, not data.reference_log_probs")
                    .hint("leave one of the two out"),
            );
        }
        reference.validate()
    }

    /// Fills in how samples of the policy are drawn, and refuses what cannot go with them;
    /// `others` says that a loss reads samples of the reference, too.
    fn check_on_policy(&mut self, others: bool) -> Result<()> {
        let file = matches!(self.data.samples, Some(SampleSource::Files(_)));
        if file || others {
            return Err(Error::input("samples of the policy beside samples of the reference")
                .hint("a loss with unsupervised = \"reverse_kl\" draws its own: leave data.samples out"));
        }
        if self.reference.is_some() {
            return Err(
                Error::input("samples of the policy under a reference that moves")
                    .hint("leave the section [reference] out"),
            );
        }
        let sample = self.sample.get_or_insert_with(|| SampleConfig {
            num_samples: 2,
            ..SampleConfig::default()
        });
        if sample.is_biased() {
            return Err(Error::input("REINFORCE needs samples of the policy itself")
                .hint("leave temperature, top_k, top_p, repetition_penalty and greedy out"));
        }
        if sample.num_samples < 2 {
            return Err(Error::input("`num_samples` is 1")
                .hint("it is at least 2: each sample's baseline is the mean of the others"));
        }
        Ok(())
    }

    /// Refuses states that are split on the CPU, where weights are f32.
    pub fn check_cpu(&self) -> Result<()> {
        self.check_states("on the CPU, which computes with f32 weights")
    }

    fn check_states(&self, place: &str) -> Result<()> {
        if self.optimizer.states == States::F32 {
            return Ok(());
        }
        Err(Error::input(format!("states = \"split\" {place}"))
            .hint("it halves bf16 weights kept on a GPU: leave the key out")
            .at("[optimizer]"))
    }

    /// Whether the run has a reference: the loss asks for one, or the config names one, which a
    /// loss without a reference does not read but the reported log-ratios do.
    pub fn has_reference(&self) -> bool {
        let named = self.model.reference.is_some() || self.data.reference_log_probs.is_some();
        named || self.loss.needs().reference
    }

    /// The resolved config as TOML, itself a valid config.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::failed(error.to_string()))
    }
}

/// Refuses a model without a name.
fn check_model(model: &ModelConfig) -> Result<()> {
    match model.model_name_or_path.is_empty() {
        true => Err(Error::input("is empty")
            .at("model.model_name_or_path")
            .hint("a folder, or owner/name on the hub")),
        false => Ok(()),
    }
}

/// Refuses rows that the loss does not read, and a loss that reads rows that are not there.
fn check_rows(loss: &WeightedLoss, data: &PreferenceData) -> Result<()> {
    let (needs, name) = (loss.needs(), loss.name());
    let unread = |key: &str| {
        let what = format!("the loss {name} does not read `{key}`");
        Err(Error::input(what).hint("leave the key out"))
    };
    let samples = needs.all.contains(&Role::Sampled);
    let read = samples || needs.optional.contains(&Role::Sampled);
    if !read && matches!(data.samples, Some(SampleSource::Files(_))) {
        return unread("data.samples");
    }
    if samples && data.samples.is_none() {
        return Err(
            Error::input(format!("the loss {name} needs samples of the reference"))
                .hint("set data.samples to a file of them, or to \"auto\" to have them drawn"),
        );
    }
    if needs.unlabelled.is_empty() && data.unlabelled.is_some() {
        return unread("data.unlabelled");
    }
    Ok(())
}

impl BatchConfig {
    fn resolve(&mut self) -> Result<()> {
        positive("batch_size", self.batch_size as f64)?;
        match (
            &mut self.micro_batch_tokens,
            self.gradient_accumulation_steps,
        ) {
            (Some(_), Some(_)) => Err(Error::input(
                "both `micro_batch_tokens` and `gradient_accumulation_steps`",
            )
            .hint("give one")),
            (None, Some(parts)) => {
                positive("gradient_accumulation_steps", parts as f64)?;
                if parts > self.batch_size {
                    return Err(Error::input(format!(
                        "{parts} `gradient_accumulation_steps` of a batch of {}",
                        self.batch_size
                    ))
                    .hint("at most batch_size, which counts the rows of a whole optimizer step"));
                }
                Ok(())
            }
            (tokens, None) => positive(
                "micro_batch_tokens",
                *tokens.get_or_insert(MICRO_BATCH_TOKENS) as f64,
            ),
        }
    }
}

fn positive(key: &str, x: f64) -> Result<()> {
    if x > 0.0 && x.is_finite() {
        return Ok(());
    }
    Err(Error::input(format!("`{key}` is {x}")).hint("it must be above 0 and finite"))
}
