//! `expo plan`: what a training run will take.

mod table;

use clap::Args;
use expo::config::{Config, RowsConfig};
use expo::error::Error;
use expo::inspect::{RowSplit, Shown, reference_shape, show};
use expo::plan::{Device, Models, Plan, Rows, Split, layout};
use expo::session::adapter_of;

use super::answer;
use super::args::ConfigArgs;
use super::error::located;
use super::progress::Progress;

/// Estimate memory, tokens, FLOPs, disk and time of a training run.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct PlanArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// Plan for this GPU, e.g. rtx-4090, "RTX 4090" or a100-80gb; the full help lists all. Without a GPU
    /// the plan is for this machine
    #[arg(long, value_name = "NAME", conflicts_with_all = ["memory", "tflops", "bandwidth"])]
    gpu: Option<String>,

    /// Say how many GPUs there are [default: 1]; `--gpu "2x rtx-4090"` means the same. A process uses one;
    /// --ranks is for a run on several
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    gpus: Option<u64>,

    /// Plan for each of this many ranks, which a launcher starts: on machines like this one, or each with a
    /// GPU that is named
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536),
        conflicts_with = "gpus")]
    ranks: Option<u64>,

    /// Set the GB/s that a rank sends to the others, for the time of the exchange
    #[arg(long, value_name = "GBS", requires = "ranks")]
    link: Option<f64>,

    /// Plan for another GPU: its memory in GiB
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,

    /// Set the TFLOP/s that it reaches in large matmuls of the run's dtype
    #[arg(long, value_name = "T", requires = "memory", requires = "bandwidth")]
    tflops: Option<f64>,

    /// Set its memory bandwidth in TB/s
    #[arg(long, value_name = "TBS", requires = "memory", requires = "tflops")]
    bandwidth: Option<f64>,

    /// Print one JSON object: bytes, FLOPs, seconds; `fits`, and what makes it fit in `remedies`
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Reads the config, the model's config.json and tokenizer, and the rows. Needs
neither weights nor the GPU. The config is that of expo train or expo sft. A
file of data.samples that does not exist yet is not counted.

A run that needs more memory than there is, of which 3% are kept free, is
refused with exit code 2 after its table, with the changes that make it fit.
Each of them is checked: a smaller batch.micro_batch_tokens, model.recompute,
optimizer.states = \"split\", model.dtype = \"bf16\", optimizer.optim =
\"adamw_8bit\" and the smallest sets of them; if none is enough, a shorter
data.max_length and fewer blocks in model.trainable; and the smallest GPU that
holds the run.

memory    the peak of a training step. On the CPU and with dtype = \"f32\" all is
          f32. With bf16 on a GPU weights and activations are bf16, the residual
          stream, gradients and logits f32; optimizer.states says what the
          optimizer keeps. Not counted: the program, its rows and allocator
          overhead, a few hundred megabytes on the CPU.
tokens    those of the rows, with the micro-batches of the first epoch, and the
          largest micro_batch_tokens that fits, up to a whole step.
FLOPs     matmuls and attention as the run computes them: each prompt once,
          logits only where a token is predicted. In brackets: not in the total,
          what recompute or a moving reference would add.
time      a lower bound: FLOPs over the rate of large matmuls, plus the bytes
          that elementwise kernels and the optimizer move over the bandwidth.
          Kernel launches, reading rows and writing files come on top.
expected  a step at the share of the GPU's rates that kernels are assumed to
          reach: matmuls 0.85 and attention 0.125 of the rate of large matmuls,
          elementwise kernels 0.7 and the optimizer 0.8 of the bandwidth; and
          for the CPU 0.3 us a token and 0.1 ms for each result that it waits
          for. Not measured on a card yet: a part that takes longer than this is
          where to look.
disk      the final model, checkpoints, and in the cache the reference's
          log-probs and samples. Without run.save_steps there are no
          checkpoints, but for that of a run that is stopped early.

With --ranks the memory is that of the rank with the largest piece of the
parameters, one rank to a machine or GPU, and exchange is what a rank sends in
a step: with --link, e.g. 45 for 400 Gbit/s or 370 for NVLink 4, its time. Rows
are taken to be dealt evenly, and nothing is computed during the exchange.
Without --ranks a run computes on one GPU, however many there are; others
can train other runs at the same time, each with its own CUDA_VISIBLE_DEVICES.

Figures of the GPUs: GiB as CUDA reports them; TFLOP/s that large matmuls reach
(0.8 of the data sheet's for dense operands, the share measured on an h200 in
bf16); the data sheet's bandwidth. Case, dashes and spaces of a name do not
count. expo does not run on those with a star.
                       GiB   bf16    f32  TB/s
  rtx-3060            11.7   20.4   10.2  0.36
  rtx-3070             7.7   32.5   16.2  0.448
  rtx-3080-10gb        9.7   47.6   23.8  0.76
  rtx-3080-12gb       11.7     49   24.5  0.912
  rtx-3090            23.6     57   28.5  0.936
  rtx-4060             7.7   24.2   12.1  0.272
  rtx-4060-ti-8gb      7.7   35.3   17.7  0.288
  rtx-4060-ti-16gb    15.6   35.3   17.7  0.288
  rtx-4070            11.6   46.6   23.3  0.504
  rtx-4070-ti         11.6   64.2   32.1  0.504
  rtx-4080            15.6     78     39  0.717
  rtx-4090            23.5    132   66.1  1.008
  rtx-5070            11.5   49.4   24.7  0.672
  rtx-5070-ti         15.5   70.3   35.1  0.896
  rtx-5080            15.5   90.1     45  0.96
  rtx-5090            31.3    168   83.8  1.792
  t4*                 14.6     52   6.48  0.32
  v100-16gb*          15.8    100   12.6  0.9
  v100-32gb*          31.7    100   12.6  0.9
  a10                   22    100     25  0.6
  a10g                  22     56     28  0.6
  a6000               47.4    124     31  0.768
  l4                    22   96.8   24.2  0.3
  l40                 44.3    145   72.4  0.864
  l40s                  44    290   73.3  0.864
  rtx-6000-ada        47.4    291   72.9  0.96
  rtx-pro-6000        94.9    403    100  1.792
  a100-40gb           39.4    250   15.6  1.555
  a100-80gb             79    250   15.6  2.039
  h100                  79    790   53.6  3.35
  h100-pcie             79    605   40.8  2
  gh200               94.5    792   53.6  4
  h200                 139    790   53.6  4.8
  b200               178.3   1800     60  8
  mi300x*            191.5   1050    131  5.3

Examples:
  $ expo plan --config run.toml
  $ expo plan --config run.toml --gpu \"RTX 4090\" --set model.dtype=bf16
  $ expo plan --config run.toml --memory 96 --tflops 400 --bandwidth 1.8 --json";

/// Runs the command.
pub fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let source = args.config.source()?;
    located(&source, print(args, &Config::of_training(&source)?))
}

fn print(args: &PlanArgs, config: &Config) -> anyhow::Result<()> {
    let (device, gpus) = device(args, config)?;
    let mut progress = Progress::new();
    let outcome = plan(config, &device, &mut progress);
    progress.close();
    let plan = outcome?;
    let text = match args.json {
        true => {
            let mut object = serde_json::to_value(&plan)?;
            object["gpus"] = gpus.into();
            format!("{object}\n")
        }
        false => table::table(&plan, gpus),
    };
    answer(&text)?;
    plan.check_fits()?;
    Ok(())
}

/// The device, and how many of them there are.
fn device(args: &PlanArgs, config: &Config) -> expo::error::Result<(Device, u64)> {
    let (device, named) = match (&args.gpu, args.memory) {
        (Some(name), _) => {
            let (count, name) = counted(name);
            let device = Device::named(name, config.model.dtype);
            (device.map_err(|error| error.at_parameter("gpu"))?, count)
        }
        (None, Some(memory)) => {
            let rates = args.tflops.zip(args.bandwidth);
            (Device::described("the GPU", memory, rates)?, None)
        }
        (None, None) => (Device::this_machine(), None),
    };
    let device = device.with_ranks(args.ranks.unwrap_or(1) as usize);
    let device = match args.link {
        Some(link) => device
            .with_link(link)
            .map_err(|error| error.at_parameter("link"))?,
        None => device,
    };
    match (args.gpus, named) {
        (Some(_), _) if !device.gpu => Err(Error::input("no GPU is named")
            .hint("name it, or give its memory")
            .option("gpu", "NAME")
            .option("memory", "GIB")
            .at_parameter("gpus")),
        (Some(asked), Some(named)) if asked != named => Err(Error::input(format!(
            "{asked} GPUs beside {named} in the name"
        ))
        .hint("give the number once")
        .at_parameter("gpus")),
        (asked, named) => Ok((device, asked.or(named).unwrap_or(1))),
    }
}

/// The number before or behind a GPU's name, and the name: `2x rtx-4090`, `rtx-4090 x2`.
fn counted(written: &str) -> (Option<u64>, &str) {
    let times = ['x', 'X', '*', '×'];
    let number = |text: &str| text.trim().parse().ok().filter(|count| *count > 0);
    let before = written.split_once(times);
    let behind = written.rsplit_once(times);
    let before = before.and_then(|(count, name)| Some((number(count)?, name)));
    // An x inside a name does not multiply.
    let behind = behind
        .filter(|(name, _)| name.ends_with(' '))
        .and_then(|(name, count)| Some((number(count)?, name)));
    match before.or(behind) {
        Some((count, name)) => (Some(count), name.trim()),
        None => (None, written),
    }
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
    let adapter = adapter_of(config, &train.arch, &mut |event| progress.show(event))?;
    let (policy, layout) = layout(config, &train.arch, adapter.as_ref(), device.gpu)?;
    let models = Models {
        policy: &policy,
        layout: &layout,
        reference: reference.as_ref().unwrap_or(&train.arch),
    };
    let mut plan = Plan::new(config, &models, &rows, device)?;
    if let Some(path) = &train.missing_samples {
        let path = path.display();
        plan.left_out.push(format!(
            "samples and their tokens: {path} does not exist yet (`expo sample` writes it)"
        ));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_has_every_gpu() {
        assert!(Device::names().iter().all(|name| HELP.contains(name)));
    }

    #[test]
    fn a_number_of_gpus_stands_before_or_behind_the_name() {
        for (written, count, name) in [
            ("rtx-4090", None, "rtx-4090"),
            ("2x rtx-4090", Some(2), "rtx-4090"),
            ("8xH100", Some(8), "H100"),
            ("RTX 4090 x 2", Some(2), "RTX 4090"),
            ("MI300X", None, "MI300X"),
            ("4 * l4", Some(4), "l4"),
            ("0x l4", None, "0x l4"),
        ] {
            assert_eq!(counted(written), (count, name), "{written}");
        }
    }
}
