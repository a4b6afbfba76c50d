//! A launch, block by block, and a block, warp by warp.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::memory::Memory;
use super::program::Kernel;
use super::warp::{State, Warp};

/// In which order blocks, and between two barriers warps, come.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    Forward,
    Reverse,
    Random,
}

/// The tensors' memory, far apart.
pub struct Global(pub Vec<Memory>);

/// Bits of an address within a tensor's memory.
const WITHIN: u32 = 40;

impl Global {
    /// Where a tensor's memory begins.
    pub fn address(index: usize) -> u64 {
        (index as u64 + 1) << WITHIN
    }

    /// The memory that an address is in, and where in it.
    pub fn place(&mut self, address: u64) -> Result<(&mut Memory, u64), String> {
        let index = (address >> WITHIN).wrapping_sub(1) as usize;
        match self.0.get_mut(index) {
            Some(memory) => Ok((memory, address & ((1 << WITHIN) - 1))),
            None => Err(format!(
                "the address {address:#x}, where no tensor is: out of bounds"
            )),
        }
    }
}

/// Instructions of all warps after which a launch is taken for endless.
const MOST: u64 = 1 << 24;

/// A block that runs.
pub struct Block<'a> {
    pub kernel: &'a Kernel,
    pub parameters: &'a [u64],
    pub global: &'a mut Global,
    pub shared: Memory,
    pub index: u32,
    /// Its barriers so far.
    pub epoch: u32,
    spent: u64,
}

impl Block<'_> {
    /// Counts an instruction.
    pub fn spend(&mut self) -> Result<(), String> {
        self.spent += 1;
        match self.spent < MOST {
            true => Ok(()),
            false => Err("no end of it".into()),
        }
    }
}

/// Runs a kernel; the tensors' memory is then as it leaves it.
///
/// # Errors
/// What is wrong with it, and at which instruction.
pub fn run(
    kernel: &Kernel,
    parameters: &[u64],
    (blocks, threads, shared): ([u32; 3], u32, usize),
    global: &mut Global,
    order: Order,
) -> Result<(), String> {
    if kernel.parameters.len() != parameters.len() {
        return Err(format!(
            "{} arguments, not {}",
            parameters.len(),
            kernel.parameters.len()
        ));
    }
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut arrange = |count: u32| {
        let mut all: Vec<u32> = (0..count).collect();
        match order {
            Order::Forward => {}
            Order::Reverse => all.reverse(),
            Order::Random => all.shuffle(&mut random),
        }
        all
    };
    for index in arrange(blocks.iter().product()) {
        let [x, y] = [blocks[0], blocks[1]];
        let place = [index % x, index / x % y, index / x / y];
        let special = |name: &str, thread: u32| match name {
            "%tid.x" => Some(thread),
            "%ntid.x" => Some(threads),
            "%ctaid.x" => Some(place[0]),
            "%ctaid.y" => Some(place[1]),
            "%ctaid.z" => Some(place[2]),
            "%nctaid.x" => Some(blocks[0]),
            "%nctaid.y" => Some(blocks[1]),
            "%nctaid.z" => Some(blocks[2]),
            _ => None,
        };
        let warps = (0..threads / 32).map(|warp| Warp::new(kernel, warp, special));
        let mut warps: Vec<Warp> = warps.collect::<Result<_, _>>()?;
        let mut block = Block {
            kernel,
            parameters,
            global,
            shared: Memory::empty(shared),
            index,
            epoch: 0,
            spent: 0,
        };
        loop {
            for warp in arrange(threads / 32) {
                warps[warp as usize].run(&mut block)?;
            }
            let ended = warps
                .iter()
                .filter(|warp| warp.state == State::Ended)
                .count();
            if ended == warps.len() {
                break;
            }
            if ended > 0 {
                return Err(format!(
                    "block {index}: a thread has ended before a barrier at which others wait"
                ));
            }
            block.epoch += 1;
            warps.iter_mut().for_each(|warp| warp.state = State::Ready);
        }
    }
    Ok(())
}
