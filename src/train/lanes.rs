//! The lanes of a run's steps, and which rank computes which.
//!
//! Hides how ranks tell each other what they computed, and the order of sums.
//!
//! *Why*: a sum of f32 depends on its order. So the gradient of a step is defined as a sum of lanes in a
//! fixed tree, and ranks enter nowhere: tree(lanes) is tree(first half) + tree(second half), and where
//! lanes cannot be halved, one after the other. Lane `slot * ranks + rank` is that rank's, so that a rank
//! adds its lanes last, each summed over ranks before, and keeps few of them.

use std::ops::Range;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use candle_core::Tensor;

use crate::data::deal;
use crate::error::{Error, Result};
use crate::io::lock::LOCK;
use crate::kernels::device::zeros;
use crate::kernels::{elementwise, exchange};
use crate::model::parameters::Params;
use crate::ranks::Ranks;

/// Lanes of a run under a launcher of several ranks, unless its config says otherwise.
const DEFAULT: usize = 8;

/// Elements that pieces are made of.
const UNIT: usize = 1 << 14;

/// How many lanes a step has, and the ranks that compute them.
#[derive(Debug)]
pub(super) struct Lanes {
    ranks: Ranks,
    count: usize,
}

/// The number of lanes of a run: that of its config, else `before`, where the run goes on, else the default.
///
/// # Errors
/// If the ranks cannot share so many lanes.
pub(super) fn count(asked: Option<usize>, before: Option<usize>, ranks: &Ranks) -> Result<usize> {
    let size = ranks.size();
    let default = if size > 1 { DEFAULT.max(size) } else { 1 };
    let count = asked.or(before).unwrap_or(default);
    if count.is_multiple_of(size) && (count / size).is_power_of_two() {
        return Ok(count);
    }
    let fits = |ranks: &usize| count.is_multiple_of(*ranks) && (count / ranks).is_power_of_two();
    let fitting: Vec<String> = (1..=count).filter(fits).map(|n| n.to_string()).collect();
    let fact = format!("{size} ranks cannot share {count} lanes");
    let fitting = fitting.join(", ");
    let error = Error::input(fact).at_key("batch.lanes");
    Err(match before {
        Some(_) => error.hint(format!(
            "the run goes on with its {count} lanes: start one of {fitting} ranks"
        )),
        None => error.hint(format!(
            "start one of {fitting} ranks, or set a multiple of {size} by a power of two"
        )),
    })
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

    /// The sum of a step's lanes, of which there is none yet.
    pub fn sum(&self, gradients: &Params) -> Result<LaneSum<'_>> {
        let ranks = self.ranks.size();
        let pieces = pieces(gradients.layout().trainable_len, ranks);
        let own = pieces[self.ranks.rank()].len();
        let piece = match ranks {
            1 => None,
            _ => {
                let like = gradients.flat();
                Some(zeros(own, like.dtype(), like.device())?)
            }
        };
        Ok(LaneSum {
            lanes: self,
            pieces,
            piece,
            waiting: Vec::new(),
            added: 0,
        })
    }
}

/// Whole units of a buffer of `len` elements for each rank, as evenly as they can be.
fn pieces(len: usize, ranks: usize) -> Vec<Range<usize>> {
    let units = len.div_ceil(UNIT);
    let start = |rank: usize| (units * rank / ranks * UNIT).min(len);
    (0..ranks)
        .map(|rank| start(rank)..start(rank + 1))
        .collect()
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
    /// the last one `gradients` is the sum, else it is free.
    pub fn add(&mut self, what: &str, gradients: &mut Params) -> Result<()> {
        self.added += 1;
        let slots = self.lanes.count / self.lanes.ranks.size();
        let is_last = self.added == slots;
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
        match &self.piece {
            None => Ok(()),
            Some(piece) => {
                let ranks = &self.lanes.ranks;
                exchange::gather(ranks, what, piece, &self.pieces, gradients.flat_mut())
            }
        }
    }
}

/// Refuses a directory that ranks do not share: the first one has just locked it.
pub(super) fn check_shared(ranks: &Ranks, folder: &Path) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let path = folder.join(LOCK);
    let mut owner = std::fs::read(&path).unwrap_or_default();
    ranks.broadcast("the owner of the run's directory", &mut owner)?;
    // A network file system may show a new file a moment later.
    for _ in 0..50 {
        if std::fs::read(&path).is_ok_and(|here| here == owner) {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    let fact = format!(
        "rank {} does not see what rank 0 has written there",
        ranks.rank()
    );
    Err(Error::input(fact)
        .at(folder.display())
        .hint("choose a run.output_dir on a file system that all ranks share"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_units_and_all_of_it() {
        for len in [0, 1, UNIT, 3 * UNIT + 5, 100 * UNIT - 1] {
            for ranks in 1..9 {
                let pieces = pieces(len, ranks);
                assert_eq!((pieces[0].start, pieces[ranks - 1].end), (0, len));
                assert!(pieces.windows(2).all(|two| two[0].end == two[1].start));
                assert!(
                    pieces
                        .iter()
                        .all(|piece| piece.start % UNIT == 0 || piece.is_empty())
                );
            }
        }
    }

    #[test]
    fn a_run_keeps_its_lanes() {
        let alone = Ranks::alone();
        assert_eq!(count(None, None, &alone).unwrap(), 1);
        assert_eq!(count(None, Some(8), &alone).unwrap(), 8);
        assert_eq!(count(Some(4), Some(8), &alone).unwrap(), 4);
        let error = count(Some(6), None, &alone).unwrap_err().to_string();
        assert!(error.contains("one of 3, 6 ranks"), "{error}");
    }
}
