//! PEFT's adapters: their config, which layers it targets, and their directories.
//!
//! Hides the names that modules have in transformers, the rules by which PEFT matches them, and the
//! layout of `adapter_config.json` and `adapter_model.safetensors`. Elsewhere an adapter is an
//! [`Adapter`](super::adapter::Adapter): layers by their names in the model's files.
//!
//! *Why*: adapters are exchanged between programs. What this one writes PEFT loads with the same
//! logits, and the other way round; where PEFT would silently do something else, it is an error here.

mod config;
mod folder;
mod initial;
mod modules;
mod names;
mod pattern;
mod read_config;
mod targets;
#[cfg(test)]
mod tests;
mod written;

pub use config::{AdapterConfig, AdapterReference, Init, Layers};
pub use folder::PeftFolder;
pub use initial::initialize;
pub use names::peft_name;
pub use pattern::{Patterns, Targets};
pub use written::config_json;
