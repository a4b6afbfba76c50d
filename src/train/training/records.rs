//! Records of a run, on the first rank, and the warnings that they give cause for.

use super::Training;
use crate::run_dir::{ACCURACY, NonFiniteStep, Record, RunWarning};
use crate::session::{Event, Observer, Stopwatch};
use crate::train::health::{self, Sight};
use crate::train::logs::Logs;

impl Training {
    /// Writes what was averaged since the last record.
    pub(super) fn record(&mut self, rate: f64, observe: Observer) {
        let mut averages = std::mem::take(&mut self.state.averages);
        averages.add("learning_rate", rate);
        averages.add("num_tokens", self.state.tokens as f64);
        let pairs = averages.weight(ACCURACY);
        let mut record = self.head();
        averages.write("", &mut record);
        record.insert("num_tokens".into(), self.state.tokens.into());
        if self.state.passed_over > 0 {
            record.insert("non_finite_steps".into(), self.state.passed_over.into());
        }
        let timing = self.watch.read(self.state.step);
        self.log(|logs| {
            logs.record(&record, observe);
            logs.timing(&timing, observe);
        });
        observe(Event::Record(&record));
        self.look_after(&record, "", pairs, observe);
        self.state.trained(&record);
        self.watch = Stopwatch::start();
    }

    /// Lets `append` append to the logs, on the first rank.
    pub(super) fn log(&mut self, append: impl FnOnce(&mut Logs)) {
        if let Some(files) = &mut self.files {
            append(&mut files.logs);
        }
    }

    pub(super) fn keep_non_finite(&self, line: &NonFiniteStep, observe: Observer) {
        if let Some(files) = &self.files {
            files.non_finite(line, observe);
        }
    }

    /// Warns of what a new record shows. Training is looked at only where nothing is evaluated.
    pub(super) fn look_after(
        &mut self,
        record: &Record,
        prefix: &'static str,
        pairs: f64,
        observe: Observer,
    ) {
        let known = match prefix {
            "" if self.eval.is_some() => return,
            "" => self.state.train.as_ref(),
            _ => self.state.eval.as_ref(),
        };
        let (first, before) = known.map(|(first, last)| (first, last)).unzip();
        let of = Sight {
            record,
            prefix,
            pairs,
        };
        let found = health::of_record(&self.config, self.steps, &of, first, before);
        self.warn(found, observe);
    }

    /// Tells each warning once in the life of the run.
    pub(super) fn warn(&mut self, found: impl IntoIterator<Item = RunWarning>, observe: Observer) {
        for warning in found {
            let known = self
                .state
                .warnings
                .iter()
                .any(|known| known.code == warning.code);
            if !known {
                observe(Event::Warning(&warning.text));
                self.state.warnings.push(warning);
            }
        }
    }

    /// How far the run is.
    pub(super) fn head(&self) -> Record {
        let step = self.state.step;
        let epoch = step as f64 / self.batches.per_epoch() as f64;
        Record::from_iter([("step".into(), step.into()), ("epoch".into(), epoch.into())])
    }
}
