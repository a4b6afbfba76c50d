//! Files of samples, side by side.
//!
//! Hides the columns, the order of the lines, and what makes several files comparable.
//!
//! *Why*: self-BLEU and distinct-n depend on how many samples a prompt has, and everything depends on
//! the prompts. Models are compared on the same of both or not at all.

use std::collections::{HashMap, HashSet};

use crate::data::{Files, Sample};
use crate::error::{Error, Result};

/// One response.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// Text, ids and how it ended.
    pub sample: Sample,
    /// log pi(y|x) under the model that it was drawn from, in nats, where the file says.
    pub log_prob: Option<f64>,
    /// Whether it ended by itself or at a stop text, not at a length limit.
    pub stopped: bool,
}

/// The responses of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleSet {
    /// What it is called.
    pub name: String,
    /// Each prompt with its responses, in the order of their index.
    pub prompts: Vec<(String, Vec<Drawn>)>,
}

/// Prompts, each with the ids of its responses.
pub type Ids<'a> = Vec<(&'a str, Vec<&'a [u32]>)>;

impl SampleSet {
    /// Reads a file of `expo sample`, or another one with `prompt`, `response`, `finish_reason` and
    /// optionally `token_ids`, `log_prob`, `index`, `seed`.
    ///
    /// # Errors
    /// Names the line that is no sample, or that is there twice.
    pub fn open(name: &str, files: &Files) -> Result<Self> {
        let mut prompts: Vec<(String, Vec<Drawn>)> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut seen = HashSet::new();
        for row in files.rows() {
            let (_, row) = row?;
            let (prompt, sample) = Sample::of_row(&row)?;
            let log_prob = row.get("log_prob").map(|value| {
                let number = value.as_f64().filter(|x| x.is_finite() && *x <= 0.0);
                number.ok_or_else(|| row.wrong("log_prob", "a log-prob, 0 at most"))
            });
            let drawn = Drawn {
                log_prob: log_prob.transpose()?,
                stopped: row.text("finish_reason")? != "length",
                sample,
            };
            let at = *known.entry(prompt).or_insert_with_key(|prompt| {
                prompts.push((prompt.clone(), Vec::new()));
                prompts.len() - 1
            });
            if let Some(index) = drawn.sample.index
                && !seen.insert((at, index, drawn.sample.seed))
            {
                return Err(
                    Error::input("the file has this sample of this prompt already")
                        .hint("each index of a prompt is there once, or of another seed")
                        .at(&row.place),
                );
            }
            prompts[at].1.push(drawn);
        }
        for (_, samples) in &mut prompts {
            samples.sort_by_key(|drawn| drawn.sample.index);
        }
        Ok(Self {
            name: name.to_owned(),
            prompts,
        })
    }

    /// The response ids of each prompt.
    ///
    /// # Errors
    /// If a response has none.
    pub fn ids(&self) -> Result<Ids<'_>> {
        let mut all = Vec::with_capacity(self.prompts.len());
        for (prompt, samples) in &self.prompts {
            let ids = samples.iter().map(|drawn| drawn.sample.ids.as_deref());
            let ids: Option<Vec<&[u32]>> = ids.collect();
            let none = || {
                let what = format!("a response to {} has no `token_ids`", short(prompt));
                Error::input(what)
                    .hint("files of drawn samples have them")
                    .at(&self.name)
            };
            all.push((prompt.as_str(), ids.ok_or_else(none)?));
        }
        Ok(all)
    }

    /// The prompts, by their texts.
    fn by_prompt(&self) -> HashMap<&str, usize> {
        let prompts = self.prompts.iter().enumerate();
        prompts
            .map(|(at, (prompt, _))| (prompt.as_str(), at))
            .collect()
    }
}

/// The same prompts of every set, in the order of the first, with the same number of samples each.
/// With `common` those prompts that every set has, and of each the first samples, as many as every set
/// has of every one of them. Returns that number.
///
/// # Errors
/// Without `common` where prompts or numbers differ; with fewer than two samples per prompt; with two
/// sets of one name.
pub fn align(sets: &mut [SampleSet], common: bool) -> Result<usize> {
    for (at, set) in sets.iter().enumerate() {
        if sets[..at].iter().any(|other| other.name == set.name) {
            let what = format!("two sets of samples are called {:?}", set.name);
            return Err(Error::input(what)
                .hint("give each a name")
                .option("name", ""));
        }
    }
    let Some((first, others)) = sets.split_first() else {
        return Err(Error::input("no samples").hint("name one file at least"));
    };
    let order: Vec<String> = first
        .prompts
        .iter()
        .map(|(prompt, _)| prompt.clone())
        .collect();
    let mut kept: HashSet<&str> = order.iter().map(String::as_str).collect();
    for other in others {
        let has = other.by_prompt();
        let lacks = |has: &HashMap<&str, usize>, prompts: &[(String, Vec<Drawn>)]| {
            let mut prompts = prompts.iter().map(|(prompt, _)| prompt.as_str());
            prompts.find(|prompt| !has.contains_key(prompt)).map(short)
        };
        let only = [
            (first, other, lacks(&has, &first.prompts)),
            (other, first, lacks(&first.by_prompt(), &other.prompts)),
        ];
        for (one, lacking, prompt) in only {
            if let (Some(prompt), false) = (prompt, common) {
                let (one, lacking) = (&one.name, &lacking.name);
                let what = format!("{one} has the prompt {prompt}, {lacking} does not");
                return Err(Error::input(what)
                    .hint("sample the same prompts, or compare the common ones")
                    .option("common", ""));
            }
        }
        kept.retain(|prompt| has.contains_key(prompt));
    }
    if kept.is_empty() {
        return Err(Error::input("no prompt is in every file").hint("sample the same prompts"));
    }
    let order: Vec<&str> = order
        .iter()
        .map(String::as_str)
        .filter(|p| kept.contains(p))
        .collect();
    let mut count = usize::MAX;
    for set in &*sets {
        let at = set.by_prompt();
        for prompt in &order {
            let own = set.prompts[at[prompt]].1.len();
            if own != count && count != usize::MAX && !common {
                let (name, prompt) = (&set.name, short(prompt));
                let what = format!("{name} has {own} samples of {prompt}, others have {count}");
                return Err(Error::input(what)
                    .hint("sample the same number, or compare the first ones")
                    .option("common", ""));
            }
            count = count.min(own);
        }
    }
    if count < 2 {
        return Err(Error::input("a prompt has one sample").hint(
            "self-BLEU is of a sample against its siblings: draw two at least, the papers 25",
        ));
    }
    for set in &mut *sets {
        let at: HashMap<String, usize> = set
            .by_prompt()
            .into_iter()
            .map(|(prompt, at)| (prompt.to_owned(), at))
            .collect();
        let mut prompts: Vec<Option<(String, Vec<Drawn>)>> = std::mem::take(&mut set.prompts)
            .into_iter()
            .map(Some)
            .collect();
        set.prompts = order
            .iter()
            .filter_map(|&p| prompts[at[p]].take())
            .collect();
        for (_, samples) in &mut set.prompts {
            samples.truncate(count);
        }
    }
    Ok(count)
}

/// The beginning of a prompt, in quotes.
fn short(prompt: &str) -> String {
    match prompt.char_indices().nth(60) {
        None => format!("{prompt:?}"),
        Some((end, _)) => format!("{:?}...", &prompt[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, prompts: &[(&str, usize)]) -> SampleSet {
        let drawn = |index| Drawn {
            sample: Sample {
                index: Some(index as u64),
                seed: None,
                response: format!("{index}"),
                ids: None,
                finished: true,
            },
            log_prob: None,
            stopped: true,
        };
        let prompts = prompts
            .iter()
            .map(|(p, n)| ((*p).to_owned(), (0..*n).map(drawn).collect()));
        SampleSet {
            name: name.to_owned(),
            prompts: prompts.collect(),
        }
    }

    #[test]
    fn the_order_of_prompts_is_that_of_the_first() {
        let mut sets = [
            set("a", &[("x", 3), ("y", 3)]),
            set("b", &[("y", 3), ("x", 3)]),
        ];
        assert_eq!(align(&mut sets, false), Ok(3));
        assert_eq!(sets[0].prompts, sets[1].prompts);
        assert_eq!(sets[1].prompts[0].0, "x");
    }

    #[test]
    fn only_what_all_have_is_compared() {
        let sets = || {
            [
                set("a", &[("x", 3), ("z", 4), ("y", 3)]),
                set("b", &[("y", 2), ("x", 5), ("w", 1)]),
            ]
        };
        let error = align(&mut sets(), false).unwrap_err().to_string();
        assert!(
            error.contains("a has the prompt \"z\", b does not"),
            "{error}"
        );
        let mut common = sets();
        assert_eq!(align(&mut common, true), Ok(2));
        assert_eq!(common[0].prompts, common[1].prompts);
        for (sets, word) in [
            (
                vec![set("a", &[("x", 3), ("y", 2)])],
                "a has 2 samples of \"y\"",
            ),
            (vec![set("a", &[("x", 1)])], "two at least"),
            (vec![set("a", &[("x", 2)]), set("a", &[("x", 2)])], "(name)"),
            (
                vec![set("a", &[("x", 2)]), set("b", &[("y", 2)])],
                "does not",
            ),
            (vec![], "no samples"),
        ] {
            let error = align(&mut sets.clone(), false).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let mut apart = [set("a", &[("x", 2)]), set("b", &[("y", 2)])];
        let error = align(&mut apart, true).unwrap_err().to_string();
        assert!(error.contains("no prompt is in every file"), "{error}");
    }
}
