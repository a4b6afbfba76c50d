//! The steps of a run, from its beginning or from a checkpoint on.

mod evaluate;
mod save;

use std::time::Instant;

use super::eval_samples::EvalSamples;
use super::files::Files;
use super::non_finite::{LossInputs, not_finite};
use super::record::{About, machine_of};
use super::state::State;
use super::{End, MovingReference, OnPolicy, Profile, Run, Split, Stepper, Stories, Summary};
use crate::checkpoint;
use crate::config::Config;
use crate::data::{Batches, Orders};
use crate::error::{Error, Result};
use crate::io::model_dir::ModelFiles;
use crate::kernels::device::{kind, rounds_differently};
use crate::model::Decoder;
use crate::model::parameters::Params;
use crate::optim::{Optimizer, Updated};
use crate::run_dir::Record;
use crate::sample::Drawn;
use crate::session::{Event, Observer, StopCondition, Stopped, Stopwatch};

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
    profile: Option<Profile>,
    until: StopCondition,
    batches: Batches,
    orders: Orders,
    /// Steps of the whole run.
    steps: u64,
    optimizer: Optimizer,
    gradients: Params,
    inputs: LossInputs,
    files: Files,
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
        let mut optimizer = Optimizer::new(&run.config.optimizer, run.model.weights())?;
        let gradients = run.model.gradients()?;
        let origin = std::mem::take(&mut run.origin);
        let resumed = origin.checkpoint.is_some();
        let mut state = State::default();
        if let Some((folder, saved)) = &origin.checkpoint {
            state = saved.clone();
            if state.step > steps {
                let what = format!("is after step {}, and the run has {steps}", state.step);
                return Err(Error::input(what)
                    .at(folder.display())
                    .hint("set more steps, or resume from an earlier checkpoint")
                    .option("resume", "PATH"));
            }
            let moving = run.moving.as_mut().filter(|_| state.reference_moved);
            let moving = moving.map(|moving| ("reference", moving.weights_mut()));
            let buffers = optimizer.moments_mut().into_iter().chain(moving).collect();
            checkpoint::restore(folder, &mut run.model, buffers)?;
            optimizer.continue_after(state.updates);
            if let Some(moving) = &mut run.moving {
                moving.resume(state.reference_moved);
            }
        }
        state.frozen = run.identity.clone();
        // A run that goes on saves what it saved before.
        let saved = match &origin.checkpoint {
            Some((folder, _)) => ModelFiles::open(folder)?,
            None => run.session.folder.files.clone(),
        };
        let machine = kind(run.model.weights().flat().device())?;
        if let (true, Some(other)) = (resumed, machine_of(&run.config.run.output_dir))
            && rounds_differently(&other, &machine)
        {
            observe(Event::Warning(&format!(
                "the run was made on {other}, and goes on on {machine}, which rounds differently"
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
        let mut files = match (origin.lock, from) {
            (Some(lock), Some(_)) => Files::reopen(&about, lock, &state, &origin.changes, observe)?,
            (lock, from) => Files::create(&about, lock, from, &origin.changes)?,
        };
        if let Some(timing) = &run.scoring {
            files.logs.timing(timing, observe);
        }
        if let Some(unlabelled) = run.unlabelled {
            run.train.append(unlabelled)?;
        }
        let training = Self {
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
            profile: run.profile.then(Profile::new),
            until: run.until,
            batches,
            orders: Orders::default(),
            steps,
            optimizer,
            gradients,
            inputs: LossInputs::default(),
            files,
            resumed: resumed.then_some((state.step, state.rows, state.tokens)),
            state,
            watch: Stopwatch::start(),
            start: Instant::now(),
        };
        observe(Event::Start {
            steps,
            parameters: training.model.weights().layout().len,
            step: training.state.step,
        });
        Ok(training)
    }

    /// Makes the steps that are left, and writes the final model, if asked for, and the summary.
    pub fn finish(mut self, observe: Observer) -> Result<End> {
        if self.state.eval.is_none() {
            self.evaluate(observe)?;
        }
        self.watch = Stopwatch::start();
        while self.state.step < self.steps {
            if let Some(reason) = self.until.reached() {
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
        self.round_off(observe)?;
        match self.config.run.save_model {
            true => self.export(observe)?,
            false => self.files.settle(observe)?,
        }
        let output_dir = self.config.run.output_dir.clone();
        let seconds = self.start.elapsed().as_secs_f64();
        if let Some(profile) = &mut self.profile {
            profile.finish(&self.model)?;
        }
        let story = match (&self.stories, &self.before) {
            (Some((stories, reference)), Some(before)) => {
                let after = stories.draw(&self.model, observe)?;
                Some(stories.report(before, &after, reference)?)
            }
            _ => None,
        };
        let (_, rows, tokens) = self.resumed.unwrap_or_default();
        let summary = Summary {
            output_dir,
            steps: self.steps,
            resumed_from: self.resumed.map(|(step, ..)| step),
            story,
            seconds,
            rows: self.state.rows,
            tokens: self.state.tokens,
            session: (self.state.rows - rows, self.state.tokens - tokens),
            passed_over: self.state.passed_over,
            train: self.state.train.unwrap_or_default(),
            eval: self.state.eval,
            best: self.files.best(),
            profile: self.profile,
        };
        self.files.settle(observe)?;
        summary.write()?;
        Ok(End::Finished(Box::new(summary)))
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
        let (averages, inputs) = (&mut self.state.averages, &mut self.inputs);
        let stepper = Stepper::new(&self.config, &self.model);
        let tokens =
            stepper.gradients(&self.train, batch, averages, inputs, &mut self.gradients)?;
        let weights = self.model.weights_mut();
        let norm = match self.optimizer.step(weights, &self.gradients, rate)? {
            Updated::Made(norm) => norm,
            Updated::Overflows(parameters) => return Err(self.inputs.overflow(parameters, rate)),
        };
        self.state.averages.add("grad_norm", norm);
        self.state.updates += 1;
        Ok(tokens)
    }

    /// Keeps a record of a step whose loss or gradient is not finite, and goes on without an update
    /// if there have not been too many of them.
    fn pass_over(&mut self, what: &str, observe: Observer) -> Result<()> {
        let step = self.state.step + 1;
        let parameters = not_finite(&self.gradients)?;
        let line = self.inputs.record(step, what, &parameters);
        self.files.non_finite(&line, observe);
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

    /// Writes what was averaged since the last record.
    fn record(&mut self, rate: f64, observe: Observer) {
        let mut averages = std::mem::take(&mut self.state.averages);
        averages.add("learning_rate", rate);
        averages.add("num_tokens", self.state.tokens as f64);
        let mut record = self.head();
        averages.write("", &mut record);
        record.insert("num_tokens".into(), self.state.tokens.into());
        if self.state.passed_over > 0 {
            record.insert("non_finite_steps".into(), self.state.passed_over.into());
        }
        self.files.logs.record(&record, observe);
        self.files
            .logs
            .timing(&self.watch.read(self.state.step), observe);
        observe(Event::Record(&record));
        self.state.trained(&record);
        self.watch = Stopwatch::start();
    }

    fn head(&self) -> Record {
        let step = self.state.step;
        let epoch = step as f64 / self.batches.per_epoch() as f64;
        Record::from_iter([("step".into(), step.into()), ("epoch".into(), epoch.into())])
    }
}
