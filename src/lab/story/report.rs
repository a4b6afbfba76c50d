//! A model before and after training, beside what is exactly true: a table.
//!
//! Hides the estimators. Those from samples carry one standard error over prompts; the grammar's own
//! columns are sums over all its stories, except distinct-n, which is of as many draws as samples.
//!
//! *Why*: a score that rose says little alone. Beside the optima one sees whether a model came to
//! prefer the better stories, or forgot all but the best.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::grammar::{Grammar, Prompt};
use super::rng;
use super::tilt::Tilt;
use crate::error::{Error, Result};
use crate::io::number::or_nan;

/// A continuation that a model has drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its text.
    pub text: String,
    /// Its log-prob under the model that drew it, the end token included.
    pub log_prob: f64,
    /// Its log-prob under the reference.
    pub reference: f64,
    /// Whether it ended with an end token, not at a length limit.
    pub finished: bool,
}

/// The samples of one prompt; as many before as after.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// The prompt, one of the grammar's.
    pub prompt: String,
    /// From the model before training.
    pub before: Vec<Sample>,
    /// From the model after it.
    pub after: Vec<Sample>,
}

/// The table. [`Display`](fmt::Display) lays it out for 80 columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The number of prompts.
    pub prompts: usize,
    /// Samples per prompt, before and after each.
    pub samples: usize,
    /// Before, after, the grammar, Bradley and Terry's optimum, DPO's.
    pub columns: [Column; 5],
    /// A story before and after, for the prompts whose change in score is nearest the median.
    pub examples: Vec<Example>,
    /// The median over prompts of the change in score of the first sample; none where no prompt has a
    /// story of the grammar before and after.
    #[serde(default)]
    pub median_change: Option<f64>,
}

/// What is known of one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// The policy.
    pub name: String,
    /// Share of samples that ended and are stories of the grammar.
    pub in_grammar: Estimate,
    /// Mean score of those; none if there are none.
    pub score: Option<Estimate>,
    /// Entropy per story, in nats: the mean of -log pi.
    pub entropy: Estimate,
    /// Different words among all words of a prompt's samples, as a share; mean over prompts. Words
    /// are what white space parts.
    pub distinct_1: Estimate,
    /// The same for pairs of neighbouring words, none across two samples.
    pub distinct_2: Estimate,
    /// KL from the reference, in nats: the mean of log pi - log r; for the grammar's own columns, r
    /// is the grammar.
    pub kl: Estimate,
}

/// A number, and its standard error unless it is exact.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number.
    #[serde(deserialize_with = "or_nan")]
    pub value: f64,
    /// One standard error over prompts; none where it is exact, or there is one prompt.
    pub error: Option<f64>,
}

/// What became of one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The prompt.
    pub prompt: String,
    /// The first sample before training.
    pub before: Told,
    /// The first sample after it.
    pub after: Told,
}

/// A sample with its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Its text.
    pub text: String,
    /// None if it is not a story of the grammar.
    pub score: Option<f64>,
}

const EXAMPLES: usize = 3;
const BRADLEY_TERRY: &str = "Bradley-Terry";

impl Example {
    /// By how much the score changed; none unless both are stories of the grammar.
    fn change(&self) -> Option<f64> {
        Some(self.after.score? - self.before.score?)
    }
}

impl Report {
    /// Measures samples; `beta` is DPO's, and `seed` that of the draws from the exact policies.
    pub fn new(grammar: &Grammar, answers: &[Answers], beta: f64, seed: u64) -> Result<Self> {
        let samples = answers.first().map_or(0, |first| first.before.len());
        check(answers, samples)?;
        let mut prompts = Vec::new();
        for each in answers {
            prompts.push(grammar.prompt(&each.prompt).ok_or_else(|| {
                Error::input(format!("no prompt of the grammar: {:?}", each.prompt))
                    .hint("draw prompts from the same grammar")
            })?);
        }
        let of = |name: &str, side: fn(&Answers) -> &[Sample]| {
            let sides = prompts.iter().zip(answers.iter().map(side));
            sampled(name, &sides.collect::<Vec<_>>())
        };
        let truth = |name: &str, tilt: Tilt| exact(name, &prompts, tilt, samples, seed);
        let columns = [
            of("before", |answers| &answers.before),
            of("after", |answers| &answers.after),
            truth("grammar", Tilt::GRAMMAR),
            truth(BRADLEY_TERRY, Tilt::BRADLEY_TERRY),
            truth(&format!("DPO beta {beta}"), Tilt::dpo(beta)?),
        ];
        let examples = prompts.iter().zip(answers).map(example).collect();
        let (examples, median_change) = typical(examples);
        Ok(Self {
            prompts: prompts.len(),
            samples,
            columns,
            examples,
            median_change,
        })
    }
}

/// The examples to show, and the median of the changes in score. Any other choice would make the change
/// look larger or smaller than it is: the first three prompts can all be exceptions.
fn typical(mut examples: Vec<Example>) -> (Vec<Example>, Option<f64>) {
    let mut changes: Vec<f64> = examples.iter().filter_map(Example::change).collect();
    changes.sort_by(f64::total_cmp);
    let middle = changes.len() / 2;
    let median = match changes.len() {
        0 => None,
        n if n % 2 == 1 => Some(changes[middle]),
        _ => Some((changes[middle - 1] + changes[middle]) / 2.0),
    };
    let distance = |example: &Example| match (example.change(), median) {
        (Some(change), Some(median)) => (change - median).abs(),
        _ => f64::INFINITY,
    };
    examples.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    examples.truncate(EXAMPLES);
    (examples, median)
}

fn check(answers: &[Answers], samples: usize) -> Result<()> {
    if samples == 0 {
        return Err(Error::input("no samples").hint("give one prompt and one sample or more"));
    }
    for Answers {
        prompt,
        before,
        after,
    } in answers
    {
        if before.len() != samples || after.len() != samples {
            let what = format!("{} and {} samples of {prompt:?}", before.len(), after.len());
            return Err(Error::input(what).hint(format!(
                "distinct-n compares equal numbers, here {samples} before and after"
            )));
        }
        let mut log_probs = before
            .iter()
            .chain(after)
            .flat_map(|s| [s.log_prob, s.reference]);
        if log_probs.any(|log_prob| !log_prob.is_finite()) {
            return Err(Error::non_finite(format!(
                "a log-prob of a sample of {prompt:?} is not finite"
            )));
        }
    }
    Ok(())
}

fn score(prompt: &Prompt, sample: &Sample) -> Option<f64> {
    let story = prompt.read(&sample.text).filter(|_| sample.finished)?;
    Some(story.score)
}

fn example((prompt, answers): (&Prompt, &Answers)) -> Example {
    let told = |sample: &Sample| Told {
        text: sample.text.clone(),
        score: score(prompt, sample),
    };
    Example {
        prompt: answers.prompt.clone(),
        before: told(&answers.before[0]),
        after: told(&answers.after[0]),
    }
}

fn sampled(name: &str, prompts: &[(&Prompt, &[Sample])]) -> Column {
    let mean = |of: &dyn Fn(&Prompt, &Sample) -> Option<f64>| {
        let totals = prompts.iter().map(|(prompt, samples)| {
            let known = samples.iter().filter_map(|sample| of(prompt, sample));
            known.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0))
        });
        ratio(&totals.collect::<Vec<_>>())
    };
    let all = |of: fn(&Sample) -> f64| {
        let mean = mean(&|_, sample| Some(of(sample)));
        mean.expect("there are samples")
    };
    let share = mean(&|prompt, sample| Some(f64::from(score(prompt, sample).is_some())));
    let diversity = |n: usize| {
        let shares = prompts.iter().map(|(_, samples)| {
            let texts = samples.iter().map(|sample| sample.text.as_str());
            (distinct(texts, n), 1.0)
        });
        ratio(&shares.collect::<Vec<_>>()).expect("there are prompts")
    };
    Column {
        name: name.to_owned(),
        in_grammar: share.expect("there are samples"),
        score: mean(&score),
        entropy: all(|sample| -sample.log_prob),
        distinct_1: diversity(1),
        distinct_2: diversity(2),
        kl: all(|sample| sample.log_prob - sample.reference),
    }
}

fn exact(name: &str, prompts: &[Prompt], tilt: Tilt, samples: usize, seed: u64) -> Column {
    let tilted: Vec<_> = prompts.iter().map(|prompt| prompt.tilted(tilt)).collect();
    let mean = |values: &dyn Fn(usize) -> f64| Estimate {
        value: (0..tilted.len()).map(values).sum::<f64>() / tilted.len() as f64,
        error: None,
    };
    let drawn: Vec<Vec<String>> = tilted
        .iter()
        .enumerate()
        .map(|(stream, tilted)| {
            let mut rng = rng(seed, stream as u64);
            (0..samples).map(|_| tilted.draw(&mut rng).text).collect()
        })
        .collect();
    let diversity = |n: usize| {
        let shares = drawn.iter().map(|texts| {
            let texts = texts.iter().map(String::as_str);
            (distinct(texts, n), 1.0)
        });
        ratio(&shares.collect::<Vec<_>>()).expect("there are prompts")
    };
    Column {
        name: name.to_owned(),
        in_grammar: mean(&|_| 1.0),
        score: Some(mean(&|i| tilted[i].score())),
        entropy: mean(&|i| tilted[i].entropy()),
        distinct_1: diversity(1),
        distinct_2: diversity(2),
        kl: mean(&|i| tilted[i].kl()),
    }
}

/// The ratio of the sums of (numerator, denominator) over prompts, with the standard error that
/// prompts as independent draws give it; none if the denominators are all 0.
fn ratio(parts: &[(f64, f64)]) -> Option<Estimate> {
    let (above, below) = parts
        .iter()
        .fold((0.0, 0.0), |(a, b), x| (a + x.0, b + x.1));
    if below == 0.0 {
        return None;
    }
    let (value, n) = (above / below, parts.len() as f64);
    let residuals = parts.iter().map(|(a, b)| (a - value * b).powi(2));
    let error = (n / (n - 1.0) * residuals.sum::<f64>()).sqrt() / below;
    Some(Estimate {
        value,
        error: (n > 1.0).then_some(error),
    })
}

/// Different n-grams of words as a share of all; 0 where there are none.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>, n: usize) -> f64 {
    let (mut seen, mut all) = (HashSet::new(), 0usize);
    for text in texts {
        let words: Vec<&str> = text.split_whitespace().collect();
        for gram in words.windows(n) {
            all += 1;
            seen.insert(gram.to_vec());
        }
    }
    seen.len() as f64 / all.max(1) as f64
}

const WIDTH: usize = 80;
const LABEL: usize = 15;
const CELL: usize = 13;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let line = |f: &mut fmt::Formatter, label: &str, cell: &dyn Fn(&Column) -> String| {
            write!(f, "{label:<LABEL$}")?;
            for column in &self.columns {
                write!(f, "{:>CELL$}", cell(column))?;
            }
            writeln!(f)
        };
        let number = |estimate: &Estimate| show(estimate, 1.0, 2, "");
        let share = |estimate: &Estimate| show(estimate, 100.0, 1, "%");
        line(f, "", &|column| match column.name.as_str() {
            BRADLEY_TERRY => "BT optimum".to_owned(),
            name => name.to_owned(),
        })?;
        line(f, "in the grammar", &|column| share(&column.in_grammar))?;
        line(f, "score", &|column| {
            column.score.as_ref().map_or("-".into(), number)
        })?;
        line(f, "entropy", &|column| number(&column.entropy))?;
        line(f, "distinct-1", &|column| share(&column.distinct_1))?;
        line(f, "distinct-2", &|column| share(&column.distinct_2))?;
        line(f, "KL", &|column| number(&column.kl))?;
        let (prompts, samples) = (self.prompts, self.samples);
        writeln!(
            f,
            "{prompts} prompts, {samples} samples of each, ± one standard error; entropy and KL in nats per\n\
             story; BT optimum: the policy whose choices follow the {BRADLEY_TERRY} preferences"
        )?;
        if let Some(median) = self.median_change {
            writeln!(
                f,
                "\nStories of the prompts whose change in score is nearest the median, {median:+.1}:"
            )?;
        }
        for example in &self.examples {
            writeln!(f)?;
            wrapped(f, "", &example.prompt)?;
            for (label, told) in [("before", &example.before), ("after", &example.after)] {
                let score = match told.score {
                    Some(score) => format!("{score:+.1}"),
                    None => "-".into(),
                };
                wrapped(f, &format!("  {label:<7}{score:>5}  "), &told.text)?;
            }
        }
        Ok(())
    }
}

fn show(estimate: &Estimate, scale: f64, digits: usize, unit: &str) -> String {
    let number = |x: f64| format!("{:.digits$}{unit}", x * scale);
    match estimate.error {
        Some(error) => format!("{} ± {}", number(estimate.value), number(error)),
        None => number(estimate.value),
    }
}

/// Words in lines below each other, `label` in front of the first.
fn wrapped(f: &mut fmt::Formatter, label: &str, text: &str) -> fmt::Result {
    let indent = label.chars().count();
    let mut line = label.to_owned();
    let mut length = indent;
    for word in text.split_whitespace() {
        let word_length = word.chars().count();
        if length > indent && length + 1 + word_length > WIDTH {
            writeln!(f, "{line}")?;
            (line, length) = (" ".repeat(indent), indent);
        }
        if length > indent {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += word_length;
    }
    writeln!(f, "{line}")
}
