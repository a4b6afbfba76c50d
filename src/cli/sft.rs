//! `expo sft`: supervised fine-tuning, with everything else as in training.

use clap::Args;
use expo::config::Config;
use expo::error::Error;
use expo::loss::Loss;

use super::dispatch::DeviceRequest;
use super::error::located;
use super::train::{TrainArgs, train};

/// Trains a model on answers, without preferences.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct SftArgs {
    #[command(flatten)]
    args: TrainArgs,
}

const HELP: &str = "\
The stage before preferences: the model that comes out is the reference of `expo train` and the
policy's start. Everything but the loss is as there: batches, optimizers, metrics, checkpoints,
--set, --print-config.

A config:
  [model]
  model_name_or_path = \"EleutherAI/pythia-2.8b\"   # a folder, or a name on the hub
  [data]
  format = \"hh\"                                   # of preference data, the chosen answers
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

Formats: sft has rows with prompt and completion, with messages (the chat template of the tokenizer
is applied; every assistant turn is scored), or with text (all of it is scored). Of hh and pairs the
chosen answers are the targets, of unpaired the desirable ones.

per_token = false: the loss is the sum over a sequence's tokens, averaged over sequences, as in the
papers and the official DPO repository. per_token = true: it is averaged over the tokens of the
optimizer-step batch, as in TRL and most others; then long answers weigh more than short ones.

Examples:
  $ expo sft --config sft.toml
  $ expo sft --config sft.toml --set loss.sft.per_token=true --set optimizer.learning_rate=2e-5
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
            let hint = "expo sft has the loss sft; expo train has the others";
            Err(Error::input(what).hint(hint).at_key("loss").into())
        }
    };
    located(&source, trained)
}
