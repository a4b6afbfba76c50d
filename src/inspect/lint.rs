//! Looking for faults in the rows of a run.
//!
//! *Why*: most faults are in the texts, and those are found without a model. What only tokens say, such as
//! what is cut, needs the tokenizer; where that is not on this machine, nothing is fetched for it.

use super::{RowSplit, show};
use crate::config::RowsConfig;
use crate::data::lint::{LengthBias, SplitReport, lint, token_bias};
use crate::data::{Files, OnInvalid, RowConfig, RowReport};
use crate::error::Result;
use crate::session::{Event, Observer, fetch, find_local_tokenizer};

/// What was found in the rows of a split.
pub struct LintedSplit {
    /// The files.
    pub files: Files,
    /// What their texts show.
    pub report: SplitReport,
    /// What their tokens show, or why a run would refuse them; `None` without the model's tokenizer.
    pub tokens: Option<Result<TokenReport>>,
}

/// What only the tokens of rows show.
pub struct TokenReport {
    /// What becomes of the rows in a run.
    pub report: RowReport,
    /// The lengths of pairs, in tokens as the run sees them.
    pub length_bias: Option<LengthBias>,
}

impl LintedSplit {
    /// Whether a run would refuse the rows as they are.
    pub fn is_refused(&self) -> bool {
        matches!(self.tokens, Some(Err(_)))
    }
}

/// Looks at the training rows of a run, then at its evaluation rows where there are any.
///
/// # Errors
/// As of [`lint`].
pub fn lint_run(config: &RowsConfig, observe: Observer) -> Result<Vec<LintedSplit>> {
    let data = &config.data;
    fetch([&data.train].into_iter().chain(&data.eval), observe)?;
    let (train, eval) = lint(&data.train, data.eval.as_ref(), &data.rows)?;
    let model = &config.model;
    let found = find_local_tokenizer(&model.model_name_or_path, model.revision.as_deref());
    if let Err(error) = &found {
        let what = format!("{error}; lengths are in characters alone");
        observe(Event::Warning(&what));
    }
    let mut lenient = config.clone();
    lenient.data.rows.on_invalid = OnInvalid::Skip;
    lenient.data.rows.max_invalid_fraction = 1.0;
    let mut tokens = |split| {
        found.is_ok().then(|| {
            let dataset = show(&lenient, split, None, observe)?.dataset;
            Ok(TokenReport {
                length_bias: token_bias(&dataset),
                report: dataset.report,
            })
        })
    };
    let mut splits = Vec::new();
    for (split, files, report) in [
        (RowSplit::Train, Some(&data.train), Some(train)),
        (RowSplit::Eval, data.eval.as_ref(), eval),
    ] {
        let (Some(files), Some(report)) = (files, report) else {
            continue;
        };
        let tokens = tokens(split);
        let report = match &tokens {
            Some(Ok(tokens)) => report.with_tokens(&tokens.report, files),
            _ => report,
        };
        splits.push(LintedSplit {
            files: files.clone(),
            report,
            tokens,
        });
    }
    Ok(splits)
}

/// Looks at the rows of files alone.
///
/// # Errors
/// As of [`lint`].
pub fn lint_files(
    train: &Files,
    eval: Option<&Files>,
    rows: &RowConfig,
    observe: Observer,
) -> Result<Vec<LintedSplit>> {
    fetch([train].into_iter().chain(eval), observe)?;
    let (report, eval_report) = lint(train, eval, rows)?;
    let splits = [(Some(train), Some(report)), (eval, eval_report)];
    let split = |(files, report): (Option<&Files>, Option<SplitReport>)| {
        Some(LintedSplit {
            files: files?.clone(),
            report: report?,
            tokens: None,
        })
    };
    Ok(splits.into_iter().filter_map(split).collect())
}
