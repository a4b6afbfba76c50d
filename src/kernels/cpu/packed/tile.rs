//! The loop that all the time is spent in: some rows of `x` with some panels of a matrix.
//!
//! A sum stays in one lane of a register and takes its products in order of the input dimension, so
//! no bit of it depends on the rows beside it, or on how inputs are cut into blocks. What is stored in
//! few bits is decoded in registers, to the numbers that dequantizing gives; for many rows it is decoded
//! once, into the first-level cache.

use std::ops::Range;

use super::format::{Format, Full, PLAIN};
use super::rows::Rows;
#[cfg(target_arch = "x86_64")]
use crate::kernels::cpu::lanes::{Avx2, Avx512, Avx512Bf16};
use crate::kernels::cpu::lanes::{Lanes, Plain, fetch};
use crate::kernels::cpu::real::Real;
use crate::kernels::operands::packed::PANEL;

/// Numbers of a row of the panels at once that are multiplied with all rows of `x` before the next ones,
/// where those are many: 32 KiB, which a first-level cache holds.
const AT_ONCE: usize = 512;

/// Bytes that are fetched ahead of their use.
const AHEAD: usize = 4096;

/// Panels in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels {
    start: *const u8,
    /// Bytes from one panel to the next.
    distance: usize,
    /// Blocks of each.
    blocks: usize,
}

// SAFETY: they are read alone.
unsafe impl Sync for Panels {}

impl Panels {
    /// # Safety
    /// So many blocks of the format that they are multiplied in lie there.
    pub(super) unsafe fn new(start: *const u8, distance: usize, blocks: usize) -> Self {
        Self {
            start,
            distance,
            blocks,
        }
    }
}

/// Takes the sums of a row of `x` with some panels, side by side: (row, first panel, sums).
pub(super) type Take<'a, T> = &'a mut dyn FnMut(usize, usize, &[T]);

/// All rows of `x` with the panels in `range`.
///
/// # Safety
/// The CPU has the instructions of `L`; `x` has as many elements as the panels have inputs, laid out for
/// `F`, in groups of at most `L::ROWS`.
pub(super) unsafe fn multiply<L: Tiles, F: Format<L>>(
    format: F,
    panels: Panels,
    range: Range<usize>,
    x: &Rows<L::Element>,
    take: Take<L::Element>,
) {
    let rows = x.most_in_group();
    // SAFETY: the caller's.
    unsafe {
        if 4 * rows <= L::SUMS {
            several::<L, F, 4>(format, panels, range, x, take);
        } else if 2 * rows <= L::SUMS {
            several::<L, F, 2>(format, panels, range, x, take);
        } else {
            several::<L, F, 1>(format, panels, range, x, take);
        }
    }
}

/// As [`multiply`], by `C` panels at once, and the last ones by one.
///
/// # Safety
/// As of [`multiply`].
unsafe fn several<L: Tiles, F: Format<L>, const C: usize>(
    format: F,
    panels: Panels,
    range: Range<usize>,
    x: &Rows<L::Element>,
    take: Take<L::Element>,
) {
    let mut space = Space {
        sums: vec![L::Element::ZERO; x.len() * C * PANEL],
        decoded: match decodes::<L, F>(x) {
            true => vec![L::Element::ZERO; AT_ONCE * PANEL],
            false => Vec::new(),
        },
    };
    let mut first = range.start;
    // SAFETY: the caller's.
    unsafe {
        while first + C <= range.end {
            chunk::<L, F, C>(format, panels, first, x, &mut space, take);
            first += C;
        }
        while first < range.end {
            chunk::<L, F, 1>(format, panels, first, x, &mut space, take);
            first += 1;
        }
    }
}

/// Memory of a task: sums, and decoded numbers.
struct Space<T> {
    sums: Vec<T>,
    decoded: Vec<T>,
}

/// Whether numbers are written as such before they are multiplied, and not decoded as they are.
fn decodes<L: Tiles, F: Format<L>>(x: &Rows<L::Element>) -> bool {
    x.groups() > F::GROUPS
}

/// All rows of `x` with `C` panels.
///
/// # Safety
/// As of [`multiply`].
unsafe fn chunk<L: Tiles, F: Format<L>, const C: usize>(
    format: F,
    panels: Panels,
    first: usize,
    x: &Rows<L::Element>,
    space: &mut Space<L::Element>,
    take: Take<L::Element>,
) {
    let mut starts = [panels.start; C];
    for (c, start) in starts.iter_mut().enumerate() {
        *start = panels.start.wrapping_add((first + c) * panels.distance);
    }
    let decodes = decodes::<L, F>(x);
    let at_once = match decodes || x.groups() > 1 {
        true => AT_ONCE / C / F::STEPS,
        false => panels.blocks.max(1),
    };
    for block in (0..panels.blocks.max(1)).step_by(at_once) {
        let count = at_once.min(panels.blocks - block);
        let starts = starts.map(|start| start.wrapping_add(block * F::BYTES));
        let mut decoded = [space.decoded.as_mut_ptr(); C];
        if decodes {
            for (c, (&from, to)) in starts.iter().zip(&mut decoded).enumerate() {
                *to = to.wrapping_add(c * (AT_ONCE / C) * PANEL);
                // SAFETY: the caller's; there is room for as many inputs.
                unsafe { L::decode(format, from, count, *to) };
            }
        }
        let decoded = decoded.map(|start| start.cast_const().cast::<u8>());
        let mut before = 0;
        for group in 0..x.groups() {
            let rows = x.rows(group);
            let x = x.start(group).wrapping_add(block * F::STEPS * rows);
            let sums = &mut space.sums[before * C * PANEL..][..rows * C * PANEL];
            let add = block > 0;
            // SAFETY: the caller's; decoded are as many inputs.
            unsafe {
                if decodes {
                    let blocks = count * F::STEPS / PLAIN;
                    by_rows::<L, Full, C>(Full, decoded, (x, rows), blocks, sums, add);
                } else {
                    by_rows::<L, F, C>(format, starts, (x, rows), count, sums, add);
                }
            }
            before += rows;
        }
    }
    let rows = space.sums[..x.len() * C * PANEL].chunks_exact(C * PANEL);
    for (row, sums) in rows.enumerate() {
        take(row, first, sums);
    }
}

/// Whether registers hold the sums of so many rows with so many panels; others are not compiled.
struct Fits<L, const ROWS: usize, const PANELS: usize>(L);

impl<L: Tiles, const ROWS: usize, const PANELS: usize> Fits<L, ROWS, PANELS> {
    const THEY: bool = ROWS <= L::ROWS && ROWS * PANELS <= L::SUMS;
}

/// [`tile`] for the rows of a group: (where they lie, how many).
///
/// # Safety
/// As of [`tile`].
unsafe fn by_rows<L: Tiles, F: Format<L>, const C: usize>(
    format: F,
    panels: [*const u8; C],
    (x, rows): (*const L::Element, usize),
    blocks: usize,
    sums: &mut [L::Element],
    add: bool,
) {
    assert!(sums.len() >= rows * C * PANEL, "sums of a tile");
    let sums = sums.as_mut_ptr();
    macro_rules! of {
        ($($rows:literal)*) => {
            match rows {
                0 => {}
                $($rows => if Fits::<L, $rows, C>::THEY {
                    // SAFETY: the caller's; there is room for the sums.
                    unsafe { L::tile::<F, C, $rows>(format, panels, x, blocks, sums, add) }
                } else {
                    unreachable!("more sums than registers")
                })*
                _ => unreachable!("a group of {rows} rows"),
            }
        };
    }
    of!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// The two functions that are compiled for the instructions of [`Lanes`].
pub(super) trait Tiles: Lanes {
    /// Sums of a row with a panel that registers hold.
    const SUMS: usize;
    /// Rows of a group at most.
    const ROWS: usize;

    /// `R` rows of `x` with `C` panels: writes sums (R, C, 16), or adds to them.
    ///
    /// # Safety
    /// The CPU has the instructions; `blocks` of `F` lie at each of `panels`, as many elements of each
    /// row at `x`, side by side, and there is room for the sums.
    unsafe fn tile<F: Format<Self>, const C: usize, const R: usize>(
        format: F,
        panels: [*const u8; C],
        x: *const Self::Element,
        blocks: usize,
        sums: *mut Self::Element,
        add: bool,
    );

    /// Writes `blocks` of a panel as numbers.
    ///
    /// # Safety
    /// The CPU has the instructions; the blocks lie at `from`, and there is room at `to`.
    unsafe fn decode<F: Format<Self>>(
        format: F,
        from: *const u8,
        blocks: usize,
        to: *mut Self::Element,
    );
}

macro_rules! tiles {
    ($lanes:ty, $sums:expr, $rows:expr $(, $type:ident)? $(; $features:literal)?) => {
        impl$(<$type: Real>)? Tiles for $lanes {
            const SUMS: usize = $sums;
            const ROWS: usize = $rows;

            $(#[target_feature(enable = $features)])?
            unsafe fn tile<F: Format<Self>, const C: usize, const R: usize>(
                format: F,
                panels: [*const u8; C],
                x: *const Self::Element,
                blocks: usize,
                sums: *mut Self::Element,
                add: bool,
            ) {
                // SAFETY: the caller's.
                unsafe { tile::<Self, F, C, R>(format, panels, x, blocks, sums, add) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn decode<F: Format<Self>>(
                format: F,
                from: *const u8,
                blocks: usize,
                to: *mut Self::Element,
            ) {
                // SAFETY: the caller's.
                unsafe { decode::<Self, F>(format, from, blocks, to) }
            }
        }
    };
}

/// Of four vectors each: there are 32 registers on ARM, 16 elsewhere.
const PORTABLE: usize = if cfg!(target_arch = "aarch64") { 6 } else { 3 };

tiles!(Plain<T>, PORTABLE, PORTABLE, T);
// Of 16 registers 12 hold sums, two for a panel, of 32 of them 24.
#[cfg(target_arch = "x86_64")]
tiles!(Avx2, 6, 6; "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
tiles!(Avx512, 24, 12; "avx512f,avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
tiles!(Avx512Bf16, 24, 12; "avx512f,avx512bf16,avx2,fma,f16c");

/// See [`Tiles::decode`].
///
/// # Safety
/// As of it.
#[inline(always)]
unsafe fn decode<L: Lanes, F: Format<L>>(
    format: F,
    from: *const u8,
    blocks: usize,
    to: *mut L::Element,
) {
    for block in 0..blocks {
        // SAFETY: the caller's.
        unsafe {
            let from = from.add(block * F::BYTES);
            for line in (0..F::BYTES).step_by(64) {
                fetch(from.wrapping_add(AHEAD + line));
            }
            let shared = format.shared(from);
            for step in 0..F::STEPS {
                let to = to.add((block * F::STEPS + step) * PANEL);
                F::weights(shared, from, step).store(to);
            }
        }
    }
}

/// See [`Tiles::tile`].
///
/// # Safety
/// As of it.
#[inline(always)]
unsafe fn tile<L: Lanes, F: Format<L>, const C: usize, const R: usize>(
    format: F,
    panels: [*const u8; C],
    x: *const L::Element,
    blocks: usize,
    kept: *mut L::Element,
    add: bool,
) {
    // SAFETY: the caller's; what is fetched ahead may lie anywhere.
    unsafe {
        let mut sums = [[L::splat(L::Element::default()); C]; R];
        if add {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (c, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(kept.add((row * C + c) * PANEL));
                }
            }
        }
        for block in 0..blocks {
            let panels = panels.map(|panel| panel.add(block * F::BYTES));
            let mut shared = [format.shared(panels[0]); C];
            for c in 0..C {
                for line in (0..F::BYTES).step_by(64) {
                    fetch(panels[c].wrapping_add(AHEAD + line));
                }
                shared[c] = format.shared(panels[c]);
            }
            for step in 0..F::STEPS {
                let mut w = [L::splat(L::Element::default()); C];
                for c in 0..C {
                    w[c] = F::weights(shared[c], panels[c], step);
                }
                let x = x.add((block * F::STEPS + step) * R);
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = L::splat(*x.add(row));
                    for (sum, &w) in sums.iter_mut().zip(&w) {
                        *sum = sum.add_product(x, w);
                    }
                }
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (c, sum) in sums.into_iter().enumerate() {
                sum.store(kept.add((row * C + c) * PANEL));
            }
        }
    }
}
