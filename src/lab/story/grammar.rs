//! A grammar as a chain of choices, and what can be read off and drawn from it.
//!
//! Hides states, conditions and the texts of options.
//!
//! *Why*: a chain whose options are never prefixes of each other has exactly one derivation for each
//! text, found by looking, without search. So a story's probability and score are facts about its
//! text.

use rand_chacha::ChaCha8Rng;

use super::draw_index;
use super::template::{FREE, State, Template, Value, Variable};

/// The grammar of a file: prompts, their continuations, probabilities and scores.
#[derive(Debug)]
pub struct Grammar {
    /// What comes before the first slot of the prompt and of the continuation.
    pub(super) heads: [Template; 2],
    /// In the order of their text, the prompt's first.
    pub(super) slots: Vec<Slot>,
    /// How many of them are the prompt's.
    pub(super) prompt_slots: usize,
    pub(super) variables: Vec<String>,
    pub(super) values: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) options: Vec<Choice>,
}

/// One option of a slot.
#[derive(Debug)]
pub(super) struct Choice {
    /// Its text and what follows the slot, up to the next slot.
    pub(super) text: Template,
    pub(super) weight: f64,
    pub(super) score: f64,
    /// Variables with the values that let the option apply.
    pub(super) when: Vec<(Variable, Vec<Value>)>,
    /// What it fixes: its slot, and what it sets.
    pub(super) set: Vec<(Variable, Value)>,
}

/// An option that applies in a state.
pub(super) struct Branch<'a> {
    pub(super) index: usize,
    pub(super) choice: &'a Choice,
    /// Its log-probability among those that apply.
    pub(super) log_q: f64,
    /// The state after it.
    pub(super) after: State,
}

/// A text of the grammar with its only derivation.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// The text.
    pub text: String,
    /// Which option each slot has, counted from 0 as in the file.
    pub choices: Vec<usize>,
    /// The sum of the options' scores.
    pub score: f64,
    /// log q: its log-probability under the grammar, in nats.
    pub log_prob: f64,
}

/// A prompt of the grammar, read.
#[derive(Debug)]
pub struct Prompt<'a> {
    pub(super) grammar: &'a Grammar,
    pub(super) state: State,
}

impl Grammar {
    /// What a text fixes as a prompt; `None` if it is none of the grammar's.
    pub fn prompt(&self, text: &str) -> Option<Prompt<'_>> {
        let (_, state) = self.read(0, self.start(), text)?;
        Some(Prompt {
            grammar: self,
            state,
        })
    }

    /// A prompt drawn from the grammar.
    pub fn draw_prompt(&self, rng: &mut ChaCha8Rng) -> String {
        let mut choose = |_: usize, branches: &[Branch]| {
            Some(draw_index(branches.iter().map(|b| b.log_q.exp()), rng))
        };
        let (story, _) = self
            .walk(0, self.start(), &mut choose)
            .expect("a choice was made at every slot");
        story.text
    }

    fn start(&self) -> State {
        vec![FREE; self.variables.len()]
    }

    /// The slots of the prompt (0) or the continuation (1).
    pub(super) fn range(&self, part: usize) -> std::ops::Range<usize> {
        [0..self.prompt_slots, self.prompt_slots..self.slots.len()][part].clone()
    }

    /// The options of a slot that apply in a state.
    pub(super) fn branches<'a>(&'a self, slot: usize, state: &State) -> Vec<Branch<'a>> {
        let applies = |choice: &&Choice| {
            let mut conditions = choice.when.iter();
            conditions.all(|(variable, values)| values.contains(&state[*variable]))
        };
        let options = &self.slots[slot].options;
        let total: f64 = options.iter().filter(applies).map(|c| c.weight).sum();
        let branch = |(index, choice): (usize, &'a Choice)| {
            let mut after = state.clone();
            for (variable, value) in &choice.set {
                after[*variable] = *value;
            }
            Branch {
                index,
                choice,
                log_q: (choice.weight / total).ln(),
                after,
            }
        };
        let applying = options.iter().enumerate().filter(|(_, c)| applies(c));
        applying.map(branch).collect()
    }

    pub(super) fn text(&self, branch: &Branch) -> String {
        branch.choice.text.fill(&branch.after, &self.values)
    }

    /// Follows one choice per slot of a part; `None` where `choose` has none.
    pub(super) fn walk(
        &self,
        part: usize,
        state: State,
        choose: &mut dyn FnMut(usize, &[Branch]) -> Option<usize>,
    ) -> Option<(Story, State)> {
        let mut story = Story {
            text: self.heads[part].fill(&state, &self.values),
            choices: Vec::new(),
            score: 0.0,
            log_prob: 0.0,
        };
        let mut state = state;
        for slot in self.range(part) {
            let mut branches = self.branches(slot, &state);
            let branch = branches.swap_remove(choose(slot, &branches)?);
            story.text.push_str(&self.text(&branch));
            story.choices.push(branch.index);
            story.score += branch.choice.score;
            story.log_prob += branch.log_q;
            state = branch.after;
        }
        Some((story, state))
    }

    /// The derivation of a text.
    fn read(&self, part: usize, state: State, text: &str) -> Option<(Story, State)> {
        let head = self.heads[part].fill(&state, &self.values);
        let mut rest = text.strip_prefix(&head)?;
        let mut choose = |_: usize, branches: &[Branch]| {
            branches.iter().position(|branch| {
                let left = rest.strip_prefix(&self.text(branch));
                rest = left.unwrap_or(rest);
                left.is_some()
            })
        };
        let found = self.walk(part, state, &mut choose)?;
        rest.is_empty().then_some(found)
    }
}

impl Prompt<'_> {
    /// The derivation of a continuation; `None` if it is none of the grammar's after this prompt.
    pub fn read(&self, continuation: &str) -> Option<Story> {
        let read = self.grammar.read(1, self.state.clone(), continuation);
        read.map(|(story, _)| story)
    }
}
