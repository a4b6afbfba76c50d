//! Names, commands and files of other programs, and keys that stand in the wrong place.

use std::fs;

use super::{Case, accepted, path, refused, train, words};
use crate::cli::Place;

fn set(place: &Place, set: &str) -> Option<Vec<String>> {
    train(place, "dpo", &[set])
}

/// A run whose config is a file of this name.
fn config(place: &Place, name: &str, bytes: impl AsRef<[u8]>) -> Option<Vec<String>> {
    place.write(name, bytes);
    words(&["train", "--config", name])
}

/// The config that overrides make of one with DPO.
fn printed(place: &Place, sets: &[&str]) -> Option<Vec<String>> {
    let mut args = train(place, "dpo", sets)?;
    args.push("--print-config".into());
    Some(args)
}

/// A run whose model is a directory of this file.
fn model(place: &Place, name: &str, contents: &str) -> Option<Vec<String>> {
    fs::create_dir(place.path("model")).unwrap();
    fs::write(place.path("model").join(name), contents).unwrap();
    train(place, "dpo", &["model.model_name_or_path=model"])
}

const AXOLOTL: &str =
    "base_model = \"m\"\nload_in_4bit = true\nlora_r = 16\nmicro_batch_size = 2\nzebra = 1\n";
const TRL: &str =
    "model_name_or_path: m\nper_device_train_batch_size: 4\nbf16: true\nuse_peft: true\n";

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    refused("a batch size of transformers", |p| set(p, "per_device_train_batch_size=4"),
        &["--set per_device_train_batch_size=4: unknown key", "here it is batch.batch_size, rows per optimizer step"]),
    refused("the same in a section", |p| set(p, "run.per_device_train_batch_size=4"),
        &["--set run.per_device_train_batch_size=4: unknown key", "here it is batch.batch_size, "]),
    refused("a key of another section", |p| set(p, "run.gradient_accumulation_steps=4"),
        &["did you mean `batch.gradient_accumulation_steps`?"]),
    refused("a key without its section", |p| set(p, "learning_rate=1"),
        &["did you mean `optimizer.learning_rate`?"]),
    refused("a knob without its loss", |p| set(p, "beta=1"),
        &["did you mean `loss.dpo.beta`?"]),
    refused("a knob below loss", |p| set(p, "loss.beta=1"),
        &["`beta` is a knob of a loss", "did you mean `loss.dpo.beta`?"]),
    refused("a loss by its type", |p| set(p, "loss.type=ipo"),
        &["`type` is no loss", "loss=ipo"]),
    refused("two losses by name", |p| set(p, "loss=dpo,sft"),
        &["--set loss=dpo,sft: ", "loss.dpo.weight"]),
    accepted("two samples where a loss needs two", |p| printed(p, &["loss=cexpo", "loss.cexpo.unsupervised=reverse_kl", "sample.max_new_tokens=8"]),
        &["num_samples = 2\n", "max_new_tokens = 8\n"]),
    refused("LoRA", |p| set(p, "model.lora_r=16"),
        &["here it is adapter.r, the rank of a LoRA adapter"]),
    accepted("an adapter with its defaults", |p| printed(p, &["adapter.r=16", "adapter.modules_to_save=lm_head"]),
        &["[adapter]\nr = 16\nalpha = 16.0\ntarget_modules = \"all-linear\"\n", "modules_to_save = [\"lm_head\"]", "reference = \"base\""]),
    accepted("patterns of an adapter", |p| printed(p, &["adapter.rank_pattern={ z_proj = 4, a_proj = 2 }"]),
        &["[adapter.rank_pattern]\nz_proj = 4\na_proj = 2\n"]),
    refused("an adapter of rank 0", |p| set(p, "adapter.r=0"),
        &["--set adapter.r=0: r must be in [1, 65536] (got 0)"]),
    refused("an adapter's key of another program", |p| set(p, "adapter.lora_alpha=3"),
        &["here it is adapter.alpha, the scale is alpha / r"]),
    refused("an adapter's key mistyped", |p| set(p, "adapter.targetmodules=mlp"),
        &["did you mean `target_modules`?"]),
    refused("targets that are no names", |p| set(p, "adapter.target_modules=3"),
        &["one string, or a list of names"]),
    refused("an adapter beside chosen weights", |p| train(p, "dpo", &["adapter.r=4", "model.trainable=*"]),
        &["model.trainable beside an adapter", "modules_to_save"]),
    refused("a section of another program", |p| set(p, "trainer.max_steps=16"),
        &["unknown key `trainer`", "max_steps -> run.max_steps"]),
    refused("a value in the place of a section", |p| set(p, "optimizer=adamw"),
        &["--set optimizer=adamw: ", "`optimizer` is a section; did you mean `optimizer.optim`?"]),
    refused("an optimizer of transformers", |p| set(p, "optimizer.optim=paged_adamw_8bit"),
        &["unknown value `paged_adamw_8bit`", "write \"adamw_8bit\"", "2 bytes a parameter"]),
    refused("an optimizer in other letters", |p| set(p, "optimizer.optim=AdamW"),
        &["did you mean `adamw`?"]),
    refused("a dtype of torch", |p| set(p, "model.dtype=bfloat16"),
        &["unknown value `bfloat16`; write \"bf16\""]),
    refused("a sum by its name", |p| set(p, "loss=rpo"),
        &["--set loss=rpo: there is no loss `rpo`; it is the sum of dpo and sft"]),
    refused("online RL", |p| set(p, "loss=GRPO"),
        &["--set loss=GRPO: there is no loss `GRPO`; not supported: it is online RL"]),
    refused("a split as a key", |p| set(p, "data.split=train"),
        &["here it is data.train, a slice such as"]),
    refused("the share of a test split", |p| set(p, "data.test_size=0.1"),
        &["here it is data.eval, a file, or a slice such as"]),
    refused("the page of a dataset", |p| set(p, "data.train=https://huggingface.co/datasets/owner/name"),
        &["a dataset of the hub is written hub:owner/name:train"]),
    refused("a loss in capitals", |p| set(p, "loss=DPO"),
        &["--set loss=DPO: there is no loss `DPO`; did you mean `dpo`?"]),
    refused("the page of a loss in capitals", |_| words(&["losses", "show", "DPO"]),
        &["did you mean `dpo`?"]),
    refused("another tracker", |p| set(p, "run.report_to=wandb"),
        &["report_to names \"wandb\"", "valid: tensorboard, none", "metrics.jsonl"]),
    accepted("a list of one as a word", |p| printed(p, &["run.report_to=tensorboard"]),
        &["report_to = [\"tensorboard\"]"]),
    accepted("no tracker", |p| printed(p, &["run.report_to=none"]),
        &["report_to = [\"none\"]"]),
    accepted("one pattern of parameters", |p| printed(p, &["model.trainable=*.mlp.*"]),
        &["trainable = [\"*.mlp.*\"]"]),
    refused("a knob of a loss that was not chosen", |p| train(p, "dpo", &["loss=simpo", "loss.dpo.beta=0.1"]),
        &["--set loss.dpo.beta=0.1: the loss is simpo, not dpo", "loss.dpo.weight", "(--set loss=dpo)"]),
    refused("a term beside a loss without a weight", |p| set(p, "loss.sft.weight=0.1"),
        &["--set loss.sft.weight=0.1: 2 losses: dpo, sft", "set loss.dpo.weight"]),
    accepted("a sum", |p| printed(p, &["loss.dpo.weight=1", "loss.sft.weight=0.1"]),
        &["[loss.dpo]\n", "[loss.sft]\n", "weight = 0.1\n"]),
    refused("axolotl's keys in TOML", |p| config(p, "a.toml", AXOLOTL),
        &["a.toml:1: 5 unknown keys", "base_model -> model.model_name_or_path; load_in_4bit -> model.quantization", "lora_r -> adapter.r",
          "micro_batch_size -> batch.micro_batch_tokens", "zebra: unknown"]),
    refused("a config of TRL", |p| config(p, "trl.yaml", TRL),
        &["trl.yaml: is YAML; a config is TOML", "per_device_train_batch_size -> batch.batch_size", "use_peft -> adapter.r"]),
    refused("a table as config", |p| config(p, "a.csv", "prompt,chosen,rejected\na,b,c\n"),
        &["a.csv: holds a table of rows, not a config", "data.train"]),
    refused("parquet as config", |p| config(p, "a.parquet", b"PAR1\x15\x04\0"),
        &["a.parquet: is a parquet file, not a config", "data.train"]),
    refused("a model as config", |_| words(&["train", "--config", &path("neox")]),
        &["is the directory of a model, not a config", "model.model_name_or_path"]),
    refused("a sweep as a run", |p| config(p, "s.toml", "[[sweep]]\nloss = \"dpo\"\n"),
        &["unknown key `sweep`", "expo sweep"]),
    refused("an adapter as model", |p| model(p, "adapter_config.json", "{\"base_model_name_or_path\": \"owner/base\"}"),
        &["adapter_config.json: peft_type is not set", "LoRA"]),
    refused("GGUF as model", |p| model(p, "a.gguf", "GGUF"),
        &["model: a.gguf is a GGUF model", "safetensors"]),
    refused("pickled weights as model", |p| model(p, "pytorch_model.bin", ""),
        &["model: pytorch_model.bin is pickled weights", "save_pretrained"]),
    refused("a file of weights as model", |_| words(&["score", "--model", &path("neox/model.safetensors"), "--data", &path("pairs.jsonl"), "--out", "o"]),
        &["model.safetensors: a file of weights", "name its directory"]),
    refused("samples that are not there", |p| train(p, "cexpo", &["data.samples=none.jsonl"]),
        &["--set data.samples=none.jsonl: none.jsonl: no such file", "expo sample writes", "\"auto\""]),
    refused("rows that are not there", |p| set(p, "data.train=none.jsonl"),
        &["--set data.train=none.jsonl: none.jsonl: no such file"]),
    accepted("a limit of prompts above the default of rows", |p| { let mut args = printed(p, &["data.max_prompt_length=600"])?; let text = fs::read_to_string(p.path("run.toml")).unwrap(); p.write("run.toml", text.replace("max_length = 128\n", "")); args.sort_by_key(|arg| arg == "--print-config"); Some(args) },
        &["max_length = 1200\n", "max_prompt_length = 600\n"]),
    refused("a loss as a command", |_| words(&["dpo", "--config", "run.toml"]),
        &["there is no command `dpo`", "expo train --config FILE --set loss=dpo"]),
    refused("a command of LLaMA-Factory", |_| words(&["chat"]),
        &["there is no command `chat`", "expo sample --model MODEL --prompt TEXT"]),
    refused("a loss in the place of a config", |_| words(&["train", "dpo"]),
        &["dpo: no such file", "--set loss=dpo"]),
    refused("a flag of transformers", |_| words(&["train", "run.toml", "--learning_rate", "1e-5"]),
        &["--set optimizer.learning_rate=1e-5"]),
    refused("a flag of TRL", |_| words(&["train", "run.toml", "--use_peft"]),
        &["--set adapter.r=VALUE (the section [adapter] trains a LoRA adapter"]),
    accepted("a config without its flag", |p| { train(p, "dpo", &[])?; words(&["train", "run.toml", "--print-config"]) },
        &["[loss.dpo]"]),
    accepted("rows of a config without its flag", |p| { train(p, "dpo", &[])?; words(&["data", "show", "run.toml"]) },
        &["kept                          24\n"]),
    refused("a model without a prompt", |_| words(&["sample", "--model", &path("neox")]),
        &["neither --prompts nor --prompt", "--prompt TEXT, or --prompts FILE and --out FILE"]),
    refused("nothing to sample", |_| words(&["sample"]),
        &["neither a model nor a config", "--prompt TEXT"]),
    refused("a model in the place of a config to sample by", |_| words(&["sample", &path("neox")]),
        &["is a directory, not a config", "--model"]),
];
