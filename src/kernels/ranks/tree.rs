//! The order in which buffers of several lanes are added.
//!
//! *Why*: f32 sums depend on their order. Here it is a function of the number of buffers alone: `n` even
//! is tree(first half) + tree(second half), `n` odd adds one after the other. With lane = slot *
//! ranks + rank and a power of two of slots, the tree over lanes is the tree over slots of the trees over
//! ranks, so the sum has the same bits for any number of ranks.

/// Adds `later` to `earlier`, element by element.
pub fn add(earlier: &mut [f32], later: &[f32]) {
    assert_eq!(earlier.len(), later.len(), "buffers of one length");
    for (sum, value) in earlier.iter_mut().zip(later) {
        *sum += value;
    }
}

/// The additions that sum `count` buffers into the first one, in order: (to, from), after which `from` is free.
pub fn additions(count: usize) -> Vec<(usize, usize)> {
    fn below(first: usize, count: usize, all: &mut Vec<(usize, usize)>) {
        if count > 1 && count.is_multiple_of(2) {
            let half = count / 2;
            below(first, half, all);
            below(first + half, half, all);
            all.push((first, first + half));
        } else {
            all.extend((1..count).map(|later| (first, first + later)));
        }
    }
    let mut all = Vec::new();
    below(0, count, &mut all);
    all
}

/// Sums the first `length` elements of every row of `stride` elements; the first row gets the sum, the
/// others are overwritten.
pub(super) fn reduce(rows: &mut [f32], stride: usize, length: usize) {
    for (to, from) in additions(rows.len() / stride) {
        let (before, after) = rows.split_at_mut(from * stride);
        add(&mut before[to * stride..][..length], &after[..length]);
    }
}

/// Sums buffers as they come, in the order of the tree, keeping at most log2(n) + 1 of them.
///
/// A binary counter: level `k` holds the sum of 2^k groups, a group is as many buffers as the odd part of
/// `n`, added one after the other.
#[derive(Debug)]
pub struct Counter {
    /// Buffers per group.
    group: usize,
    /// How many have come in all.
    count: usize,
    total: usize,
    /// The sum of an incomplete group.
    open: Option<Vec<f32>>,
    /// By level.
    waiting: Vec<Option<Vec<f32>>>,
    spare: Vec<Vec<f32>>,
}

impl Counter {
    /// For this many buffers.
    pub fn new(buffers: usize) -> Self {
        let twos = buffers
            .checked_ilog2()
            .map_or(0, |_| buffers.trailing_zeros());
        Self {
            group: buffers >> twos,
            count: 0,
            total: buffers,
            open: None,
            waiting: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Adds the next buffer.
    ///
    /// # Panics
    /// If more buffers come than were announced, or lengths differ.
    pub fn add(&mut self, buffer: Vec<f32>) {
        assert!(self.count < self.total, "a buffer more than announced");
        self.count += 1;
        let group = match self.open.take() {
            Some(open) => self.sum(open, buffer),
            None => buffer,
        };
        if !self.count.is_multiple_of(self.group) {
            self.open = Some(group);
            return;
        }
        let mut sum = group;
        for level in 0.. {
            if level == self.waiting.len() {
                self.waiting.push(None);
            }
            match self.waiting[level].take() {
                Some(earlier) => sum = self.sum(earlier, sum),
                None => {
                    self.waiting[level] = Some(sum);
                    return;
                }
            }
        }
    }

    fn sum(&mut self, mut earlier: Vec<f32>, later: Vec<f32>) -> Vec<f32> {
        add(&mut earlier, &later);
        self.spare.push(later);
        earlier
    }

    /// A buffer that is free to be used again, with arbitrary values, so that the next one need not be
    /// allocated.
    pub fn spare(&mut self) -> Option<Vec<f32>> {
        self.spare.pop()
    }

    /// The sum; `None` of no buffers.
    ///
    /// # Panics
    /// If fewer buffers came than were announced.
    pub fn finish(self) -> Option<Vec<f32>> {
        assert_eq!(self.count, self.total, "all buffers have come");
        self.waiting.into_iter().flatten().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 37;

    /// Values of mixed size, so that the order of a sum shows.
    fn lane(lane: usize) -> Vec<f32> {
        let value = |at: usize| {
            let mut bits =
                (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (lane as u64) << 40;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let scale = if bits & 7 == 0 { 1e3 } else { 1.0 };
            (bits >> 32) as i32 as f32 / 2f32.powi(31) * scale
        };
        (0..LENGTH).map(value).collect()
    }

    /// The definition.
    fn tree(buffers: &[Vec<f32>]) -> Vec<f32> {
        if buffers.len() > 1 && buffers.len().is_multiple_of(2) {
            let (first, second) = buffers.split_at(buffers.len() / 2);
            let mut sum = tree(first);
            add(&mut sum, &tree(second));
            return sum;
        }
        in_turn(buffers)
    }

    fn in_turn(buffers: &[Vec<f32>]) -> Vec<f32> {
        let mut sum = buffers[0].clone();
        buffers[1..].iter().for_each(|buffer| add(&mut sum, buffer));
        sum
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn counted(buffers: impl ExactSizeIterator<Item = Vec<f32>>) -> Vec<f32> {
        let mut counter = Counter::new(buffers.len());
        buffers.for_each(|buffer| counter.add(buffer));
        counter.finish().unwrap_or_default()
    }

    #[test]
    fn rows_and_buffers_that_come_one_by_one_are_summed_in_the_tree() {
        for count in 1..=16 {
            let lanes: Vec<Vec<f32>> = (0..count).map(lane).collect();
            let want = bits(&tree(&lanes));
            assert_eq!(bits(&counted(lanes.iter().cloned())), want, "{count}");
            let stride = LENGTH + 3;
            let mut rows = vec![f32::NAN; count * stride];
            for (row, lane) in rows.chunks_exact_mut(stride).zip(&lanes) {
                row[..LENGTH].copy_from_slice(lane);
            }
            reduce(&mut rows, stride, LENGTH);
            assert_eq!(bits(&rows[..LENGTH]), want, "{count}");
        }
        assert_eq!(Counter::new(0).finish(), None);
    }

    #[test]
    fn the_sum_over_lanes_has_the_same_bits_for_any_number_of_ranks() {
        let lanes: Vec<Vec<f32>> = (0..24).map(lane).collect();
        let want = bits(&tree(&lanes));
        for ranks in [3, 6, 12, 24] {
            let slots = lanes.chunks(ranks).map(tree);
            assert_eq!(bits(&counted(slots)), want, "{ranks} ranks");
        }
        let lanes = &lanes[..16];
        let want = bits(&tree(lanes));
        for ranks in [1, 2, 4, 8, 16] {
            let slots = lanes.chunks(ranks).map(tree);
            assert_eq!(bits(&counted(slots)), want, "{ranks} ranks");
        }
        assert_ne!(bits(&in_turn(lanes)), want, "the order shows");
    }

    #[test]
    fn few_buffers_wait_and_the_others_are_free_again() {
        let mut counter = Counter::new(64);
        let mut made = 0;
        for slot in 0..64 {
            let mut buffer = counter.spare().unwrap_or_else(|| {
                made += 1;
                vec![0.0; LENGTH]
            });
            buffer.copy_from_slice(&lane(slot));
            counter.add(buffer);
        }
        assert!(made <= 7, "{made}");
    }
}
