//! Whether a run fits into memory, and what would.

use super::memory::Memory;
use super::rows::{Division, Rows};
use super::{Device, GIB, Models};
use crate::config::{Config, Dtype};
use crate::error::{Error, Result};
use crate::optim::States;

/// What can be changed for the sake of memory, the least harm first: each as its bit.
const CHANGES: [&str; 3] = [
    "model.recompute = true",
    "optimizer.states = \"split\"",
    "model.dtype = \"bf16\"",
];

/// The largest `micro_batch_tokens` with which the run fits, up to a whole step; `None` where none
/// does, because the longest row is computed alone however few they are.
pub fn largest(config: &Config, models: &Models, rows: &Rows, device: &Device) -> Option<usize> {
    let usable = device.usable()?;
    let fits = |tokens: usize| {
        let batch = rows.largest(Division::Tokens(tokens));
        Memory::of(config, models, device, &batch).total <= usable
    };
    let (mut good, mut bad) = (1, rows.largest_step().max(1) + 1);
    if !fits(good) {
        return None;
    }
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match fits(middle) {
            true => good = middle,
            false => bad = middle,
        }
    }
    Some(good)
}

/// Refuses a run that does not fit.
///
/// # Errors
/// Names the largest `micro_batch_tokens` that does; where none does, also the least harmful set of
/// [`CHANGES`] under which one does.
pub fn check(
    config: &Config,
    models: &Models,
    rows: &Rows,
    device: &Device,
    memory: &Memory,
) -> Result<()> {
    let (Some(all), Some(usable)) = (device.memory, device.usable()) else {
        return Ok(());
    };
    if memory.total <= usable {
        return Ok(());
    }
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / GIB);
    let batch = match Division::of(config) {
        Division::Tokens(tokens) => format!("micro_batch_tokens = {tokens}"),
        Division::Parts(parts) => format!("gradient_accumulation_steps = {parts}"),
    };
    let what = format!(
        "the run needs {} with {batch}; of {}'s {} it may take {}",
        gib(memory.total),
        device.name,
        gib(all),
        gib(usable)
    );
    let hint = match largest(config, models, rows, device) {
        Some(tokens) => format!("the largest micro_batch_tokens that fits is {tokens}"),
        None => remedy(config, models, rows, device),
    };
    Err(Error::input(what).hint(hint))
}

fn remedy(config: &Config, models: &Models, rows: &Rows, device: &Device) -> String {
    for set in 1..1 << CHANGES.len() {
        let Some(changed) = changed(config, device, set) else {
            continue;
        };
        if let Some(tokens) = largest(&changed, models, rows, device) {
            let names: Vec<&str> = (0..CHANGES.len())
                .filter(|change| set >> change & 1 == 1)
                .map(|change| CHANGES[change])
                .collect();
            return format!(
                "no micro_batch_tokens fits; with {} the largest that fits is {tokens}",
                names.join(" and ")
            );
        }
    }
    format!(
        "no micro_batch_tokens fits, whatever is set: take a device of more memory, a smaller model, \
         or shorter rows than {} tokens",
        rows.longest()
    )
}

/// The config with a set of [`CHANGES`], where each of them is one and has a meaning: on the CPU all is
/// f32, and only bf16 weights have states to split.
fn changed(config: &Config, device: &Device, set: usize) -> Option<Config> {
    let mut new = config.clone();
    let [recompute, split, bf16] = [0, 1, 2].map(|change| set >> change & 1 == 1);
    if recompute {
        new.model.recompute = true;
    }
    if split {
        new.optimizer.states = States::Split;
    }
    if bf16 {
        new.model.dtype = Dtype::Bf16;
    }
    let is_new = (!recompute || !config.model.recompute)
        && (!split || config.optimizer.states == States::F32)
        && (!bf16 || config.model.dtype == Dtype::F32);
    let valid = (device.gpu || !(split || bf16))
        && (new.optimizer.states == States::F32 || new.model.dtype == Dtype::Bf16);
    (is_new && valid).then_some(new)
}
