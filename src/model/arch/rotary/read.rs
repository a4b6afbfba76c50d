//! Reading the rotary embedding of a `config.json`.
//!
//! *Why*: transformers looks for its numbers in several places, and computes with some configs of which
//! it only warns. Each number is found where transformers finds it, or the config is refused.

use serde_json::{Map, Value};

use super::{Rotary, Scaling};
use crate::error::Result;
use crate::model::arch::ConfigJson;

const ORIGINAL: &str = "original_max_position_embeddings";
const TYPES: &str = "expo implements default, linear, llama3, yarn, longrope and dynamic; another scaling would change the model";

/// What a family has of its own, or takes where `config.json` says nothing.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The key of the base, where the section has none.
    pub theta: &'static str,
    /// The default of the base.
    pub default_theta: f64,
    /// The key of the rotated share of a head, and its default; `None` where heads are rotated whole.
    pub fraction: Option<(&'static str, f64)>,
    /// The default of `max_position_embeddings`.
    pub max_positions: f64,
    /// The class of transformers has an `original_max_position_embeddings` of its own, with this default:
    /// what a section says of it is overruled. Such a class (Phi-3) has no scaling but `longrope`, and
    /// takes `su` and `yarn` for older names of it.
    pub original: Option<f64>,
}

impl Default for Keys {
    /// Those of Llama.
    fn default() -> Self {
        Self {
            theta: "rope_theta",
            default_theta: 10_000.0,
            fraction: None,
            max_positions: 2048.0,
            original: None,
        }
    }
}

/// As [`Keys`], of a family with `rope_parameters` by layer type (Gemma 3, OLMo 3).
#[derive(Debug, Clone, Copy)]
pub struct LayerKeys {
    /// The default of the base of full attention, `rope_theta`.
    pub full_theta: f64,
    /// The key of the base of sliding attention, where there is one.
    pub sliding_key: Option<&'static str>,
    /// The default of the base of sliding attention.
    pub sliding_theta: f64,
    /// The default of `max_position_embeddings`.
    pub max_positions: f64,
}

/// Where a section is.
struct Place<'a> {
    config: &'a ConfigJson,
    section: &'a ConfigJson,
    keys: &'a Keys,
    /// Whether it is of one layer type.
    of_type: bool,
}

impl Rotary {
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
            return Err(section.unsupported(key, "this family rotates all layers alike"));
        }
        Place {
            config,
            section: &section,
            keys,
            of_type: false,
        }
        .rotary(head_dim)
    }

    /// Those of full and of sliding attention. As in transformers, `rope_parameters` has an object for each
    /// layer type, and a `rope_scaling` is laid over that of full attention.
    pub fn read_by_layer_type(
        config: &ConfigJson,
        head_dim: usize,
        keys: LayerKeys,
    ) -> Result<[Self; 2]> {
        const TYPES: [&str; 2] = ["full_attention", "sliding_attention"];
        let by_type = match config.value.get("rope_parameters") {
            None | Some(Value::Null) => None,
            Some(_) => Some(config.section("rope_parameters")?),
        };
        let others = by_type.iter().filter_map(|it| it.value.as_object());
        let mut others = others.flat_map(Map::keys);
        if let (Some(it), Some(key)) = (&by_type, others.find(|key| !TYPES.contains(&&***key))) {
            let why =
                "in this family it has an object for full_attention and one for sliding_attention";
            return Err(it.unsupported(key, why));
        }
        let of_type = |name: &str| match &by_type {
            Some(it) if it.value.get(name).is_some_and(|value| !value.is_null()) => {
                it.section(name)
            }
            _ => Ok(config.empty()),
        };
        let (mut full, sliding) = (of_type(TYPES[0])?, of_type(TYPES[1])?);
        if config
            .value
            .get("rope_scaling")
            .is_some_and(|value| !value.is_null())
        {
            let scaling = config.section("rope_scaling")?;
            if by_type.is_some() && !full.value.is_object() {
                let why = "rope_parameters has no full_attention that it could be laid over";
                return Err(config.unsupported("rope_scaling", why));
            }
            // There the section says default before the other is laid over it, so an older `type` is passed over.
            let known = full
                .value
                .get("rope_type")
                .or(scaling.value.get("rope_type"));
            let kind = scaling.value.get("type");
            if kind.is_some_and(|kind| known.map_or(kind != "default", |known| known != kind)) {
                return Err(scaling.unsupported("type", "in this family the key is rope_type"));
            }
            full = scaling.over(&full);
        }
        let keys_of = |theta, default_theta| Keys {
            theta,
            default_theta,
            max_positions: keys.max_positions,
            ..Keys::default()
        };
        let rotary = |section: &ConfigJson, keys: &Keys| {
            Place {
                config,
                section,
                keys,
                of_type: true,
            }
            .rotary(head_dim)
        };
        let of_full = keys_of("rope_theta", keys.full_theta);
        let of_sliding = keys_of(keys.sliding_key.unwrap_or("rope_theta"), keys.sliding_theta);
        // There the key at the top is taken by full attention, and sliding attention gets the default.
        let alone = keys.sliding_key.is_none() && sliding.value.get("rope_theta").is_none();
        if alone && config.f64_or("rope_theta", keys.sliding_theta)? != keys.sliding_theta {
            let why = "transformers takes it for full attention alone; give each layer type its own in rope_parameters";
            return Err(config.unsupported("rope_theta", why));
        }
        Ok([rotary(&full, &of_full)?, rotary(&sliding, &of_sliding)?])
    }
}

impl Place<'_> {
    fn rotary(&self, head_dim: usize) -> Result<Rotary> {
        let Place {
            config,
            section,
            keys,
            ..
        } = self;
        section.not_null("rope_type")?;
        section.not_null("rope_theta")?;
        let theta = match section.f64_or("rope_theta", f64::NAN)? {
            theta if theta.is_nan() => {
                config.not_null(keys.theta)?;
                config.f64_or(keys.theta, keys.default_theta)?
            }
            theta => theta,
        };
        if theta <= 0.0 {
            return Err(config
                .error(format!("the base of the rotary embedding is {theta}"))
                .hint("rope_theta must be above 0"));
        }
        let dim = (head_dim as f64 * self.fraction()?) as usize;
        let mut rotary = Rotary {
            dim,
            theta,
            scaling: Scaling::None,
        };
        if dim == 0 || dim % 2 == 1 {
            return Err(config
                .error(format!("the rotated part of a head is {dim} wide"))
                .hint("it must be even and positive"));
        }
        rotary.scaling = self.scaling(&rotary)?;
        let factor = rotary.attention_factor();
        if !(factor > 0.0 && factor.is_finite()) {
            return Err(section
                .error(format!("the factor of attention is {factor}"))
                .hint("attention_factor, or what it is made from, must give a number above 0"));
        }
        for length in [0, u32::MAX as usize] {
            let frequencies = rotary.inverse_frequencies(length);
            if frequencies.iter().any(|f| !f.is_finite()) {
                return Err(section
                    .error("the rotary embedding has frequencies that are not finite".into())
                    .hint("its numbers do not fit each other"));
            }
        }
        Ok(rotary)
    }

    fn scaling(&self, rotary: &Rotary) -> Result<Scaling> {
        let section = self.section;
        let kind = section.str_or("rope_type", section.str_or("type", "default")?)?;
        let refuse = |why: &str| Err(section.refuse("rope_type", kind, why));
        match (kind, self.keys.original) {
            ("default", _) => Ok(Scaling::None),
            ("longrope" | "yarn", Some(_)) => self.longrope(rotary.dim),
            ("su", Some(_)) => {
                // There it is asked for under this name before it is looked for elsewhere.
                section.positive(ORIGINAL)?;
                self.longrope(rotary.dim)
            }
            (_, Some(_)) => refuse("transformers implements default and longrope in this family"),
            ("linear", None) => Ok(Scaling::Linear(section.positive("factor")?)),
            ("llama3", None) => self.llama3(),
            ("yarn", None) => self.yarn(rotary.theta),
            ("longrope", None) => self.longrope(rotary.dim),
            ("dynamic", None) => self.dynamic(rotary.dim),
            _ => refuse(TYPES),
        }
    }

    /// The rotated share of a head.
    fn fraction(&self) -> Result<f64> {
        const KEY: &str = "partial_rotary_factor";
        let (section, config) = (self.section, self.config);
        let fraction = match self.keys.fraction {
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

    fn max_positions(&self) -> Result<f64> {
        let default = self.keys.max_positions;
        self.config.positive_or("max_position_embeddings", default)
    }

    /// The context length before scaling. In transformers the one at the top wins, but for the section of
    /// a layer type.
    fn original(&self) -> Result<f64> {
        let (section, config) = (self.section, self.config);
        section.not_null(ORIGINAL)?;
        if self.of_type {
            return section.positive_or(ORIGINAL, self.max_positions()?);
        }
        config.not_null(ORIGINAL)?;
        match (self.keys.original, config.value.get(ORIGINAL)) {
            (_, Some(_)) => config.positive(ORIGINAL),
            (Some(default), None) => Ok(default),
            (None, None) => section.positive_or(ORIGINAL, self.max_positions()?),
        }
    }

    /// The factor, where null stands for the ratio of the lengths.
    fn factor(&self, original: f64) -> Result<f64> {
        match self.section.value.get("factor") {
            Some(Value::Null) => Ok(self.max_positions()? / original),
            _ => self.section.positive("factor"),
        }
    }

    fn llama3(&self) -> Result<Scaling> {
        let section = self.section;
        let (low, high) = ("low_freq_factor", "high_freq_factor");
        let (low, high) = (section.positive(low)?, section.positive(high)?);
        if low >= high {
            return Err(section
                .error(format!("low_freq_factor is {low}, high_freq_factor {high}"))
                .hint("high_freq_factor must be the larger one"));
        }
        Ok(Scaling::Llama3 {
            factor: section.positive("factor")?,
            low,
            high,
            original: self.original()?,
        })
    }

    fn yarn(&self, theta: f64) -> Result<Scaling> {
        let section = self.section;
        if theta == 1.0 {
            return Err(section
                .error("the base of the rotary embedding is 1".into())
                .hint("yarn takes another one"));
        }
        let original = self.original()?;
        let factor = self.factor(original)?;
        let scale = |mscale: f64| match factor <= 1.0 {
            true => 1.0,
            false => 0.1 * mscale * factor.ln() + 1.0,
        };
        let mscales = ["mscale", "mscale_all_dim"].map(|key| section.f64_or(key, 0.0));
        let [mscale, all] = mscales;
        let (mscale, all) = (mscale?, all?);
        let inferred = match mscale != 0.0 && all != 0.0 {
            true => scale(mscale) / scale(all),
            false => scale(1.0),
        };
        // There null and 0 stand for the default.
        let beta = |key: &str, default: f64| match section.f64_or(key, default)? {
            0.0 => Ok(default),
            _ => section.positive_or(key, default),
        };
        section.not_null("truncate")?;
        let truncate = section.bool_or("truncate", true)?;
        if self.of_type && !truncate {
            return Err(
                section.unsupported("truncate", "transformers does not read it by layer type")
            );
        }
        Ok(Scaling::Yarn {
            factor,
            beta_fast: beta("beta_fast", 32.0)?,
            beta_slow: beta("beta_slow", 1.0)?,
            truncate,
            original,
            attention_factor: section.f64_or("attention_factor", inferred)?,
        })
    }

    fn longrope(&self, dim: usize) -> Result<Scaling> {
        let section = self.section;
        let original = self.original()?;
        let factor = match section.value.get("factor") {
            None => self.max_positions()? / original,
            Some(_) => self.factor(original)?,
        };
        let inferred = match factor <= 1.0 {
            true => 1.0,
            false => (1.0 + factor.ln() / original.ln()).sqrt(),
        };
        Ok(Scaling::Longrope {
            short: section.positive_list("short_factor", dim / 2)?,
            long: section.positive_list("long_factor", dim / 2)?,
            original,
            attention_factor: section.f64_or("attention_factor", inferred)?,
        })
    }

    fn dynamic(&self, dim: usize) -> Result<Scaling> {
        let (section, config) = (self.section, self.config);
        if dim == 2 {
            return Err(section
                .error("the rotated part of a head is 2 wide".into())
                .hint("dynamic takes more"));
        }
        let default = self.keys.max_positions as usize;
        Ok(Scaling::Dynamic {
            factor: section.positive("factor")?,
            original: config.usize_or("max_position_embeddings", default)?,
        })
    }
}
