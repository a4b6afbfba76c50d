//! How the work of a step is divided: lanes, and pieces of the parameters.

use std::ops::Range;

use crate::error::{Error, Result};

/// Lanes of a run on several ranks, unless its config says otherwise.
const DEFAULT: usize = 8;

/// The number of lanes of a run on so many ranks: that of its config, else `before`, where the run goes on, else
/// 1 in one process and otherwise 8, or one for each rank where there are more.
pub fn lanes(asked: Option<usize>, before: Option<usize>, ranks: usize) -> usize {
    let default = if ranks > 1 { DEFAULT.max(ranks) } else { 1 };
    asked.or(before).unwrap_or(default)
}

/// Refuses ranks that cannot share so many lanes: each has as many as the others, a power of two. `resumed` says
/// that a run has these lanes already.
pub fn check_lanes(lanes: usize, ranks: usize, resumed: bool) -> Result<()> {
    let fits = |ranks: usize| lanes.is_multiple_of(ranks) && (lanes / ranks).is_power_of_two();
    if fits(ranks) {
        return Ok(());
    }
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let fact = format!("{ranks} ranks cannot share {lanes} lane{}", plural(lanes));
    let error = Error::input(fact).at_key("batch.lanes");
    let fitting: Vec<String> = (1..=lanes)
        .filter(|&ranks| fits(ranks))
        .map(|ranks| ranks.to_string())
        .collect();
    let start = match fitting.as_slice() {
        [one] if one == "1" => "start one process".to_owned(),
        several => format!("start one of {} ranks", several.join(", ")),
    };
    Err(match resumed {
        true => error.hint(format!("the run has its lanes from before: {start}")),
        false => error.hint(format!(
            "{start}, or set a multiple of {ranks} by a power of two"
        )),
    })
}

/// Cuts what has its parts end at `ends`, ascending, into a piece of whole parts for each rank, one behind the other
/// and as even as they can be; with fewer parts than ranks some pieces are empty. Pieces begin at even places:
/// GPUs round two numbers by one random word.
pub fn pieces(ends: &[usize], ranks: usize) -> Vec<Range<usize>> {
    let (mut start, len) = (0, ends.last().copied().unwrap_or(0));
    let pieces = (1..=ranks).map(|rank| {
        let even = len * rank / ranks;
        let fits = |end: &usize| *end >= start && end.is_multiple_of(2);
        let later = ends.iter().copied().filter(fits);
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
        assert_eq!(pieces(&[3, 7, 9], 2), [0..9, 9..9]);
        assert_eq!(pieces(&[], 3), [0..0, 0..0, 0..0]);
    }

    #[test]
    fn a_run_keeps_its_lanes() {
        assert_eq!(lanes(None, None, 1), 1);
        assert_eq!(lanes(None, None, 4), 8);
        assert_eq!(lanes(None, None, 16), 16);
        assert_eq!(lanes(None, Some(8), 1), 8);
        assert_eq!(lanes(Some(4), Some(8), 1), 4);
    }

    #[test]
    fn ranks_that_fit_have_equally_many_lanes() {
        for (lanes, ranks) in [(8, 1), (8, 8), (8, 2), (6, 3), (1, 1), (3, 3)] {
            check_lanes(lanes, ranks, false).unwrap();
        }
        let refused = |lanes, ranks, resumed| {
            let error = check_lanes(lanes, ranks, resumed).unwrap_err();
            error.to_string()
        };
        let error = refused(1, 2, true);
        assert!(error.contains("share 1 lane; "), "{error}");
        assert!(error.ends_with("from before: start one process"), "{error}");
        let error = refused(6, 1, false);
        assert!(error.contains("one of 3, 6 ranks"), "{error}");
    }
}
