//! What to type instead of a command or a flag that does not exist.
//!
//! *Why*: who comes from another program types its commands and its flags. The parser knows only how they
//! are spelt; here is what they do.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use expo::config::{KeyHint, key_hint};
use expo::loss::Loss;

/// Commands that read a config, whose keys others have as flags.
const WITH_CONFIG: [&str; 4] = ["train", "sft", "sweep", "plan"];

const SAMPLE: &str = "expo sample --model MODEL --prompt TEXT answers a prompt";
const TRAIN: &str =
    "expo train --config FILE trains on preferences, expo sft --config FILE on answers";
const NO_LORA: &str =
    "there is no LoRA yet; expo train trains all weights, or those that model.trainable names";
const FORMAT: &str =
    "a run's model is in run.output_dir, in the Hugging Face format; expo converts to no other";
const ROWS: &str =
    "expo data show FILE shows rows as a run sees them, expo data lint FILE looks for faults";
const NO_LOSS: &str = "expo has offline losses, listed by expo losses, and no trainer that samples against a reward model";

/// Commands of other programs.
#[rustfmt::skip]
const COMMANDS: &[(&[&str], &str)] = &[
    (&["chat", "generate", "infer", "inference", "predict", "complete", "completion", "prompt", "talk", "ask", "answer"], SAMPLE),
    (&["finetune", "fine-tune", "fine_tune", "fit", "tune", "run", "rlhf", "align", "pretrain", "trainer", "start", "launch"], TRAIN),
    (&["evaluate", "test", "benchmark", "bench", "judge", "winrate", "win-rate", "pairs", "diversity", "alpaca", "alpaca-eval",
       "alpaca_eval", "validation"],
     "expo eval pairs, expo eval judge, expo eval diversity and expo eval alpaca evaluate"),
    (&["lora", "qlora", "peft", "adapter", "merge", "merge-lora", "merge_lora"], NO_LORA),
    (&["export", "convert", "quantize", "gguf", "save", "push", "upload"], FORMAT),
    (&["serve", "server", "api", "webui", "webchat", "deploy"],
     "expo has no server; expo sample answers prompts, and other programs load the model in run.output_dir"),
    (&["download", "fetch", "pull"], "expo data fetch downloads rows; a model is downloaded by the command that names it"),
    (&["preprocess", "tokenize", "prepare", "dataset", "datasets", "inspect", "show", "lint", "validate", "check", "rows"], ROWS),
    (&["config", "print-config", "print_config", "configure"], "expo train --config FILE --print-config prints a config with all defaults"),
    (&["resume", "continue"], "the command of an interrupted run resumes it: expo train --config FILE"),
    (&["reward", "rm", "reward-modeling", "reward_modeling", "ppo", "grpo", "rloo", "online-dpo", "online_dpo", "prm", "gkd", "gspo"], NO_LOSS),
    (&["memory", "estimate", "estimate-memory", "profile"], "expo plan --config FILE says what a run takes"),
    (&["compare", "plot", "tensorboard", "dashboard", "visualize", "page", "html"], "expo report DIR makes a page of runs"),
    (&["new", "create", "scratch", "initialize"], "expo init makes a new model of random weights"),
    (&["logprobs", "log-probs", "perplexity", "ppl"], "expo score --model MODEL --data FILE --out FILE writes log-probs"),
    (&["grid", "search", "hparams", "hpo"], "expo sweep --config FILE runs several configs"),
    (&["version"], "expo --version prints it"),
    (&["list", "objectives"], "expo losses lists the losses"),
    (&["docs", "doc", "manual", "man", "tutorial"], "expo guide prints the guide"),
];

/// The message of an error of the parser that these arguments led to, where there is a better one.
pub fn explained(error: &clap::Error, arguments: &[String]) -> Option<String> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let command = arguments.get(1).map(String::as_str).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = word(ContextKind::InvalidSubcommand)?;
            let instead = (name == command).then(|| instead(name))??;
            Some(format!("error: there is no command `{name}`; {instead}"))
        }
        ErrorKind::UnknownArgument => {
            let flag = word(ContextKind::InvalidArg)?;
            if command.starts_with("--") {
                return Some(format!(
                    "error: {flag} stands before a command, e.g. expo train {flag} ..; expo --help lists them"
                ));
            }
            let known = word(ContextKind::SuggestedArg).unwrap_or_default();
            if !WITH_CONFIG.contains(&command) || plain(known) == plain(flag) {
                return None;
            }
            key_of_flag(flag, arguments)
        }
        _ => None,
    }
}

/// What to type in the place of a command.
fn instead(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    if lower.ends_with(".toml") {
        return Some(format!("expo train {name} trains by a config"));
    }
    if let Ok(loss) = Loss::default_of(&lower) {
        let name = loss.name();
        return Some(format!(
            "{name} is a loss: expo train --config FILE --set loss={name}"
        ));
    }
    let mut rows = COMMANDS.iter();
    let (_, instead) = rows.find(|(names, _)| names.contains(&lower.as_str()))?;
    Some((*instead).to_owned())
}

/// A flag as the name of a key.
fn plain(flag: &str) -> String {
    flag.trim_start_matches('-')
        .to_lowercase()
        .replace('-', "_")
}

/// The message about a flag that is a key of the config here or elsewhere.
fn key_of_flag(flag: &str, arguments: &[String]) -> Option<String> {
    let at = arguments.iter().position(|given| {
        let is_short = flag.len() == 2 && !given.starts_with("--") && given.starts_with(flag);
        given == flag
            || given
                .strip_prefix(flag)
                .is_some_and(|rest| rest.starts_with('='))
            || is_short
    })?;
    let given = &arguments[at];
    let (flag, value) = match given.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => {
            let next = arguments.get(at + 1).map(String::as_str);
            (given.as_str(), next.filter(|next| !next.starts_with("--")))
        }
    };
    let name = plain(flag);
    match key_hint(&name)? {
        KeyHint::Unsupported(why) => Some(format!("error: {flag}: not supported: {why}")),
        KeyHint::Key(key, note) => {
            // What is a switch elsewhere is a value here.
            let is_switch =
                |value: &&str| ["true", "false"].contains(&value.to_lowercase().as_str());
            let value = match note {
                Some(_) => value.filter(|value| !is_switch(value)),
                None => value,
            };
            let value = value.unwrap_or(match key.as_str() {
                "run.overwrite" => "true",
                _ => "VALUE",
            });
            let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
            if !flag.starts_with('-') {
                return Some(format!(
                    "error: `{given}` stands alone; keys of the config are set with --set {key}={value}{note}"
                ));
            }
            Some(format!(
                "error: there is no flag {flag}; keys of the config are set with --set: --set {key}={value}{note}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn said(line: &str) -> Option<String> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let error = crate::cli::Cli::command().try_get_matches_from(&arguments);
        explained(&error.unwrap_err(), &arguments)
    }

    #[test]
    fn a_command_of_another_program_is_told_what_to_type() {
        for (line, words) in [
            (
                "expo dpo --config a.toml",
                "dpo is a loss: expo train --config FILE --set loss=dpo",
            ),
            ("expo SimPO", "simpo is a loss: "),
            ("expo chat", "expo sample --model MODEL --prompt TEXT"),
            ("expo finetune --config x", "expo train --config FILE"),
            ("expo run.toml", "expo train run.toml"),
            ("expo merge-lora", "there is no LoRA yet"),
        ] {
            let message = said(line).unwrap();
            assert!(
                message.starts_with("error: there is no command `"),
                "{message}"
            );
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(said("expo trian"), None);
        assert!(
            said("expo --config a.toml")
                .unwrap()
                .contains("expo train --config")
        );
    }

    #[test]
    fn a_flag_that_is_a_key_is_told_how_to_set_it() {
        for (line, words) in [
            ("expo train -lr 1e-5", "--set optimizer.learning_rate=1e-5"),
            (
                "expo train a.toml --learning_rate=1e-5",
                "--set optimizer.learning_rate=1e-5",
            ),
            (
                "expo sft --config a --output-dir runs/x",
                "--set run.output_dir=runs/x",
            ),
            (
                "expo train --model gpt2",
                "--set model.model_name_or_path=gpt2 (",
            ),
            (
                "expo train --bf16 True",
                "--set model.dtype=VALUE (\"bf16\" ",
            ),
            ("expo train --bf16", "--set model.dtype=VALUE (\"bf16\" "),
            ("expo train --loss dpo", "--set loss=dpo"),
            ("expo train --shuffle true", "--set data.shuffle=true"),
            (
                "expo train --use_peft",
                "error: --use_peft: not supported: there is no LoRA yet",
            ),
        ] {
            let message = said(line).unwrap_or_default();
            assert!(message.contains(words), "{line}: {message}");
        }
        for line in [
            "expo train --max_time 3h",
            "expo train --zebra",
            "expo sample --lr 1",
        ] {
            assert_eq!(said(line), None, "{line}");
        }
    }
}
