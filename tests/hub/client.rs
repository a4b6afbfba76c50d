//! A client of a hub, with a cache of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use expo::error::{Error, Result};
use expo::io::hub::{HubSettings, Patience, resolve_with};
use tempfile::TempDir;

use super::server::Hub;

pub const TOKEN: &str = "hf_secretsecret";

pub fn model() -> Hub {
    Hub::start(&[
        ("config.json", "{}"),
        ("tokenizer.json", "{\"t\": 1}"),
        ("model.safetensors", "weights of the model"),
        ("pytorch_model.bin", "never asked for"),
    ])
}

pub struct Client {
    pub folder: TempDir,
    pub settings: HubSettings,
}

impl Client {
    pub fn new(endpoint: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = HubSettings {
            cache: folder.path().join("hub"),
            endpoint: Some(endpoint.to_string()),
            token: Some(TOKEN.into()),
            patience: Patience {
                attempts: 3,
                first_wait: Duration::from_millis(10),
                ..Patience::default()
            },
            ..HubSettings::default()
        };
        Self { folder, settings }
    }

    /// One that waits for nobody.
    pub fn impatient(endpoint: &str) -> Self {
        let mut client = Self::new(endpoint);
        let patience = &mut client.settings.patience;
        patience.answer = Duration::from_millis(150);
        patience.silence = patience.answer;
        patience.window = Duration::from_millis(100);
        patience.least = 1000;
        client
    }

    pub fn get(&self, revision: Option<&str>) -> Result<PathBuf> {
        resolve_with("org/name", revision, &self.settings, &mut |_| ())
    }

    pub fn offline(mut self) -> Self {
        self.settings.offline = true;
        self
    }

    pub fn repository(&self) -> PathBuf {
        self.settings.cache.join("models--org--name")
    }

    /// Every file below the cache under its final name.
    pub fn finished(&self) -> Vec<String> {
        let mut found = Vec::new();
        for part in ["blobs", "snapshots", "refs"] {
            list(&self.repository().join(part), &mut found);
        }
        found
    }
}

fn list(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, found);
        } else {
            found.push(path.display().to_string());
        }
    }
}

/// The message of an error, which is one line and never holds the token.
pub fn message(result: Result<PathBuf>) -> (String, u8) {
    let error: Error = result.unwrap_err();
    let text = error.to_string();
    assert!(!text.contains(TOKEN), "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.len() < 1000, "{text}");
    (text, error.exit_code())
}
