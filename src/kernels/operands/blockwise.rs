//! Numbers in 8 bits: a code each, and an f32 per block.
//!
//! ```text
//! x = map[code] * absmax        absmax = the largest |x| of a block of 256
//! ```
//!
//! The maps are the dynamic ones of Dettmers et al. 2022 (8-bit Optimizers via Block-wise Quantization),
//! with the values of bitsandbytes' `create_dynamic_map`: decades from 1e-7 to 1, each with twice as
//! many numbers as the one below, evenly apart. One map is for numbers of either sign, one for numbers
//! of at least 0, which has twice as many in each decade.
//!
//! A code is that of the nearest number, the lower one of a tie. With one exception, of ours: in the map
//! without signs only 0 itself gets the code of 0. *Why*: a mean of squares is divided by. Where it is
//! rounded to 0 beside a mean that is not, the weight moves by the mean over epsilon, thousands of
//! learning rates; rounded up it moves by less than it should.

use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::kernels::device::from_host;
use crate::kernels::tensor::Dst;

/// Elements that share an `absmax`.
pub const BLOCK: usize = 256;

/// Codes of a byte.
pub(in crate::kernels) const CODES: usize = 256;

/// Numbers in 8 bits, to be read and written.
#[derive(Debug)]
pub struct Coded<'a> {
    /// u8, (n).
    pub codes: Dst<'a>,
    /// f32, (n / [`BLOCK`], rounded up).
    pub absmax: Dst<'a>,
}

impl Coded<'_> {
    /// # Errors
    /// If they are not n numbers, without gaps, of these types.
    pub(in crate::kernels) fn check(&self, n: usize) -> Result<()> {
        let parts = [
            (&*self.codes, DType::U8, n),
            (&*self.absmax, DType::F32, n.div_ceil(BLOCK)),
        ];
        let fits = |(x, dtype, n): &(&Tensor, DType, usize)| {
            x.is_contiguous() && x.dtype() == *dtype && x.elem_count() == *n
        };
        if parts.iter().all(fits) {
            return Ok(());
        }
        let got = parts.map(|(x, ..)| (x.dtype(), x.elem_count()));
        Err(Error::failed(format!("{got:?} for {n} numbers in 8 bits")))
    }
}

/// The maps on a device.
#[derive(Debug)]
pub struct Maps(Tensor);

impl Maps {
    /// On this device.
    pub fn new(device: &Device) -> Result<Self> {
        let tables = [&*SIGNED, &*UNSIGNED];
        let values = tables.map(|table| [table.map, table.bounds].concat());
        let values = values.concat();
        Ok(Self(from_host(&values, values.len(), device)?))
    }

    /// f32, (4 * 256): with signs the map and its bounds, then those without.
    pub(in crate::kernels) fn tensor(&self) -> &Tensor {
        &self.0
    }
}

/// A map and how numbers find their codes in it.
pub(in crate::kernels) struct Table {
    /// In ascending order.
    pub map: [f32; CODES],
    /// The largest number that gets each code; of the last, infinity.
    pub bounds: [f32; CODES],
    /// Of every upper half of an f32's bits the lowest code of the numbers that begin so. There is at
    /// most one bound among them.
    cells: Vec<u8>,
}

/// The map for numbers of either sign.
pub(in crate::kernels) static SIGNED: LazyLock<Table> = LazyLock::new(|| Table::new(true));

/// The map for numbers of at least 0.
pub(in crate::kernels) static UNSIGNED: LazyLock<Table> = LazyLock::new(|| Table::new(false));

/// Decades of a map.
const DECADES: i32 = 7;

impl Table {
    fn new(signed: bool) -> Self {
        let map = map(signed);
        let mut bounds = [f32::INFINITY; CODES];
        for (bound, pair) in bounds.iter_mut().zip(map.windows(2)) {
            *bound = f32::midpoint(pair[0], pair[1]);
        }
        if !signed {
            bounds[0] = 0.0;
        }
        let cell = |upper: u32| {
            // Of negative numbers those with the largest bits are the lowest.
            let lower = if upper >> 15 == 1 { 0xffff } else { 0 };
            let lowest = f32::from_bits(upper << 16 | lower);
            bounds[..CODES - 1].partition_point(|bound| *bound < lowest) as u8
        };
        Self {
            map,
            bounds,
            cells: (0..1 << 16).map(cell).collect(),
        }
    }

    /// The code of a number in [-1, 1].
    #[inline(always)]
    pub fn code(&self, x: f32) -> u8 {
        let code = self.cells[(x.to_bits() >> 16) as usize];
        code + u8::from(x > self.bounds[usize::from(code)])
    }
}

/// bitsandbytes' `create_dynamic_map`, bit for bit.
fn map(signed: bool) -> [f32; CODES] {
    let (mut map, mut count) = ([0.0f32; CODES], 0);
    let mut add = |x: f32| {
        map[count] = x;
        count += 1;
    };
    add(0.0);
    add(1.0);
    for decade in 0..DECADES {
        let parts = 1 << (decade + i32::from(!signed));
        let unit = 10f64.powi(decade + 1 - DECADES) as f32;
        // As torch's linspace does: from both ends, each with one rounding.
        let step = (1.0 - 0.1f32) / parts as f32;
        let edge = |k: i32| match k < (parts + 1) / 2 {
            true => step.mul_add(k as f32, 0.1),
            false => (-step).mul_add((parts - k) as f32, 1.0),
        };
        for k in 0..parts {
            let x = unit * ((edge(k) + edge(k + 1)) / 2.0);
            add(x);
            if signed {
                add(-x);
            }
        }
    }
    map.sort_unstable_by(f32::total_cmp);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_that_of_the_nearest_number() {
        for (table, signed) in [(&*SIGNED, true), (&*UNSIGNED, false)] {
            let nearest = |x: f32| {
                let off = |code: &usize| (f64::from(table.map[*code]) - f64::from(x)).abs();
                let codes = (0..CODES).min_by(|a, b| off(a).total_cmp(&off(b)));
                codes.unwrap() as u8
            };
            let check = |x: f32| {
                let (got, want) = (table.code(x), nearest(x));
                let want = if !signed && x > 0.0 {
                    want.max(1)
                } else {
                    want
                };
                assert_eq!(got, want, "{x:e}");
            };
            for (code, &x) in table.map.iter().enumerate() {
                assert_eq!(usize::from(table.code(x)), code);
            }
            for bound in &table.bounds[..CODES - 1] {
                // A midpoint that is rounded is nearer to one side.
                check(bound.next_up().next_up());
                check(bound.next_down().next_down().max(table.map[0]));
            }
            for bits in (0..=1f32.to_bits()).step_by(4099) {
                check(f32::from_bits(bits));
                if signed {
                    check(-f32::from_bits(bits));
                }
            }
        }
        assert_eq!(SIGNED.code(-0.0), SIGNED.code(0.0));
        assert_eq!(UNSIGNED.code(1e-45), 1);
    }

    #[test]
    fn no_cell_has_two_bounds() {
        for table in [&*SIGNED, &*UNSIGNED] {
            for upper in 0..1u32 << 16 {
                let ends = [0, 0xffff].map(|lower| f32::from_bits(upper << 16 | lower));
                if ends.iter().any(|x| x.is_nan() || x.abs() > 1.0) {
                    continue;
                }
                let [low, high] = [ends[0].min(ends[1]), ends[0].max(ends[1])];
                let within = |bound: &&f32| **bound >= low && **bound < high;
                assert!(table.bounds.iter().filter(within).count() <= 1, "{low}");
            }
        }
    }
}
