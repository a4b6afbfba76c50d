//! The vector instructions in use: the fastest that the CPU has, or others.

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

    /// The highest that the CPU has.
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

    /// The fastest that the CPU has.
    fn fastest() -> Self {
        let highest = Self::of_cpu();
        // Intel's AVX512_BF16 multiplies half as many numbers in a cycle as its f32 units do (Sapphire and
        // Emerald Rapids), AMD's twice as many.
        match highest == Self::Avx512Bf16 && is_intel() {
            true => Self::Avx512,
            false => highest,
        }
    }
}

fn is_intel() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let vendor = std::arch::x86_64::__cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx]
            == [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes)
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// What selects the instructions: a level's name, the highest that is used; unset or blank: the fastest that
/// the CPU has.
pub(in crate::kernels) const VARIABLE: &str = "EXPO_SIMD";

static LEVEL: OnceLock<Level> = OnceLock::new();

/// The instructions that are used: the fastest of the CPU, or those up to what [`VARIABLE`] says, which is
/// read once.
#[inline]
pub(in crate::kernels) fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = tests::forced() {
        return level;
    }
    *LEVEL.get_or_init(|| match cap() {
        Ok(Some(cap)) => cap.min(Level::of_cpu()),
        _ => Level::fastest(),
    })
}

/// The level that [`VARIABLE`] names, if it names one.
///
/// # Errors
/// If there is no such level.
pub(in crate::kernels) fn cap() -> Result<Option<Level>> {
    named(
        &std::env::var_os(VARIABLE)
            .unwrap_or_default()
            .to_string_lossy(),
    )
}

/// The name of the level in use, where it is not the highest that the CPU has.
pub(in crate::kernels) fn in_use() -> Option<&'static str> {
    let used = level();
    let name = Level::ALL.iter().find(|(_, level)| *level == used);
    name.filter(|_| used != Level::of_cpu())
        .map(|(name, _)| *name)
}

fn named(text: &str) -> Result<Option<Level>> {
    let name = text.trim();
    if name.is_empty() {
        return Ok(None);
    }
    let found = Level::ALL.iter().find(|(known, _)| *known == name);
    found.map(|(_, level)| Some(*level)).ok_or_else(|| {
        Error::input(format!("{VARIABLE} is {name:?}"))
            .hint("portable, avx2, avx512 or avx512_bf16; unset: the fastest that the CPU has")
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
        assert_eq!(named(" avx2 "), Ok(Some(Level::Avx2)));
        assert_eq!(named(""), Ok(None));
        for wrong in ["avx", "AVX2", "sse", "0"] {
            let error = named(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}
