//! Whether a run fits into memory, and what would make it fit.
//!
//! Hides the search. Every [`Remedy`] is checked: the memory of the run is counted again with it.

use serde::Serialize;

use super::device::size;
use super::memory::Memory;
use super::rows::{Division, Rows};
use super::{Device, Models};
use crate::config::{Config, Dtype};
use crate::error::{Error, Result};
use crate::model::parameters::Layout;
use crate::model::trainable::select;
use crate::optim::{Method, States};

/// A change of a run, with which it fits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Remedy {
    /// Config keys to set, each as `key = value`.
    pub set: Vec<String>,
    /// The GPU to take instead of the one that was planned for.
    pub gpu: Option<String>,
    /// Bytes of memory at the peak of a training step with it.
    pub memory: u64,
    /// What else is to be known of it; empty where it is nothing.
    pub note: String,
}

/// A run, as far as its memory depends on it.
#[derive(Clone, Copy)]
pub struct Planned<'a> {
    pub config: &'a Config,
    pub models: &'a Models<'a>,
    pub rows: &'a Rows,
    pub device: &'a Device,
}

/// What the config can change for the sake of memory without another model or other rows, the least
/// harm first: each as its bit.
const CHANGES: [&str; 5] = [
    "batch.micro_batch_tokens",
    "model.recompute = true",
    "optimizer.states = \"split\"",
    "model.dtype = \"bf16\"",
    "optimizer.optim = \"adamw_8bit\"",
];
/// The bit of a smaller micro-batch.
const BATCH: usize = 1;
/// Sets of the others, those that save most without time first: split states and bf16, split states,
/// nothing; then the same with recomputation.
const SAVING: [usize; 6] = [0b1100, 0b0100, 0, 0b1110, 0b0110, 0b0010];

/// The fewest tokens of a micro-batch, and of `max_length`, that are worth a suggestion.
const WORTH: usize = 64;

impl Planned<'_> {
    /// The memory of the run.
    fn memory(&self, division: Division) -> Memory {
        let batch = self.rows.largest(division);
        Memory::of(self.config, self.models, self.device, &batch)
    }

    fn fits(&self, division: Division) -> Option<u64> {
        let total = self.memory(division).total;
        (total <= self.device.usable()?).then_some(total)
    }

    /// The largest `micro_batch_tokens` with which the run fits, up to a whole step; `None` where none
    /// does, because the longest row is computed alone however few they are.
    pub fn largest(&self) -> Option<usize> {
        let most = self.rows.largest_step().max(1);
        largest(1, most, |tokens| {
            self.fits(Division::Tokens(tokens)).is_some()
        })
    }

    /// Whether the run fits; `None` where the device's memory is not known.
    pub fn is_fitting(&self) -> Option<bool> {
        self.device.usable()?;
        Some(self.fits(Division::of(self.config)).is_some())
    }

    /// What makes the run fit, the least harm first: the smallest sets of changes of the config, then
    /// shorter rows, fewer trained blocks, another GPU. Empty where the run fits or nothing helps.
    pub fn remedies(&self) -> Vec<Remedy> {
        if self.is_fitting() != Some(false) {
            return Vec::new();
        }
        let mut sets: Vec<usize> = (1..1 << CHANGES.len()).collect();
        sets.sort_by_key(|set| set.count_ones());
        let mut found: Vec<(usize, Remedy)> = Vec::new();
        for set in sets {
            let is_minimal = found.iter().all(|(smaller, _)| set & smaller != *smaller);
            if let Some(remedy) = is_minimal.then(|| self.changed(set)).flatten() {
                found.push((set, remedy));
            }
        }
        let mut all: Vec<Remedy> = found.into_iter().map(|(_, remedy)| remedy).collect();
        if all.is_empty() {
            all.extend(self.shorter_rows());
            all.extend(self.fewer_blocks());
        }
        all.extend(self.other_gpu());
        all
    }

    /// The run with a set of [`CHANGES`], where each of them is one and it fits.
    fn changed(&self, set: usize) -> Option<Remedy> {
        let config = with_changes(self.config, self.device, set & !BATCH)?;
        let changed = Planned {
            config: &config,
            ..*self
        };
        let mut names: Vec<String> = (1..CHANGES.len())
            .filter(|change| set >> change & 1 == 1)
            .map(|change| CHANGES[change].to_owned())
            .collect();
        let memory = match set & BATCH {
            0 => changed.fits(Division::of(&config))?,
            _ => {
                let tokens = changed
                    .largest()
                    .filter(|tokens| *tokens >= WORTH.min(self.rows.longest()))?;
                names.insert(0, format!("{} = {tokens}", CHANGES[0]));
                changed.fits(Division::Tokens(tokens))?
            }
        };
        let parts = config.batch.gradient_accumulation_steps;
        let note = match parts.filter(|_| set & BATCH != 0) {
            Some(_) => "instead of gradient_accumulation_steps".to_owned(),
            None => String::new(),
        };
        Some(Remedy {
            set: names,
            gpu: None,
            memory,
            note,
        })
    }

    /// The largest `max_length` with which one row at a time fits, with as few other changes as that
    /// takes. A row is counted as if each of its answers filled it, so no shorter one is longer.
    fn shorter_rows(&self) -> Option<Remedy> {
        let answers = self.config.loss.needs().trained().len().max(1);
        let now = self.config.data.rows.length.max_length;
        let prompt = self.config.data.rows.length.max_prompt_length;
        with_most(self, |planned| {
            let fits = |length: usize| {
                let rows = planned.rows.within(length * answers)?;
                Planned {
                    rows: &rows,
                    ..*planned
                }
                .fits(Division::Tokens(1))
            };
            // Prompts keep their limit.
            let least = WORTH.max(prompt + 1);
            let length = largest(least, now.saturating_sub(1), |length| {
                fits(length).is_some()
            })?;
            let set = vec![
                format!("data.max_length = {length}"),
                "batch.micro_batch_tokens = 1".to_owned(),
            ];
            Some((set, fits(length)?, "rows one at a time".to_owned()))
        })
    }

    /// Training only the last blocks, as many as fit, after what else saves memory without freezing any:
    /// bf16 with split states, and recomputation if nothing fits without it.
    fn fewer_blocks(&self) -> Option<Remedy> {
        if self.config.model.trainable.is_some() {
            return None;
        }
        let arch = self.models.policy;
        let globs = |count: usize| last_blocks(&arch.names.block, arch.layers, count);
        with_first(self, &SAVING, |planned| {
            let tried = |count: usize, division: Division| {
                let layout = select(Layout::new(arch), &globs(count)).ok()?;
                let models = Models {
                    layout: &layout,
                    ..*planned.models
                };
                let planned = Planned {
                    models: &models,
                    ..*planned
                };
                Some((planned.fits(division)?, planned.largest()?))
            };
            let (usual, least) = (Division::of(planned.config), Division::Tokens(WORTH));
            let most = arch.layers.saturating_sub(1);
            let count = largest(1, most, |count| tried(count, least).is_some())?;
            let mut set = vec![format!("model.trainable = {:?}", globs(count))];
            let memory = match tried(count, usual) {
                Some((memory, _)) => memory,
                None => {
                    let (_, tokens) = tried(count, least)?;
                    set.push(format!("{} = {tokens}", CHANGES[0]));
                    tried(count, Division::Tokens(tokens))?.0
                }
            };
            let note = format!("trains {count} of {} blocks", arch.layers);
            Some((set, memory, note))
        })
    }

    /// The GPU of least memory that holds the run as it is, or else with bf16 and split states.
    fn other_gpu(&self) -> Option<Remedy> {
        if !self.device.gpu {
            return None;
        }
        let all = (1..1 << CHANGES.len()).filter(|set| set & BATCH == 0);
        let configs = [(0, Some(self.config.clone()))].into_iter();
        let configs =
            configs.chain(all.map(|set| (set, with_changes(self.config, self.device, set))));
        for (set, config) in configs {
            let Some(config) = config else { continue };
            for device in Device::supported(config.model.dtype) {
                let planned = Planned {
                    config: &config,
                    device: &device,
                    ..*self
                };
                if let Some(memory) = planned.fits(Division::of(&config)) {
                    return Some(Remedy {
                        set: named(set),
                        gpu: Some(device.name),
                        memory,
                        note: String::new(),
                    });
                }
            }
        }
        None
    }

    /// Refuses a run that does not fit.
    ///
    /// # Errors
    /// Names what it needs, what the device has, the first of the remedies and another GPU.
    pub fn check(&self, remedies: &[Remedy]) -> Result<()> {
        let (Some(all), Some(usable)) = (self.device.memory, self.device.usable()) else {
            return Ok(());
        };
        let memory = self.memory(Division::of(self.config));
        if memory.total <= usable {
            return Ok(());
        }
        let batch = match Division::of(self.config) {
            Division::Tokens(tokens) => format!("micro_batch_tokens = {tokens}"),
            Division::Parts(parts) => format!("gradient_accumulation_steps = {parts}"),
        };
        let fact = format!(
            "the run needs {} with {batch}, and can use {} of the {} of {}",
            size(memory.total),
            size(usable),
            size(all),
            self.device.name
        );
        let fixed = memory.weights + memory.gradients + memory.optimizer + memory.reference;
        let hint = match remedies {
            [first, others @ ..] => {
                let gpu = others.iter().find(|other| other.gpu.is_some());
                let said = |remedy: &Remedy| format!("{remedy} ({})", size(remedy.memory));
                let all: Vec<String> = [first].into_iter().chain(gpu).map(said).collect();
                format!("it fits with {}", all.join(", or with "))
            }
            [] if fixed > usable => format!(
                "no setting makes it fit: weights, gradients and optimizer states alone take {}; use a \
                 smaller model or a device with more memory",
                size(fixed)
            ),
            [] => "no setting makes it fit: use a smaller model or a device with more memory"
                .to_owned(),
        };
        Err(Error::input(fact).hint(hint))
    }
}

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gpu = self.gpu.iter().map(|name| format!("GPU {name}"));
        let all: Vec<String> = gpu.chain(self.set.iter().cloned()).collect();
        f.write_str(&all.join(" and "))
    }
}

/// Globs of the last `count` of `all` blocks, with `?` for the last digit of ten of them.
fn last_blocks(block: &str, all: usize, count: usize) -> Vec<String> {
    let mut globs = Vec::new();
    let mut at = all - count;
    while at < all {
        let tens = at / 10;
        match (at.is_multiple_of(10), tens) {
            (true, 0) if all >= 10 => {
                globs.push(format!("{block}?.*"));
                at += 10;
            }
            (true, 1..) => {
                globs.push(format!("{block}{tens}?.*"));
                at += 10;
            }
            _ => {
                globs.push(format!("{block}{at}.*"));
                at += 1;
            }
        }
    }
    globs
}

/// The largest of the numbers from `least` to `most` that fits, where those below one that fits do, too.
fn largest(least: usize, most: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    if least > most || !fits(least) {
        return None;
    }
    let (mut good, mut bad) = (least, most + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match fits(middle) {
            true => good = middle,
            false => bad = middle,
        }
    }
    Some(good)
}

/// What an attempt that fits sets, its bytes, and a note on it.
type Attempt = (Vec<String>, u64, String);

/// The first of the sets of changes beside the batch, the smallest first, with which an attempt fits.
fn with_most(planned: &Planned, attempt: impl Fn(&Planned) -> Option<Attempt>) -> Option<Remedy> {
    let mut sets: Vec<usize> = (0..1 << CHANGES.len())
        .filter(|set| set & BATCH == 0)
        .collect();
    sets.sort_by_key(|set| set.count_ones());
    with_first(planned, &sets, attempt)
}

/// The first of `sets` of changes, of those that the config does not have yet, with which an attempt
/// fits.
fn with_first(
    planned: &Planned,
    sets: &[usize],
    attempt: impl Fn(&Planned) -> Option<Attempt>,
) -> Option<Remedy> {
    sets.iter().find_map(|&set| {
        let config = match set {
            0 => planned.config.clone(),
            set => with_changes(planned.config, planned.device, set)?,
        };
        let changed = Planned {
            config: &config,
            ..*planned
        };
        let (mut own, memory, note) = attempt(&changed)?;
        let mut set = named(set);
        set.append(&mut own);
        Some(Remedy {
            set,
            gpu: None,
            memory,
            note,
        })
    })
}

/// The changes of a set, as they are written.
fn named(set: usize) -> Vec<String> {
    let changes = (0..CHANGES.len()).filter(|change| set >> change & 1 == 1);
    changes.map(|change| CHANGES[change].to_owned()).collect()
}

/// The config with a set of [`CHANGES`] beside the batch, where each of them is one and has a meaning:
/// on the CPU all is f32, and only bf16 weights have states to split.
fn with_changes(config: &Config, device: &Device, set: usize) -> Option<Config> {
    let mut new = config.clone();
    let [recompute, split, bf16, coded] = [1, 2, 3, 4].map(|change| set >> change & 1 == 1);
    if recompute {
        new.model.recompute = true;
    }
    if split {
        new.optimizer.states = States::Split;
    }
    if bf16 {
        new.model.dtype = Dtype::Bf16;
    }
    if coded {
        new.optimizer.optim = Method::AdamW8bit;
    }
    let is_new = (!recompute || !config.model.recompute)
        && (!split || config.optimizer.states == States::F32)
        && (!bf16 || config.model.dtype == Dtype::F32)
        && (!coded || config.optimizer.optim == Method::AdamW);
    let valid = (device.gpu || !(split || bf16))
        && (new.optimizer.states == States::F32 || new.model.dtype == Dtype::Bf16);
    (is_new && valid).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_blocks_are_few_globs() {
        let of = |all, count| last_blocks("h.", all, count);
        assert_eq!(of(32, 2), ["h.3?.*"]);
        assert_eq!(of(32, 4), ["h.28.*", "h.29.*", "h.3?.*"]);
        assert_eq!(of(32, 31).len(), 9 + 3);
        assert_eq!(of(12, 12), ["h.?.*", "h.1?.*"]);
        assert_eq!(of(4, 3), ["h.1.*", "h.2.*", "h.3.*"]);
    }
}
