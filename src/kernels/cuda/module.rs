//! Kernels, launches of them and operands of matmuls as values.

use std::fmt::{Display, Formatter};
use std::hash::{Hash, Hasher};

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::kernels::tensor::Dst;

/// The text of a `.cu` file.
pub struct Source {
    pub name: &'static str,
    pub text: &'static str,
}

/// What stands in front of every source.
pub const COMMON: &str = include_str!("common.cuh");

/// What a text leaves open: the name of a type, or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value {
    Name(&'static str),
    Number(usize),
}

/// The most that a text leaves open.
const MOST_DEFINES: usize = 7;

/// A source with the types and numbers that its text leaves open, `#define NAME VALUE`.
///
/// *Why* an array: every launch makes one and looks its kernel up by it.
#[derive(Clone, Copy)]
pub struct Module {
    pub source: &'static Source,
    defines: [Option<(&'static str, Value)>; MOST_DEFINES],
}

/// Texts are told apart by their names.
impl PartialEq for Module {
    fn eq(&self, other: &Self) -> bool {
        self.source.name == other.source.name && self.defines == other.defines
    }
}

impl Eq for Module {}

impl Hash for Module {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.name.hash(state);
        self.defines().for_each(|define| define.hash(state));
    }
}

/// The size of a launch: blocks, threads in each, and bytes of shared memory in each.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    pub blocks: [u32; 3],
    pub threads: u32,
    pub shared: usize,
}

/// What a kernel is called with.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    /// Where the tensor's first element is.
    Tensor(&'a Tensor),
    /// No tensor: a null pointer.
    Nothing,
    /// An `i64`.
    Int(usize),
    /// A `float`.
    Float(f64),
    /// A `double`.
    Double(f64),
}

/// Elements that a thread takes at once: `PACK` in common.cuh.
pub const PACK: usize = 8;

/// Blocks that fill any card several times over.
const MOST_BLOCKS: usize = 132 * 16;

impl Source {
    /// The text with its element type `A`.
    pub fn of(&'static self, dtype: DType) -> Result<Module> {
        self.with([("A", type_name(dtype)?)])
    }

    /// The text with what it leaves open.
    ///
    /// # Errors
    /// If that is more than any text leaves open.
    pub fn with(
        &'static self,
        defines: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Module> {
        let (mut defines, mut kept) = (defines.into_iter(), [None; MOST_DEFINES]);
        kept.fill_with(|| defines.next());
        match defines.next() {
            None => Ok(Module {
                source: self,
                defines: kept,
            }),
            Some(_) => Err(Error::failed(format!(
                "{}: more than {MOST_DEFINES} defines",
                self.name
            ))),
        }
    }
}

impl Module {
    /// Names and what stands for them, in order.
    pub fn defines(&self) -> impl Iterator<Item = (&'static str, Value)> {
        self.defines.into_iter().flatten()
    }

    /// The whole text for a compiler.
    pub fn text(&self) -> String {
        let mut text = COMMON.to_owned();
        for (name, value) in self.defines() {
            text.push_str(&format!("#define {name} {value}\n"));
        }
        text + self.source.text
    }

    /// A name that tells this module from all others.
    pub fn key(&self) -> String {
        let mut key = self.source.name.to_owned();
        for (name, value) in self.defines() {
            key.push_str(&format!(" {name}={value}"));
        }
        key
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number)
    }
}

impl Grid {
    /// Threads for `n` elements, [`PACK`] of them each at once.
    pub fn over(n: usize) -> Self {
        let threads = 256;
        let blocks = n.div_ceil(threads * PACK).min(MOST_BLOCKS);
        Self::new([blocks, 1, 1], threads, 0)
    }

    /// A warp for each of `n` rows.
    pub fn warps(n: usize) -> Self {
        Self::new([n.div_ceil(8).min(MOST_BLOCKS), 1, 1], 8 * 32, 0)
    }

    /// `blocks` of `threads`, each block with `shared` bytes.
    pub fn new(blocks: [usize; 3], threads: usize, shared: usize) -> Self {
        Self {
            blocks: blocks.map(|n| n as u32),
            threads: threads as u32,
            shared,
        }
    }
}

impl<'a> From<&'a Tensor> for Arg<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl<'a> From<&'a Dst<'_>> for Arg<'a> {
    fn from(dst: &'a Dst) -> Self {
        Self::Tensor(dst)
    }
}

impl<'a> From<Option<&'a Tensor>> for Arg<'a> {
    fn from(tensor: Option<&'a Tensor>) -> Self {
        tensor.map_or(Self::Nothing, Self::Tensor)
    }
}

impl From<usize> for Arg<'_> {
    fn from(n: usize) -> Self {
        Self::Int(n)
    }
}

/// The text's name of an element type.
pub fn type_name(dtype: DType) -> Result<Value> {
    match dtype {
        DType::F32 => Ok(Value::Name("float")),
        DType::BF16 => Ok(Value::Name("bf16")),
        other => Err(Error::failed(format!(
            "no kernel for {other:?} on a GPU: f32 or bf16"
        ))),
    }
}

/// Checks that tensors hold elements of one type.
///
/// # Errors
/// Names `what` they are and the types.
pub fn check_types(what: &str, dtype: DType, tensors: &[&Tensor]) -> Result<()> {
    match tensors.iter().find(|tensor| tensor.dtype() != dtype) {
        Some(other) => Err(Error::failed(format!(
            "{what}: {:?} on a GPU, where it must be {dtype:?}",
            other.dtype()
        ))),
        None => Ok(()),
    }
}

/// The first of the arguments' tensors.
///
/// # Errors
/// If there is none.
pub fn first_tensor<'a>(args: &[Arg<'a>]) -> Result<&'a Tensor> {
    let tensor = args.iter().find_map(|arg| match arg {
        Arg::Tensor(tensor) => Some(*tensor),
        _ => None,
    });
    tensor.ok_or_else(|| Error::failed("a kernel without a tensor"))
}

/// A matrix as cuBLAS sees it: its memory by columns, or that of its transpose.
pub struct Operand {
    pub address: u64,
    pub dtype: DType,
    /// Elements from one column to the next.
    pub leading: usize,
    /// Whether what lies there by columns is the transpose.
    pub transposed: bool,
}

/// [`Source`] of `$name.cu`.
macro_rules! source {
    ($name:literal) => {
        $crate::kernels::cuda::module::Source {
            name: $name,
            text: include_str!(concat!($name, ".cu")),
        }
    };
}
pub(super) use source;

/// Modules, and the most threads that a block of theirs has.
#[cfg(test)]
pub type Listed = Result<Vec<(Module, usize)>>;

/// A source with each of its `names` once float and once bf16, in all combinations.
#[cfg(test)]
pub fn of_types(source: &'static Source, names: &[&'static str], threads: usize) -> Listed {
    let combination = |bits: usize| -> Result<_> {
        let define = |(at, name): (usize, &&'static str)| -> Result<_> {
            let dtype = [DType::F32, DType::BF16][bits >> at & 1];
            Ok((*name, type_name(dtype)?))
        };
        let defines: Result<Vec<_>> = names.iter().enumerate().map(define).collect();
        Ok((source.with(defines?)?, threads))
    };
    (0..1 << names.len()).map(combination).collect()
}
