//! `expo merge`: adapters merged into their base.

use std::path::PathBuf;

use clap::Args;
use expo::checkpoint::SaveDtype;
use expo::error::{Error, Result};
use expo::io::durable::{check_new, check_no_link};
use expo::merge::{Merge, merge};
use serde_json::json;

use super::answer;
use super::error::flagged;
use super::out::directory;
use super::progress::Progress;

/// Merge adapters into the weights of their base model
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct MergeArgs {
    /// Merge this adapter, a PEFT directory or owner/name on the hub; may be repeated
    #[arg(long, value_name = "DIR", required = true)]
    adapter: Vec<PathBuf>,

    /// Multiply what an adapter changes by this; once for each --adapter, in their order [default: 1]
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    weight: Vec<f64>,

    /// Merge into this model, a directory or owner/name on the hub; by default the one that the
    /// first adapter names
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Take this branch, tag or commit of --model on the hub
    #[arg(long, value_name = "NAME", requires = "model")]
    revision: Option<String>,

    /// Create this directory; one that is not empty is refused
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Write the weights in f32, f16 or bf16; by default in the dtype of the base
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<SaveDtype>,

    /// Print one JSON object: `base`, `changed`, `parameters`, `dtype`, `output`
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
The result is a model in Hugging Face form that needs no adapter, for expo,
transformers, llama.cpp's converter, vLLM. Of LoRA a weight W becomes
W + alpha / r B A, of DoRA its rows have the learned magnitudes; what
modules_to_save names is the adapter's. It is computed in f32 and rounded once.
Of several adapters each adds its own change times its --weight. Tensors are
read, merged and written one at a time.

Examples:
  $ expo merge --adapter runs/lora --out merged
  $ expo merge --model Qwen/Qwen2-0.5B --adapter runs/helpful --weight 0.7 \\
      --adapter runs/harmless --weight 0.3 --out both";

/// Runs the command.
pub fn run(args: &MergeArgs) -> anyhow::Result<()> {
    let weights = flagged(weights(args))?;
    check_new(&args.out)?;
    directory(&args.out)?;
    check_no_link(&args.out)?;
    let asked = Merge {
        model: args.model.clone(),
        revision: args.revision.clone(),
        adapters: args.adapter.iter().cloned().zip(weights).collect(),
        dtype: args.dtype,
    };
    let mut progress = Progress::new();
    let merged = flagged(merge(&asked, &args.out, &mut |event| progress.show(event)))?;
    drop(progress);
    let (base, out) = (merged.base.display(), args.out.display());
    let (changed, all) = (merged.changed, merged.parameters);
    let dtype = serde_json::to_value(merged.dtype)?;
    answer(&match args.json {
        true => format!(
            "{}\n",
            json!({"base": merged.base, "changed": changed, "parameters": all, "dtype": dtype,
                   "output": args.out})
        ),
        false => format!(
            "base {base}\nchanged {changed} of {all} tensors\ndtype {}\noutput {out}\n",
            dtype.as_str().unwrap_or_default()
        ),
    })
}

/// A factor for each adapter.
fn weights(args: &MergeArgs) -> Result<Vec<f64>> {
    let (given, adapters) = (args.weight.len(), args.adapter.len());
    if let Some(wrong) = args.weight.iter().find(|weight| !weight.is_finite()) {
        return Err(Error::must_be("weight", "finite", wrong).at_parameter("weight"));
    }
    match given {
        0 => Ok(vec![1.0; adapters]),
        _ if given == adapters => Ok(args.weight.clone()),
        _ => Err(
            Error::input(format!("{given} weights for {adapters} adapters"))
                .hint("one for each adapter, in their order, or none")
                .at_parameter("weight"),
        ),
    }
}
