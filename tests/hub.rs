//! The hub client against a small hub of our own on 127.0.0.1: nothing here leaves the machine.

pub mod client;
mod dataset;
pub mod server;

use std::fs;
use std::path::Path;

use client::{Client, TOKEN, message, model};
use expo::io::hub::{HubSettings, resolve_tokenizer, resolve_with};
use server::{COMMIT, Fault, Hub, OTHER_COMMIT, sha256};

#[test]
fn a_tokenizer_comes_without_the_weights_and_they_come_when_asked_for() {
    let hub = model();
    let client = Client::new(&hub.endpoint);
    let tokenizer = || resolve_tokenizer("org/name", None, &client.settings, &mut |_| ());
    let folder = tokenizer().unwrap();
    assert!(folder.join("tokenizer.json").is_file());
    assert!(!folder.join("model.safetensors").exists());
    assert_eq!(client.get(None).unwrap(), folder);
    assert!(folder.join("model.safetensors").is_file());

    let other = Client::new(&hub.endpoint);
    resolve_tokenizer("org/name", None, &other.settings, &mut |_| ()).unwrap();
    let other = other.offline();
    resolve_tokenizer("org/name", None, &other.settings, &mut |_| ()).unwrap();
    let (text, code) = message(other.get(None));
    assert!(
        text.contains("model.safetensors is not in the hub cache"),
        "{text}"
    );
    assert_eq!(code, 2);
}

#[test]
fn every_file_of_the_tokenizer_and_every_chat_template_is_downloaded() {
    let files = [
        ("config.json", "{}"),
        ("added_tokens.json", "{}"),
        ("additional_chat_templates/tool_use.jinja", "tools"),
        ("additional_chat_templates/README.md", "never asked for"),
        ("chat_template.jinja", "chat"),
        ("generation_config.json", "{}"),
        ("merges.txt", "merges"),
        ("special_tokens_map.json", "{}"),
        ("tokenizer.json", "{}"),
        ("tokenizer.model", "model"),
        ("tokenizer_config.json", "{}"),
        ("vocab.json", "{}"),
    ];
    let hub = Hub::start(&files);
    let client = Client::new(&hub.endpoint);
    let folder = resolve_tokenizer("org/name", None, &client.settings, &mut |_| ()).unwrap();
    for (name, text) in files {
        match name.ends_with(".md") {
            true => assert!(!folder.join(name).exists(), "{name}"),
            false => assert_eq!(
                fs::read_to_string(folder.join(name)).unwrap(),
                text,
                "{name}"
            ),
        }
    }
    #[cfg(unix)]
    {
        let template = folder.join("additional_chat_templates/tool_use.jinja");
        let blob = &sha256(b"tools")[..40];
        assert_eq!(
            fs::read_link(template).unwrap(),
            Path::new("../../../blobs").join(blob)
        );
    }
}

#[test]
fn a_model_is_downloaded_once() {
    let hub = model();
    let client = Client::new(&hub.endpoint);
    let folder = client.get(None).unwrap();
    assert_eq!(
        folder,
        client.repository().join(format!("snapshots/{COMMIT}"))
    );
    let weights = folder.join("model.safetensors");
    assert_eq!(
        fs::read_to_string(&weights).unwrap(),
        "weights of the model"
    );
    assert!(!folder.join("pytorch_model.bin").exists());
    let known = fs::read_to_string(client.repository().join("refs/main")).unwrap();
    assert_eq!(known, COMMIT);
    assert!(hub.requests().iter().all(|r| r.token == Some(TOKEN.into())));
    assert!(!client.repository().join(".downloading").exists());

    hub.forget();
    assert_eq!(client.get(None).unwrap(), folder);
    assert_eq!(hub.files_asked_for(), Vec::<String>::new());
    // A commit cannot move, so nobody is asked.
    hub.forget();
    assert_eq!(client.get(Some(COMMIT)).unwrap(), folder);
    assert_eq!(hub.requests().len(), 0);
}

#[cfg(unix)]
#[test]
fn snapshots_hold_the_relative_links_that_python_writes() {
    let hub = model();
    let client = Client::new(&hub.endpoint);
    let folder = client.get(None).unwrap();
    let target = fs::read_link(folder.join("model.safetensors")).unwrap();
    let sum = sha256(b"weights of the model");
    assert_eq!(target, Path::new("../../blobs").join(sum));
}

#[test]
fn progress_ends_at_the_size_of_each_file() {
    let hub = model();
    let client = Client::new(&hub.endpoint);
    let mut last = std::collections::BTreeMap::new();
    let mut observe = |d: expo::io::hub::Download<'_>| {
        last.insert(d.file.to_string(), (d.done, d.total));
    };
    resolve_with("org/name", None, &client.settings, &mut observe).unwrap();
    assert_eq!(last["model.safetensors"], (20, 20));
    assert_eq!(last.len(), 3);
}

#[test]
fn all_shards_are_downloaded_and_their_names_checked() {
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let files = [
        ("config.json", "{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", "one"),
        ("model-2.safetensors", "two"),
    ];
    let hub = Hub::start(&files);
    let client = Client::new(&hub.endpoint);
    let folder = client.get(None).unwrap();
    assert_eq!(
        fs::read_to_string(folder.join("model-2.safetensors")).unwrap(),
        "two"
    );

    for odd in [
        "../up.safetensors",
        "a/b.safetensors",
        "model.bin",
        ".safetensors",
    ] {
        let index = format!(r#"{{"weight_map": {{"a": "{odd}"}}}}"#);
        let hub = Hub::start(&[
            ("config.json", "{}"),
            ("model.safetensors.index.json", &index),
        ]);
        let (text, code) = message(Client::new(&hub.endpoint).get(None));
        assert!(text.contains("weight_map names"), "{text}");
        assert_eq!(code, 2);
    }
    let hub = Hub::start(&files[..3]);
    let (text, _) = message(Client::new(&hub.endpoint).get(None));
    assert!(text.contains("names model-2.safetensors, which"), "{text}");
}

#[test]
fn a_revision_is_its_own_snapshot_and_shares_the_blobs() {
    let hub = model();
    let client = Client::new(&hub.endpoint);
    client.get(None).unwrap();
    hub.forget();
    let folder = client.get(Some("refs/pr/1")).unwrap();
    assert!(folder.ends_with(OTHER_COMMIT));
    let known = fs::read_to_string(client.repository().join("refs/refs/pr/1")).unwrap();
    assert_eq!(known, OTHER_COMMIT);
    assert_eq!(hub.bytes_sent(), 0, "the blobs are there");

    let (text, code) = message(client.get(Some("no-such-branch")));
    assert!(text.contains("no revision `no-such-branch`"), "{text}");
    assert_eq!(code, 2);
    let (text, _) = message(client.get(Some("../../elsewhere")));
    assert!(text.contains("not a valid name"), "{text}");
}

#[test]
fn a_gated_or_private_model_asks_for_the_token() {
    for (status, with, without) in [
        (403, "as the user of HF_TOKEN", "then set HF_TOKEN"),
        (
            401,
            "the token in HF_TOKEN is valid",
            "set HF_TOKEN to a token",
        ),
    ] {
        let hub = model();
        hub.fault("config.json", Fault::Status(status));
        let mut client = Client::new(&hub.endpoint);
        let (text, code) = message(client.get(None));
        assert!(text.contains(with), "{text}");
        assert_eq!(code, 2);
        client.settings.token = None;
        let (text, _) = message(client.get(None));
        assert!(text.contains(without), "{text}");
        assert_eq!(client.finished(), Vec::<String>::new());
    }
}

#[test]
fn what_is_no_model_is_said_in_one_line() {
    let hub = model();
    let client = Client::new(&hub.endpoint);
    let ask = |name: &str| message(resolve_with(name, None, &client.settings, &mut |_| ()));
    let (text, code) = ask("org/none");
    assert!(text.starts_with("org/none: no such directory, and the hub at"));
    assert_eq!(code, 2);
    hub.forget();
    for path in [
        "./none",
        "a/b/c",
        "/none/here",
        "org/../name",
        "~/model",
        "",
    ] {
        let (text, code) = ask(path);
        assert!(
            text.contains("no such directory; give a model directory"),
            "{text}"
        );
        assert_eq!(code, 2);
    }
    assert_eq!(hub.requests().len(), 0, "such names are not asked for");
    let file = client.folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(ask(file.to_str().unwrap()).0.contains("a file, where"));
    let folder = client.folder.path();
    let found = resolve_with(
        folder.to_str().unwrap(),
        None,
        &client.settings,
        &mut |_| (),
    );
    assert_eq!(found.unwrap(), folder);

    let hub = Hub::start(&[("config.json", "{}"), ("pytorch_model.bin", "pickle")]);
    let (text, _) = message(Client::new(&hub.endpoint).get(None));
    assert!(text.contains("no safetensors weights"), "{text}");
}

#[test]
fn an_adapter_comes_with_its_tokenizer_and_works_offline() {
    let hub = Hub::start(&[
        ("adapter_config.json", "{}"),
        ("adapter_model.safetensors", "weights of the adapter"),
        ("tokenizer.json", "{\"t\": 1}"),
        ("training_args.bin", "never asked for"),
    ]);
    let client = Client::new(&hub.endpoint);
    let folder = client.get(None).unwrap();
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let expected = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    let client = client.offline();
    assert_eq!(client.get(None).unwrap(), folder);
    fs::remove_file(folder.join("adapter_model.safetensors")).unwrap();
    let (text, _) = message(client.get(None));
    assert!(
        text.contains("adapter_model.safetensors is not in"),
        "{text}"
    );

    let hub = Hub::start(&[
        ("adapter_config.json", "{}"),
        ("adapter_model.bin", "pickle"),
    ]);
    let (text, _) = message(Client::new(&hub.endpoint).get(None));
    assert!(
        text.contains("adapter_model.safetensors is needed"),
        "{text}"
    );
}

#[test]
fn offline_works_from_the_cache_alone() {
    let hub = model();
    let client = Client::new(&hub.endpoint);
    let folder = client.get(None).unwrap();
    hub.forget();
    let client = client.offline();
    assert_eq!(client.get(None).unwrap(), folder);
    let (text, code) = message(client.get(Some("v2")));
    assert!(text.contains("`v2` is not in the hub cache"), "{text}");
    assert!(text.contains("HF_HUB_OFFLINE"), "{text}");
    assert_eq!(code, 2);
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let (text, _) = message(client.get(None));
    assert!(text.contains("model.safetensors is not in"), "{text}");
    assert_eq!(hub.requests().len(), 0);
}

#[cfg(unix)]
#[test]
fn a_cache_that_python_filled_is_used_and_completed() {
    let hub = model();
    let client = Client::new(&hub.endpoint);
    let repository = client.repository();
    let snapshot = repository.join("snapshots").join(COMMIT);
    for folder in ["blobs", "refs", ".no_exist"] {
        fs::create_dir_all(repository.join(folder)).unwrap();
    }
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    let put = |file: &str, etag: &str, text: &str| {
        fs::write(repository.join("blobs").join(etag), text).unwrap();
        let target = Path::new("../../blobs").join(etag);
        std::os::unix::fs::symlink(target, snapshot.join(file)).unwrap();
    };
    put("config.json", "99914b932bd37a50b983c5e7c90ae93b", "{}");
    let sum = sha256(b"weights of the model");
    put("model.safetensors", &sum, "weights of the model");

    let client = client.offline();
    assert_eq!(client.get(None).unwrap(), snapshot);
    assert_eq!(hub.requests().len(), 0);
    let online = Client {
        settings: HubSettings {
            offline: false,
            ..client.settings.clone()
        },
        ..client
    };
    assert_eq!(online.get(None).unwrap(), snapshot);
    let asked = hub.files_asked_for();
    assert!(
        asked.iter().all(|file| file == "tokenizer.json"),
        "{asked:?}"
    );

    // A link whose blob was cleaned away is as good as no file.
    fs::remove_file(repository.join("blobs").join(&sum)).unwrap();
    online.get(None).unwrap();
    assert!(snapshot.join("model.safetensors").exists());
}

#[test]
fn a_truncated_download_leaves_nothing_and_is_resumed() {
    let hub = model();
    hub.fault("model.safetensors", Fault::CutAt(7));
    let client = Client::new(&hub.endpoint);
    let (text, code) = message(client.get(None));
    assert!(
        text.contains("`model.safetensors` cannot be downloaded"),
        "{text}"
    );
    assert_eq!(code, 1);
    let finished = client.finished();
    assert_eq!(finished.len(), 4, "two files and their blobs: {finished:?}");
    assert!(client.offline().get(None).is_err());

    let client = Client::new(&hub.endpoint);
    hub.fault("model.safetensors", Fault::CutOnce(7));
    hub.forget();
    let folder = client.get(None).unwrap();
    let text = fs::read_to_string(folder.join("model.safetensors")).unwrap();
    assert_eq!(text, "weights of the model");
    let ranges: Vec<_> = hub.requests().iter().map(|r| r.range.clone()).collect();
    assert!(ranges.contains(&Some("bytes=7-".into())), "{ranges:?}");
}

#[test]
fn wrong_bytes_of_the_right_length_are_refused() {
    let hub = model();
    hub.fault("model.safetensors", Fault::Body("WEIGHTS of the model"));
    let client = Client::new(&hub.endpoint);
    let (text, _) = message(client.get(None));
    assert!(text.contains("arrived incomplete"), "{text}");
    assert_eq!(client.finished().len(), 4);
}

#[test]
fn a_hub_that_is_away_or_refuses_leaves_the_cache_in_use() {
    let hub = model();
    let mut client = Client::new(&hub.endpoint);
    let folder = client.get(None).unwrap();
    hub.fault("(model)", Fault::Status(503));
    assert_eq!(client.get(None).unwrap(), folder);
    let (text, code) = message(client.get(Some("v2")));
    assert!(text.contains("answered 503"), "{text}");
    assert_eq!(code, 1);
    // Port 9 is discard: nobody listens there.
    client.settings.endpoint = Some("http://me:password@127.0.0.1:9".into());
    assert_eq!(client.get(None).unwrap(), folder);
    let (text, code) = message(client.get(Some("v2")));
    assert!(
        text.contains("http://127.0.0.1:9 cannot be reached"),
        "{text}"
    );
    assert!(!text.contains("password"), "{text}");
    assert_eq!(code, 1);
}

#[test]
fn an_odd_server_is_an_error_and_not_a_panic() {
    for (file, fault) in [
        ("(model)", Fault::Body("<html>Welcome to the café</html>")),
        (
            "(model)",
            Fault::Body(r#"{"sha": "../../x", "siblings": []}"#),
        ),
        ("config.json", Fault::Etag("../../../../escaped")),
        ("config.json", Fault::NoHeaders),
        ("config.json", Fault::RedirectToNowhere),
    ] {
        let hub = model();
        hub.fault(file, fault);
        let client = Client::new(&hub.endpoint);
        let (text, code) = message(client.get(None));
        assert!(text.contains("is HF_ENDPOINT right?"), "{text}");
        assert_eq!(code, 1);
        assert_eq!(client.finished(), Vec::<String>::new());
    }
}
