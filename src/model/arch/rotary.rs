//! Rotary position embedding (Su et al. 2021) and its scaling for longer contexts.

use super::ConfigJson;
use crate::error::Result;

/// Rotary embedding: frequencies `theta^(-2i/dim)`, scaled.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// The rotated part of a head, even.
    pub dim: usize,
    /// The base.
    pub theta: f64,
    /// How frequencies are stretched for longer contexts.
    pub scaling: Scaling,
}

/// Hugging Face's `rope_type`s that the decoder implements.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// `default`.
    None,
    /// `linear`: every frequency divided by the factor (Chen et al. 2023).
    Linear(f64),
    /// `llama3`: low frequencies divided by the factor, high ones kept, between them a blend.
    Llama3 {
        /// Division of low frequencies.
        factor: f64,
        /// Wavelengths over `original / low` are low frequencies.
        low: f64,
        /// Wavelengths under `original / high` are high frequencies.
        high: f64,
        /// The context length before scaling.
        original: f64,
    },
}

impl Rotary {
    /// The `dim / 2` inverse frequencies. In f32 like transformers', on whose values models were
    /// trained.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        let plain = (0..self.dim / 2)
            .map(|i| 1.0 / (self.theta as f32).powf((2 * i) as f32 / self.dim as f32));
        match self.scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear(factor) => plain.map(|f| f / factor as f32).collect(),
            Scaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => plain
                .map(|f| {
                    let wavelength = 2.0 * std::f64::consts::PI / f64::from(f);
                    let blend =
                        ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0) as f32;
                    (1.0 - blend) * f / factor as f32 + blend * f
                })
                .collect(),
        }
    }

    /// From `rope_parameters` (transformers 5) or `rope_scaling` with `theta_key` (transformers 4).
    pub fn read(config: &ConfigJson, dim: usize, theta_key: &str) -> Result<Self> {
        let scaling = ["rope_parameters", "rope_scaling"]
            .into_iter()
            .find(|key| config.value.get(key).is_some_and(|v| !v.is_null()));
        let section = match scaling {
            Some(key) => config.section(key)?,
            None => config.empty(),
        };
        let theta = match section.f64_or("rope_theta", f64::NAN)? {
            theta if theta.is_nan() => config.f64_or(theta_key, 10_000.0)?,
            theta => theta,
        };
        if theta <= 0.0 {
            return Err(config
                .error(format!("the base of the rotary embedding is {theta}"))
                .hint("rope_theta must be above 0"));
        }
        let kind = section.str_or("rope_type", section.str_or("type", "default")?)?;
        let scaling = match kind {
            "default" => Scaling::None,
            "linear" => Scaling::Linear(section.positive("factor")?),
            "llama3" => Scaling::Llama3 {
                factor: section.positive("factor")?,
                low: section.positive("low_freq_factor")?,
                high: section.positive("high_freq_factor")?,
                original: section.positive("original_max_position_embeddings")?,
            },
            other => {
                return Err(config.refuse(
                    "rope_type",
                    other,
                    "expo implements default, linear and llama3; another scaling would change the model",
                ));
            }
        };
        if dim == 0 || dim % 2 == 1 {
            return Err(config
                .error(format!("the rotated part of a head is {dim} wide"))
                .hint("it must be even and positive"));
        }
        Ok(Self {
            dim,
            theta,
            scaling,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_and_divides_low_frequencies() {
        let scaling = Scaling::Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original: 8192.0,
        };
        let plain = Rotary {
            dim: 128,
            theta: 500_000.0,
            scaling: Scaling::None,
        };
        let scaled = Rotary {
            scaling,
            ..plain.clone()
        }
        .inverse_frequencies();
        let plain = plain.inverse_frequencies();
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[63], plain[63] / 8.0);
        assert!(
            scaled
                .iter()
                .zip(&plain)
                .all(|(s, p)| s <= p && *s >= p / 8.0)
        );
    }
}
