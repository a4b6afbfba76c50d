//! A run as it was written: one TOML file and the overrides of the command line.
//!
//! An error names the line of the file, or the override; see [`Source`].
//!
//! *Why*: parsing touches neither disk nor device, so a config can be checked, printed and compared
//! anywhere. What is printed resolved is itself a valid config.

mod data;
mod distributed;
mod foreign;
mod hint;
mod losses;
mod model;
mod prompt_source;
mod reference;
mod rows;
mod run;
mod sampling;
mod saved;
mod schema;
mod source;
mod sweep;

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::lab::story::StoryConfig;
use crate::loss::{Role, WeightedLoss};
use crate::model::peft::AdapterConfig;
use crate::model::sampling::SampleConfig;
use crate::optim::{OptimizerConfig, ScheduleConfig, States};

pub use crate::model::numerics::Dtype;
pub use data::{PreferenceData, SampleSource};
pub use distributed::DistributedConfig;
pub use hint::{KeyHint, key_hint};
pub use model::{ModelConfig, Quantization};
pub use prompt_source::PromptSource;
pub use reference::{ReferenceConfig, Update};
pub use rows::RowsConfig;
pub use run::RunConfig;
pub use sampling::SamplingConfig;
pub use saved::SavedBytes;
pub use source::Source;
pub use sweep::{PlannedRun, SweepConfig};

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The policy and the reference.
    pub model: ModelConfig,
    /// The adapter that is trained beside frozen weights; without this section the weights are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterConfig>,
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
    /// Several processes that compute the run.
    #[serde(default, skip_serializing_if = "DistributedConfig::is_default")]
    pub distributed: DistributedConfig,
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
    /// The shares of a batch whose gradients are summed apart, in a fixed order: a run has the same
    /// results on any number of ranks that fits its lanes. By default 8 under a launcher of several
    /// ranks, else 1; a run that goes on has those that it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lanes: Option<usize>,
}

/// Tokens computed at once unless the config says otherwise.
pub const MICRO_BATCH_TOKENS: usize = 4096;

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            batch_size: 64,
            micro_batch_tokens: None,
            gradient_accumulation_steps: None,
            lanes: None,
        }
    }
}

impl Config {
    /// Reads a config file and applies overrides of the form `section.key=value` as
    /// [`Source::open`] says, then checks it.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::of(&Source::open(path, overrides)?)
    }

    /// As [`open`](Self::open), from the file's text.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        Self::of(&Source::parse(text, overrides)?)
    }

    /// The run that a source describes, checked.
    pub fn of(source: &Source) -> Result<Self> {
        source.check(Self::resolved(source))
    }

    /// As [`of`](Self::of), where a config without a loss has that of supervised fine-tuning.
    pub fn of_training(source: &Source) -> Result<Self> {
        let mut source = source.clone();
        source.or_insert("loss", sft());
        Self::of(&source)
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

    fn resolved(source: &Source) -> Result<Self> {
        hint::check_sections(source.table())?;
        losses::check(source.table())?;
        let mut config: Self = source.read_run()?;
        let is_unset = |section: &Value| section.get("num_samples").is_none();
        if config.loss.needs().on_policy
            && let Some(sample) = &mut config.sample
            && source.table().get("sample").is_some_and(is_unset)
        {
            // The default of one yields: a sample's baseline is the mean of the others.
            sample.num_samples = 2;
        }
        config.resolve()?;
        Ok(config)
    }

    /// Checks everything that needs no file, and fills in defaults that depend on other keys.
    fn resolve(&mut self) -> Result<()> {
        let at = |section: &'static str| move |error: Error| error.at_key(section);
        self.loss.validate().map_err(at("loss"))?;
        self.data.validate().map_err(at("data"))?;
        check_model(&self.model)?;
        self.resolve_adapter()?;
        self.schedule.validate().map_err(at("schedule"))?;
        self.optimizer = self.optimizer.resolve().map_err(at("optimizer"))?;
        if self.model.dtype == Dtype::F32 {
            self.check_states("where model.dtype is \"f32\"")?;
        }
        self.batch.resolve().map_err(at("batch"))?;
        self.run.validate().map_err(at("run"))?;
        self.distributed.validate()?;
        check_rows(&self.loss, &self.data)?;
        let needs = self.loss.needs();
        if needs.on_policy {
            self.check_on_policy(needs.all.contains(&Role::Sampled))?;
        }
        match self.data.samples == Some(SampleSource::Auto) || needs.on_policy {
            true => self.sample.get_or_insert_default().validate(),
            // Beside a file it tells how the file was drawn.
            false if self.sample.is_some() && self.data.samples.is_none() => Err(Error::input(
                "[sample] is read only where data.samples is \"auto\"",
            )
            .hint("leave the section out")),
            false => Ok(()),
        }
        .map_err(at("sample"))?;
        if let Some(story) = &self.story {
            story.validate().map_err(at("story"))?;
        }
        self.check_reference()?;
        if self.run.metric_for_best_model.is_some() && self.data.eval.is_none() {
            return Err(Error::input("metric_for_best_model without data.eval")
                .hint("checkpoints are compared by evaluations")
                .at_key("run.metric_for_best_model"));
        }
        if self.run.eval_prompts > 0 && self.data.eval.is_none() {
            return Err(Error::input("eval_prompts without data.eval")
                .hint("they are the prompts of evaluation rows")
                .at_key("run.eval_prompts"));
        }
        if self.model.reference_revision.is_some() && self.model.reference.is_none() {
            return Err(
                Error::input("model.reference_revision without model.reference")
                    .hint("name the reference too")
                    .at_key("model.reference_revision"),
            );
        }
        Ok(())
    }

    fn resolve_adapter(&mut self) -> Result<()> {
        let Some(adapter) = self.adapter.take() else {
            return Ok(());
        };
        if self.model.trainable.is_some() {
            return Err(Error::input(
                "model.trainable beside an adapter, which is all that is trained",
            )
            .hint("leave it out; adapter.modules_to_save names modules that are trained whole")
            .at_keys(&["model.trainable", "adapter"]));
        }
        let mut adapter = adapter;
        if let Some(name) = self.model.adapter.take() {
            if adapter.from.is_some() {
                return Err(Error::input("two adapters to go on with")
                    .hint("leave one of the two out")
                    .at_keys(&["model.adapter", "adapter.from"]));
            }
            adapter.from = Some(name);
        }
        adapter
            .validate()
            .map_err(|error| error.at_key("adapter"))?;
        self.adapter = Some(adapter.completed());
        Ok(())
    }

    fn check_reference(&self) -> Result<()> {
        let Some(reference) = &self.reference else {
            return Ok(());
        };
        if !self.loss.needs().reference {
            let what = format!("the loss {} reads no reference", self.loss.name());
            return Err(Error::input(what)
                .hint("leave [reference] out")
                .at_keys(&["reference", "loss"]));
        }
        if self.data.reference_log_probs.is_some() {
            return Err(
                Error::input("only a model can move, not data.reference_log_probs")
                    .hint("leave it or [reference] out")
                    .at_keys(&["reference", "data.reference_log_probs"]),
            );
        }
        reference
            .validate()
            .map_err(|error| error.at_key("reference"))
    }

    /// Fills in how samples of the policy are drawn, and refuses what cannot go with them;
    /// `others` says that a loss reads samples of the reference, too.
    fn check_on_policy(&mut self, others: bool) -> Result<()> {
        let file = matches!(self.data.samples, Some(SampleSource::Files(_)));
        if file || others {
            return Err(Error::input("samples of the policy beside samples of the reference")
                .hint("a loss with unsupervised = \"reverse_kl\" draws its own: leave data.samples out")
                .at_keys(&["data.samples", "loss"]));
        }
        if self.reference.is_some() {
            return Err(
                Error::input("samples of the policy under a reference that moves")
                    .hint("leave [reference] out")
                    .at_keys(&["reference", "loss"]),
            );
        }
        let sample = self.sample.get_or_insert_with(|| SampleConfig {
            num_samples: 2,
            ..SampleConfig::default()
        });
        if sample.is_biased() {
            return Err(Error::input("REINFORCE needs samples of the policy itself")
                .hint("leave temperature, top_k, top_p, repetition_penalty and greedy out")
                .at_key("sample"));
        }
        if sample.num_samples < 2 {
            return Err(Error::must_be("num_samples", ">= 2", sample.num_samples)
                .hint("each sample's baseline is the mean of the others")
                .at_key("sample"));
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
            .hint("it splits bf16 weights on a GPU in halves: leave the key out")
            .at_key("optimizer.states"))
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
        true => Err(Error::input("model_name_or_path is empty")
            .hint("name a folder, or owner/name on the hub")
            .at_key("model.model_name_or_path")),
        false => Ok(()),
    }
}

/// Refuses rows that the loss does not read, and a loss that reads rows that are not there.
fn check_rows(loss: &WeightedLoss, data: &PreferenceData) -> Result<()> {
    let (needs, name) = (loss.needs(), loss.name());
    let unread = |key: &str| {
        let what = format!("the loss {name} does not read {key}");
        let error = Error::input(what).hint("leave the key out");
        Err(error.at_keys(&[key, "loss"]))
    };
    let samples = needs.all.contains(&Role::Sampled);
    let read = samples || needs.optional.contains(&Role::Sampled);
    if !read && matches!(data.samples, Some(SampleSource::Files(_))) {
        return unread("data.samples");
    }
    if samples && data.samples.is_none() {
        return Err(
            Error::input(format!("the loss {name} needs samples of the reference"))
                .hint("set data.samples to a file of them, or to \"auto\" to have them drawn")
                .at_keys(&["data.samples", "loss"]),
        );
    }
    if needs.unlabelled.is_empty() && data.unlabelled.is_some() {
        return unread("data.unlabelled");
    }
    Ok(())
}

impl BatchConfig {
    fn resolve(&mut self) -> Result<()> {
        at_least_one("batch_size", self.batch_size)?;
        if let Some(lanes) = self.lanes {
            at_least_one("lanes", lanes)?;
        }
        match (
            &mut self.micro_batch_tokens,
            self.gradient_accumulation_steps,
        ) {
            (Some(_), Some(_)) => Err(Error::input(
                "both micro_batch_tokens and gradient_accumulation_steps",
            )
            .hint("give one")
            .at_keys(&["micro_batch_tokens", "gradient_accumulation_steps"])),
            (None, Some(parts)) => {
                let key = "gradient_accumulation_steps";
                at_least_one(key, parts)?;
                if parts > self.batch_size {
                    let most = format!("<= batch_size, {}", self.batch_size);
                    return Err(Error::input(format!("{key} must be {most} (got {parts})"))
                        .hint("batch_size counts the rows of a whole optimizer step")
                        .at_keys(&[key, "batch_size"]));
                }
                Ok(())
            }
            (tokens, None) => at_least_one(
                "micro_batch_tokens",
                *tokens.get_or_insert(MICRO_BATCH_TOKENS),
            ),
        }
    }
}

fn sft() -> Value {
    Value::Table(Table::from_iter([(
        "sft".to_owned(),
        Value::Table(Table::new()),
    )]))
}

fn at_least_one<N: Copy + PartialOrd + From<u8> + std::fmt::Display>(
    key: &str,
    count: N,
) -> Result<()> {
    match count < N::from(1) {
        true => Err(Error::must_be(key, ">= 1", count)),
        false => Ok(()),
    }
}
