//! How a dataset on the hub is written.

use std::fmt::{self, Display};
use std::str::FromStr;

use crate::io::untrusted::is_plain;

/// What a name on the hub begins with, so that no file is taken for one.
const MARK: &str = "hub:";

/// A split of a dataset on the hub: `hub:OWNER/NAME[/CONFIG]:SPLIT[@REVISION]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DatasetName {
    /// `OWNER/NAME`, or the name alone of an old dataset.
    pub repository: String,
    /// One of the dataset's configurations, or a directory of the repository; `None` for the default.
    pub config: Option<String>,
    /// The split; or a file of the repository, or a pattern of files.
    pub split: String,
    /// A branch, a tag or a commit; `None` for `main`.
    pub revision: Option<String>,
}

impl DatasetName {
    /// Whether a text is meant as one.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(MARK)
    }
}

impl FromStr for DatasetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "`{text}` {what}; a dataset on the hub is hub:OWNER/NAME[/CONFIG]:SPLIT[@REVISION]"
            )
        };
        let rest = text
            .strip_prefix(MARK)
            .ok_or_else(|| wrong("does not begin with `hub:`"))?;
        let (path, split) = rest
            .split_once(':')
            .ok_or_else(|| wrong("names no split"))?;
        let (split, revision) = match split.split_once('@') {
            Some((split, revision)) => (split, Some(revision)),
            None => (split, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (repository, config) = match parts.as_slice() {
            [] | [_] => (path.to_owned(), None),
            [owner, name] => (format!("{owner}/{name}"), None),
            [owner, name, config @ ..] => (format!("{owner}/{name}"), Some(config.join("/"))),
        };
        if !repository.split('/').all(is_plain) || repository.contains("--") {
            return Err(wrong("names no dataset"));
        }
        let stays_inside = |path: &str| {
            let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
            path.split('/').all(inside) && !path.contains('\\') && !path.contains(char::is_control)
        };
        if config
            .as_deref()
            .is_some_and(|config| !stays_inside(config))
        {
            return Err(wrong("names no configuration"));
        }
        if !stays_inside(split) {
            return Err(wrong("names no split"));
        }
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "._-/+".contains(c));
        if revision.is_some_and(|name| !stays_inside(name) || name.contains(odd)) {
            return Err(wrong("names no revision"));
        }
        Ok(Self {
            repository,
            config,
            split: split.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }
}

impl Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{MARK}{}", self.repository)?;
        if let Some(config) = &self.config {
            write!(f, "/{config}")?;
        }
        write!(f, ":{}", self.split)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_repository_a_split_and_perhaps_more() {
        for (text, repository, config, split, revision) in [
            ("hub:org/name:train", "org/name", None, "train", None),
            ("hub:name:test", "name", None, "test", None),
            (
                "hub:org/name/en:test@v1.0",
                "org/name",
                Some("en"),
                "test",
                Some("v1.0"),
            ),
            ("hub:o/n/a/b:train", "o/n", Some("a/b"), "train", None),
            (
                "hub:o/n:data/*.parquet@refs/pr/1",
                "o/n",
                None,
                "data/*.parquet",
                Some("refs/pr/1"),
            ),
        ] {
            let name: DatasetName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(
                (
                    &*name.repository,
                    name.config.as_deref(),
                    &*name.split,
                    name.revision.as_deref()
                ),
                (repository, config, split, revision)
            );
        }
    }

    #[test]
    fn a_name_that_is_none_says_what_one_is() {
        for (text, what) in [
            ("hub:org/name", "names no split"),
            ("hub:org/name:", "names no split"),
            ("hub::train", "names no dataset"),
            ("hub:../name:train", "names no dataset"),
            ("hub:org/a--b:train", "names no dataset"),
            ("hub:org/name/..:train", "names no configuration"),
            ("hub:org/name:../x", "names no split"),
            ("hub:org/name:train@", "names no revision"),
            ("hub:org/name:train@a b", "names no revision"),
            ("org/name:train", "does not begin with `hub:`"),
        ] {
            let error = text.parse::<DatasetName>().unwrap_err();
            assert!(error.starts_with(&format!("`{text}` {what}; ")), "{error}");
            assert!(
                error.ends_with("hub:OWNER/NAME[/CONFIG]:SPLIT[@REVISION]"),
                "{error}"
            );
        }
    }
}
