//! How much variety there is in what a model draws: the figures of EXPO table 1.
//!
//! The protocol is 25 samples per prompt, nucleus 0.95, temperature 1. Figures are means over prompts,
//! which are what is drawn again for the intervals; only the two over all samples have none, for of
//! prompts that are there twice every n-gram is, too.
//!
//! *Why*: entropy asks the model, self-BLEU and distinct-n ask the texts. They part where a model is
//! sure of each of many different sentences, so all are there side by side.

mod entropies;
mod ngrams;
mod read;

use std::collections::HashMap;

use rayon::prelude::*;
use serde::Serialize;

use super::figure::{Draws, Figure};
use crate::error::{Error, Result};
use crate::model::head::ResponseScore;

pub use entropies::entropies;
pub use ngrams::{distinct, self_bleu};
pub use read::{Drawn, Ids, SampleSet, align};

/// What n-grams are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// What lies between white space (Unicode's `White_Space`), as it is written.
    Words,
    /// Token ids, the end token left out; comparable between models with one tokenizer only.
    Ids,
}

/// The figures of several models on the same prompts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Prompts.
    pub prompts: usize,
    /// Samples of each.
    pub samples_per_prompt: usize,
    /// What n-grams are of.
    pub unit: Unit,
    /// How the intervals were drawn, over prompts.
    pub bootstrap: Draws,
    /// The models.
    pub models: Vec<Diversity>,
}

/// The figures of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diversity {
    /// What it is called.
    pub name: String,
    /// Monte-Carlo predictive entropy per token: the mean over responses of -log pi(y|x) / |y|, in
    /// nats, of the log-probs in the file, else of a model that scored them.
    pub entropy_monte_carlo: Option<Figure>,
    /// The same with long responses counting more: the sum of -log pi(y|x) over that of |y|.
    pub entropy_monte_carlo_by_tokens: Option<Figure>,
    /// Full-softmax predictive entropy per token: the mean over responses of the mean over their
    /// tokens of the next-token distribution's entropy, in nats, under the model that scored them.
    pub entropy_softmax: Option<Figure>,
    /// The same as a mean over all tokens.
    pub entropy_softmax_by_tokens: Option<Figure>,
    /// Self-BLEU-4 in [0, 1], the mean over samples: 1 where all samples of a prompt are equal.
    pub self_bleu_4: Figure,
    /// Different words over words, of the samples of one prompt.
    pub distinct_1: Figure,
    /// Different pairs of neighbouring words over such pairs.
    pub distinct_2: Figure,
    /// As `distinct_1`, of the samples of all prompts.
    pub distinct_1_of_all: f64,
    /// As `distinct_2`, of the samples of all prompts.
    pub distinct_2_of_all: f64,
    /// The mean length in tokens, the end token included; where the file has ids.
    pub tokens: Option<Figure>,
    /// The mean length in words.
    pub words: Figure,
    /// The share of responses that ended by themselves or at a stop text.
    pub stopped: Figure,
    /// Its figures of each prompt, for paired comparisons.
    #[serde(skip)]
    pub by_prompt: Vec<PromptDiversity>,
}

/// The figures of one model's samples of one prompt, as in [`Diversity`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromptDiversity {
    /// The prompt.
    pub prompt: String,
    /// Monte-Carlo predictive entropy per token, in nats.
    pub entropy_monte_carlo: Option<f64>,
    /// Full-softmax predictive entropy per token, in nats.
    pub entropy_softmax: Option<f64>,
    /// Self-BLEU-4 in [0, 1].
    pub self_bleu_4: f64,
    /// Different words over words; `None` where no sample has one.
    pub distinct_1: Option<f64>,
    /// Different pairs of neighbouring words over such pairs.
    pub distinct_2: Option<f64>,
    /// The mean length in tokens.
    pub tokens: Option<f64>,
    /// The mean length in words.
    pub words: f64,
    /// The share of responses that ended by themselves or at a stop text.
    pub stopped: f64,
}

impl Diversity {
    /// Of one set, each of whose prompts has the same number of samples; `scored` are the model's
    /// numbers of every prompt and sample, where there is a model.
    ///
    /// # Errors
    /// If n-grams are to be of ids and there are none.
    pub fn new(
        set: &SampleSet,
        scored: Option<&[Vec<ResponseScore>]>,
        unit: Unit,
        draws: Draws,
    ) -> Result<Self> {
        let ids = set.ids();
        let words = number_words(set);
        let sequences = match unit {
            Unit::Words => words.clone(),
            Unit::Ids => number_ids(set)?,
        };
        let lengths: Vec<Vec<usize>> = words
            .iter()
            .map(|samples| samples.iter().map(Vec::len).collect())
            .collect();
        let bleu: Vec<f64> = sequences
            .par_iter()
            .map(|samples| self_bleu(samples).iter().sum::<f64>() / samples.len() as f64)
            .collect();
        let monte_carlo = monte_carlo(set, scored);
        let softmax: Option<Sums> = scored.map(|scored| {
            let of = |s: &ResponseScore| (s.entropy, s.tokens);
            let of = |samples: &Vec<ResponseScore>| samples.iter().map(of).collect();
            scored.iter().map(of).collect()
        });
        let by_prompt = set
            .prompts
            .iter()
            .enumerate()
            .map(|(at, (prompt, samples))| {
                let mean = |of: &dyn Fn(&Drawn) -> f64| mean(samples.iter().map(of));
                let share = |order| {
                    // A prompt without any n-gram has no share of different ones.
                    let (different, all) = distinct(sequences[at].iter(), order);
                    (all > 0).then(|| different as f64 / all as f64)
                };
                let tokens = |drawn: &Drawn| drawn.sample.ids.as_ref().map_or(0, Vec::len) as f64;
                PromptDiversity {
                    prompt: prompt.clone(),
                    entropy_monte_carlo: monte_carlo.as_ref().map(|sums| per_token(&sums[at])),
                    entropy_softmax: softmax.as_ref().map(|sums| per_token(&sums[at])),
                    self_bleu_4: bleu[at],
                    distinct_1: share(1),
                    distinct_2: share(2),
                    tokens: ids.is_ok().then(|| mean(&tokens)),
                    words: self::mean(lengths[at].iter().map(|words| *words as f64)),
                    stopped: mean(&|drawn| f64::from(drawn.stopped)),
                }
            });
        let by_prompt: Vec<PromptDiversity> = by_prompt.collect();
        let figure = |of: &dyn Fn(&PromptDiversity) -> Option<f64>| {
            Figure::mean(&by_prompt.iter().filter_map(of).collect::<Vec<_>>(), draws)
        };
        let of_all = |order: usize| {
            let (different, all) = distinct(sequences.iter().flatten(), order);
            different as f64 / all as f64
        };
        let monte_carlo = monte_carlo.as_deref();
        let softmax = softmax.as_deref();
        Ok(Self {
            name: set.name.clone(),
            entropy_monte_carlo: monte_carlo.map(|_| figure(&|p| p.entropy_monte_carlo)),
            entropy_monte_carlo_by_tokens: monte_carlo.map(|x| by_tokens(x, draws)),
            entropy_softmax: softmax.map(|_| figure(&|p| p.entropy_softmax)),
            entropy_softmax_by_tokens: softmax.map(|x| by_tokens(x, draws)),
            self_bleu_4: figure(&|p| Some(p.self_bleu_4)),
            distinct_1: figure(&|p| p.distinct_1),
            distinct_2: figure(&|p| p.distinct_2),
            distinct_1_of_all: of_all(1),
            distinct_2_of_all: of_all(2),
            tokens: ids.is_ok().then(|| figure(&|p| p.tokens)),
            words: figure(&|p| Some(p.words)),
            stopped: figure(&|p| Some(p.stopped)),
            by_prompt,
        })
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// Of each response of each prompt a sum over its tokens, and their number.
type Sums = Vec<Vec<(f64, usize)>>;

/// -log pi(y|x); `None` where a response has no log-prob or no ids.
fn monte_carlo(set: &SampleSet, scored: Option<&[Vec<ResponseScore>]>) -> Option<Sums> {
    let prompts = set.prompts.iter().enumerate();
    let prompts = prompts.map(|(prompt, (_, samples))| {
        let samples = samples.iter().enumerate().map(|(at, drawn)| {
            let scored = scored.map(|scored| scored[prompt][at]);
            let own = drawn.log_prob.zip(drawn.sample.ids.as_ref());
            own.map(|(log_prob, ids)| (-log_prob, ids.len()))
                .or(scored.map(|s| (-s.log_prob, s.tokens)))
        });
        samples.collect::<Option<Vec<_>>>()
    });
    prompts.collect()
}

/// The mean over responses of their means over tokens.
fn per_token(samples: &[(f64, usize)]) -> f64 {
    mean(samples.iter().map(|(sum, tokens)| sum / *tokens as f64))
}

fn by_tokens(sums: &[Vec<(f64, usize)>], draws: Draws) -> Figure {
    let total = |samples: &Vec<(f64, usize)>| samples.iter().map(|(sum, _)| sum).sum::<f64>();
    let tokens = |samples: &Vec<(f64, usize)>| samples.iter().map(|(_, n)| n).sum::<usize>();
    let tokens: Vec<f64> = sums.iter().map(|samples| tokens(samples) as f64).collect();
    let totals: Vec<f64> = sums.iter().map(total).collect();
    Figure::ratio(&totals, |prompt| tokens[prompt], draws)
}

/// The words of every response as numbers.
fn number_words(set: &SampleSet) -> Vec<Vec<Vec<u32>>> {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut number = |word| {
        let next = numbers.len() as u32;
        *numbers.entry(word).or_insert(next)
    };
    let mut words =
        |drawn| -> Vec<u32> { text(drawn).split_whitespace().map(&mut number).collect() };
    let prompts = set.prompts.iter();
    prompts
        .map(|(_, samples)| samples.iter().map(&mut words).collect())
        .collect()
}

fn text(drawn: &Drawn) -> &str {
    &drawn.sample.response
}

/// The ids of every response without its end token.
fn number_ids(set: &SampleSet) -> Result<Vec<Vec<Vec<u32>>>> {
    set.ids()?;
    let ids = |drawn: &Drawn| -> Vec<u32> {
        let ids = drawn.sample.ids.as_deref().unwrap_or_default();
        ids[..ids.len() - usize::from(drawn.sample.finished && !ids.is_empty())].to_vec()
    };
    let prompts = set.prompts.iter();
    Ok(prompts
        .map(|(_, samples)| samples.iter().map(ids).collect())
        .collect())
}

/// Refuses numbers of draws that give no interval or take forever.
pub fn check(draws: Draws) -> Result<()> {
    match draws.count {
        1..=1_000_000 => Ok(()),
        count => Err(Error::input(format!("bootstrap is {count}")).hint("from 1 to 1000000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Sample;
    use crate::loss::Role;

    fn drawn(response: &str, ids: &[u32], log_prob: f64, finished: bool) -> Drawn {
        Drawn {
            sample: Sample {
                index: None,
                seed: None,
                response: response.into(),
                ids: Some(ids.to_vec()),
                finished,
            },
            log_prob: Some(log_prob),
            stopped: finished,
        }
    }

    #[test]
    fn a_few_samples_by_hand() {
        let set = SampleSet {
            name: "m".into(),
            prompts: vec![
                (
                    "x".into(),
                    vec![
                        drawn("a b", &[1, 2, 0], -3.0, true),
                        drawn("a b", &[1, 2], -4.0, false),
                    ],
                ),
                (
                    "y".into(),
                    vec![
                        drawn("a\u{a0}c\nd", &[1, 3, 4, 0], -2.0, true),
                        drawn("", &[0], -6.0, true),
                    ],
                ),
            ],
        };
        let draws = Draws::default();
        let found = Diversity::new(&set, None, Unit::Words, draws).unwrap();
        let per_response = (1.0 + 2.0 + 0.5 + 6.0) / 4.0;
        assert_eq!(found.entropy_monte_carlo.unwrap().value, per_response);
        assert_eq!(found.entropy_monte_carlo_by_tokens.unwrap().value, 1.5);
        assert!(found.entropy_softmax.is_none());
        assert_eq!(found.distinct_1.value, (0.5 + 1.0) / 2.0);
        assert_eq!(found.distinct_2.value, (0.5 + 1.0) / 2.0);
        assert_eq!(found.distinct_1_of_all, 4.0 / 7.0);
        assert_eq!(found.distinct_2_of_all, 3.0 / 4.0);
        assert_eq!(found.tokens.unwrap().value, 2.5);
        assert_eq!((found.words.value, found.stopped.value), (1.75, 0.75));
        let [x, y] = &found.by_prompt[..] else {
            panic!("{found:?}")
        };
        assert_eq!((x.prompt.as_str(), y.prompt.as_str()), ("x", "y"));
        assert_eq!(
            (x.entropy_monte_carlo, y.entropy_monte_carlo),
            (Some(1.5), Some(3.25))
        );
        assert_eq!((x.distinct_1, y.distinct_2), (Some(0.5), Some(1.0)));
        assert_eq!(
            (x.tokens, x.words, x.stopped, x.self_bleu_4 > y.self_bleu_4),
            (Some(2.5), 2.0, 0.5, true)
        );
        // Two words have no trigrams: 0.1 in their place, twice.
        let bleu = (1.0f64.ln() + 1.0f64.ln() + 2.0 * 0.1f64.ln()) / 4.0;
        assert!((found.self_bleu_4.value - bleu.exp() / 2.0).abs() < 1e-15);
        let ids = Diversity::new(&set, None, Unit::Ids, draws).unwrap();
        assert_eq!(ids.distinct_1_of_all, 4.0 / 7.0);
        let scored = ResponseScore {
            index: 0,
            role: Role::Sampled,
            log_prob: -9.0,
            tokens: 3,
            entropy: 6.0,
            correct: 0,
            shared: None,
            confidence: 0.0,
        };
        let scored = vec![vec![scored; 2]; 2];
        let model = Diversity::new(&set, Some(&scored), Unit::Words, draws).unwrap();
        assert_eq!(model.entropy_softmax.unwrap().value, 2.0);
        assert_eq!(model.entropy_monte_carlo.unwrap().value, per_response);
    }
}
