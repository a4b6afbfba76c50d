//! Adapters merged into the weights that they are beside.

#[cfg(test)]
mod tests;

use candle_core::Tensor;

use super::adapter::LowRank;
use super::parameters::Params;
use crate::error::Result;
use crate::kernels::device::{download, download_wide};
use crate::kernels::{Precision, dora, elementwise, linear, weighted};

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
/// dtype of the weights.
pub fn merged_weight(params: &Params, layer: &LowRank) -> Result<Tensor> {
    let weight = params.matrix(params.layout().id(&layer.weight()))?;
    merged_with(&weight, params, layer)
}

/// As [`merged_weight`], of this weight with the adapter in `params`.
pub fn merged_with(weight: &Tensor, params: &Params, layer: &LowRank) -> Result<Tensor> {
    let view = |name: String| params.view(params.layout().id(&name));
    let (a, b) = (view(layer.a()), view(layer.b()));
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

/// Sets the magnitudes of layers that have some to the norms of the rows of their weights as they are with
/// the adapter, so that these are not scaled.
///
/// # Errors
/// If there is no memory for a copy.
pub fn set_magnitudes(params: &mut Params) -> Result<()> {
    let layout = params.layout().clone();
    let layers = layout.adapter.iter().flat_map(|adapter| &adapter.layers);
    for layer in layers.filter(|layer| layer.dora) {
        let view = |name: String| params.view(layout.id(&name));
        let weight = params.matrix(layout.id(&layer.weight()))?;
        let magnitude = view(layer.magnitude());
        let product = (view(layer.a()), view(layer.b()), layer.scale);
        let norms = dora::factors(&weight, product, magnitude)?.norm;
        let values: Vec<f32> = download(&norms)?;
        let range = &layout.entries[layout.id(&layer.magnitude())].range;
        params.set(range.start, &values)?;
    }
    Ok(())
}
