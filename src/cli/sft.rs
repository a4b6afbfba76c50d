//! `expo sft`: supervised fine-tuning; everything but the loss is as in `expo train`.

use clap::Args;
use expo::config::Config;
use expo::error::Error;
use expo::loss::Loss;

use super::dispatch::DeviceRequest;
use super::error::located;
use super::train::{TrainArgs, train};

/// Train a model on answers, without preferences
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct SftArgs {
    #[command(flatten)]
    args: TrainArgs,
}

const HELP: &str = "\
Supervised fine-tuning is the usual stage before preferences: its result is then
both the reference and the policy's start in expo train. Everything but the loss
is as in expo train: config, --set, resume, metrics, checkpoints.

A config:
  [model]
  model_name_or_path = \"EleutherAI/pythia-2.8b\"   # a directory, or a hub name
  [data]
  train = \"train.jsonl.gz\"
  eval = \"test.jsonl.gz\"
  [loss.sft]                                      # may be left out
  per_token = false
  [batch]
  batch_size = 40                                 # rows per optimizer step
  [optimizer]
  optim = \"adam\"
  learning_rate = 1e-6
  [run]
  output_dir = \"runs/sft\"
  num_train_epochs = 2

Formats: rows of sft have messages (every assistant turn is trained), prompt and
completion, or text (all of it is trained). Of preference rows the chosen
answers are the targets, of unpaired rows the desirable ones.

per_token = false: sum over the tokens of a sequence, mean over sequences, as in
the papers and the official DPO repository. per_token = true: mean over the
tokens of the optimizer-step batch, as in TRL.

Examples:
  $ expo sft --config sft.toml
  $ expo sft --config sft.toml --set loss.sft.per_token=true
  $ expo train --config dpo.toml --set model.model_name_or_path=runs/sft";

impl SftArgs {
    /// The device that the run asks for.
    pub fn device(&self) -> Option<DeviceRequest> {
        self.args.device()
    }
}

/// Runs the command.
pub fn run(SftArgs { args }: SftArgs) -> anyhow::Result<()> {
    let source = args.config.source()?;
    let config = Config::of_training(&source)?;
    let trained = match config.loss.single() {
        Some(Loss::Sft(_)) => train(config, &args),
        _ => {
            let what = format!("the loss is {}", config.loss.name());
            let hint =
                "expo sft trains with the loss sft: add --set loss=sft; expo train has the others";
            Err(Error::input(what).hint(hint).at_key("loss").into())
        }
    };
    located(&source, trained)
}
