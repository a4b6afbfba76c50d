//! The order of an epoch.
//!
//! Hides the random numbers behind a pure function.
//!
//! *Why*: a resumed run must see the rows of the run that was interrupted, and a run of next year
//! those of today. So the shuffle is our own and versioned, not a library's that may change.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Changing the algorithm means changing this text, and with it every order.
const VERSION: &[u8; 16] = b"expo order v1   ";

/// The number of the algorithm: runs of one number see rows in one order.
pub const ORDER_VERSION: u32 = 1;

/// The permutation of `0..n` for one epoch: the identity unless `shuffle`.
///
/// Fisher-Yates over ChaCha8 keyed by (seed, epoch); every permutation is equally likely.
pub fn epoch_order(n: usize, seed: u64, epoch: u64, shuffle: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    if shuffle {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..].copy_from_slice(VERSION);
        let mut rng = ChaCha8Rng::from_seed(key);
        for last in (1..n).rev() {
            order.swap(last, below(&mut rng, last as u64 + 1) as usize);
        }
    }
    order
}

/// Uniform in 0..bound: the high half of a 128-bit product, drawn again in the sliver of low halves
/// that would favour some values (Lemire 2019).
pub(in crate::data) fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    let sliver = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= sliver {
            return (product >> 64) as u64;
        }
    }
}
