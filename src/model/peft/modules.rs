//! The modules of a model, by the names that they have in transformers.

use std::collections::BTreeSet;

use super::names::in_memory;
use crate::model::arch::{Architecture, Ffn, GateUp, Positions, Qkv};
use crate::model::parameters::Layout;

/// What a linear layer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Attention,
    Mlp,
    Head,
}

/// A linear layer.
#[derive(Debug)]
pub(super) struct Linear {
    /// Its name in the model's files, without `.weight`.
    pub layer: String,
    /// Its name in transformers.
    pub name: String,
    pub part: Part,
    /// The number of its transformer layer.
    pub block: Option<usize>,
}

/// A module with parameters that can have no adapter, and why not.
#[derive(Debug)]
struct Other {
    layer: String,
    name: String,
    why: &'static str,
}

/// The modules of a model that have parameters.
#[derive(Debug)]
pub(super) struct Modules {
    pub linear: Vec<Linear>,
    others: Vec<Other>,
    /// How many transformer layers there are.
    pub blocks: usize,
}

const NORM: &str = "a norm has no matrix; modules_to_save trains it whole";
const TABLE: &str = "an embedding is no linear layer; modules_to_save trains it whole";
pub(super) const EXPERTS: &str = "experts, their router and the MLPs beside them have no adapters; \
                       target the attention: \"attention\"";

impl Modules {
    pub fn of(arch: &Architecture, layout: &Layout) -> Self {
        let mut linear = Vec::new();
        let mut add = |layer: String, part, block| {
            linear.push(Linear {
                name: in_memory(&layer),
                layer,
                part,
                block,
            });
        };
        for block in 0..arch.layers {
            let qkv = match &arch.qkv {
                Qkv::Separate(parts) => &parts[..],
                Qkv::Stacked(part) | Qkv::HeadInterleaved(part) => std::slice::from_ref(part),
            };
            for part in qkv.iter().chain([&arch.names.attention_out]) {
                add(arch.block_name(block, part), Part::Attention, Some(block));
            }
            // PEFT takes the names of an MLP beside experts for the experts'.
            if arch.experts.is_none() {
                let (inputs, down) = match &arch.ffn {
                    Ffn::Plain { up, down, .. } => (std::slice::from_ref(up), down),
                    Ffn::Gated { gate_up, down, .. } => match gate_up {
                        GateUp::Separate(parts) => (&parts[..], down),
                        GateUp::Stacked(part) => (std::slice::from_ref(part), down),
                    },
                };
                for part in inputs.iter().chain([down]) {
                    add(arch.block_name(block, part), Part::Mlp, Some(block));
                }
            }
        }
        // A tied head is a layer of its own as soon as it has an adapter.
        add(arch.names.head.clone(), Part::Head, None);
        let others = Self::others(arch, layout, &linear);
        Self {
            linear,
            others,
            blocks: arch.layers,
        }
    }

    fn others(arch: &Architecture, layout: &Layout, linear: &[Linear]) -> Vec<Other> {
        let known: BTreeSet<&str> = linear.iter().map(|module| module.layer.as_str()).collect();
        let mut layers: BTreeSet<&str> = layout.entries.iter().map(|e| module(&e.name)).collect();
        layers.retain(|layer| !known.contains(layer));
        let why = |layer: &str| match &arch.positions {
            _ if layer == arch.names.embed => TABLE,
            Positions::Learned(table) if layer == table => TABLE,
            _ if arch.experts.is_some()
                && [".mlp.", ".block_sparse_moe."]
                    .iter()
                    .any(|part| layer.contains(part)) =>
            {
                EXPERTS
            }
            _ => NORM,
        };
        let other = |layer: &str| Other {
            name: in_memory(layer),
            layer: layer.to_owned(),
            why: why(layer),
        };
        layers.into_iter().map(other).collect()
    }

    /// The names in transformers of all modules, linear or not.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let linear = self.linear.iter().map(|module| module.name.as_str());
        linear.chain(self.others.iter().map(|module| module.name.as_str()))
    }

    /// Each module's names, in transformers and in files, and why it has no adapter.
    pub fn all(&self) -> impl Iterator<Item = ([&str; 2], Option<&'static str>)> {
        let linear = self.linear.iter().map(|m| (m.names(), None));
        let others = self.others.iter();
        linear.chain(others.map(|m| ([m.name.as_str(), m.layer.as_str()], Some(m.why))))
    }

    /// The ends of linear layers' names, after their last dot.
    pub fn leaves(&self) -> BTreeSet<&str> {
        self.linear
            .iter()
            .map(|module| leaf(&module.name))
            .collect()
    }
}

impl Linear {
    pub fn names(&self) -> [&str; 2] {
        [&self.name, &self.layer]
    }
}

/// What follows the last dot.
pub(super) fn leaf(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A parameter's module: its name without `.weight` or `.bias`.
pub(super) fn module(parameter: &str) -> &str {
    let ends = [".weight", ".bias"].into_iter();
    let mut stripped = ends.filter_map(|end| parameter.strip_suffix(end));
    stripped.next().unwrap_or(parameter)
}
