//! What the lanes of a warp do together.

use super::program::{Register, Row, Shuffle};
use super::warp::{ALL, each};

/// What `.aligned` asks for.
pub fn together(lanes: u32) -> Result<(), String> {
    match lanes {
        ALL => Ok(()),
        _ => Err("not all lanes of the warp come together".into()),
    }
}

/// Whether all lanes that an instruction names have come to it.
pub fn members_are_here(members: &Row, lanes: u32, ended: u32) -> Result<bool, String> {
    let mut named = each(lanes).map(|lane| members[lane] as u32);
    let mask = named.next().unwrap_or(0);
    if named.any(|other| other != mask) || lanes & !mask != 0 {
        return Err("lanes that name different members".into());
    }
    match mask & ended {
        0 => Ok(mask & !lanes == 0),
        _ => Err("a member that has ended".into()),
    }
}

/// Where a lane's value comes from, and whether that is within its segment.
pub fn source(kind: Shuffle, lane: usize, by: usize, clamp: usize) -> (usize, bool) {
    let (by, most, segment) = (by & 31, clamp & 31, clamp >> 8 & 31);
    let first = lane & segment;
    let last = first | (most & !segment);
    let (from, within) = match kind {
        Shuffle::Up => (lane.wrapping_sub(by), lane >= last + by),
        Shuffle::Down => (lane + by, lane + by <= last),
        Shuffle::Xor => (lane ^ by, lane ^ by <= last),
        Shuffle::Index => {
            let from = first | (by & !segment);
            (from, from <= last)
        }
    };
    if within { (from, true) } else { (lane, false) }
}

/// The product of (16, 16) and (16, 8), whose fragments PTX defines: rows g and g + 8, columns or rows
/// 2 t + {0, 1, 8, 9}. Sums of exact products in f64, rounded once.
pub fn multiply(registers: &mut [Row], [d, a, b, c]: &[Vec<Register>; 4]) {
    let half = |bits: u64, upper: usize| {
        let bits = (bits >> (16 * upper)) as u16;
        f64::from(f32::from_bits(u32::from(bits) << 16))
    };
    let (mut left, mut right) = ([[0.0; 16]; 16], [[0.0; 16]; 8]);
    let value = |register: Register, lane: usize| registers[register][lane];
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for upper in 0..2 {
            for (q, &a) in a.iter().enumerate() {
                left[g + 8 * (q % 2)][2 * t + upper + 8 * (q / 2)] = half(value(a, lane), upper);
            }
            for (q, &b) in b.iter().enumerate() {
                right[g][2 * t + upper + 8 * q] = half(value(b, lane), upper);
            }
        }
    }
    let mut sums = [[0u64; 32]; 4];
    for (q, sums) in sums.iter_mut().enumerate() {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let (row, column) = (lane / 4 + 8 * (q / 2), lane % 4 * 2 + q % 2);
            let products = left[row].iter().zip(&right[column]).map(|(a, b)| a * b);
            let added = f32::from_bits(value(c[q], lane) as u32);
            *sum = ((products.sum::<f64>() + f64::from(added)) as f32)
                .to_bits()
                .into();
        }
    }
    for (&d, sums) in d.iter().zip(sums) {
        registers[d] = sums;
    }
}
