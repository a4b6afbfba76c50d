//! The vector instructions in use: all that the CPU has, or fewer.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// Vector instructions that our own loops use, each with those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kernels) enum Level {
    /// What every CPU of the target has.
    Portable,
    /// 256 bits: AVX2, FMA and F16C.
    Avx2,
    /// 512 bits: AVX-512 F, BW, DQ and VL.
    Avx512,
    /// Products of pairs of bf16: AVX512_BF16.
    Avx512Bf16,
}

impl Level {
    const ALL: [(&str, Self); 4] = [
        ("portable", Self::Portable),
        ("avx2", Self::Avx2),
        ("avx512", Self::Avx512),
        ("avx512_bf16", Self::Avx512Bf16),
    ];

    fn of_cpu() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (avx2, avx512, is_x86_feature_detected!("avx512bf16")) {
                (true, true, true) => Self::Avx512Bf16,
                (true, true, false) => Self::Avx512,
                (true, false, _) => Self::Avx2,
                (false, ..) => Self::Portable,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self::Portable
    }
}

/// What caps the instructions: a level's name; unset or blank: all that the CPU has.
pub(in crate::kernels) const VARIABLE: &str = "EXPO_SIMD";

static LEVEL: OnceLock<Level> = OnceLock::new();

/// The instructions that are used: those of the CPU up to what [`VARIABLE`] says, which is read once.
#[inline]
pub(in crate::kernels) fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = tests::forced() {
        return level;
    }
    *LEVEL.get_or_init(|| cap().unwrap_or(Level::Avx512Bf16).min(Level::of_cpu()))
}

/// The level that [`VARIABLE`] names, the highest where it names none.
///
/// # Errors
/// If there is no such level.
pub(in crate::kernels) fn cap() -> Result<Level> {
    named(
        &std::env::var_os(VARIABLE)
            .unwrap_or_default()
            .to_string_lossy(),
    )
}

/// The name of the level in use, where the CPU has a higher one.
pub(in crate::kernels) fn capped() -> Option<&'static str> {
    let used = level();
    let name = Level::ALL.iter().find(|(_, level)| *level == used);
    name.filter(|_| used < Level::of_cpu())
        .map(|(name, _)| *name)
}

fn named(text: &str) -> Result<Level> {
    let name = text.trim();
    if name.is_empty() {
        return Ok(Level::Avx512Bf16);
    }
    let found = Level::ALL.iter().find(|(known, _)| *known == name);
    found.map(|(_, level)| *level).ok_or_else(|| {
        Error::input(format!("{VARIABLE} is {name:?}"))
            .hint("portable, avx2, avx512 or avx512_bf16; unset: all that the CPU has")
    })
}

/// The levels that this CPU has.
#[cfg(test)]
pub(in crate::kernels) fn levels_there() -> impl Iterator<Item = Level> {
    let all = Level::ALL.into_iter().map(|(_, level)| level);
    all.filter(|level| *level <= Level::of_cpu())
}

#[cfg(test)]
pub(in crate::kernels) use tests::with_level;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
    }

    pub(super) fn forced() -> Option<Level> {
        FORCED.get()
    }

    /// Calls `f` with that level in place of the highest, for what this thread itself asks.
    pub(in crate::kernels) fn with_level<R>(level: Level, f: impl FnOnce() -> R) -> R {
        assert!(level <= Level::of_cpu());
        let before = FORCED.replace(Some(level));
        let result = f();
        FORCED.set(before);
        result
    }

    #[test]
    fn a_name_caps_the_instructions() {
        assert_eq!(named(" avx2 "), Ok(Level::Avx2));
        assert_eq!(named(""), Ok(Level::Avx512Bf16));
        for wrong in ["avx", "AVX2", "sse", "0"] {
            let error = named(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}
