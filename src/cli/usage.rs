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
const NO_LORA: &str = "expo train trains a LoRA adapter where its config has a section [adapter]";
const MERGE: &str = "expo merge --adapter DIR --out DIR merges an adapter into its model";
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
    (&["lora", "qlora", "peft", "adapter"], NO_LORA),
    (&["merge-lora", "merge_lora", "merge-adapter", "merge_and_unload", "export-merged"], MERGE),
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
            if let Some(text) = of_spaces(arguments).or_else(|| of_flag(flag, command)) {
                return Some(text);
            }
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

/// Flags of other programs that set no key, by the commands that have something in their place.
#[rustfmt::skip]
const FLAGS: &[(&[&str], &[&str], &str)] = &[
    (&["--verbose", "-v", "--debug", "--quiet", "-q", "--silent", "--log-level"], &[],
     "progress is shown on a terminal, and every figure of a run is in its metrics.jsonl"),
    (&["--dry-run", "--dryrun", "--check", "-n"], &["train", "sft"],
     "expo plan FILE says what the run takes, and --print-config prints its config with all defaults"),
    (&["-o"], &["train", "sft", "sweep"], "write --set run.output_dir=DIR"),
    (&["-o", "--output", "--output-dir"], &["sample", "score", "report", "init"], "write --out PATH"),
    (&["-p", "--input", "--text"], &["sample"], "write --prompt TEXT"),
    (&["-m"], &["sample", "score"], "write --model MODEL"),
    (&["-c"], &["train", "sft", "sweep", "plan"], "write --config FILE, or the file alone"),
];

/// The message about a flag of other programs.
fn of_flag(flag: &str, command: &str) -> Option<String> {
    let mut rows = FLAGS.iter();
    let (_, _, instead) = rows.find(|(names, commands, _)| {
        names.contains(&flag) && (commands.is_empty() || commands.contains(&command))
    })?;
    Some(format!("error: there is no flag {flag}; {instead}"))
}

/// The message about `--set key = value`, in which the shell sees three words.
fn of_spaces(arguments: &[String]) -> Option<String> {
    let at = arguments.iter().position(|argument| argument == "--set")?;
    let mut words = arguments[at + 1..].iter().map(String::as_str);
    let key = words.next()?;
    let is_key = |key: &str| !key.starts_with('-') && !key.is_empty();
    let value = match key.strip_suffix('=') {
        Some(_) => words.next()?,
        None if key.contains('=') => {
            let rest = &arguments[at + 1..];
            return of_spaces(rest);
        }
        None => match words.next()? {
            "=" => words.next()?,
            value => value.strip_prefix('=').unwrap_or(value),
        },
    };
    let key = key.trim_end_matches('=');
    let is_value = !value.is_empty() && !value.starts_with("--");
    (is_key(key) && is_value)
        .then(|| format!("error: write --set key=value without spaces: --set {key}={value}"))
}

/// The parser's own message without advice that leads nowhere, and without words of the language that
/// it is written in.
pub fn worded(text: &str) -> String {
    const WORDS: [(&str, &str); 4] = [
        ("invalid float literal", "expected a number"),
        ("invalid digit found in string", "expected a whole number"),
        (" is not in 1..18446744073709551615", " is less than 1"),
        (" is not in 0..18446744073709551615", " is less than 0"),
    ];
    let is_advice = |line: &&str| line.trim_start().starts_with("tip: to pass '");
    let lines: Vec<&str> = text.lines().filter(|line| !is_advice(line)).collect();
    let text = lines.join("\n").replace("\n\n\n", "\n\n");
    WORDS
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to))
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
            ("expo merge-lora", "expo merge --adapter DIR"),
            ("expo qlora", "a section [adapter]"),
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
    fn a_flag_without_a_key_and_spaces_in_an_override_are_told_what_to_write() {
        for (line, words) in [
            (
                "expo train a.toml --verbose",
                "there is no flag --verbose; progress is shown",
            ),
            ("expo train a.toml --dry-run", "expo plan FILE says"),
            ("expo train a.toml -o x", "--set run.output_dir=DIR"),
            ("expo sample --model m -p hi", "write --prompt TEXT"),
            (
                "expo train a.toml --set run.seed = 1",
                "without spaces: --set run.seed=1",
            ),
            (
                "expo train a.toml --set run.seed 1",
                "without spaces: --set run.seed=1",
            ),
            (
                "expo train a.toml --set run.seed= 1",
                "without spaces: --set run.seed=1",
            ),
            (
                "expo train a.toml --set a.b=1 --set run.seed =1",
                "without spaces: --set run.seed=1",
            ),
        ] {
            let message = said(line).unwrap_or_default();
            assert!(message.starts_with("error: "), "{line}: {message}");
            assert!(message.contains(words), "{line}: {message}");
        }
        let text = "error: x\n\n  tip: to pass '-z' as a value, use '-- -z'\n\nUsage: expo";
        assert_eq!(worded(text), "error: x\n\nUsage: expo");
        let text = "error: invalid value '24GB' for '--memory': invalid float literal";
        assert!(worded(text).ends_with("'--memory': expected a number"));
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
                "--set adapter.r=VALUE (the section [adapter]",
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
