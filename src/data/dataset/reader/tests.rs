//! The passes over a dataset, in chunks and on disk.

use super::*;
use crate::data::batches::pack::{LengthClass, packed_tokens};
use crate::data::config::OnInvalid;
use crate::data::format::Format;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures").join(name)
}

fn opened(train: PathBuf, needs: &Needs, store: Store, chunk: usize) -> Result<Dataset> {
    let mut config = RowConfig::new(Format::named("pairs").unwrap());
    config.on_invalid = OnInvalid::Error;
    let tokenizer = Tokenizer::open(&fixture("neox")).unwrap();
    let samples = Samples::open(
        &fixture("samples.jsonl").into(),
        tokenizer.max_id() as usize + 1,
    )
    .unwrap();
    let source = Source {
        files: &train.into(),
        config: &config,
        tokenizer: &tokenizer,
        needs,
        samples: Some(&samples),
    };
    Ok(read(&source, None, store, chunk)?.0)
}

fn all(dataset: &Dataset) -> Vec<Example> {
    dataset.examples().collect::<Result<_>>().unwrap()
}

#[test]
fn examples_are_the_same_on_disk_and_in_memory_in_one_chunk_and_in_many() {
    let folder = tempfile::tempdir().unwrap();
    let store = |limit| Store::new(limit, folder.path().to_owned());
    let everything = Needs {
        all: &[Role::Sampled],
        any: &[Role::Chosen, Role::Rejected],
        batch: &[Role::Mismatched],
        ..Needs::referenced_pair()
    };
    for needs in [Needs::referenced_pair(), everything] {
        let open =
            |limit, chunk| opened(fixture("pairs.jsonl"), &needs, store(limit), chunk).unwrap();
        let whole = open(usize::MAX, CHUNK);
        assert!(whole.len() > 1 && !whole.is_empty());
        for (limit, chunk) in [(0, 0), (300, 500), (usize::MAX, 0), (0, CHUNK)] {
            let mut other = open(limit, chunk);
            assert_eq!(all(&other), all(&whole));
            assert_eq!(other.report, whole.report);
            assert_eq!(other.fingerprint, whole.fingerprint);
            other.append(open(CHUNK - limit.min(CHUNK), chunk)).unwrap();
            assert_eq!(all(&other), [all(&whole), all(&whole)].concat());
            for (index, example) in all(&other).iter().enumerate() {
                for roles in [Role::ALL, &[Role::Sampled], &[]] {
                    let count = |class: LengthClass| {
                        let tokens = packed_tokens(example, roles, class);
                        assert_eq!(other.packed_tokens(index, roles, class).unwrap(), tokens);
                        tokens
                    };
                    assert_eq!(other.tokens(index, roles), count(&|_| 0));
                    count(&|length| length);
                }
            }
        }
    }
}

#[test]
fn an_error_in_the_middle_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl");
    let good = std::fs::read_to_string(fixture("pairs.jsonl")).unwrap();
    std::fs::write(&rows, format!("{good}{{\"prompt\": 3}}\n{good}")).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let store = Store::new(0, temporary.path().to_owned());
    let error = opened(rows.clone(), &Needs::referenced_pair(), store, 0).unwrap_err();
    let line = good.lines().count() + 1;
    let place = format!("{}:{line}: ", rows.display());
    assert!(error.to_string().starts_with(&place), "{error}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}
