//! The end of a run after its last step: the final model, the summary, what it did in words.

use super::Training;
use crate::error::Result;
use crate::run_dir::{GENERATIONS, Generation, METRICS, Record, points, read_log};
use crate::session::Observer;
use crate::train::files::Files;
use crate::train::health::{Figures, Generated};
use crate::train::{End, Summary, health};

impl Training {
    /// Writes the final model, if asked for, and the summary.
    pub(super) fn close(mut self, observe: Observer) -> Result<End> {
        self.round_off(observe)?;
        match self.config.run.save_model {
            true => self.export(observe)?,
            false => self.settle(observe)?,
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
        let mut findings = Vec::new();
        // The records are read that the first rank has written.
        if self.files.is_some() {
            let clipped = (self.state.clipped, self.state.updates);
            let found = health::of_updates(&self.config, clipped, self.median_norm());
            self.warn(found, observe);
            findings = self.findings();
        }
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
            best: self.files.as_ref().and_then(Files::best),
            warnings: self.state.warnings,
            findings,
            profile: self.profile,
        };
        if let Some(files) = &mut self.files {
            files.settle(observe)?;
            summary.write()?;
        }
        Ok(End::Finished(Box::new(summary)))
    }

    /// The median of the gradient norms in `metrics.jsonl`; NaN where there is none.
    fn median_norm(&self) -> f64 {
        let records = read_log::<Record>(&self.config.run.output_dir.join(METRICS));
        let records = records.map(|log| log.records).unwrap_or_default();
        let mut norms: Vec<f64> = points(&records, "grad_norm")
            .into_iter()
            .map(|(_, norm)| norm)
            .collect();
        norms.sort_by(f64::total_cmp);
        norms.get(norms.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// What the run did, in words.
    fn findings(&self) -> Vec<String> {
        let evaluated = self.state.eval.as_ref();
        let prefix = if evaluated.is_some() { "eval_" } else { "" };
        let Some((first, last)) = evaluated.or(self.state.train.as_ref()) else {
            return Vec::new();
        };
        let lines = read_log::<Generation>(&self.config.run.output_dir.join(GENERATIONS));
        let lines = lines.map(|log| log.records).unwrap_or_default();
        let figures = Figures {
            loss: &self.config.loss,
            records: (first, last),
            prefix,
            lengths: self.state.lengths.filter(|lengths| lengths.pairs > 0),
            generated: Generated::first_and_last(&lines),
        };
        figures.lines()
    }
}
