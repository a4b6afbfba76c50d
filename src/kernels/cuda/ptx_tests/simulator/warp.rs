//! A warp, up to its next barrier of the block.
//!
//! Lanes that have gone different ways are groups with an instruction each. The one that is furthest
//! behind continues, and groups meet where they come to one instruction: as good as a GPU can do it.

use super::access::Copy;
use super::block::Block;
use super::memory::Thread;
use super::program::{Instruction, Kernel, Operation, Register, Row};
use super::together::{members_are_here, multiply, source, together};

/// Lanes at one instruction.
#[derive(Clone, Copy)]
struct Group {
    at: usize,
    lanes: u32,
    /// It waits for the other lanes of its instruction.
    waits: bool,
}

/// Where a warp has stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ready,
    AtBarrier,
    Ended,
}

/// 32 threads of a block.
pub struct Warp {
    pub state: State,
    /// Which of the block's.
    index: u32,
    /// Its own barriers so far.
    turn: u32,
    pub registers: Vec<Row>,
    groups: Vec<Group>,
    /// Lanes.
    ended: u32,
    pub copies: Vec<Copy>,
}

/// What an instruction does to the way of its group.
enum Next {
    On,
    /// These lanes go elsewhere.
    Branch(u32, usize),
    End(u32),
    Wait,
    Barrier,
}

/// All lanes of a warp.
pub const ALL: u32 = !0;

impl Warp {
    pub fn new(
        kernel: &Kernel,
        index: u32,
        special: impl Fn(&str, u32) -> Option<u32>,
    ) -> Result<Self, String> {
        let mut registers = kernel.registers.clone();
        for (register, name) in &kernel.special {
            for lane in 0..32 {
                let value = special(name, 32 * index + lane);
                let value = value.ok_or_else(|| format!("a register that is not known, {name}"))?;
                registers[*register][lane as usize] = value.into();
            }
        }
        let groups = vec![Group {
            at: 0,
            lanes: ALL,
            waits: false,
        }];
        Ok(Self {
            state: State::Ready,
            index,
            turn: 0,
            registers,
            groups,
            ended: 0,
            copies: Vec::new(),
        })
    }

    /// Goes on until all lanes wait at a barrier of the block, or have ended.
    pub fn run(&mut self, block: &mut Block) -> Result<(), String> {
        while self.state == State::Ready {
            let ready = self
                .groups
                .iter()
                .enumerate()
                .filter(|(_, group)| !group.waits);
            let Some((index, group)) = ready.min_by_key(|(_, group)| group.at) else {
                return match self.groups.first() {
                    Some(group) => {
                        Err(self.fault(block, *group, "a wait for lanes that never come"))
                    }
                    None if self.copies.is_empty() => {
                        self.state = State::Ended;
                        Ok(())
                    }
                    None => Err("an asynchronous copy that nobody waits for".into()),
                };
            };
            let group = *group;
            self.groups.swap_remove(index);
            let group = self.advance(block, group)?;
            self.join(group);
        }
        Ok(())
    }

    /// Runs a group's instructions as long as no other group is at or behind it.
    fn advance(&mut self, block: &mut Block, mut group: Group) -> Result<Group, String> {
        let kernel = block.kernel;
        let ahead = self
            .groups
            .iter()
            .map(|other| other.at)
            .filter(|&at| at > group.at);
        let limit = ahead.min().unwrap_or(usize::MAX);
        loop {
            let Some(instruction) = kernel.code.get(group.at) else {
                return Err("a way over the end of the kernel".into());
            };
            block.spend()?;
            let next = self.step(block, instruction, group.lanes);
            let next = next.map_err(|what| self.fault(block, group, &what))?;
            match next {
                Next::On => group.at += 1,
                Next::Branch(lanes, to) if lanes == group.lanes => {
                    group.at = to;
                    return Ok(group);
                }
                Next::Branch(lanes, to) => {
                    self.join(Group {
                        at: to,
                        lanes,
                        waits: false,
                    });
                    group.at += 1;
                    group.lanes &= !lanes;
                    return Ok(group);
                }
                Next::End(lanes) => {
                    self.ended |= lanes;
                    group.lanes &= !lanes;
                    group.at += 1;
                    return Ok(group);
                }
                Next::Wait => {
                    group.waits = true;
                    return Ok(group);
                }
                Next::Barrier => {
                    group.at += 1;
                    self.state = State::AtBarrier;
                    return Ok(group);
                }
            }
            if group.at >= limit {
                return Ok(group);
            }
        }
    }

    /// Puts a group back, together with one at the same instruction.
    fn join(&mut self, group: Group) {
        if group.lanes == 0 {
            return;
        }
        match self.groups.iter_mut().find(|other| other.at == group.at) {
            Some(other) => {
                other.lanes |= group.lanes;
                other.waits = false;
            }
            None => self.groups.push(group),
        }
    }

    fn fault(&self, block: &Block, group: Group, what: &str) -> String {
        let text = block
            .kernel
            .code
            .get(group.at)
            .map_or("", |instruction| &instruction.text);
        format!(
            "{what}; warp {} of block {}, lanes {:#x}, at: {text}",
            self.index, block.index, group.lanes
        )
    }

    pub fn thread(&self, block: &Block, lane: usize) -> Thread {
        let thread = 32 * self.index + lane as u32;
        Thread {
            block: block.index,
            thread,
            epoch: block.epoch,
            turn: self.turn,
        }
    }

    fn step(
        &mut self,
        block: &mut Block,
        instruction: &Instruction,
        group: u32,
    ) -> Result<Next, String> {
        let mut lanes = group;
        if let Some((register, wanted)) = instruction.condition {
            let holds = &self.registers[register];
            lanes = each(group)
                .filter(|&lane| (holds[lane] != 0) == wanted)
                .fold(0, |all, lane| all | 1 << lane);
            if lanes == 0 {
                return Ok(Next::On);
            }
        }
        let registers = &mut self.registers;
        match &instruction.operation {
            &Operation::Move(to, a) => {
                let a = registers[a];
                set(registers, to, lanes, |lane| a[lane]);
            }
            &Operation::One(f, to, a) => {
                let a = registers[a];
                set(registers, to, lanes, |lane| f(a[lane]));
            }
            &Operation::Two(f, to, [a, b]) => {
                let (a, b) = (registers[a], registers[b]);
                set(registers, to, lanes, |lane| f(a[lane], b[lane]));
            }
            &Operation::Three(f, to, [a, b, c]) => {
                let (a, b, c) = (registers[a], registers[b], registers[c]);
                set(registers, to, lanes, |lane| f(a[lane], b[lane], c[lane]));
            }
            &Operation::Insert(to, from) => {
                let [a, b, at, bits] = from.map(|register| registers[register]);
                set(registers, to, lanes, |lane| {
                    let ones = (1u64 << (bits[lane] & 0xff).min(32)) - 1;
                    let at = (at[lane] & 0xff).min(32);
                    let mask = ones << at & 0xffff_ffff;
                    (b[lane] & 0xffff_ffff & !mask) | (a[lane] << at & mask)
                });
            }
            Operation::Pack(to, parts, bits) => {
                let parts: Vec<Row> = parts.iter().map(|&part| registers[part]).collect();
                set(registers, *to, lanes, |lane| {
                    let own = parts.iter().map(|part| part[lane] & ((1 << bits) - 1));
                    own.rev().fold(0, |all, part| all << bits | part)
                });
            }
            Operation::Unpack(parts, from, bits) => {
                let from = registers[*from];
                for (at, part) in parts.iter().enumerate() {
                    if let Some(part) = *part {
                        let shift = at as u32 * bits;
                        set(registers, part, lanes, |lane| {
                            from[lane] >> shift & ((1 << bits) - 1)
                        });
                    }
                }
            }
            &Operation::Parameter(to, at) => {
                let value = block.parameters[at];
                set(registers, to, lanes, |_| value);
            }
            Operation::Load(space, to, bytes, at) => {
                self.load(block, *space, (to, *bytes), *at, lanes)?
            }
            Operation::Store(space, from, bytes, at) => {
                self.store(block, *space, (from, *bytes), *at, lanes)?
            }
            &Operation::CopyAsync(to, from, bytes, copied) => {
                self.copy(block, [to, from], bytes, copied, lanes)?
            }
            Operation::WaitAll => self.wait_all(block, lanes)?,
            Operation::Matrices(to, at, transposed) => {
                together(lanes)?;
                self.matrices(block, to, *at, *transposed)?;
            }
            Operation::Multiply(operands) => {
                together(lanes)?;
                multiply(registers, operands);
            }
            &Operation::Shuffle {
                kind,
                to,
                valid,
                from,
                lane,
                clamp,
                members,
            } => {
                if !members_are_here(&registers[members], lanes, self.ended)? {
                    return Ok(Next::Wait);
                }
                let (values, by, clamp) = (registers[from], registers[lane], registers[clamp]);
                let source =
                    |lane: usize| source(kind, lane, by[lane] as usize, clamp[lane] as usize);
                if each(lanes).any(|lane| lanes >> source(lane).0 & 1 == 0) {
                    return Err("a value of a lane that is not there".into());
                }
                set(registers, to, lanes, |lane| {
                    values[source(lane).0] & 0xffff_ffff
                });
                if let Some(valid) = valid {
                    set(registers, valid, lanes, |lane| source(lane).1.into());
                }
            }
            &Operation::Ballot(to, predicate, members) => {
                if !members_are_here(&registers[members], lanes, self.ended)? {
                    return Ok(Next::Wait);
                }
                let votes = &registers[predicate];
                let votes =
                    each(lanes).fold(0, |all, lane| all | u64::from(votes[lane] != 0) << lane);
                set(registers, to, lanes, |_| votes);
            }
            &Operation::WarpBarrier(members) => {
                if !members_are_here(&registers[members], lanes, self.ended)? {
                    return Ok(Next::Wait);
                }
                self.turn += 1;
            }
            Operation::BlockBarrier => {
                together(lanes)?;
                self.turn += 1;
                return Ok(Next::Barrier);
            }
            &Operation::Branch(to) => return Ok(Next::Branch(lanes, to)),
            Operation::Exit => return Ok(Next::End(lanes)),
        }
        Ok(Next::On)
    }
}

pub fn each(lanes: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |lane| lanes >> lane & 1 != 0)
}

fn set(registers: &mut [Row], to: Register, lanes: u32, value: impl Fn(usize) -> u64) {
    let to = &mut registers[to];
    if lanes == ALL {
        to.iter_mut()
            .enumerate()
            .for_each(|(lane, to)| *to = value(lane));
    } else {
        each(lanes).for_each(|lane| to[lane] = value(lane));
    }
}
