//! What a grammar must keep: in every state that can be reached some option applies, none that
//! applies begins with another's text, and every option applies in some state.
//!
//! *Why*: a text with two derivations would have two scores. States are explored per slot with only
//! the variables that lead to it and that it says, so large grammars are checked at once.

use std::collections::BTreeSet;

use super::grammar::{Branch, Grammar};
use super::template::{FREE, State};
use crate::error::{Error, Result};

/// Options that are looked at on the ways to one slot; a story's has some thousands.
const MOST_STEPS: usize = 2_000_000;

pub(super) fn check(grammar: &Grammar) -> Result<()> {
    for slot in 0..grammar.slots.len() {
        let mut unused: BTreeSet<usize> = (0..grammar.slots[slot].options.len()).collect();
        for state in reachable(grammar, slot)? {
            let branches = grammar.branches(slot, &state);
            check_slot(grammar, slot, &state, &branches)?;
            unused.retain(|index| branches.iter().all(|branch| branch.index != *index));
        }
        if let Some(index) = unused.first() {
            return Err(Error::input("the option never applies")
                .hint("widen its `when`, or take it out")
                .at(key(grammar, slot, *index)));
        }
    }
    Ok(())
}

fn key(grammar: &Grammar, slot: usize, index: usize) -> String {
    format!("slot.{}[{index}]", grammar.slots[slot].name)
}

fn check_slot(grammar: &Grammar, slot: usize, state: &State, branches: &[Branch]) -> Result<()> {
    let key = |index| key(grammar, slot, index);
    if branches.is_empty() {
        let what = format!("no option applies where {}", describe(grammar, state));
        return Err(Error::input(what)
            .hint("add an option without `when`, or widen one")
            .at(format!("slot.{}", grammar.slots[slot].name)));
    }
    if let Some(branch) = branches.iter().find(|branch| !branch.log_q.is_finite()) {
        return Err(Error::input("its weight is too far from the others'")
            .hint("the probabilities of a slot's options must be numbers above 0")
            .at(key(branch.index)));
    }
    let mut texts: Vec<(String, usize)> = branches
        .iter()
        .map(|branch| (grammar.text(branch), branch.index))
        .collect();
    texts.sort();
    // In this order a prefix stands right before what it begins.
    for pair in texts.windows(2) {
        if let [(short, first), (long, second)] = pair
            && long.starts_with(short)
        {
            let what = format!("{long:?} begins with {short:?} of {}", key(*first));
            return Err(Error::input(what)
                .hint("a story must be readable in one way only: change a text or a `when`")
                .at(key(*second)));
        }
    }
    Ok(())
}

/// The states before a slot, up to what the slot and its way there do not depend on.
fn reachable(grammar: &Grammar, target: usize) -> Result<BTreeSet<State>> {
    let mut states = BTreeSet::from([vec![FREE; grammar.variables.len()]]);
    let mut steps = 0;
    for slot in 0..target {
        let needed = needed(grammar, slot + 1, target);
        let mut after = BTreeSet::new();
        for state in &states {
            steps += grammar.slots[slot].options.len();
            if steps > MOST_STEPS {
                let what = "what was chosen before decides in too many ways";
                return Err(Error::input(what)
                    .hint("let fewer slots have a say in a `when` or be repeated")
                    .at(format!("slot.{}", grammar.slots[target].name)));
            }
            for Branch {
                after: mut state, ..
            } in grammar.branches(slot, state)
            {
                for (value, needed) in state.iter_mut().zip(&needed) {
                    *value = if *needed { *value } else { FREE };
                }
                after.insert(state);
            }
        }
        states = after;
    }
    Ok(states)
}

/// The variables that conditions of the slots `from..=target` read, or texts of `target`.
fn needed(grammar: &Grammar, from: usize, target: usize) -> Vec<bool> {
    let mut needed = vec![false; grammar.variables.len()];
    for choice in grammar.slots[from..=target].iter().flat_map(|s| &s.options) {
        for (variable, _) in &choice.when {
            needed[*variable] = true;
        }
    }
    for choice in &grammar.slots[target].options {
        for variable in choice.text.variables() {
            needed[variable] = true;
        }
    }
    needed
}

fn describe(grammar: &Grammar, state: &State) -> String {
    let fixed = state
        .iter()
        .enumerate()
        .filter(|(_, value)| **value != FREE);
    let pairs: Vec<String> = fixed
        .map(|(variable, &value)| {
            format!(
                "{} = {:?}",
                grammar.variables[variable], grammar.values[value]
            )
        })
        .collect();
    pairs.join(", ")
}
