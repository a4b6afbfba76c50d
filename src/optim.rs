//! Optimizers, learning-rate schedules and gradient clipping.
//!
//! Hides moments and their layout behind [`Optimizer::step`].

mod overflow;
mod schedule;

use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernels::optimizer::{self as kernel, Adam, Decayed, RmsProp};
pub use crate::model::numerics::States;
use crate::model::parameters::{Master, Params};

pub use schedule::{Decay, ScheduleConfig};

/// `[optimizer]`. A key that the chosen method does not read is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The method.
    pub optim: Method,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// Gradients are scaled down to this global norm; 0 turns clipping off.
    pub max_grad_norm: f64,
    /// Storage of f32 master weights and optimizer moments in mixed precision on a GPU.
    pub states: States,
    /// `adamw` only: decoupled decay of matrices, not of biases and norms; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// `adamw` and `adam`: 0.9 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adam_beta1: Option<f64>,
    /// `adamw` and `adam`: 0.999 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adam_beta2: Option<f64>,
    /// `adamw` and `adam`: 1e-8 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adam_epsilon: Option<f64>,
    /// `rmsprop` only: decay of the mean of squared gradients, 0.99 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmsprop_alpha: Option<f64>,
    /// `rmsprop` only: 1e-8 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmsprop_epsilon: Option<f64>,
}

/// Optimizers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Adam with decoupled weight decay, Loshchilov and Hutter 2019.
    AdamW,
    /// Adam without weight decay, Kingma and Ba 2015: the papers' choice.
    Adam,
    /// RMSprop, the official DPO repository's choice.
    RmsProp,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            optim: Method::AdamW,
            learning_rate: 1e-6,
            max_grad_norm: 1.0,
            states: States::default(),
            weight_decay: None,
            adam_beta1: None,
            adam_beta2: None,
            adam_epsilon: None,
            rmsprop_alpha: None,
            rmsprop_epsilon: None,
        }
    }
}

impl OptimizerConfig {
    /// Fills in the defaults of the keys that the method reads.
    ///
    /// # Errors
    /// Names a key that the method does not read, or a value outside its range.
    pub fn resolve(&self) -> Result<Self> {
        let mut all = self.clone();
        let adam = self.optim != Method::RmsProp;
        // Updates are made in f32.
        let largest = f64::from(f32::MAX);
        let (adamw, any) = (self.optim == Method::AdamW, 0.0..largest);
        let share = 0.0..1.0;
        let fill = |key: &str, value: &mut Option<f64>, read: bool, default, range: &Range<f64>| {
            match value {
                Some(_) if !read => {
                    let method = format!("{:?}", self.optim).to_lowercase();
                    Err(Error::input(format!("{method} does not read {key}"))
                        .hint("leave the key out, or choose another optim")
                        .at_keys(&[key, "optim"]))
                }
                Some(x) => in_range(key, *x, range),
                None => {
                    *value = read.then_some(default);
                    Ok(())
                }
            }
        };
        fill("weight_decay", &mut all.weight_decay, adamw, 0.0, &any)?;
        fill("adam_beta1", &mut all.adam_beta1, adam, 0.9, &share)?;
        fill("adam_beta2", &mut all.adam_beta2, adam, 0.999, &share)?;
        // An epsilon of 0 would make 0 / 0 of every parameter that has had no gradient yet.
        let above_zero = f64::from(f32::MIN_POSITIVE)..largest;
        fill(
            "adam_epsilon",
            &mut all.adam_epsilon,
            adam,
            1e-8,
            &above_zero,
        )?;
        fill("rmsprop_alpha", &mut all.rmsprop_alpha, !adam, 0.99, &share)?;
        fill(
            "rmsprop_epsilon",
            &mut all.rmsprop_epsilon,
            !adam,
            1e-8,
            &above_zero,
        )?;
        in_range("learning_rate", self.learning_rate, &any)?;
        in_range("max_grad_norm", self.max_grad_norm, &any)?;
        Ok(all)
    }
}

fn in_range(key: &str, x: f64, range: &Range<f64>) -> Result<()> {
    if range.contains(&x) {
        return Ok(());
    }
    let valid = match (range.start, range.end) {
        (_, 1.0) => "in [0, 1)",
        (0.0, _) => ">= 0 and finite in f32",
        _ => ">= 1.2e-38 and finite in f32",
    };
    Err(Error::must_be(key, valid, x))
}

/// The largest gradient norm, after clipping, that an update is made with.
const LARGEST_NORM: f64 = 1e18;

/// An optimizer with its moments.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// The mean of gradients, (elements); RMSprop keeps none.
    mean: Option<Params>,
    /// The mean of squared gradients, (elements).
    square: Params,
    /// The elements that weight decay applies to.
    decayed: Decayed,
    steps: u64,
    /// At least the magnitude of every element of `mean`.
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

/// The constants of one update.
enum Rule {
    Adam(Adam),
    RmsProp(RmsProp),
}

impl Optimizer {
    /// An optimizer with zero moments for what is trained of `weights`: moments are bf16 where weights
    /// are split, else as wide as the weights' values.
    pub fn new(config: &OptimizerConfig, weights: &Params) -> Result<Self> {
        let config = config.resolve()?;
        let dtype = match weights.master() {
            Master::Itself => weights.flat().dtype(),
            Master::F32(_) => DType::F32,
            Master::Low(_) => DType::BF16,
        };
        let layout = Arc::new(weights.layout().trainable());
        let zeros = || Params::zeros(layout.clone(), dtype, weights.flat().device());
        let mean = (config.optim != Method::RmsProp).then(zeros).transpose()?;
        let decayed = layout.entries.iter().filter(|entry| entry.decay);
        let decayed = decayed.map(|entry| entry.range.clone()).collect();
        Ok(Self {
            config,
            mean,
            square: zeros()?,
            decayed: Decayed::new(decayed, weights.flat().device())?,
            steps: 0,
            largest_mean: 0.0,
        })
    }

    /// The moments by name, (elements) each: with the number of updates they come from all that an
    /// optimizer is beside its config.
    pub fn moments(&self) -> Vec<(&'static str, &Params)> {
        let mean = self.mean.as_ref().map(|mean| ("mean", mean));
        mean.into_iter().chain([("square", &self.square)]).collect()
    }

    /// As [`moments`](Self::moments), to be filled in.
    pub fn moments_mut(&mut self) -> Vec<(&'static str, &mut Params)> {
        let mean = self.mean.as_mut().map(|mean| ("mean", mean));
        mean.into_iter()
            .chain([("square", &mut self.square)])
            .collect()
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
            let tried = self.try_out(&rule, weights, (gradients, scale))?;
            if !tried.overflows.is_empty() {
                return Ok(Updated::Overflows(tried.overflows));
            }
            largest = tried.largest;
        }
        self.apply(&rule, weights, (gradients, scale))?;
        weights.set_largest(largest);
        self.largest_mean = largest_mean;
        self.steps += 1;
        Ok(Updated::Made(norm))
    }

    /// The next update at this learning rate.
    fn rule(&self, rate: f64) -> Rule {
        let read = |value: Option<f64>| value.unwrap_or_default();
        let step = self.steps + 1;
        match self.mean {
            None => Rule::RmsProp(RmsProp {
                alpha: read(self.config.rmsprop_alpha),
                epsilon: read(self.config.rmsprop_epsilon),
                rate,
                step,
            }),
            Some(_) => Rule::Adam(Adam {
                beta1: read(self.config.adam_beta1),
                beta2: read(self.config.adam_beta2),
                epsilon: read(self.config.adam_epsilon),
                rate,
                weight_decay: read(self.config.weight_decay),
                step,
            }),
        }
    }

    /// Makes an update with gradients times `scale`.
    fn apply(
        &mut self,
        rule: &Rule,
        weights: &mut Params,
        (gradients, scale): (&Params, f64),
    ) -> Result<()> {
        let weights = weights.updated(gradients.layout().len)?;
        let square = self.square.flat_mut();
        let gradient = (gradients.flat(), scale);
        match (rule, &mut self.mean) {
            (Rule::Adam(adam), Some(mean)) => {
                let moments = (mean.flat_mut(), square);
                kernel::adam(adam, &self.decayed, weights, moments, gradient)
            }
            (Rule::Adam(_), None) => Err(Error::failed("Adam without a mean")),
            (Rule::RmsProp(rmsprop), _) => kernel::rmsprop(rmsprop, weights, square, gradient),
        }
    }
}

/// The global norm of all gradients, in f64; it does not depend on the number of threads.
pub fn gradient_norm(gradients: &Params) -> Result<f64> {
    Ok(kernel::squared_norm(gradients.flat())?.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_method_is_an_error() {
        let config = OptimizerConfig {
            optim: Method::RmsProp,
            adam_beta1: Some(0.9),
            ..OptimizerConfig::default()
        };
        let message = config.resolve().unwrap_err().to_string();
        assert!(
            message.contains("rmsprop does not read adam_beta1"),
            "{message}"
        );
    }

    #[test]
    fn numbers_that_f32_does_not_hold_are_refused() {
        for (epsilon, rate) in [(1e-50, 1e-6), (0.0, 1e-6), (1e-8, 1e39)] {
            let config = OptimizerConfig {
                adam_epsilon: Some(epsilon),
                learning_rate: rate,
                ..OptimizerConfig::default()
            };
            let message = config.resolve().unwrap_err().to_string();
            assert!(message.contains("f32"), "{message}");
        }
    }
}
