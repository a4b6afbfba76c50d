//! What families with a mixture of experts share.

use crate::error::Result;
use crate::model::arch::{Activation, ConfigJson, ExpertWeights, Experts};

/// How a family names what it has of experts.
pub(super) struct Keys {
    /// The key of the width of one expert.
    pub width: &'static str,
    /// The default of the number of experts.
    pub count: usize,
    /// The default of `num_experts_per_tok`.
    pub per_token: usize,
    /// What the names of a layer's router and experts begin with.
    pub prefix: &'static str,
    /// The names of an expert's gate, up and down.
    pub parts: [&'static str; 3],
}

/// The most experts of a model.
const MOST: usize = 1 << 18;

/// How many experts a layer has: `num_experts`, or `num_local_experts`, another name of it.
pub(super) fn count(config: &ConfigJson, keys: &Keys) -> Result<usize> {
    let given = ["num_experts", "num_local_experts"]
        .into_iter()
        .filter(|name| config.value.get(name).is_some());
    let mut found = None;
    for name in given {
        let count = config.count_or(name, keys.count)?;
        if found.is_some_and(|other| other != count) {
            let why = "num_experts and num_local_experts must be equal";
            return Err(config.unsupported(name, why));
        }
        found = Some(count);
    }
    Ok(found.unwrap_or(keys.count))
}

/// The experts of the layers that have them, or `None` where no layer does.
pub(super) fn experts(
    config: &ConfigJson,
    keys: &Keys,
    layers: Vec<bool>,
    normalized: bool,
) -> Result<Option<Experts>> {
    if !layers.contains(&true) {
        return Ok(None);
    }
    let count = count(config, keys)?;
    let per_token = config.usize_or("num_experts_per_tok", keys.per_token)?;
    if per_token > count {
        return Err(config
            .error(format!("a token uses {per_token} experts of {count}"))
            .hint("num_experts_per_tok must be at most the number of experts"));
    }
    // Each expert has parameters of its own, and a list of them is made before the weights are seen.
    if count * layers.len() > MOST {
        return Err(config
            .error(format!("{} layers of {count} experts", layers.len()))
            .hint(format!("at most {MOST} experts in all layers together")));
    }
    let prefix = keys.prefix;
    Ok(Some(Experts {
        layers,
        count,
        per_token,
        normalized,
        kind: Activation::Silu,
        width: config.usize(keys.width)?,
        router: format!("{prefix}gate"),
        weights: ExpertWeights::Separate {
            prefix: format!("{prefix}experts."),
            parts: keys.parts.map(Into::into),
        },
    }))
}
