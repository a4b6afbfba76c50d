//! Several files, slices, lists, text files, and prompts.

use super::*;
use expo::config::PreferenceData;
use expo::data::PromptConfig;
use expo::data::{Files, prompts};

/// Files of one folder, named without it.
pub(super) struct Folder {
    folder: TempDir,
}

impl Folder {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for (name, contents) in files {
            folder.write(name, contents);
        }
        folder
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }

    pub(super) fn files(&self, names: &[&str]) -> Files {
        let folder = self.folder.path().display();
        let quoted: Vec<String> = names.iter().map(|n| format!("'{folder}/{n}'")).collect();
        let text = format!("files = [{}]", quoted.join(", "));
        let mut table: std::collections::BTreeMap<String, Files> = toml::from_str(&text).unwrap();
        table.remove("files").unwrap()
    }

    pub(super) fn strip(&self, message: impl ToString) -> String {
        let folder = format!("{}/", self.folder.path().display());
        message.to_string().replace(&folder, "")
    }

    /// Number and prompt of each row, or the error.
    pub(super) fn rows(&self, names: &[&str]) -> std::result::Result<Vec<(usize, String)>, String> {
        let files = self.files(names);
        let row = |row: Result<(usize, expo::data::read::Row)>| {
            let (number, row) = row?;
            Ok((number, row.text("prompt")?.to_owned()))
        };
        let rows: Result<Vec<_>> = files.rows().map(row).collect();
        rows.map_err(|error| self.strip(error))
    }
}

pub(super) fn numbered(prompts: &[&str]) -> String {
    let row = |prompt: &&str| format!("{{\"prompt\": \"{prompt}\"}}\n\n");
    prompts.iter().map(row).collect()
}

#[test]
fn slices_count_rows_from_0_and_leave_numbers_alone() {
    let five = numbered(&["a", "b", "c", "d", "e"]);
    let scene = Folder::new(&[("five.jsonl", &five), ("two.jsonl", &numbered(&["x", "y"]))]);
    let rows = |names: &[&str]| -> String {
        let rows = scene.rows(names).unwrap();
        rows.iter().map(|(n, p)| format!("{n}{p} ")).collect()
    };
    assert_eq!(rows(&["five.jsonl"]), "0a 1b 2c 3d 4e ");
    assert_eq!(rows(&["five.jsonl[:2]"]), "0a 1b ");
    assert_eq!(rows(&["five.jsonl[3:]"]), "3d 4e ");
    assert_eq!(rows(&["five.jsonl[1:3]"]), "1b 2c ");
    assert_eq!(rows(&["five.jsonl[:]"]), "0a 1b 2c 3d 4e ");
    // 50% of 5 is 2.5, which rounds to the even 2, and 30% is 1.5, which rounds to 2.
    assert_eq!(rows(&["five.jsonl[:50%]"]), "0a 1b ");
    assert_eq!(rows(&["five.jsonl[50%:]"]), "2c 3d 4e ");
    assert_eq!(rows(&["five.jsonl[30%:100%]"]), "2c 3d 4e ");
    assert_eq!(
        rows(&["five.jsonl[4:]", "two.jsonl", "five.jsonl[:1]"]),
        "4e 5x 6y 7a "
    );
    for (name, what) in [
        (
            "five.jsonl[:6]",
            "five.jsonl[:6]: the file has 5 rows; a slice lies within",
        ),
        (
            "five.jsonl[6:]",
            "five.jsonl[6:]: the file has 5 rows; a slice lies within",
        ),
        (
            "five.jsonl[2:2]",
            "five.jsonl[2:2]: no row of 5 is in the slice",
        ),
        (
            "five.jsonl[3:1]",
            "five.jsonl[3:1]: no row of 5 is in the slice",
        ),
        (
            "five.jsonl[:1%]",
            "five.jsonl[:1%]: no row of 5 is in the slice",
        ),
        ("none.jsonl[:1]", "none.jsonl: no such file"),
    ] {
        let message = scene.rows(&[name]).unwrap_err();
        assert!(message.starts_with(what), "{message}");
    }
    // What is outside the slice is not read.
    let odd = Folder::new(&[("odd.jsonl", "nonsense\n{\"prompt\": \"a\"}\nnonsense\n")]);
    assert_eq!(
        odd.rows(&["odd.jsonl[1:2]"]).unwrap(),
        [(1, "a".to_owned())]
    );
    assert!(
        odd.rows(&["odd.jsonl"])
            .unwrap_err()
            .starts_with("odd.jsonl:1: not JSON")
    );
}

#[test]
fn what_is_no_slice_is_refused() {
    for (text, what) in [
        ("[]", "the list of files is empty"),
        (
            "'rows.jsonl[5]'",
            "`rows.jsonl[5]` ends in no slice: valid are e.g. [:1000]",
        ),
        ("'rows.jsonl[a:]'", "ends in no slice"),
        ("'rows.jsonl[:5'", "is not closed: [:5]"),
        ("'rows.jsonl[-5:]'", "ends in no slice"),
        ("'rows.jsonl[:101%]'", "ends in no slice"),
        ("['']", "the path is empty"),
        ("3", "expected a path or a list of paths"),
    ] {
        let text = format!("format = 'pairs'\ntrain = {text}");
        let error = toml::from_str::<PreferenceData>(&text).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn several_files_are_one_dataset_whose_report_names_them() {
    let bad = ROW.replace("yes", "");
    let both = [
        ("a.jsonl", &format!("{ROW}\n{bad}")[..]),
        ("b.jsonl", &bad),
        ("c.jsonl", ROW),
    ];
    let scene = Folder::new(&both);
    let files = scene.files(&["a.jsonl", "b.jsonl", "c.jsonl"]);
    let config = RowConfig::new(Format::named("pairs").unwrap());
    let tokenizer = Tokenizer::open(&fixture("data/byte-level")).unwrap();
    let dataset = Dataset::open(&files, &config, &tokenizer, &PAIR, None).unwrap();
    let rows: Vec<usize> = examples(&dataset).iter().map(|e| e.row).collect();
    assert_eq!(rows, [0, 3]);
    let first = &dataset.report.invalid[&Invalid::EmptyAnswer].first;
    let first: Vec<String> = first.iter().map(|line| scene.strip(line)).collect();
    assert_eq!(first, ["a.jsonl:2", "b.jsonl:1"]);
    assert_eq!(dataset.report.rows, 4);
}

#[test]
fn a_json_list_is_read_by_its_items() {
    let list = "\n[\n {\"prompt\": \"a\"},\n {\"prompt\": \"b\"}, 3,\n {\"prompt\": \"c\"}]\n";
    let scene = Folder::new(&[
        ("list.json", list),
        (
            "broken.json",
            "[\n {\"prompt\": \"a\"},\n {\"prompt\" \"b\"}]",
        ),
        ("empty.json", "[]"),
        ("column.json", "[{\"prompt\": \"a\"}, {\"text\": 1}]"),
    ]);
    assert_eq!(
        scene.rows(&["list.json[1:2]"]).unwrap(),
        [(1, "b".to_owned())]
    );
    for (name, what) in [
        (
            "list.json",
            "list.json: item 3: the item is JSON, but not an object",
        ),
        (
            "broken.json",
            "broken.json:3: not JSON: expected `:` at column 12; a file that begins with `[`",
        ),
        ("empty.json", "empty.json: the file has no rows"),
        (
            "column.json",
            "column.json: item 2: the row has no column `prompt`, only `text`",
        ),
    ] {
        let message = scene.rows(&[name]).unwrap_err();
        assert!(message.starts_with(what), "{message}");
    }
}

#[test]
fn prompts_are_unique_and_cut_and_of_any_format() {
    let start = "\n\nHuman: a\n\nAssistant:";
    let hh = |chosen: &str, rejected: &str| {
        serde_json::json!({"chosen": chosen, "rejected": rejected}).to_string()
    };
    let transcripts = [
        hh(&format!("{start} yes"), &format!("{start} no")),
        hh(&format!("{start} "), &format!("{start} no")),
        hh("no turn", "no turn"),
    ];
    let scene = Folder::new(&[
        ("a.txt", "one\r\n\n  two\none\n"),
        ("b.txt", "two\nthree, which is long\n"),
        ("pairs.jsonl", ROW),
        ("hh.jsonl", &transcripts.join("\n")),
        ("text.jsonl", "{\"text\": \"a\"}"),
    ]);
    std::fs::write(scene.folder.path().join("bytes.txt"), b"one\n\xff\n").unwrap();
    let tokenizer = Tokenizer::open(&fixture("data/byte-level")).unwrap();
    let mut config = PromptConfig {
        max_prompt_length: Some(8),
        truncation_mode: Some(TruncationMode::KeepStart),
        ..PromptConfig::new(Format::named("hh").unwrap())
    };
    let read = |config: &PromptConfig, names: &[&str]| {
        let files = scene.files(names);
        let format = Format::of_file(&files).map_err(|error| scene.strip(error))?;
        let config = PromptConfig {
            format,
            ..config.clone()
        };
        prompts(&files, &config, &tokenizer).map_err(|error| scene.strip(error))
    };
    let found = read(&config, &["a.txt", "b.txt[1:]"]).unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|p| (p.text.as_str(), scene.strip(&p.place), p.cut, p.ids.len()))
        .collect();
    assert_eq!(
        shown,
        [
            ("one", "a.txt:1".to_owned(), false, 3),
            ("  two", "a.txt:3".to_owned(), false, 5),
            ("three, which is long", "b.txt:2".to_owned(), true, 8),
        ]
    );
    assert_eq!(tokenizer.decode(&found[2].ids, false).unwrap(), "three, w");
    assert_eq!(read(&config, &["pairs.jsonl"]).unwrap()[0].text, "p");
    // An answer that says nothing does not matter, a row without a prompt does.
    let found = read(&config, &["hh.jsonl"]).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].text, start);
    config.on_invalid = OnInvalid::Error;
    let message = read(&config, &["hh.jsonl"]).unwrap_err();
    assert!(
        message.starts_with("hh.jsonl:3: the transcript has no"),
        "{message}"
    );
    let message = read(&config, &["bytes.txt"]).unwrap_err();
    assert_eq!(
        message,
        "bytes.txt:2: byte 1 of the line is not UTF-8; rows are UTF-8"
    );
    let message = read(&config, &["text.jsonl"]).unwrap_err();
    assert!(
        message.starts_with("text.jsonl:1: the row has no prompt; its whole text"),
        "{message}"
    );
}

#[test]
fn unlabelled_rows_have_a_ratio_and_a_ratio_has_rows() {
    let message = |keys: &str| {
        let text = format!("format = 'pairs'\ntrain = 'a'\n{keys}");
        let config: PreferenceData = toml::from_str(&text).unwrap();
        config.validate().unwrap_err().to_string()
    };
    assert_eq!(
        message("unlabelled_ratio = 2.0"),
        "unlabelled_ratio is 2 without unlabelled rows; \
         name their files in data.unlabelled, or leave the key out"
    );
    for ratio in ["0.0", "-1.0", "nan", "inf"] {
        let message = message(&format!("unlabelled = 'u'\nunlabelled_ratio = {ratio}"));
        assert!(message.contains("must be > 0 and finite"), "{message}");
    }
}
