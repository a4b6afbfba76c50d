//! The names of other programs: keys and values of TRL, transformers, axolotl and LLaMA-Factory, with the
//! key that has their place here, or what to do instead.
//!
//! *Why*: who comes from another program types its names. A list of valid keys answers a typo; a name
//! that is right elsewhere deserves the name that is right here.

use std::borrow::Cow;

/// What a name of another program is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    /// This key, with what it means or which value to give.
    Key(&'static str, &'static str),
    /// Nothing: why, and what to do instead.
    Nothing(&'static str),
    /// A key of another config than a run's.
    Elsewhere(&'static str),
}

use Here::{Elsewhere, Key, Nothing};

const LORA: Here = Key("adapter.r", "the section [adapter] trains a LoRA adapter");
const NO_LORA: Here = Nothing("adapters are LoRA, rsLoRA or DoRA without biases; see [adapter]");
const QUANTIZED: Here = Nothing("frozen weights are quantized by model.quantization: nf4 or q8_0");
const LAUNCHER: Here =
    Nothing("mpirun and srun start several ranks of the same command: expo guide ranks");
const KERNELS: Here =
    Nothing("attention and other kernels are chosen by the device; leave the key out");
const LOADER: Here =
    Nothing("rows are read and tokenized in memory by the run itself; leave the key out");
const PADDING: Here = Nothing("rows are packed without padding; leave the key out");
const TRACKER: Here = Key(
    "run.report_to",
    "\"tensorboard\"; every figure is in metrics.jsonl, too",
);
const LOSS: Here = Key(
    "loss",
    "a section per loss, e.g. [loss.dpo]; see the list of losses",
);
const TRAINED_WHOLE: Here = Key(
    "model.trainable",
    "which weights are trained; all by default",
);
const TOKENIZER: Here =
    Nothing("the tokenizer is the one in the model's directory; leave the key out");
const UPLOAD: Here =
    Nothing("nothing is uploaded; the model is in run.output_dir, in the Hugging Face format");

/// Names with one meaning.
type Names = &'static [&'static str];

/// Keys, in lower case with `_`.
#[rustfmt::skip]
const KEYS: &[(Names, Here)] = &[
    (&["sweep", "base"], Elsewhere("a sweep is run by expo sweep")),
    (&["experiment"], Elsewhere("an experiment is run by expo bandit")),

    (&["base_model", "model", "model_name", "pretrained_model_name_or_path", "model_id", "model_path", "policy_model",
       "pretrained"], Key("model.model_name_or_path", "a directory, or owner/name on the hub")),
    (&["model_revision"], Key("model.revision", "branch, tag or commit on the hub")),
    (&["ref_model", "reference_model", "ref_model_path", "ref_model_name_or_path", "ref_model_name", "sft_model"],
     Key("model.reference", "the model itself by default")),
    (&["bf16", "fp16", "torch_dtype", "mixed_precision", "precision", "compute_dtype", "half_precision", "float16",
       "bfloat16", "pure_bf16", "bf16_full_eval", "fp16_full_eval", "fp8"],
     Key("model.dtype", "\"bf16\" for mixed precision, or \"f32\"; there is no fp16")),
    (&["tf32", "float32"], Key("model.dtype", "\"f32\", or \"bf16\" for mixed precision")),
    (&["gradient_checkpointing", "activation_checkpointing", "use_gradient_checkpointing", "gradient_checkpointing_kwargs",
       "disable_gradient_checkpointing", "recompute_granularity"], Key("model.recompute", "true or false")),
    (&["device_map", "use_cuda", "no_cuda", "use_cpu", "gpu", "cuda", "gpu_id", "use_mps_device"],
     Key("model.device", "\"auto\", \"cpu\", \"cuda:N\" or \"cuda:N-M\"")),
    (&["unfrozen_parameters", "freeze_layers", "frozen_parameters", "freeze_trainable_layers", "freeze_trainable_modules",
       "freeze_extra_modules", "freeze", "train_only_layers"], TRAINED_WHOLE),
    (&["lora_r", "lora_rank", "lora_dim", "peft_lora_r"], Key("adapter.r", "the rank of a LoRA adapter")),
    (&["lora_alpha", "peft_lora_alpha"], Key("adapter.alpha", "the scale is alpha / r; r by default, a scale of 1")),
    (&["lora_dropout", "peft_lora_dropout"], Key("adapter.dropout", "of what a low-rank product reads")),
    (&["lora_target_modules", "lora_target", "lora_target_linear", "peft_target_modules"],
     Key("adapter.target_modules", "\"all-linear\", \"attention\", \"mlp\", or a list of names")),
    (&["lora_modules_to_save", "additional_target"], Key("adapter.modules_to_save", "modules that are trained whole")),
    (&["lora_model_dir", "adapter_name_or_path", "adapters", "peft_model_id", "adapter_path"],
     Key("adapter.from", "a PEFT directory to go on from")),
    (&["peft_use_dora"], Key("adapter.use_dora", "true or false")),
    (&["peft_use_rslora", "use_rs_lora"], Key("adapter.use_rslora", "true or false")),
    (&["init_lora_weights", "peft_init_lora_weights"], Key("adapter.init", "\"default\" or \"gaussian\"")),
    (&["peft_layers_to_transform", "lora_layers_to_transform"], Key("adapter.layers_to_transform", "layers by number, from 0")),
    (&["lora", "lora_config", "peft", "use_peft", "peft_config", "peft_type", "qlora", "use_qlora", "use_lora",
       "finetuning_type"], LORA),
    (&["lora_task_type", "lora_bias", "lora_fan_in_fan_out", "lora_on_cpu", "pissa_init", "pissa_iter", "pissa_convert",
       "loraplus_lr_ratio", "loraplus_lr_embedding", "relora_steps", "create_new_adapter", "merge_lora"], NO_LORA),
    (&["load_in_4bit", "load_in_8bit", "quantization_bit", "quantization_method", "quantization_config",
       "bnb_4bit_quant_type"], Key("model.quantization", "\"nf4\" or \"q8_0\", beside an [adapter]")),
    (&["bnb_4bit_use_double_quant", "use_bnb_nested_quant", "double_quantization"],
     Key("model.double_quant", "whether the scales of nf4 are 8 bits")),
    (&["bnb_4bit_compute_dtype"], Key("model.dtype", "\"f32\" or \"bf16\"")),
    (&["bnb_4bit_quant_storage", "gptq", "awq"], QUANTIZED),
    (&["attn_implementation", "flash_attention", "flash_attn", "flash_attention_2", "use_flash_attention_2", "use_flash_attn",
       "sdp_attention", "xformers_attention", "eager_attention", "torch_compile", "torch_compile_backend", "use_liger_kernel",
       "use_liger_loss", "use_liger", "liger_kernel", "enable_liger_kernel", "use_unsloth", "unsloth", "plugins"], KERNELS),
    (&["trust_remote_code"], Nothing("no code of a model is run; leave the key out")),
    (&["use_auth_token", "hf_token", "hub_token", "use_hf_hub", "hf_use_auth_token"], Nothing("set the environment variable HF_TOKEN")),
    (&["rope_scaling", "rope_theta", "resize_vocab", "resize_token_embeddings_to_32x"],
     Nothing("the model's config.json says it; leave the key out")),
    (&["use_fast_tokenizer", "tokenizer_name", "tokenizer", "tokenizer_name_or_path", "tokenizer_type", "tokenizer_config",
       "tokenizer_path"], TOKENIZER),
    (&["special_tokens"], Key("data.eos_token", "the end token that responses get; others are the tokenizer's")),

    (&["dataset", "datasets", "dataset_name", "train_file", "train_dataset", "data_path", "train_data", "train_files",
       "data_files", "dataset_path", "dataset_dir", "train_path", "dataset_config", "dataset_name_or_path", "dataset_train_split",
       "train_split", "dataset_split"],
     Key("data.train", "a file, a list of files, or \"hub:owner/name:SPLIT\"")),
    (&["split", "splits"], Key("data.train", "a slice such as \"rows.jsonl[:95%]\", or a split of the hub, \"hub:owner/name:SPLIT\"")),
    (&["eval_dataset", "test_datasets", "eval_file", "validation_file", "eval_data", "validation", "test_dataset", "test_file",
       "eval_path", "val_set_size", "val_size", "test_size", "eval_split", "dataset_test_split", "validation_split", "eval_on_each_dataset",
       "split_ratio", "do_eval"],
     Key("data.eval", "a file, or a slice such as \"rows.jsonl[95%:]\"")),
    (&["max_samples", "max_train_samples", "max_eval_samples", "num_train_samples"],
     Key("data.train", "a slice: \"rows.jsonl[:1000]\"")),
    (&["dataset_mixer", "mix_strategy", "interleave_probs"], Key("data.train", "a list of { path = \"..\", weight = 2.0 }")),
    (&["cutoff_len", "sequence_len", "max_seq_length", "max_seq_len", "model_max_length", "block_size", "context_length",
       "seq_len", "seq_length", "max_sequence_length", "max_position_embeddings", "max_completion_length", "max_target_length",
       "max_response_length", "context_len"],
     Key("data.max_length", "most tokens of a prompt with a response")),
    (&["template", "chat_template_path", "conversation_template", "chat_template_jinja"],
     Key("data.chat_template", "\"chatml\", \"plain\" or a file; by default the model's own")),
    (&["is_chat", "use_chat_template"], Key("data.apply_chat_template", "for rows of plain strings")),
    (&["train_on_inputs", "train_on_prompt", "completion_only_loss", "assistant_only_loss", "mask_history", "roles_to_train",
       "train_on_eos", "train_on_eot"],
     Key("data.assistant_turns", "which turns are learned; prompts never are")),
    (&["shuffle_dataset", "shuffle_merged_datasets", "disable_shuffling", "shuffle_buffer_size", "shuffle_before_merging_datasets"],
     Key("data.shuffle", "true or false")),
    (&["prompt_column", "chosen_column", "rejected_column", "dataset_text_field", "column_mapping", "text_column",
       "field_instruction", "field_output", "field_messages", "message_property_mappings"],
     Key("data.columns", "e.g. { prompt = \"question\" }")),
    (&["dataset_type", "dataset_format", "data_type"], Key("data.format", "\"auto\" sees it by the columns")),
    (&["precompute_ref_log_probs", "precompute_ref_batch_size", "precompute_ref_eval_batch_size", "reference_logps"],
     Key("data.reference_log_probs", "a file; without one the reference is scored once, and its log-probs are kept")),
    (&["packing", "sample_packing", "eval_sample_packing", "pad_to_sequence_len", "padding_free", "group_by_length", "neat_packing",
       "multipack_real_batches", "packing_strategy", "length_column_name"], PADDING),
    (&["pad_token", "padding_side", "padding_value", "label_pad_token_id", "pad_token_id", "pad_to_multiple_of",
       "ignore_pad_token_for_loss"], PADDING),
    (&["dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "preprocessing_num_workers",
       "dataset_num_proc", "dataset_processes", "dataset_prepared_path", "dataset_kwargs", "streaming", "overwrite_cache",
       "remove_unused_columns", "dataloader_drop_last", "num_workers", "dataloader_persistent_workers", "skip_prepare_dataset",
       "tokenized_path", "strict", "preprocessing_batch_size"], LOADER),

    (&["per_device_train_batch_size", "per_gpu_train_batch_size", "train_batch_size", "global_batch_size", "effective_batch_size",
       "total_batch_size", "batchsize", "bs"], Key("batch.batch_size", "rows per optimizer step")),
    (&["micro_batch_size", "per_device_eval_batch_size", "eval_batch_size", "per_device_batch_size", "auto_find_batch_size",
       "max_tokens_per_batch", "eval_accumulation_steps", "microbatch_size", "mini_batch_size"],
     Key("batch.micro_batch_tokens", "most tokens, not rows, computed at once; batch.batch_size is rows per optimizer step")),
    (&["grad_accum", "gradient_accumulation", "accumulation_steps", "accumulate_grad_batches", "grad_accumulation_steps",
       "grad_accum_steps", "accum_steps"],
     Key("batch.gradient_accumulation_steps", "parts that batch.batch_size, rows per optimizer step, is computed in")),

    (&["lr", "peak_lr", "base_lr", "max_lr", "learningrate", "actor_learning_rate"], Key("optimizer.learning_rate", "the peak")),
    (&["optimizer_type", "optimizer_name", "optim_name"], Key("optimizer.optim", "adamw, adamw_8bit, adam, lion, muon or rmsprop")),
    (&["optim_args", "optim_target_modules", "use_galore", "galore_target_modules", "use_badam", "use_apollo", "use_muon"],
     Key("optimizer.optim", "adamw, adamw_8bit, adam, lion, muon or rmsprop, each with its own keys")),
    (&["adam_eps", "epsilon", "eps"], Key("optimizer.adam_epsilon", "1e-8 by default")),
    (&["beta1", "betas", "adam_betas"], Key("optimizer.adam_beta1", "with optimizer.adam_beta2")),
    (&["beta2"], Key("optimizer.adam_beta2", "0.999 by default")),
    (&["wd"], Key("optimizer.weight_decay", "of matrices, with adamw")),
    (&["grad_clip", "gradient_clipping", "clip_grad_norm", "clip_grad", "gradient_clip_val", "max_norm", "clip_norm"],
     Key("optimizer.max_grad_norm", "0 turns clipping off")),
    (&["lr_scheduler", "scheduler", "lr_schedule", "scheduler_type", "lr_decay_style", "scheduler_name"],
     Key("schedule.lr_scheduler_type", "linear, cosine, constant or constant_with_warmup")),
    (&["lr_scheduler_kwargs", "cosine_min_lr_ratio", "min_lr", "min_lr_ratio", "cosine_constant_lr_ratio", "lr_decay_steps"],
     Nothing("a schedule decays to 0 at the last step; leave the key out")),
    (&["warmup", "num_warmup_steps", "lr_warmup_steps", "warmup_iters"], Key("schedule.warmup_steps", "or schedule.warmup_ratio")),
    (&["warmup_fraction", "lr_warmup_ratio", "warmup_proportion"], Key("schedule.warmup_ratio", "a share of all steps")),

    (&["epochs", "num_epochs", "n_epochs", "max_epochs", "train_epochs", "epoch"], Key("run.num_train_epochs", "passes over the rows")),
    (&["max_iters", "total_steps", "num_steps", "max_train_steps", "num_train_steps", "num_training_steps", "train_steps",
       "iters", "num_iterations"], Key("run.max_steps", "optimizer steps")),
    (&["data_seed", "random_seed", "set_seed", "full_determinism"], Key("run.seed", "of every random draw")),
    (&["logging_first_step", "logging_strategy", "log_steps", "log_every", "log_interval", "log_freq", "log_every_n_steps"],
     Key("run.logging_steps", "steps per line of metrics.jsonl")),
    (&["eval_strategy", "evaluation_strategy", "eval_every", "eval_interval", "eval_delay", "evals_per_epoch", "eval_on_start",
       "evaluation_steps", "eval_freq", "val_check_interval"],
     Key("run.eval_steps", "without it only before the first step and after the last")),
    (&["save_strategy", "saves_per_epoch", "save_every", "save_interval", "checkpoint_every", "checkpointing_steps", "save_freq",
       "ckpt_interval"], Key("run.save_steps", "steps between checkpoints")),
    (&["save_only_model", "save_safetensors", "save_on_each_node"],
     Nothing("a checkpoint has all that resuming takes, weights as safetensors; leave the key out")),
    (&["max_checkpoints", "keep_checkpoints", "total_limit"], Key("run.save_total_limit", "the newest that are kept")),
    (&["load_best_model_at_end"], Key("run.metric_for_best_model", "the best checkpoint is kept and named")),
    (&["early_stopping_patience", "early_stopping", "early_stopping_threshold"],
     Key("run.metric_for_best_model", "no run stops early; the best checkpoint is kept and named")),
    (&["wandb", "wandb_project", "wandb_entity", "wandb_run_id", "wandb_name", "wandb_log_model", "wandb_watch", "use_wandb",
       "use_tensorboard", "tensorboard", "mlflow_tracking_uri", "mlflow_experiment_name", "use_mlflow", "comet_project_name",
       "use_comet", "use_swanlab", "swanlab_project", "logger", "log_with", "trackio_space_id"], TRACKER),
    (&["logging_dir"], Key("run.report_to", "\"tensorboard\" writes below run.output_dir")),
    (&["plot_loss"], Nothing("expo report draws the figures of a run; leave the key out")),
    (&["output", "out_dir", "output_path", "save_dir", "checkpoint_dir", "run_name", "exp_name", "experiment_name", "save_path",
       "ckpt_dir", "project_name", "out"], Key("run.output_dir", "the directory of the run")),
    (&["overwrite_output_dir"], Key("run.overwrite", "true replaces the run in run.output_dir")),
    (&["resume_from_checkpoint", "auto_resume_from_checkpoints", "ignore_data_skip", "resume", "resume_from"],
     Nothing("the same command resumes an interrupted run; another checkpoint is chosen on the command line")),
    (&["push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "push_to_hub_model_id", "export_dir"], UPLOAD),
    (&["deepspeed", "fsdp", "fsdp_config", "fsdp_version", "ddp", "ddp_find_unused_parameters", "ddp_backend",
       "accelerate", "num_processes", "n_gpu", "num_gpus", "gpus", "local_rank", "tensor_parallel_size", "zero_stage", "world_size",
       "num_machines", "context_parallel_size", "ray_num_workers", "dp_shard_size"], LAUNCHER),
    (&["ddp_timeout"], Key("distributed.timeout", "seconds that a rank waits for the others")),
    (&["do_train", "do_predict", "trainer_type"], Nothing("the command says what is done; leave the key out")),
    (&["disable_tqdm", "log_level", "logging_nan_inf_filter", "report_steps", "include_tokens_per_second"],
     Nothing("progress is shown on a terminal only, and every figure is in metrics.jsonl; leave the key out")),
    (&["neftune_noise_alpha", "neftune_alpha", "neftune", "use_neftune"], Nothing("no noise is added to embeddings; leave the key out")),
    (&["disable_dropout", "dropout", "attention_dropout", "hidden_dropout"], Nothing("models are trained without dropout; leave the key out")),
    (&["generate_during_eval", "predict_with_generate", "do_bench_eval", "eval_table_size"],
     Key("run.eval_prompts", "prompts answered at each evaluation, into generations.jsonl")),
    (&["eval_table_max_new_tokens"], Key("run.eval_max_new_tokens", "most tokens of such an answer")),

    (&["loss_type", "rl", "stage", "pref_loss", "method", "algorithm", "objective", "preference_loss", "loss_fn", "loss_name", "task",
       "training_type", "losses", "rlhf_type", "alignment"], LOSS),
    (&["reference_free"], Key("loss", "a loss without a reference: [loss.simpo], [loss.cpo] or [loss.orpo]")),
    (&["pref_beta", "dpo_beta", "kl_coef", "init_kl_coef", "kl_beta", "rl_beta"], Key("loss.dpo.beta", "or that of another loss")),
    (&["dpo_label_smoothing", "label_smoothing_factor"], Key("loss.dpo.label_smoothing", "the assumed share of flipped labels")),
    (&["simpo_gamma", "gamma_beta_ratio", "simpo_beta"], Key("loss.simpo.gamma", "the target margin, with loss.simpo.beta")),
    (&["cpo_alpha"], Key("loss.cpo.alpha", "the weight of the target")),
    (&["orpo_alpha", "orpo_lambda", "orpo_beta"], Key("loss.orpo.lambda", "the weight of the odds ratio")),
    (&["kto_desirable_weight", "kto_chosen_weight"], Key("loss.kto.desirable_weight", "of desirable responses")),
    (&["kto_undesirable_weight", "kto_rejected_weight"], Key("loss.kto.undesirable_weight", "of undesirable responses")),
    (&["rpo_alpha", "pref_ftx", "sft_weight", "dpo_ftx", "nll_weight", "ftx_gamma"],
     Key("loss.sft.weight", "a sum: [loss.dpo] weight = 1.0 beside [loss.sft] weight")),
    (&["loss_weights"], Key("loss.dpo.weight", "each loss of a sum has its weight")),
    (&["f_divergence_type"], Key("loss.fdpo.divergence", "reverse_kl, forward_kl, jensen_shannon or alpha")),
    (&["f_alpha_divergence_coef"], Key("loss.fdpo.alpha", "of divergence = \"alpha\"")),
    (&["discopop_tau"], Key("loss.discopop.tau", "how sharply the blend changes")),
    (&["ld_alpha"], Key("loss.ld_dpo.alpha", "of tokens beyond the shorter response")),
    (&["use_weighting", "dpo_use_weighting"], Key("loss.wpo", "WPO weighs each pair by its probability")),
    (&["dpo_norm_loss"], Key("loss.sigmoid_norm", "DPO per token")),
    (&["sync_ref_model", "use_ema", "tr_dpo"], Key("reference.update", "[reference] moves the reference")),
    (&["ref_model_mixup_alpha", "ema_decay"], Key("reference.alpha", "the policy's share in an update")),
    (&["ref_model_sync_steps"], Key("reference.steps", "optimizer steps between updates")),

    (&["do_sample"], Key("sample.greedy", "true takes the most likely token")),
    (&["num_return_sequences", "num_generations", "n_samples", "best_of"], Key("sample.num_samples", "responses per prompt")),
    (&["stop_strings", "stop_words", "stop_sequences"], Key("sample.stop", "a list of texts")),
    (&["max_tokens", "max_gen_len", "response_length", "max_output_tokens"], Key("sample.max_new_tokens", "of a response")),
    (&["sampling_params", "generation_config", "generation_kwargs", "generation"], Key("sample", "temperature, top_p, max_new_tokens ...")),
];

/// Values of a key, in lower case with `_`, and what to write instead.
#[rustfmt::skip]
const VALUES: &[(&str, Names, &str)] = &[
    ("optimizer.optim", &["adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused", "adam_w", "paged_adamw",
        "paged_adamw_32bit", "adamw_anyprecision"],
     "\"adamw\"; on a GPU optimizer.states = \"split\" with bf16 takes 6 bytes a parameter instead of 12"),
    ("optimizer.optim", &["paged_adamw_8bit", "adamw_bnb_8bit", "adamw_torch_8bit", "adamw_torch_4bit", "8bit_adam",
        "adam_8bit"],
     "\"adamw_8bit\", whose moments take 2 bytes a parameter instead of 8"),
    ("optimizer.optim", &["lion_8bit", "lion_32bit", "paged_lion_8bit", "paged_lion_32bit"], "\"lion\""),
    ("optimizer.optim", &["sgd", "adafactor", "lamb", "galore_adamw", "adagrad", "sophia", "adalomo",
        "lomo", "apollo_adamw", "schedule_free_adamw", "came", "ademamix"],
     "\"adamw\", \"adamw_8bit\", \"adam\", \"lion\", \"muon\" or \"rmsprop\""),
    ("schedule.lr_scheduler_type", &["cosine_with_restarts", "cosine_with_min_lr", "cosine_annealing", "cosine_decay",
        "rex", "one_cycle", "cosine_warmup_with_min_lr"], "\"cosine\""),
    ("schedule.lr_scheduler_type", &["polynomial", "inverse_sqrt", "warmup_stable_decay", "wsd", "reduce_lr_on_plateau",
        "linear_with_warmup", "linear_decay", "wsd_schedule"], "\"linear\", with schedule.warmup_ratio"),
    ("model.dtype", &["bfloat16", "torch.bfloat16", "bfloat", "mixed"], "\"bf16\""),
    ("model.dtype", &["float32", "fp32", "float", "full", "torch.float32", "32", "auto"], "\"f32\", or \"bf16\" for mixed precision"),
    ("model.dtype", &["float16", "fp16", "f16", "half", "torch.float16", "fp8", "16"],
     "\"bf16\" for mixed precision; there is no fp16"),
    ("model.dtype", &["int8", "int4", "nf4", "4bit", "8bit"],
     "\"bf16\" or \"f32\"; model.quantization = \"nf4\" stores frozen weights in few bits"),
    ("model.save_dtype", &["bfloat16", "torch.bfloat16"], "\"bf16\""),
    ("model.save_dtype", &["float16", "fp16", "half"], "\"f16\""),
    ("model.save_dtype", &["float32", "fp32", "auto"], "\"f32\""),
    ("data.truncation_mode", &["left", "truncate_left", "from_start"], "\"keep_end\""),
    ("data.truncation_mode", &["right", "truncate_right", "from_end"], "\"keep_start\""),
];

/// A name as the tables have it.
fn plain(name: &str) -> Cow<'_, str> {
    match name
        .bytes()
        .any(|byte| byte.is_ascii_uppercase() || byte == b'-')
    {
        true => name.to_ascii_lowercase().replace('-', "_").into(),
        false => name.into(),
    }
}

/// What a key of another program is here. Letter case counts for nothing.
pub(super) fn key(name: &str) -> Option<Here> {
    let name = plain(name);
    let mut rows = KEYS.iter();
    let (_, here) = rows.find(|(names, _)| names.contains(&name.as_ref()))?;
    Some(*here)
}

/// What to write in the place of a value of another program.
pub(super) fn value(key: &str, value: &str) -> Option<&'static str> {
    let value = plain(value);
    let mut rows = VALUES.iter();
    let (_, _, instead) =
        rows.find(|(own, names, _)| *own == key && names.contains(&value.as_ref()))?;
    Some(instead)
}

/// All keys.
#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = (&'static str, Here)> {
    KEYS.iter()
        .flat_map(|(names, here)| names.iter().map(|name| (*name, *here)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::is_key;
    use std::collections::BTreeSet;

    #[test]
    fn every_answer_is_a_key_of_the_schema() {
        for (name, here) in keys() {
            if let Key(key, _) = here {
                assert!(is_key(key), "{name}: there is no key {key}");
            }
        }
        for (key, names, _) in VALUES {
            assert!(is_key(key), "{names:?}: there is no key {key}");
        }
    }

    #[test]
    fn every_name_stands_once_and_as_it_is_looked_up() {
        let mut seen = BTreeSet::new();
        for (name, _) in keys() {
            assert!(seen.insert(name), "{name} is there twice");
            assert_eq!(plain(name), name);
            assert!(key(name).is_some());
        }
        assert!(seen.len() >= 250, "{}", seen.len());
        assert_eq!(key("Use_PEFT"), Some(LORA));
        assert_eq!(
            key("per-device-train-batch-size"),
            key("per_device_train_batch_size")
        );
        for (_, names, _) in VALUES {
            assert!(names.iter().all(|name| plain(name) == *name), "{names:?}");
        }
        assert!(value("optimizer.optim", "AdamW_Torch").is_some());
        assert!(value("model.dtype", "adamw_torch").is_none());
    }
}
