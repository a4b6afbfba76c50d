//! Samples of the policy itself, drawn anew for every step.
//!
//! *Why*: they become responses of their examples like any others, with the reference's log-probs in
//! its column, so the step knows nothing of where they came from.

use std::collections::HashMap;
use std::sync::Arc;

use super::Split;
use crate::config::Config;
use crate::data::{Example, PromptTokens, Response, Tokenizer};
use crate::error::{Error, Result};
use crate::loss::Role;
use crate::model::Decoder;
use crate::model::sampling::SampleConfig;
use crate::ranks::Ranks;
use crate::sample::{NO_CACHE, Sampler};
use crate::score::{check_is_known, micro_batch_tokens, score};
use crate::session::{Observer, Session};

/// The reference, in memory, and how samples are drawn.
pub(super) struct OnPolicy {
    reference: Decoder,
    tokenizer: Arc<Tokenizer>,
    settings: SampleConfig,
    max_length: usize,
    micro_batch_tokens: usize,
    ranks: Ranks,
}

impl OnPolicy {
    /// Loads the reference, whose content hash is `reference`, where the loss reads samples of the policy,
    /// whose content hash is `policy`.
    pub fn open(
        config: &Config,
        session: &Session,
        (policy, hash): (&Decoder, &str),
        reference: Option<&str>,
        observe: Observer,
    ) -> Result<Option<Self>> {
        if !config.loss.needs().on_policy {
            return Ok(None);
        }
        check_is_known(config, hash)?;
        let max_length = config.data.rows.length.max_length;
        if let Some(cached) = session
            .folder
            .arch
            .cached_length()
            .filter(|&it| it < max_length)
        {
            let what = format!(
                "max_length is {max_length}, and the loss {} draws responses",
                config.loss.name()
            );
            return Err(Error::input(what)
                .at_key("data.max_length")
                .hint(format!("at most {cached}: {NO_CACHE}")));
        }
        Ok(Some(Self {
            reference: session.reference_beside(policy, reference, observe)?,
            tokenizer: Arc::clone(&session.tokenizer),
            settings: config.sample.clone().unwrap_or_default(),
            max_length,
            micro_batch_tokens: micro_batch_tokens(config),
            ranks: session.ranks.clone(),
        }))
    }

    /// The reference.
    pub fn reference(&self) -> &Decoder {
        &self.reference
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
        let given = rows.iter().map(|&row| split.dataset.example(row));
        let given: Vec<Example> = given.collect::<Result<_>>()?;
        let place = |example: &Example| format!("row {}", example.row);
        let places: Vec<String> = given.iter().map(place).collect();
        let prompts = given
            .iter()
            .zip(&places)
            .map(|(given, place)| PromptTokens {
                ids: &given.prompt,
                place,
            });
        let sampler =
            Sampler::new(policy, &self.tokenizer, &self.settings, self.max_length).in_round(round);
        let drawn = sampler.on(&self.ranks).all(prompts, &mut |_, _, _| {})?;
        let mut drawn = drawn.into_iter();
        let examples = given.iter().map(|given| Example {
            row: given.row,
            prompt: given.prompt.clone(),
            responses: drawn
                .by_ref()
                .take(self.settings.num_samples)
                .map(|drawn| Response::new(Role::Sampled, drawn.ids))
                .collect(),
            preference: None,
        });
        let examples: Vec<Example> = examples.collect();
        let column = score(&self.reference, &examples, self.micro_batch_tokens)?;
        let mut drawn = HashMap::new();
        for (at, (mut example, new)) in given.into_iter().zip(examples).enumerate() {
            let row = rows[at];
            let keep = |response: &Response| response.role != Role::Sampled;
            example.responses.retain(keep);
            let known = 0..example.responses.len();
            let known = known.map(|response| split.given_score(row, response));
            let scores = known.chain(column.of(at)).collect();
            example.responses.extend(new.responses);
            drawn.insert(row, (example, scores));
        }
        split.replace(drawn);
        Ok(())
    }
}
