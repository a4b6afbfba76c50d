//! The steps of a run, from its beginning or from a checkpoint on.

mod close;
mod evaluate;
mod records;
mod save;

use std::time::Instant;

use sha2::{Digest, Sha256};

use super::eval_samples::EvalSamples;
use super::files::Files;
use super::health;
use super::lanes::Lanes;
use super::non_finite::LossInputs;
use super::output::check_shared;
use super::record::{About, machine_of};
use super::state::State;
use super::{End, MovingReference, OnPolicy, Profile, Run, Split, Stepper, Stories};
use crate::checkpoint;
use crate::config::Config;
use crate::data::{Batches, Orders};
use crate::error::{Error, Result};
use crate::io::model_dir::ModelFiles;
use crate::kernels::device::{kind, rounds_differently};
use crate::kernels::threads;
use crate::model::Decoder;
use crate::model::parameters::{Entry, Params};
use crate::optim::{Optimizer, Updated};
use crate::ranks::share;
use crate::sample::Drawn;
use crate::session::{Event, Observer, RunHeader, Session, StopCondition, Stopped, Stopwatch};

/// A run between two steps, with everything that the next one needs.
pub(super) struct Training {
    config: Config,
    /// What is saved beside the weights.
    saved: ModelFiles,
    model: Decoder,
    train: Split,
    eval: Option<Split>,
    /// With the reference that they are scored under.
    stories: Option<(Stories, Decoder)>,
    /// The stories of the model before its first step.
    before: Option<Vec<Drawn>>,
    eval_samples: EvalSamples,
    moving: Option<MovingReference>,
    on_policy: Option<OnPolicy>,
    /// What opens the reference where it is not in memory, and the content hash of its weights.
    session: Session,
    reference: Option<String>,
    profile: Option<Profile>,
    until: StopCondition,
    batches: Batches,
    orders: Orders,
    /// Steps of the whole run.
    steps: u64,
    optimizer: Optimizer,
    gradients: Params,
    inputs: LossInputs,
    lanes: Lanes,
    /// The run's directory; none on another rank than the first, which writes nothing.
    files: Option<Files>,
    state: State,
    /// The steps, rows and tokens that were there when this process began.
    resumed: Option<(u64, usize, usize)>,
    watch: Stopwatch,
    start: Instant,
}

impl Training {
    /// Makes the output folder, or takes up what its checkpoint holds.
    pub fn begin(mut run: Run, observe: Observer) -> Result<Self> {
        let before = match &run.stories {
            Some((stories, _)) => Some(stories.draw(&run.model, observe)?),
            None => None,
        };
        let batches = Batches {
            labelled: run.train.len(),
            unlabelled: run.unlabelled.as_ref().map_or(0, Split::len),
            ratio: run.config.data.unlabelled_ratio,
            size: run.config.batch.batch_size,
            seed: run.config.run.seed,
            shuffle: run.config.data.shuffle,
        };
        let steps = run.config.run.steps(batches.per_epoch());
        run.origin.check_steps(steps, &run.config.run)?;
        let piece = run.lanes.piece(run.model.weights().layout());
        let mut optimizer = Optimizer::of_piece(&run.config.optimizer, run.model.weights(), piece)?;
        let gradients = run.model.gradients()?;
        let origin = std::mem::take(&mut run.origin);
        let resumed = origin.checkpoint.is_some();
        let mut state = State::default();
        if let Some((folder, saved)) = &origin.checkpoint {
            state = saved.clone();
            let moving = run.moving.as_mut().filter(|_| state.reference_moved);
            let moving = moving.map(|moving| (checkpoint::REFERENCE, moving.weights_mut()));
            let buffers = optimizer.moments_mut().into_iter().chain(moving).collect();
            let all = run.lanes.ranks().size() == 1;
            checkpoint::restore(folder, &mut run.model, buffers, all)?;
            optimizer.continue_after(state.updates);
            if let Some(moving) = &mut run.moving {
                moving.resume(state.reference_moved);
            }
        }
        state.frozen = run.identity.clone();
        // A resumed run saves the files that it saved before.
        let files = &run.session.folder.files;
        let saved = match &origin.checkpoint {
            Some((folder, _)) => {
                let mut saved = ModelFiles::open(folder)?;
                saved.set_other_tensors(files.other_tensors().clone());
                saved
            }
            None => files.clone(),
        };
        let machine = kind(run.model.weights().flat().device())?;
        if let (true, Some(other)) = (resumed, machine_of(&run.config.run.output_dir))
            && rounds_differently(&other, &machine)
        {
            observe(Event::Warning(&format!(
                "the run was made on {other} and is resumed on {machine}, which rounds differently"
            )));
        }
        let about = About {
            config: &run.config,
            hashes: &run.hashes,
            reports: run.reports(),
            frozen: &run.identity,
            machine: &machine,
        };
        let from = origin.checkpoint.as_ref();
        let from = from.map(|(folder, state)| (folder.as_path(), state));
        let changes = &origin.changes;
        let ranks = run.lanes.ranks();
        // From here on files of the directory go and come: no rank reads there what is not a checkpoint.
        let is_locked = share(ranks, "the directory of the run", origin.lock.is_some())?[0];
        if is_locked {
            check_shared(ranks, &run.config.run.output_dir)?;
        }
        let mut files = match (origin.lock, from) {
            _ if !ranks.is_first() => None,
            (Some(lock), Some(_)) => Some(Files::reopen(&about, lock, &state, changes, observe)?),
            (lock, from) => Some(Files::create(&about, lock, from, changes)?),
        };
        if !is_locked {
            check_shared(ranks, &run.config.run.output_dir)?;
        }
        if let (Some(timing), Some(files)) = (&run.scoring, &mut files) {
            files.logs.timing(timing, observe);
        }
        if let Some(unlabelled) = run.unlabelled {
            run.train.append(unlabelled)?;
        }
        let reference = match run.config.model.reference {
            Some(_) => run.hashes.reference,
            None => Some(run.hashes.policy),
        };
        let mut training = Self {
            config: run.config,
            saved,
            model: run.model,
            train: run.train,
            eval: run.eval,
            stories: run.stories,
            before,
            eval_samples: run.eval_samples,
            moving: run.moving,
            on_policy: run.on_policy,
            reference,
            session: run.session,
            profile: run.profile.then(Profile::new),
            until: run.until,
            batches,
            orders: Orders::default(),
            steps,
            optimizer,
            gradients,
            inputs: LossInputs::default(),
            lanes: run.lanes,
            files,
            resumed: resumed.then_some((state.step, state.rows, state.tokens)),
            state,
            watch: Stopwatch::start(),
            start: Instant::now(),
        };
        observe(Event::Start(&training.header()?));
        let found = health::of_config(&training.config, &training.train.dataset.report, steps);
        training.warn(found, observe);
        Ok(training)
    }

    /// Makes the steps that are left, and writes the final model, if asked for, and the summary.
    pub fn finish(mut self, observe: Observer) -> Result<End> {
        if self.state.eval.is_none() {
            self.evaluate(observe)?;
        }
        self.watch = Stopwatch::start();
        while self.state.step < self.steps {
            if let Some(reason) = self.until.reached_on(self.lanes.ranks())? {
                let checkpoint = self.stop(observe)?;
                return Ok(End::Stopped(Stopped {
                    reason,
                    step: self.state.step,
                    steps: self.steps,
                    checkpoint,
                }));
            }
            self.step(observe)?;
        }
        self.close(observe)
    }

    /// The learning rate of a step, from 0.
    fn rate(&self, step: u64) -> f64 {
        self.config.optimizer.learning_rate * self.config.schedule.factor(step, self.steps)
    }

    fn step(&mut self, observe: Observer) -> Result<()> {
        let step = self.state.step;
        let batch = self.batches.rows(step, &mut self.orders);
        let rate = self.rate(step);
        self.profile.iter().for_each(Profile::begin);
        let before = self.state.averages.clone();
        let tokens = match self.update(&batch, rate) {
            Ok(tokens) => tokens,
            Err(error) if error.is_non_finite() => {
                self.pass_over(&error.to_string(), observe)?;
                self.state.averages = before;
                0
            }
            Err(error) => return Err(error),
        };
        self.watch.rows += batch.len();
        self.watch.tokens += tokens;
        self.state.rows += batch.len();
        self.state.tokens += tokens;
        self.state.step += 1;
        self.state.metric = None;
        let done = self.state.step;
        if let Some(moving) = &mut self.moving {
            self.state.reference_moved |= moving.follow(&self.model, done)?;
        }
        self.profile
            .iter_mut()
            .for_each(|profile| profile.end(tokens));
        observe(Event::Step {
            step: done,
            rows: batch.len(),
            tokens,
        });
        let due = |every: Option<u64>| every.is_some_and(|every| done.is_multiple_of(every));
        if due(Some(self.config.run.logging_steps)) || done == self.steps {
            self.record(rate, observe);
        }
        let pause = Stopwatch::start();
        if due(self.config.run.eval_steps) || done == self.steps {
            self.evaluate(observe)?;
        }
        if due(self.config.run.save_steps) {
            self.save(observe)?;
        }
        // Evaluating and saving is no training time.
        self.watch.leave_out(&pause);
        Ok(())
    }

    /// One update; the tokens computed with gradient.
    fn update(&mut self, batch: &[usize], rate: f64) -> Result<usize> {
        self.inputs.clear();
        self.gradients.clear()?;
        if let Some(moving) = &self.moving {
            moving.score_batch(&mut self.train, batch)?;
        }
        if let Some(on_policy) = &self.on_policy {
            on_policy.draw(&self.model, &mut self.train, batch, self.state.step + 1)?;
        }
        self.model.dropout_seed = dropout_seed(self.config.run.seed, self.state.step);
        let (averages, inputs) = (&mut self.state.averages, &mut self.inputs);
        let stepper = Stepper::new(&self.config, &self.model, &self.lanes);
        let tokens =
            stepper.gradients(&self.train, batch, averages, inputs, &mut self.gradients)?;
        let (lanes, weights) = (&self.lanes, self.model.weights_mut());
        let gradients = (&self.gradients, lanes.norm(&self.gradients)?);
        let of_all = |tried| lanes.tried(tried);
        let norm = match self.optimizer.update(weights, gradients, rate, of_all)? {
            Updated::Made(norm) => {
                lanes.gather(weights)?;
                norm
            }
            Updated::Overflows(parameters) => return Err(self.inputs.overflow(parameters, rate)),
        };
        self.state.averages.add("grad_norm", norm);
        let most = self.config.optimizer.max_grad_norm;
        self.state.clipped += u64::from(most > 0.0 && norm > most);
        self.state.updates += 1;
        Ok(tokens)
    }

    /// Keeps a record of a step whose loss or gradient is not finite, and continues without an update
    /// if there have not been too many of them.
    fn pass_over(&mut self, what: &str, observe: Observer) -> Result<()> {
        let step = self.state.step + 1;
        let parameters = self.lanes.not_finite(&self.gradients)?;
        let line = self.inputs.record(step, what, &parameters);
        self.keep_non_finite(&line, observe);
        let message = format!("step {step}: {what}; its rows are in non_finite.jsonl");
        let before = self.state.passed_over;
        if before >= self.config.run.max_non_finite_steps {
            return Err(Error::non_finite(match before {
                0 => message,
                before => format!("{message}; {before} steps before were passed over"),
            }));
        }
        self.state.passed_over += 1;
        observe(Event::Warning(&format!("{message}; no update was made")));
        Ok(())
    }

    /// What the run is.
    fn header(&self) -> Result<RunHeader> {
        let layout = self.model.weights().layout();
        Ok(RunHeader {
            loss: self.config.loss.clone(),
            device: self.session.compute.place()?,
            dtype: self.config.model.dtype,
            threads: threads::count(),
            ranks: self.lanes.ranks().size(),
            batch: self.config.batch.clone(),
            trainable: layout.trainable_len,
            parameters: layout.entries.iter().map(Entry::elements).sum(),
            rows: self.batches.labelled,
            eval_rows: self.eval.as_ref().map(Split::len),
            steps: self.steps,
            epochs: self.steps as f64 / self.batches.per_epoch() as f64,
            step: self.state.step,
        })
    }
}

/// What an adapter drops in a step is a function of the run's seed and the step.
fn dropout_seed(seed: u64, step: u64) -> u64 {
    let hash = Sha256::digest(format!("expo dropout v1 {seed} {step}"));
    hash.iter()
        .take(8)
        .fold(0, |seed, &byte| seed << 8 | u64::from(byte))
}
