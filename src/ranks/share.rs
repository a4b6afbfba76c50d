//! Values of all ranks, and work that they share.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::kernels::ranks::Ranks;

/// What every rank gives, in the order of ranks.
///
/// # Errors
/// [`Kind::Rank`](crate::error::Kind::Rank) if the exchange fails.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_there_is_one_value() {
        let all = share(&Ranks::alone(), "a", (1.5, f64::NAN.to_bits())).unwrap();
        assert_eq!(all, [(1.5, f64::NAN.to_bits())]);
    }
}
