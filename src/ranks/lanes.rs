//! How the work of a step is divided: lanes, and pieces of the parameters.

use std::ops::Range;

use crate::error::{Error, Result};

/// Lanes of a run on several ranks, unless its config says otherwise.
const DEFAULT: usize = 8;

/// The number of lanes of a run on so many ranks: that of its config, else `before`, where the run goes on, else
/// 8 on several ranks and 1 on one.
///
/// # Errors
/// If the ranks cannot share so many lanes.
pub fn lanes(asked: Option<usize>, before: Option<usize>, size: usize) -> Result<usize> {
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

/// Cuts what has its parts end at `ends`, ascending, into a piece of whole parts for each rank, one behind the other
/// and as even as they can be; with fewer parts than ranks some pieces are empty.
pub fn pieces(ends: &[usize], ranks: usize) -> Vec<Range<usize>> {
    let (mut start, len) = (0, ends.last().copied().unwrap_or(0));
    let pieces = (1..=ranks).map(|rank| {
        let even = len * rank / ranks;
        let later = ends.iter().copied().filter(|end| *end >= start);
        let nearest = later.min_by_key(|end| end.abs_diff(even));
        let end = if rank == ranks {
            len
        } else {
            nearest.unwrap_or(len)
        };
        let piece = start..end;
        start = end;
        piece
    });
    pieces.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_of_whole_parameters_and_all_of_them() {
        let ends = [400, 403, 406, 496, 586, 1286, 1289, 1379, 1469];
        for ranks in 1..12 {
            let pieces = pieces(&ends, ranks);
            assert_eq!((pieces[0].start, pieces[ranks - 1].end), (0, 1469));
            assert!(pieces.windows(2).all(|two| two[0].end == two[1].start));
            let is_end = |at: usize| at == 0 || ends.contains(&at);
            let is_whole = |piece: &Range<usize>| is_end(piece.start) && is_end(piece.end);
            assert!(pieces.iter().all(is_whole), "{pieces:?}");
        }
        assert_eq!(pieces(&ends, 2), [0..586, 586..1469]);
        assert_eq!(pieces(&[], 3), [0..0, 0..0, 0..0]);
    }

    #[test]
    fn a_run_keeps_its_lanes() {
        assert_eq!(lanes(None, None, 1).unwrap(), 1);
        assert_eq!(lanes(None, None, 4).unwrap(), 8);
        assert_eq!(lanes(None, Some(8), 1).unwrap(), 8);
        assert_eq!(lanes(Some(4), Some(8), 1).unwrap(), 4);
        assert_eq!(lanes(Some(6), None, 3).unwrap(), 6);
        assert!(lanes(None, Some(1), 2).is_err());
        let error = lanes(Some(6), None, 1).unwrap_err().to_string();
        assert!(error.contains("one of 3, 6 ranks"), "{error}");
    }
}
