//! The instruction sets: how lines of a panel are read, and the loop that all the time is spent in.

use super::line::{self, Block, Line, Number, Place};
use crate::kernels::cpu::lanes::{self, LINE, Lanes};

/// How a product is computed.
///
/// # Safety
/// Of every function: the CPU has the instructions.
pub(super) trait Kernel: Sync {
    /// Rows and columns of a tile.
    const TILE: (usize, usize);
    /// Elements of k in a unit of 32 bits.
    const PER: usize;
    /// The most units of k added up at a time.
    const BLOCK: usize;

    /// See [`line::along`].
    ///
    /// # Safety
    /// As of it.
    unsafe fn along<T: Number>(to: Place, from: Block<T>, ahead: usize);

    /// See [`line::across`].
    ///
    /// # Safety
    /// As of it.
    unsafe fn across<T: Number>(to: Place, from: Block<T>);

    /// `c = a b`, or `c += a b` where `add`, for a tile of `c`: `a` holds a unit of each row for each of
    /// `units`, `b` one of each column.
    ///
    /// # Safety
    /// They lie there; `c` may be written where its shape says, and no other thread does.
    unsafe fn tile(units: usize, a: *const f32, b: *const f32, c: Tile, add: bool);
}

/// Where a tile of `c` lies and how much of it exists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub(super) start: *mut f32,
    /// Distance of rows.
    pub(super) stride: usize,
    /// (rows, columns), at most [`Kernel::TILE`].
    pub(super) shape: (usize, usize),
}

macro_rules! kernel {
    (
        $(#[$meta:meta])*
        $name:ident $(<$rounded:ident>)?: $lanes:ty, $line:ty, $rows:literal x $panels:literal, fewer $($fewer:literal)*,
        block $block:literal $(, $features:literal)?
    ) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(super) struct $name $(<const $rounded: bool>)?;

        $(#[$meta])*
        impl$(<const $rounded: bool>)? Kernel for $name $(<$rounded>)? {
            const TILE: (usize, usize) = ($rows, $panels * LINE);
            const PER: usize = <$line as Line>::PER;
            const BLOCK: usize = $block;

            $(#[target_feature(enable = $features)])?
            unsafe fn along<T: Number>(to: Place, from: Block<T>, ahead: usize) {
                // SAFETY: the caller's.
                unsafe { line::along::<$line, T>(to, from, ahead) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn across<T: Number>(to: Place, from: Block<T>) {
                // SAFETY: the caller's.
                unsafe { line::across::<$line, T>(to, from) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn tile(units: usize, a: *const f32, b: *const f32, c: Tile, add: bool) {
                // SAFETY: the caller's.
                unsafe {
                    match c.shape.0 {
                        $(0..=$fewer => {
                            rows::<$lanes, $fewer, $panels>(units, $rows, a, b, c, add);
                        })*
                        _ => rows::<$lanes, $rows, $panels>(units, $rows, a, b, c, add),
                    }
                }
            }
        }
    };
}

// Of 32 registers 28 hold sums, two the columns of a unit and one an element of a row; of 16, 12, two and
// one. A block's panel of columns, 32 to 128 KiB, comes from the second-level cache as fast as it is multiplied;
// reading `c` again for every block costs more than longer blocks do.
kernel! {
    /// By AVX512_BF16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16: lanes::Avx512Bf16, line::Bf16Pairs, 14 x 2, fewer 4 9, block 1024,
    "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma"
}
kernel! {
    /// By AVX-512, of operands that are rounded or not.
    #[cfg(target_arch = "x86_64")]
    Avx512<ROUNDED>: lanes::Avx512, line::F32Avx512<ROUNDED>, 14 x 2, fewer 4 9, block 512,
    "avx512f,avx512bw,avx512vl,avx2,fma"
}
kernel! {
    /// The same by AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2<ROUNDED>: lanes::Avx2, line::F32Avx2<ROUNDED>, 6 x 1, fewer 3, block 512, "avx2,fma"
}
kernel! {
    /// The same on any CPU, of the vectors that ARM has 32 registers for.
    #[cfg(target_arch = "aarch64")]
    Portable<ROUNDED>: lanes::Plain<f32>, line::F32Portable<ROUNDED>, 6 x 1, fewer 3, block 512
}
kernel! {
    /// The same on any CPU.
    #[cfg(not(target_arch = "aarch64"))]
    Portable<ROUNDED>: lanes::Plain<f32>, line::F32Portable<ROUNDED>, 3 x 1, fewer 1, block 512
}

/// How far ahead of its use a panel of rows is fetched, in units: it streams, the columns stay.
const AHEAD: usize = 24;

/// [`Kernel::tile`] for at most `ROWS` rows of panels that have units of `width` of them.
///
/// # Safety
/// As of it.
#[inline(always)]
unsafe fn rows<L: Lanes<Element = f32>, const ROWS: usize, const PANELS: usize>(
    units: usize,
    width: usize,
    a: *const f32,
    b: *const f32,
    c: Tile,
    add: bool,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[L::splat(0.0); PANELS]; ROWS];
        // What is written at the end is on its way from now on.
        for i in 0..c.shape.0 {
            let row = c.start.add(i * c.stride);
            lanes::fetch(row.cast());
            lanes::fetch(row.add(c.shape.1 - 1).cast());
        }
        for unit in 0..units {
            let (a, b) = (a.add(unit * width), b.add(unit * PANELS * LINE));
            lanes::fetch(a.wrapping_add(AHEAD * width).cast());
            let mut w = [L::splat(0.0); PANELS];
            for (i, w) in w.iter_mut().enumerate() {
                *w = L::load(b.add(i * LINE));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = L::splat(*a.add(i));
                for (sum, &w) in sums.iter_mut().zip(&w) {
                    *sum = sum.add_product(x, w);
                }
            }
        }
        if c.shape.1 == PANELS * LINE {
            for (i, sums) in sums.into_iter().enumerate().take(c.shape.0) {
                for (j, sum) in sums.into_iter().enumerate() {
                    let to = c.start.add(i * c.stride + j * LINE);
                    let sum = if add { sum.plus(L::load(to)) } else { sum };
                    sum.store(to);
                }
            }
            return;
        }
        let mut row = [[0.0; LINE]; PANELS];
        for (i, sums) in sums.into_iter().enumerate().take(c.shape.0) {
            for (sum, row) in sums.into_iter().zip(&mut row) {
                sum.store(row.as_mut_ptr());
            }
            let to = std::slice::from_raw_parts_mut(c.start.add(i * c.stride), c.shape.1);
            for (to, sum) in to.iter_mut().zip(row.as_flattened()) {
                *to = if add { *to + sum } else { *sum };
            }
        }
    }
}
