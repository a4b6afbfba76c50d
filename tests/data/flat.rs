//! Memory that does not grow with the rows, and the files of their scores.

use super::*;
use expo::score::{Column, Score, ScoreFile, Scorer, write};

fn scorer() -> Scorer {
    Scorer {
        model: "m".into(),
        tokenizer: "t".into(),
        dtype: "f32".into(),
    }
}

/// Log-probs that are nobody's, of every response.
fn made_up(dataset: &Dataset) -> Column {
    let mut column = Column::default();
    for (index, example) in dataset.examples().enumerate() {
        let example = example.unwrap();
        column.push(example.responses.iter().enumerate().map(|(at, response)| {
            let log_prob = -1.0 / (1.0 + index as f64) - at as f64;
            let is_of_pair = [Role::Chosen, Role::Rejected].contains(&response.role);
            Score {
                log_prob,
                tokens: example.scored_tokens(response),
                shared: is_of_pair.then_some(log_prob / 3.0),
            }
        }));
    }
    column
}

fn all(column: &Column) -> Vec<Vec<Score>> {
    (0..column.len())
        .map(|row| column.of(row).collect())
        .collect()
}

fn file(path: &std::path::Path) -> expo::io::output::Output {
    expo::io::output::Output::File(path.to_owned())
}

#[test]
fn a_column_is_the_same_after_its_file_whatever_its_order() {
    let needs = Needs {
        batch: &[Role::Mismatched],
        ..SAMPLED
    };
    let mut config = RowConfig::new(Format::named("pairs").unwrap());
    let files = fixture("pairs.jsonl").into();
    let tokenizer = Tokenizer::open(&fixture("neox")).unwrap();
    let samples = Samples::open(
        &fixture("samples.jsonl").into(),
        tokenizer.max_id() as usize + 1,
    )
    .unwrap();
    let open = |config: &RowConfig, needs| {
        Dataset::open(&files, config, &tokenizer, needs, Some(&samples)).unwrap()
    };
    let (lent, pairs) = (open(&config, &needs), open(&config, &PAIR));
    let columns = [made_up(&lent), made_up(&pairs)];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.jsonl");
    write(&file(&path), &[&lent, &pairs], &columns, &scorer()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().rev().collect();
    for text in [text.clone(), lines.join("\n")] {
        std::fs::write(&path, text).unwrap();
        let file = ScoreFile::open(&path).unwrap();
        assert_eq!(file.scorer, scorer());
        assert_eq!(all(&file.column(&lent, true).unwrap()), all(&columns[0]));
        assert_eq!(all(&file.column(&pairs, true).unwrap()), all(&columns[1]));
    }
    let refused = |dataset: &Dataset| {
        let error = ScoreFile::open(&path).unwrap().column(dataset, false);
        error.unwrap_err().to_string()
    };
    config.length.max_length = 20;
    config.length.max_prompt_length = 2;
    let what = "row 0 is not in the file, which has other tokens there";
    assert!(refused(&open(&config, &PAIR)).contains(what));
    std::fs::write(
        &path,
        lines[0].replace("token_hash\":\"", "token_hash\":\"é"),
    )
    .unwrap();
    let error = ScoreFile::open(&path).unwrap_err().to_string();
    assert!(error.contains("scores.jsonl:1: not a row of scores: `token_hash` is not a hash"));
}

/// `rows` transcripts as those of HH, about 1,100 bytes each.
fn transcripts(path: &Path, rows: u64) {
    const WORDS: [&str; 8] = [
        "the", "frog", "goes", "market", "why", "honey", "does", "old",
    ];
    let mut state = 1_u64;
    let mut words = |count: u64| -> String {
        let word = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            WORDS[(state >> 61) as usize]
        };
        (0..count).map(word).collect::<Vec<_>>().join(" ")
    };
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for row in 0..rows {
        let prompt = format!("\n\nHuman: {row} {}\n\nAssistant: ", words(50 + row % 40));
        let [chosen, rejected] = [words(20 + row % 30), words(30)].map(|x| prompt.clone() + &x);
        let pair = serde_json::json!({"chosen": chosen, "rejected": rejected});
        writeln!(file, "{pair}").unwrap();
    }
}

/// The most memory that the process ever had, in MiB, as Linux says.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kibibytes = line.split_whitespace().nth(1).unwrap();
    kibibytes.parse::<f64>().unwrap() / 1024.0
}

/// Takes minutes, and the memory of a process is not its own with other tests in it:
/// `cargo test --test main flat::many -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn many_rows_take_the_memory_of_an_index() {
    let tokenizer = Tokenizer::open(&fixture("neox")).unwrap();
    let mut peaks = Vec::new();
    for (rows, needs) in [(2_000, PAIR), (200_000, PAIR), (200_000, KTO)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hh.jsonl");
        transcripts(&path, rows);
        let config = RowConfig::new(Format::named("hh").unwrap());
        let dataset = Dataset::open(&path.into(), &config, &tokenizer, &needs, None).unwrap();
        assert_eq!(dataset.len() as u64, rows);
        let tokens: usize = (0..dataset.len())
            .map(|row| dataset.tokens(row, Role::ALL))
            .sum();
        let opened = peak();
        let column = made_up(&dataset);
        let path = folder.path().join("scores.jsonl");
        write(
            &file(&path),
            &[&dataset],
            std::slice::from_ref(&column),
            &scorer(),
        )
        .unwrap();
        let read = ScoreFile::open(&path)
            .unwrap()
            .column(&dataset, true)
            .unwrap();
        assert!((0..rows as usize).all(|row| read.of(row).eq(column.of(row))));
        drop((dataset, column, read));
        eprintln!(
            "{rows} rows, {tokens} tokens: {opened:.0} MiB opened, {:.0} scored",
            peak()
        );
        peaks.push(peak());
    }
    // 64 MiB before there is a file, of tokens and where answers are lent of texts, too; and of a row
    // at most 300 bytes of index and column.
    for (peak, stores) in peaks[1..].iter().zip([1.0, 2.0]) {
        let allowed = stores * (64.0 + 200_000.0 * 300.0 / 1048576.0);
        assert!(*peak < peaks[0] + allowed, "{peaks:?}");
    }
}
