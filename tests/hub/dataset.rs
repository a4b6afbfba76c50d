//! Datasets by name, against the same small hub.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use expo::io::hub::{DatasetFiles, DatasetName, resolve_dataset_with};

use super::client::{Client, TOKEN, message};
use crate::support::fixture;

use super::server::{COMMIT, EXPORT_COMMIT, Fault, Hub};

const README: &str = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    \
                      path: data/train-*\n  - split: test\n    path: data/test.jsonl\n---\n# A set\n";

fn hub() -> Hub {
    Hub::start(&[
        ("README.md", README),
        ("data/train-00000-of-00002.jsonl", "{\"text\": \"a\"}\n"),
        ("data/train-00001-of-00002.jsonl", "{\"text\": \"b\"}\n"),
        ("data/test.jsonl", "{\"text\": \"c\"}\n"),
    ])
}

fn get(client: &Client, name: &str) -> expo::error::Result<DatasetFiles> {
    let name: DatasetName = name.parse().unwrap();
    resolve_dataset_with(&name, &client.settings, &mut |_| ())
}

fn texts(files: &DatasetFiles) -> String {
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
    files.paths.iter().map(text).collect()
}

#[test]
fn a_split_is_downloaded_into_pythons_cache_and_nothing_else_is() {
    let hub = hub();
    let client = Client::new(&hub.endpoint);
    let files = get(&client, "hub:org/name:train").unwrap();
    assert_eq!(texts(&files), "{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
    assert_eq!(files.commit, COMMIT);
    let snapshot = client
        .settings
        .cache
        .join("datasets--org--name/snapshots")
        .join(COMMIT);
    assert_eq!(
        files.paths[0],
        snapshot.join("data/train-00000-of-00002.jsonl")
    );
    assert!(!snapshot.join("data/test.jsonl").exists());
    let paths = hub.requests().into_iter().map(|request| request.path);
    let elsewhere = |path: &String| {
        !path.starts_with("/api/datasets/org/name/")
            && !path.starts_with("/datasets/org/name/resolve/")
    };
    assert_eq!(
        paths.filter(elsewhere).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    // Within a process a name stays what it was.
    hub.forget();
    assert_eq!(get(&client, "hub:org/name:train").unwrap(), files);
    assert!(hub.requests().is_empty());
    assert_eq!(
        texts(&get(&client, "hub:org/name:test").unwrap()),
        "{\"text\": \"c\"}\n"
    );
}

#[test]
fn a_dataset_in_the_cache_needs_no_hub() {
    let hub = hub();
    let client = Client::new(&hub.endpoint);
    let files = get(&client, "hub:org/name:train").unwrap();
    let commit = format!("hub:org/name:train@{COMMIT}");
    let away = client.offline();
    for name in ["hub:org/name:train", &commit] {
        assert_eq!(get(&away, name).unwrap().paths, files.paths, "{name}");
    }
    let (text, code) = message(get(&away, "hub:org/name:test").map(|files| files.paths[0].clone()));
    assert!(
        text.starts_with("hub:org/name:test: data/test.jsonl is not in the hub cache; "),
        "{text}"
    );
    assert_eq!(code, 2);
    let (text, _) =
        message(get(&away, "hub:org/name:train@v2").map(|files| files.paths[0].clone()));
    assert!(
        text.contains("revision `v2` is not in the hub cache"),
        "{text}"
    );
}

#[test]
fn a_cache_without_a_list_serves_only_splits_that_are_whole_by_their_names() {
    let hub = hub();
    let client = Client::new(&hub.endpoint);
    get(&client, "hub:org/name:train").unwrap();
    let directory = client.settings.cache.join("datasets--org--name");
    fs::remove_dir_all(directory.join("expo")).unwrap();
    let away = client.offline();
    // The list in memory is of a name; another spelling of it is looked up again.
    assert_eq!(
        get(&away, "hub:org/name/default:train")
            .unwrap()
            .paths
            .len(),
        2
    );
    let shard = directory
        .join("snapshots")
        .join(COMMIT)
        .join("data/train-00001-of-00002.jsonl");
    fs::remove_file(shard).unwrap();
    let (text, code) =
        message(get(&away, "hub:org/name:train@main").map(|files| files.paths[0].clone()));
    assert!(
        text.contains("does not say whether it has all files of the split"),
        "{text}"
    );
    assert_eq!(code, 2);
}

#[test]
fn a_dataset_that_a_program_makes_is_read_from_the_hubs_parquet() {
    let hub = Hub::start(&[
        ("name.py", "import x\n"),
        ("export:default/train/0000.parquet", "PAR1....PAR1"),
    ]);
    let client = Client::new(&hub.endpoint);
    let files = get(&client, "hub:org/name:train").unwrap();
    assert_eq!(files.commit, EXPORT_COMMIT);
    assert!(files.paths[0].ends_with("default/train/0000.parquet"));
    let (text, _) = message(get(&client, "hub:org/name:test").map(|files| files.paths[0].clone()));
    assert!(text.contains("no split `test`; valid: train"), "{text}");
    let hub = Hub::start(&[("name.py", "import x\n")]);
    let client = Client::new(&hub.endpoint);
    let (text, code) =
        message(get(&client, "hub:org/name:train").map(|files| files.paths[0].clone()));
    assert!(
        text.contains("the repository has no file of rows"),
        "{text}"
    );
    assert_eq!(code, 2);
}

#[test]
fn what_is_no_dataset_is_said_in_one_line() {
    let hub = hub();
    let client = Client::new(&hub.endpoint);
    for (name, says) in [
        ("hub:org/none:train", "has no dataset of this name"),
        (
            "hub:org/name:train@none",
            "the dataset has no revision `none`",
        ),
        (
            "hub:org/name:dev",
            "the dataset has no split `dev`; valid: train, test",
        ),
        (
            "hub:org/name/de:train",
            "the dataset has no configuration `de`",
        ),
        ("hub:org/name:x.csv", "the repository has no file `x.csv`"),
    ] {
        let (text, code) = message(get(&client, name).map(|files| files.paths[0].clone()));
        assert!(text.contains(says) && text.lines().count() == 1, "{text}");
        assert_eq!(code, 2, "{name}");
    }
    hub.fault("(model)", Fault::Status(403));
    let private = Client::new(&hub.endpoint);
    let (text, _) =
        message(get(&private, "hub:org/name:train").map(|files| files.paths[0].clone()));
    assert!(
        text.contains("accept its terms on the dataset's page") && !text.contains(TOKEN),
        "{text}"
    );
}

#[test]
fn a_run_reads_a_slice_of_a_split_and_fetch_says_what_it_is() {
    let hub = Hub::start(&[(
        "train.jsonl",
        "{\"text\": \"One.\"}\n{\"text\": \"Two.\"}\n{\"text\": \"Three.\"}\n",
    )]);
    let place = tempfile::tempdir().unwrap();
    let expo = |args: &[&str], offline: &str| {
        let out = Command::new(env!("CARGO_BIN_EXE_expo"))
            .args(args)
            .current_dir(&place)
            .env("HF_ENDPOINT", &hub.endpoint)
            .env("HF_HUB_CACHE", place.path().join("hub"))
            .env("HF_HUB_OFFLINE", offline)
            .env_remove("HF_TOKEN")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let fetch = ["data", "fetch", "hub:org/name:train", "--json"];
    let (code, out, error) = expo(&fetch, "0");
    assert_eq!(code, Some(0), "{error}");
    let fetched: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(fetched["commit"], COMMIT);
    assert_eq!(fetched["bytes"], 53);
    assert_eq!(fetched["files"].as_array().unwrap().len(), 1);
    let config = format!(
        "[model]\nmodel_name_or_path = {:?}\n[data]\nformat = \"sft\"\ntrain = \"hub:org/name:train[1:]\"\nmax_length = 64\n",
        fixture("neox")
    );
    fs::write(place.path().join("run.toml"), config).unwrap();
    let show = ["data", "show", "--config", "run.toml", "--row", "2"];
    let (code, out, error) = expo(&show, "1");
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("row 2") && out.contains("Three."), "{out}");
    let (code, _, error) = expo(&["data", "fetch", "hub:org/name"], "0");
    assert!(
        code == Some(2) && error.contains("names no split"),
        "{error}"
    );
    let (code, _, error) = expo(&["data", "fetch", "train.jsonl"], "0");
    assert!(
        code == Some(2) && error.contains("no dataset of the hub is named"),
        "{error}"
    );
}
