//! Loops compiled for the vector units of the CPU, found at run time.
//!
//! *Why*: one binary serves every x86-64 machine, and the compiler vectorises plain loops well once
//! it may use wide registers. Loops that add keep a fixed number of [`LANES`], so a sum has the same
//! bits whatever the width.

use super::real::Real;

/// Partial sums kept side by side.
pub(super) const LANES: usize = 32;

/// Compiles a function once per vector width and picks at run time. Whatever it calls must be
/// `#[inline(always)]` to be compiled with it.
macro_rules! vectorized {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident$(<$type:ident: $bound:path>)?($($arg:ident: $kind:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name$(<$type: $bound>)?($($arg: $kind),*) $(-> $out)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn plain$(<$type: $bound>)?($($arg: $kind),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn wide$(<$type: $bound>)?($($arg: $kind),*) $(-> $out)? {
                    plain($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn medium$(<$type: $bound>)?($($arg: $kind),*) $(-> $out)? {
                    plain($($arg),*)
                }
                use $crate::kernels::cpu::level::Level;
                match $crate::kernels::cpu::level::level() {
                    // SAFETY: the CPU has what the function is compiled for.
                    Level::Avx512 | Level::Avx512Bf16 => return unsafe { wide($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { medium($($arg),*) },
                    Level::Portable => {}
                }
            }
            plain($($arg),*)
        }
    };
}
pub(super) use vectorized;

/// The sum of `f` over the elements of two slices of one length.
#[inline(always)]
pub(super) fn sum<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, other) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (rest, other_rest) = (chunks.remainder(), other.remainder());
    for (a, b) in chunks.zip(other) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(a, b);
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(rest).zip(other_rest) {
        *lane += f(a, b);
    }
    lanes.into_iter().sum()
}
