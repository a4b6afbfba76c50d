//! Preference training: from a config to a trained model.
//!
//! Hides the order of work: open everything, score the reference once, then step, evaluate, record and
//! save. Nothing is written before everything that the config names was opened and checked.
//!
//! *Why*: the step has no branch on the loss. A loss says what it needs, sees scored responses and
//! returns the seeds of the backward pass. A step is a function of its number and the state in
//! checkpoints, so an interrupted run resumes to the same result.

mod eval_samples;
mod files;
mod health;
mod identity;
mod lanes;
mod log;
mod logs;
mod metrics;
mod moving;
mod non_finite;
mod on_policy;
mod output;
mod profile;
mod record;
mod reference;
mod resume;
mod room;
mod split;
mod state;
mod step;
mod story;
mod summary;
mod sweep;
mod tensorboard;
mod training;
mod verify;

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::data::RowReport;
use crate::error::{Error, Result};
use crate::kernels::device::kind;
use crate::model::Decoder;
use crate::model::device::is_one_gpu;
use crate::ranks::{Ranks, check_lanes, lanes, share};
use crate::run_dir::{Hashes, SummaryRecord, Timing};
use crate::sample::run_datasets;
use crate::score::{Column, Reference, check_is_known};
use crate::session::{Compute, Event, Observer, Session, StopCondition, Stopped};

pub use profile::Profile;
pub use resume::Resume;
pub use summary::Summary;
pub use sweep::{Outcome, SweepStopped, comparison, frontier, over_seeds, sweep};
pub use verify::{Found, verify};

use eval_samples::EvalSamples;
use identity::RunIdentity;
use lanes::Lanes;
use moving::MovingReference;
use on_policy::OnPolicy;
use resume::Origin;
use room::check_room;
use split::Split;
use state::State;
use step::Stepper;
use story::Stories;
use training::Training;

/// The key of the weights that the policy starts from.
const BASE: &str = "model.model_name_or_path";

/// The key of the reference.
const REFERENCE: &str = "model.reference";

/// An opened run: everything is read and checked; nothing is written but the cache and, where the
/// output directory holds a run, its lock.
pub struct Run {
    config: Config,
    session: Session,
    model: Decoder,
    train: Split,
    eval: Option<Split>,
    /// Prompts with samples and no preference, at a ratio beside the training rows.
    unlabelled: Option<Split>,
    hashes: Hashes,
    /// Of the reference's scoring pass, where this run made one.
    scoring: Option<Timing>,
    /// With the reference that they are scored under.
    stories: Option<(Stories, Decoder)>,
    eval_samples: EvalSamples,
    moving: Option<MovingReference>,
    on_policy: Option<OnPolicy>,
    origin: Origin,
    identity: RunIdentity,
    /// Whether [`Self::train`] measures where the time of its steps goes; false to begin with.
    pub profile: bool,
    /// What ends it before its last step; nothing to begin with.
    pub until: StopCondition,
    lanes: Lanes,
}

/// The result of opening a run.
pub enum Opened {
    /// A run with steps left.
    Run(Box<Run>),
    /// The summary of a run that is finished.
    Finished(Box<SummaryRecord>),
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
        Self::open_on(config, resume, allow_change, &Ranks::alone(), observe)
    }

    /// As [`open_with`](Self::open_with), on ranks that compute the run together; each of them calls it
    /// with the same config. The first alone writes.
    ///
    /// # Errors
    /// As well, if the ranks cannot share the run's lanes, or do not agree on what they opened.
    pub fn open_on(
        mut config: Config,
        resume: &Resume,
        allow_change: &[String],
        ranks: &Ranks,
        observe: Observer,
    ) -> Result<Opened> {
        let compute = Compute::open(&config.model)?;
        if compute.device.is_cpu() {
            config.check_cpu()?;
        }
        if ranks.size() > 1 {
            if is_one_gpu(&config.model.device) {
                let device = &config.model.device;
                let error =
                    Error::input(format!("{device:?} is one GPU, which ranks cannot share"));
                let error = error.hint("set \"cuda\", and each rank takes a GPU of its own");
                return Err(error.at_key("model.device"));
            }
            let mut of_all = RunIdentity::of_all(&config)?;
            of_all.set("expo", env!("CARGO_PKG_VERSION"));
            of_all.set("the machine", kind(&compute.device)?);
            // Of a sweep the first may be writing the run before.
            of_all.agree(&ranks.without_limit())?;
        }
        let ranks = &ranks.with_limit(config.distributed.limit());
        let mut origin = match ranks.is_first() {
            true => Origin::find(&config.run, resume, observe)?,
            false => Origin::default(),
        };
        origin.share(ranks)?;
        let before = origin.lanes();
        let count = lanes(config.batch.lanes, before, ranks.size());
        config.batch.lanes = (count > 1).then_some(count);
        // Another base model may be asked for by name.
        let other = allow_change.iter().any(|key| key == BASE);
        let session = match origin.saved_model(&config.run).filter(|_| !other) {
            Some(saved) => Session::resume_on(compute, &config.model, &saved, observe)?,
            None => Session::open_on(compute, &config.model, observe)?,
        };
        let session = session.with_ranks(ranks);
        let session = session.with_chat(&config.data.rows.tokens.chat)?;
        let session = session.with_adapter(config.adapter.as_ref(), config.run.seed, observe)?;
        if !session.is_stand_in() {
            output::check_apart(&config.run.output_dir, &session.folder.path)?;
            if let Some(adapter) = session.folder.peft() {
                output::check_apart(&config.run.output_dir, &adapter.path)?;
            }
        }
        // It cannot be read once more during the run.
        session.folder.files.check()?;
        let on_cpu = session.compute.device.is_cpu();
        let layout = session.folder.layout();
        // A run that is finished writes nothing, unless it turns out to have changed.
        let may_be_finished = origin.finished().is_some();
        if !may_be_finished && ranks.is_first() {
            check_room(&config, layout, !on_cpu, &origin, observe)?;
        }
        let stories = Stories::open(&config, &session)?;
        let datasets = run_datasets(&config, &session, observe)?;
        let mut identity = RunIdentity::new(&config, &datasets, session.tokenizer.hash())?;
        identity.set("model.device", if on_cpu { "cpu" } else { "gpu" });
        origin.check_on(ranks, &identity, false, allow_change, &config.run, observe)?;
        if let Some(summary) = origin.finished() {
            if verify::writes_model(&config.run.output_dir) {
                origin.check_model(&config.run)?;
            }
            return Ok(Opened::Finished(Box::new(summary.clone())));
        }
        check_lanes(count, ranks.size(), before == Some(count))?;
        let lanes = Lanes::new(ranks.clone(), count);
        if may_be_finished && ranks.is_first() {
            check_room(&config, layout, !on_cpu, &origin, observe)?;
        }
        let separate = match config.has_reference() {
            true => {
                let known = origin.known(REFERENCE);
                reference::separate(&config, &session, &datasets, known, observe)?
            }
            false => Some(Reference::none(&datasets)),
        };
        let (mut model, base) = session.load_policy(config.optimizer.states)?;
        // The base of an adapter is a reference like any other: its log-probs are those of every run with it.
        let of_base = match separate {
            None if !session.starts_at_adapter() => {
                let known = origin.known(BASE).filter(|_| session.is_stand_in());
                let base = known.unwrap_or(&base);
                let model = model.base();
                let pass =
                    reference::of_policy(&config, &session, &model, base, &datasets, observe);
                Some(pass?)
            }
            separate => separate,
        };
        let hash = session.start_adapter(&mut model, &base)?;
        let hash = match origin.known(BASE).filter(|_| session.is_stand_in()) {
            Some(known) => known.to_owned(),
            None => hash,
        };
        let reference = match of_base {
            Some(reference) => reference,
            None => reference::of_policy(&config, &session, &model, &hash, &datasets, observe)?,
        };
        if stories.is_some() {
            check_is_known(&config, &hash)?;
        }
        let hashes = Hashes {
            policy: hash,
            reference: reference.hash,
            tokenizer: session.tokenizer.hash().to_owned(),
        };
        identity.set(BASE, hashes.policy.as_str());
        identity.set(REFERENCE, hashes.reference.clone());
        if config.has_reference() {
            identity.set("data.reference_log_probs", of_columns(&reference.columns));
        }
        origin.check_on(ranks, &identity, true, allow_change, &config.run, observe)?;
        identity.agree(ranks)?;
        // All compute what none of them may compute alone.
        let stands_in = share(ranks, "the base model", session.is_stand_in())?;
        let stands_in = stands_in.contains(&true);
        let mut splits = datasets
            .into_iter()
            .zip(reference.columns)
            .map(|(dataset, reference)| Split::new(dataset, reference));
        let train = splits
            .next()
            .ok_or_else(|| Error::failed("no training data"))?;
        let eval = config.data.eval.as_ref().and_then(|_| splits.next());
        let unlabelled = splits.next();
        let eval_samples = EvalSamples::open(&config, &session, eval.as_ref())?;
        match &hashes.reference {
            // The weights of a checkpoint are not those that the reference has.
            Some(hash) if *hash == hashes.policy && !stands_in => {
                let rows = train.len().min(config.batch.batch_size);
                let rows: Vec<usize> = (0..rows).collect();
                Stepper::new(&config, &model, &lanes).check_same_model(&train, &rows)?;
            }
            Some(hash) if *hash != hashes.policy => observe(Event::OtherReference(hash)),
            _ => {}
        }
        if stories.is_some() {
            // They are told before the first step, too.
            session.base()?;
        }
        // The weights that the reference has: those of the directory that is named for it.
        let of_reference = match (&config.model.reference, &hashes.reference) {
            (Some(_), hash) => hash.as_deref(),
            (None, _) => Some(hashes.policy.as_str()),
        };
        let moved = |(_, state): &(PathBuf, State)| state.reference_moved;
        let moved = origin.checkpoint.as_ref().is_some_and(moved);
        let moving =
            MovingReference::open(&config, &session, &model, of_reference, moved, observe)?;
        let on_policy = OnPolicy::open(
            &config,
            &session,
            (&model, &hashes.policy),
            of_reference,
            observe,
        )?;
        let stories = match stories {
            Some(stories) => {
                let reference = session.reference_beside(&model, of_reference, observe)?;
                Some((stories, reference))
            }
            None => None,
        };
        Ok(Opened::Run(Box::new(Self {
            config,
            session,
            model,
            train,
            eval,
            unlabelled,
            hashes,
            scoring: reference.timing,
            stories,
            eval_samples,
            moving,
            on_policy,
            origin,
            identity,
            profile: false,
            until: StopCondition::default(),
            lanes,
        })))
    }

    /// Trains, and writes records, checkpoints and the final model.
    pub fn train(self, observe: Observer) -> Result<End> {
        Training::begin(self, observe)?.finish(observe)
    }

    /// The row reports of the training, evaluation and unlabelled rows.
    fn reports(&self) -> [Option<&RowReport>; 3] {
        [
            Some(&self.train),
            self.eval.as_ref(),
            self.unlabelled.as_ref(),
        ]
        .map(|split| split.map(|split| &split.dataset.report))
    }
}

/// A hash of the reference's log-probs.
fn of_columns(columns: &[Option<Column>]) -> String {
    let columns = columns.iter().flatten().map(Column::fingerprint);
    format!("{:x}", Sha256::digest(columns.collect::<String>()))
}
