//! A judge that is a model: its score of an answer.
//!
//! Hides how texts become its tokens, and what does not fit into its context.
//!
//! *Why*: the score of an answer depends on nothing but the answer and its prompt. So it is computed once,
//! whatever the answer is held against.

use std::sync::Arc;

use super::items::{Answer, Items};
use crate::config::{MICRO_BATCH_TOKENS, ModelConfig};
use crate::data::{Example, Response, TokenRule, TokenizeConfig, Tokenizer};
use crate::error::{Error, Result};
use crate::loss::Role;
use crate::model::Decoder;
use crate::score::score;
use crate::session::{Observer, Session};

/// A model that prefers what it finds likelier: by log pi(y|x) - log r(y|x) beside a reference r, as
/// the reward of a model that was trained on preferences is read; by log pi(y|x) / |y| without one.
pub struct Scorer {
    tokenizer: Arc<Tokenizer>,
    policy: Decoder,
    reference: Option<Decoder>,
    positions: usize,
    /// Whether answers are cut to what there is room for.
    cuts: bool,
    /// Hashes of weights and tokenizer.
    identity: String,
}

/// What becomes of items that are longer than the context of a judge that is a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// They are left out and counted.
    Skip,
    /// The end of their answers is cut; an item whose prompt alone fills the context is left out.
    Cut,
    /// The first one is an error.
    Fail,
}

impl Scorer {
    /// Loads the model that `config` names, and its `reference` if there is one.
    pub fn open(config: &ModelConfig, observe: Observer) -> Result<Self> {
        let session = Session::open(config, observe)?;
        let other = session.reference(observe)?;
        if let Some(folder) = other {
            session.check_same_tokens(folder)?;
        }
        let (policy, hash) = session.load()?;
        let mut positions = session.folder.arch.longest_sequence();
        let (reference, reference_hash) = match other {
            None => (None, String::new()),
            Some(folder) => {
                positions = positions.min(folder.arch.longest_sequence());
                let (reference, hash) = session.compute.load(folder)?;
                (Some(reference), hash)
            }
        };
        Ok(Self {
            identity: format!(
                "{hash} {reference_hash} {} {}",
                session.tokenizer.hash(),
                session.compute.name()
            ),
            tokenizer: session.tokenizer,
            policy,
            reference,
            positions,
            cuts: false,
        })
    }

    /// Leaves out of `items`, or cuts, what is longer than the context.
    ///
    /// # Errors
    /// With [`TooLong::Fail`] at the first item that is too long; if no item is left.
    pub fn fit(&mut self, items: &mut Items, rule: TooLong) -> Result<()> {
        let all = items.items.len();
        let mut kept = Vec::with_capacity(all);
        for item in std::mem::take(&mut items.items) {
            let example = self.example(&item.prompt, &[&item.model, &item.against])?;
            let (prompt, tokens) = (example.prompt.len(), tokens(&example));
            match (tokens <= self.positions, rule) {
                (true, _) => kept.push(item),
                (false, TooLong::Cut) if prompt < self.positions => {
                    items.cut += 1;
                    kept.push(item);
                }
                (false, TooLong::Skip | TooLong::Cut) => items.skipped += 1,
                (false, TooLong::Fail) => {
                    return Err(
                        self.too_long(format!("item {} has {tokens} tokens", kept.len() + 1))
                    );
                }
            }
        }
        if kept.is_empty() {
            return Err(self.too_long(format!("all {all} items are too long")));
        }
        items.items = kept;
        if rule == TooLong::Cut {
            self.cuts = true;
            // Replies about whole answers are not those about cut ones.
            self.identity += " cut";
        }
        Ok(())
    }

    fn too_long(&self, what: String) -> Error {
        let positions = self.positions;
        Error::input(format!(
            "{what}, and the judge has a context of {positions}"
        ))
        .hint("shorten the samples, take another judge, or cut the answers")
        .option("too_long", "cut")
    }

    /// What it is, for a key.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The scores of all answers of these examples.
    ///
    /// # Errors
    /// If a log-prob is not finite.
    pub fn scores(&self, examples: &[Example]) -> Result<Vec<Vec<f64>>> {
        let all = |model: &Decoder| score(model, examples, MICRO_BATCH_TOKENS);
        let policy = all(&self.policy)?;
        let reference = self.reference.as_ref().map(all).transpose()?;
        let of = |example, response| {
            let own = policy.score(example, response);
            match &reference {
                Some(reference) => own.log_prob - reference.score(example, response).log_prob,
                // An empty prompt and answer have no token that could be scored.
                None if own.tokens == 0 => 0.0,
                None => own.log_prob / own.tokens as f64,
            }
        };
        let scores = examples.iter().enumerate();
        Ok(scores
            .map(|(at, example)| (0..example.responses.len()).map(|r| of(at, r)).collect())
            .collect())
    }

    /// The answers as the model's tokens: their texts are tokenized again, since another model may
    /// have drawn them.
    pub fn example(&self, prompt: &str, answers: &[&Answer]) -> Result<Example> {
        let rule = TokenRule::new(&TokenizeConfig::default(), &self.tokenizer);
        let ids = rule.prompt(prompt)?;
        let response = |answer: &&Answer| {
            let mut response = rule.response(prompt, &ids, &answer.text)?.ids;
            if answer.finished || response.is_empty() {
                rule.finish(&mut response)?;
            }
            if self.cuts {
                response.truncate(self.positions - ids.len());
            }
            Ok(Response::new(Role::Sampled, response))
        };
        let responses = answers.iter().map(response).collect::<Result<_>>()?;
        Ok(Example {
            row: 0,
            prompt: ids,
            responses,
            preference: None,
        })
    }
}

/// The tokens of a prompt with the longest of its answers.
fn tokens(example: &Example) -> usize {
    let answers = example.responses.iter().map(|answer| answer.ids.len());
    example.prompt.len() + answers.max().unwrap_or(0)
}
