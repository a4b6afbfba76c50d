//! Rotary position embedding (Su et al. 2021) and its scaling for longer contexts.

use serde_json::Value;

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

/// Where a family has what is not in the section of its rotary embedding.
pub struct Keys {
    /// The key of the base.
    pub theta: &'static str,
    /// The key of the rotated share of a head, and its default; `None` where heads are rotated whole.
    pub fraction: Option<(&'static str, f64)>,
    /// The default of `max_position_embeddings`.
    pub max_positions: f64,
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

    /// As transformers reads it: a `rope_scaling` that says anything takes the place of the whole
    /// `rope_parameters`. What the section lacks is at the top.
    pub fn read(config: &ConfigJson, head_dim: usize, keys: &Keys) -> Result<Self> {
        let says = |value: &Value| match value {
            Value::Null => false,
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        let section = ["rope_scaling", "rope_parameters"]
            .into_iter()
            .find(|key| config.value.get(key).is_some_and(says));
        let section = match section {
            Some(key) => config.section(key)?,
            None => config.empty(),
        };
        let parts = section.value.as_object();
        if let Some((key, _)) =
            parts.and_then(|map| map.iter().find(|(_, value)| value.is_object()))
        {
            return Err(section.unsupported(key, "expo rotates all layers alike"));
        }
        section.not_null("rope_type")?;
        section.not_null("rope_theta")?;
        let theta = match section.f64_or("rope_theta", f64::NAN)? {
            theta if theta.is_nan() => {
                config.not_null(keys.theta)?;
                config.f64_or(keys.theta, 10_000.0)?
            }
            theta => theta,
        };
        if theta <= 0.0 {
            return Err(config
                .error(format!("the base of the rotary embedding is {theta}"))
                .hint("rope_theta must be above 0"));
        }
        let dim = (head_dim as f64 * fraction(config, &section, keys)?) as usize;
        let kind = section.str_or("rope_type", section.str_or("type", "default")?)?;
        let scaling = match kind {
            "default" => Scaling::None,
            "linear" => Scaling::Linear(section.positive("factor")?),
            "llama3" => llama3(config, &section, keys)?,
            other => {
                return Err(section.refuse(
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

/// The rotated share of a head.
fn fraction(config: &ConfigJson, section: &ConfigJson, keys: &Keys) -> Result<f64> {
    const KEY: &str = "partial_rotary_factor";
    let fraction = match keys.fraction {
        None => 1.0,
        Some((key, default)) => {
            section.not_null(KEY)?;
            config.not_null(key)?;
            let fraction = section.f64_or(KEY, config.f64_or(key, default)?)?;
            if !(fraction > 0.0 && fraction <= 1.0) {
                return Err(config.error(format!(
                    "the rotated part of a head, {key} or {KEY}, is {fraction}: it lies in (0, 1]"
                )));
            }
            fraction
        }
    };
    for place in [section, config] {
        if place.f64_or(KEY, fraction)? != fraction {
            return Err(place.unsupported(
                KEY,
                &format!("this family rotates {fraction} of each head in transformers, whatever this key says"),
            ));
        }
    }
    Ok(fraction)
}

fn llama3(config: &ConfigJson, section: &ConfigJson, keys: &Keys) -> Result<Scaling> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    section.not_null(ORIGINAL)?;
    config.not_null(ORIGINAL)?;
    let (low, high) = ("low_freq_factor", "high_freq_factor");
    let (low, high) = (section.positive(low)?, section.positive(high)?);
    if low >= high {
        return Err(section
            .error(format!("low_freq_factor is {low}, high_freq_factor {high}"))
            .hint("high_freq_factor must be the larger one"));
    }
    // In transformers the one at the top wins.
    let original = match (config.value.get(ORIGINAL), section.value.get(ORIGINAL)) {
        (Some(_), _) => config.positive(ORIGINAL)?,
        (None, Some(_)) => section.positive(ORIGINAL)?,
        (None, None) => config.positive_or("max_position_embeddings", keys.max_positions)?,
    };
    Ok(Scaling::Llama3 {
        factor: section.positive("factor")?,
        low,
        high,
        original,
    })
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
