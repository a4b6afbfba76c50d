//! Judges that need no network: a rule, a list of words, a model.
//!
//! *Why*: the whole way of a comparison, order, verdict, cache, intervals and controls, is the same
//! whoever judges. A rule that is known shows what the figures of an unknown judge mean: how a judge
//! looks that prefers what is long, or what stands first.

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::items::Items;
use super::scorer::{Scorer, TooLong};
use crate::error::{Error, Result};
use crate::io::untrusted;

/// Words with weights; a response's score is the sum of those of its words.
///
/// A line of the file is a word and a number with white space between them; a blank line and one that
/// begins with `#` are none. Words are runs of letters, digits and apostrophes, in lower case.
#[derive(Debug)]
pub struct Lexicon {
    weights: HashMap<String, f64>,
    /// A hash of the file.
    hash: String,
}

impl Lexicon {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self> {
        let text = untrusted::text(path, untrusted::LEXICON)?;
        Self::parse(&text).map_err(|error| error.at(path.display()))
    }

    /// The words of a text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut weights = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refuse = |what: String| {
                Err(Error::input(what)
                    .hint("a line is a word and its weight, e.g. `kind 1.5`")
                    .at_line(number + 1))
            };
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [word, weight] = columns[..] else {
                return refuse(format!("{} columns", columns.len()));
            };
            let Some(weight) = weight.parse::<f64>().ok().filter(|w| w.is_finite()) else {
                return refuse(format!("the weight {weight:?} is no number"));
            };
            let lower = word.to_lowercase();
            if words(&lower).collect::<Vec<_>>() != [lower.as_str()] {
                return refuse(format!("{word:?} is not one word"));
            }
            if weights.insert(lower, weight).is_some() {
                return refuse(format!("{word:?} a second time"));
            }
        }
        match weights.is_empty() {
            true => Err(Error::input("no words").hint("a line is a word and its weight")),
            false => Ok(Self {
                weights,
                hash: format!("{:x}", Sha256::digest(text)),
            }),
        }
    }

    /// The sum of the weights of a text's words.
    pub fn score(&self, text: &str) -> f64 {
        let text = text.to_lowercase();
        let found = words(&text).filter_map(|word| self.weights.get(word));
        // From 0 on: the sum of nothing would be -0.
        found.fold(0.0, |sum, weight| sum + weight)
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let inside = |c: char| c.is_alphanumeric() || c == '\'';
    text.split(move |c| !inside(c))
        .filter(|word| !word.is_empty())
}

/// A judge of this machine.
pub enum Offline {
    /// The longer response, in characters.
    Length,
    /// The one with the larger sum of weights.
    Lexicon(Lexicon),
    /// The one that a model prefers.
    Model(Box<Scorer>),
}

impl Offline {
    /// Leaves out of `items`, or cuts, what the judge has no room for. Rules read texts of any length.
    ///
    /// # Errors
    /// As the rule says; if no item is left.
    pub fn fit(&mut self, items: &mut Items, rule: TooLong) -> Result<()> {
        match self {
            Self::Length | Self::Lexicon(_) => Ok(()),
            Self::Model(scorer) => scorer.fit(items, rule),
        }
    }

    /// What it is, for a key.
    pub fn identity(&self) -> &str {
        match self {
            Self::Length => "characters",
            Self::Lexicon(lexicon) => &lexicon.hash,
            Self::Model(scorer) => scorer.identity(),
        }
    }
}

/// A reply: both scores, and below them `A`, `B` or `tie`.
pub fn reply([a, b]: [f64; 2]) -> String {
    let verdict = match a.total_cmp(&b) {
        _ if a == b => "tie",
        std::cmp::Ordering::Greater => "A",
        _ => "B",
    };
    format!("{a} {b}\n{verdict}")
}

#[cfg(test)]
mod tests {
    use super::super::items::Answer;
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer {
            text: text.into(),
            finished: true,
        }
    }

    #[test]
    fn rules_judge_by_their_rule() {
        let (long, short) = (answer(" a kind, kind word\n"), answer("é no"));
        let replies = |score: &dyn Fn(&Answer) -> f64, a, b| reply([score(a), score(b)]);
        let length = |answer: &Answer| answer.characters() as f64;
        assert_eq!(replies(&length, &long, &short), "17 4\nA");
        assert_eq!(replies(&length, &short, &long), "4 17\nB");
        assert_eq!(replies(&length, &short, &short), "4 4\ntie");
        let lexicon = Lexicon::parse("# weights\nKind 1.5\n\nno\t-2\ndon't 1\n").unwrap();
        let sum = |answer: &Answer| lexicon.score(&answer.text);
        assert_eq!(replies(&sum, &short, &long), "-2 3\nB");
        let other = answer("Don't. Unkind");
        assert_eq!(replies(&sum, &other, &short), "1 -2\nA");
        assert_eq!(replies(&sum, &answer(""), &answer("x")), "0 0\ntie");
    }

    #[test]
    fn a_lexicon_names_the_line_that_is_none() {
        for (text, said) in [
            ("a 1\nb", "line 2: 1 columns"),
            ("a b 1", "line 1: 3 columns"),
            ("a x", "line 1: the weight \"x\" is no number"),
            ("a inf", "line 1: the weight \"inf\" is no number"),
            ("a 1\nA 2", "line 2: \"A\" a second time"),
            ("a-b 1", "line 1: \"a-b\" is not one word"),
            ("# a 1", "no words"),
        ] {
            let error = Lexicon::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
