//! Errors as the program words them: exit code and message, with flags for parameters.

use expo::config::Source;
use expo::error::{Error, Kind, Place, Result};

use super::stop::Signalled;

/// The exit code that an error asks for.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let known = error.downcast_ref::<Error>().map(Error::exit_code);
    let signalled = error.downcast_ref::<Signalled>();
    known.or(signalled.map(Signalled::exit_code)).unwrap_or(1)
}

/// The last line of a command that failed or was interrupted; an interruption is not worded as an error.
pub fn last_line(error: &anyhow::Error) -> String {
    match error.is::<Signalled>() {
        true => message(error),
        false => format!("error: {}", message(error)),
    }
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

/// The result of a command without a config, in whose error the config keys are replaced by the
/// flags that set them.
pub fn flagged<T>(result: Result<T>) -> Result<T> {
    flagged_as("model", result)
}

/// What helps a model without a chat template where no config can name one.
const NO_TEMPLATE: &str = "give its directory a chat_template.jinja, use prompts of plain strings and leave --chat out, or name \
     a template in a config (--config FILE --set data.chat_template=chatml)";

/// As [`flagged`], where the flag `model` names the model.
pub fn flagged_as<T>(model: &str, result: Result<T>) -> Result<T> {
    result.map_err(|error| {
        let error = match error.remedy() {
            Some(remedy) if remedy.contains("data.chat_template") => error.hint(NO_TEMPLATE),
            _ => error,
        };
        error.located(|keys| {
            let name = keys.first().and_then(|key| key.rsplit('.').next());
            let name = name.map(|name| match name {
                "model_name_or_path" => model,
                name => name,
            });
            name.map(|name| Place::Text(flag(name)))
                .into_iter()
                .collect()
        })
    })
}

/// An error with the flags of the parameters that it names, and a remedy where only the program
/// knows one.
pub fn with_flags(error: &Error) -> String {
    let text = error.worded(flag);
    match error.kind() {
        Kind::OutOfMemory => format!("{text}; {OUT_OF_MEMORY}"),
        Kind::Input | Kind::NonFinite | Kind::Rank | Kind::Failed => text,
    }
}

const OUT_OF_MEMORY: &str = "set a smaller batch.micro_batch_tokens or sample.batch_size, or \
                             model.recompute = true; `expo plan` shows what fits";

/// The flag of a parameter.
pub fn flag(parameter: &str) -> String {
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
        let error = Error::input("unknown key").at_parameter("allow_change");
        assert_eq!(message(&error.into()), "--allow-change: unknown key");
    }

    #[test]
    fn without_a_config_a_key_is_named_by_its_flag() {
        let error = Error::input("no CUDA here").at_key("model.device");
        let error = flagged::<()>(Err(error)).unwrap_err();
        assert_eq!(message(&error.into()), "--device: no CUDA here");
        let error = Error::input("no template").hint("set data.chat_template = \"chatml\"");
        let error = flagged::<()>(Err(error)).unwrap_err();
        assert!(message(&error.into()).contains("leave --chat out"));
        let error = Error::input("no such directory").at_key("model.model_name_or_path");
        let error = flagged_as::<()>("score_with", Err(error)).unwrap_err();
        assert_eq!(message(&error.into()), "--score-with: no such directory");
    }

    #[test]
    fn the_remedy_of_a_full_memory_is_worded_here() {
        let text = message(&Error::out_of_memory("GPU").into());
        assert!(
            text.starts_with("the GPU is out of memory; set a smaller"),
            "{text}"
        );
    }
}
