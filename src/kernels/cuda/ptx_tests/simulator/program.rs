//! Kernels as instructions that are ready to run.

/// Where a block's shared memory begins in its own addresses, so that none is 0.
pub const SHARED: u64 = 1024;

/// A register or a constant, which is a register that nobody writes.
pub type Register = usize;

/// A register's value in each lane of a warp; a predicate is 0 or 1.
pub type Row = [u64; 32];

/// A kernel.
pub struct Kernel {
    pub code: Vec<Instruction>,
    /// Registers as they are when a warp begins.
    pub registers: Vec<Row>,
    /// Registers that say where a thread is.
    pub special: Vec<(Register, String)>,
    /// Bytes of each parameter.
    pub parameters: Vec<usize>,
}

/// An instruction, its condition, and its text.
pub struct Instruction {
    pub operation: Operation,
    /// A predicate, and what it has to be.
    pub condition: Option<(Register, bool)>,
    pub text: String,
}

/// A place in memory: a register's value and a number of bytes.
#[derive(Clone, Copy)]
pub struct Address {
    pub base: Register,
    pub offset: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Global,
    Shared,
}

#[derive(Clone, Copy)]
pub enum Shuffle {
    Index,
    Up,
    Down,
    Xor,
}

pub enum Operation {
    Move(Register, Register),
    One(fn(u64) -> u64, Register, Register),
    Two(fn(u64, u64) -> u64, Register, [Register; 2]),
    Three(fn(u64, u64, u64) -> u64, Register, [Register; 3]),
    /// `bfi`: bits of the first operand into the second, at the third, as many as the fourth.
    Insert(Register, [Register; 4]),
    /// A value of parts of so many bits.
    Pack(Register, Vec<Register>, u32),
    Unpack(Vec<Option<Register>>, Register, u32),
    Parameter(Register, usize),
    /// Elements of so many bytes to registers.
    Load(Space, Vec<Register>, usize, Address),
    Store(Space, Vec<Register>, usize, Address),
    /// `cp.async`: to, from, bytes, and how many of them are copied and not zero.
    CopyAsync(Address, Address, usize, Option<Register>),
    WaitAll,
    /// `ldmatrix`, four of them.
    Matrices(Vec<Register>, Address, bool),
    /// `mma.m16n8k16` of bf16: the sum, the left and the right operand, what is added.
    Multiply([Vec<Register>; 4]),
    Shuffle {
        kind: Shuffle,
        to: Register,
        valid: Option<Register>,
        from: Register,
        lane: Register,
        clamp: Register,
        members: Register,
    },
    Ballot(Register, Register, Register),
    WarpBarrier(Register),
    BlockBarrier,
    Branch(usize),
    Exit,
}
