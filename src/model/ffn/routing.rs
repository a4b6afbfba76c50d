//! Which experts each token uses, with what weights.
//!
//! *Why* on the host: the matmuls of experts are launched by it, one for each expert that has tokens, so
//! it must know how many each has. The numbers are few beside the tokens' widths.

use std::ops::Range;

/// The experts of a batch's tokens.
#[derive(Debug)]
pub(super) struct Routing {
    per_token: usize,
    normalized: bool,
    /// (tokens, experts): the softmax of the router's logits.
    probabilities: Vec<f64>,
    /// (tokens, per_token): each token's experts, the most probable first.
    experts: Vec<usize>,
    /// (tokens, per_token): the place of token and expert among those sorted by expert, then by token.
    places: Vec<u32>,
    /// By expert: its places.
    ranges: Vec<Range<usize>>,
}

impl Routing {
    /// From the logits of a router, (tokens, experts): the `per_token` largest of their softmax, of equal
    /// ones the first; divided by their sum where `normalized`.
    pub(super) fn new(
        mut logits: Vec<f64>,
        experts: usize,
        per_token: usize,
        normalized: bool,
    ) -> Self {
        logits.chunks_exact_mut(experts).for_each(softmax);
        let probabilities = logits;
        let mut chosen = Vec::with_capacity(probabilities.len() / experts * per_token);
        let mut order: Vec<usize> = Vec::with_capacity(experts);
        for row in probabilities.chunks_exact(experts) {
            order.clear();
            order.extend(0..experts);
            // A stable sort keeps the first of equal ones first.
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            chosen.extend_from_slice(&order[..per_token]);
        }
        let mut ends = vec![0; experts];
        chosen.iter().for_each(|&expert| ends[expert] += 1);
        let mut next = 0;
        let ranges: Vec<Range<usize>> = ends
            .iter()
            .map(|count| {
                let start = next;
                next += count;
                start..next
            })
            .collect();
        let mut free: Vec<usize> = ranges.iter().map(|range| range.start).collect();
        let mut take = |&expert: &usize| {
            let place = free[expert];
            free[expert] += 1;
            place as u32
        };
        let places = chosen.iter().map(&mut take).collect();
        Self {
            per_token,
            normalized,
            probabilities,
            experts: chosen,
            places,
            ranges,
        }
    }

    /// By expert: its places.
    pub(super) fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// (places): the token of each place.
    pub(super) fn tokens(&self) -> Vec<u32> {
        let mut tokens = vec![0; self.places.len()];
        for (at, &place) in self.places.iter().enumerate() {
            tokens[place as usize] = (at / self.per_token) as u32;
        }
        tokens
    }

    /// (places): the weight of each place.
    pub(super) fn weights(&self) -> Vec<f64> {
        let mut weights = vec![0.0; self.places.len()];
        for (token, places) in self.places.chunks_exact(self.per_token).enumerate() {
            let (chosen, sum) = self.chosen(token);
            for (&place, weight) in places.iter().zip(chosen) {
                weights[place as usize] = weight / sum;
            }
        }
        weights
    }

    /// The gradient of the router's logits, (tokens, experts), given that of [`Self::weights`].
    pub(super) fn backward(&self, dweights: &[f64]) -> Vec<f64> {
        let experts = self.ranges.len();
        let mut dlogits = vec![0.0; self.probabilities.len()];
        for (token, dlogits) in dlogits.chunks_exact_mut(experts).enumerate() {
            let own = token * self.per_token..(token + 1) * self.per_token;
            let (chosen, sum) = self.chosen(token);
            let dweights = self.places[own.clone()]
                .iter()
                .map(|&place| dweights[place as usize]);
            let dweights: Vec<f64> = dweights.collect();
            // d (p / sum) is of every probability in the sum.
            let through_sum = match self.normalized {
                true => {
                    chosen
                        .iter()
                        .zip(&dweights)
                        .map(|(p, d)| p * d)
                        .sum::<f64>()
                        / sum
                }
                false => 0.0,
            };
            let probabilities = &self.probabilities[token * experts..][..experts];
            for (&expert, dweight) in self.experts[own].iter().zip(&dweights) {
                dlogits[expert] = (dweight - through_sum) / sum;
            }
            let mean: f64 = probabilities
                .iter()
                .zip(&*dlogits)
                .map(|(p, d)| p * d)
                .sum();
            for (dlogit, p) in dlogits.iter_mut().zip(probabilities) {
                *dlogit = p * (*dlogit - mean);
            }
        }
        dlogits
    }

    /// The probabilities of a token's experts, and what they are divided by.
    fn chosen(&self, token: usize) -> (Vec<f64>, f64) {
        let experts = self.ranges.len();
        let row = &self.probabilities[token * experts..][..experts];
        let own = &self.experts[token * self.per_token..][..self.per_token];
        let chosen: Vec<f64> = own.iter().map(|&expert| row[expert]).collect();
        let sum = match self.normalized {
            true => chosen.iter().sum(),
            false => 1.0,
        };
        (chosen, sum)
    }
}

fn softmax(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 8] = [0.3, -1.0, 2.0, 0.7, 0.1, 0.1, -2.0, 0.05];

    #[test]
    fn places_are_sorted_by_expert_and_then_by_token() {
        let routing = Routing::new(LOGITS.to_vec(), 4, 2, false);
        assert_eq!(routing.experts, [2, 3, 0, 1], "of equal ones the first");
        assert_eq!(routing.ranges(), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(routing.tokens(), [1, 1, 0, 0]);
        let weights = routing.weights();
        assert!(weights.iter().sum::<f64>() < 2.0);
        let shared = Routing::new(
            [LOGITS[..4].to_vec(), LOGITS[..4].to_vec()].concat(),
            4,
            1,
            true,
        );
        assert_eq!(shared.ranges(), [0..0, 0..0, 0..2, 2..2]);
        assert_eq!(
            (shared.tokens(), shared.weights()),
            (vec![0, 1], vec![1.0; 2])
        );
    }

    #[test]
    fn the_gradient_of_logits_is_that_of_finite_differences() {
        for normalized in [false, true] {
            let seeds = [0.7, -0.4, 1.3, 0.2];
            let value = |logits: &[f64]| -> f64 {
                let weights = Routing::new(logits.to_vec(), 4, 2, normalized).weights();
                weights.iter().zip(seeds).map(|(w, s)| w * s).sum()
            };
            // No two of a token's are equal: a choice that flips has no derivative.
            let mut logits = LOGITS;
            logits[5] = 0.2;
            let got = Routing::new(logits.to_vec(), 4, 2, normalized).backward(&seeds);
            for at in 0..logits.len() {
                let (mut above, mut below) = (logits, logits);
                above[at] += 1e-6;
                below[at] -= 1e-6;
                let want = (value(&above) - value(&below)) / 2e-6;
                assert!(
                    (got[at] - want).abs() < 1e-9,
                    "{normalized} {at}: {} {want}",
                    got[at]
                );
            }
        }
    }
}
