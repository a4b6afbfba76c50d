//! Adapters merged into the weights that they are beside.

use candle_core::Tensor;

use super::LowRank;
use crate::error::Result;
use crate::kernels::device::download_wide;
use crate::kernels::{Precision, dora, elementwise, linear, weighted};
use crate::model::parameters::Params;

/// The parameters whose layers have their low-rank products merged; what is not merged lies in the same
/// memory.
///
/// # Errors
/// If there is no memory for the merged weights.
pub fn merged(params: &Params) -> Result<Params> {
    let layers = params.layout().adapter.iter();
    let layers = layers.flat_map(|adapter| &adapter.layers);
    let merged = layers.map(|layer| {
        let id = params.layout().id(&layer.weight());
        Ok((id, merged_weight(params, layer)?))
    });
    let merged: Vec<(usize, Tensor)> = merged.collect::<Result<_>>()?;
    Ok(params.clone().with_views(merged))
}

/// `W + scale B A` (out, in), whose rows have the layer's magnitudes where it has any, rounded once to the
/// dtype of W.
pub fn merged_weight(params: &Params, layer: &LowRank) -> Result<Tensor> {
    let view = |name: String| params.view(params.layout().id(&name));
    let (weight, a, b) = (view(layer.weight()), view(layer.a()), view(layer.b()));
    let mut whole = elementwise::copy(weight)?;
    let mut scaled = elementwise::copy(a)?;
    elementwise::scale(&mut scaled, layer.scale)?;
    linear::backward_weight(&b.t()?, &scaled, &mut whole, Precision::Full)?;
    if layer.dora {
        let magnitude = view(layer.magnitude());
        let factors = dora::factors(weight, (a, b, layer.scale), magnitude)?;
        weighted::weigh(&mut whole, &download_wide(&factors.scale)?)?;
    }
    Ok(whole)
}
