//! Errors: what kind, where, the fact, and the remedy.
//!
//! *Why*: the reader of a message asks one question: what to do now. So an error carries its place
//! and its remedy beside the fact, and its [`Kind`] says who can fix it. Libraries name config keys
//! and parameters of their own; the program alone turns those into lines of a file and into flags.

use std::fmt::{self, Display};

/// An error of this crate. Small, so that a `Result` of it costs nothing.
#[derive(Clone, PartialEq)]
pub struct Error(Box<Parts>);

/// The message: what `main` prints of an error that it returns, and `unwrap` of one that it meets.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Parts {
    kind: Kind,
    /// The outermost first.
    places: Vec<Place>,
    fact: String,
    remedy: Option<String>,
    /// Parameters of the call that are part of the remedy, with the value to give; those of one group
    /// are given together.
    options: Vec<Vec<(&'static str, String)>>,
}

/// What a caller can tell errors apart by; it decides the [exit code](Error::exit_code).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Input that cannot be used: a file, a config value, an argument.
    Input,
    /// A loss, a log-prob, a gradient or a weight is NaN or infinite.
    NonFinite,
    /// A device has too little memory for the computation: an input error, for smaller batches need
    /// less.
    OutOfMemory,
    /// Another process of the computation is lost or late, or the exchange with it failed: starting all of
    /// them again may help.
    Rank,
    /// A failure not caused by user input: I/O, a device, a server.
    Failed,
}

/// A part of the place of an error.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// A file with its line, a row, a section: shown as it is.
    Text(String),
    /// A line of the file that the place before it names, from 1: `run.toml:12`.
    Line(usize),
    /// Dotted config keys, e.g. `loss.dpo.beta`: one, or several that contradict each other. Whoever
    /// read the config replaces them by [where they were set](Error::located).
    Keys(Vec<String>),
    /// A parameter of the call by its name in snake case, and its value where that helps.
    Parameter(&'static str, Option<String>),
}

/// [`std::result::Result`] with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(kind: Kind, fact: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            places: Vec::new(),
            fact: fact.into(),
            remedy: None,
            options: Vec::new(),
        }))
    }

    /// An input error; add [`at`](Self::at) and [`hint`](Self::hint) where they are known.
    pub fn input(fact: impl Into<String>) -> Self {
        Self::new(Kind::Input, fact)
    }

    /// The value of a config key or parameter is out of range: `beta must be > 0 (got -1)`, with
    /// `valid` as e.g. `> 0` or `in [0, 1]`. The place is the key.
    pub fn must_be(key: &str, valid: impl Display, got: impl Display) -> Self {
        Self::input(format!("{key} must be {valid} (got {got})")).at_key(key)
    }

    /// A value that is NaN or infinite where the computation needs a finite one.
    pub fn non_finite(fact: impl Into<String>) -> Self {
        Self::new(Kind::NonFinite, fact)
    }

    /// The memory of a device is full.
    pub fn out_of_memory(device: &str) -> Self {
        let fact = format!("the {device} is out of memory");
        Self::new(Kind::OutOfMemory, fact)
    }

    /// A rank of the computation is lost or late, or the exchange with it failed.
    pub fn rank(fact: impl Into<String>) -> Self {
        Self::new(Kind::Rank, fact)
    }

    /// A failure not caused by user input.
    pub fn failed(fact: impl Into<String>) -> Self {
        Self::new(Kind::Failed, fact)
    }

    /// An I/O failure on `path`. A file that does not exist, cannot be read, or is not what it
    /// should be is an input error.
    pub fn io(path: impl AsRef<std::path::Path>, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let path = path.as_ref().display();
        let fact = match error.kind() {
            ErrorKind::NotFound => "no such file or directory",
            ErrorKind::IsADirectory => "is a directory, not a file",
            ErrorKind::NotADirectory => "a part of the path is a file, not a directory",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::InvalidData => "is not UTF-8 text",
            _ => return Self::failed(error.to_string()).at(path),
        };
        Self::input(fact).at(path)
    }

    /// Names the place of the error, outside the place it may already have.
    #[must_use]
    pub fn at(self, place: impl Display) -> Self {
        self.within(Place::Text(place.to_string()))
    }

    /// Names a line, counted from 1, of a file that a caller may name.
    #[must_use]
    pub fn at_line(self, line: usize) -> Self {
        self.within(Place::Line(line))
    }

    /// Names a config key as the place. Keys nest: `at_key("beta")`, then `at_key("loss.dpo")`, is
    /// `loss.dpo.beta`.
    #[must_use]
    pub fn at_key(mut self, key: &str) -> Self {
        match self.0.places.first_mut() {
            Some(Place::Keys(keys)) => {
                for inner in keys {
                    *inner = format!("{key}.{inner}");
                }
                self
            }
            _ => self.within(Place::Keys(vec![key.to_owned()])),
        }
    }

    /// Names several keys that contradict each other as the place.
    #[must_use]
    pub fn at_keys(self, keys: &[&str]) -> Self {
        self.within(Place::Keys(keys.iter().map(ToString::to_string).collect()))
    }

    /// Names a parameter of the call as the place, by its name in snake case.
    #[must_use]
    pub fn at_parameter(self, name: &'static str) -> Self {
        self.within(Place::Parameter(name, None))
    }

    /// Names a place of any kind, outside the place it may already have.
    #[must_use]
    pub fn within(mut self, place: Place) -> Self {
        self.0.places.insert(0, place);
        self
    }

    /// Says what would be valid. Has no effect on errors that are not caused by user input.
    #[must_use]
    pub fn hint(mut self, valid: impl Into<String>) -> Self {
        if self.0.kind == Kind::Input {
            self.0.remedy = Some(valid.into());
        }
        self
    }

    /// Names a parameter of the call that is part of the remedy, with the value to give or an empty
    /// text.
    #[must_use]
    pub fn option(self, parameter: &'static str, value: impl Display) -> Self {
        self.options([(parameter, value.to_string())])
    }

    /// As [`option`](Self::option), of several parameters that are given together.
    #[must_use]
    pub fn options(mut self, group: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.0.options.push(group.into_iter().collect());
        self
    }

    /// The same error with another fact.
    #[must_use]
    pub fn with_fact(mut self, fact: impl FnOnce(&str) -> String) -> Self {
        self.0.fact = fact(&self.0.fact);
        self
    }

    /// The same error with its config keys, if it names any, replaced by where they were set.
    #[must_use]
    pub fn located(mut self, find: impl FnOnce(&[String]) -> Vec<Place>) -> Self {
        let places = &mut self.0.places;
        let at = places
            .iter()
            .position(|place| matches!(place, Place::Keys(_)));
        if let Some(at) = at
            && let Place::Keys(keys) = places.remove(at)
        {
            places.splice(at..at, find(&keys));
        }
        self
    }

    /// What a caller can match on.
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Whether a value was NaN or infinite.
    pub fn is_non_finite(&self) -> bool {
        self.0.kind == Kind::NonFinite
    }

    /// Where, the outermost first.
    pub fn places(&self) -> &[Place] {
        &self.0.places
    }

    /// What is wrong, with the value.
    pub fn fact(&self) -> &str {
        &self.0.fact
    }

    /// What would be valid, or what to do.
    pub fn remedy(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// The exit code of the program: 2 wrong input, 3 non-finite value, 75 (`EX_TEMPFAIL`) a rank, 1 any
    /// other failure.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            Kind::Input | Kind::OutOfMemory => 2,
            Kind::NonFinite => 3,
            Kind::Rank => 75,
            Kind::Failed => 1,
        }
    }

    /// The message, with parameters named as `word` has it.
    pub fn worded(&self, word: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        let mut previous: Option<&Place> = None;
        for place in &self.0.places {
            let in_file = matches!(previous, Some(Place::Text(_)));
            previous = Some(place);
            let place = match place {
                Place::Text(text) => Some(text.clone()),
                Place::Line(line) if in_file => {
                    text.truncate(text.len() - ": ".len());
                    Some(format!(":{line}"))
                }
                Place::Line(line) => Some(format!("line {line}")),
                Place::Keys(keys) => self.shown(keys),
                Place::Parameter(name, None) => Some(word(name)),
                Place::Parameter(name, Some(value)) => Some(format!("{} {value}", word(name))),
            };
            if let Some(place) = place {
                text += &place;
                text += ": ";
            }
        }
        text += &self.0.fact;
        if let Some(remedy) = &self.0.remedy {
            text += "; ";
            text += remedy;
        }
        let option = |(name, value): &(&str, String)| {
            let option = format!("{} {value}", word(name));
            option.trim_end().to_owned()
        };
        let group = |group: &Vec<_>| group.iter().map(option).collect::<Vec<_>>().join(" ");
        let options: Vec<String> = self.0.options.iter().map(group).collect();
        if !options.is_empty() {
            text += &format!(" ({})", options.join(", "));
        }
        text
    }

    /// The keys as a place: a key that the fact names is shown as its section.
    fn shown(&self, keys: &[String]) -> Option<String> {
        let key = keys.first()?;
        let word = |c: char| c.is_alphanumeric() || c == '_';
        match key.rsplit_once('.') {
            Some((section, last)) if self.0.fact.split(|c| !word(c)).any(|w| w == last) => {
                Some(format!("[{section}]"))
            }
            Some(_) => Some(key.clone()),
            None if self.0.fact.contains(key.as_str()) => None,
            None => Some(format!("[{key}]")),
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.worded(str::to_owned))
    }
}

impl std::error::Error for Error {}

/// `did you mean …?` for the nearest of `valid`, else the whole list.
pub fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    let valid: Vec<&str> = valid.into_iter().collect();
    match most_alike(word, valid.iter().copied()) {
        Some((best, likeness)) if likeness > ALIKE => format!("did you mean `{best}`?"),
        _ => format!("valid: {}", valid.join(", ")),
    }
}

/// The [likeness](most_alike) above which a word is taken for another one that was mistyped.
pub(crate) const ALIKE: f64 = 0.8;

/// The first of the words most like this one, and how alike they are, from 0 to 1. Letter case counts
/// for nothing, nor does `-` in the place of `_`.
pub(crate) fn most_alike<'a>(
    word: &str,
    among: impl IntoIterator<Item = &'a str>,
) -> Option<(&'a str, f64)> {
    let plain = |word: &str| word.to_lowercase().replace('-', "_");
    let word = plain(word);
    let likeness = |candidate: &str| {
        let candidate = plain(candidate);
        // Jaro and Winkler do not see two letters that changed places in a short word.
        match strsim::osa_distance(&word, &candidate) {
            0 => 1.0,
            1 => 0.99,
            _ => strsim::jaro_winkler(&word, &candidate).min(0.98),
        }
    };
    let rated = among.into_iter().map(|other| (other, likeness(other)));
    rated.reduce(|best, other| if other.1 > best.1 { other } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_place_fact_and_remedy() {
        let error = Error::input("not JSON")
            .hint("expected an object")
            .at("column `a`");
        assert_eq!(
            error.at("rows.jsonl").to_string(),
            "rows.jsonl: column `a`: not JSON; expected an object"
        );
    }

    #[test]
    fn a_line_belongs_to_the_file_before_it() {
        let error = Error::input("two columns").at_line(3);
        assert_eq!(error.to_string(), "line 3: two columns");
        assert_eq!(error.at("l.txt").to_string(), "l.txt:3: two columns");
    }

    #[test]
    fn keys_nest_and_are_replaced_by_where_they_were_set() {
        let error = Error::must_be("beta", "> 0", -1)
            .at_key("dpo")
            .at_key("loss");
        assert_eq!(error.to_string(), "[loss.dpo]: beta must be > 0 (got -1)");
        let located = error.clone().located(|keys| {
            assert_eq!(keys, ["loss.dpo.beta"]);
            vec![Place::Text("run.toml:3".into())]
        });
        assert_eq!(located.to_string(), "run.toml:3: beta must be > 0 (got -1)");
        let set = Place::Parameter("set", Some("loss.dpo.beta=-1".into()));
        assert_eq!(
            error.located(|_| vec![set]).to_string(),
            "set loss.dpo.beta=-1: beta must be > 0 (got -1)"
        );
        let section = Error::input("the loss reads no reference").at_key("reference");
        let key = Error::input("the path is empty")
            .at_key("train")
            .at_key("data");
        assert_eq!(section.to_string(), "the loss reads no reference");
        assert_eq!(key.to_string(), "data.train: the path is empty");
    }

    #[test]
    fn parameters_are_named_as_the_caller_words_them() {
        let error = Error::input("already exists")
            .hint("resume it, or replace it")
            .option("resume", "auto")
            .option("overwrite", "")
            .at_parameter("out");
        assert_eq!(
            error.to_string(),
            "out: already exists; resume it, or replace it (resume auto, overwrite)"
        );
        assert_eq!(
            error.worded(|name| format!("--{name}")),
            "--out: already exists; resume it, or replace it (--resume auto, --overwrite)"
        );
    }

    #[test]
    fn parameters_of_a_group_are_given_together() {
        let keys = [("allow", "a".to_owned()), ("allow", "b".to_owned())];
        let error = Error::input("differs").option("set", "x=1").options(keys);
        assert_eq!(error.to_string(), "differs (set x=1, allow a allow b)");
    }

    #[test]
    fn the_kind_decides_the_exit_code_and_who_gets_a_remedy() {
        assert_eq!(Error::input("x").exit_code(), 2);
        assert_eq!(Error::out_of_memory("GPU").exit_code(), 2);
        assert_eq!(Error::non_finite("x").exit_code(), 3);
        assert_eq!(Error::rank("x").exit_code(), 75);
        let failed = Error::failed("the disk is full")
            .hint("buy another")
            .at("out");
        assert_eq!(failed.exit_code(), 1);
        assert_eq!(failed.to_string(), "out: the disk is full");
    }

    #[test]
    fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
        assert_eq!(
            nearest("lamda", ["beta", "lambda"]),
            "did you mean `lambda`?"
        );
        assert_eq!(nearest("dop", ["ipo", "dpo"]), "did you mean `dpo`?");
        for word in ["DPO", "Dpo", "dpO"] {
            assert_eq!(nearest(word, ["ipo", "dpo"]), "did you mean `dpo`?");
        }
        assert_eq!(
            nearest("cexpo-A", ["dpo", "cexpo_a"]),
            "did you mean `cexpo_a`?"
        );
        assert_eq!(nearest("zzz", ["beta", "lambda"]), "valid: beta, lambda");
    }
}
