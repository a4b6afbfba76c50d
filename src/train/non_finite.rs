//! What is kept of a step that met a value that is not finite.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::kernels::device::download;
use crate::loss::{Response, Scored};
use crate::model::parameters::Params;
use crate::run_dir::{NonFiniteResponse, NonFiniteRow, NonFiniteStep};

/// The rows of a step as its loss saw them.
#[derive(Default)]
pub(super) struct LossInputs {
    rows: Vec<(usize, f64, Scored)>,
    /// The parameters that the step's update would have made infinite.
    overflowing: Vec<String>,
}

impl LossInputs {
    /// Adds a row's number, its loss, and its responses.
    pub fn add(&mut self, row: usize, loss: f64, scored: &Scored) {
        self.rows.push((row, loss, scored.clone()));
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.overflowing.clear();
    }

    /// The error of an update that would have left these parameters with values that are not finite.
    pub fn overflow(&mut self, parameters: Vec<String>, rate: f64) -> Error {
        let first = parameters.first().map_or("the weights", String::as_str);
        let others = match parameters.len().saturating_sub(1) {
            0 => String::new(),
            n => format!(" and of {n} other parameters"),
        };
        let error = Error::non_finite(format!(
            "the update of {first}{others} overflows at a learning rate of {rate:e}; no update was made"
        ));
        self.overflowing = parameters;
        error
    }

    /// A line of `non_finite.jsonl`: in the step of this number, or in the evaluation after it, `what` was
    /// met, in these rows, of whose gradient these parameters are not finite.
    pub fn record(&self, step: u64, what: &str, parameters: &[String]) -> NonFiniteStep {
        let response = |y: &Response| NonFiniteResponse {
            role: y.role.name().into(),
            tokens: y.tokens,
            log_prob: y.policy.value,
            reference: y.reference,
        };
        let row = |(row, loss, scored): &(usize, f64, Scored)| NonFiniteRow {
            row: *row,
            loss: *loss,
            responses: scored.responses.iter().map(response).collect(),
        };
        NonFiniteStep {
            step,
            what: what.into(),
            rows: self.rows.iter().map(row).collect(),
            parameters: [parameters, &self.overflowing].concat(),
        }
    }
}

/// The names of the parameters in a range whose gradient is not finite.
pub(super) fn not_finite(gradients: &Params, piece: &Range<usize>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (id, entry) in gradients.layout().entries.iter().enumerate() {
        if entry.range.start < piece.start || entry.range.end > piece.end {
            continue;
        }
        let values = download(&gradients.view(id).flatten_all()?)?;
        if !values.iter().all(|x| x.is_finite()) {
            names.push(entry.name.clone());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::Config;
    use crate::io::durable::{MANIFEST, verify};
    use crate::optim::{Optimizer, OptimizerConfig};
    use crate::score::Score;
    use crate::session::Event;
    use crate::train::{End, Opened, Resume, Run};

    fn config(folder: &Path, more: &str) -> Config {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let (model, pairs) = (fixtures.join("llama"), fixtures.join("pairs.jsonl"));
        let text = format!(
            "[model]\nmodel_name_or_path = {model:?}\n\
             [data]\nformat = \"pairs\"\ntrain = \"{}[:6]\"\nshuffle = false\n\
             max_length = 64\nmax_prompt_length = 32\n[loss.dpo]\n\
             [batch]\nbatch_size = 2\n[optimizer]\nlearning_rate = 1e-3\n\
             [run]\noutput_dir = {:?}\ncache_dir = {:?}\nmax_steps = 3\nsave_steps = 1\n{more}",
            pairs.display(),
            folder.join("run"),
            folder.join("cache")
        );
        Config::parse(&text, &[]).unwrap()
    }

    fn open(folder: &Path, more: &str) -> Run {
        Run::open(config(folder, more), &mut |_| {}).unwrap()
    }

    fn score(log_prob: f64) -> Score {
        Score {
            log_prob,
            tokens: 3,
            shared: None,
        }
    }

    fn lines(folder: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(folder.join("run/non_finite.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The message of a run that fails, which must have exit code 3 and must not have changed the
    /// weights of `step`.
    fn refused(folder: &Path, run: Run, step: u64) -> String {
        let weights = run.model.weights().clone();
        let mut before = Vec::new();
        let range = 0..weights.layout().len;
        let error = run.train(&mut |event| {
            if matches!(event, Event::Start { .. } | Event::Step { .. }) {
                before = weights.values(range.clone()).unwrap();
            }
        });
        let error = error.unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert!(
            bits(weights.values(range).unwrap()) == bits(before),
            "an update was made"
        );
        for step in 1..=step {
            verify(&folder.join(format!("run/checkpoint-{step}"))).unwrap();
        }
        assert!(!folder.join("run/config.json").exists());
        error.to_string()
    }

    #[test]
    fn a_weight_that_is_not_finite_stops_the_run_before_an_update() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let folder = tempfile::tempdir().unwrap();
            let mut run = open(folder.path(), "");
            // Of the final norm, so that every token meets it.
            let place = run.model.weights().layout().id("model.norm.weight");
            let place = run.model.weights().layout().entries[place].range.start;
            run.model.weights_mut().set(place, &[value]).unwrap();
            let message = refused(folder.path(), run, 0);
            assert!(message.contains("no update was made"), "{message}");
            assert_eq!(lines(folder.path())[0]["step"], 1);
        }
    }

    #[test]
    fn a_reference_that_is_not_finite_is_recorded_with_its_row() {
        for value in [f64::NAN, f64::NEG_INFINITY] {
            let folder = tempfile::tempdir().unwrap();
            let mut run = open(folder.path(), "");
            // The fourth row is the second of the second step.
            run.train
                .reference
                .as_mut()
                .unwrap()
                .set(3, [score(value); 2]);
            let message = refused(folder.path(), run, 1);
            assert!(
                message.starts_with("step 2: row 3: the loss is NaN"),
                "{message}"
            );
            let lines = lines(folder.path());
            let rows = lines[0]["rows"].as_array().unwrap();
            assert_eq!((lines.len(), &lines[0]["step"]), (1, &json!(2)));
            let row = rows.iter().find(|row| row["row"] == 3).unwrap();
            assert_eq!(row["loss"], "NaN");
            assert_eq!(row["responses"][0]["reference"], value.to_string());
            assert!(row["responses"][1]["log_prob"].as_f64().unwrap() < 0.0);
        }
    }

    #[test]
    fn steps_are_passed_over_up_to_a_number_and_resumed_like_others() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let more = "max_non_finite_steps = 1\nlogging_steps = 3";
        let broken = |folder: &Path, resume: &Resume| {
            let opened = Run::open_with(config(folder, more), resume, &[], &mut |_| {});
            let Ok(Opened::Run(mut run)) = opened else {
                panic!("not opened")
            };
            run.train
                .reference
                .as_mut()
                .unwrap()
                .set(3, [score(f64::NAN); 2]);
            run
        };
        let End::Finished(summary) = broken(folders[0].path(), &Resume::Never)
            .train(&mut |_| {})
            .unwrap()
        else {
            panic!("stopped")
        };
        assert_eq!((summary.steps, summary.passed_over), (3, 1));
        let (_, last) = &summary.train;
        assert!(last["loss"].as_f64().unwrap().is_finite());
        assert_eq!(last["non_finite_steps"], 1);
        // Stopped after the step that was passed over, and gone on with.
        let run = broken(folders[1].path(), &Resume::Never);
        let signal = run.until.signal.clone();
        let end = run.train(&mut |event| {
            if matches!(event, Event::Step { step: 2, .. }) {
                signal.store(2, std::sync::atomic::Ordering::Relaxed);
            }
        });
        assert!(matches!(end.unwrap(), End::Stopped(_)));
        broken(folders[1].path(), &Resume::Auto)
            .train(&mut |_| {})
            .unwrap();
        for name in ["metrics.jsonl", "non_finite.jsonl", "model.safetensors"] {
            let read = |index: usize| std::fs::read(folders[index].path().join("run").join(name));
            assert!(read(0).unwrap() == read(1).unwrap(), "{name}");
        }
        // One more is one too many.
        let folder = tempfile::tempdir().unwrap();
        let mut run = broken(folder.path(), &Resume::Never);
        run.train
            .reference
            .as_mut()
            .unwrap()
            .set(4, [score(f64::NAN); 2]);
        let message = refused(folder.path(), *run, 2);
        assert!(
            message.ends_with("1 steps before were passed over"),
            "{message}"
        );
        assert_eq!(lines(folder.path()).len(), 2);
    }

    #[test]
    fn one_gradient_that_is_not_finite_is_found_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = open(folder.path(), "");
        let weights = run.model.weights();
        let before = weights.values(0..weights.layout().len).unwrap();
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for entry in run.model.weights().layout().entries.clone() {
                let mut gradients = run.model.gradients().unwrap();
                gradients.set(entry.range.end - 1, &[value]).unwrap();
                let weights = run.model.weights_mut();
                let mut optimizer = Optimizer::new(&OptimizerConfig::default(), weights).unwrap();
                let error = optimizer.step(weights, &gradients, 1e-3).unwrap_err();
                assert!(error.is_non_finite());
                assert_eq!(
                    not_finite(&gradients, &(0..gradients.layout().len)).unwrap(),
                    std::slice::from_ref(&entry.name)
                );
            }
        }
        let after = run.model.weights().values(0..before.len()).unwrap();
        assert!(after == before);
    }

    #[test]
    fn a_moment_that_is_not_finite_is_neither_saved_nor_gone_on_from() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), "").train(&mut |_| {}).unwrap();
        let checkpoint = folder.path().join("run/checkpoint-3");
        // A NaN in the last moment of the file, under a manifest that is right about it.
        let path = checkpoint.join("training_state.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let manifest = checkpoint.join(MANIFEST);
        let mut files: Value =
            serde_json::from_str(&std::fs::read_to_string(&manifest).unwrap()).unwrap();
        let mut hasher = <sha2::Sha256 as sha2::Digest>::new();
        sha2::Digest::update(&mut hasher, std::fs::read(&path).unwrap());
        let hash = format!("{:x}", sha2::Digest::finalize(hasher));
        files["files"]["training_state.safetensors"]["sha256"] = hash.into();
        std::fs::write(&manifest, files.to_string()).unwrap();
        verify(&checkpoint).unwrap();
        let other = tempfile::tempdir().unwrap();
        let from = Resume::From(checkpoint);
        let opened = Run::open_with(config(other.path(), ""), &from, &[], &mut |_| {});
        let Ok(Opened::Run(run)) = opened else {
            panic!("not opened")
        };
        let message = run.train(&mut |_| {}).unwrap_err().to_string();
        assert!(
            message.contains("tensor square.") && message.contains("holds NaN"),
            "{message}"
        );
        assert!(!other.path().join("run/run.json").exists());
    }
}
