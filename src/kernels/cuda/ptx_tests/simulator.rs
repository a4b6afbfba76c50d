//! The PTX that NVRTC makes of the kernels, run on the CPU as NVIDIA's documents say it runs.
//!
//! *Why beside the emulator*: that one runs the text as C++, so what only the compiled kernel has is out of
//! its sight: matrices of the tensor cores, asynchronous copies, wide loads and stores, lanes that come
//! together or do not. Here each of these runs, and is at fault where a GPU might do anything: an
//! access that is misaligned or out of bounds, shared memory that nobody has written or that a copy
//! still writes, threads that touch one place without a barrier between them, lanes that miss an
//! instruction for all of them, a barrier that some never reach. An instruction that is not known is
//! an error. Not seen: timing, caches, and the rounding of approximations.
//!
//! Warps run one after the other up to their next barrier of the block, in three orders, which have
//! to give the same bits.

mod access;
mod arithmetic;
mod block;
mod memory;
mod parse;
mod program;
mod together;
mod warp;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::super::module::{Grid, Listed, Module};
use super::toolkit::Toolkit;
use super::{CARDS, kind};
use crate::error::{Error, Result};
use block::{Global, Order};
use memory::Memory;
use program::Kernel;

/// A change to a text.
type Change = Rc<dyn Fn(&str) -> String>;

/// What runs on this thread.
#[derive(Default)]
struct Run {
    /// Kinds of modules, and kernels of theirs, that have run.
    seen: BTreeSet<(String, String)>,
    /// What is done to the kernels' text, and to the PTX.
    text: Option<Change>,
    ptx: Option<Change>,
}

thread_local! {
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

/// Whether this thread's launches on the emulator run the PTX.
pub fn is_on() -> bool {
    RUN.with_borrow(Option::is_some)
}

/// Runs `f`, whose launches on the emulator run the PTX, and asserts that it launches every kernel and
/// every kind of the modules. Nothing, and a line that says so, where there is no CUDA toolkit; nothing
/// either where `EXPO_TEST_GPU` asks for a GPU.
pub fn covering(modules: Listed, f: impl FnOnce()) {
    let Some(run) = scope(Run::default(), f).map(|(run, ())| run) else {
        return;
    };
    for (module, _) in modules.expect("a list of modules") {
        let kind = kind(&module);
        assert!(run.seen.iter().any(|(seen, _)| *seen == kind), "{kind}");
        for kernel in kernels_of(module.source.text) {
            assert!(run.seen.iter().any(|(_, seen)| seen == kernel), "{kernel}");
        }
    }
}

fn kernels_of(text: &str) -> impl Iterator<Item = &str> {
    let behind = text.split("KERNEL(").skip(1);
    behind.filter_map(|text| text.split_once(')').map(|(name, _)| name))
}

/// What `f` makes, and what has run in it.
fn scope<R>(run: Run, f: impl FnOnce() -> R) -> Option<(Run, R)> {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            RUN.set(None);
        }
    }
    if std::env::var_os("EXPO_TEST_GPU").is_some() {
        return None;
    }
    Toolkit::find()?;
    let _off = Off;
    RUN.set(Some(run));
    let made = f();
    Some((RUN.take().expect("no scope inside of a scope"), made))
}

/// Runs a kernel on copies of its tensors' memory, and gives what is in them then. `arguments` are the
/// bits of each; for a tensor, given which of `tensors` it is and the bytes to its first element.
///
/// # Errors
/// What is at fault, and at which instruction.
pub fn simulate(
    module: &Module,
    kernel: &str,
    grid: Grid,
    arguments: impl Fn(&dyn Fn(usize) -> u64) -> Result<Vec<u64>>,
    tensors: &[&[u8]],
) -> Result<Vec<Vec<u8>>> {
    let (text, ptx) = RUN.with_borrow_mut(|run| {
        let run = run.as_mut().expect("a scope");
        run.seen.insert((kind(module), kernel.to_owned()));
        (run.text.clone(), run.ptx.clone())
    });
    let text = text.map_or_else(|| module.text(), |change| change(&module.text()));
    let kernels = match ptx {
        None => program_of(&text)?,
        Some(change) => Arc::new(parse::parse(&change(&compiled(&text)?)).map_err(Error::failed)?),
    };
    let own = kernels.get(kernel);
    let own = own.ok_or_else(|| Error::failed(format!("no kernel {kernel}")))?;
    let arguments = arguments(&Global::address)?;
    let size = (grid.blocks, grid.threads, grid.shared);
    let run = |order| {
        let memory = tensors.iter().map(|bytes| Memory::of(bytes.to_vec()));
        let mut global = Global(memory.collect());
        let done = block::run(own, &arguments, size, &mut global, order);
        done.map_err(|what| Error::failed(format!("{kernel} {grid:?}, {order:?}: {what}")))?;
        let memory = global.0.into_iter();
        Result::<Vec<Vec<u8>>>::Ok(memory.map(|memory| memory.bytes).collect())
    };
    let made = run(Order::Forward)?;
    for order in [Order::Reverse, Order::Random] {
        if run(order)? != made {
            return Err(Error::failed(format!(
                "{kernel}: its result depends on the order of warps"
            )));
        }
    }
    Ok(made)
}

/// For the newest of the cards.
fn compiled(text: &str) -> Result<String> {
    let toolkit = Toolkit::find().ok_or_else(|| Error::failed("no CUDA toolkit"))?;
    toolkit.ptx(text, CARDS[1])
}

type Program = Arc<HashMap<String, Kernel>>;

/// A text's kernels, compiled and read once.
fn program_of(text: &str) -> Result<Program> {
    static KNOWN: Mutex<Option<HashMap<String, Arc<OnceLock<Program>>>>> = Mutex::new(None);
    let slot = {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get_or_insert_default()
            .entry(text.to_owned())
            .or_default()
            .clone()
    };
    if let Some(program) = slot.get() {
        return Ok(program.clone());
    }
    let kernels = parse::parse(&compiled(text)?).map_err(Error::failed)?;
    Ok(slot.get_or_init(|| Arc::new(kernels)).clone())
}

#[cfg(test)]
mod tests;
