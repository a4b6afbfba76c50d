//! The names that transformers gives modules in memory.
//!
//! *Why*: PEFT matches and saves those names, while a model's files may have older ones.

/// What precedes a module's name in the keys of `adapter_model.safetensors`.
const PREFIX: &str = "base_model.model.";

/// Beginnings of names in files, and in memory: the text part of Gemma 3, the heads of it and of GPT-NeoX.
const BEGINNINGS: [(&str, &str); 3] = [
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head", "lm_head"),
    ("embed_out", "lm_head"),
];

/// What the names of a GPT-2 that was saved as a base model begin with.
const GPT2: [&str; 4] = ["h.", "wte", "wpe", "ln_f"];

/// The name in memory of a module or parameter that is called `name` in files.
pub(super) fn in_memory(name: &str) -> String {
    for (file, memory) in BEGINNINGS {
        if let Some(rest) = name.strip_prefix(file) {
            return format!("{memory}{rest}");
        }
    }
    match GPT2.iter().any(|start| name.starts_with(start)) {
        true => format!("transformer.{name}"),
        // Of Mixtral.
        false => name.replace(".block_sparse_moe.", ".mlp."),
    }
}

/// The key in `adapter_model.safetensors` of a parameter of the layout, such as
/// `model.layers.0.self_attn.q_proj.lora_A.weight`.
pub fn peft_name(parameter: &str) -> String {
    format!("{PREFIX}{}", in_memory(parameter))
}

/// The name in memory of a key of `adapter_model.safetensors`, if it can be one.
pub(super) fn of_key(key: &str) -> Option<String> {
    key.strip_prefix(PREFIX).map(in_memory)
}
