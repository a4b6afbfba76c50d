//! `[adapter]`, in the words of PEFT's `LoraConfig`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::pattern::{Matcher, Patterns, Table, Targets};
use crate::error::{Error, Result};

/// `[adapter]`: what is trained in the place of the weights.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdapterConfig {
    /// Rank of the low-rank products; 8 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r: Option<usize>,
    /// Numerator of their scale alpha / r; `r` by default, a scale of 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// The layers that have one: `"all-linear"` (all but the head, the default), `"attention"`, `"mlp"`,
    /// a regex over whole names, or a list of names, each whole or from a dot on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<Targets>,
    /// Layers that have none, as a regex or a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<Targets>,
    /// Ranks by pattern of names; the first that matches decides.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub rank_pattern: Patterns<usize>,
    /// Alphas by pattern of names; the first that matches decides.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub alpha_pattern: Patterns<f64>,
    /// The transformer layers that have any, by number from 0; all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers_to_transform: Option<Layers>,
    /// The share of a product's inputs that is set to zero in training; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Scale by alpha / sqrt(r) (rsLoRA).
    pub use_rslora: bool,
    /// Learn the magnitudes of a weight's rows apart from their directions (DoRA).
    pub use_dora: bool,
    /// How A starts; B starts at zero.
    pub init: Init,
    /// Modules that are trained whole beside the adapter, by the end of their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
    /// A PEFT directory to go on from; its config decides, and what is given here must agree with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What the reference is: the `"base"` model, or the adapter as it `"start"`s; with `from` the
    /// latter by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<AdapterReference>,
}

/// Numbers of transformer layers, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "the number of a layer, or a list of them")]
pub enum Layers {
    /// One.
    One(usize),
    /// Several.
    List(Vec<usize>),
}

/// How the A of a low-rank product starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Uniform in ±1/sqrt(inputs).
    #[default]
    Default,
    /// Normal with standard deviation 1/r.
    Gaussian,
}

/// What the policy is held against in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterReference {
    /// The model without the adapter.
    Base,
    /// The model with the adapter as it was loaded.
    Start,
}

/// The default of `target_modules`.
pub(super) const ALL_LINEAR: &str = "all-linear";

impl AdapterConfig {
    /// The keys that may change when a run resumes: a content hash stands for them.
    pub const FREE: &[&str] = &["from"];

    /// Checks ranges and combinations.
    ///
    /// # Errors
    /// Names the key, without the section.
    pub fn validate(&self) -> Result<()> {
        const RANKS: std::ops::RangeInclusive<usize> = 1..=1 << 16;
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let ranks = self
            .rank_pattern
            .0
            .iter()
            .map(|(_, r)| ("rank_pattern", *r));
        for (key, r) in self.r.map(|r| ("r", r)).into_iter().chain(ranks) {
            if !RANKS.contains(&r) {
                return Err(Error::must_be(key, "in [1, 65536]", r));
            }
        }
        let alphas = self.alpha_pattern.0.iter();
        let alphas = alphas.map(|(_, alpha)| ("alpha_pattern", *alpha));
        for (key, alpha) in self.alpha.map(|a| ("alpha", a)).into_iter().chain(alphas) {
            if !positive(alpha) {
                return Err(Error::must_be(key, "> 0", alpha));
            }
        }
        if let Some(dropout) = self.dropout.filter(|x| !(0.0..1.0).contains(x)) {
            return Err(Error::must_be("dropout", "in [0, 1)", dropout));
        }
        let lists = [
            ("target_modules", &self.target_modules),
            ("exclude_modules", &self.exclude_modules),
        ];
        for (key, targets) in lists {
            if let Some(targets) = targets {
                Matcher::new(targets).map_err(|error| error.at_key(key))?;
            }
        }
        Table::new(&self.rank_pattern).map_err(|error| error.at_key("rank_pattern"))?;
        Table::new(&self.alpha_pattern).map_err(|error| error.at_key("alpha_pattern"))?;
        if self.layers_to_transform == Some(Layers::List(Vec::new())) {
            return Err(Error::input("layers_to_transform is empty")
                .hint("leave it out for all layers")
                .at_key("layers_to_transform"));
        }
        if self.modules_to_save.iter().any(String::is_empty) {
            return Err(Error::input("modules_to_save has an empty name")
                .hint("names are, for example, \"lm_head\", \"embed_tokens\" or \"norm\"")
                .at_key("modules_to_save"));
        }
        match &self.from {
            Some(_) if self.init != Init::default() => Err(Error::input(
                "init is for a new adapter, and that of `from` has its values",
            )
            .hint("leave init out")
            .at_keys(&["init", "from"])),
            None if self.reference == Some(AdapterReference::Start) => Err(Error::input(
                "reference = \"start\" needs `from`: a new adapter starts as the base model",
            )
            .hint("leave reference out, or name the adapter to go on from")
            .at_key("reference")),
            _ => Ok(()),
        }
    }

    /// With its defaults written out. Of an adapter that goes on the directory decides.
    #[must_use]
    pub fn completed(self) -> Self {
        let reference = Some(self.reference());
        if self.from.is_some() {
            return Self { reference, ..self };
        }
        Self {
            r: Some(self.rank()),
            alpha: Some(self.alpha()),
            target_modules: self
                .target_modules
                .or(Some(Targets::One(ALL_LINEAR.into()))),
            dropout: self.dropout.or(Some(0.0)),
            reference,
            ..self
        }
    }

    /// What the reference is.
    pub fn reference(&self) -> AdapterReference {
        self.reference.unwrap_or(match self.from {
            Some(_) => AdapterReference::Start,
            None => AdapterReference::Base,
        })
    }

    /// This section completed by the config of the directory that [`Self::from`] names.
    ///
    /// # Errors
    /// If a key that is given here says otherwise.
    pub fn continuing(&self, folder: &Self) -> Result<Self> {
        fn agree<T: PartialEq + fmt::Debug>(key: &str, here: Option<&T>, there: &T) -> Result<()> {
            match here {
                Some(here) if here != there => {
                    let fact = format!("{key} is {here:?}, and {there:?} in the adapter of `from`");
                    Err(Error::input(fact)
                        .hint("leave it out: the adapter decides")
                        .at_key(key))
                }
                _ => Ok(()),
            }
        }
        let set = |on: bool| on.then_some(on);
        agree("r", self.r.as_ref(), &folder.rank())?;
        agree("alpha", self.alpha.as_ref(), &folder.alpha())?;
        agree(
            "use_rslora",
            set(self.use_rslora).as_ref(),
            &folder.use_rslora,
        )?;
        agree("use_dora", set(self.use_dora).as_ref(), &folder.use_dora)?;
        let given = [
            ("target_modules", self.target_modules.is_some()),
            ("exclude_modules", self.exclude_modules.is_some()),
            ("rank_pattern", !self.rank_pattern.is_empty()),
            ("alpha_pattern", !self.alpha_pattern.is_empty()),
            ("layers_to_transform", self.layers_to_transform.is_some()),
            ("modules_to_save", !self.modules_to_save.is_empty()),
        ];
        if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
            let fact = format!("{key} is for a new adapter, and that of `from` has its layers");
            return Err(Error::input(fact).hint("leave it out").at_key(key));
        }
        Ok(Self {
            dropout: self.dropout.or(folder.dropout),
            from: self.from.clone(),
            reference: self.reference,
            ..folder.clone()
        })
    }

    /// The rank where no pattern matches.
    pub fn rank(&self) -> usize {
        self.r.unwrap_or(8)
    }

    /// Alpha where no pattern matches.
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(self.rank() as f64)
    }

    /// The factor of a product of this alpha and rank.
    pub(super) fn scale(&self, alpha: f64, rank: usize) -> f64 {
        match self.use_rslora {
            true => alpha / (rank as f64).sqrt(),
            false => alpha / rank as f64,
        }
    }
}
