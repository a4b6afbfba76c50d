//! What a run will take, before it starts: memory, tokens, floating-point operations, disk, time.
//!
//! Hides the arithmetic behind [`Plan::new`]: from a config, the shape of its models, its [rows](Rows)
//! and a [device](Device), without weights and without the device. Memory is counted part by part as
//! the training step holds it, operations as the decoder computes them, time is a lower bound from
//! both.
//!
//! *Why*: memory, days and disk are what runs fail for, and all of them are known from the shapes.

mod bytes;
mod cards;
mod device;
mod disk;
mod fit;
mod flops;
mod memory;
mod parts;
mod rows;
mod shared;
#[cfg(test)]
mod tests;
mod time;

use serde::Serialize;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::adapter::Adapter;
use crate::model::arch::{Architecture, Positions};
use crate::model::numerics::Numerics;
use crate::model::parameters::Layout;
use crate::model::skipped::Skipped;
use crate::model::trainable::select;
use crate::model::weights::FrozenStorage;
use crate::ranks::{check_lanes, lanes};

pub use device::{Device, GIB, Rates, size};
pub use disk::Disk;
pub use fit::Remedy;
pub use flops::Flops;
pub use memory::Memory;
pub use parts::{Ceilings, Part, Parts};
pub use rows::{Division, Largest, Rows, Split, Work};
pub use shared::{Exchange, SharedStep};
pub use time::Seconds;

use bytes::Bytes;
use fit::Planned;
use shared::Shared;
use time::{elementwise_bytes, update_bytes};

/// The shapes of a run's models.
#[derive(Debug, Clone, Copy)]
pub struct Models<'a> {
    /// The model that is trained.
    pub policy: &'a Architecture,
    /// The policy's parameters and which of them are trained, as [`layout`] gives it.
    pub layout: &'a Layout,
    /// Its reference, which may be the same.
    pub reference: &'a Architecture,
}

/// The model that is trained and its parameters: which of them `model.trainable` trains, or those of an
/// `adapter` beside what is frozen, which on a GPU or the CPU is stored as the run stores it. An adapter of a tied
/// head has a head of its own.
///
/// # Errors
/// If a pattern matches no parameter, or nothing is trained.
pub fn layout(
    config: &Config,
    policy: &Architecture,
    adapter: Option<&Adapter>,
    gpu: bool,
) -> Result<(Architecture, Layout)> {
    let mut arch = policy.clone();
    let Some(adapter) = adapter else {
        let layout = Layout::new(policy);
        let layout = match &config.model.trainable {
            None => layout,
            Some(patterns) => {
                select(layout, patterns).map_err(|error| error.at_key("model.trainable"))?
            }
        };
        return Ok((arch, layout));
    };
    arch.tied &= !adapter.unties(&arch.names.embed, &arch.names.head);
    let numerics = Numerics::new(config.model.dtype, gpu);
    let storage = FrozenStorage::new(numerics, !gpu, config.model.format()?);
    let layout = Layout::new(&arch).with_adapter(adapter);
    let scaled = layout.clone();
    let layout =
        layout.with_storage(|entry| storage.of(&arch, entry, false, scaled.scales_rows(entry)));
    Ok((arch, layout))
}

/// The number of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// Of the embedding, which is also the head where they are tied, and of learned positions.
    pub embedding: u64,
    /// Of all blocks.
    pub blocks: u64,
    /// Of the final norm and, where it is not tied, the head.
    pub head: u64,
    /// All.
    pub total: u64,
    /// Active parameters: those that one token uses, without the experts it is not routed to.
    pub active: u64,
}

impl Parameters {
    /// Counts the parameters of a model.
    pub fn of(arch: &Architecture) -> Self {
        let layout = Layout::new(arch);
        let of = |start: &str| -> u64 {
            let entries = layout.entries.iter();
            let own = entries.filter(|entry| entry.name.starts_with(start));
            own.map(|entry| entry.range.len() as u64).sum()
        };
        let learned = match &arch.positions {
            Positions::Learned(table) => of(table),
            Positions::Rotary { .. } => 0,
        };
        let (embedding, blocks) = (of(&arch.names.embed) + learned, of(&arch.names.block));
        let total = layout.len as u64;
        Self {
            embedding,
            blocks,
            head: total - embedding - blocks,
            total,
            active: total - arch.unused(),
        }
    }
}

/// Tokens and what they are divided into.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tokens {
    /// Rows with a preference.
    pub rows: usize,
    /// Rows of an epoch, unlabelled ones included.
    pub rows_per_epoch: usize,
    /// Optimizer steps of an epoch.
    pub steps_per_epoch: u64,
    /// Optimizer steps of the run.
    pub steps: u64,
    /// Tokens of an epoch that are computed with gradient, each prompt once.
    pub per_epoch: f64,
    /// Of a step, on average.
    pub per_step: f64,
    /// Of a prompt, on average.
    pub prompt: f64,
    /// Of a response, on average.
    pub response: f64,
    /// The most of a row.
    pub longest: usize,
    /// Tokens of a step that are predicted, on average.
    pub predicted_per_step: f64,
    /// Micro-batches of a step, on average.
    pub micro_batches: f64,
    /// What the largest of them computes.
    pub largest: Largest,
    /// The largest `micro_batch_tokens` that fits, up to a whole step; `None` where the device's memory
    /// is not known.
    pub largest_that_fits: Option<usize>,
}

/// Floating-point operations of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Operations {
    /// Whether blocks are computed again for the backward pass.
    pub recompute: bool,
    /// Whether batches are scored under a reference that moves.
    pub online: bool,
    /// Of a training row, on average.
    pub row: Flops,
    /// Of a step, on average.
    pub step: Flops,
    /// Of all steps.
    pub run: Flops,
    /// Their sums, with what is on.
    pub total: Sums,
    /// Of all evaluations.
    pub evaluation: f64,
    /// Of scoring all rows under the reference, once.
    pub scoring: f64,
}

/// What all parts come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sums {
    /// Of a row.
    pub row: f64,
    /// Of a step.
    pub step: f64,
    /// Of all steps.
    pub run: f64,
}

/// Seconds, at least.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Time {
    /// Of a step, on average.
    pub step: Seconds,
    /// Of all steps.
    pub training: f64,
    /// Of all evaluations.
    pub evaluation: f64,
    /// Of scoring all rows under the reference, where the cache does not have it.
    pub scoring: f64,
    /// All of it.
    pub total: f64,
}

/// What a run takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// What it is planned for.
    pub device: Device,
    /// The number of parameters.
    pub parameters: Parameters,
    /// Bytes of memory.
    pub memory: Memory,
    /// Tokens.
    pub tokens: Tokens,
    /// Floating-point operations.
    pub flops: Operations,
    /// Bytes on disk.
    pub disk: Disk,
    /// Seconds, at least; `None` where the device's speed is not known.
    pub time: Option<Time>,
    /// What a step is expected to take, part by part; `None` where the device's speed is not known.
    pub parts: Option<Parts>,
    /// What ranks send to each other; `None` where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
    /// What a step takes that ranks share, in place of `time` and `parts`; `None` where there is one rank, or the
    /// device's speed is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_step: Option<SharedStep>,
    /// Whether it fits into the device's memory; `None` where that is not known.
    pub fits: Option<bool>,
    /// What makes it fit where it does not, the least harm first; each is checked.
    pub remedies: Vec<Remedy>,
    /// What is not in the figures.
    pub left_out: Vec<String>,
    /// The error of a run that does not fit.
    #[serde(skip)]
    refusal: Option<Error>,
}

impl Plan {
    /// Refuses a device that the config does not mean, before anything is read.
    pub fn check_device(config: &Config, device: &Device) -> Result<()> {
        let name = config.model.device.as_str();
        match (device.gpu, name) {
            (false, "auto" | "cpu") => config.check_cpu(),
            (false, _) => Err(Error::input(format!("model.device is \"{name}\""))
                .hint("name the GPU, or give its memory and rates")
                .option("gpu", "")
                .option("memory", "")
                .option("tflops", "")
                .option("bandwidth", "")
                .at_key("model.device")),
            (true, "cpu") => Err(
                Error::input("a GPU for a run whose model.device is \"cpu\"")
                    .hint("plan for this machine, or set model.device")
                    .at_key("model.device"),
            ),
            (true, _) => Ok(()),
        }
    }

    /// The plan of a run.
    ///
    /// # Errors
    /// Where the config asks for what the device does not do.
    pub fn new(config: &Config, models: &Models, rows: &Rows, device: &Device) -> Result<Self> {
        Self::check_device(config, device)?;
        let count = lanes(config.batch.lanes, None, device.ranks);
        check_lanes(count, device.ranks, false)?;
        let division = Division::of(config);
        let largest = rows.largest(division);
        let memory = Memory::of(config, models, device, &largest);
        let planned = Planned {
            config,
            models,
            rows,
            device,
        };
        let parameters = Parameters::of(models.policy);
        let bytes = Bytes::of(config, device);
        let shared = Shared::of(config, models.layout, device, &bytes);
        let per_epoch = rows.steps_per_epoch();
        let steps = config.run.steps(per_epoch);
        let tokens = Tokens {
            rows: rows.labelled,
            rows_per_epoch: rows.per_epoch,
            steps_per_epoch: per_epoch,
            steps,
            per_epoch: rows.trained.tokens,
            per_step: rows.trained.tokens / per_epoch as f64,
            prompt: rows.prompt_tokens,
            response: rows.response_tokens,
            longest: rows.longest(),
            predicted_per_step: rows.trained.predictions / per_epoch as f64,
            micro_batches: rows.micro_batches(division),
            largest,
            largest_that_fits: planned.largest(),
        };
        let flops = operations(config, models, rows, steps);
        let parts = Parts::of(config, models, rows, device);
        let of_one = device.ranks == 1;
        let time = time(config, models, rows, device, &flops, steps);
        let remedies = planned.remedies();
        Ok(Self {
            device: device.clone(),
            parameters,
            memory,
            tokens,
            time: time.filter(|_| of_one),
            exchange: shared.exchange(),
            shared_step: shared.step(parts.as_ref(), device),
            parts: parts.filter(|_| of_one),
            flops,
            disk: Disk::of(config, models.layout, device.gpu, rows, steps),
            fits: planned.is_fitting(),
            refusal: planned.check(&remedies).err(),
            remedies,
            left_out: left_out(config, models.layout, device),
        })
    }

    /// Refuses a run that does not fit.
    ///
    /// # Errors
    /// Names what it needs, what the device has, and the first of the remedies.
    pub fn check_fits(&self) -> Result<()> {
        self.refusal.clone().map_or(Ok(()), Err)
    }
}

/// Steps in which batches are scored under a reference that has moved.
fn online_steps(config: &Config, steps: u64) -> u64 {
    let moving = config.reference.as_ref();
    moving.map_or(0, |moving| steps.saturating_sub(moving.steps))
}

/// Before the first step, every `eval_steps`, and after the last.
fn evaluations(config: &Config, steps: u64) -> u64 {
    let Some(_) = config.data.eval else {
        return 0;
    };
    let every = config.run.eval_steps.unwrap_or(steps);
    1 + steps.div_ceil(every)
}

fn operations(config: &Config, models: &Models, rows: &Rows, steps: u64) -> Operations {
    let Models {
        policy,
        layout,
        reference,
    } = models;
    let online = online_steps(config, steps);
    let recompute = config.model.recompute;
    let skipped = Skipped::of(policy, layout);
    let (trained, statistic) = (&rows.trained, &rows.statistic);
    let epoch = Flops::of(policy, &skipped, trained, statistic, &rows.referenced);
    let row = epoch.times(1.0 / rows.per_epoch as f64);
    let step = epoch.times(1.0 / rows.steps_per_epoch() as f64);
    let mut run = step.times(steps as f64);
    let moves = config.reference.is_some();
    if moves {
        run.reference = step.reference * online as f64;
    }
    let scoring = match disk::scores_reference(config) {
        true => flops::forward(reference, &rows.scored),
        false => 0.0,
    };
    Operations {
        recompute,
        online: moves,
        total: Sums {
            row: row.total(recompute, moves),
            step: step.total(recompute, moves),
            run: run.total(recompute, moves),
        },
        row,
        step,
        run,
        evaluation: evaluations(config, steps) as f64 * flops::forward(policy, &rows.evaluated),
        scoring,
    }
}

/// `None` where the device's rates are not known.
fn time(
    config: &Config,
    models: &Models,
    rows: &Rows,
    device: &Device,
    flops: &Operations,
    steps: u64,
) -> Option<Time> {
    let rates = device.rates.as_ref()?;
    let update = update_bytes(config, device, models.layout) as f64;
    let policy = models.policy;
    let moved = |arch: &Architecture, work: &Work| elementwise_bytes(config, device, arch, 0, work);
    let lowest = Skipped::of(policy, models.layout).lowest;
    let trained = elementwise_bytes(config, device, policy, lowest, &rows.trained);
    let always =
        trained.blocks(flops.recompute) + trained.head() + moved(policy, &rows.statistic).scoring();
    let reference = moved(models.reference, &rows.referenced).scoring();
    let per_epoch = rows.steps_per_epoch() as f64;
    let step = |online: bool| {
        let bytes = always + if online { reference } else { 0.0 };
        let update_flops = config.optimizer.optim.flops(models.layout);
        let flops = flops.step.total(flops.recompute, online) + update_flops;
        Seconds::of(rates, flops, bytes / per_epoch, update)
    };
    // Before the reference moves for the first time, it is a column.
    let online = online_steps(config, steps);
    let training =
        step(false).total() * (steps - online) as f64 + step(true).total() * online as f64;
    let forward = |flops: f64, bytes: f64| Seconds::of(rates, flops, bytes, 0.0).total();
    let evaluated = moved(policy, &rows.evaluated).scoring();
    let evaluation = forward(
        flops.evaluation,
        evaluated * evaluations(config, steps) as f64,
    );
    let scoring = match disk::scores_reference(config) {
        true => forward(
            flops.scoring,
            moved(models.reference, &rows.scored).scoring(),
        ),
        false => 0.0,
    };
    Some(Time {
        step: step(flops.online),
        training,
        evaluation,
        scoring,
        total: training + evaluation + scoring,
    })
}

fn left_out(config: &Config, layout: &Layout, device: &Device) -> Vec<String> {
    let needs = config.loss.needs();
    let mut all: Vec<&str> = Vec::new();
    let frozen = layout.trainable_len < layout.len && layout.adapter.is_none();
    if frozen && Bytes::of(config, device).mixed {
        // The files are not read, and such weights are saved as they were.
        all.push(
            "master weights of frozen parameters, which are kept unless the model's files have all \
             of these in bf16",
        );
    }
    if layout.adapter.is_some() {
        all.push(
            "FLOPs of low-rank products, a percent or two; frozen matrices of bf16 files in bf16",
        );
    }
    if needs.on_policy {
        all.push("samples of the policy: drawing and scoring them, and their tokens");
    } else if rows::draws(config) {
        all.push("samples that the run draws first: drawing and scoring them, and their tokens");
    }
    if config.story.is_some() {
        all.push("the stories drawn before training and after");
    }
    all.into_iter().map(str::to_owned).collect()
}
