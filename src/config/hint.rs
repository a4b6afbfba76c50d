//! What a key that does not exist was meant as.
//!
//! *Why*: a key is mostly wrong in one of three ways: it stands in the wrong section, it is another
//! program's name, or it is mistyped. Only for the third the nearest key of the same section helps.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::foreign::{self, Here};
use super::schema::{Section, is_key, is_section, sections};
use crate::error::{ALIKE, Error, Result, most_alike, nearest};
use crate::loss::{Knobs, Loss};

/// What a name is meant as that is no key.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyHint {
    /// This dotted key, with what it means where the name was another one.
    Key(String, Option<&'static str>),
    /// Nothing that there is: why, and what to do instead.
    Unsupported(&'static str),
}

/// How alike a name is that differs in one letter.
const SAME: f64 = 0.985;
/// How alike a name must be to one of another section, or of another program.
const VERY_ALIKE: f64 = 0.93;
/// What the own section's names have ahead of those of others.
const OWN_LEAD: f64 = 0.04;
/// The key whose unit is another one than that of the names it answers.
const TOKENS: &str = "batch.micro_batch_tokens";
/// The most answers of one message.
const MOST_ANSWERS: usize = 20;

/// What a name means that is not in a section: a key of one, or a name of another program, mistyped
/// or not.
pub fn key_hint(name: &str) -> Option<KeyHint> {
    if name == "loss" || (is_key(name) && !is_section(name)) {
        return Some(KeyHint::Key(name.to_owned(), None));
    }
    let own = own_keys(name, false, &Table::new());
    if let Some(key) = own.into_iter().next() {
        return Some(KeyHint::Key(key, None));
    }
    if let Some(here) = foreign::key(name) {
        return Some(of_foreign(here));
    }
    if let Some(section) = sections().iter().find(|section| section.name == name) {
        return Some(KeyHint::Key(format!("{name}.{}", section.main), None));
    }
    let (key, likeness) = most_alike_key(name)?;
    (likeness > VERY_ALIKE).then_some(KeyHint::Key(key, None))
}

fn of_foreign(here: Here) -> KeyHint {
    match here {
        Here::Key(key, note) => KeyHint::Key(key.to_owned(), Some(note)),
        Here::Nothing(why) | Here::Elsewhere(why) => KeyHint::Unsupported(why),
    }
}

/// The keys of this name in all sections: of those that not every run has only where the config
/// does, or no other has it; of the losses those of the config, or, of a name that stands at the top, the
/// first that has it.
fn own_keys(name: &str, is_top: bool, config: &Table) -> Vec<String> {
    let has = |section: &Section| section.keys.contains(&name);
    let dotted = |section: &Section| format!("{}.{name}", section.name);
    let sections = sections();
    let (always, others): (Vec<_>, Vec<_>) = sections
        .iter()
        .filter(|section| has(section))
        .partition(|section| !["adapter", "sample", "reference", "story"].contains(&section.name));
    let mut found: Vec<String> = always.into_iter().map(dotted).collect();
    let knob = |loss: &Loss| format!("loss.{}.{name}", loss.name());
    if let Some(Value::Table(losses)) = config.get("loss") {
        let losses = losses.keys().filter_map(|key| Loss::default_of(key).ok());
        found.extend(
            losses
                .filter(|loss| loss.has_knob(name))
                .map(|loss| knob(&loss)),
        );
    }
    if found.is_empty() && (is_top || config.is_empty()) {
        found.extend(Loss::with_knob(name).next().as_ref().map(knob));
    }
    let is_set = |section: &&Section| config.contains_key(section.name) || found.is_empty();
    let others: Vec<String> = others.into_iter().filter(is_set).map(dotted).collect();
    found.extend(others);
    found
}

/// The key of any section whose last part is most like this name.
fn most_alike_key(name: &str) -> Option<(String, f64)> {
    let sections = sections();
    let rated = sections.iter().filter_map(|section| {
        let (key, likeness) = most_alike(name, section.keys.iter().copied())?;
        Some((format!("{}.{key}", section.name), likeness))
    });
    rated.reduce(|best, other| if other.1 > best.1 { other } else { best })
}

/// What to say of the key at `path`, which is unknown where it stands; `valid` are the keys there.
pub(super) fn of_key(path: &str, valid: &[&str], config: &Table) -> String {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let is_of_run = section.is_empty() || is_section(section) || section.starts_with("loss.");
    if !is_of_run {
        return nearest(name, valid.iter().copied());
    }
    let elsewhere = own_keys(name, section.is_empty(), config);
    if !elsewhere.is_empty() {
        return format!("did you mean `{}`?", elsewhere.join("` or `"));
    }
    let own = most_alike(name, valid.iter().copied());
    if name.len() > 4 && own.is_some_and(|(_, likeness)| likeness > SAME) {
        return nearest(name, valid.iter().copied());
    }
    if let Some(here) = foreign::key(name) {
        return match here {
            Here::Key(key, note) => format!("here it is {key}, {note}"),
            Here::Nothing(why) => format!("not supported: {why}"),
            Here::Elsewhere(what) => what.to_owned(),
        };
    }
    let is_section = section.is_empty() && config.get(name).is_some_and(Value::is_table);
    if let Some((key, likeness)) = most_alike_key(name)
        && !is_section
        && likeness > VERY_ALIKE.max(own.map_or(0.0, |(_, own)| own + OWN_LEAD))
    {
        return format!("did you mean `{key}`?");
    }
    match config.get(name) {
        Some(Value::Table(keys))
            if section.is_empty()
                && !keys.is_empty()
                && own.is_none_or(|(_, likeness)| likeness <= ALIKE) =>
        {
            of_names(
                keys.iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            )
        }
        _ => nearest(name, valid.iter().copied()),
    }
}

/// What to say of the value of a key that is none of the `valid` ones.
pub(super) fn of_value(path: &str, value: &str, valid: &[&str]) -> String {
    match foreign::value(path, value) {
        Some(instead) => format!("write {instead}"),
        None => nearest(value, valid.iter().copied()),
    }
}

/// What to say of a value in the place of a section.
pub(super) fn of_section(name: &str) -> Option<String> {
    if name == "loss" {
        return Some("a loss is a section of its own, e.g. [loss.dpo]".to_owned());
    }
    if let Some(loss) = name.strip_prefix("loss.") {
        let loss = Loss::default_of(loss).ok()?;
        return Some(match loss.knobs().first() {
            Some(knob) => format!(
                "`{name}` is a section; did you mean `{name}.{}`?",
                knob.name
            ),
            None => format!("`{name}` is a section without keys; write [{name}]"),
        });
    }
    let sections = sections();
    let section = sections.iter().find(|section| section.name == name)?;
    Some(format!(
        "`{name}` is a section; did you mean `{name}.{}`?",
        section.main
    ))
}

/// The loss that the values of a config of another program name, as a config here.
fn chosen<'a>(names: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Option<Table> {
    let is_choice = |name: &str| matches!(foreign::key(name), Some(Here::Key("loss", _)));
    let mut values = names
        .filter(|(name, _)| is_choice(name))
        .filter_map(|(_, value)| value);
    let loss = values.find_map(|value| Loss::default_of(&value.to_lowercase()).ok())?;
    let knobs = Table::from_iter([(loss.name().to_owned(), Value::Table(Table::new()))]);
    Some(Table::from_iter([("loss".to_owned(), Value::Table(knobs))]))
}

/// The names of a config of another program, with their values where those are words, and what each of
/// them is here.
pub(super) fn of_names<'a>(names: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let names: Vec<_> = names.filter(|(name, _)| !is_section(name)).collect();
    let chosen = chosen(names.iter().copied()).unwrap_or_default();
    let mut order: Vec<String> = Vec::new();
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, _) in names {
        let mut own = own_keys(name, true, &chosen);
        if own.is_empty() {
            own = own_keys(name, true, &Table::new());
        }
        let answer = match (own.first(), foreign::key(name)) {
            (Some(key), _) => format!(" -> {key}"),
            (None, Some(Here::Key(key, note))) if key == TOKENS => format!(" -> {key}, {note}"),
            (None, Some(Here::Key(key, _))) => format!(" -> {key}"),
            (None, Some(Here::Nothing(why))) => format!(": not supported, {why}"),
            (None, Some(Here::Elsewhere(what))) => format!(": {what}"),
            (None, None) => ": unknown".to_owned(),
        };
        if !groups.contains_key(&answer) {
            order.push(answer.clone());
        }
        groups.entry(answer).or_default().push(name);
    }
    let left = order.len().saturating_sub(MOST_ANSWERS);
    if left > 0 {
        // What has a key here is what the config is written anew with.
        order.sort_by_key(|answer| !answer.starts_with(" -> "));
    }
    let shown = order.iter().take(MOST_ANSWERS);
    let mut texts: Vec<String> = shown
        .map(|answer| format!("{}{answer}", groups[answer].join(", ")))
        .collect();
    if left > 0 {
        let others = order.iter().skip(MOST_ANSWERS);
        let others: Vec<&str> = others
            .flat_map(|answer| groups[answer].iter().copied())
            .collect();
        texts.push(format!("others: {}", others.join(", ")));
    }
    texts.join("; ")
}

/// Refuses keys outside all sections, before anything that is missing is asked for.
pub(super) fn check_sections(config: &Table) -> Result<()> {
    let unknown: Vec<&str> = config
        .keys()
        .map(String::as_str)
        .filter(|name| !is_section(name))
        .collect();
    let valid: Vec<&str> = sections().iter().map(|section| section.name).collect();
    let valid = [&["loss"], &valid[..]].concat();
    match unknown[..] {
        [] => Ok(()),
        [name] => Err(Error::input(format!("unknown key `{name}`"))
            .hint(of_key(name, &valid, config))
            .at_key(name)),
        [first, ..] => {
            let count = unknown.len();
            let what = format!("{count} unknown keys, outside the sections that a config has");
            let values = |name| (name, config.get(name).and_then(Value::as_str));
            let hint = of_names(unknown.iter().copied().map(values));
            Err(Error::input(what).hint(hint).at_key(first))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, config: &str) -> String {
        let config: Table = toml::from_str(config).unwrap();
        let section = path.rsplit_once('.').map_or("", |(section, _)| section);
        let sections = sections();
        let found = sections.iter().find(|known| known.name == section);
        let names: Vec<&str> = sections.iter().map(|section| section.name).collect();
        of_key(path, found.map_or(&names, |found| found.keys), &config)
    }

    #[test]
    fn a_key_is_looked_for_in_every_section() {
        for (path, said_of_it) in [
            ("seed", "did you mean `run.seed`?"),
            (
                "run.gradient_accumulation_steps",
                "did you mean `batch.gradient_accumulation_steps`?",
            ),
            (
                "run.learning_rate",
                "did you mean `optimizer.learning_rate`?",
            ),
            (
                "optimizer.warmup_ratio",
                "did you mean `schedule.warmup_ratio`?",
            ),
            ("data.eval_step", "did you mean `run.eval_steps`?"),
            ("run.sed", "did you mean `seed`?"),
            ("run.top_p", "did you mean `sample.top_p`?"),
            (
                "data.alpha",
                "did you mean `adapter.alpha` or `reference.alpha`?",
            ),
            ("beta", "did you mean `loss.ipo.beta`?"),
            ("optimiser", "did you mean `optimizer`?"),
            ("batch.batchsize", "did you mean `batch_size`?"),
        ] {
            assert_eq!(said(path, "[loss.ipo]\n"), said_of_it, "{path}");
        }
        let both = said("seed", "[sample]\n");
        assert_eq!(both, "did you mean `run.seed` or `sample.seed`?");
        assert!(said("run.zebra", "").starts_with("valid: output_dir"));
    }

    #[test]
    fn a_name_of_another_program_is_told_what_it_is_here() {
        for (path, words) in [
            (
                "per_device_train_batch_size",
                "here it is batch.batch_size, rows per optimizer step",
            ),
            ("run.lr", "here it is optimizer.learning_rate, the peak"),
            (
                "model.Load_In_4bit",
                "here it is model.quantization, \"nf4\" or \"q8_0\"",
            ),
            ("lora_r", "here it is adapter.r, the rank of a LoRA adapter"),
        ] {
            assert!(said(path, "").starts_with(words), "{}", said(path, ""));
        }
        assert_eq!(
            said(
                "trainer",
                "[trainer]\nmax_steps = 3\nlora_r = 2\nzebra = 1\n"
            ),
            "max_steps -> run.max_steps; lora_r -> adapter.r; zebra: unknown"
        );
        let value = of_value("optimizer.optim", "paged_adamw_8bit", &["adamw"]);
        assert!(value.starts_with("write \"adamw_8bit\""), "{value}");
        let value = of_value("optimizer.optim", "AdamW", &["adam", "adamw"]);
        assert_eq!(value, "did you mean `adamw`?");
    }

    #[test]
    fn a_name_by_itself_is_a_key_or_what_to_do_instead() {
        let key = |name: &str| match key_hint(name) {
            Some(KeyHint::Key(key, _)) => key,
            other => format!("{other:?}"),
        };
        assert_eq!(key("learning_rate"), "optimizer.learning_rate");
        assert_eq!(key("learning_rte"), "optimizer.learning_rate");
        assert_eq!(key("lr"), "optimizer.learning_rate");
        assert_eq!(key("run.seed"), "run.seed");
        assert_eq!(key("beta"), "loss.dpo.beta");
        assert_eq!(key("gamma"), "loss.simpo.gamma");
        assert_eq!(key("model"), "model.model_name_or_path");
        assert_eq!(key("loss"), "loss");
        assert_eq!(key("schedule"), "schedule.lr_scheduler_type");
        assert_eq!(key("use_peft"), "adapter.r");
        assert!(matches!(key_hint("gptq"), Some(KeyHint::Unsupported(_))));
        assert_eq!(key_hint("zebra"), None);
    }
}
