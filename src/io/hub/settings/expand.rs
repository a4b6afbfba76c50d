//! Paths as Python reads them: `expanduser`, then `expandvars`.

use std::path::{Path, PathBuf};

use crate::io::untrusted;

/// The path of a text: `~` and `~user` at its start are homes, `$NAME` and `${NAME}` variables. What is
/// unknown stays as it is.
pub(super) fn expand(text: &str, variable: &impl Fn(&str) -> Option<String>) -> PathBuf {
    variables(&home(text, variable), variable).into()
}

fn home(text: &str, variable: &impl Fn(&str) -> Option<String>) -> String {
    let Some(rest) = text.strip_prefix('~') else {
        return text.to_owned();
    };
    let (user, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let found = match user {
        "" => variable("HOME").or_else(|| variable("USERPROFILE")),
        user => home_of(user),
    };
    match found {
        Some(home) => match home.trim_end_matches('/') {
            "" if below.is_empty() => "/".to_owned(),
            home => format!("{home}{below}"),
        },
        None => text.to_owned(),
    }
}

/// The home of a user, where the system keeps a list of them.
fn home_of(user: &str) -> Option<String> {
    let users = untrusted::text(Path::new("/etc/passwd"), untrusted::CONFIG).ok()?;
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&user)).then(|| fields.get(5).map(ToString::to_string))?
    })
}

fn variables(text: &str, variable: &impl Fn(&str) -> Option<String>) -> String {
    let (mut found, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        found.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, length) = match after.strip_prefix('{') {
            Some(inner) => match inner.find('}') {
                Some(end) => (&inner[..end], end + 2),
                None => ("", 0),
            },
            None => {
                let end = after.find(|c| !word(c)).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => found.push_str(&value),
            None => found.push_str(&rest[at..at + 1 + length]),
        }
        rest = &after[length..];
    }
    found + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_stays() {
        let known = |name: &str| match name {
            "HOME" => Some("/home/me/".to_owned()),
            "A_1" => Some("$HOME".to_owned()),
            _ => None,
        };
        for (text, path) in [
            ("~", "/home/me"),
            ("~/x/~", "/home/me/x/~"),
            ("/x/~", "/x/~"),
            ("~nobody-of-this-name/x", "~nobody-of-this-name/x"),
            ("$A_1/x", "$HOME/x"),
            ("a$A_1-${A_1}b", "a$HOME-$HOMEb"),
            ("$NONE/${NONE}/$/${/x$", "$NONE/${NONE}/$/${/x$"),
        ] {
            assert_eq!(expand(text, &known), PathBuf::from(path), "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_home_of_a_user_is_that_of_the_system() {
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        for line in users.lines().take(3) {
            let fields: Vec<&str> = line.split(':').collect();
            let [user, _, _, _, _, home, ..] = fields[..] else {
                continue;
            };
            let path = format!("{}/hf", home.trim_end_matches('/'));
            assert_eq!(
                expand(&format!("~{user}/hf"), &|_| None),
                PathBuf::from(path)
            );
        }
    }
}
