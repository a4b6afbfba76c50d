//! The two protocols for one loss on some prompts: solved, and trained.

use super::contest::SampleTerm;
use super::policy::logs;
use super::problem::{Draws, Example, Prompt, Task, gathered};
use super::solve::{Solved, minimize};
use super::train::TrainConfig;
use crate::error::{Error, Result};
use crate::loss::Loss;

/// The optimum with exact preferences, searched from the reference.
pub fn solve(loss: &Loss, prompt: &Prompt) -> Solved {
    solve_pairs(loss, prompt, &prompt.population())
}

/// The optimum on these comparisons, searched from the reference.
pub fn solve_pairs(loss: &Loss, prompt: &Prompt, pairs: &[Example]) -> Solved {
    let task = Task::new(loss, prompt);
    let pairs = gathered(pairs);
    let start = logs(&prompt.reference);
    minimize(|theta| task.evaluate(theta, &pairs), &start)
}

/// Trains from the references on drawn pairs; the logits of each prompt.
pub fn train(
    loss: &Loss,
    prompts: &[Prompt],
    pairs: &[Example],
    config: &TrainConfig,
    seed: u64,
    observe: impl FnMut(usize, &[Vec<f64>]),
) -> Result<Vec<Vec<f64>>> {
    let tasks: Vec<Task> = prompts
        .iter()
        .map(|prompt| Task::new(loss, prompt))
        .collect();
    let gradient = |theta: &[Vec<f64>], batch: &[Example]| {
        let of = |(index, task): (usize, &Task)| {
            let own = batch.iter().filter(|example| example.prompt == index);
            task.evaluate(&theta[index], own).grad
        };
        tasks.iter().enumerate().map(of).collect()
    };
    let start = prompts
        .iter()
        .map(|prompt| logs(&prompt.reference))
        .collect();
    let theta = config.train(start, pairs, seed, gradient, observe);
    match theta.iter().flatten().all(|x| x.is_finite()) {
        true => Ok(theta),
        false => Err(Error::NonFinite(
            "the policy is not finite after training".to_owned(),
        )),
    }
}

/// The pairs as a loss gets them: with samples where they are drawn.
pub fn with_samples(
    pairs: &[Example],
    prompts: &[Prompt],
    term: SampleTerm,
    seed: u64,
) -> Vec<Example> {
    let mut pairs = pairs.to_vec();
    if term == SampleTerm::Drawn {
        Draws::new(seed, 1).samples(prompts, &mut pairs);
    }
    pairs
}

/// The mean and the standard deviation (over n - 1; 0 of one number).
pub fn spread(numbers: &[f64]) -> (f64, f64) {
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let squares = numbers.iter().map(|x| (x - mean) * (x - mean));
    (mean, (squares.sum::<f64>() / (n - 1.0).max(1.0)).sqrt())
}

/// What a figure calls the papers' lambda of a loss whose knob is `knob`.
pub fn lambda_label(knob: Option<&str>) -> String {
    match knob {
        Some("beta") => "\u{3bb} (beta)".to_owned(),
        Some(_) => "\u{3bb}".to_owned(),
        None => "\u{3bb} (not read)".to_owned(),
    }
}

/// "yes" or "no".
pub fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
