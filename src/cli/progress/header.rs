//! What a run is, in words: its loss, where it runs, and how much of it there is.

use crate::cli::terminal::wrap;
use expo::config::BatchConfig;
use expo::loss::{Loss, WeightedLoss};
use expo::session::RunHeader;

use crate::cli::grouped;

/// The width of the labels.
const LABEL: usize = 10;

/// The lines of a header, wrapped at `width` columns.
pub fn lines(header: &RunHeader, width: usize) -> Vec<String> {
    let indent = " ".repeat(LABEL);
    let mut lines = Vec::new();
    for (label, text) in parts(header) {
        let begin = format!("{label:<LABEL$}");
        lines.extend(
            wrap(&text, width, &begin, &indent)
                .lines()
                .map(String::from),
        );
    }
    lines
}

/// The header as one line, for a log.
pub fn line(header: &RunHeader) -> String {
    let parts = parts(header).map(|(label, text)| format!("{label} {text}"));
    parts.join("; ")
}

fn parts(header: &RunHeader) -> [(&'static str, String); 5] {
    let RunHeader {
        device,
        threads,
        trainable,
        parameters,
        rows,
        steps,
        ..
    } = header;
    let dtype = format!("{:?}", header.dtype).to_lowercase();
    let cores = match threads {
        1 => "1 thread".to_owned(),
        threads => format!("{threads} threads"),
    };
    let cores = match header.ranks {
        1 => cores,
        ranks => format!("{ranks} ranks of {cores}"),
    };
    let (trainable, parameters) = (grouped(*trainable), grouped(*parameters));
    let epochs = match header.epochs {
        1.0 => "1 epoch".to_owned(),
        epochs => format!("{} epochs", rounded(epochs)),
    };
    let evaluated = match header.eval_rows {
        Some(rows) => format!(", evaluated on {} rows", grouped(rows)),
        None => ", not evaluated".to_owned(),
    };
    let resumed = match header.step {
        0 => String::new(),
        step => format!(", resumed after step {step}"),
    };
    let rows = grouped(*rows);
    [
        ("loss", loss(&header.loss)),
        ("device", format!("{device}, {dtype}, {cores}")),
        (
            "training",
            format!("{trainable} of {parameters} parameters"),
        ),
        ("batch", batch(&header.batch)),
        (
            "steps",
            format!("{steps}{resumed}: {epochs} of {rows} rows{evaluated}"),
        ),
    ]
}

/// `dpo (beta = 0.1, label_smoothing = 0)`, or a sum `0.8 dpo (..) + 0.2 sft (..)`.
fn loss(loss: &WeightedLoss) -> String {
    let single = loss.single().is_some_and(|loss| loss.weight() == 1.0);
    let term = |loss: &Loss| {
        let weight = match single {
            true => String::new(),
            false => format!("{} ", loss.weight()),
        };
        let knobs: Vec<String> = loss
            .table()
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        let knobs = match knobs.is_empty() {
            true => String::new(),
            false => format!(" ({})", knobs.join(", ")),
        };
        format!("{weight}{}{knobs}", loss.name())
    };
    let terms: Vec<String> = loss.terms().iter().map(term).collect();
    terms.join(" + ")
}

fn batch(batch: &BatchConfig) -> String {
    let rows = match batch.batch_size {
        1 => "1 row per step".to_owned(),
        rows => format!("{} rows per step", grouped(rows)),
    };
    let rows = match batch.lanes.unwrap_or(1) {
        1 => rows,
        lanes => format!("{rows} in {lanes} lanes"),
    };
    match (batch.gradient_accumulation_steps, batch.micro_batch_tokens) {
        (Some(1), _) => rows,
        (Some(parts), _) => format!("{rows}, in {parts} micro-batches"),
        (None, Some(tokens)) => {
            format!(
                "{rows}, in micro-batches of at most {} tokens",
                grouped(tokens)
            )
        }
        (None, None) => rows,
    }
}

/// With at most two decimals.
fn rounded(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expo::config::Dtype;

    fn header(loss: &str) -> RunHeader {
        RunHeader {
            loss: toml_loss(loss),
            device: "cuda:0, NVIDIA H100".into(),
            dtype: Dtype::Bf16,
            threads: 2,
            batch: BatchConfig {
                batch_size: 64,
                micro_batch_tokens: Some(4096),
                gradient_accumulation_steps: None,
                lanes: None,
            },
            ranks: 1,
            trainable: 1_000,
            parameters: 252_384,
            rows: 600,
            eval_rows: Some(100),
            steps: 120,
            epochs: 4.0,
            step: 0,
        }
    }

    fn toml_loss(names: &str) -> WeightedLoss {
        let terms = names.split('+').map(|name| {
            let loss = Loss::default_of(name).unwrap();
            if names.contains('+') {
                loss.weighted(0.5)
            } else {
                loss
            }
        });
        WeightedLoss::sum(terms).unwrap()
    }

    #[test]
    fn a_header_says_what_is_trained_where_and_for_how_long() {
        assert_eq!(
            lines(&header("dpo"), 80),
            [
                "loss      dpo (beta = 0.1, label_smoothing = 0.0)",
                "device    cuda:0, NVIDIA H100, bf16, 2 threads",
                "training  1,000 of 252,384 parameters",
                "batch     64 rows per step, in micro-batches of at most 4,096 tokens",
                "steps     120: 4 epochs of 600 rows, evaluated on 100 rows",
            ]
        );
    }

    #[test]
    fn a_sum_has_weights_and_is_wrapped() {
        let lines = lines(&header("cexpo+sft"), 40);
        assert!(lines.iter().all(|line| line.len() <= 40), "{lines:#?}");
        let text = lines.join(" ");
        let text: Vec<&str> = text.split_whitespace().collect();
        let text = text.join(" ");
        assert!(text.starts_with("loss 0.5 cexpo (lambda = 0.05"), "{text}");
        assert!(
            text.contains("+ 0.5 sft (per_token = false) device"),
            "{text}"
        );
    }

    #[test]
    fn a_log_has_it_on_one_line() {
        let mut header = header("ipo");
        (header.step, header.epochs, header.eval_rows) = (30, 0.125, None);
        let line = line(&header);
        assert!(!line.contains('\n'));
        assert!(
            line.ends_with(
                "steps 120, resumed after step 30: 0.12 epochs of 600 rows, not evaluated"
            ),
            "{line}"
        );
    }
}
