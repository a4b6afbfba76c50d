//! A decoder's shape as data, and the reading of `config.json` that all families share.
//!
//! *Why*: one decoder serves every family; what differs between them is numbers and names.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::io::untrusted;

/// Everything the decoder must know of a model, with Hugging Face's parameter names.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// Rows of the embedding; at least the tokenizer's number of ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; `heads` is a multiple of it.
    pub kv_heads: usize,
    /// Width of a head; heads * head_dim need not equal the hidden size.
    pub head_dim: usize,
    /// The longest sequence the model was made for.
    pub max_positions: usize,
    /// Added to the variance in every norm.
    pub norm_epsilon: f64,
    /// Layer norm with a bias, or RMS norm without.
    pub norm_bias: bool,
    /// Whether attention and feed-forward read the same residual stream (GPT-NeoX) or one after
    /// the other.
    pub parallel_residual: bool,
    /// The rotary embedding.
    pub rotary: Rotary,
    /// Query, key and value as one projection, laid out per head, or as three.
    pub fused_qkv: bool,
    /// Bias on query, key and value; on the attention's output.
    pub attention_bias: (bool, bool),
    /// Each layer's sliding window: how many tokens a token sees, itself included; `None` is all.
    pub windows: Vec<Option<usize>>,
    /// SwiGLU with a gate, or GELU without.
    pub gated: bool,
    /// Bias on the feed-forward projections.
    pub mlp_bias: bool,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Standard deviation of a fresh matrix.
    pub initializer_range: f64,
    /// A row of the embedding that starts as zeros: the family's padding token.
    pub zero_row: Option<usize>,
    /// The checkpoint's names.
    pub names: Names,
}

/// Parameter names without `.weight` and `.bias`; those of a block come after `{block}{layer}.`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Names {
    pub embed: &'static str,
    pub block: &'static str,
    pub norm1: &'static str,
    /// One name where fused, else query, key, value.
    pub qkv: &'static [&'static str],
    /// The norms over each head of query and key, where there are any.
    pub qk_norm: Option<[&'static str; 2]>,
    pub attention_out: &'static str,
    pub norm2: &'static str,
    /// Gate and up where gated, else up alone.
    pub mlp_in: &'static [&'static str],
    pub mlp_out: &'static str,
    pub final_norm: &'static str,
    pub head: &'static str,
}

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

/// What a number of `config.json` may be, so that the elements of all tensors are counted in 64 bits,
/// and a list with an entry per layer is a short one.
const LARGEST: [(&str, usize); 7] = [
    ("num_hidden_layers", 10_000),
    ("vocab_size", 1 << 24),
    ("hidden_size", 1 << 20),
    ("intermediate_size", 1 << 22),
    ("num_attention_heads", 1 << 12),
    ("num_key_value_heads", 1 << 12),
    ("head_dim", 1 << 12),
];

/// A `config.json` that says which key is wrong.
#[derive(Debug)]
pub struct ConfigJson {
    /// The whole object.
    pub value: Value,
    place: String,
}

impl ConfigJson {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self> {
        let value = untrusted::json_object(path, untrusted::CONFIG)?;
        Ok(Self {
            value,
            place: path.display().to_string(),
        })
    }

    /// The object under a key.
    pub fn section(&self, key: &str) -> Result<Self> {
        let value = self.value[key].clone();
        if !value.is_object() {
            return Err(self.wrong(key, "an object"));
        }
        Ok(Self {
            value,
            place: format!("{}: {key}", self.place),
        })
    }

    fn empty(&self) -> Self {
        Self {
            value: Value::Null,
            place: self.place.clone(),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let what = match self.get(key) {
            Some(value) => format!("`{key}` is {value}"),
            None => format!("`{key}` is missing"),
        };
        self.error(what).hint(format!("expected {expected}"))
    }

    /// An error in this file.
    pub fn error(&self, what: String) -> Error {
        Error::input(what).at(&self.place)
    }

    /// A value that is understood but not implemented.
    pub fn refuse(&self, key: &str, value: &str, why: &str) -> Error {
        self.error(format!("`{key}` = \"{value}\" is not supported"))
            .hint(why)
    }

    /// Checks that `key` is not there, or null or false.
    pub fn without(&self, key: &str, why: &str) -> Result<()> {
        match self.get(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(_) => Err(self.error(format!("`{key}` is not supported")).hint(why)),
        }
    }

    fn integer(&self, key: &str) -> Option<usize> {
        let value = self.get(key)?.as_u64().filter(|n| *n < 1 << 32)?;
        Some(value as usize)
    }

    /// A positive integer, of the size of a real model's.
    pub fn usize(&self, key: &str) -> Result<usize> {
        let known = LARGEST.iter().find(|(name, _)| *name == key);
        let most = known.map_or(usize::MAX, |(_, most)| *most);
        let found = self.integer(key).filter(|n| *n > 0);
        let valid = || match found {
            Some(_) => format!("a positive integer up to {most}"),
            None => "a positive integer".to_owned(),
        };
        found
            .filter(|n| *n <= most)
            .ok_or_else(|| self.wrong(key, &valid()))
    }

    /// A finite number above 0.
    pub fn positive(&self, key: &str) -> Result<f64> {
        match self.f64(key)? {
            x if x > 0.0 => Ok(x),
            _ => Err(self.wrong(key, "a number above 0")),
        }
    }

    /// As [`positive`](Self::positive), or `default` where the key is not there.
    pub fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |_| self.positive(key))
    }

    /// 0 or a positive integer, or `default` where the key is not there.
    pub fn count_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |_| {
            self.integer(key)
                .ok_or_else(|| self.wrong(key, "0 or a positive integer"))
        })
    }

    /// A positive integer, `None` where the key is null, or `default` where it is not there.
    pub fn usize_or_null(&self, key: &str, default: Option<usize>) -> Result<Option<usize>> {
        match self.value.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.usize(key).map(Some),
        }
    }

    /// A positive integer, or `default` where the key is not there.
    pub fn usize_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |_| self.usize(key))
    }

    /// A finite number.
    pub fn f64(&self, key: &str) -> Result<f64> {
        self.get(key)
            .and_then(Value::as_f64)
            .filter(|x| x.is_finite())
            .ok_or_else(|| self.wrong(key, "a number"))
    }

    /// A finite number, or `default` where the key is not there.
    pub fn f64_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |_| self.f64(key))
    }

    /// A boolean, or `default` where the key is not there.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |value| {
            value
                .as_bool()
                .ok_or_else(|| self.wrong(key, "true or false"))
        })
    }

    /// A string, or `default` where the key is not there.
    pub fn str_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        self.get(key).map_or(Ok(default), |value| {
            value.as_str().ok_or_else(|| self.wrong(key, "a string"))
        })
    }

    /// A list with one string per layer, where the key is there.
    pub fn per_layer(&self, key: &str, layers: usize) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let list: Option<Vec<_>> = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect());
        match list {
            Some(list) if list.len() == layers => Ok(Some(list)),
            _ => Err(self.wrong(key, &format!("a list of {layers} strings, one per layer"))),
        }
    }

    /// Checks that `key`, where it is there, has the one value the family implements.
    pub fn require(&self, key: &str, only: &str) -> Result<()> {
        match self.str_or(key, only)? {
            value if value == only => Ok(()),
            value => Err(self.refuse(key, value, &format!("expo implements \"{only}\""))),
        }
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
