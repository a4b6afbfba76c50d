//! Matrices laid out as matmuls with few rows stream them.

use std::sync::Arc;

use super::quantized::Format;

/// Rows of a matrix that lie side by side.
pub const PANEL: usize = 16;

/// Bytes with the alignment of a cache line.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(in crate::kernels) struct Line([u64; 8]);

/// How a panel's numbers lie in memory, in order of the input dimension.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PackedFormat {
    /// 16 numbers, one of each row, for each input; four inputs are a block.
    F32,
    /// As above.
    F64,
    /// 16 pairs for each two inputs; two of these are a block.
    Bf16,
    /// For each 32 inputs the f16 scales of 16 rows, then 16 signed bytes for each input.
    Q8_0,
    /// For each 64 inputs the f32 scales of 16 rows, then for each input 8 bytes: the codes of row i in the
    /// low half of byte i, of row 8 + i in the high half. And the values of the codes.
    Nf4([f32; 16]),
}

impl PackedFormat {
    /// That of a quantized matrix (out, in).
    pub fn of(format: Format, (_, inputs): (usize, usize)) -> Self {
        match format {
            _ if !inputs.is_multiple_of(format.block()) => Self::F32,
            Format::Q8_0 => Self::Q8_0,
            Format::Nf4 { .. } => Self::Nf4([0.0; 16]),
        }
    }

    /// Inputs of a block.
    pub const fn block(self) -> usize {
        match self {
            Self::F32 | Self::F64 | Self::Bf16 => 4,
            Self::Q8_0 => 32,
            Self::Nf4(_) => 64,
        }
    }

    /// Bytes of a block of a panel.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Bf16 => 128,
            Self::F32 => 256,
            Self::F64 => 512,
            Self::Q8_0 => 32 + 32 * PANEL,
            Self::Nf4(_) => 64 + 64 * PANEL / 2,
        }
    }

    /// The bytes of a matrix of that shape.
    pub fn bytes(self, (outs, inputs): (usize, usize)) -> u64 {
        (outs.div_ceil(PANEL) * lines_of(inputs, self) * size_of::<Line>()) as u64
    }
}

/// A matrix (out, in) in panels of 16 rows, in host memory. What stands for rows and inputs past the
/// last one is zero. Clones share the memory.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    shape: (usize, usize),
    format: PackedFormat,
    lines: Arc<Vec<Line>>,
}

impl PackedMatrix {
    /// A matrix whose panels `fill` writes, which gets the lines of all, zeros, and how many one has.
    pub(in crate::kernels) fn new(
        shape: (usize, usize),
        format: PackedFormat,
        fill: impl FnOnce(&mut [Line], usize),
    ) -> Self {
        let of_panel = lines_of(shape.1, format);
        let mut lines = vec![Line::default(); shape.0.div_ceil(PANEL) * of_panel];
        fill(&mut lines, of_panel);
        Self {
            shape,
            format,
            lines: Arc::new(lines),
        }
    }

    /// (out, in).
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// How its numbers lie in memory.
    pub fn format(&self) -> PackedFormat {
        self.format
    }

    /// The bytes of so many of its rows.
    pub fn bytes(&self, rows: usize) -> u64 {
        let panel = self.shape.1.div_ceil(self.format.block()) * self.format.block_bytes();
        (rows * panel / PANEL) as u64
    }

    pub(in crate::kernels) fn lines(&self) -> &[Line] {
        &self.lines
    }
}

fn lines_of(inputs: usize, format: PackedFormat) -> usize {
    (inputs.div_ceil(format.block()) * format.block_bytes()).div_ceil(size_of::<Line>())
}
