//! Frozen matrices in few bits, as they lie in memory.

use candle_core::{Device, Tensor};
use half::f16;

use crate::error::{Error, Result};
use crate::kernels::device::{from_host, to_host};

/// How the numbers of a frozen matrix are stored. Blocks run over the rows as if these were one; the
/// last may be short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 4-bit NormalFloat (Dettmers et al. 2023, arXiv 2305.14314), as bitsandbytes has it: blocks of 64
    /// numbers, each one of 16 values times the block's scale.
    Nf4 {
        /// Whether scales are stored in 8 bits: double quantization. Else they are f32.
        double: bool,
    },
    /// ggml's Q8_0: blocks of 32 numbers, each a signed byte times the block's f16 scale.
    Q8_0,
}

impl Format {
    /// Numbers with one scale.
    pub const fn block(self) -> usize {
        match self {
            Self::Nf4 { .. } => 64,
            Self::Q8_0 => 32,
        }
    }
}

/// Scales of NF4 with one nested scale.
pub const NESTED_BLOCK: usize = 256;

/// A matrix's stored numbers in host memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Parts {
    /// Element i is `map[code i] * scale of block i / 64`, in f32.
    Nf4 {
        /// Two codes a byte, the first in the high half; what pads the last byte is the code of 0.
        codes: Vec<u8>,
        /// The values of the 16 codes.
        map: Vec<f32>,
        /// The blocks' scales.
        scales: Scales<Vec<u8>, Vec<f32>>,
    },
    /// Element i is `codes[i] * scales[i / 32]`, in f32.
    Q8_0 {
        /// Signed bytes.
        codes: Vec<u8>,
        /// One for each block.
        scales: Vec<f16>,
    },
}

/// The scales of NF4 blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scales<Bytes, Floats> {
    /// One for each block.
    Plain(Floats),
    /// Double quantization: scale b is `map[codes[b]] * nested[b / 256] + offset`, in f32.
    Double {
        /// One for each block.
        codes: Bytes,
        /// One for each [`NESTED_BLOCK`] blocks.
        nested: Floats,
        /// The values of the 256 codes.
        map: Floats,
        /// Added to each.
        offset: f32,
    },
}

/// A frozen matrix (rows, in) in few bits, on a device.
#[derive(Debug, Clone)]
pub struct Quantized {
    shape: (usize, usize),
    stored: Stored,
}

/// [`Parts`] as tensors: codes are u8, padded to whole words of 32 bits; f16 scales are their bits, i16.
#[derive(Debug, Clone)]
pub(in crate::kernels) enum Stored {
    Nf4 {
        codes: Tensor,
        map: Tensor,
        scales: Scales<Tensor, Tensor>,
    },
    Q8_0 {
        codes: Tensor,
        scales: Tensor,
    },
}

impl Quantized {
    /// A matrix of that shape, of its stored parts.
    ///
    /// # Errors
    /// If a part is of another length than the shape takes, or a scale or a value of a code is not finite.
    pub fn new(parts: Parts, shape: (usize, usize), device: &Device) -> Result<Self> {
        let stored = match parts {
            Parts::Nf4 { codes, map, scales } => {
                let blocks = Format::Nf4 { double: false }.blocks(shape);
                check("codes", codes.len(), (shape.0 * shape.1).div_ceil(2))?;
                Stored::Nf4 {
                    codes: words(codes, device)?,
                    map: floats(&map, "values of codes", 16, device)?,
                    scales: match scales {
                        Scales::Plain(scales) => {
                            Scales::Plain(floats(&scales, "scales", blocks, device)?)
                        }
                        Scales::Double {
                            codes,
                            nested,
                            map,
                            offset,
                        } => {
                            check("codes of scales", codes.len(), blocks)?;
                            finite("offset of scales", &[offset])?;
                            let groups = blocks.div_ceil(NESTED_BLOCK);
                            Scales::Double {
                                codes: words(codes, device)?,
                                nested: floats(&nested, "nested scales", groups, device)?,
                                map: floats(&map, "values of codes of scales", 256, device)?,
                                offset,
                            }
                        }
                    },
                }
            }
            Parts::Q8_0 { codes, scales } => {
                check("codes", codes.len(), shape.0 * shape.1)?;
                check("scales", scales.len(), Format::Q8_0.blocks(shape))?;
                let wide: Vec<f32> = scales.iter().map(|scale| scale.to_f32()).collect();
                finite("scales", &wide)?;
                let bits: Vec<i16> = scales.iter().map(|x| x.to_bits().cast_signed()).collect();
                Stored::Q8_0 {
                    codes: words(codes, device)?,
                    scales: from_host(&bits, bits.len(), device)?,
                }
            }
        };
        Ok(Self { shape, stored })
    }

    /// Its parts in host memory, as [`Self::new`] takes them.
    ///
    /// # Errors
    /// If the device fails.
    pub fn parts(&self) -> Result<Parts> {
        let (rows, columns) = self.shape;
        let bytes = |x: &Tensor, len: usize| -> Result<Vec<u8>> {
            let mut bytes: Vec<u8> = to_host(x)?;
            bytes.truncate(len);
            Ok(bytes)
        };
        Ok(match &self.stored {
            Stored::Nf4 { codes, map, scales } => Parts::Nf4 {
                codes: bytes(codes, (rows * columns).div_ceil(2))?,
                map: to_host(map)?,
                scales: match scales {
                    Scales::Plain(scales) => Scales::Plain(to_host(scales)?),
                    Scales::Double {
                        codes,
                        nested,
                        map,
                        offset,
                    } => Scales::Double {
                        codes: bytes(codes, self.format().blocks(self.shape))?,
                        nested: to_host(nested)?,
                        map: to_host(map)?,
                        offset: *offset,
                    },
                },
            },
            Stored::Q8_0 { codes, scales } => Parts::Q8_0 {
                codes: bytes(codes, rows * columns)?,
                scales: to_host::<i16>(scales)?
                    .into_iter()
                    .map(|bits| f16::from_bits(bits.cast_unsigned()))
                    .collect(),
            },
        })
    }

    /// How it is stored.
    pub fn format(&self) -> Format {
        match &self.stored {
            Stored::Nf4 { scales, .. } => Format::Nf4 {
                double: matches!(scales, Scales::Double { .. }),
            },
            Stored::Q8_0 { .. } => Format::Q8_0,
        }
    }

    /// (rows, in).
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> u64 {
        self.format().bytes(self.shape)
    }

    pub(in crate::kernels) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// One of its tensors: all lie on one device.
    pub(in crate::kernels) fn codes(&self) -> &Tensor {
        match &self.stored {
            Stored::Nf4 { codes, .. } | Stored::Q8_0 { codes, .. } => codes,
        }
    }
}

impl Format {
    /// The bytes of a matrix of that shape.
    pub fn bytes(self, shape: (usize, usize)) -> u64 {
        let (n, blocks) = (shape.0 * shape.1, self.blocks(shape));
        // Of codes whole words, of values of codes 16 and 256.
        let words = |bytes: usize| bytes.next_multiple_of(4);
        let bytes = match self {
            Self::Nf4 { double: false } => words(n.div_ceil(2)) + 4 * 16 + 4 * blocks,
            Self::Nf4 { double: true } => {
                let nested = 4 * blocks.div_ceil(NESTED_BLOCK) + 4 * 256;
                words(n.div_ceil(2)) + 4 * 16 + words(blocks) + nested
            }
            Self::Q8_0 => words(n) + 2 * blocks,
        };
        bytes as u64
    }

    /// The blocks of a matrix.
    fn blocks(self, (rows, columns): (usize, usize)) -> usize {
        (rows * columns).div_ceil(self.block())
    }
}

fn check(what: &str, len: usize, expected: usize) -> Result<()> {
    match len == expected {
        true => Ok(()),
        false => Err(Error::input(format!("{len} {what} instead of {expected}"))),
    }
}

fn finite(what: &str, values: &[f32]) -> Result<()> {
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(Error::input(format!("NaN or infinity among the {what}"))),
    }
}

fn floats(values: &[f32], what: &str, expected: usize, device: &Device) -> Result<Tensor> {
    check(what, values.len(), expected)?;
    finite(what, values)?;
    from_host(values, values.len(), device)
}

fn words(mut bytes: Vec<u8>, device: &Device) -> Result<Tensor> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    from_host(&bytes, bytes.len(), device)
}
