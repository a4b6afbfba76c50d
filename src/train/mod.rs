//! Preference training: from a config to a trained model.
//!
//! Hides the order of things: open everything, score the reference once, then step, evaluate,
//! record and save. Nothing is written before everything the config names was opened and checked.
//!
//! *Why*: the step has no branch on the loss. A loss says what it needs, sees scored responses and
//! gives the seeds of the backward pass. And a step is a function of its number and the state that
//! checkpoints hold, so a run that was interrupted goes on as if it had not been.

mod entropies;
mod event;
mod files;
mod frozen;
mod gallery;
mod log;
mod logs;
mod metrics;
mod moving;
mod non_finite;
mod on_policy;
mod open;
mod pairs;
mod profile;
mod record;
mod reference;
mod resume;
mod sampling;
mod scoring;
mod show;
mod split;
mod state;
mod step;
mod story;
mod summary;
mod sweep;
mod tensorboard;
mod timing;
mod training;
mod until;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::data::{Census, Dataset};
use crate::error::{Error, Result};
use crate::load::load_policy;
use crate::loss::Role;
use crate::model::{Decoder, device};
use crate::score::Column;

pub use entropies::entropies;
pub use event::{Event, Observer};
pub use metrics::Record;
pub use pairs::{PairRows, Pairs, score_pairs};
pub use profile::Profile;
pub use resume::Resume;
pub use sampling::{Target, sample_prompts, sample_run, sample_text};
pub use scoring::{Rows, Scored, score_rows, score_run};
pub use show::{RowSplit, Shown, reference_shape, show};
pub use summary::Summary;
pub use sweep::{Outcome, comparison, frontier, sweep};
pub use until::{Reason, Stopped, Until};
pub use verify::{Found, verify};

use frozen::Frozen;
use gallery::Gallery;
use moving::Moving;
use on_policy::OnPolicy;
use open::Model;
use record::Hashes;
use reference::Reference;
use resume::Origin;
use split::Split;
use step::Stepper;
use story::Stories;
use timing::{Stopwatch, Timing};
use training::Training;

/// A run that was opened: everything is read and checked, nothing is written but the cache and, where
/// the output folder holds a run, its lock.
pub struct Run {
    config: Config,
    folder: PathBuf,
    model: Decoder,
    train: Split,
    eval: Option<Split>,
    /// Prompts with samples and no preference, at a ratio beside the training rows.
    unlabelled: Option<Split>,
    hashes: Hashes,
    /// Of the reference's scoring pass, where this run made one.
    scoring: Option<Timing>,
    stories: Option<Stories>,
    gallery: Gallery,
    moving: Option<Moving>,
    on_policy: Option<OnPolicy>,
    origin: Origin,
    frozen: Frozen,
    /// Whether [`Self::train`] measures where the time of its steps goes; false to begin with.
    pub profile: bool,
    /// What ends it before its last step; nothing to begin with.
    pub until: Until,
}

/// What a folder and a config make.
pub enum Opened {
    /// A run with steps left.
    Run(Box<Run>),
    /// The summary of a run that is finished.
    Finished(Value),
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// After its last step.
    Finished(Box<Summary>),
    /// Before.
    Stopped(Stopped),
}

impl Run {
    /// Opens the model, the data and the reference's log-probs, for a run that begins.
    pub fn open(config: Config, observe: Observer) -> Result<Self> {
        match Self::open_with(config, &Resume::Never, &[], observe)? {
            Opened::Run(run) => Ok(*run),
            Opened::Finished(_) => Err(Error::failed("a run that begins cannot be finished")),
        }
    }

    /// As [`Self::open`], for a run that may have begun already. Of what must not have changed since,
    /// the keys in `allow_change` may have.
    pub fn open_with(
        config: Config,
        resume: &Resume,
        allow_change: &[String],
        observe: Observer,
    ) -> Result<Opened> {
        let device = device::open(&config.model.device).map_err(|e| e.at_key("model.device"))?;
        if device.is_cpu() {
            config.check_cpu()?;
        }
        let mut origin = Origin::find(&config.run, resume, observe)?;
        let opened = Model::open(&config.model, observe)?;
        files::check_apart(&config.run.output_dir, &opened.folder.path)?;
        let stories = Stories::open(&config, opened.tokenizer.clone())?;
        let datasets = datasets(&config, &opened, observe)?;
        let Model { folder, tokenizer } = opened;
        let mut frozen = Frozen::new(&config, &datasets, tokenizer.hash())?;
        let kind = if device.is_cpu() { "cpu" } else { "gpu" };
        frozen.set("model.device", kind);
        origin.check(&frozen, false, allow_change, &config.run, observe)?;
        if let Some(summary) = origin.finished() {
            return Ok(Opened::Finished(summary.clone()));
        }
        let all: Vec<&Dataset> = datasets.iter().collect();
        let separate = match config.has_reference() {
            true => reference::separate(&config, &tokenizer, &all, observe)?,
            false => Some(Reference::none(&all)),
        };
        let (model, hash) = load_policy(&folder, &config.model, config.optimizer.states)?;
        let reference = match separate {
            Some(reference) => reference,
            None => reference::of_policy(&config, &model, &hash, &tokenizer, &all, observe)?,
        };
        if stories.is_some() {
            reference::check_is_known(&config, &hash)?;
        }
        let hashes = Hashes {
            policy: hash,
            reference: reference.hash,
            tokenizer: tokenizer.hash().to_owned(),
        };
        frozen.set("model.model_name_or_path", hashes.policy.as_str());
        frozen.set("model.reference", hashes.reference.clone());
        if config.has_reference() {
            frozen.set("data.reference_log_probs", of_columns(&reference.columns));
        }
        origin.check(&frozen, true, allow_change, &config.run, observe)?;
        let mut splits = datasets
            .into_iter()
            .zip(reference.columns)
            .map(|(dataset, reference)| Split::new(dataset, reference));
        let train = splits
            .next()
            .ok_or_else(|| Error::failed("no training data"))?;
        let eval = config.data.eval.as_ref().and_then(|_| splits.next());
        let unlabelled = splits.next();
        let gallery = Gallery::open(&config, Arc::clone(&tokenizer), eval.as_ref())?;
        match &hashes.reference {
            Some(hash) if *hash == hashes.policy => {
                let rows = train.len().min(config.batch.batch_size);
                let rows: Vec<usize> = (0..rows).collect();
                Stepper::new(&config, &model).check_same_model(&train, &rows)?;
            }
            Some(hash) => observe(Event::OtherReference(hash)),
            None => {}
        }
        let moving = Moving::open(&config, &folder.path, &model, observe)?;
        let (path, policy) = (&folder.path, &hashes.policy);
        let on_policy = OnPolicy::open(&config, path, policy, &tokenizer, observe)?;
        Ok(Opened::Run(Box::new(Self {
            config,
            folder: folder.path,
            model,
            train,
            eval,
            unlabelled,
            hashes,
            scoring: reference.timing,
            stories,
            gallery,
            moving,
            on_policy,
            origin,
            frozen,
            profile: false,
            until: Until::default(),
        })))
    }

    /// Trains, and writes records, checkpoints and the final model.
    pub fn train(self, observe: Observer) -> Result<End> {
        Training::begin(self, observe)?.finish(observe)
    }

    /// What became of the rows: of the training rows, the evaluation rows, the unlabelled rows.
    fn censuses(&self) -> [Option<&Census>; 3] {
        [
            Some(&self.train),
            self.eval.as_ref(),
            self.unlabelled.as_ref(),
        ]
        .map(|split| split.map(|split| &split.dataset.census))
    }
}

/// A hash of the reference's log-probs.
fn of_columns(columns: &[Option<Column>]) -> String {
    let columns = columns.iter().flatten().map(Column::fingerprint);
    format!("{:x}", Sha256::digest(columns.collect::<String>()))
}

/// The datasets of a run: `train`, then `eval` and `unlabelled` where there are any. Samples that are
/// to be drawn are drawn first, if the loss needs them.
fn datasets(config: &Config, model: &Model, observe: Observer) -> Result<Vec<Dataset>> {
    let mut data = config.data.clone();
    let needs = config.loss.needs();
    if data.draws_samples() {
        data.samples = match needs.all.contains(&Role::Sampled) {
            true => Some(sampling::drawn_for_run(config, model, observe)?.into()),
            false => None,
        };
    }
    model.datasets(&data, &needs, observe)
}
