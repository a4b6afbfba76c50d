//! Values of all ranks, and failures that all of them learn of.
//!
//! *Why*: ranks make the same calls in the same order, or they wait for each other. So a failure that one rank
//! alone can have, and that it lives on after, is told to all before the next call.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::kernels::ranks::Ranks;

/// What every rank gives, in the order of ranks.
///
/// # Errors
/// [`Kind::Rank`] if the exchange fails.
pub fn share<T: Serialize + DeserializeOwned>(ranks: &Ranks, what: &str, own: T) -> Result<Vec<T>> {
    if ranks.size() == 1 {
        return Ok(vec![own]);
    }
    let failed = |error: postcard::Error| Error::failed(format!("{what}: {error}"));
    let own = postcard::to_allocvec(&own).map_err(failed)?;
    let all = ranks.gather(what, &own)?;
    let read = |bytes: &Vec<u8>| postcard::from_bytes(bytes).map_err(failed);
    all.iter().map(read).collect()
}

/// An error on its way to other ranks: its kind and its words.
#[derive(Serialize, Deserialize)]
struct Failure {
    kind: u8,
    text: String,
}

/// As [`share`], of what may have failed: then every rank has the failure of the lowest `place`, and of the first
/// rank among equals.
///
/// # Errors
/// That failure; as of [`share`].
pub fn share_results<T: Serialize + DeserializeOwned>(
    ranks: &Ranks,
    what: &str,
    own: Result<T>,
    place: usize,
) -> Result<Vec<T>> {
    if ranks.size() == 1 {
        return Ok(vec![own?]);
    }
    let mut kept = None;
    let own = own.map_err(|error| {
        let failure = Failure {
            kind: code(error.kind()),
            text: error.to_string(),
        };
        kept = Some(error);
        (place, failure)
    });
    let all = share(ranks, what, own)?;
    let failed = all.iter().enumerate();
    let failed = failed.filter_map(|(rank, of_rank)| {
        let (place, failure) = of_rank.as_ref().err()?;
        Some(((*place, rank), failure))
    });
    match failed.min_by_key(|(place, _)| *place) {
        None => Ok(all.into_iter().flatten().collect()),
        // In its own words where it is of this rank.
        Some(((_, rank), failure)) => Err(match kept {
            Some(error) if rank == ranks.rank() => error,
            _ => failure.error(),
        }),
    }
}

const CODES: [Kind; 5] = [
    Kind::Input,
    Kind::NonFinite,
    Kind::OutOfMemory,
    Kind::Rank,
    Kind::Failed,
];

fn code(kind: &Kind) -> u8 {
    let code = CODES.iter().position(|other| other == kind);
    code.unwrap_or(CODES.len() - 1) as u8
}

impl Failure {
    fn error(&self) -> Error {
        let text = self.text.as_str();
        match CODES.get(usize::from(self.kind)) {
            Some(Kind::Input) => Error::input(text),
            Some(Kind::NonFinite) => Error::non_finite(text),
            Some(Kind::OutOfMemory) => Error::out_of_memory("machine of another rank"),
            Some(Kind::Rank) => Error::rank(text),
            Some(Kind::Failed) | None => Error::failed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_there_is_one_value() {
        let all = share(&Ranks::alone(), "a", (1.5, f64::NAN.to_bits())).unwrap();
        assert_eq!(all, [(1.5, f64::NAN.to_bits())]);
        let all = share_results(&Ranks::alone(), "a", Ok(7), 0).unwrap();
        assert_eq!(all, [7]);
        let error = Error::non_finite("row 3");
        let got = share_results::<u8>(&Ranks::alone(), "a", Err(error.clone()), 0);
        assert_eq!(got.unwrap_err(), error);
    }

    #[test]
    fn a_failure_keeps_its_kind_and_its_words() {
        for error in [
            Error::input("beta").hint("> 0"),
            Error::non_finite("row 3"),
            Error::rank("rank 1 is late"),
            Error::failed("the disk is full").at("out"),
        ] {
            let failure = Failure {
                kind: code(error.kind()),
                text: error.to_string(),
            };
            let other = failure.error();
            assert_eq!(other.kind(), error.kind());
            assert_eq!(other.to_string(), error.to_string());
        }
    }
}
