//! Directories and patterns of files.

use super::files::{Folder, numbered};
use super::*;

fn folder(files: &[(&str, &[&str])]) -> Folder {
    let folder = Folder::new(&[]);
    for (name, prompts) in files {
        folder.write(name, numbered(prompts));
    }
    folder
}

fn shown(folder: &Folder, names: &[&str]) -> String {
    let rows = folder.rows(names);
    let rows = rows.unwrap_or_else(|message| panic!("{message}"));
    rows.iter().map(|(n, p)| format!("{n}{p} ")).collect()
}

#[test]
fn a_directory_is_all_its_data_files_in_the_order_of_their_names() {
    let folder = folder(&[
        ("data/b.jsonl", &["c"]),
        ("data/a/2.jsonl", &["b"]),
        ("data/a/1.ndjson", &["a"]),
        ("data/.hidden.jsonl", &["no"]),
        ("data/.cache/x.jsonl", &["no"]),
        ("data/README.md", &["no"]),
        ("data/dataset_info.json", &["no"]),
        ("data/LICENSE", &["no"]),
    ]);
    for name in ["data", "data/"] {
        assert_eq!(shown(&folder, &[name]), "0a 1b 2c ");
    }
    let files = folder.files(&["data", "data/b.jsonl"]);
    let paths: Vec<String> = files.paths().map(|p| folder.strip(p.display())).collect();
    assert_eq!(
        paths,
        [
            "data/a/1.ndjson",
            "data/a/2.jsonl",
            "data/b.jsonl",
            "data/b.jsonl"
        ]
    );
    assert!(folder.files(&["data"]).several());
    assert!(!folder.files(&["data/b.jsonl"]).several());
}

#[test]
fn a_slice_counts_all_files_of_its_part() {
    let folder = folder(&[
        ("d/1.jsonl", &["a", "b"]),
        ("d/2.jsonl", &["c"]),
        ("d/3.jsonl", &["d", "e", "f"]),
        ("x.jsonl", &["x"]),
    ]);
    for (slice, rows) in [
        ("[:]", "0a 1b 2c 3d 4e 5f 6x "),
        ("[:2]", "0a 1b 6x "),
        ("[1:4]", "1b 2c 3d 6x "),
        ("[2:3]", "2c 6x "),
        ("[3:]", "3d 4e 5f 6x "),
        ("[50%:]", "3d 4e 5f 6x "),
        ("[:50%]", "0a 1b 2c 6x "),
    ] {
        assert_eq!(shown(&folder, &[&format!("d{slice}"), "x.jsonl"]), rows);
    }
    let message = folder.rows(&["d[:7]"]).unwrap_err();
    assert!(
        message.starts_with("d[:7]: the files have 6 rows"),
        "{message}"
    );
}

#[test]
fn a_pattern_is_the_files_that_it_matches() {
    let folder = folder(&[
        ("data/train-00001.jsonl", &["b"]),
        ("data/train-00000.jsonl", &["a"]),
        ("data/test-00000.jsonl", &["t"]),
        ("data/more/train-00002.jsonl", &["c"]),
        ("odd[1].jsonl", &["o"]),
        ("odd1.jsonl", &["no"]),
        ("star*.jsonl", &["s"]),
        ("starry.jsonl", &["no"]),
    ]);
    for (pattern, rows) in [
        ("data/train-*.jsonl", "0a 1b "),
        ("data/train-0000[1-9].jsonl", "0b "),
        ("data/t{rain,est}-00000.jsonl", "0t 1a "),
        ("data/train-0000?.jsonl[1:]", "1b "),
        ("**/train-*.jsonl", "0c 1a 2b "),
        ("*/more/*", "0c "),
        // A file of this name is that file.
        ("odd[1].jsonl", "0o "),
        ("star*.jsonl", "0s "),
    ] {
        assert_eq!(shown(&folder, &[pattern]), rows, "{pattern}");
    }
    for (pattern, what) in [
        (
            "data/*.parquet",
            "data/*.parquet: no file matches the pattern",
        ),
        (
            "nowhere/*.jsonl",
            "nowhere/*.jsonl: no file matches the pattern",
        ),
        ("data/{a", "data/{a: is not a pattern: "),
    ] {
        let message = folder.rows(&[pattern]).unwrap_err();
        assert!(message.starts_with(what), "{message}");
    }
}

#[test]
fn a_directory_that_is_not_one_dataset_is_refused() {
    for (files, what) in [
        (
            &["d/a.jsonl", "d/b.csv"][..],
            "d: d/a.jsonl and d/b.csv are files of two kinds; name those that are meant",
        ),
        (
            &["d/train-0.jsonl", "d/test-0.jsonl"],
            "d: the directory has several splits of a dataset: d/test-0.jsonl and d/train-0.jsonl; name one",
        ),
        (
            &["d/dev/a.jsonl", "d/train/a.jsonl"],
            "d: the directory has several splits of a dataset: ",
        ),
        (
            &["d/notes.md"],
            "d: the directory has no data files; data files end in .jsonl",
        ),
    ] {
        let files: Vec<(&str, &[&str])> = files.iter().map(|name| (*name, &["a"][..])).collect();
        let message = folder(&files).rows(&["d"]).unwrap_err();
        assert!(message.starts_with(what), "{message}");
    }
    let saved = folder(&[("d/train/a", &[]), ("d/test/a", &[])]);
    saved.write("d/dataset_dict.json", "{\"splits\": [\"train\", \"test\"]}");
    for split in ["train", "test"] {
        saved.write(&format!("d/{split}/state.json"), "{}");
    }
    assert_eq!(
        saved.rows(&["d"]).unwrap_err(),
        "d: the directory has the splits of a dataset; name one of them: `d/test`, `d/train`"
    );
    saved.write(
        "d/train/state.json",
        "{\"_data_files\": [{\"filename\": \"a.jsonl\"}, {\"filename\": \"b.jsonl\"}]}",
    );
    saved.write("d/train/a.jsonl", ROW);
    assert_eq!(
        saved.rows(&["d/train"]).unwrap_err(),
        "d/train: b.jsonl, which state.json names, is missing; copy the whole directory"
    );
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_a_circle_of_them_ends() {
    let folder = folder(&[("blobs/1", &["a"]), ("d/b.jsonl", &["b"])]);
    let link = |from: &str, to: &str| {
        std::os::unix::fs::symlink(folder.path(from), folder.path(to)).unwrap();
    };
    link("blobs/1", "d/a.jsonl");
    link("d", "d/circle");
    assert_eq!(shown(&folder, &["d"]), "0a 1b ");
}
