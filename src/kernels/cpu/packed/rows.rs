//! The rows of `x` as panels are multiplied with them.

use rayon::prelude::*;

use super::round::AT_ONCE;
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
    /// Rows (n, k) in groups of at most `most`. `turn` makes an element of `per` numbers, or of the fewer at
    /// the end of a row; zeros pad a row to `steps` elements.
    pub(super) fn new(
        x: &[T],
        (n, k): (usize, usize),
        most: usize,
        (per, steps): (usize, usize),
        turn: impl Fn(&mut [T], &[T]) + Sync,
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
                for (to, x) in to.chunks_mut(AT_ONCE * rows).zip(x.chunks(AT_ONCE * per)) {
                    let mut turned = [T::ZERO; AT_ONCE];
                    let turned = &mut turned[..x.len().div_ceil(per)];
                    turn(turned, x);
                    for (to, turned) in to.chunks_exact_mut(rows).zip(turned) {
                        to[row] = *turned;
                    }
                }
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
