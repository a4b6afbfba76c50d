//! What a loss says of itself: its formula, its paper and its knobs.
//!
//! Hides how a knob's words become its range check, its default and its line on a page.
//!
//! *Why*: a knob is declared once, with `knobs!`. The config section, the range that is enforced and
//! the pages of `expo losses` come from that declaration, so none of them can be out of date.

use crate::error::{Error, Result};

/// The page of a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// What is minimised, of one example.
    pub formula: &'static str,
    /// Who published it, with the equation where it has a number.
    pub paper: &'static str,
    /// A config that uses it.
    pub config: &'static str,
    /// In the order of the config section.
    pub knobs: &'static [Knob],
}

/// A key of the loss's config section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knob {
    /// Its key.
    pub name: &'static str,
    /// An interval such as `(0, inf)`, or the words that it may be.
    pub range: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

impl Knob {
    /// Refuses a number that is not finite or outside the range.
    pub(super) fn check(&self, value: f64) -> Result<()> {
        check(self.name, value, self.range)
    }
}

/// Refuses a number that is not finite or outside `range`, an interval or words without a bound.
pub(super) fn check(name: &str, value: f64, range: &str) -> Result<()> {
    let inside = interval(range).is_none_or(|contains| contains(value));
    if inside && value.is_finite() {
        return Ok(());
    }
    Err(Error::must_be(name, format!("in {range}"), value))
}

/// Which numbers lie in an interval such as `[0, 0.5)`; `None` where the text is none.
fn interval(range: &str) -> Option<impl Fn(f64) -> bool> {
    let inner = range.strip_prefix(['(', '['])?.strip_suffix([')', ']'])?;
    let (low, high) = inner.split_once(", ")?;
    let (low, high): (f64, f64) = (low.parse().ok()?, high.parse().ok()?);
    let (open_below, open_above) = (range.starts_with('('), range.ends_with(')'));
    Some(move |x: f64| {
        (x > low || (x == low && !open_below)) && (x < high || (x == high && !open_above))
    })
}

/// Declares the knobs of a loss: the struct that is its config section, with the defaults, and what
/// its page says of each.
macro_rules! knobs {
    ($(#[$doc:meta])* $loss:ident {
        $($(#[doc = $meaning:literal])+ $knob:ident: $type:ty = $default:expr, in $range:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $loss {
            $($(#[doc = $meaning])+ #[doc = concat!(" Range: ", $range, ".")] pub $knob: $type,)*
        }

        impl Default for $loss {
            fn default() -> Self {
                Self { $($knob: $default,)* }
            }
        }

        impl $loss {
            const KNOBS: &'static [$crate::loss::Knob] = &[$($crate::loss::Knob {
                name: stringify!($knob),
                range: $range,
                meaning: concat!($($meaning),+).trim_ascii_start(),
            },)*];
        }
    };
}
pub(super) use knobs;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{Loss, Objective};

    #[test]
    fn intervals_are_read_with_their_ends() {
        for (range, inside, outside) in [
            (
                "(0, inf)",
                &[1e-9, 1e9][..],
                &[0.0, -1.0, f64::INFINITY, f64::NAN][..],
            ),
            ("[0, 0.5)", &[0.0, 0.4], &[0.5, -0.1]),
            ("(0, 1]", &[1.0], &[0.0, 1.1]),
            ("[2, inf)", &[2.0, 3.0], &[1.0]),
        ] {
            for x in inside {
                assert!(check("x", *x, range).is_ok(), "{x} {range}");
            }
            for x in outside {
                let error = check("x", *x, range).unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("x must be in {range} (got ")),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn every_range_is_an_interval_or_words() {
        for name in Loss::NAMES {
            let loss = Loss::default_of(name).unwrap();
            for knob in loss.about().knobs {
                let words = !knob.range.starts_with(['(', '[']);
                assert!(words || interval(knob.range).is_some(), "{name}: {knob:?}");
                assert!(knob.meaning.ends_with('.'), "{name}: {knob:?}");
            }
        }
    }
}
