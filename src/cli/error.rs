//! Errors as the program words them: exit code and message, with flags for parameters.

use std::fmt::Write;

use expo::config::Source;
use expo::error::{Error, Place};

use super::stop::Signalled;

/// The exit code that an error asks for.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let known = error.downcast_ref::<Error>().map(Error::exit_code);
    let signalled = error.downcast_ref::<Signalled>();
    known.or(signalled.map(Signalled::exit_code)).unwrap_or(1)
}

/// The message of an error and of what caused it.
pub fn message(error: &anyhow::Error) -> String {
    let words = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<Error>() {
        Some(error) => with_flags(error),
        None => cause.to_string(),
    };
    let causes: Vec<String> = error.chain().map(words).collect();
    causes.join(": ")
}

/// The result of a command, in whose error the config keys are replaced by where they were set.
pub fn located<T>(source: &Source, result: anyhow::Result<T>) -> anyhow::Result<T> {
    result.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => source.locate(error).into(),
        Err(other) => other,
    })
}

/// An error with the flags of the parameters that it names.
fn with_flags(error: &Error) -> String {
    let mut error = error.clone();
    for place in error.places_mut() {
        if let Place::Parameter(name, value) = place {
            let mut text = flag(name);
            if let Some(value) = value {
                let _ = write!(text, " {value}");
            }
            *place = Place::Text(text);
        }
    }
    error.to_string()
}

fn flag(parameter: &str) -> String {
    format!("--{}", parameter.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_named_by_its_flag() {
        let set = Place::Parameter("set", Some("run.seed=x".into()));
        let error = Error::input("expected a whole number").within(set);
        assert_eq!(
            message(&error.into()),
            "--set run.seed=x: expected a whole number"
        );
        let error = Error::input("unknown key").within(Place::Parameter("allow_change", None));
        assert_eq!(message(&error.into()), "--allow-change: unknown key");
    }
}
