//! An experiment as a TOML file, read as the config of a training run is: the same errors, the same
//! overrides.

use std::path::Path;

use serde::Serialize;

use super::config::{Constraint, Interpolation, Preservation, Theory};
use super::problem::Prompt;
use super::report::Report;
use super::{constraint, interpolation, preservation, theory};
use crate::config::Source;
use crate::error::{Error, Result, nearest};

/// The experiments with the text of their configs in `configs/bandit`.
const BUILT_IN: [(&str, &str); 4] = [
    (
        "interpolation",
        include_str!("../../../configs/bandit/interpolation.toml"),
    ),
    (
        "preservation",
        include_str!("../../../configs/bandit/preservation.toml"),
    ),
    (
        "constraint",
        include_str!("../../../configs/bandit/constraint.toml"),
    ),
    (
        "theory",
        include_str!("../../../configs/bandit/theory.toml"),
    ),
];

/// One of the experiments, with its config.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "experiment", rename_all = "lowercase")]
pub enum Experiment {
    /// Policies from small to large lambda.
    Interpolation(Interpolation),
    /// A good and a bad prompt.
    Preservation(Preservation),
    /// DPO and RLHF under a penalty.
    Constraint(Constraint),
    /// A verdict for each loss.
    Theory(Theory),
}

impl Experiment {
    /// The names of the experiments that need no file.
    pub fn names() -> Vec<&'static str> {
        BUILT_IN.iter().map(|(name, _)| *name).collect()
    }

    /// The experiment of this name, with overrides as in a training run.
    pub fn built_in(name: &str, overrides: &[String]) -> Result<Self> {
        Self::of(&Self::built_in_source(name, overrides)?, overrides)
    }

    /// The config of the experiment of this name with overrides.
    pub fn built_in_source(name: &str, overrides: &[String]) -> Result<Source> {
        let found = BUILT_IN.iter().find(|(own, _)| *own == name);
        let (_, text) = found.ok_or_else(|| {
            let hint = nearest(name, Self::names());
            Error::input(format!("there is no experiment `{name}`")).hint(hint)
        })?;
        Source::named(name, text, overrides)
    }

    /// Reads a config file and applies overrides of the form `section.key=value`, the later
    /// winning, then checks it.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::of(&Source::open(path, overrides)?, overrides)
    }

    /// As [`open`](Self::open), from the file's text.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        Self::of(&Source::parse(text, overrides)?, overrides)
    }

    /// The experiment that a source describes, checked. `overrides` are those in the source: to
    /// set what is not read is an error there.
    pub fn of(source: &Source, overrides: &[String]) -> Result<Self> {
        source.check(Self::resolved(source, overrides))
    }

    fn resolved(source: &Source, overrides: &[String]) -> Result<Self> {
        let valid = || format!("valid: {}", Self::names().join(", "));
        let at = |error: Error| error.at_key("experiment");
        let name = match source.table().get("experiment") {
            Some(toml::Value::String(name)) => name.clone(),
            Some(other) => {
                let what = format!("experiment must be a name (got {other})");
                return Err(at(Error::input(what).hint(valid())));
            }
            None => return Err(at(Error::input("no key `experiment`").hint(valid()))),
        };
        let experiment = match name.as_str() {
            "interpolation" => Self::Interpolation(source.read()?),
            "preservation" => Self::Preservation(source.read()?),
            "constraint" => Self::Constraint(source.read()?),
            "theory" => Self::Theory(source.read()?),
            other => {
                let what = format!("no experiment `{other}`");
                return Err(at(Error::input(what).hint(nearest(other, Self::names()))));
            }
        };
        experiment.validate(overrides)?;
        Ok(experiment)
    }

    fn validate(&self, overrides: &[String]) -> Result<()> {
        let prompts: Vec<(&str, &Prompt)> = match self {
            Self::Interpolation(own) => vec![("problem", &own.problem)],
            Self::Preservation(own) => vec![("good", &own.good), ("bad", &own.bad)],
            Self::Constraint(own) => vec![("problem", &own.problem)],
            Self::Theory(own) => {
                vec![
                    ("problem", &own.problem),
                    ("good", &own.good),
                    ("bad", &own.bad),
                ]
            }
        };
        for (section, prompt) in &prompts {
            prompt.validate().map_err(|error| error.at_key(section))?;
        }
        let sizes: Vec<usize> = prompts.iter().map(|(_, p)| p.responses()).collect();
        if let Some(other) = sizes.iter().find(|n| **n != sizes[0]) {
            let what = format!("prompts of {} and of {other} responses", sizes[0]);
            let sections: Vec<&str> = prompts.iter().map(|(section, _)| *section).collect();
            return Err(Error::input(what)
                .hint("give all of them as many")
                .at_keys(&sections));
        }
        let (data, train) = match self {
            Self::Interpolation(own) => (&own.data, &own.train),
            Self::Preservation(own) => (&own.data, &own.train),
            Self::Constraint(own) => (&own.data, &own.train),
            Self::Theory(own) => return own.losses.validate(overrides, false),
        };
        for (_, prompt) in &prompts {
            let checked = data.validate(prompt.responses());
            checked.map_err(|error| error.at_key("data"))?;
        }
        train.validate().map_err(|error| error.at_key("train"))?;
        match self {
            Self::Interpolation(own) => own.losses.validate(overrides, true),
            Self::Preservation(own) => {
                if own.placements.is_empty() {
                    return Err(Error::input("placements is empty")
                        .hint("name text, notebook, or both")
                        .at_key("placements"));
                }
                own.losses.validate(overrides, true)
            }
            Self::Constraint(own) => {
                if !(own.beta > 0.0 && own.beta.is_finite()) {
                    return Err(Error::must_be("beta", "> 0 and finite", own.beta));
                }
                own.alpha
                    .validate()
                    .map_err(|error| error.at_key("alpha"))?;
                match own.alpha.values()[0] {
                    alpha if alpha < 0.0 => {
                        Err(Error::input(format!("alpha must be >= 0 (got {alpha})"))
                            .at_key("alpha.from"))
                    }
                    _ => Ok(()),
                }
            }
            Self::Theory(_) => Ok(()),
        }
    }

    /// The resolved config as TOML, itself a valid config.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::failed(error.to_string()))
    }

    /// Runs the experiment.
    pub fn run(&self) -> Result<Report> {
        match self {
            Self::Interpolation(own) => interpolation::run(own),
            Self::Preservation(own) => preservation::run(own),
            Self::Constraint(own) => constraint::run(own),
            Self::Theory(own) => theory::run(own),
        }
    }
}
