//! `[optimizer]`.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::numerics::States;

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
    /// All but `adam` and `rmsprop`: decoupled decay of matrices, not of biases and norms; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// All but `rmsprop` and `lion`: 0.9 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adam_beta1: Option<f64>,
    /// All but `rmsprop` and `lion`: 0.999 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adam_beta2: Option<f64>,
    /// All but `rmsprop` and `lion`: 1e-8 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adam_epsilon: Option<f64>,
    /// `rmsprop` only: decay of the mean of squared gradients, 0.99 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmsprop_alpha: Option<f64>,
    /// `rmsprop` only: 1e-8 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmsprop_epsilon: Option<f64>,
    /// `lion` only: the mean's share in the direction of an update, 0.9 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lion_beta1: Option<f64>,
    /// `lion` only: decay of the mean of gradients, 0.99 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lion_beta2: Option<f64>,
    /// `muon` only: decay of the mean of gradients, 0.95 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muon_momentum: Option<f64>,
}

/// Optimizers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Adam with decoupled weight decay, Loshchilov and Hutter 2019.
    AdamW,
    /// AdamW with moments in 8 bits, Dettmers et al. 2022: 2 bytes a parameter instead of 8.
    #[serde(rename = "adamw_8bit")]
    AdamW8bit,
    /// Adam without weight decay, Kingma and Ba 2015: the papers' choice.
    Adam,
    /// RMSprop, the official DPO repository's choice.
    RmsProp,
    /// The sign of a mean of gradients, Chen et al. 2023.
    Lion,
    /// Orthogonalized means of the gradients of the blocks' matrices, Jordan et al. 2024; AdamW for the
    /// rest.
    Muon,
}

impl Method {
    /// Its name in a config.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdamW => "adamw",
            Self::AdamW8bit => "adamw_8bit",
            Self::Adam => "adam",
            Self::RmsProp => "rmsprop",
            Self::Lion => "lion",
            Self::Muon => "muon",
        }
    }
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
            lion_beta1: None,
            lion_beta2: None,
            muon_momentum: None,
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
        let method = self.optim;
        let is = |one: Method| method == one;
        let (rmsprop, lion, muon) = (is(Method::RmsProp), is(Method::Lion), is(Method::Muon));
        let adam = !rmsprop && !lion;
        let decays = !rmsprop && method != Method::Adam;
        // Updates are made in f32.
        let largest = f64::from(f32::MAX);
        let (any, share) = (0.0..largest, 0.0..1.0);
        // An epsilon of 0 would make 0 / 0 of every parameter that has had no gradient yet.
        let above_zero = f64::from(f32::MIN_POSITIVE)..largest;
        let keys = [
            ("weight_decay", &mut all.weight_decay, decays, 0.0, &any),
            ("adam_beta1", &mut all.adam_beta1, adam, 0.9, &share),
            ("adam_beta2", &mut all.adam_beta2, adam, 0.999, &share),
            (
                "adam_epsilon",
                &mut all.adam_epsilon,
                adam,
                1e-8,
                &above_zero,
            ),
            (
                "rmsprop_alpha",
                &mut all.rmsprop_alpha,
                rmsprop,
                0.99,
                &share,
            ),
            (
                "rmsprop_epsilon",
                &mut all.rmsprop_epsilon,
                rmsprop,
                1e-8,
                &above_zero,
            ),
            ("lion_beta1", &mut all.lion_beta1, lion, 0.9, &share),
            ("lion_beta2", &mut all.lion_beta2, lion, 0.99, &share),
            ("muon_momentum", &mut all.muon_momentum, muon, 0.95, &share),
        ];
        for (key, value, read, default, range) in keys {
            match value {
                Some(_) if !read => {
                    let method = method.name();
                    return Err(Error::input(format!("{method} does not read {key}"))
                        .hint("leave the key out, or choose another optim")
                        .at_keys(&[key, "optim"]));
                }
                Some(x) => in_range(key, *x, range)?,
                None => *value = read.then_some(default),
            }
        }
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
    fn a_method_has_one_name() {
        use Method::{Adam, AdamW, AdamW8bit, Lion, Muon, RmsProp};
        for method in [AdamW, AdamW8bit, Adam, RmsProp, Lion, Muon] {
            let name = serde_json::to_value(method).unwrap();
            assert_eq!(name, method.name());
        }
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
