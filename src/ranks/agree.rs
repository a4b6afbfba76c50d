//! Facts in which all ranks must agree: the program, the config, the data.
//!
//! *Why*: a host with another checkout or another file would compute something else without an error.

use crate::error::{Error, Result};
use crate::kernels::ranks::{Ranks, listed};

/// Compares facts, by name, of all ranks.
///
/// # Errors
/// At every rank the same one: the first fact that differs, with the ranks and their values.
/// [`Kind::Rank`](crate::error::Kind::Rank) if the exchange fails.
pub fn agree(ranks: &Ranks, facts: &[(&str, String)]) -> Result<()> {
    let mine = serde_json::to_vec(facts)
        .map_err(|error| Error::failed(format!("facts to compare: {error}")))?;
    let all = ranks.gather("facts that all ranks share", &mine)?;
    let parse = |bytes: &Vec<u8>| {
        serde_json::from_slice::<Vec<(String, String)>>(bytes)
            .map_err(|error| Error::rank(format!("facts that all ranks share: {error}")))
    };
    let all: Vec<Vec<(String, String)>> = all.iter().map(parse).collect::<Result<_>>()?;
    match difference(&all) {
        None => Ok(()),
        Some(fact) => Err(Error::input(fact).hint("every rank must run the same")),
    }
}

/// The first fact that differs, in the order of the first rank that has it.
fn difference(all: &[Vec<(String, String)>]) -> Option<String> {
    let value = |facts: &[(String, String)], name: &str| {
        let found = facts.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.clone())
    };
    let names = all.iter().flatten().map(|(name, _)| name);
    names.into_iter().find_map(|name| {
        let mut values: Vec<(Option<String>, Vec<usize>)> = Vec::new();
        for (rank, facts) in all.iter().enumerate() {
            let value = value(facts, name);
            match values.iter_mut().find(|(other, _)| *other == value) {
                Some((_, ranks)) => ranks.push(rank),
                None => values.push((value, vec![rank])),
            }
        }
        let told = |(value, ranks): &(Option<String>, Vec<usize>)| {
            let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
            let value = value.as_deref().unwrap_or("nothing");
            format!("{value} at {noun} {}", listed(ranks))
        };
        let told: Vec<String> = values.iter().map(told).collect();
        (told.len() > 1).then(|| format!("{name} differs: {}", told.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(facts: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
        facts.iter().map(own).collect()
    }

    #[test]
    fn a_difference_names_the_fact_the_ranks_and_the_values() {
        let a = facts(&[("version", "1"), ("config", "aa")]);
        let b = facts(&[("version", "1"), ("config", "bb")]);
        let c = facts(&[("version", "1")]);
        let all = [&a, &a, &b, &a].map(Clone::clone);
        assert_eq!(
            difference(&all).as_deref(),
            Some("config differs: aa at ranks 0-1, 3, bb at rank 2")
        );
        assert_eq!(
            difference(&[c, a.clone()]).as_deref(),
            Some("config differs: nothing at rank 0, aa at rank 1")
        );
        assert_eq!(difference(&[a.clone(), a.clone()]), None);
        assert_eq!(agree(&Ranks::alone(), &[("x", "y".into())]), Ok(()));
    }
}
