//! The feed-forward network of a block.

use candle_core::{DType, Tensor};

use super::arch::{self, Architecture, Gate, GateUp, Gelu};
use super::linear::{Linear, backward_shared_input};
use super::parameters::{Layout, Params, Weights};
use crate::error::Result;
use crate::kernels::activation::{self, Activation};

/// A feed-forward network by its places in the flat buffers.
#[derive(Debug)]
pub(super) enum Ffn {
    /// `down(gelu(up(x)))`.
    Gelu {
        kind: Gelu,
        up: [Linear; 1],
        down: Linear,
    },
    /// `down(activation(gate(x)) * up(x))`.
    Gated {
        kind: Gate,
        /// Gate and up, which read the same input.
        gate_up: [Linear; 2],
        down: Linear,
    },
}

/// What the backward pass needs: the inputs of the activation, (rows, width) each.
#[derive(Debug)]
pub(super) enum Activations {
    Gelu(Gelu, Tensor),
    Gated(Gate, [Tensor; 2]),
}

impl Ffn {
    /// That of a layer.
    pub(super) fn new(arch: &Architecture, layout: &Layout, layer: usize) -> Self {
        let linear = |part: &String| Linear::new(layout, &arch.block_name(layer, part));
        match &arch.ffn {
            arch::Ffn::Gelu { kind, up, down, .. } => Self::Gelu {
                kind: *kind,
                up: [linear(up)],
                down: linear(down),
            },
            arch::Ffn::Gated {
                kind,
                width,
                gate_up,
                down,
                ..
            } => Self::Gated {
                kind: *kind,
                gate_up: match gate_up {
                    GateUp::Separate(parts) => parts.each_ref().map(linear),
                    GateUp::Stacked(part) => {
                        Linear::stacked(layout, &arch.block_name(layer, part), [*width; 2])
                    }
                },
                down: linear(down),
            },
        }
    }

    /// The projections that read the network's input.
    pub(super) fn inputs(&self) -> &[Linear] {
        match self {
            Self::Gelu { up, .. } => up,
            Self::Gated { gate_up, .. } => gate_up,
        }
    }

    /// The projection to the residual stream.
    pub(super) fn down(&self) -> &Linear {
        match self {
            Self::Gelu { down, .. } | Self::Gated { down, .. } => down,
        }
    }

    /// Adds the network's output, without the bias of [`Self::down`], to `y` (rows, hidden); `h`
    /// (rows, hidden) is its input.
    pub(super) fn forward(
        &self,
        weights: Weights,
        h: &Tensor,
        y: &mut Tensor,
    ) -> Result<Activations> {
        let apply = |linear: &Linear| linear.forward(weights, h);
        let activations = match self {
            Self::Gelu { kind, up: [up], .. } => Activations::Gelu(*kind, apply(up)?),
            Self::Gated {
                kind,
                gate_up: [gate, up],
                ..
            } => Activations::Gated(*kind, [apply(gate)?, apply(up)?]),
        };
        self.down()
            .add_product(weights, &activations.hidden()?, y)?;
        Ok(activations)
    }

    /// Adds the gradient of [`Self::down`], given that of the network's output, and gives those of the
    /// activation's inputs where they are `wanted`.
    pub(super) fn backward_down(
        &self,
        weights: Weights,
        dout: &Tensor,
        activations: &Activations,
        wanted: bool,
        into: &mut Params,
    ) -> Result<Option<Vec<Tensor>>> {
        let down = self.down();
        if !wanted {
            if down.trainable() {
                down.backward_parameters(weights, dout, &activations.hidden()?, into)?;
            }
            return Ok(None);
        }
        let dhidden = down.backward_input(weights, dout)?;
        let (hidden, dinputs) = activations.backward(dhidden)?;
        down.backward_parameters(weights, dout, &hidden, into)?;
        Ok(Some(dinputs))
    }

    /// Adds the gradients of [`Self::inputs`], given those of the activation's inputs, and gives that
    /// of the network's input in `dtype` where it is wanted; `h` makes that input.
    pub(super) fn backward_inputs(
        &self,
        weights: Weights,
        dinputs: &[Tensor],
        h: impl FnOnce() -> Result<Tensor>,
        wanted: Option<DType>,
        into: &mut Params,
    ) -> Result<Option<Tensor>> {
        backward_shared_input(self.inputs(), weights, dinputs, h, wanted, into)
    }
}

impl Activations {
    /// The activation's output, (rows, width).
    fn hidden(&self) -> Result<Tensor> {
        match self {
            Self::Gelu(kind, up) => activation::apply(gelu(*kind), up),
            Self::Gated(kind, [gate, up]) => activation::gated(of_gate(*kind), gate, up),
        }
    }

    /// The activation's output once more, and the gradient of each of its inputs; works in the memory
    /// of `dy`, the gradient of the output.
    fn backward(&self, mut dy: Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        Ok(match self {
            Self::Gelu(kind, up) => {
                let y = activation::apply_backward(gelu(*kind), &mut dy, up)?;
                (y, vec![dy])
            }
            Self::Gated(kind, [gate, up]) => {
                let kind = of_gate(*kind);
                let (y, dgate) = activation::gated_backward(kind, &mut dy, gate, up)?;
                (y, vec![dgate, dy])
            }
        })
    }

    #[cfg(test)]
    pub(super) fn tensors(&self) -> &[Tensor] {
        match self {
            Self::Gelu(_, up) => std::slice::from_ref(up),
            Self::Gated(_, gate_up) => gate_up,
        }
    }
}

fn gelu(kind: Gelu) -> Activation {
    match kind {
        Gelu::Exact => Activation::Gelu,
        Gelu::Tanh => Activation::GeluTanh,
    }
}

fn of_gate(kind: Gate) -> Activation {
    match kind {
        Gate::Silu => Activation::Silu,
        Gate::GeluTanh => Activation::GeluTanh,
    }
}
