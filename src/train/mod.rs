//! Preference training: from a config to a trained model.
//!
//! Hides the order of things: open everything, score the reference once, then step, evaluate,
//! record and save. Nothing is written before everything the config names was opened and checked.
//!
//! *Why*: the step has no branch on the loss. A loss says what it needs, sees scored responses and
//! gives the seeds of the backward pass.

mod event;
mod files;
mod metrics;
mod moving;
mod on_policy;
mod open;
mod profile;
mod reference;
mod sampling;
mod scoring;
mod show;
mod split;
mod step;
mod story;
mod summary;
mod sweep;
mod timing;

use std::path::PathBuf;
use std::time::Instant;

use crate::checkpoint;
use crate::config::Config;
use crate::data::{Batches, Dataset, Orders};
use crate::error::{Error, Result};
use crate::loss::Role;
use crate::model::{Decoder, device};
use crate::optim::Optimizer;

pub use event::{Event, Observer};
pub use metrics::Record;
pub use profile::Profile;
pub use sampling::{sample_prompts, sample_run, sample_text};
pub use scoring::{Rows, Scored, score_rows, score_run};
pub use show::{RowSplit, Shown, reference_shape, show};
pub use summary::Summary;
pub use sweep::{Outcome, comparison, frontier, sweep};

use files::Files;
use metrics::Averages;
use moving::Moving;
use on_policy::OnPolicy;
use open::Model;
use reference::Reference;
use split::Split;
use step::Stepper;
use story::Stories;
use timing::{Stopwatch, Timing};

/// A run that was opened: everything is read and checked, nothing is written but the cache.
pub struct Run {
    config: Config,
    folder: PathBuf,
    model: Decoder,
    train: Split,
    eval: Option<Split>,
    /// Prompts with samples and no preference, at a ratio beside the training rows.
    unlabelled: Option<Split>,
    hashes: files::Hashes,
    /// Of the reference's scoring pass, where this run made one.
    scoring: Option<Timing>,
    stories: Option<Stories>,
    moving: Option<Moving>,
    on_policy: Option<OnPolicy>,
    /// Whether [`Self::train`] measures where the time of its steps goes; false to begin with.
    pub profile: bool,
}

impl Run {
    /// Opens the model, the data and the reference's log-probs.
    pub fn open(config: Config, observe: Observer) -> Result<Self> {
        let device = device::open(&config.model.device).map_err(|e| e.at("model.device"))?;
        if device.is_cpu() {
            config.check_cpu()?;
        }
        files::check_output(&config.run)?;
        let opened = Model::open(&config.model, observe)?;
        files::check_apart(&config.run.output_dir, &opened.folder.path)?;
        let stories = Stories::open(&config, opened.tokenizer.clone())?;
        let datasets = datasets(&config, &opened, observe)?;
        let Model { folder, tokenizer } = opened;
        let all: Vec<&Dataset> = datasets.iter().collect();
        let separate = match config.has_reference() {
            true => reference::separate(&config, &tokenizer, &all, observe)?,
            false => Some(Reference::none(&all)),
        };
        let (model, hash) = open::load_policy(&folder, &config.model, config.optimizer.states)?;
        let reference = match separate {
            Some(reference) => reference,
            None => reference::of_policy(&config, &model, &hash, &tokenizer, &all, observe)?,
        };
        if stories.is_some() {
            reference::check_is_known(&config, &hash)?;
        }
        let hashes = files::Hashes {
            policy: hash,
            reference: reference.hash,
            tokenizer: tokenizer.hash().to_owned(),
        };
        let mut splits = datasets
            .into_iter()
            .zip(reference.columns)
            .map(|(dataset, reference)| Split::new(dataset, reference));
        let train = splits
            .next()
            .ok_or_else(|| Error::failed("no training data"))?;
        let eval = config.data.eval.as_ref().and_then(|_| splits.next());
        let unlabelled = splits.next();
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
        Ok(Self {
            config,
            folder: folder.path,
            model,
            train,
            eval,
            unlabelled,
            hashes,
            scoring: reference.timing,
            stories,
            moving,
            on_policy,
            profile: false,
        })
    }

    /// Trains, and writes records, checkpoints and the final model.
    pub fn train(self, observe: Observer) -> Result<Summary> {
        let Self {
            config,
            folder,
            model,
            mut train,
            mut eval,
            unlabelled,
            hashes,
            scoring,
            stories,
            mut moving,
            on_policy,
            profile,
        } = self;
        let mut profile = profile.then(Profile::new);
        let censuses = [Some(&train), eval.as_ref(), unlabelled.as_ref()];
        let censuses = censuses.map(|split| split.map(|s| &s.dataset.census));
        let mut files = Files::create(&config, &hashes, censuses)?;
        if let Some(timing) = &scoring {
            files.timing(timing)?;
        }
        let batches = Batches {
            labelled: train.len(),
            unlabelled: unlabelled.as_ref().map_or(0, Split::len),
            ratio: config.data.unlabelled_ratio,
            size: config.batch.batch_size,
            seed: config.run.seed,
            shuffle: config.data.shuffle,
        };
        if let Some(unlabelled) = unlabelled {
            train.append(unlabelled)?;
        }
        let per_epoch = batches.per_epoch();
        let steps = config.run.steps(per_epoch);
        let parameters = model.weights().layout().len;
        observe(Event::Start { steps, parameters });

        let mut optimizer = Optimizer::new(&config.optimizer, model.weights())?;
        let gradients = model.gradients()?;
        let stepper = Stepper::new(&config, &model);
        let draw = |observe: Observer| {
            stories
                .as_ref()
                .map(|s| s.draw(&model, observe))
                .transpose()
        };
        let before = draw(observe)?;
        let start = Instant::now();
        let mut evaluate =
            |moving: &mut Option<Moving>, step: u64, files: &mut Files, observe: Observer| {
                let Some(split) = &mut eval else {
                    return Ok(None);
                };
                if let Some(moving) = moving {
                    moving.score_eval(split)?;
                }
                if let Some(on_policy) = &on_policy {
                    // The same draws each time, so that evaluations differ by the policy alone.
                    let rows: Vec<usize> = (0..split.len()).collect();
                    on_policy.draw(&model, split, &rows, 0)?;
                }
                let mut record = head(step, per_epoch);
                stepper.evaluate(split)?.write("eval_", &mut record);
                files.record(&record)?;
                observe(Event::Record(&record));
                Result::Ok(Some(record))
            };
        let first_eval = evaluate(&mut moving, 0, &mut files, observe)?;
        let mut last_eval = first_eval.clone();
        let (mut first, mut last) = (None, Record::new());
        let mut window = Window::new();
        let mut total = (0, 0);
        let mut orders = Orders::default();
        for step in 0..steps {
            let batch = batches.rows(step, &mut orders);
            let rate = config.optimizer.learning_rate * config.schedule.factor(step, steps);
            profile.iter().for_each(Profile::begin);
            if let Some(moving) = &moving {
                moving.score_batch(&mut train, &batch)?;
            }
            if let Some(on_policy) = &on_policy {
                on_policy.draw(&model, &mut train, &batch, step + 1)?;
            }
            let tokens = stepper.gradients(&train, &batch, &mut window.averages, &gradients)?;
            let norm = optimizer.step(model.weights(), &gradients, rate)?;
            window.averages.add("grad_norm", norm);
            window.watch.rows += batch.len();
            window.watch.tokens += tokens;
            total = (total.0 + batch.len(), total.1 + tokens);
            let done = step + 1;
            if let Some(moving) = &mut moving {
                moving.follow(&model, done)?;
            }
            profile.iter_mut().for_each(|profile| profile.end(tokens));
            observe(Event::Step {
                step: done,
                rows: batch.len(),
                tokens,
            });
            let logged = done % config.run.logging_steps == 0 || done == steps;
            if logged {
                let mut record = head(done, per_epoch);
                window.write(rate, total.1, &mut record);
                files.record(&record)?;
                files.timing(&window.watch.read(done))?;
                observe(Event::Record(&record));
                first.get_or_insert_with(|| record.clone());
                last = record;
            }
            let pause = Stopwatch::start();
            if config.run.eval_steps.is_some_and(|every| done % every == 0) || done == steps {
                last_eval = evaluate(&mut moving, done, &mut files, observe)?;
            }
            if config.run.save_steps.is_some_and(|every| done % every == 0) {
                let path = files.checkpoint(&model, &folder, done, &config)?;
                observe(Event::Saved(&path));
            }
            // Evaluating and saving is no training time.
            window.watch.leave_out(&pause);
            if logged {
                window = Window::new();
            }
        }
        let output_dir = config.run.output_dir.clone();
        checkpoint::export(&model, &folder, &output_dir, config.model.save_dtype)?;
        observe(Event::Saved(&output_dir));
        let seconds = start.elapsed().as_secs_f64();
        if let Some(profile) = &mut profile {
            profile.finish(model.weights())?;
        }
        let after = draw(observe)?;
        let story = match (stories, before, after) {
            (Some(stories), Some(before), Some(after)) => {
                let reference = reference::load(&config, &folder, observe)?;
                Some(stories.report(&before, &after, &reference)?)
            }
            _ => None,
        };
        let summary = Summary {
            output_dir,
            steps,
            story,
            seconds,
            rows: total.0,
            tokens: total.1,
            train: (first.unwrap_or_default(), last),
            eval: first_eval.zip(last_eval),
            profile,
        };
        summary.write()?;
        Ok(summary)
    }
}

/// What becomes one line of `metrics.jsonl` and one of `timings.jsonl`.
struct Window {
    averages: Averages,
    watch: Stopwatch,
}

impl Window {
    fn new() -> Self {
        Self {
            averages: Averages::default(),
            watch: Stopwatch::start(),
        }
    }

    fn write(&mut self, rate: f64, tokens: usize, record: &mut Record) {
        self.averages.add("learning_rate", rate);
        self.averages.add("num_tokens", tokens as f64);
        self.averages.write("", record);
        record.insert("num_tokens".into(), tokens.into());
    }
}

fn head(step: u64, per_epoch: u64) -> Record {
    let epoch = step as f64 / per_epoch as f64;
    Record::from_iter([("step".into(), step.into()), ("epoch".into(), epoch.into())])
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
