//! Evaluations of a run, and what checkpoints are compared by.

use serde_json::Value;

use super::Training;
use crate::error::{Error, Kind, Result, nearest};
use crate::run_dir::{ACCURACY, Record, RunWarning, SAMPLED_KL};
use crate::score::micro_batch_tokens;
use crate::session::{Event, Observer};
use crate::train::Stepper;
use crate::train::eval_samples::SampledKl;
use crate::train::eval_samples::{Answers, Extremes};
use crate::train::metrics::Averages;

impl Training {
    /// The last record and evaluation, where the last step was made when it was not to be the last.
    pub(super) fn round_off(&mut self, observe: Observer) -> Result<()> {
        let step = self.state.step;
        if self.state.averages != Averages::default() {
            self.record(self.rate(step.saturating_sub(1)), observe);
        }
        let last = self.state.eval.as_ref().map(|(_, last)| &last["step"]);
        if last.is_some_and(|last| *last != step) {
            self.evaluate(observe)?;
        }
        Ok(())
    }

    /// Evaluates the policy, records what comes out, and keeps what checkpoints are compared by.
    pub(super) fn evaluate(&mut self, observe: Observer) -> Result<()> {
        if self.eval.is_none() {
            return Ok(());
        }
        self.inputs.clear();
        let mut extremes = self.eval_samples.extremes();
        let averages = match self.averages(&mut extremes) {
            Err(error) if error.is_non_finite() => {
                let line = self.inputs.record(self.state.step, &error.to_string(), &[]);
                self.keep_non_finite(&line, observe);
                return Err(error.at("evaluation"));
            }
            averages => averages?,
        };
        self.state.lengths = Some(extremes.lengths);
        let pairs = averages.weight(ACCURACY);
        let mut record = self.head();
        averages.write("eval_", &mut record);
        self.answer(&mut record, observe)?;
        self.log(|logs| logs.record(&record, observe));
        observe(Event::Record(&record));
        self.look_after(&record, "eval_", pairs, observe);
        self.state.evaluated(&record);
        self.state.metric = self.metric(&record)?;
        self.keep(&extremes, observe);
        Ok(())
    }

    /// Answers the fixed prompts; the record gets the divergence from the reference on the answers. What
    /// cannot be had is a warning.
    ///
    /// # Errors
    /// If a rank fails.
    fn answer(&mut self, record: &mut Record, observe: Observer) -> Result<()> {
        let answers = match self.eval_samples.answers(&self.model, self.state.step) {
            Ok(answers) => answers,
            Err(error) if *error.kind() == Kind::Rank => return Err(error),
            Err(error) => {
                observe(Event::Warning(&format!("no generations: {error}")));
                return Ok(());
            }
        };
        self.log(|logs| logs.generations(&answers.lines, observe));
        if answers.examples.is_empty() {
            return Ok(());
        }
        match self.sampled_kl(&answers, observe) {
            Ok(kl) => kl.iter().for_each(|kl| kl.write(record)),
            Err(error) => {
                let warning = RunWarning {
                    code: "no_sampled_kl".into(),
                    text: format!("No {SAMPLED_KL}, the KL to the reference on answers: {error}."),
                };
                self.warn([warning], observe);
            }
        }
        Ok(())
    }

    /// The reference is loaded just for that where it is not in memory anyway.
    fn sampled_kl(&self, answers: &Answers, observe: Observer) -> Result<Option<SampledKl>> {
        let loaded;
        let reference = match (&self.moving, &self.on_policy, &self.stories) {
            (Some(moving), ..) => moving.model(),
            (_, Some(on_policy), _) => on_policy.reference(),
            (.., Some((_, reference))) => reference,
            _ => {
                let hash = self.reference.as_deref();
                loaded = self.session.reference_beside(&self.model, hash, observe)?;
                &loaded
            }
        };
        let budget = micro_batch_tokens(&self.config);
        SampledKl::of(answers, &self.model, reference, budget)
    }

    /// Keeps the pairs with the extreme margins.
    fn keep(&mut self, extremes: &Extremes, observe: Observer) {
        let step = self.state.step;
        let (Some(split), Some(files)) = (&self.eval, &mut self.files) else {
            return;
        };
        match self.eval_samples.pairs(step, split, extremes) {
            Ok(Some(margins)) => files.margins(&margins, observe),
            Ok(None) => {}
            Err(error) => observe(Event::Warning(&format!("no margins: {error}"))),
        }
    }

    /// Those of the evaluation rows.
    fn averages(&mut self, extremes: &mut Extremes) -> Result<Averages> {
        let Some(split) = &mut self.eval else {
            return Ok(Averages::default());
        };
        if let Some(moving) = &mut self.moving {
            moving.score_eval(split)?;
        }
        if let Some(on_policy) = &self.on_policy {
            // The same draws each time, so that evaluations differ by the policy alone.
            let rows: Vec<usize> = (0..split.len()).collect();
            on_policy.draw(&self.model, split, &rows, 0)?;
        }
        let stepper = Stepper::new(&self.config, &self.model, &self.lanes);
        stepper.evaluate(split, &mut self.inputs, extremes)
    }

    /// What checkpoints are compared by, of an evaluation.
    fn metric(&self, record: &Record) -> Result<Option<(String, f64)>> {
        let Some(name) = &self.config.run.metric_for_best_model else {
            return Ok(None);
        };
        match record.get(name).and_then(Value::as_f64) {
            Some(metric) => Ok(Some((name.clone(), metric))),
            None => {
                let names = record.keys().filter(|key| key.starts_with("eval_"));
                let names: Vec<&str> = names.map(String::as_str).collect();
                Err(Error::input(format!("no evaluation has a figure `{name}`"))
                    .at_key("run.metric_for_best_model")
                    .hint(nearest(name, names)))
            }
        }
    }
}
