//! A block of attention scores to probabilities, and their gradient to that of the scores.
//!
//! In `softmax` and `probabilities` rows of `width` scores are those of consecutive queries; row r sees the
//! keys before `visible + r`, of which a window hides all but the last `window`.

use super::real::Real;
use super::simd::{LANES, sum, vectorized};

/// The keys that a row sees.
#[inline(always)]
fn seen(row: usize, visible: usize, window: usize) -> (usize, usize) {
    let end = visible + row;
    (end.saturating_sub(window), end)
}

vectorized! {
    /// Turns scores into probabilities of `scores * scale`, 0 where a key is not seen; gives the log
    /// of each row's sum of exponentials.
    pub(super) fn softmax<T: Real>(
        scores: &mut [T],
        width: usize,
        visible: usize,
        window: usize,
        scale: T,
        log_sum_exp: &mut [T],
    ) {
        for (row, (scores, out)) in scores.chunks_exact_mut(width).zip(log_sum_exp).enumerate() {
            let (start, end) = seen(row, visible, window);
            let max = largest(&scores[start..end]);
            let sum = exponentials(&mut scores[start..end], scale, max * scale);
            let inverse = T::ONE / sum;
            for p in &mut scores[start..end] {
                *p *= inverse;
            }
            scores[..start].fill(T::ZERO);
            scores[end..].fill(T::ZERO);
            *out = max * scale + sum.log();
        }
    }
}

vectorized! {
    /// Turns scores into the same probabilities once more, given each row's log of the sum.
    pub(super) fn probabilities<T: Real>(
        scores: &mut [T],
        width: usize,
        visible: usize,
        window: usize,
        scale: T,
        log_sum_exp: &[T],
    ) {
        for (row, (scores, &shift)) in scores.chunks_exact_mut(width).zip(log_sum_exp).enumerate() {
            let (start, end) = seen(row, visible, window);
            for p in &mut scores[start..end] {
                *p = Real::exp(*p * scale - shift);
            }
            scores[..start].fill(T::ZERO);
            scores[end..].fill(T::ZERO);
        }
    }
}

vectorized! {
    /// Turns the gradient with respect to probabilities into that with respect to unscaled scores.
    pub(super) fn differentiate<T: Real>(dp: &mut [T], p: &[T], width: usize, scale: T) {
        for (dp, p) in dp.chunks_exact_mut(width).zip(p.chunks_exact(width)) {
            let along = sum(dp, p, |dp, p| dp * p);
            for (dp, &p) in dp.iter_mut().zip(p) {
                *dp = p * (*dp - along) * scale;
            }
        }
    }
}

/// `cap tanh(score scale / cap)`.
#[inline(always)]
pub(super) fn capped<T: Real>(score: T, scale: T, cap: T) -> T {
    cap * Real::tanh(score * (scale / cap))
}

vectorized! {
    /// Turns unscaled scores into scaled ones below a soft cap.
    pub(super) fn soft_cap<T: Real>(scores: &mut [T], scale: T, cap: T) {
        for score in scores {
            *score = capped(*score, scale, cap);
        }
    }
}

vectorized! {
    /// The derivatives of [`soft_cap`] by the scaled scores, at the scores that it made.
    pub(super) fn cap_slopes<T: Real>(slopes: &mut [T], scores: &[T], cap: T) {
        for (slope, &score) in slopes.iter_mut().zip(scores) {
            let share = score / cap;
            *slope = T::ONE - share * share;
        }
    }
}

vectorized! {
    pub(super) fn multiply<T: Real>(x: &mut [T], factors: &[T]) {
        for (x, &factor) in x.iter_mut().zip(factors) {
            *x *= factor;
        }
    }
}

#[inline(always)]
fn largest<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = lane.larger(x);
    }
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.larger(x);
        }
    }
    lanes.into_iter().fold(T::NEG_INFINITY, T::larger)
}

/// `e^(x scale - shift)` in place, and its sum.
#[inline(always)]
fn exponentials<T: Real>(x: &mut [T], scale: T, shift: T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let mut chunks = x.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = Real::exp(*x * scale - shift);
            *lane += *x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(chunks.into_remainder()) {
        *x = Real::exp(*x * scale - shift);
        *lane += *x;
    }
    lanes.into_iter().sum()
}
