//! Judges that need no network: a rule, a list of words, a model.
//!
//! *Why*: the whole way of a comparison, order, verdict, cache, intervals and controls, is the same
//! whoever judges. A rule that is known shows what the figures of an unknown judge mean: how a judge
//! looks that prefers what is long, or what stands first.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::items::{Answer, Items};
use super::reply::Miss;
use crate::config::ModelConfig;
use crate::data::{Example, Response, TokenRule, TokenizeConfig, Tokenizer};
use crate::error::{Error, Result};
use crate::io::untrusted;
use crate::loss::Role;
use crate::model::Decoder;
use crate::score::score;
use crate::session::{Observer, Session};

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

    fn score(&self, text: &str) -> f64 {
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
                "{hash} {reference_hash} {} {:?}",
                session.tokenizer.hash(),
                config.dtype
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
    fn fit(&mut self, items: &mut Items, rule: TooLong) -> Result<()> {
        let all = items.items.len();
        let mut kept = Vec::with_capacity(all);
        for item in std::mem::take(&mut items.items) {
            let example = self.example(&item.prompt, [&item.model, &item.against])?;
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

    fn scores(&self, prompt: &str, answers: [&Answer; 2]) -> std::result::Result<[f64; 2], Miss> {
        let example = self.example(prompt, answers).map_err(Miss::Fatal)?;
        let all = |model: &Decoder| score(model, std::slice::from_ref(&example), usize::MAX);
        let policy = all(&self.policy).map_err(Miss::Fatal)?;
        let reference = self
            .reference
            .as_ref()
            .map(all)
            .transpose()
            .map_err(Miss::Fatal)?;
        Ok([0, 1].map(|response| {
            let own = policy.score(0, response);
            match &reference {
                Some(reference) => own.log_prob - reference.score(0, response).log_prob,
                // An empty prompt and answer have no token that could be scored.
                None if own.tokens == 0 => 0.0,
                None => own.log_prob / own.tokens as f64,
            }
        }))
    }

    /// The answers as the model's tokens: their texts are tokenized again, since another model may
    /// have drawn them.
    fn example(&self, prompt: &str, answers: [&Answer; 2]) -> Result<Example> {
        let rule = TokenRule::new(&TokenizeConfig::default(), &self.tokenizer);
        let ids = rule.prompt(prompt)?;
        let response = |answer: &Answer| {
            let mut response = rule.response(prompt, &ids, &answer.text)?.ids;
            if answer.finished || response.is_empty() {
                rule.finish(&mut response)?;
            }
            if self.cuts {
                response.truncate(self.positions - ids.len());
            }
            Ok(Response::new(Role::Sampled, response))
        };
        let responses = answers.into_iter().map(response).collect::<Result<_>>()?;
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
            Self::Model(scorer) => &scorer.identity,
        }
    }

    /// Its reply: both scores, and below them `A`, `B` or `tie`.
    pub fn reply(&self, prompt: &str, answers: [&Answer; 2]) -> std::result::Result<String, Miss> {
        let [a, b] = match self {
            Self::Length => answers.map(|answer| answer.characters() as f64),
            Self::Lexicon(lexicon) => answers.map(|answer| lexicon.score(&answer.text)),
            Self::Model(scorer) => scorer.scores(prompt, answers)?,
        };
        let verdict = match a.total_cmp(&b) {
            _ if a == b => "tie",
            std::cmp::Ordering::Greater => "A",
            _ => "B",
        };
        Ok(format!("{a} {b}\n{verdict}"))
    }
}

#[cfg(test)]
mod tests {
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
        let length = |a, b| Offline::Length.reply("", [a, b]).unwrap();
        assert_eq!(length(&long, &short), "17 4\nA");
        assert_eq!(length(&short, &long), "4 17\nB");
        assert_eq!(length(&short, &short), "4 4\ntie");
        let lexicon = Lexicon::parse("# weights\nKind 1.5\n\nno\t-2\ndon't 1\n").unwrap();
        let lexicon = Offline::Lexicon(lexicon);
        assert_eq!(lexicon.reply("", [&short, &long]).unwrap(), "-2 3\nB");
        let other = answer("Don't. Unkind");
        assert_eq!(lexicon.reply("", [&other, &short]).unwrap(), "1 -2\nA");
        assert_eq!(
            lexicon.reply("", [&answer(""), &answer("x")]).unwrap(),
            "0 0\ntie"
        );
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
