//! The rows of `x` as panels are multiplied with them.

use half::bf16;
use rayon::prelude::*;

use crate::kernels::cpu::real::Real;

/// Groups of rows, each with its elements side by side: (element, row in the group).
#[derive(Debug)]
pub(super) struct Rows<T> {
    /// The first row of each group, and the end of the last one.
    firsts: Vec<usize>,
    /// Elements of a row.
    steps: usize,
    values: Vec<T>,
}

impl<T: Real> Rows<T> {
    /// Rows (n, k) in groups of at most `most`. An element is what `of` makes of `per` numbers, or of the
    /// fewer at the end of a row; zeros pad a row to `steps` elements.
    pub(super) fn new(
        x: &[T],
        (n, k): (usize, usize),
        most: usize,
        (per, steps): (usize, usize),
        of: impl Fn(&[T]) -> T + Sync,
    ) -> Self {
        let groups = n.div_ceil(most).max(1);
        let firsts: Vec<usize> = (0..=groups).map(|group| group * n / groups).collect();
        let mut values = vec![T::ZERO; n * steps];
        let mut parts = Vec::with_capacity(groups);
        let mut rest = values.as_mut_slice();
        for pair in firsts.windows(2) {
            let (part, others) = rest.split_at_mut((pair[1] - pair[0]) * steps);
            parts.push((&x[pair[0] * k..pair[1] * k], part));
            rest = others;
        }
        let fill = |(x, to): (&[T], &mut [T])| {
            let rows = to.len() / steps.max(1);
            for (row, x) in x.chunks_exact(k.max(1)).enumerate() {
                let to = to.chunks_exact_mut(rows).zip(x.chunks(per));
                to.for_each(|(to, x)| to[row] = of(x));
            }
        };
        match groups {
            1 => parts.into_iter().for_each(fill),
            _ => parts.into_par_iter().for_each(fill),
        }
        Self {
            firsts,
            steps,
            values,
        }
    }

    pub(super) fn groups(&self) -> usize {
        self.firsts.len() - 1
    }

    /// The rows of a group.
    pub(super) fn rows(&self, group: usize) -> usize {
        self.firsts[group + 1] - self.firsts[group]
    }

    pub(super) fn most_in_group(&self) -> usize {
        (0..self.groups())
            .map(|group| self.rows(group))
            .max()
            .unwrap_or(0)
    }

    /// All rows.
    pub(super) fn len(&self) -> usize {
        self.firsts[self.groups()]
    }

    /// The elements of a group.
    pub(super) fn start(&self, group: usize) -> *const T {
        self.values[self.firsts[group] * self.steps..].as_ptr()
    }
}

/// Rounded to the nearest bf16.
pub(super) fn rounded(x: &[f32]) -> f32 {
    bf16::from_f32(x[0]).to_f32()
}

/// A pair of bf16, the first in the lower half, in the bits of an f32; zero is the second of a single one.
pub(super) fn pair(x: &[f32]) -> f32 {
    let bits = |x: &f32| u32::from(bf16::from_f32(*x).to_bits());
    f32::from_bits(bits(&x[0]) | x.get(1).map_or(0, bits) << 16)
}
