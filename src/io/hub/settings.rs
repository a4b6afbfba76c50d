//! What the environment says about the hub.
//!
//! *Why*: variables are one per process, so they are read in one place and travel as a value.

use std::fmt;
use std::path::PathBuf;

use crate::io::{cache, untrusted};

/// Where the cache is, which hub to ask and as whom. Built by [`from_env`](Self::from_env).
#[derive(Clone, Default)]
pub struct HubSettings {
    /// The folder of `models--organisation--name` folders.
    pub cache: PathBuf,
    /// Another hub than the public one.
    pub endpoint: Option<String>,
    /// The user's token. Never printed.
    pub token: Option<String>,
    /// Use nothing but the cache.
    pub offline: bool,
}

impl HubSettings {
    /// The settings of this process, from the variables that Python's hub library reads:
    /// `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// [`from_env`](Self::from_env) with the variables given by `variable`. An empty one is unset.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let home = path("HF_HOME").unwrap_or_else(|| {
            cache::root_from(|name| variable(name).map(Into::into))
                .unwrap_or_else(|| PathBuf::from(".cache"))
                .join("huggingface")
        });
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = set("HF_TOKEN")
            .or_else(|| untrusted::text(&token_file, untrusted::WORD).ok())
            .map(|token| token.trim().to_string())
            .filter(|token| !token.is_empty());
        let offline = set("HF_HUB_OFFLINE").is_some_and(|value| {
            ["1", "on", "yes", "true"].contains(&value.trim().to_lowercase().as_str())
        });
        Self {
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            endpoint: set("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_string()),
            token,
            offline,
        }
    }

    /// The hub in messages: without the user and password that an address may carry.
    pub(super) fn hub(&self) -> String {
        let Some(endpoint) = &self.endpoint else {
            return "the hub".into();
        };
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        format!("the hub at {scheme}://{host}")
    }
}

impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("cache", &self.cache)
            .field("hub", &self.hub())
            .field("token", &self.token.as_ref().map(|_| "(secret)"))
            .field("offline", &self.offline)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        HubSettings::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn the_nearest_variable_names_the_cache() {
        let home = settings(&[("HOME", "/home/me")]);
        assert_eq!(home.cache, PathBuf::from("/home/me/.cache/huggingface/hub"));
        let hf_home = settings(&[("HOME", "/home/me"), ("HF_HOME", "/data/hf")]);
        assert_eq!(hf_home.cache, PathBuf::from("/data/hf/hub"));
        let cache = settings(&[("HF_HOME", "/data/hf"), ("HF_HUB_CACHE", "/fast")]);
        assert_eq!(cache.cache, PathBuf::from("/fast"));
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "from-file\n").unwrap();
        let home = home.path().to_str().unwrap();
        assert_eq!(
            settings(&[("HF_HOME", home)]).token.as_deref(),
            Some("from-file")
        );
        let both = settings(&[("HF_HOME", home), ("HF_TOKEN", " mine ")]);
        assert_eq!(both.token.as_deref(), Some("mine"));
        assert!(!format!("{both:?}").contains("mine"));
    }

    #[test]
    fn offline_takes_the_words_python_takes() {
        for (value, offline) in [("1", true), ("True", true), ("0", false), ("", false)] {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, offline);
        }
    }

    #[test]
    fn a_password_in_the_endpoint_is_not_shown() {
        let settings = settings(&[("HF_ENDPOINT", "https://me:secret@hub.local/x/")]);
        assert_eq!(
            settings.endpoint.as_deref(),
            Some("https://me:secret@hub.local/x")
        );
        assert_eq!(settings.hub(), "the hub at https://hub.local");
    }
}
