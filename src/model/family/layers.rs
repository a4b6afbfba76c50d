//! Layers of two kinds, of full and of sliding attention, as `layer_types` has them.

use crate::error::Result;
use crate::model::arch::{ConfigJson, Positions, Rotary};

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// Whether attention is sliding in each layer: as `layer_types` says, or else by `default`.
pub(super) fn sliding(
    config: &ConfigJson,
    layers: usize,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>> {
    let Some(kinds) = config.per_layer("layer_types", layers)? else {
        return Ok((0..layers).map(default).collect());
    };
    let of_kind = |kind: &str| match kind {
        FULL => Ok(false),
        SLIDING => Ok(true),
        _ => {
            let valid = format!("valid: {FULL}, {SLIDING}");
            Err(config.refuse("layer_types", kind, &valid))
        }
    };
    kinds.into_iter().map(of_kind).collect()
}

/// Each layer's window: `window` where attention is sliding. `takes` says what that needs.
///
/// # Errors
/// If attention is sliding somewhere and there is no window.
pub(super) fn windows(
    config: &ConfigJson,
    sliding: &[bool],
    window: Option<usize>,
    takes: &str,
) -> Result<Vec<Option<usize>>> {
    let of_layer = |&sliding: &bool| match (sliding, window) {
        (false, _) => Ok(None),
        (true, Some(_)) => Ok(window),
        (true, None) => Err(config.refuse("layer_types", SLIDING, takes)),
    };
    sliding.iter().map(of_layer).collect()
}

/// The rotations of layers of full and of sliding attention.
pub(super) fn positions([full, sliding]: [Rotary; 2], is_sliding: &[bool]) -> Positions {
    let mut tables = Vec::new();
    let of_layer = |&is_sliding: &bool| {
        let rotary = if is_sliding { &sliding } else { &full };
        let known = tables.iter().position(|table| table == rotary);
        Some(known.unwrap_or_else(|| {
            tables.push(rotary.clone());
            tables.len() - 1
        }))
    };
    let layers = is_sliding.iter().map(of_layer).collect();
    Positions::Rotary { tables, layers }
}
