//! Knobs: the keys of a loss's config section, each with its range, its default and what it does.
//!
//! Hides how one declaration becomes a config section, a range check and the lines of a page.
//!
//! *Why*: a knob is declared once, with `knobs!`. The config section, the range that is enforced and
//! the pages of `expo losses` come from that declaration, so they cannot disagree.

use std::fmt::{self, Debug, Display, Formatter};

use crate::error::{Error, Result};

/// A key of a loss's config section.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knob {
    /// Its key.
    pub name: &'static str,
    /// The values that it may have.
    pub range: Range,
    /// What it does, as a sentence.
    pub meaning: &'static str,
}

impl Knob {
    /// Refuses a value outside the range, NaN and infinities included. An unset knob is valid.
    pub fn check(&self, value: KnobValue) -> Result<()> {
        let inside = match (self.range, value) {
            (_, KnobValue::Unset) | (Range::Flag, KnobValue::Flag(_)) => true,
            (Range::Interval { low, high }, KnobValue::Number(_) | KnobValue::Count(_)) => {
                let x = match value {
                    KnobValue::Count(count) => count as f64,
                    KnobValue::Number(number) => number,
                    _ => f64::NAN,
                };
                low.is_below(x) && high.is_above(x) && x.is_finite()
            }
            (Range::Words(words), KnobValue::Word(word)) => words.contains(&word),
            _ => false,
        };
        match inside {
            true => Ok(()),
            false => {
                let error = Error::input(format!("{} = {}", self.name, value.plain()));
                Err(error.hint(format!("it lies in {}", self.range)))
            }
        }
    }
}

/// The values that a knob may have. Displayed as in mathematics, e.g. `[0, 0.5)`, or as words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// The finite numbers between two ends.
    Interval {
        /// The lower end.
        low: End,
        /// The upper end.
        high: End,
    },
    /// One of these words.
    Words(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
}

/// An end of an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct End {
    /// Where it is.
    pub at: f64,
    /// Whether the interval contains it.
    pub included: bool,
}

impl End {
    fn is_below(self, x: f64) -> bool {
        x > self.at || (x == self.at && self.included)
    }

    fn is_above(self, x: f64) -> bool {
        x < self.at || (x == self.at && self.included)
    }
}

impl Range {
    /// (0, inf).
    pub const POSITIVE: Self = Self::open(0.0, f64::INFINITY);
    /// [0, inf).
    pub const NON_NEGATIVE: Self = Self::closed_open(0.0, f64::INFINITY);

    /// (low, high).
    pub const fn open(low: f64, high: f64) -> Self {
        Self::interval(low, false, high, false)
    }

    /// [low, high].
    pub const fn closed(low: f64, high: f64) -> Self {
        Self::interval(low, true, high, true)
    }

    /// [low, high).
    pub const fn closed_open(low: f64, high: f64) -> Self {
        Self::interval(low, true, high, false)
    }

    /// (low, high].
    pub const fn open_closed(low: f64, high: f64) -> Self {
        Self::interval(low, false, high, true)
    }

    const fn interval(low: f64, with_low: bool, high: f64, with_high: bool) -> Self {
        Self::Interval {
            low: End {
                at: low,
                included: with_low,
            },
            high: End {
                at: high,
                included: with_high,
            },
        }
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Interval { low, high } => {
                let open = if low.included { '[' } else { '(' };
                let close = if high.included { ']' } else { ')' };
                write!(f, "{open}{}, {}{close}", low.at, high.at)
            }
            // Two are a mere list.
            Self::Words([words @ .., last]) if words.len() > 1 => {
                write!(f, "{} or {last}", words.join(", "))
            }
            Self::Words(words) => f.write_str(&words.join(", ")),
            Self::Flag => f.write_str("true or false"),
        }
    }
}

/// The value of a knob. Displayed as in TOML.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KnobValue {
    /// A number.
    Number(f64),
    /// A whole number.
    Count(usize),
    /// `true` or `false`.
    Flag(bool),
    /// One of the knob's words.
    Word(&'static str),
    /// No value: the knob has no default and was not set.
    Unset,
}

impl KnobValue {
    /// As a TOML value; `None` if it is unset.
    pub fn to_toml(self) -> Option<toml::Value> {
        Some(match self {
            Self::Number(number) => number.into(),
            // A count was read from TOML, whose whole numbers are i64.
            Self::Count(count) => i64::try_from(count).unwrap_or(i64::MAX).into(),
            Self::Flag(flag) => flag.into(),
            Self::Word(word) => word.into(),
            Self::Unset => return None,
        })
    }

    /// Without the quotes and the `.0` of TOML, for messages.
    fn plain(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Word(word) => word.to_owned(),
            other => other.to_string(),
        }
    }
}

impl Display for KnobValue {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self.to_toml() {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("not set"),
        }
    }
}

impl From<f64> for KnobValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for KnobValue {
    fn from(count: usize) -> Self {
        Self::Count(count)
    }
}

impl From<bool> for KnobValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl<T: Into<Self>> From<Option<T>> for KnobValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Unset, Into::into)
    }
}

/// A type of knobs, with the range of a knob that declares none.
pub(super) trait KnobType: Into<KnobValue> {
    /// The values of the type.
    const RANGE: Range;
}

impl KnobType for bool {
    const RANGE: Range = Range::Flag;
}

/// What a loss can be asked about its knobs.
pub trait Knobs: Debug + Send + Sync {
    /// The knobs, in the order of the config section, without the `weight` that every loss has.
    fn knobs(&self) -> &'static [Knob];

    /// The value of each knob, in the same order.
    fn values(&self) -> Vec<KnobValue>;
}

/// The weight that multiplies a loss in a sum.
pub(super) const WEIGHT: Knob = Knob {
    name: "weight",
    range: Range::POSITIVE,
    meaning: "What value and gradient are multiplied with.",
};

/// Declares the knobs of a loss: the struct that is its config section, with the defaults, and what
/// its page says of each. A knob of numbers names its range; words and flags are their own range.
/// Every loss has a `weight` beside them.
macro_rules! knobs {
    (@range $type:ty, $range:expr) => { $range };
    (@range $type:ty,) => { <$type as $crate::loss::knobs::KnobType>::RANGE };
    ($(#[$doc:meta])* $loss:ident {
        $($(#[doc = $meaning:literal])+ $knob:ident: $type:ty = $default:expr $(, in $range:expr)?;)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $loss {
            $($(#[doc = $meaning])+ $(#[doc = concat!(" Range: `", stringify!($range), "`.")])?
            pub $knob: $type,)*
            /// What a sum of losses multiplies it with. Range: `Range::POSITIVE`.
            pub weight: f64,
        }

        impl Default for $loss {
            fn default() -> Self {
                Self { $($knob: $default,)* weight: 1.0 }
            }
        }

        impl $crate::loss::Knobs for $loss {
            fn knobs(&self) -> &'static [$crate::loss::Knob] {
                const {
                    &[$($crate::loss::Knob {
                        name: stringify!($knob),
                        range: $crate::loss::knobs::knobs!(@range $type, $($range)?),
                        meaning: concat!($($meaning),+).trim_ascii_start(),
                    },)*]
                }
            }

            fn values(&self) -> Vec<$crate::loss::KnobValue> {
                vec![$(self.$knob.into()),*]
            }
        }
    };
}
pub(super) use knobs;

/// Declares an enum whose variants are the words that a knob may have.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$meaning:meta])+ $word:literal => $variant:ident,)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
        pub enum $name {
            $($(#[$meaning])+ #[serde(rename = $word)] $variant,)+
        }

        impl From<$name> for $crate::loss::KnobValue {
            fn from(word: $name) -> Self {
                Self::Word(match word {
                    $($name::$variant => $word,)+
                })
            }
        }

        impl $crate::loss::knobs::KnobType for $name {
            const RANGE: $crate::loss::Range = $crate::loss::Range::Words(&[$($word),+]);
        }
    };
}
pub(super) use words;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::Loss;

    #[test]
    fn intervals_contain_what_their_text_says() {
        let half = Range::closed_open(0.0, 0.5);
        for (range, text, inside, outside) in [
            (
                Range::POSITIVE,
                "(0, inf)",
                &[1e-9, 1e9][..],
                &[0.0, -1.0, f64::INFINITY, f64::NAN][..],
            ),
            (half, "[0, 0.5)", &[0.0, 0.4], &[0.5, -0.1]),
            (Range::open_closed(0.0, 1.0), "(0, 1]", &[1.0], &[0.0, 1.1]),
            (Range::closed(0.0, 1.0), "[0, 1]", &[0.0, 1.0], &[1.1]),
            (
                Range::closed_open(2.0, f64::INFINITY),
                "[2, inf)",
                &[2.0, 3.0],
                &[1.0],
            ),
        ] {
            let knob = Knob {
                name: "x",
                range,
                meaning: "",
            };
            for x in inside {
                assert!(knob.check((*x).into()).is_ok(), "{x} {range}");
            }
            for x in outside {
                let error = knob.check((*x).into()).unwrap_err().to_string();
                assert_eq!(error, format!("x = {x}; it lies in {text}"));
            }
            assert!(knob.check(KnobValue::Unset).is_ok());
            assert!(knob.check(true.into()).is_err());
        }
    }

    #[test]
    fn values_are_written_as_in_toml() {
        for (value, text) in [
            (KnobValue::from(2.0), "2.0"),
            (0.001.into(), "0.001"),
            (4.into(), "4"),
            (true.into(), "true"),
            (KnobValue::Word("alpha"), "\"alpha\""),
            (None::<f64>.into(), "not set"),
        ] {
            assert_eq!(value.to_string(), text);
        }
        let words = Range::Words(&["logistic", "hinge", "savage"]);
        assert_eq!(words.to_string(), "logistic, hinge or savage");
        let words = Range::Words(&["forward_kl", "reverse_kl"]);
        assert_eq!(words.to_string(), "forward_kl, reverse_kl");
        assert_eq!(Range::Flag.to_string(), "true or false");
    }

    #[test]
    fn every_knob_says_what_it_does_in_a_sentence() {
        for name in Loss::NAMES {
            let loss = Loss::default_of(name).unwrap();
            assert_eq!(loss.knobs().len(), loss.values().len());
            for knob in loss.knobs() {
                assert!(knob.meaning.ends_with('.'), "{name}: {knob:?}");
            }
        }
    }
}
