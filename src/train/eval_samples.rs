//! What people look at of an evaluation: answers to prompts that are always the same, and the pairs
//! with the largest and the smallest margins.
//!
//! *Why*: nothing of it changes the run. Draws are functions of seed, prompt and position, so each
//! evaluation has the same random numbers and its answers differ by the policy alone; and what cannot
//! be had is a warning.

mod sampled_kl;

use std::sync::Arc;

use super::Split;
use super::health::LengthPreference;
use crate::config::Config;
use crate::data::{self, Example, PromptTokens, Tokenizer};
use crate::error::Result;
use crate::loss::{Response, Role, Scored, WeightedLoss};
use crate::model::Decoder;
use crate::model::sampling::SampleConfig;
use crate::ranks::Ranks;
use crate::run_dir::{self, FinishReason, Generation, Margins};
use crate::sample::Sampler;
use crate::session::Session;

pub(super) use sampled_kl::SampledKl;

/// Fixed prompts, and how many pairs are kept.
pub(super) struct EvalSamples {
    tokenizer: Arc<Tokenizer>,
    prompts: Vec<FixedPrompt>,
    settings: SampleConfig,
    max_length: usize,
    margins: usize,
    ranks: Ranks,
}

/// The policy's answers to the fixed prompts.
#[derive(Default)]
pub(super) struct Answers {
    /// As lines of `generations.jsonl`.
    pub lines: Vec<Generation>,
    /// As examples to be scored, in the same order.
    pub examples: Vec<Example>,
}

/// A prompt that every evaluation answers.
struct FixedPrompt {
    /// The number of its row.
    row: usize,
    text: String,
    ids: Vec<u32>,
    /// How messages name it.
    place: String,
}

impl<'a> From<&'a FixedPrompt> for PromptTokens<'a> {
    fn from(prompt: &'a FixedPrompt) -> Self {
        Self {
            ids: &prompt.ids,
            place: &prompt.place,
        }
    }
}

impl EvalSamples {
    /// The first prompts of the evaluation rows that differ and that leave room for an answer of a model of
    /// this shape.
    pub fn open(config: &Config, session: &Session, eval: Option<&Split>) -> Result<Self> {
        let (tokenizer, arch) = (Arc::clone(&session.tokenizer), &session.folder.arch);
        let (run, max_length) = (&config.run, config.data.rows.length.max_length);
        let max_length = max_length.min(arch.cached_length().unwrap_or(max_length));
        let most = run.eval_prompts as usize;
        let mut prompts: Vec<FixedPrompt> = Vec::new();
        for row in 0..eval.map_or(0, Split::len) {
            if prompts.len() == most {
                break;
            }
            let Some(example) = eval.map(|eval| eval.example(row)).transpose()? else {
                break;
            };
            let ids = example.prompt;
            let known = prompts.iter().any(|other| other.ids == ids);
            if ids.is_empty() || ids.len() >= max_length || known {
                continue;
            }
            prompts.push(FixedPrompt {
                row: example.row,
                text: tokenizer.decode(&ids, true)?,
                ids,
                place: format!("row {}", example.row),
            });
        }
        Ok(Self {
            ranks: session.ranks.clone(),
            tokenizer,
            prompts,
            settings: SampleConfig {
                max_new_tokens: run.eval_max_new_tokens,
                seed: run.seed,
                ..SampleConfig::default()
            },
            max_length,
            margins: run.eval_margins,
        })
    }

    /// The policy's answers after `step`; none without prompts.
    pub fn answers(&self, model: &Decoder, step: u64) -> Result<Answers> {
        if self.prompts.is_empty() {
            return Ok(Answers::default());
        }
        let sampler = Sampler::new(model, &self.tokenizer, &self.settings, self.max_length);
        let sampler = sampler.on(&self.ranks);
        let drawn = sampler.all(&self.prompts, &mut |_, _, _| {})?;
        let mut answers = Answers::default();
        for (prompt, drawn) in self.prompts.iter().zip(drawn) {
            answers.lines.push(Generation {
                step,
                row: prompt.row,
                prompt: prompt.text.clone(),
                response: sampler.text(prompt, &drawn)?,
                log_prob: drawn.log_prob,
                tokens: drawn.ids.len(),
                finish_reason: match drawn.finished {
                    true => FinishReason::Stop,
                    false => FinishReason::Length,
                },
            });
            answers.examples.push(Example {
                row: prompt.row,
                prompt: prompt.ids.clone(),
                responses: vec![data::Response::new(Role::Sampled, drawn.ids)],
                preference: None,
            });
        }
        Ok(answers)
    }

    /// The extremes of an evaluation that begins.
    pub fn extremes(&self) -> Extremes {
        Extremes {
            most: self.margins,
            ..Extremes::default()
        }
    }

    /// What `margins.json` holds; `None` where there was no pair, or none is to be kept.
    pub fn pairs(&self, step: u64, split: &Split, extremes: &Extremes) -> Result<Option<Margins>> {
        if extremes.largest.is_empty() {
            return Ok(None);
        }
        let list = |pairs: &[Pair]| -> Result<Vec<run_dir::Pair>> {
            pairs.iter().map(|pair| self.pair(split, pair)).collect()
        };
        Ok(Some(Margins {
            step,
            pairs: extremes.pairs,
            largest: list(&extremes.largest)?,
            smallest: list(&extremes.smallest)?,
        }))
    }

    fn pair(&self, split: &Split, pair: &Pair) -> Result<run_dir::Pair> {
        let example = split.example(pair.index)?;
        let side = |role: Role, side: &Side| -> Result<run_dir::Side> {
            let response = example.responses.iter().find(|r| r.role == role);
            let ids = response.map_or(&[][..], |response| &response.ids);
            Ok(run_dir::Side {
                text: self.tokenizer.after(&example.prompt, ids)?,
                reward: side.reward,
                log_prob: side.log_prob,
                reference_log_prob: side.reference,
                tokens: side.tokens,
            })
        };
        Ok(run_dir::Pair {
            row: example.row,
            margin: pair.margin,
            prompt: self.tokenizer.decode(&example.prompt, true)?,
            chosen: side(Role::Chosen, &pair.chosen)?,
            rejected: side(Role::Rejected, &pair.rejected)?,
        })
    }
}

/// The pairs of an evaluation with the extreme margins, the most extreme first; of equals the one that
/// came first.
#[derive(Debug, Default)]
pub(super) struct Extremes {
    most: usize,
    /// Pairs seen.
    pairs: usize,
    largest: Vec<Pair>,
    smallest: Vec<Pair>,
    /// Which lengths labels and rewards prefer.
    pub lengths: LengthPreference,
}

#[derive(Debug, Clone)]
struct Pair {
    /// Its place in the split.
    index: usize,
    margin: f64,
    chosen: Side,
    rejected: Side,
}

#[derive(Debug, Clone)]
struct Side {
    reward: f64,
    log_prob: f64,
    reference: f64,
    tokens: f64,
}

impl Extremes {
    /// Looks at an example of this place in its split; one that is no pair, or whose loss has no
    /// rewards, is passed over.
    pub fn look(&mut self, index: usize, scored: &Scored, loss: &WeightedLoss) {
        let side = |response: &Response| {
            Some(Side {
                reward: loss.reward(response)?,
                log_prob: response.policy.value,
                reference: response.reference,
                tokens: response.tokens,
            })
        };
        let Some((chosen, rejected)) = scored.pair() else {
            return;
        };
        let (Some(chosen), Some(rejected)) = (side(chosen), side(rejected)) else {
            return;
        };
        let pair = Pair {
            index,
            margin: chosen.reward - rejected.reward,
            chosen,
            rejected,
        };
        self.pairs += 1;
        self.lengths
            .add(pair.chosen.tokens, pair.rejected.tokens, pair.margin);
        keep(&mut self.largest, self.most, &pair, |a, b| a > b);
        keep(&mut self.smallest, self.most, &pair, |a, b| a < b);
    }
}

fn keep(pairs: &mut Vec<Pair>, most: usize, pair: &Pair, before: fn(f64, f64) -> bool) {
    let at = pairs.partition_point(|other| !before(pair.margin, other.margin));
    if at < most {
        pairs.insert(at, pair.clone());
        pairs.truncate(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extremes_are_those_of_a_sort() {
        let loss = WeightedLoss::from(crate::loss::Loss::default_of("dpo").unwrap());
        let mut extremes = Extremes {
            most: 3,
            ..Extremes::default()
        };
        let margins = [2.0, -1.0, 5.0, 2.0, 0.0, 7.0, -3.0];
        for (index, margin) in margins.into_iter().enumerate() {
            // DPO's reward is beta rho, and beta is 0.1.
            let scored = Scored::new(
                &[
                    (Role::Chosen, 10.0 * margin - 4.0, -4.0, 3.0),
                    (Role::Rejected, -2.0, -2.0, 3.0),
                ],
                None,
            );
            extremes.look(index, &scored, &loss);
        }
        let of = |pairs: &[Pair]| pairs.iter().map(|pair| pair.index).collect::<Vec<_>>();
        assert_eq!(of(&extremes.largest), [5, 2, 0]);
        assert_eq!(of(&extremes.smallest), [6, 1, 4]);
        assert!((extremes.largest[0].margin - 7.0).abs() < 1e-12);
        assert_eq!(extremes.pairs, 7);
    }
}
