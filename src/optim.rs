//! Optimizers, learning-rate schedules and gradient clipping.
//!
//! Hides moments and their layout behind [`Optimizer::step`].

mod config;
mod moments;
mod muon;
mod overflow;
mod places;
mod schedule;

use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;

use crate::error::{Error, Result};
use crate::kernels::optimizer::{self as kernel, Adam, Lion, RmsProp};
pub use crate::model::numerics::States;
use crate::model::parameters::{Entry, Layout, Master, Params};

use moments::{Moments, Rule};
use muon::Muon;
use places::{placed, within};

pub use config::{Method, OptimizerConfig};
pub use overflow::Tried;
pub use schedule::{Decay, ScheduleConfig};

/// The largest gradient norm, after clipping, that an update is made with.
const LARGEST_NORM: f64 = 1e18;

/// An optimizer with its moments.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// The elements that it updates: whole parameters, of which alone it has moments.
    piece: Range<usize>,
    moments: Moments,
    steps: u64,
    /// At least the magnitude of every mean of gradients.
    largest_mean: f64,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq)]
pub enum Updated {
    /// It was made; the gradient norm before clipping.
    Made(f64),
    /// It was not made: these parameters would have got values that are NaN or infinite.
    Overflows(Vec<String>),
}

impl Optimizer {
    /// An optimizer with zero moments for what is trained of `weights`: moments that are not kept in 8
    /// bits are bf16 where weights are split, else as wide as the weights' values.
    pub fn new(config: &OptimizerConfig, weights: &Params) -> Result<Self> {
        Self::of_piece(config, weights, 0..weights.layout().trainable_len)
    }

    /// As [`new`](Self::new), for these elements of what is trained: those of whole parameters.
    pub fn of_piece(
        config: &OptimizerConfig,
        weights: &Params,
        piece: Range<usize>,
    ) -> Result<Self> {
        let config = config.resolve()?;
        let dtype = match weights.master() {
            Master::Itself => weights.flat().dtype(),
            Master::F32(_) => DType::F32,
            Master::Low(_) => DType::BF16,
        };
        let layout = weights.layout().trainable();
        let layout = Arc::new(match piece.len() == layout.len {
            true => layout,
            false => of_piece(&layout, &piece),
        });
        let moments = Moments::new(config.optim, &layout, dtype, weights.flat().device())?;
        Ok(Self {
            config,
            piece,
            moments,
            steps: 0,
            largest_mean: 0.0,
        })
    }

    /// The moments by name: with the number of updates they come from all that an optimizer is beside
    /// its config. Two buffers of one name are of different parameters.
    pub fn moments(&self) -> Vec<(&'static str, &Params)> {
        self.moments.buffers()
    }

    /// Bytes of the moments of all that is trained of `weights`, whatever piece of it is updated here.
    pub fn moment_bytes(&self, weights: &Params) -> u64 {
        let moments = self.moments.buffers();
        let width = moments
            .first()
            .map_or(DType::F32, |(_, moment)| moment.flat().dtype());
        let layout = weights.layout();
        self.config
            .optim
            .moment_bytes(layout, width.size_in_bytes() as u64)
    }

    /// As [`moments`](Self::moments), to be filled in.
    pub fn moments_mut(&mut self) -> Vec<(&'static str, &mut Params)> {
        self.moments.buffers_mut()
    }

    /// Goes on after so many updates, whose [`moments`](Self::moments) have been filled in.
    pub fn continue_after(&mut self, updates: u64) {
        self.steps = updates;
        self.largest_mean = LARGEST_NORM;
    }

    /// One update of what is trained of `weights`, in place, at this learning rate.
    ///
    /// # Errors
    /// [`Kind::NonFinite`](crate::error::Kind::NonFinite), before any change, where the gradient norm is
    /// not finite.
    pub fn step(&mut self, weights: &mut Params, gradients: &Params, rate: f64) -> Result<Updated> {
        let norm = gradient_norm(gradients)?;
        self.update(weights, (gradients, norm), rate, Ok)
    }

    /// As [`step`](Self::step), with gradients of this global norm, of which the piece alone is read. Where an
    /// update has to be tried out, `of_all` makes what came out for this piece what came out for all.
    pub fn update(
        &mut self,
        weights: &mut Params,
        (gradients, norm): (&Params, f64),
        rate: f64,
        of_all: impl FnOnce(Tried) -> Result<Tried>,
    ) -> Result<Updated> {
        if !norm.is_finite() {
            return Err(Error::non_finite(format!(
                "the gradient norm is {norm}; no update was made"
            )));
        }
        let scale = match self.config.max_grad_norm {
            max if max > 0.0 => (max / (norm + 1e-6)).min(1.0),
            _ => 1.0,
        };
        // Its square is a second moment, in f32.
        if norm * scale > LARGEST_NORM {
            return Err(Error::non_finite(format!(
                "the gradient norm is {norm}; its square overflows, and no update was made"
            )));
        }
        let rule = self.rule(rate);
        let largest_mean = self.largest_mean.max(norm * scale);
        let mut largest = rule.largest(weights.largest(), largest_mean);
        if !overflow::fits(largest) {
            let tried = of_all(self.try_out(&rule, weights, (gradients, scale))?)?;
            if !tried.overflows.is_empty() {
                return Ok(Updated::Overflows(tried.overflows));
            }
            largest = tried.largest;
        }
        let updated = weights.updated(gradients.layout().len)?;
        self.moments
            .update(&rule, updated, (gradients, scale), &self.piece)?;
        weights.set_largest(largest);
        self.largest_mean = largest_mean;
        self.steps += 1;
        Ok(Updated::Made(norm))
    }

    /// The next update at this learning rate.
    fn rule(&self, rate: f64) -> Rule {
        let read = |value: Option<f64>| value.unwrap_or_default();
        let (config, step) = (&self.config, self.steps + 1);
        let adam = || Adam {
            beta1: read(config.adam_beta1),
            beta2: read(config.adam_beta2),
            epsilon: read(config.adam_epsilon),
            rate,
            weight_decay: read(config.weight_decay),
            step,
        };
        match config.optim {
            Method::RmsProp => Rule::RmsProp(RmsProp {
                alpha: read(config.rmsprop_alpha),
                epsilon: read(config.rmsprop_epsilon),
                rate,
                step,
            }),
            Method::Lion => Rule::Lion(Lion {
                beta1: read(config.lion_beta1),
                beta2: read(config.lion_beta2),
                rate,
                weight_decay: read(config.weight_decay),
                step,
            }),
            Method::AdamW | Method::AdamW8bit | Method::Adam => Rule::Adam(adam()),
            Method::Muon => Rule::Muon(
                Muon {
                    momentum: read(config.muon_momentum),
                    rate,
                    weight_decay: read(config.weight_decay),
                },
                adam(),
            ),
        }
    }
}

/// The layout of the parameters that lie in a range, alone.
pub fn of_piece(layout: &Layout, piece: &Range<usize>) -> Layout {
    placed(within(layout, piece).cloned().collect())
}

/// The squared norms of the gradients of the parameters in a range, in f64.
pub fn squared_norms(gradients: &Params, piece: &Range<usize>) -> Result<Vec<f64>> {
    let of = |entry: &Entry| {
        let (start, len) = (entry.range.start, entry.range.len());
        kernel::squared_norm(&gradients.flat().narrow(0, start, len)?)
    };
    within(gradients.layout(), piece).map(of).collect()
}

/// The global norm of all gradients, in f64; it does not depend on the number of threads.
pub fn gradient_norm(gradients: &Params) -> Result<f64> {
    Ok(kernel::squared_norm(gradients.flat())?.sqrt())
}
