//! The configurations that a dataset's README names.
//!
//! *Why*: the README begins with YAML, of which its `configs` alone matter here. Only they are parsed,
//! in bounded depth and without aliases, which could stand for exponentially much.

use yaml_rust2::parser::{Event, EventReceiver, Parser};
use yaml_rust2::{Yaml, YamlLoader};

use crate::error::{Error, Result};
use crate::io::untrusted;

/// A configuration: its name, and which files its splits are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    pub name: String,
    pub is_default: bool,
    /// Where its files are; the repository's root if empty.
    pub directory: String,
    /// The splits in order, each with its patterns; none where they follow from the files' names.
    pub splits: Vec<(String, Vec<String>)>,
}

/// The bytes that the configurations may have, and the opening signs on one line.
const LONGEST: usize = 1 << 20;
const DEEPEST: usize = 64;

/// The configurations of a README, in order; none where it names none.
pub(super) fn configs(readme: &str) -> Result<Vec<Config>> {
    let Some(text) = block(readme) else {
        return Ok(Vec::new());
    };
    let wrong = |what: &str| Error::input(format!("README.md: `configs`: {what}"));
    let nested = |line: &str| line.matches(['[', '{', '-', '?']).count() > DEEPEST;
    if text.len() > LONGEST || text.lines().any(nested) {
        return Err(wrong("longer or deeper than any dataset needs"));
    }
    let yaml = untrusted::guarded("README.md", || {
        let mut aliases = Aliases(false);
        let scanned = Parser::new_from_str(&text).load(&mut aliases, true);
        scanned.map_err(|error| wrong(&format!("not YAML: {error}")))?;
        if aliases.0 {
            return Err(wrong("it has aliases, which are not followed"));
        }
        YamlLoader::load_from_str(&text).map_err(|error| wrong(&format!("not YAML: {error}")))
    })?;
    let entries = yaml.first().map(|root| &root["configs"]);
    let Some(Yaml::Array(entries)) = entries else {
        return Err(wrong("not a list"));
    };
    entries
        .iter()
        .map(|entry| config(entry).ok_or_else(|| wrong("an entry is not understood")))
        .collect()
}

struct Aliases(bool);

impl EventReceiver for Aliases {
    fn on_event(&mut self, event: Event) {
        self.0 |= matches!(event, Event::Alias(_));
    }
}

/// The lines of the key `configs` in the YAML that a README begins with.
fn block(readme: &str) -> Option<String> {
    let mut lines = readme.lines();
    lines.next().filter(|line| line.trim_end() == "---")?;
    let front = lines.take_while(|line| line.trim_end() != "---");
    let mut front = front.skip_while(|line| !line.starts_with("configs:"));
    let mut text = front.next()?.to_owned();
    for line in front.take_while(|line| line.is_empty() || line.starts_with([' ', '-', '#'])) {
        text.push('\n');
        text.push_str(line);
    }
    Some(text)
}

fn config(entry: &Yaml) -> Option<Config> {
    let text = |value: &Yaml| match value {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        _ => None,
    };
    let list = |value: &Yaml| match value {
        Yaml::Array(items) => items.iter().map(text).collect::<Option<Vec<_>>>(),
        value => text(value).map(|one| vec![one]),
    };
    let train = |patterns| vec![("train".to_owned(), patterns)];
    let files = &entry["data_files"];
    let splits = match files {
        Yaml::BadValue | Yaml::Null => Vec::new(),
        Yaml::Array(items) if items.iter().any(|item| item.as_hash().is_some()) => items
            .iter()
            .map(|item| Some((text(&item["split"])?, list(&item["path"])?)))
            .collect::<Option<_>>()?,
        Yaml::Hash(splits) => splits
            .iter()
            .map(|(split, paths)| Some((text(split)?, list(paths)?)))
            .collect::<Option<_>>()?,
        files => train(list(files)?),
    };
    Some(Config {
        name: text(&entry["config_name"]).unwrap_or_else(|| "default".into()),
        is_default: entry["default"].as_bool().unwrap_or(false),
        directory: text(&entry["data_dir"]).unwrap_or_default(),
        splits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, splits: &[(&str, &[&str])]) -> Config {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let splits = splits
            .iter()
            .map(|(split, paths)| ((*split).to_owned(), owned(paths)));
        Config {
            name: name.to_owned(),
            is_default: false,
            directory: String::new(),
            splits: splits.collect(),
        }
    }

    #[test]
    fn configurations_are_read_in_every_form() {
        let readme = "---\nlicense: mit\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    \
                      path: data/train-*\n  - split: test\n    path:\n    - a.jsonl\n    - b.jsonl\n  default: true\n\
                      - config_name: de\n  data_dir: german\n- config_name: all\n  data_files: x.csv\n\
                      - config_name: two\n  data_files:\n  - c/*\n  - d/*\n- config_name: 2020\n  data_files:\n    dev: e.csv\ntags:\n- x\n---\n# A set\n";
        let found = configs(readme).unwrap();
        let expected = [
            Config {
                is_default: true,
                ..config(
                    "en",
                    &[
                        ("train", &["data/train-*"]),
                        ("test", &["a.jsonl", "b.jsonl"]),
                    ],
                )
            },
            Config {
                directory: "german".into(),
                ..config("de", &[])
            },
            config("all", &[("train", &["x.csv"])]),
            config("two", &[("train", &["c/*", "d/*"])]),
            config("2020", &[("dev", &["e.csv"])]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_readme_without_configurations_has_none() {
        for readme in [
            "",
            "# A set\n",
            "---\ntags: [a]\n---\nconfigs:\n- x\n",
            "configs:\n",
        ] {
            assert_eq!(configs(readme).unwrap(), [], "{readme:?}");
        }
    }

    #[test]
    fn yaml_that_is_none_or_too_much_is_refused() {
        for (block, what) in [
            ("configs: [\n", "not YAML"),
            ("configs: 3\n", "not a list"),
            (
                "configs:\n- data_files: {a: {b: c}}\n",
                "an entry is not understood",
            ),
            ("configs: &a [x]\n- *a\n", "README.md"),
            ("configs:\n- &a x\n- *a\n", "aliases"),
            (&format!("configs: {}\n", "[".repeat(100_000)), "deeper"),
            (&format!("configs:\n- {}\n", "- ".repeat(100_000)), "deeper"),
        ] {
            let error = configs(&format!("---\n{block}---\n"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
