//! Where caches are kept.
//!
//! *Why*: model files, reference log-probabilities and compiled kernels share one root, so a user who
//! moves it moves all of them. The rule is Python's hub library's, on every system; crates such as
//! `dirs` choose other directories on macOS and Windows.

use std::ffi::OsString;
use std::path::PathBuf;

/// The user's cache directory: `XDG_CACHE_HOME`, or `.cache` in `HOME` or else in `USERPROFILE`. `None`
/// where no variable is set; a blank one is not.
pub fn root() -> Option<PathBuf> {
    root_from(|name| std::env::var_os(name))
}

/// [`root`] with the variables given by `variable`.
pub fn root_from(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| {
        let set = variable(name).filter(|value| !value.to_string_lossy().trim().is_empty());
        set.map(PathBuf::from)
    };
    let home = || path("HOME").or_else(|| path("USERPROFILE"));
    path("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_variable_that_is_set_names_the_root() {
        let root = |variables: &[(&str, &str)]| {
            root_from(|name| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| value.into())
            })
        };
        let (home, windows) = (("HOME", "/home/me"), ("USERPROFILE", "/users/me"));
        assert_eq!(root(&[home, windows]), Some("/home/me/.cache".into()));
        assert_eq!(root(&[windows]), Some("/users/me/.cache".into()));
        assert_eq!(
            root(&[home, ("XDG_CACHE_HOME", "/fast")]),
            Some("/fast".into())
        );
        assert_eq!(
            root(&[home, ("XDG_CACHE_HOME", " ")]),
            Some("/home/me/.cache".into())
        );
        assert_eq!(root(&[("HOME", "")]), None);
    }
}
