//! A product in blocks that caches hold.
//!
//! The operand with fewer vectors (rows of a, columns of b) is packed once for all threads, as much
//! of it at a time as [`SHARED_LEN`] allows. The other one is cut into parts: a task packs one into
//! memory of its own, where it stays in the second-level cache, and multiplies it with all that is
//! shared. An element of the result is the work of one task at a time, which adds up blocks of k in
//! their order.

use std::marker::PhantomData;
use std::ops::Range;

use super::kernel::{Kernel, Tile};
use super::pack::Panels;
use super::scratch::{self, OWN, SHARED};
use super::{Operand, each};
use crate::kernels::cpu::matrix::{MatrixMut, Threads};

/// The most that is packed for all threads, in units of 32 bits; tests cut small operands, too.
const SHARED_LEN: usize = if cfg!(test) { 1 << 16 } else { 1 << 20 };
/// The most that is packed for one task, in units of 32 bits: 512 KiB and what lies between panels.
const OWN_LEN: usize = (1 << 17) + (1 << 12);
/// Panels of columns that meet all panels of rows before the next ones do: at most 256 KiB.
const GROUP: usize = 2;
/// Tasks for each thread, so that none waits long for another.
const TASKS: usize = 4;
/// Panels of a part, where there are enough: rows of an operand are then read in stretches of some
/// hundred bytes.
const LEAST: usize = 4;
/// Multiplications below which a second thread costs more than it gains.
const SMALL: usize = 1 << 19;

/// As [`super::multiply`], for k > 0.
///
/// # Safety
/// The CPU has the instructions.
pub(super) unsafe fn gemm<K: Kernel>(
    c: MatrixMut<f32>,
    add: bool,
    a: Operand,
    b: Operand,
    threads: Threads,
) {
    let ((m, n), k) = (c.shape, a.shape().1);
    let threads = match m * n * k {
        0..SMALL => Threads::One,
        _ => threads,
    };
    let left = Vectors {
        of: a,
        width: K::TILE.0,
    };
    let right = Vectors {
        of: b.t(),
        width: K::TILE.1,
    };
    let left_is_shared = m <= n;
    let (shared, own) = match left_is_shared {
        true => (left, right),
        false => (right, left),
    };
    // Blocks of about the same length; a unit lies in one.
    let block = k
        .div_ceil(k.div_ceil(K::BLOCK * K::PER))
        .next_multiple_of(K::PER);
    let product = Product::<K> {
        c: Output {
            start: c.values.as_mut_ptr(),
            stride: c.strides.0,
            shape: c.shape,
        },
        add,
        shared,
        own,
        left_is_shared,
        block,
        kernel: PhantomData,
    };
    let room = SHARED_LEN / shared.layout::<K>(block).distance();
    let panels = shared.panels().min(room);
    let blocks = room / panels;
    for panels in ranges(0..shared.panels(), panels) {
        for k in ranges(0..k, block * blocks) {
            // SAFETY: the caller's.
            unsafe { product.run(panels.clone(), k, threads) };
        }
    }
}

/// `whole` cut into ranges of `len`; the last one may be shorter.
fn ranges(whole: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = whole.end;
    whole
        .step_by(len)
        .map(move |start| start..end.min(start + len))
}

/// An operand as (vectors, k), and the vectors of a panel.
#[derive(Debug, Clone, Copy)]
struct Vectors<'a> {
    of: Operand<'a>,
    width: usize,
}

impl Vectors<'_> {
    fn panels(self) -> usize {
        self.of.shape().0.div_ceil(self.width)
    }

    fn layout<K: Kernel>(self, k: usize) -> Panels {
        Panels {
            width: self.width,
            units: k.div_ceil(K::PER),
        }
    }

    /// Packs elements `k` of the panels from `first` on into all of `into`.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn pack<K: Kernel>(self, into: &mut [f32], first: usize, k: Range<usize>) {
        let layout = self.layout::<K>(k.len());
        // SAFETY: the caller's.
        unsafe { layout.pack::<K>(into, self.of, first * self.width, k) };
    }

    /// Panels in a task's part of `panels`.
    fn share(self, panels: usize, layout: Panels, threads: Threads) -> usize {
        let threads = match threads {
            Threads::All => rayon::current_num_threads(),
            Threads::One => 1,
        };
        let most = OWN_LEN / layout.distance();
        let least = panels.div_ceil(threads).min(LEAST);
        panels
            .div_ceil(threads * TASKS)
            .max(least)
            .clamp(1, most.max(1))
    }
}

/// Panels in memory.
#[derive(Debug, Clone)]
struct Packed<'a> {
    panels: Range<usize>,
    layout: Panels,
    /// The first panel and what follows it.
    values: &'a [f32],
}

impl Packed<'_> {
    fn panel(&self, i: usize) -> &[f32] {
        &self.values[(i - self.panels.start) * self.layout.distance()..]
    }
}

/// What all tasks know.
struct Product<'a, K> {
    c: Output,
    add: bool,
    shared: Vectors<'a>,
    own: Vectors<'a>,
    left_is_shared: bool,
    /// Elements of k added up at a time.
    block: usize,
    kernel: PhantomData<K>,
}

impl<K: Kernel> Product<'_, K> {
    /// Elements `k` of some panels of the shared operand, with all of the other.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn run(&self, panels: Range<usize>, k: Range<usize>, threads: Threads) {
        let layout = self.shared.layout::<K>(k.len());
        let distance = layout.distance();
        scratch::with(&SHARED, panels.len() * distance, |values| {
            let share = self.shared.share(panels.len(), layout, threads);
            let starts = panels.clone().step_by(share);
            let parts = starts.zip(values.chunks_mut(share * distance)).collect();
            each(threads, parts, |(first, into)| {
                // SAFETY: the caller's.
                unsafe { self.shared.pack::<K>(into, first, k.clone()) };
            });

            let shared = Packed {
                panels,
                layout,
                values,
            };
            let (all, layout) = (self.own.panels(), self.own.layout::<K>(self.block));
            let parts = ranges(0..all, self.own.share(all, layout, threads)).collect();
            each(threads, parts, |part| {
                // SAFETY: the caller's.
                unsafe { self.part(&shared, k.clone(), part) };
            });
        });
    }

    /// Elements `k` of the shared panels, with some panels of the other operand.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn part(&self, shared: &Packed, k: Range<usize>, panels: Range<usize>) {
        let len = |k| panels.len() * self.own.layout::<K>(k).distance();
        scratch::with(&OWN, len(self.block), |values| {
            for part in ranges(k.clone(), self.block) {
                let values = &mut values[..len(part.len())];
                // SAFETY: the caller's.
                unsafe { self.own.pack::<K>(values, panels.start, part.clone()) };
                let own = Packed {
                    panels: panels.clone(),
                    layout: self.own.layout::<K>(part.len()),
                    values,
                };
                let before = (part.start - k.start) / K::PER;
                let shared = Packed {
                    values: &shared.values[before * shared.layout.width..],
                    ..shared.clone()
                };
                let add = self.add || part.start > 0;
                let units = own.layout.units;
                let (left, right) = match self.left_is_shared {
                    true => (&shared, &own),
                    false => (&own, &shared),
                };
                // SAFETY: the caller's; panels of the other operand are those of one task.
                unsafe { self.c.multiply::<K>(add, left, right, units) };
            }
        });
    }
}

/// The matrix that tiles are written to.
struct Output {
    start: *mut f32,
    stride: usize,
    shape: (usize, usize),
}

// SAFETY: tasks write to different tiles, and nobody reads before all have ended.
unsafe impl Sync for Output {}

impl Output {
    /// Writes or adds the first `units` units of k of the panels of both operands.
    ///
    /// # Safety
    /// The CPU has the instructions, and no other thread writes these tiles.
    unsafe fn multiply<K: Kernel>(&self, add: bool, left: &Packed, right: &Packed, units: usize) {
        for group in ranges(right.panels.clone(), GROUP) {
            for i in left.panels.clone() {
                for j in group.clone() {
                    let (left, right) = (left.panel(i), right.panel(j));
                    assert!(left.len() >= units * K::TILE.0 && right.len() >= units * K::TILE.1);
                    let (left, right) = (left.as_ptr(), right.as_ptr());
                    // SAFETY: the caller's; panels hold the units, the tile lies in the matrix.
                    unsafe { K::tile(units, left, right, self.tile::<K>(i, j), add) };
                }
            }
        }
    }

    /// The tile of the `i`th panel of rows and the `j`th of columns.
    fn tile<K: Kernel>(&self, i: usize, j: usize) -> Tile {
        let at = (i * K::TILE.0, j * K::TILE.1);
        let rest = (self.shape.0 - at.0, self.shape.1 - at.1);
        Tile {
            start: self.start.wrapping_add(at.0 * self.stride + at.1),
            stride: self.stride,
            shape: (rest.0.min(K::TILE.0), rest.1.min(K::TILE.1)),
        }
    }
}
