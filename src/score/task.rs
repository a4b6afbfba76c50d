//! The scoring pass on its own: log-probs into a file, for a later run or another program.

use super::reference::{micro_batch_tokens, score_all};
use super::{Column, Scorer, write};
use crate::config::{Config, ModelConfig};
use crate::data::{Dataset, Files, RowConfig};
use crate::error::Result;
use crate::io::output::Output;
use crate::kernels::device::kind;
use crate::loss::{Needs, Role};
use crate::model::weights::ModelFolder;
use crate::ranks::{Ranks, agree};
use crate::session::{Observer, Session};

/// How much was scored.
#[derive(Debug)]
pub struct ScoreCounts {
    /// Rows.
    pub rows: usize,
    /// Responses of all rows.
    pub responses: usize,
    /// Tokens that have a log-prob.
    pub tokens: usize,
}

/// Scores the datasets of a run under its reference, as the run itself would, into `out`. A
/// file that the config names for reference log-probs is not read.
pub fn score_run(
    config: &Config,
    session: &Session,
    datasets: &[Dataset],
    out: &Output,
    observe: Observer,
) -> Result<ScoreCounts> {
    let reference = session.reference(observe)?;
    if let Some(reference) = reference {
        session.check_same_tokens(reference)?;
    }
    let folder = match reference {
        Some(folder) => folder,
        None => session.base()?,
    };
    let tokens = micro_batch_tokens(config);
    run(session, folder, datasets, tokens, out, observe)
}

/// Rows to score without a run.
#[derive(Debug)]
pub struct ScoreData {
    /// The model.
    pub model: ModelConfig,
    /// The files of rows.
    pub files: Files,
    /// How rows become examples.
    pub rows: RowConfig,
    /// Responses drawn from a model, which join their rows.
    pub samples: Option<Files>,
    /// The most tokens computed at once.
    pub micro_batch_tokens: usize,
    /// Whether the length limits give way to a model that can hold less.
    pub shrink: bool,
    /// The processes that share the rows; the first one writes.
    pub ranks: Ranks,
}

/// Scores every chosen, rejected and sampled response into `out`.
pub fn score_data(data: &ScoreData, out: &Output, observe: Observer) -> Result<ScoreCounts> {
    let sampled: &[Role] = match data.samples {
        Some(_) => &[Role::Sampled],
        None => &[],
    };
    let needs = Needs {
        all: sampled,
        any: &[Role::Chosen, Role::Rejected],
        unlabelled: sampled,
        ..Needs::referenced_pair()
    };
    let session = Session::open(&data.model, observe)?;
    let session = session.with_chat(&data.rows.tokens.chat)?;
    let session = session.with_ranks(&data.ranks);
    let mut rows = data.rows.clone();
    if data.shrink {
        rows.length = rows.length.within(session.folder.arch.longest_sequence());
    }
    let samples = data.samples.as_ref();
    let datasets = [session.dataset(&data.files, &rows, samples, &needs, observe)?];
    let budget = data.micro_batch_tokens;
    run(&session, &session.folder, &datasets, budget, out, observe)
}

fn run(
    session: &Session,
    folder: &ModelFolder,
    datasets: &[Dataset],
    micro_batch_tokens: usize,
    out: &Output,
    observe: Observer,
) -> Result<ScoreCounts> {
    let (decoder, hash) = session.compute.load(folder)?;
    let ranks = &session.ranks;
    let scorer = Scorer::new(hash, session);
    let mut facts = vec![
        ("expo", env!("CARGO_PKG_VERSION").to_owned()),
        ("the machine", kind(&session.compute.device)?),
        ("the model", scorer.model.clone()),
        ("the tokenizer", scorer.tokenizer.clone()),
        ("dtype", scorer.dtype.clone()),
        ("micro_batch_tokens", micro_batch_tokens.to_string()),
    ];
    let rows = datasets.iter();
    facts.extend(rows.map(|dataset| ("the rows", dataset.fingerprint.clone())));
    // One may have to fetch the model.
    agree(&ranks.without_limit(), &facts)?;
    let columns = score_all(&decoder, datasets, micro_batch_tokens, ranks, observe)?;
    if ranks.is_first() {
        write(out, datasets, &columns, &scorer)?;
    }
    Ok(ScoreCounts {
        rows: columns.iter().map(Column::len).sum(),
        responses: columns.iter().map(Column::responses).sum(),
        tokens: columns.iter().map(Column::tokens).sum(),
    })
}
