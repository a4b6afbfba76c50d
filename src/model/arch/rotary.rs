//! Rotary position embedding (Su et al. 2021) and its scaling for longer contexts.

mod read;
#[cfg(test)]
mod tests;

use std::f64::consts::PI;

pub use self::read::{Keys, LayerKeys};

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
    /// `yarn` (Peng et al. 2023): frequencies that turn often within the original length are kept, those
    /// that turn seldom divided by the factor, between them a blend by their index.
    Yarn {
        /// Division of low frequencies.
        factor: f64,
        /// Frequencies of more turns than this within the original length are kept.
        beta_fast: f64,
        /// Frequencies of fewer turns than this are divided.
        beta_slow: f64,
        /// Whether the blend begins and ends at whole indices.
        truncate: bool,
        /// The context length before scaling.
        original: f64,
        /// Factor of cosines and sines.
        attention_factor: f64,
    },
    /// `longrope` (Ding et al. 2024): every frequency divided by a factor of its own, from one list in
    /// sequences up to the original length, from the other in longer ones.
    Longrope {
        /// `dim / 2` factors for sequences up to the original length.
        short: Vec<f64>,
        /// `dim / 2` factors for longer sequences.
        long: Vec<f64>,
        /// The context length before scaling.
        original: f64,
        /// Factor of cosines and sines.
        attention_factor: f64,
    },
    /// `dynamic`: in sequences over the original length a base that grows with the sequence (the "NTK-aware"
    /// scaling of Peng et al. 2023).
    Dynamic {
        /// By how much the base grows.
        factor: f64,
        /// The context length before scaling, `max_position_embeddings`.
        original: usize,
    },
}

impl Rotary {
    /// The `dim / 2` inverse frequencies in a sequence of `length` tokens. In f32 like transformers', on
    /// whose values models were trained.
    pub fn inverse_frequencies(&self, length: usize) -> Vec<f32> {
        let (dim, theta) = (self.dim, self.theta as f32);
        let powers = |base: f32| (0..dim / 2).map(move |i| base.powf((2 * i) as f32 / dim as f32));
        let plain = powers(theta).map(|power| 1.0 / power);
        match &self.scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear(factor) => plain.map(|f| f / *factor as f32).collect(),
            &Scaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => plain
                .map(|f| {
                    let wavelength = 2.0 * PI / f64::from(f);
                    let blend =
                        ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0) as f32;
                    (1.0 - blend) * f / factor as f32 + blend * f
                })
                .collect(),
            Scaling::Yarn { factor, .. } => {
                let (first, last) = self.blend();
                let span = (last - first) as f32;
                let blended = powers(theta).enumerate().map(|(i, power)| {
                    let kept = 1.0 - ((i as f32 - first as f32) / span).clamp(0.0, 1.0);
                    1.0 / (*factor as f32 * power) * (1.0 - kept) + 1.0 / power * kept
                });
                blended.collect()
            }
            Scaling::Longrope { short, long, .. } => {
                let factors = match self.length_class(length) {
                    0 => short,
                    _ => long,
                };
                let factors = factors.iter().map(|&factor| factor as f32);
                let scaled = factors
                    .zip(powers(theta))
                    .map(|(f, power)| 1.0 / (f * power));
                scaled.collect()
            }
            &Scaling::Dynamic { factor, original } => {
                let exponent = dim as f64 / (dim as f64 - 2.0);
                let base = match self.length_class(length) {
                    0 => {
                        let original = original as f64;
                        let grown = factor * original / original - (factor - 1.0);
                        (self.theta * grown.powf(exponent)) as f32
                    }
                    // transformers knows the length as a tensor, and so computes in f32.
                    length => {
                        let grown = factor as f32 * length as f32 / original as f32;
                        theta * (grown - (factor - 1.0) as f32).powf(exponent as f32)
                    }
                };
                powers(base).map(|power| 1.0 / power).collect()
            }
        }
    }

    /// The factor of cosines and sines.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn {
                attention_factor, ..
            }
            | Scaling::Longrope {
                attention_factor, ..
            } => attention_factor,
            Scaling::None
            | Scaling::Linear(_)
            | Scaling::Llama3 { .. }
            | Scaling::Dynamic { .. } => 1.0,
        }
    }

    /// The least length whose frequencies are those of `length`; 0 where they are those of the shortest
    /// sequences, and so everywhere if the frequencies do not depend on the length.
    pub fn length_class(&self, length: usize) -> usize {
        match self.scaling {
            Scaling::Longrope { original, .. } if length as f64 > original => original as usize + 1,
            Scaling::Dynamic { original, .. } if length > original => length,
            _ => 0,
        }
    }

    /// The length from which on the frequencies change with every token; `None` where they never do.
    pub fn changes_after(&self) -> Option<usize> {
        match self.scaling {
            Scaling::Dynamic { original, .. } => Some(original),
            _ => None,
        }
    }

    /// The longest sequence that a model of `max_position_embeddings` is made for: some scalings leave that
    /// number at the length before scaling.
    pub fn longest(&self, max_position_embeddings: usize) -> usize {
        let scaled = match self.scaling {
            Scaling::Yarn {
                factor, original, ..
            } => factor * original,
            Scaling::Dynamic { factor, original } => factor * original as f64,
            _ => 0.0,
        };
        max_position_embeddings.max(scaled as usize)
    }

    /// Yarn's blend: the first and the last index, not rounded where it is not truncated.
    fn blend(&self) -> (f64, f64) {
        let Scaling::Yarn {
            beta_fast,
            beta_slow,
            truncate,
            original,
            ..
        } = self.scaling
        else {
            return (0.0, 0.0);
        };
        let dim = self.dim as f64;
        // Where a frequency turns so many times within the original length.
        let index =
            |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
        let (first, last) = (index(beta_fast), index(beta_slow));
        let (first, last) = match truncate {
            true => (first.floor(), last.ceil()),
            false => (first, last),
        };
        let (first, last) = (first.max(0.0), last.min(dim - 1.0));
        match first == last {
            true => (first, last + 0.001),
            false => (first, last),
        }
    }
}
