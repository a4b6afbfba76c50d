//! Which parameters are trained, by glob over their names.
//!
//! *Why* no crate: names have no directories, classes or braces, so a glob is `*` and `?` alone.

use super::parameters::Layout;
use crate::error::{Error, Result, nearest};

/// `layout`, of which those parameters are trained that `patterns` select: the last pattern that
/// matches a name decides, `!` in front freezes, and a name that none matches is frozen. `*` matches any
/// run of characters, `?` any one.
///
/// # Errors
/// Names the pattern that matches no parameter; if no parameter is left to train.
pub fn select(layout: Layout, patterns: &[String]) -> Result<Layout> {
    for pattern in patterns {
        let (_, glob) = parse(pattern);
        let mut names = layout.entries.iter().map(|entry| entry.name.as_str());
        if !names.clone().any(|name| matches(glob, name)) {
            return Err(
                Error::input(format!("\"{pattern}\" matches no parameter of the model"))
                    .hint(suggestion(glob, &mut names)),
            );
        }
    }
    let layout = layout.with_trainable(|name| {
        let last = patterns.iter().rev().map(|pattern| parse(pattern));
        let mut last = last.filter(|(_, glob)| matches(glob, name));
        last.next().is_some_and(|(train, _)| train)
    });
    match layout.trainable_len {
        0 => Err(Error::input("every parameter is frozen")
            .hint("the last pattern that matches a name decides: [\"*\", \"!*.mlp.*\"] trains all but the MLPs")),
        _ => Ok(layout),
    }
}

/// Whether the pattern trains, and its glob.
fn parse(pattern: &str) -> (bool, &str) {
    match pattern.strip_prefix('!') {
        Some(glob) => (false, glob),
        None => (true, pattern),
    }
}

/// Greedy: after a `*` only its latest use is tried longer, so the time is at most the product of the
/// lengths.
fn matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut at, mut read) = (0, 0);
    // Behind the last star, and the first character that it does not stand for.
    let mut star = None;
    while read < name.len() {
        match glob.get(at) {
            Some('*') => {
                at += 1;
                star = Some((at, read));
            }
            Some(&c) if c == '?' || c == name[read] => (at, read) = (at + 1, read + 1),
            _ => {
                let Some((behind, first)) = star else {
                    return false;
                };
                star = Some((behind, first + 1));
                (at, read) = (behind, first + 1);
            }
        }
    }
    glob[at..].iter().all(|&c| c == '*')
}

/// The nearest name, or where the pattern has wildcards or nothing is near, names of one block.
fn suggestion<'a>(glob: &str, names: &mut impl Iterator<Item = &'a str>) -> String {
    const FEW: usize = 4;
    let names: Vec<&str> = names.collect();
    if glob == "all" {
        return "leave the patterns out to train all parameters".to_owned();
    }
    let wide = format!("*{}*", glob.trim_matches('*'));
    let found = names.iter().filter(|name| matches(&wide, name));
    if let (Some(first), count) = (found.clone().next(), found.count())
        && glob.len() > 1
    {
        let more = match count - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        return format!("globs match whole names: {wide} matches {first}{more}");
    }
    let near = nearest(glob, names.iter().copied());
    match near.starts_with("did you mean") {
        true => near,
        false => format!(
            "globs match whole names, with * for any characters, for example {}",
            names[..names.len().min(FEW)].join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::weights::ModelFolder;

    fn llama() -> Layout {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
        Layout::new(&ModelFolder::open(&folder).unwrap().arch)
    }

    fn trained(patterns: &[&str]) -> Result<Vec<String>> {
        let patterns: Vec<String> = patterns.iter().map(|&p| p.into()).collect();
        let layout = select(llama(), &patterns)?.trainable();
        Ok(layout.entries.into_iter().map(|entry| entry.name).collect())
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let all = llama().entries.len();
        assert_eq!(trained(&["*"]).unwrap().len(), all);
        let frozen_mlp = trained(&["*", "!*.mlp.*"]).unwrap();
        assert!(frozen_mlp.iter().all(|name| !name.contains(".mlp.")));
        assert!(frozen_mlp.len() > all / 2);
        let again = trained(&["*", "!*.mlp.*", "model.layers.?.mlp.up_proj.weight"]).unwrap();
        assert!(again.contains(&"model.layers.1.mlp.up_proj.weight".into()));
        assert_eq!(
            trained(&["model.norm.weight"]).unwrap(),
            ["model.norm.weight"]
        );
    }

    #[test]
    fn wildcards_match_dots_and_single_characters() {
        for (glob, name, want) in [
            ("*a*a*b", "aaaaab", true),
            ("*a*a*b", "aaaaa", false),
            ("*", "a.b", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("**b", "b", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(glob, name), want, "{glob} {name}");
        }
    }

    #[test]
    fn patterns_that_select_nothing_are_errors() {
        let said = trained(&["*", "!model.norm.weigth"])
            .unwrap_err()
            .to_string();
        assert!(said.contains("\"!model.norm.weigth\" matches no"), "{said}");
        assert!(said.contains("did you mean `model.norm.weight`?"), "{said}");
        let said = trained(&["*.attn.*"]).unwrap_err().to_string();
        assert!(said.contains("for example lm_head.weight"), "{said}");
        for patterns in [&["!*"][..], &[], &["*", "!*"]] {
            let said = trained(patterns).unwrap_err().to_string();
            assert!(said.contains("every parameter is frozen"), "{said}");
        }
    }

    #[test]
    fn what_is_trained_comes_first_in_the_flat_buffer() {
        let layout = select(llama(), &["*".into(), "!*.mlp.*".into()]).unwrap();
        let mut ends = [0, layout.trainable_len];
        for entry in &layout.entries {
            let end = &mut ends[usize::from(!entry.trainable)];
            assert_eq!(entry.range.start, *end, "{}", entry.name);
            *end = entry.range.end;
        }
        assert_eq!(ends, [layout.trainable_len, layout.len]);
        assert!(layout.same_parameters(&llama()) && layout != llama());
    }
}
