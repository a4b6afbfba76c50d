//! An experiment as a TOML file, read as the config of a training run is: the same errors, the same
//! overrides.

use std::path::Path;

use serde::Serialize;

use super::config::{Constraint, Interpolation, Preservation, Theory};
use super::problem::Prompt;
use super::report::Report;
use super::{constraint, interpolation, preservation, theory};
use crate::config::read;
use crate::error::{Error, Result, nearest};
use crate::io::untrusted;

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
        let found = BUILT_IN.iter().find(|(own, _)| *own == name);
        let (_, text) = found.ok_or_else(|| {
            let hint = nearest(name, Self::names());
            Error::input(format!("there is no experiment `{name}`")).hint(hint)
        })?;
        Self::parse(text, overrides)
    }

    /// Reads a config file and applies overrides of the form `section.key=value`, the later
    /// winning, then checks it.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = untrusted::text(path, untrusted::TOML)?;
        Self::parse(&text, overrides).map_err(|error| error.at(path.display()))
    }

    /// As [`open`](Self::open), from the file's text.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let table = read::table(text, overrides)?;
        let valid = || format!("valid: {}", Self::names().join(", "));
        let name = match table.get("experiment") {
            Some(toml::Value::String(name)) => name.clone(),
            Some(other) => {
                return Err(Error::input(format!("`experiment` is {other}")).hint(valid()));
            }
            None => return Err(Error::input("no `experiment`").hint(valid())),
        };
        let experiment = match name.as_str() {
            "interpolation" => Self::Interpolation(read::value(table, text, overrides)?),
            "preservation" => Self::Preservation(read::value(table, text, overrides)?),
            "constraint" => Self::Constraint(read::value(table, text, overrides)?),
            "theory" => Self::Theory(read::value(table, text, overrides)?),
            other => {
                return Err(Error::input(format!("there is no experiment `{other}`"))
                    .hint(nearest(other, Self::names())));
            }
        };
        experiment.validate(overrides)?;
        Ok(experiment)
    }

    fn validate(&self, overrides: &[String]) -> Result<()> {
        let prompts: Vec<(&str, &Prompt)> = match self {
            Self::Interpolation(own) => vec![("[problem]", &own.problem)],
            Self::Preservation(own) => vec![("[good]", &own.good), ("[bad]", &own.bad)],
            Self::Constraint(own) => vec![("[problem]", &own.problem)],
            Self::Theory(own) => {
                vec![
                    ("[problem]", &own.problem),
                    ("[good]", &own.good),
                    ("[bad]", &own.bad),
                ]
            }
        };
        for (section, prompt) in &prompts {
            prompt.validate().map_err(|error| error.at(section))?;
        }
        let sizes: Vec<usize> = prompts.iter().map(|(_, p)| p.responses()).collect();
        if let Some(other) = sizes.iter().find(|n| **n != sizes[0]) {
            let what = format!("prompts of {} and of {other} responses", sizes[0]);
            return Err(Error::input(what).hint("give all of them as many"));
        }
        let (data, train) = match self {
            Self::Interpolation(own) => (&own.data, &own.train),
            Self::Preservation(own) => (&own.data, &own.train),
            Self::Constraint(own) => (&own.data, &own.train),
            Self::Theory(own) => return own.losses.validate(overrides, false),
        };
        for (_, prompt) in &prompts {
            let checked = data.validate(prompt.responses());
            checked.map_err(|error| error.at("[data]"))?;
        }
        train.validate().map_err(|error| error.at("[train]"))?;
        match self {
            Self::Interpolation(own) => own.losses.validate(overrides, true),
            Self::Preservation(own) => {
                if own.placements.is_empty() {
                    return Err(
                        Error::input("`placements` is empty").hint("name text, notebook, or both")
                    );
                }
                own.losses.validate(overrides, true)
            }
            Self::Constraint(own) => {
                if !(own.beta > 0.0 && own.beta.is_finite()) {
                    return Err(
                        Error::input(format!("`beta` is {}", own.beta)).hint("it must be above 0")
                    );
                }
                own.alpha.validate().map_err(|error| error.at("[alpha]"))?;
                match own.alpha.values()[0] {
                    alpha if alpha < 0.0 => Err(Error::input(format!("alpha is {alpha}"))
                        .hint("it must be 0 or above")
                        .at("[alpha]")),
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
