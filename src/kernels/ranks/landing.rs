//! Memory for what comes of other ranks.

/// What came in a round: a row per rank.
#[derive(Debug, Default)]
pub(super) struct Landing {
    /// f32, for their alignment.
    rows: Vec<f32>,
    /// Elements per row.
    pub(super) stride: usize,
    /// Bytes that came, by rank.
    lengths: Vec<usize>,
}

impl Landing {
    /// For so many bytes of each rank, in memory that is made larger where it must be.
    pub(super) fn of(lengths: Vec<usize>, mut rows: Vec<f32>) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let stride = longest.div_ceil(size_of::<f32>());
        let values = stride * lengths.len();
        if rows.len() < values {
            rows.resize(values, 0.0);
        }
        Self {
            rows,
            stride,
            lengths,
        }
    }

    /// How many bytes there are, by rank.
    pub(super) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The memory, to be used again.
    pub(super) fn into_memory(self) -> Vec<f32> {
        self.rows
    }

    /// Takes the bytes of this rank.
    pub(super) fn fill(&mut self, rank: usize, bytes: &[u8]) {
        let row = &mut self.rows[rank * self.stride..][..self.stride];
        for (to, from) in row.iter_mut().zip(bytes.chunks(size_of::<f32>())) {
            let mut value = [0; size_of::<f32>()];
            value[..from.len()].copy_from_slice(from);
            *to = f32::from_ne_bytes(value);
        }
    }

    /// What came from this rank.
    pub(super) fn bytes(&self, rank: usize) -> &[u8] {
        let row = &self.rows[rank * self.stride..][..self.stride];
        &as_bytes(row)[..self.lengths[rank]]
    }

    /// All rows.
    pub(super) fn rows(&mut self) -> &mut [f32] {
        &mut self.rows[..self.stride * self.lengths.len()]
    }
}

/// The bytes of numbers.
pub(super) fn as_bytes(values: &[f32]) -> &[u8] {
    // SAFETY: every f32 is four bytes without padding, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
