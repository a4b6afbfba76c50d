//! The lanes of a run's steps, and which rank computes which.
//!
//! Hides how ranks tell each other what they computed, and the order of sums.
//!
//! *Why*: a sum of f32 depends on its order. So the gradient of a step is defined as a sum of lanes in a
//! fixed tree, and ranks enter nowhere: tree(lanes) is tree(first half) + tree(second half), and where
//! lanes cannot be halved, one after the other. Lane `slot * ranks + rank` is that rank's, so that a rank
//! adds its lanes last, each summed over ranks before, and keeps few of them.

use std::ops::Range;

use candle_core::Tensor;

use super::non_finite::not_finite;
use crate::data::deal;
use crate::error::Result;
use crate::kernels::device::zeros;
use crate::kernels::{elementwise, exchange};
use crate::model::parameters::{Layout, Params};
use crate::optim::{Tried, gradient_norm, squared_norms};
use crate::ranks::{self, Ranks, share};

/// How many lanes a step has, and the ranks that compute them.
#[derive(Debug)]
pub(super) struct Lanes {
    ranks: Ranks,
    count: usize,
}

impl Lanes {
    pub fn new(ranks: Ranks, count: usize) -> Self {
        Self { ranks, count }
    }

    /// The ranks that compute them.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Whether the gradient of a step is a sum of several.
    pub fn are_several(&self) -> bool {
        self.count > 1
    }

    /// The places in a batch of so many rows that this rank's lanes have, a lane per slot. `costs` is asked
    /// for what each row costs, if that matters.
    pub fn own(
        &self,
        rows: usize,
        costs: impl FnOnce() -> Result<Vec<u64>>,
    ) -> Result<Vec<Vec<usize>>> {
        if self.count == 1 {
            return Ok(vec![(0..rows).collect()]);
        }
        let lanes = deal(&costs()?, self.count).into_iter();
        Ok(lanes
            .skip(self.ranks.rank())
            .step_by(self.ranks.size())
            .collect())
    }

    /// The elements of a buffer that this rank updates: those of whole parameters.
    pub fn piece(&self, layout: &Layout) -> Range<usize> {
        pieces(layout, self.ranks.size()).swap_remove(self.ranks.rank())
    }

    /// The global norm of gradients of which each rank has its piece. Where there are several lanes it is that of
    /// the norms of parameters, which no rank has a part of.
    pub fn norm(&self, gradients: &Params) -> Result<f64> {
        if self.count == 1 {
            return gradient_norm(gradients);
        }
        let own = squared_norms(gradients, &self.piece(gradients.layout()))?;
        let all = share(&self.ranks, "the norm of the gradients", own)?;
        Ok(all.iter().flatten().sum::<f64>().sqrt())
    }

    /// The parameters whose gradient is not finite, of gradients of which each rank has its piece.
    pub fn not_finite(&self, gradients: &Params) -> Result<Vec<String>> {
        let own = not_finite(gradients, &self.piece(gradients.layout()))?;
        Ok(share(&self.ranks, "parameters that are not finite", own)?.concat())
    }

    /// What came out of an update that was tried out, of all pieces.
    pub fn tried(&self, own: Tried) -> Result<Tried> {
        let all = share(&self.ranks, "an update that is tried out", own)?;
        Ok(Tried {
            largest: all.iter().map(|tried| tried.largest).fold(0.0, f64::max),
            overflows: all.into_iter().flat_map(|tried| tried.overflows).collect(),
        })
    }

    /// Gives every rank the weights that the others have updated.
    pub fn gather(&self, weights: &mut Params) -> Result<()> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let (largest, pieces) = (
            weights.largest(),
            pieces(weights.layout(), self.ranks.size()),
        );
        for values in weights.trained_mut()? {
            exchange::gather(&self.ranks, "the weights", &pieces, values)?;
        }
        weights.set_largest(largest);
        Ok(())
    }

    /// The sum of a step's lanes, of which there is none yet.
    pub fn sum(&self, gradients: &Params) -> Result<LaneSum<'_>> {
        let ranks = self.ranks.size();
        let pieces = pieces(gradients.layout(), ranks);
        let like = gradients.flat();
        let piece = || zeros(pieces[self.ranks.rank()].len(), like.dtype(), like.device());
        let piece = (ranks > 1).then(piece).transpose()?;
        Ok(LaneSum {
            lanes: self,
            pieces,
            piece,
            waiting: Vec::new(),
            added: 0,
        })
    }
}

/// Whole parameters for each rank, one range behind the other, as evenly as they can be: what a rank updates
/// and keeps the moments of.
fn pieces(layout: &Layout, ranks: usize) -> Vec<Range<usize>> {
    ranks::pieces(&layout.trained_ends(), ranks)
}

/// A sum of gradients, lane by lane.
pub(super) struct LaneSum<'a> {
    lanes: &'a Lanes,
    pieces: Vec<Range<usize>>,
    /// This rank's piece of the sum over ranks; `None` where it is alone and the piece is everything.
    piece: Option<Tensor>,
    /// Sums of 1, 2, 4, .. slots that wait for their other half.
    waiting: Vec<Option<Tensor>>,
    added: usize,
}

impl LaneSum<'_> {
    /// Adds the lane whose gradient `gradients` is, with those of the other ranks' lanes of this slot. After
    /// the last one this rank's piece of `gradients` is the sum; what else is in it is free.
    pub fn add(&mut self, what: &str, gradients: &mut Params) -> Result<()> {
        self.added += 1;
        let is_last = self.added == self.lanes.count / self.lanes.ranks.size();
        let whole = gradients.flat_mut();
        let mut whole = match &mut self.piece {
            None => whole,
            Some(piece) => {
                exchange::sum(&self.lanes.ranks, what, &whole, &self.pieces, &mut *piece)?;
                piece.into()
            }
        };
        let mut level = 0;
        while let Some(earlier) = self.waiting.get_mut(level).and_then(Option::take) {
            elementwise::add_assign(whole.reborrow(), &earlier)?;
            level += 1;
        }
        if !is_last {
            let own = elementwise::copy(&whole)?;
            self.waiting.resize(self.waiting.len().max(level + 1), None);
            self.waiting[level] = Some(own);
            return Ok(());
        }
        let Some(piece) = &self.piece else {
            return Ok(());
        };
        let own = &self.pieces[self.lanes.ranks.rank()];
        let cube = |x: &Tensor| x.unsqueeze(0)?.unsqueeze(0);
        let whole = gradients.flat_mut();
        let whole = whole.narrowed(|x| cube(&x.narrow(0, own.start, own.len())?))?;
        elementwise::assign(whole, &cube(piece)?)
    }
}
