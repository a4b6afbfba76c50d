//! Repositories of every layout, and which of their files are a split.

use super::*;

fn find(files: &[&str], readme: &str, config: Option<&str>, wanted: &str) -> String {
    let mut files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
    files.sort_unstable();
    let readme = (!readme.is_empty()).then(|| readme.to_owned());
    match split(&Repository::new("org/name", &files, readme), config, wanted) {
        Ok(Some(files)) => files.join(" "),
        Ok(None) => "none".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn splits_are_found_by_the_names_of_files() {
    let shards = [
        "data/train-00000-of-00002-ab12.parquet",
        "data/train-00001-of-00002-cd34.parquet",
        "data/test_prefs-00000-of-00001.parquet",
        "README.md",
        "data/notes.txt",
    ];
    let train = "data/train-00000-of-00002-ab12.parquet data/train-00001-of-00002-cd34.parquet";
    assert_eq!(find(&shards, "", None, "train"), train);
    assert_eq!(
        find(&shards, "", None, "test_prefs"),
        "data/test_prefs-00000-of-00001.parquet"
    );
    assert_eq!(
        find(&shards, "", None, "eval"),
        "the dataset has no split `eval`; valid: test_prefs, train"
    );
    let folders = [
        "harmless/train.jsonl.gz",
        "harmless/test.jsonl.gz",
        "red/red.jsonl.gz",
    ];
    assert_eq!(find(&folders, "", None, "train"), "harmless/train.jsonl.gz");
    assert_eq!(
        find(&folders, "", Some("harmless"), "test"),
        "harmless/test.jsonl.gz"
    );
    assert_eq!(find(&folders, "", Some("red"), "train"), "red/red.jsonl.gz");
    let named = [
        "my-train-1.csv",
        "training/x.txt",
        "dev/a.csv",
        "dev/b.csv",
        "dev/c.json",
    ];
    assert_eq!(find(&named, "", None, "validation"), "dev/a.csv dev/b.csv");
    assert_eq!(find(&named, "", None, "train"), "training/x.txt");
    assert_eq!(find(&named[..1], "", None, "train"), "my-train-1.csv");
    let any = [
        "a.jsonl",
        "b.jsonl",
        ".hidden.jsonl",
        "config.json",
        "x.png",
    ];
    assert_eq!(find(&any, "", None, "train"), "a.jsonl b.jsonl");
    assert_eq!(find(&["x.zip", "README.md"], "", None, "train"), "none");
    assert_eq!(find(&["name.py", "a.jsonl"], "", None, "train"), "none");
}

#[test]
fn splits_are_found_by_the_readme() {
    let readme = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: m/*\n\
                  - config_name: extra\n  data_dir: e\n---\n";
    let files = [
        "m/1.jsonl",
        "m/2.jsonl",
        "m/x.md",
        "e/test.csv",
        "README.md",
    ];
    assert_eq!(
        find(&files, readme, Some("main"), "train"),
        "m/1.jsonl m/2.jsonl"
    );
    assert_eq!(find(&files, readme, Some("extra"), "test"), "e/test.csv");
    assert_eq!(
        find(&files, readme, None, "train"),
        "the dataset has several configurations; write hub:OWNER/NAME/CONFIG:SPLIT with one of: main, extra"
    );
    let default = readme.replace("  data_dir: e", "  data_dir: e\n  default: true");
    assert_eq!(find(&files, &default, None, "test"), "e/test.csv");
    let error = find(&files, readme, Some("none"), "train");
    assert!(
        error.starts_with("the dataset has no configuration `none`"),
        "{error}"
    );
    let mixed = find(&["m/1.jsonl", "m/2.csv"], readme, Some("main"), "train");
    assert!(
        mixed.starts_with("split `train` is files of several kinds: m/1.jsonl, m/2.csv"),
        "{mixed}"
    );
    let outside = readme.replace("m/*", "https://example.org/x.csv");
    let error = find(&files, &outside, Some("main"), "train");
    assert!(error.contains("outside the repository"), "{error}");
}

#[test]
fn a_file_or_a_pattern_is_a_split_too() {
    let files = ["a/x.jsonl", "a/y.jsonl", "b.txt"];
    assert_eq!(find(&files, "", None, "a/*.jsonl"), "a/x.jsonl a/y.jsonl");
    assert_eq!(find(&files, "", Some("a"), "y.jsonl"), "a/y.jsonl");
    assert_eq!(
        find(&files, "", None, "c.txt"),
        "the repository has no file `c.txt`"
    );
}

#[test]
fn the_parquet_that_the_hub_made_is_by_configuration_and_split() {
    let files: Vec<String> = [
        "de/train/0000.parquet",
        "en/test/0000.parquet",
        "en/train/0000.parquet",
        "en/train/0001.parquet",
        "fr/partial-train/0000.parquet",
    ]
    .map(str::to_owned)
    .into();
    let find = |config, split| match exported(&files, config, split) {
        Ok(files) => files.join(" "),
        Err(error) => error.to_string(),
    };
    assert_eq!(
        find(Some("en"), "train"),
        "en/train/0000.parquet en/train/0001.parquet"
    );
    assert_eq!(
        find(Some("en"), "dev"),
        "the dataset has no split `dev`; valid: test, train"
    );
    assert!(find(None, "train").starts_with("the dataset has several configurations"));
    assert!(find(Some("fr"), "train").contains("the beginning of split `train` alone"));
    assert!(find(Some("it"), "train").starts_with("the dataset has no configuration `it`"));
}

#[test]
fn shards_say_how_many_they_are() {
    let all =
        |files: &[&str]| names_all(&files.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
    assert!(all(&[
        "a-00000-of-00002.parquet",
        "a-00001-of-00002.parquet"
    ]));
    assert!(all(&["a.jsonl"]) && all(&["a-00000-of-00001.parquet"]));
    assert!(!all(&["a-00000-of-00002.parquet"]) && !all(&["a.jsonl", "b.jsonl"]));
}
