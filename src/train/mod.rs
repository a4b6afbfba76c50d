//! Preference training: from a config to a trained model.
//!
//! Hides the order of things: open everything, score the reference once, then step, evaluate,
//! record and save. Nothing is written before everything the config names was opened and checked.
//!
//! *Why*: the step has no branch on the loss. A loss says what it needs, sees scored responses and
//! gives the seeds of the backward pass.

mod files;
mod metrics;
mod open;
mod reference;
mod scoring;
mod show;
mod step;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::checkpoint;
use crate::config::Config;
use crate::data::{Census, Dataset, epoch_order};
use crate::error::{Error, Result};
use crate::loss::{Needs, Objective, Role};
use crate::model::hub::Download;
use crate::model::{Decoder, device};
use crate::optim::Optimizer;
use crate::score::Column;

pub use metrics::Record;
pub use scoring::{Rows, Scored, score_rows, score_run};
pub use show::{Shown, show};

use files::Files;
use metrics::Averages;
use open::{Model, dtype};
use step::Stepper;

/// What a run tells while it works.
#[derive(Debug)]
pub enum Event<'a> {
    /// A file of a model is on its way from the hub.
    Download(Download<'a>),
    /// What became of the rows of a dataset, `train` or `eval`.
    Census(&'static str, &'a Census),
    /// Reference log-probs were found in a file.
    ReferenceFound(&'a Path),
    /// The reference is not the policy: its content hash.
    OtherReference(&'a str),
    /// A scoring pass is so far; 0 examples at its start.
    Scoring {
        /// Examples scored.
        done: usize,
        /// Examples to score.
        total: usize,
        /// Tokens computed.
        tokens: usize,
    },
    /// Training begins.
    Start {
        /// Optimizer steps to make.
        steps: u64,
        /// Parameters of the policy.
        parameters: usize,
    },
    /// An optimizer step was made.
    Step {
        /// Steps made.
        step: u64,
        /// Rows and tokens of this step.
        rows: usize,
        /// Tokens computed with gradient in this step.
        tokens: usize,
    },
    /// A line was written to `metrics.jsonl`.
    Record(&'a Record),
    /// A checkpoint or the final model is complete.
    Saved(&'a Path),
}

/// Who is told; the library prints nothing.
pub type Observer<'a> = &'a mut dyn FnMut(Event);

/// A dataset with the reference's log-probs beside it.
struct Split {
    dataset: Dataset,
    reference: Column,
}

/// A run that was opened: everything is read and checked, nothing is written but the cache.
pub struct Run {
    config: Config,
    folder: PathBuf,
    model: Decoder,
    train: Split,
    eval: Option<Split>,
    hashes: files::Hashes,
}

/// What a finished run leaves to say.
#[derive(Debug)]
pub struct Summary {
    /// Where everything is.
    pub output_dir: PathBuf,
    /// Optimizer steps made.
    pub steps: u64,
    /// Wall-clock seconds of training and evaluation.
    pub seconds: f64,
    /// Training rows seen.
    pub rows: usize,
    /// Tokens computed with gradient.
    pub tokens: usize,
    /// The first and the last training record.
    pub train: (Record, Record),
    /// The evaluations before the first step and after the last.
    pub eval: Option<(Record, Record)>,
}

impl Run {
    /// Opens the model, the data and the reference's log-probs.
    pub fn open(config: Config, observe: Observer) -> Result<Self> {
        let device = device::open(&config.model.device).map_err(|e| e.at("model.device"))?;
        files::check_output(&config.run)?;
        let needs = config.loss.needs();
        let opened = Model::open(&config.model, observe)?;
        files::check_apart(&config.run.output_dir, &opened.folder.path)?;
        let datasets = opened.datasets(&config.data, &needs, observe)?;
        let Model { folder, tokenizer } = opened;
        let all: Vec<&Dataset> = datasets.iter().collect();
        let separate = match config.has_reference() {
            true => reference::separate(&config, &tokenizer, &all, observe)?,
            false => Some(no_reference(&all)),
        };
        let (model, hash) = folder.load(dtype(config.model.dtype), &device)?;
        let reference = match separate {
            Some(reference) => reference,
            None => reference::of_policy(&config, &model, &hash, &tokenizer, &all, observe)?,
        };
        let hashes = files::Hashes {
            policy: hash,
            reference: reference.hash,
            tokenizer: tokenizer.hash().to_owned(),
        };
        let mut splits = datasets
            .into_iter()
            .zip(reference.columns)
            .map(|(dataset, reference)| Split { dataset, reference });
        let train = splits
            .next()
            .ok_or_else(|| Error::failed("no training data"))?;
        let eval = splits.next();
        match &hashes.reference {
            Some(hash) if *hash == hashes.policy => {
                let rows = train.dataset.examples.len().min(config.batch.batch_size);
                let rows: Vec<usize> = (0..rows).collect();
                Stepper::new(&config, &model).check_same_model(&train, &rows)?;
            }
            Some(hash) => observe(Event::OtherReference(hash)),
            None => {}
        }
        Ok(Self {
            config,
            folder: folder.path,
            model,
            train,
            eval,
            hashes,
        })
    }

    /// Trains, and writes records, checkpoints and the final model.
    pub fn train(self, observe: Observer) -> Result<Summary> {
        let Self {
            config,
            folder,
            mut model,
            train,
            eval,
            hashes,
        } = self;
        model.recompute = config.model.recompute;
        let censuses = [Some(&train), eval.as_ref()].map(|split| split.map(|s| &s.dataset.census));
        let mut files = Files::create(&config, &hashes, censuses)?;
        let rows = train.dataset.examples.len();
        let per_epoch = rows.div_ceil(config.batch.batch_size) as u64;
        let steps = config.run.max_steps.unwrap_or_else(|| {
            ((per_epoch as f64 * config.run.num_train_epochs).ceil() as u64).max(1)
        });
        let parameters = model.weights().layout().len;
        observe(Event::Start { steps, parameters });

        let mut optimizer = Optimizer::new(&config.optimizer, model.weights())?;
        let gradients = model.gradients()?;
        let stepper = Stepper::new(&config, &model);
        let start = Instant::now();
        let evaluate = |stepper: &Stepper, step: u64, files: &mut Files, observe: Observer| {
            let Some(split) = &eval else { return Ok(None) };
            let mut record = head(step, per_epoch);
            stepper.evaluate(split)?.write("eval_", &mut record);
            files.record(&record)?;
            observe(Event::Record(&record));
            Result::Ok(Some(record))
        };
        let first_eval = evaluate(&stepper, 0, &mut files, observe)?;
        let mut last_eval = first_eval.clone();
        let (mut first, mut last) = (None, Record::new());
        let mut window = Window::new();
        let mut total = (0, 0);
        let mut order = Vec::new();
        for step in 0..steps {
            let (epoch, within) = (step / per_epoch, (step % per_epoch) as usize);
            if within == 0 || order.is_empty() {
                order = epoch_order(rows, config.run.seed, epoch, config.data.shuffle);
            }
            let from = within * config.batch.batch_size;
            let batch = &order[from..rows.min(from + config.batch.batch_size)];
            let rate = config.optimizer.learning_rate * config.schedule.factor(step, steps);
            let tokens = stepper.gradients(&train, batch, &mut window.averages, &gradients)?;
            let norm = optimizer.step(model.weights(), &gradients, rate)?;
            window.averages.add("grad_norm", norm);
            window.rows += batch.len();
            window.tokens += tokens;
            total = (total.0 + batch.len(), total.1 + tokens);
            let done = step + 1;
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
                files.timing(done, &window)?;
                observe(Event::Record(&record));
                first.get_or_insert_with(|| record.clone());
                last = record;
            }
            let pause = Instant::now();
            if config.run.eval_steps.is_some_and(|every| done % every == 0) || done == steps {
                last_eval = evaluate(&stepper, done, &mut files, observe)?;
            }
            if config.run.save_steps.is_some_and(|every| done % every == 0) {
                let path = files.checkpoint(&model, &folder, done, &config)?;
                observe(Event::Saved(&path));
            }
            // Evaluating and saving is no training time.
            window.start += pause.elapsed();
            if logged {
                window = Window::new();
            }
        }
        let output_dir = config.run.output_dir.clone();
        checkpoint::export(&model, &folder, &output_dir, config.model.save_dtype)?;
        observe(Event::Saved(&output_dir));
        Ok(Summary {
            output_dir,
            steps,
            seconds: start.elapsed().as_secs_f64(),
            rows: total.0,
            tokens: total.1,
            train: (first.unwrap_or_default(), last),
            eval: first_eval.zip(last_eval),
        })
    }
}

/// What is averaged into one line of `metrics.jsonl`.
struct Window {
    averages: Averages,
    start: Instant,
    rows: usize,
    tokens: usize,
}

impl Window {
    fn new() -> Self {
        Self {
            averages: Averages::default(),
            start: Instant::now(),
            rows: 0,
            tokens: 0,
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

fn no_reference(datasets: &[&Dataset]) -> reference::Reference {
    let column = |dataset: &&Dataset| {
        dataset
            .examples
            .iter()
            .map(|example| vec![f64::NAN; example.responses.len()])
            .collect()
    };
    reference::Reference {
        columns: datasets.iter().map(column).collect(),
        hash: None,
    }
}

/// The roles that are computed with gradient; that of an optional one is 0.
fn trained(needs: &Needs) -> Vec<Role> {
    let read = needs.all.iter().chain(needs.any).chain(needs.optional);
    read.copied().collect()
}
