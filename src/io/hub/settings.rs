//! What the environment says about the hub.
//!
//! *Why*: variables are one per process, so they are read in one place and travel as a value.

mod expand;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use expand::expand;

use crate::error::{Error, Result};
use crate::io::{cache, untrusted};

/// Where the cache is, which hub to ask and as whom. Built by [`from_env`](Self::from_env).
#[derive(Clone, Default)]
pub struct HubSettings {
    /// The directory of `models--organisation--name` directories.
    pub cache: PathBuf,
    /// Another hub than the public one.
    pub endpoint: Option<String>,
    /// The user's token. Never printed.
    pub token: Option<String>,
    /// Use nothing but the cache.
    pub offline: bool,
    /// How long the hub is waited for.
    pub patience: Patience,
    /// What is wrong with a variable; said where the hub would be asked, for a model that is there needs
    /// no hub.
    pub invalid: Option<Error>,
}

/// How long a hub is waited for, and how often it is asked.
#[derive(Debug, Clone)]
pub struct Patience {
    /// The longest that connecting may take: the look-up of the name, the connection, encryption.
    pub connect: Duration,
    /// The longest wait for an answer about a model or a file: `HF_HUB_ETAG_TIMEOUT`.
    pub answer: Duration,
    /// The longest wait for the next bytes of a file: `HF_HUB_DOWNLOAD_TIMEOUT`.
    pub silence: Duration,
    /// Of any body at least [`least`](Self::least) bytes come in such a time.
    pub window: Duration,
    /// See [`window`](Self::window).
    pub least: u64,
    /// Attempts of one request, at least 1; of a file, attempts in a row that bring little or nothing.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with each further one.
    pub first_wait: Duration,
    /// The longest wait that a server may ask for; a longer one is cut to it.
    pub longest_wait: Duration,
    /// The longest wait for another process that downloads the same file.
    pub other_process: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(30),
            window: Duration::from_secs(30),
            least: 16 << 10,
            attempts: 4,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            other_process: Duration::from_secs(3600),
        }
    }
}

impl Patience {
    /// The longest that so many bytes may take.
    pub(super) fn longest(&self, bytes: u64) -> Duration {
        let windows = bytes / self.least.max(1) + 1;
        self.window
            .saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX))
    }
}

impl HubSettings {
    /// The settings of this process, from the variables that Python's hub library reads: `HF_HUB_CACHE`,
    /// `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `HF_ENDPOINT`,
    /// `HF_HUB_OFFLINE`, `HF_HUB_ETAG_TIMEOUT`, `HF_HUB_DOWNLOAD_TIMEOUT`, and the older
    /// `HUGGINGFACE_HUB_CACHE`, `HUGGING_FACE_HUB_TOKEN` and `TRANSFORMERS_OFFLINE`.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// [`from_env`](Self::from_env) with the variables given by `variable`. An empty one is unset.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| set(name).map(|text| expand(&text, &variable));
        let home = path("HF_HOME").unwrap_or_else(|| {
            let root = cache::root_from(|name| variable(name).map(Into::into));
            let root = root.unwrap_or_else(|| PathBuf::from(".cache"));
            expand(&root.join("huggingface").to_string_lossy(), &variable)
        });
        let on = |name: &str| {
            set(name).map(|value| {
                ["1", "on", "yes", "true"].contains(&value.trim().to_lowercase().as_str())
            })
        };
        let clean = |token: String| token.replace(['\r', '\n'], "").trim().to_owned();
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = set("HF_TOKEN")
            .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| untrusted::text(&token_file, untrusted::WORD).ok())
            .map(clean)
            .filter(|token| !token.is_empty())
            .filter(|_| on("HF_HUB_DISABLE_IMPLICIT_TOKEN") != Some(true));
        let mut invalid = None;
        let mut seconds =
            |name: &str, default: Duration| match set(name).map(|text| parse(name, &text)) {
                Some(Ok(seconds)) if !seconds.is_zero() => seconds,
                Some(Ok(_)) | None => default,
                Some(Err(error)) => {
                    invalid.get_or_insert(error);
                    default
                }
            };
        let mut patience = Patience::default();
        patience.answer = seconds("HF_HUB_ETAG_TIMEOUT", patience.answer);
        patience.silence = seconds("HF_HUB_DOWNLOAD_TIMEOUT", patience.silence);
        // Who allows a longer silence allows few bytes around it.
        patience.window = patience.window.max(patience.silence);
        Self {
            cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| home.join("hub")),
            endpoint: set("HF_ENDPOINT").map(|url| url.trim().trim_end_matches('/').to_string()),
            token,
            offline: on("HF_HUB_OFFLINE").or_else(|| on("TRANSFORMERS_OFFLINE")) == Some(true),
            patience,
            invalid,
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

/// The whole seconds of a variable.
fn parse(name: &str, text: &str) -> Result<Duration> {
    let seconds = text.trim().parse::<u32>().map_err(|_| {
        Error::input(format!("{:?} is not a number of seconds", text.trim()))
            .hint("a whole number, e.g. 30")
            .at(name)
    })?;
    Ok(Duration::from_secs(seconds.into()))
}

impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("cache", &self.cache)
            .field("hub", &self.hub())
            .field("token", &self.token.as_ref().map(|_| "(secret)"))
            .field("offline", &self.offline)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
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
        let old = settings(&[("HF_HOME", "/data/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")]);
        assert_eq!(old.cache, PathBuf::from("/old"));
        let cache = settings(&[
            ("HF_HOME", "/data/hf"),
            ("HUGGINGFACE_HUB_CACHE", "/old"),
            ("HF_HUB_CACHE", "/fast"),
        ]);
        assert_eq!(cache.cache, PathBuf::from("/fast"));
    }

    #[test]
    fn paths_are_expanded_as_in_python() {
        let base = [
            ("HOME", "/home/me"),
            ("SCRATCH", "/scratch"),
            ("USER", "me"),
        ];
        for (name, value, cache) in [
            ("HF_HOME", "~/hf", "/home/me/hf/hub"),
            ("HF_HOME", "~", "/home/me/hub"),
            ("HF_HOME", "$SCRATCH/hf", "/scratch/hf/hub"),
            ("HF_HOME", "${SCRATCH}/$USER", "/scratch/me/hub"),
            ("HF_HUB_CACHE", "~/${USER}-hub", "/home/me/me-hub"),
            ("HUGGINGFACE_HUB_CACHE", "~/old", "/home/me/old"),
            ("XDG_CACHE_HOME", "~/c", "/home/me/c/huggingface/hub"),
            ("XDG_CACHE_HOME", "$SCRATCH", "/scratch/huggingface/hub"),
        ] {
            let variables = [&base[..], &[(name, value)]].concat();
            assert_eq!(
                settings(&variables).cache,
                PathBuf::from(cache),
                "{name}={value}"
            );
        }
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("mine"), "from-path").unwrap();
        let home = home.path().to_str().unwrap();
        for path in ["~/mine", "$HOME/mine", "${HOME}/mine"] {
            let token = settings(&[("HOME", home), ("HF_TOKEN_PATH", path)]).token;
            assert_eq!(token.as_deref(), Some("from-path"), "{path}");
        }
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
        let old = ("HUGGING_FACE_HUB_TOKEN", "old");
        assert_eq!(
            settings(&[("HF_HOME", home), old]).token.as_deref(),
            Some("old")
        );
        let both = settings(&[("HF_HOME", home), old, ("HF_TOKEN", " mine \r\n")]);
        assert_eq!(both.token.as_deref(), Some("mine"));
        assert!(!format!("{both:?}").contains("mine"));
        let none = [
            ("HF_HOME", home),
            old,
            ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
        ];
        assert_eq!(settings(&none).token, None);
    }

    #[test]
    fn offline_takes_the_words_python_takes() {
        for (value, offline) in [("1", true), ("True", true), ("0", false), ("", false)] {
            for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
                assert_eq!(
                    settings(&[(name, value)]).offline,
                    offline,
                    "{name}={value}"
                );
            }
        }
        let online = [("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")];
        assert!(!settings(&online).offline, "the newer name decides");
    }

    #[test]
    fn timeouts_are_whole_seconds() {
        let given = [
            ("HF_HUB_ETAG_TIMEOUT", " 3 "),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "500"),
        ];
        let patience = settings(&given).patience;
        assert_eq!(patience.answer, Duration::from_secs(3));
        assert_eq!(patience.silence, Duration::from_secs(500));
        assert_eq!(patience.window, Duration::from_secs(500));
        // As in Python, 0 is the default.
        let zero = settings(&[("HF_HUB_ETAG_TIMEOUT", "0")]).patience;
        assert_eq!(zero.answer, Patience::default().answer);
        let wrong = settings(&[("HF_HUB_ETAG_TIMEOUT", "soon")]).invalid;
        assert_eq!(
            wrong.unwrap().to_string(),
            "HF_HUB_ETAG_TIMEOUT: \"soon\" is not a number of seconds; a whole number, e.g. 30"
        );
    }

    #[test]
    fn a_password_in_the_endpoint_is_not_shown() {
        let settings = settings(&[("HF_ENDPOINT", "  https://me:secret@hub.local/x/ \n")]);
        assert_eq!(
            settings.endpoint.as_deref(),
            Some("https://me:secret@hub.local/x")
        );
        assert_eq!(settings.hub(), "the hub at https://hub.local");
        assert!(!format!("{settings:?}").contains("secret@"));
    }
}
