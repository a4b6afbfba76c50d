//! The rows of a step, dealt to lanes.
//!
//! A lane is a share of a step whose gradient is summed by itself. How many lanes there are is part of a
//! run, which device computes which lane is not: so the result does not depend on how many devices there
//! are. Longest first, so that all lanes take about as long: with rows dealt in turn the longest lane
//! would have others wait for a quarter of the time.

use std::cmp::Reverse;

/// Deals rows of these costs to `lanes` lanes: the most costly first, each to the lane that has the
/// least so far; of equals the first. Returns each lane's places in `costs`, ascending.
pub fn deal(costs: &[u64], lanes: usize) -> Vec<Vec<usize>> {
    let mut dealt = vec![(0, Vec::new()); lanes];
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by_key(|&place| (Reverse(costs[place]), place));
    for place in order {
        let emptiest = dealt.iter_mut().min_by_key(|(cost, _)| *cost);
        let Some((cost, places)) = emptiest else {
            break;
        };
        *cost += costs[place];
        places.push(place);
    }
    let lanes = dealt.into_iter().map(|(_, mut places)| {
        places.sort_unstable();
        places
    });
    lanes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_lane_and_lanes_are_in_order() {
        for lanes in 1..10 {
            let costs: Vec<u64> = (0..64).map(|row| row * 7919 % 97 + 1).collect();
            let dealt = deal(&costs, lanes);
            assert_eq!(dealt.len(), lanes);
            assert!(dealt.iter().all(|lane| lane.is_sorted()));
            let mut all = dealt.concat();
            all.sort_unstable();
            assert_eq!(all, (0..64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_lane_has_the_rows_as_they_come() {
        assert_eq!(deal(&[3, 9, 1], 1), [[0, 1, 2]]);
    }

    #[test]
    fn the_longest_lane_is_at_most_a_row_longer_than_the_shortest() {
        let costs: Vec<u64> = (0..100).map(|row| row * row % 211 + 40).collect();
        let cost = |lane: &Vec<usize>| lane.iter().map(|&place| costs[place]).sum::<u64>();
        let costs_of: Vec<u64> = deal(&costs, 8).iter().map(cost).collect();
        let (least, most) = (costs_of.iter().min(), costs_of.iter().max());
        let row = costs.iter().max().unwrap();
        assert!(most.unwrap() - least.unwrap() <= *row, "{costs_of:?}");
    }

    #[test]
    fn of_fewer_rows_than_lanes_some_lanes_have_none() {
        assert_eq!(deal(&[5, 5], 4), [vec![0], vec![1], vec![], vec![]]);
        assert_eq!(deal(&[], 2), [[0usize; 0]; 2]);
    }
}
