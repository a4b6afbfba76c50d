//! `expo plan`: what a training run will take.

use std::fmt::Write;

use clap::Args;
use expo::config::{Config, RowsConfig};
use expo::inspect::{RowSplit, Shown, reference_shape, show};
use expo::plan::{Device, Flops, GIB, Models, Plan, Rows, Split, layout};

use super::args::ConfigArgs;
use super::error::located;
use super::progress::{Progress, clock};
use super::{answer, grouped};

/// Says what a training run will take: memory, tokens, operations, disk and time.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct PlanArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// The GPU: h200, h100, a100-80gb, l40s or rtx-4090. Without a GPU the plan is for this machine.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["memory", "tflops", "bandwidth"])]
    gpu: Option<String>,

    /// A GPU by hand: its memory in GiB.
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,

    /// Its TFLOP/s in large products of the run's dtype.
    #[arg(long, value_name = "T", requires = "memory", requires = "bandwidth")]
    tflops: Option<f64>,

    /// Its bandwidth to memory in TB/s.
    #[arg(long, value_name = "TBS", requires = "memory", requires = "tflops")]
    bandwidth: Option<f64>,

    /// Prints one JSON object: bytes, floating-point operations, seconds.
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Reads the config, the model's config.json and tokenizer, and the rows. Weights are not needed: nothing
of them is read or downloaded; nor is the GPU. The config is that of expo train or expo sft.

A run that needs more memory than there is, of which 3% are kept free, is refused with exit code 2
and the largest batch.micro_batch_tokens that fits; where none does, with the first of model.recompute,
optimizer.states = \"split\", model.dtype = \"bf16\", or of them together, under which one does.

memory      the peak of a training step. On the CPU and with dtype = \"f32\" all is f32; with bf16 on a
            GPU weights and activations are bf16, the residual stream, gradients and logits f32, and
            the optimizer keeps what optimizer.states says. Not counted: the program, its rows and
            what the allocator rounds up, a few hundred megabytes on the CPU.
tokens      those of the rows, with the micro-batches of the first epoch, and the largest
            micro_batch_tokens that would fit, up to a whole step.
FLOPs       products of matrices and attention, as the run computes them: each prompt once, logits
            only where a token is predicted, the last block's queries, keys and values of all tokens
            and the rest of it only where logits are. What is in brackets is not in the total: it is
            what recompute, or a reference that moves, would add.
time        at least: FLOPs over the rate of large products, and the bytes that operations element by
            element and the optimizer move over the bandwidth. It is a bound, not a promise: kernels
            are slower than their limit, and starting them, reading rows and writing files is extra.
expected    what a step should take by its kernels: the same FLOPs and bytes at the share of the GPU's
            rates that such kernels are assumed to reach: matmuls 0.85 and attention 0.125 of the rate of
            large products, operations element by element 0.7 and the optimizer 0.8 of the bandwidth;
            and the host's part, 0.3 us a token and 0.1 ms for each result that it waits for. No card
            has been measured yet: a part that takes longer than this is where to look.
disk        the final model, checkpoints, and in the cache the reference's log-probs and samples. Without
            run.save_steps there are no checkpoints, but for that of a run that is stopped early.

The GPUs' figures: GiB as CUDA reports them; the data sheets' bandwidth; TFLOP/s are 0.8 of the data
sheet's for dense operands, the share that large products reach on an h200 in bf16.
              GiB   bf16    f32   TB/s
  h200        139    790   53.6  4.8
  h100         79    790   53.6  3.35
  a100-80gb    79    250   15.6  2.039
  l40s         44    290   73.3  0.864
  rtx-4090   23.5    132   66.1  1.008
Without a GPU memory is compared with this machine's, and no time is given.

Examples:
  $ expo plan --config run.toml
  $ expo plan --config run.toml --gpu h200 --set model.dtype=bf16
  $ expo plan --config run.toml --memory 96 --tflops 400 --bandwidth 1.8 --json";

/// Runs the command.
pub fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let source = args.config.source()?;
    located(&source, print(args, &Config::of_training(&source)?))
}

fn print(args: &PlanArgs, config: &Config) -> anyhow::Result<()> {
    let device = match (&args.gpu, args.memory) {
        (Some(name), _) => {
            Device::named(name, config.model.dtype).map_err(|e| e.at_parameter("gpu"))?
        }
        (None, Some(memory)) => {
            Device::described("the GPU", memory, args.tflops.zip(args.bandwidth))?
        }
        (None, None) => Device::this_machine(),
    };
    let mut progress = Progress::new();
    let outcome = plan(config, &device, &mut progress);
    progress.close();
    let plan = outcome?;
    let text = match args.json {
        true => serde_json::to_string(&plan)? + "\n",
        false => table(&plan),
    };
    answer(&text)?;
    Ok(())
}

fn plan(config: &Config, device: &Device, progress: &mut Progress) -> expo::error::Result<Plan> {
    Plan::check_device(config, device)?;
    let needs = config.loss.needs();
    let rows = RowsConfig::from(config);
    let mut open = |split: RowSplit| show(&rows, split, None, &mut |event| progress.show(event));
    let count =
        |shown: &Shown| Split::count(shown.dataset.examples(), &shown.arch, &needs, device.gpu);
    let train = open(RowSplit::Train)?;
    let mut other = |there: bool, split| -> expo::error::Result<Option<Split>> {
        match there {
            true => count(&open(split)?).map(Some),
            false => Ok(None),
        }
    };
    let eval = other(config.data.eval.is_some(), RowSplit::Eval)?;
    let unlabelled = other(config.data.unlabelled.is_some(), RowSplit::Unlabelled)?;
    let rows = Rows::new(config, count(&train)?, eval, unlabelled)?;
    let reference = reference_shape(&config.model, &mut |event| progress.show(event))?;
    let layout = layout(config, &train.arch)?;
    let models = Models {
        policy: &train.arch,
        layout: &layout,
        reference: reference.as_ref().unwrap_or(&train.arch),
    };
    Plan::new(config, &models, &rows, device)
}

fn table(plan: &Plan) -> String {
    let mut text = String::new();
    parameters(plan, &mut text);
    memory(plan, &mut text);
    tokens(plan, &mut text);
    flops(plan, &mut text);
    time(plan, &mut text);
    parts(plan, &mut text);
    disk(plan, &mut text);
    for what in &plan.left_out {
        let _ = writeln!(text, "\nnot counted: {what}");
    }
    text
}

fn heading(name: &str, columns: &[&str], text: &mut String) {
    let columns: String = columns
        .iter()
        .map(|column| format!("{column:>14}"))
        .collect();
    let _ = writeln!(
        text,
        "{}{name:<28}{columns}",
        if text.is_empty() { "" } else { "\n" }
    );
}

fn line(name: &str, values: &[String], text: &mut String) {
    let values: String = values.iter().map(|value| format!("{value:>14}")).collect();
    let _ = writeln!(text, "  {name:<26}{values}");
}

fn parameters(plan: &Plan, text: &mut String) {
    let parameters = &plan.parameters;
    heading("parameters", &[&grouped(parameters.total as usize)], text);
    for (name, count) in [
        ("embedding", parameters.embedding),
        ("blocks", parameters.blocks),
        ("head", parameters.head),
    ] {
        line(name, &[grouped(count as usize)], text);
    }
}

fn memory(plan: &Plan, text: &mut String) {
    let memory = &plan.memory;
    heading("memory", &["GiB"], text);
    let gib = |bytes: u64| format!("{:.3}", bytes as f64 / GIB);
    for (name, bytes) in [
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer states", memory.optimizer),
        ("reference", memory.reference),
        ("activations", memory.activations),
        ("logits tile", memory.logits),
        ("largest temporary", memory.temporary),
        ("total", memory.total),
    ] {
        line(name, &[gib(bytes)], text);
    }
    if let (Some(all), Some(usable)) = (plan.device.memory, plan.device.usable()) {
        let of = format!("{} has", plan.device.name);
        line(&of, &[gib(all)], text);
        line("of which a run may take", &[gib(usable)], text);
    }
}

fn tokens(plan: &Plan, text: &mut String) {
    let tokens = &plan.tokens;
    heading("tokens", &["per step", "per epoch"], text);
    let per_step = tokens.rows_per_epoch as f64 / tokens.steps_per_epoch as f64;
    for (name, step, epoch) in [
        ("rows", per_step, tokens.rows_per_epoch as f64),
        ("tokens", tokens.per_step, tokens.per_epoch),
        (
            "predicted",
            tokens.predicted_per_step,
            tokens.predicted_per_step * tokens.steps_per_epoch as f64,
        ),
        (
            "micro-batches",
            tokens.micro_batches,
            tokens.micro_batches * tokens.steps_per_epoch as f64,
        ),
    ] {
        let values = [format!("{step:.1}"), grouped(epoch.round() as usize)];
        line(name, &values, text);
    }
    let steps = [tokens.steps, tokens.steps_per_epoch].map(|steps| grouped(steps as usize));
    for (name, value) in [
        ("steps", steps[0].clone()),
        ("steps per epoch", steps[1].clone()),
        ("mean prompt", format!("{:.1}", tokens.prompt)),
        ("mean response", format!("{:.1}", tokens.response)),
        ("longest row", grouped(tokens.longest)),
        ("largest micro-batch", grouped(tokens.largest.tokens)),
    ] {
        line(name, &[value], text);
    }
    if let Some(largest) = tokens.largest_that_fits {
        line("largest that would fit", &[grouped(largest)], text);
    }
}

fn flops(plan: &Plan, text: &mut String) {
    let flops = &plan.flops;
    heading("FLOPs", &["per row", "per step", "run"], text);
    let columns = [&flops.row, &flops.step, &flops.run];
    let mut part = |name: &str, on: bool, of: fn(&Flops) -> f64| {
        let values = columns.map(|flops| scaled(of(flops)));
        let values = values.map(|value| if on { value } else { format!("({value})") });
        line(name, &values, text);
    };
    part("forward", true, |flops| flops.forward);
    part("backward", true, |flops| flops.backward);
    part("recompute", flops.recompute, |flops| flops.recompute);
    part("logits twice", true, |flops| flops.logits);
    part("statistic of the batch", true, |flops| flops.statistic);
    part("reference on line", flops.online, |flops| flops.reference);
    let total = &flops.total;
    line(
        "total",
        &[total.row, total.step, total.run].map(scaled),
        text,
    );
    let run = |flops: f64| [String::new(), String::new(), scaled(flops)];
    line("evaluations", &run(flops.evaluation), text);
    line("scoring the reference", &run(flops.scoring), text);
}

fn time(plan: &Plan, text: &mut String) {
    let Some(time) = &plan.time else {
        return;
    };
    heading(
        &format!("time on {}", plan.device.name),
        &["at least"],
        text,
    );
    let milliseconds = |seconds: f64| format!("{:.2} ms", 1e3 * seconds);
    for (name, seconds) in [
        ("a step", time.step.total()),
        ("  products", time.step.products),
        ("  element by element", time.step.elementwise),
        ("  optimizer", time.step.optimizer),
    ] {
        line(name, &[milliseconds(seconds)], text);
    }
    let tokens = &plan.tokens;
    let rows = tokens.rows_per_epoch as f64 / tokens.steps_per_epoch as f64;
    for (name, count) in [("rows/s", rows), ("tokens/s", tokens.per_step)] {
        let most = format!("<= {:.0}", count / time.step.total());
        line(name, &[most], text);
    }
    for (name, seconds) in [
        ("scoring the reference", time.scoring),
        ("training", time.training),
        ("evaluations", time.evaluation),
        ("total", time.total),
    ] {
        line(name, &[clock(seconds)], text);
    }
}

fn parts(plan: &Plan, text: &mut String) {
    let Some(parts) = &plan.parts else {
        return;
    };
    heading("expected of a step", &["TFLOP", "GB", "ms"], text);
    let all = parts.named().into_iter().chain([("total", parts.total)]);
    for (name, part) in all {
        let name = match name {
            "head" => "logits and gradient",
            "elementwise" => "element by element",
            "host" => "waiting for the host",
            name => name,
        };
        let count = |x: f64, digits: usize| match x {
            0.0 => String::new(),
            x => format!("{x:.digits$}"),
        };
        let values = [
            count(part.flops / 1e12, 2),
            count(part.bytes / 1e9, 2),
            count(1e3 * part.seconds, 1),
        ];
        line(name, &values, text);
    }
    let tokens = &plan.tokens;
    let rows = tokens.rows_per_epoch as f64 / tokens.steps_per_epoch as f64;
    let rate = format!("{:.0}", rows / parts.total.seconds);
    line("rows/s", &[String::new(), String::new(), rate], text);
}

fn disk(plan: &Plan, text: &mut String) {
    let disk = &plan.disk;
    heading("disk", &["GB"], text);
    let gigabytes = |bytes: u64| format!("{:.3}", bytes as f64 / 1e9);
    let checkpoints = format!("{} checkpoints", disk.checkpoints);
    for (name, bytes) in [
        ("final model", disk.model),
        (&checkpoints, disk.checkpoints * disk.checkpoint),
        ("reference's log-probs", disk.reference),
        ("samples, at most", disk.samples),
        ("total", disk.total),
    ] {
        line(name, &[gigabytes(bytes)], text);
    }
}

/// Four digits with the prefix of a power of 1000.
fn scaled(x: f64) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];
    let power = ((x.max(1.0).log10() / 3.0) as usize).min(prefixes.len() - 1);
    let digits = x / 1000f64.powi(power as i32);
    format!("{digits:.2} {}", prefixes[power])
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_has_every_gpu() {
        assert!(Device::names().iter().all(|name| HELP.contains(name)));
    }

    #[test]
    fn large_numbers_have_prefixes() {
        assert_eq!(
            [0.0, 999.0, 1000.0, 3.2324e12, 8e18].map(scaled),
            ["0.00", "999.00", "1.00 k", "3.23 T", "8.00 E"]
        );
    }
}
