//! Continuous batching: a fixed number of sequences at once, and whenever one ends, the next begins.
//!
//! Hides the slots, and prompts that wait for one. Prompts are computed some at a time, packed, before
//! there is a slot for them, so that a slot waits for none and the weights are read once for many.
//!
//! *Why*: responses differ in length. A batch that waits for its longest computes mostly nothing.

use std::collections::VecDeque;

use super::{Drawn, Job, Sampler};
use crate::data::PromptTokens;
use crate::error::{Error, Result};
use crate::kernels::device::by_workers;
use crate::model::generate::{Generation, PROMPT_TOKENS, Prefix};
use crate::model::sampling::Draws;

/// Responses that are being drawn, and those that wait.
pub(super) struct Drawing<'s, 'p> {
    sampler: &'s Sampler<'s>,
    generation: Generation<'s>,
    /// Not yet computed, with the number of each one's first response.
    waiting: VecDeque<(usize, Job<'p>)>,
    /// Computed, but not all of their responses have begun.
    ready: VecDeque<(usize, Job<'p>, Prefix)>,
    /// The sequence in each slot.
    slots: Vec<Option<Sequence<'p>>>,
}

impl<'s, 'p> Drawing<'s, 'p> {
    /// All responses of some jobs, which are numbered in their order from 0.
    pub(super) fn new(sampler: &'s Sampler<'s>, jobs: &[Job<'p>]) -> Result<Self> {
        let mut capacity = 0;
        let mut waiting = VecDeque::with_capacity(jobs.len());
        let mut count = 0;
        for job in jobs {
            let limit = sampler.limit(job.prompt)?;
            capacity = capacity.max(job.prompt.ids.len() + limit);
            waiting.push_back((count, *job));
            count += job.count;
        }
        let slots = sampler.config.batch_size.min(count);
        Ok(Self {
            sampler,
            generation: Generation::new(sampler.model, slots, capacity, sampler.config)?,
            waiting,
            ready: VecDeque::new(),
            slots: (0..slots).map(|_| None).collect(),
        })
    }

    /// Whether all have ended.
    pub(super) fn is_done(&self) -> bool {
        let none = self.slots.iter().all(Option::is_none);
        none && self.ready.is_empty() && self.waiting.is_empty()
    }

    /// As [`Generation::bytes`], of host memory: 0 on a GPU.
    pub(super) fn bytes(&self) -> u64 {
        match self.sampler.model.device().is_cpu() {
            true => self.generation.bytes(),
            false => 0,
        }
    }

    /// One more token of each response that is being drawn, of which `token` is told with the response's
    /// number; gives those that ended.
    pub(super) fn step(
        &mut self,
        token: &mut dyn FnMut(usize, u32),
    ) -> Result<Vec<(usize, Drawn)>> {
        let Step { tokens, ended } = by_workers(self.sampler.model.device(), || self.advance())?;
        tokens
            .into_iter()
            .for_each(|(number, id)| token(number, id));
        Ok(ended)
    }

    fn advance(&mut self) -> Result<Step> {
        self.fill()?;
        let rows = self.generation.rows().to_vec();
        let mut uniforms = Vec::with_capacity(rows.len());
        for &slot in &rows {
            uniforms.extend(self.slots[slot].as_mut().map(Sequence::uniform));
        }
        let drawn = self.generation.next(&uniforms)?;
        let mut step = Step::default();
        let mut going = Vec::new();
        for (slot, (id, log_prob)) in rows.into_iter().zip(drawn) {
            let sequence = self.slots[slot].as_mut().expect("a row has a sequence");
            step.tokens.push((sequence.number, id));
            match sequence.push(id, log_prob, self.sampler)? {
                true => step
                    .ended
                    .extend(self.slots[slot].take().map(|s| (s.number, s.drawn))),
                false => going.push((slot, id)),
            }
            if self.slots[slot].is_none() {
                self.generation.end(slot);
            }
        }
        self.generation.extend(&going)?;
        Ok(step)
    }

    /// Begins responses in all free slots.
    fn fill(&mut self) -> Result<()> {
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_some() {
                continue;
            }
            if self.ready.is_empty() {
                self.compute()?;
            }
            let Some((number, job, prefix)) = self.ready.front_mut() else {
                return Ok(());
            };
            self.generation.begin(slot, prefix)?;
            self.slots[slot] = Some(Sequence::new(self.sampler, *number, job)?);
            (*number, job.first, job.count) = (*number + 1, job.first + 1, job.count - 1);
            if job.count == 0 {
                self.ready.pop_front();
            }
        }
        Ok(())
    }

    /// Computes prompts: as many as there are slots for, or as fit into one pass.
    fn compute(&mut self) -> Result<()> {
        let (mut tokens, mut responses) = (0, 0);
        let mut next = Vec::new();
        while let Some((_, job)) = self.waiting.front() {
            tokens += job.prompt.ids.len();
            if !next.is_empty() && (tokens > PROMPT_TOKENS || responses >= self.slots.len()) {
                break;
            }
            responses += job.count;
            next.extend(self.waiting.pop_front());
        }
        next.retain(|(_, job)| job.count > 0);
        let prompts: Vec<&[u32]> = next.iter().map(|(_, job)| job.prompt.ids).collect();
        let prefixes = self.generation.prefixes(&prompts)?;
        let ready = next.into_iter().zip(prefixes);
        self.ready
            .extend(ready.map(|((number, job), prefix)| (number, job, prefix)));
        Ok(())
    }
}

/// What a step gave: tokens, each with the number of its response, and responses that ended.
#[derive(Default)]
struct Step {
    tokens: Vec<(usize, u32)>,
    ended: Vec<(usize, Drawn)>,
}

/// A response in the making.
struct Sequence<'p> {
    number: usize,
    prompt: PromptTokens<'p>,
    drawn: Drawn,
    draws: Draws,
    /// The most tokens to draw.
    limit: usize,
}

impl<'p> Sequence<'p> {
    fn new(sampler: &Sampler, number: usize, job: &Job<'p>) -> Result<Self> {
        let (config, prompt) = (sampler.config, job.prompt);
        Ok(Self {
            number,
            prompt,
            drawn: Drawn {
                ids: Vec::new(),
                log_prob: 0.0,
                finished: false,
                stopped: false,
            },
            draws: Draws::new(config.seed, sampler.round, prompt.ids, job.first as u64),
            limit: sampler.limit(prompt)?,
        })
    }

    /// The random number of the next token.
    fn uniform(&mut self) -> f64 {
        self.draws.uniform(self.drawn.ids.len())
    }

    /// Whether it has ended with this token.
    fn push(&mut self, id: u32, log_prob: f64, sampler: &Sampler) -> Result<bool> {
        let drawn = &mut self.drawn;
        if !log_prob.is_finite() {
            let position = drawn.ids.len();
            return Err(Error::non_finite(format!(
                "{}: token {position} of the response has log-prob {log_prob}",
                self.prompt.place
            )));
        }
        drawn.log_prob += log_prob;
        drawn.ids.push(id);
        drawn.finished = sampler.tokenizer.ends().contains(&id);
        if !drawn.finished && !sampler.config.stop.is_empty() {
            drawn.stopped = sampler.has_stopped(self.prompt, &drawn.ids)?;
        }
        Ok(drawn.finished || drawn.stopped || drawn.ids.len() == self.limit)
    }
}
