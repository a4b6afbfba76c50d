//! Samples of the policy itself, drawn anew for every step.
//!
//! *Why*: they become responses of their examples like any others, with the reference's log-probs in
//! its column, so the step knows nothing of where they came from.

use std::path::Path;
use std::sync::Arc;

use super::reference::{budget, check_is_known, load};
use super::{Observer, Split};
use crate::config::Config;
use crate::data::{Example, Prompt, Response, Tokenizer};
use crate::error::Result;
use crate::loss::Role;
use crate::model::Decoder;
use crate::model::sampling::SampleConfig;
use crate::sample::Sampler;
use crate::score::score;

/// The reference, in memory, and how samples are drawn.
pub(super) struct OnPolicy {
    reference: Decoder,
    tokenizer: Arc<Tokenizer>,
    settings: SampleConfig,
    max_length: usize,
    micro_batch_tokens: usize,
}

impl OnPolicy {
    /// Loads the reference where the loss reads samples of the policy; `folder` is what the policy,
    /// whose content hash is `policy`, came from.
    pub fn open(
        config: &Config,
        folder: &Path,
        policy: &str,
        tokenizer: &Arc<Tokenizer>,
        observe: Observer,
    ) -> Result<Option<Self>> {
        if !config.loss.needs().on_policy {
            return Ok(None);
        }
        check_is_known(config, policy)?;
        Ok(Some(Self {
            reference: load(config, folder, observe)?,
            tokenizer: Arc::clone(tokenizer),
            settings: config.sample.clone().unwrap_or_default(),
            max_length: config.data.max_length,
            micro_batch_tokens: budget(config),
        }))
    }

    /// Gives these rows samples of the policy, in place of those that they had, with their log-probs
    /// under the reference. Every `round` has draws of its own.
    pub fn draw(
        &self,
        policy: &Decoder,
        split: &mut Split,
        rows: &[usize],
        round: u64,
    ) -> Result<()> {
        let settings = SampleConfig {
            seed: self.settings.seed ^ (round << 32),
            ..self.settings.clone()
        };
        let prompt = |&row: &usize| {
            let example = &split.dataset.examples[row];
            Prompt {
                text: String::new(),
                ids: example.prompt.clone(),
                place: format!("row {}", example.row),
                cut: false,
            }
        };
        let prompts: Vec<Prompt> = rows.iter().map(prompt).collect();
        let sampler = Sampler::new(policy, "", &self.tokenizer, &settings, self.max_length);
        let drawn = sampler.all(&prompts, &mut |_, _, _| {})?;
        let mut drawn = drawn.into_iter();
        let examples = rows.iter().zip(prompts).map(|(&row, prompt)| Example {
            row: split.dataset.examples[row].row,
            prompt: prompt.ids,
            responses: drawn
                .by_ref()
                .take(settings.num_samples)
                .map(|drawn| Response::new(Role::Sampled, drawn.ids))
                .collect(),
            preference: None,
        });
        let examples: Vec<Example> = examples.collect();
        let column = score(&self.reference, &examples, self.micro_batch_tokens, |_| {})?;
        for ((&row, new), scores) in rows.iter().zip(examples).zip(column) {
            let responses = &mut split.dataset.examples[row].responses;
            responses.retain(|response| response.role != Role::Sampled);
            split.reference[row].truncate(responses.len());
            responses.extend(new.responses);
            split.reference[row].extend(scores);
        }
        Ok(())
    }
}
