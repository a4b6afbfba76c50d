//! The order of an epoch, the configuration, the fingerprint, and real data.

use super::*;
use expo::config::PreferenceData;

#[test]
fn the_order_of_an_epoch_never_changes() {
    // Computed apart from this code, from the definition of ChaCha8.
    assert_eq!(epoch_order(4, 0, 0, false), [0, 1, 2, 3]);
    assert_eq!(epoch_order(10, 0, 0, true), [8, 6, 3, 1, 2, 5, 0, 4, 9, 7]);
    assert_eq!(epoch_order(10, 7, 3, true), [6, 0, 3, 1, 2, 4, 8, 5, 9, 7]);
    assert_eq!(epoch_order(1, 0, 0, true), [0]);
    assert!(epoch_order(0, 0, 0, true).is_empty());
}

#[test]
fn every_order_is_equally_likely() {
    let mut counts = std::collections::HashMap::new();
    for epoch in 0..24_000 {
        *counts
            .entry(epoch_order(4, 1, epoch, true))
            .or_insert(0_i32) += 1;
    }
    assert_eq!(counts.len(), 24);
    // 1000 expected, standard deviation 31.
    assert!(
        counts.values().all(|count| (count - 1000).abs() < 150),
        "{counts:?}"
    );
}

#[test]
fn a_configuration_is_read_with_its_defaults_and_written_again() {
    let config: PreferenceData = toml::from_str("format = \"hh\"\ntrain = \"rows.jsonl\"").unwrap();
    assert_eq!(
        config,
        PreferenceData::new(Format::named("hh").unwrap(), "rows.jsonl")
    );
    let kept = config
        .rows
        .format
        .truncation(config.rows.length.truncation_mode, false);
    assert_eq!(kept, TruncationMode::KeepEnd);
    let text = toml::to_string(&config).unwrap();
    assert!(text.contains("add_bos = \"auto\"\n"), "{text}");
    assert_eq!(toml::from_str::<PreferenceData>(&text).unwrap(), config);
    let all = "format = \"sft\"\ntrain = \"a\"\neval = [\"b[:9]\", \"c[10%:]\"]\nmax_length = 9\nmax_prompt_length = 3\n\
               truncation_mode = \"keep_end\"\ntokenize = \"separate\"\nadd_bos = false\n\
               on_invalid = \"error\"\nmax_invalid_fraction = 0.2\napply_chat_template = true\nassistant_turns = \"last\"\n\
               pairing = \"all\"\nscores = \"bradley_terry\"\nsamples = \"c\"\nunlabelled = [\"u.txt\"]\n\
               unlabelled_ratio = 0.5\nreference_log_probs = \"d\"\n\
               official_truncation = true\nshuffle = false\n";
    let config: PreferenceData = toml::from_str(all).unwrap();
    assert_eq!(toml::to_string(&config).unwrap(), all);
    let mapped = "train = \"a\"\ncolumns = { prompt = \"q[0].b\", system = { value = \"s\" } }";
    let config: PreferenceData = toml::from_str(mapped).unwrap();
    let again = toml::to_string(&config).unwrap();
    assert!(again.contains("format = \"auto\"\n"), "{again}");
    assert_eq!(toml::from_str::<PreferenceData>(&again).unwrap(), config);
    for (key, what) in [
        (
            "format = \"pair\"",
            "no format `pair`; did you mean `pairs`?",
        ),
        (
            "format = \"hh\"\nadd_bos = true",
            "`add_bos` is true; valid: \"auto\" or false",
        ),
        (
            "format = \"hh\"\nadd_bos = 3",
            "`add_bos` is \"auto\" or false",
        ),
        ("format = \"hh\"\nmax_len = 3", "unknown field `max_len`"),
    ] {
        let error = toml::from_str::<PreferenceData>(&format!("train = \"a\"\n{key}")).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn a_fingerprint_is_of_tokens_order_and_labels() {
    let open = |rows: &str| {
        Scene::new("pairs", "byte-level", rows)
            .open(&PAIR)
            .unwrap()
            .fingerprint
    };
    let other = ROW.replace("yes", "yet");
    let labelled = ROW.replace('}', ", \"preference\": 1.0}");
    let base = open(&format!("{ROW}\n{other}"));
    assert_eq!(
        base,
        open(&format!("\n{}\n\n{other}\n", ROW.replace("7", "8")))
    );
    assert_ne!(base, open(&format!("{other}\n{ROW}")));
    assert_ne!(base, open(&format!("{labelled}\n{other}")));
}

fn real(
    fixtures: &Path,
    format: &str,
    rows: &str,
    tokenizer: &str,
) -> (Files, RowConfig, Tokenizer) {
    let config = RowConfig::new(Format::named(format).unwrap());
    let tokenizer = Tokenizer::open(&fixtures.join(tokenizer)).unwrap();
    (fixtures.join(rows).into(), config, tokenizer)
}

/// Holds the first pairs of a file against token ids that transformers made of them.
fn has_the_ids_of(oracle: &Path, fixtures: &Path, rows: &str, model: &str) {
    let (files, config, tokenizer) = real(fixtures, "pairs", rows, model);
    let dataset = Dataset::open(&files, &config, &tokenizer, &PAIR, None).unwrap();
    let oracle = std::fs::read_to_string(oracle).unwrap();
    let oracle: serde_json::Value = serde_json::from_str(&oracle).unwrap();
    let pairs = oracle["pairs"].as_array().unwrap();
    assert!(!pairs.is_empty() && pairs.len() <= dataset.len());
    for (example, pair) in examples(&dataset).iter().zip(pairs) {
        let of = |key: &str| -> Vec<u32> { serde_json::from_value(pair[key].clone()).unwrap() };
        assert_eq!(example.prompt, of("prompt_ids"));
        assert_eq!(example.responses[0].ids, of("chosen_ids"));
        assert_eq!(example.responses[1].ids, of("rejected_ids"));
    }
}

#[test]
fn pairs_have_the_ids_of_the_oracle() {
    for model in ["neox", "neox-sequential", "llama", "llama3", "llama-linear"] {
        let oracle = fixture(&format!("oracle/{model}.json"));
        has_the_ids_of(&oracle, &fixture(""), "pairs.jsonl", model);
    }
}

#[test]
fn drawn_responses_join_the_rows_they_were_drawn_for() {
    let (files, config, tokenizer) = real(&fixture(""), "pairs", "pairs.jsonl", "neox");
    let samples = Samples::open(
        &fixture("samples.jsonl").into(),
        tokenizer.max_id() as usize + 1,
    )
    .unwrap();
    let open = |needs, samples| Dataset::open(&files, &config, &tokenizer, needs, samples).unwrap();
    let dataset = open(&SAMPLED, Some(&samples));
    assert_eq!(dataset.len(), open(&PAIR, None).len());
    for (row, example) in examples(&dataset).iter().enumerate() {
        let expected = if row < 4 { 2 } else { 1 };
        assert_eq!(ids(example, Role::Sampled).len(), expected);
    }
}

#[test]
fn real_pairs_have_the_ids_of_the_oracle() {
    let Some(fixtures) = real_fixtures() else {
        return;
    };
    for model in ["neox-tiny", "stories260k"] {
        let oracle = fixtures.join(format!("oracle/{model}.json"));
        let folder = format!("models/{model}");
        has_the_ids_of(&oracle, &fixtures, "oracle/hh8_explicit.jsonl", &folder);
    }
}

#[test]
fn real_rows_are_invalid_where_they_are_known_to_be() {
    let Some(fixtures) = real_fixtures() else {
        return;
    };
    let rows = "data/hh-harmless-1800.jsonl.gz";
    let (files, mut config, neox) = real(&fixtures, "hh", rows, "models/neox-tiny");
    let open = |config: &RowConfig, tokenizer: &Tokenizer| {
        Dataset::open(&files, config, tokenizer, &PAIR, None).unwrap()
    };
    let dataset = open(&config, &neox);
    let report = &dataset.report;
    assert_eq!((report.rows, report.kept), (1800, 1794));
    assert_eq!(
        report.invalid[&Invalid::PromptDiffers].first,
        ["1255", "1689"]
    );
    assert_eq!(
        report.invalid[&Invalid::EmptyAnswer].first,
        ["87", "517", "926", "1104"]
    );

    // The tokenizer of the real models: its folder has no end token, so one is given.
    let folder = tempfile::tempdir().unwrap();
    let name = "tokenizer.json";
    let source: PathBuf = fixtures.join("tokenizers/gpt-neox-20b").join(name);
    std::fs::copy(source, folder.path().join(name)).unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"eos_token_id": 0}"#).unwrap();
    let pythia = Tokenizer::open(folder.path()).unwrap();
    assert_eq!((pythia.max_id(), pythia.begin()), (50_276, &[][..]));
    let joint = open(&config, &pythia);
    config.tokens.tokenize = Tokenize::Separate;
    let separate = open(&config, &pythia);
    assert_eq!(joint.report.boundary_merges, 0);
    assert_eq!(examples(&joint), examples(&separate));
}
