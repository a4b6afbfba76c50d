//! How ranks that do not come are named.

use std::time::Duration;

use crate::error::Error;

/// The error of ranks that did not come, whichever they are: NCCL does not say.
pub(super) fn late(limit: Duration) -> Error {
    let time = in_words(limit);
    Error::rank(format!("not all other ranks have come in {time}"))
}

/// The error of ranks that did not come.
pub(super) fn missing(what: &str, mut ranks: Vec<usize>, limit: Duration) -> Error {
    ranks.sort_unstable();
    ranks.dedup();
    let (noun, verb) = match ranks.len() {
        1 => ("rank", "has"),
        _ => ("ranks", "have"),
    };
    let ranks = listed(&ranks);
    Error::rank(format!(
        "{noun} {ranks} {verb} not come in {}",
        in_words(limit)
    ))
    .at(what)
}

/// Ranks in ascending order as people write them: `0-3, 6`.
pub fn listed(ranks: &[usize]) -> String {
    let runs = ranks.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        run => run.iter().map(ToString::to_string).collect(),
    };
    runs.map(run).collect::<Vec<_>>().join(", ")
}

fn in_words(time: Duration) -> String {
    let (number, unit) = match time.as_secs() {
        0 => return format!("{} ms", time.as_millis()),
        seconds if seconds.is_multiple_of(3600) => (seconds / 3600, "hour"),
        seconds if seconds.is_multiple_of(60) => (seconds / 60, "minute"),
        seconds => (seconds, "second"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_missing_is_said_in_words() {
        let said = |ranks: &[usize], seconds| {
            let limit = Duration::from_secs(seconds);
            missing("gradients of step 812", ranks.to_vec(), limit).to_string()
        };
        assert_eq!(
            said(&[5, 5], 600),
            "gradients of step 812: rank 5 has not come in 10 minutes"
        );
        assert_eq!(
            said(&[6, 2, 1, 0, 2], 1),
            "gradients of step 812: ranks 0-2, 6 have not come in 1 second"
        );
        assert_eq!(in_words(Duration::from_secs(7200)), "2 hours");
        assert_eq!(in_words(Duration::from_millis(300)), "300 ms");
    }
}
