//! Kernels compiled for real cards: to PTX by NVRTC, as where expo runs, and that by ptxas to machine
//! code, which says what it takes of a card, and whether what is 16 bytes wide in the text has stayed so.
//! Run it is by [`simulator`].
//!
//! Every file with kernels lists its modules, and a launch of what is not listed fails in tests.

mod simulator;
mod toolkit;

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::sync::LazyLock;

use rayon::prelude::*;

use super::module::{Listed, Module, Value};
use crate::error::{Error, Result};
use crate::kernels::testing::project;
pub use simulator::{covering, is_on, simulate};
pub use toolkit::Toolkit;

/// Compute capabilities that are tried: the oldest and the newest that kernels are written for.
const CARDS: [u32; 2] = [80, 90];

/// Registers of a multiprocessor.
const REGISTERS: usize = 1 << 16;

/// Registers are given to threads by this many.
const REGISTER_STEP: usize = 8;

/// Every module that an operation can launch; sizes of heads are samples.
pub(super) fn modules() -> Listed {
    let lists = [
        super::activation::modules(),
        super::attention::modules(),
        super::columns::modules(),
        super::dora::modules(),
        super::dropout::modules(),
        super::elementwise::modules(),
        super::embedding::modules(),
        super::kv_cache::modules(),
        super::mix::modules(),
        super::norm::modules(),
        super::optimizer::modules(),
        super::quantized::modules(),
        super::rotary::modules(),
        super::sampling::modules(),
        super::token::modules(),
        super::weighted::modules(),
    ];
    Ok(lists.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

/// What tells modules apart but for numbers, of which any may come.
fn kind(module: &Module) -> String {
    let mut kind = module.source.name.to_owned();
    for (name, value) in module.defines() {
        if let Value::Name(value) = value {
            kind.push_str(&format!(" {name}={value}"));
        }
    }
    kind
}

/// # Errors
/// If a module is launched that no list has, or with more threads than its list says.
pub fn check(module: &Module, threads: u32) -> Result<()> {
    static KINDS: LazyLock<HashMap<String, usize>> = LazyLock::new(|| {
        let mut kinds = HashMap::new();
        for (module, threads) in modules().expect("lists of modules") {
            let most = kinds.entry(kind(&module)).or_default();
            *most = threads.max(*most);
        }
        kinds
    });
    match KINDS.get(&kind(module)) {
        Some(&most) if threads as usize <= most => Ok(()),
        known => Err(Error::failed(format!(
            "{} with {threads} threads: its file's `modules` has {known:?}",
            module.key()
        ))),
    }
}

/// What is wrong with kernels of which ptxas says this, a line of text each.
fn complaints(said: &str, threads: usize) -> Vec<String> {
    let number_before = |line: &str, what: &str| -> Option<usize> {
        let (before, _) = line.split_once(what)?;
        before.split_whitespace().next_back()?.parse().ok()
    };
    let (mut kernel, mut wrong) = ("", Vec::new());
    for line in said.lines() {
        if let Some((_, name)) = line.split_once("Compiling entry function '") {
            kernel = name.split('\'').next().unwrap_or(name);
        }
        for what in [
            "bytes stack frame",
            "bytes spill stores",
            "bytes spill loads",
        ] {
            if number_before(line, what).is_some_and(|n| n > 0) {
                wrong.push(format!("{kernel}: {}", line.trim()));
                break;
            }
        }
        if let Some(registers) = number_before(line, " registers") {
            let given = registers.next_multiple_of(REGISTER_STEP);
            if registers > 255 || given * threads > REGISTERS {
                wrong.push(format!(
                    "{kernel}: {registers} registers, {threads} threads"
                ));
            }
        }
    }
    wrong
}

/// Kernels, by their file, and of what type the packs are that they load and store at least; those of a
/// define's name have its type. A `packet` is 16 bytes. Not here: `attention_delta`, as heads may be narrower
/// than a pack.
type Accesses = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);
const WIDE: [Accesses; 41] = [
    ("activation", "apply", &["A"], &["A"]),
    ("activation", "apply_backward", &["A", "A"], &["A", "A"]),
    ("activation", "gated", &["A", "A"], &["A"]),
    (
        "activation",
        "gated_backward",
        &["A", "A", "A"],
        &["A", "A", "A"],
    ),
    ("attention", "attention", &["packet"; 3], &["packet"]),
    (
        "attention",
        "attention_queries",
        &["packet"; 4],
        &["packet"],
    ),
    (
        "attention",
        "attention_keys",
        &["packet"; 4],
        &["packet"; 2],
    ),
    ("columns", "column_sums", &["X"], &[]),
    ("elementwise", "convert", &["S"], &["D"]),
    ("elementwise", "copy", &["S"], &["D"]),
    ("dora", "factors", &["W", "W"], &[]),
    ("dora", "add_scaled", &["W", "float", "Y"], &["Y"]),
    ("dora", "products", &["W", "float", "W"], &["float"]),
    ("dropout", "dropout", &["A", "A"], &["A"]),
    ("elementwise", "add_assign", &["D", "S"], &["D"]),
    ("elementwise", "clear", &[], &["D"]),
    ("elementwise", "scale", &["D"], &["D"]),
    ("elementwise", "residual", &["D", "S", "S"], &["D"]),
    ("embedding", "gather", &["S"], &["D"]),
    ("embedding", "scatter_add", &["D", "S"], &["D"]),
    ("kv_cache", "begin", &["A", "A"], &["A", "A"]),
    ("kv_cache", "extend", &["A"; 5], &["A", "A"]),
    ("mix", "mix", &["A", "A"], &["A"]),
    ("norm", "norm_forward", &["X", "X", "X", "A", "A"], &["A"]),
    ("norm", "norm_output", &["X", "A", "A"], &["A"]),
    (
        "norm",
        "norm_backward",
        &["D", "X", "A", "D", "X", "A", "X"],
        &["X"],
    ),
    (
        "optimizer",
        "adam",
        &["WEIGHTS", "MOMENT", "MOMENT", "float"],
        &["WEIGHTS", "MOMENT", "MOMENT"],
    ),
    (
        "optimizer",
        "adam_8bit",
        &["WEIGHTS", "float"],
        &["WEIGHTS"],
    ),
    ("optimizer", "descend", &["WEIGHTS", "float"], &["WEIGHTS"]),
    (
        "optimizer",
        "lion",
        &["WEIGHTS", "MOMENT", "float"],
        &["WEIGHTS", "MOMENT"],
    ),
    (
        "optimizer",
        "rmsprop",
        &["WEIGHTS", "MOMENT", "float"],
        &["WEIGHTS", "MOMENT"],
    ),
    ("optimizer", "squares", &["float"], &[]),
    ("quantized", "nf4", &[], &["A"]),
    ("quantized", "nf4_double", &[], &["A"]),
    ("quantized", "q8_0", &[], &["A"]),
    ("rotary", "turn", &["A", "A", "float", "float"], &["A", "A"]),
    ("token", "soft_cap", &["float"], &["float"]),
    ("token", "statistics", &["float"], &[]),
    ("token", "backward", &["float"], &["A"]),
    ("weighted", "weigh", &["A"], &["A"]),
    ("weighted", "dots", &["A", "A"], &[]),
];

/// Kernels of a module whose machine code has fewer loads and stores of 16 bytes than it takes where
/// all is aligned: a compiler has parted them. Nothing where no machine code was `said`.
fn parted(module: &Module, said: &str) -> Vec<String> {
    let key = module.key();
    let count = |kernel: &str, opcode: &str| {
        let (_, code) = said.split_once(&format!(".text.{kernel}:\n"))?;
        let own = code.lines().take_while(|line| !line.starts_with('.'));
        let wide = |line: &&str| line.starts_with(opcode) && line.contains(".128");
        Some(own.filter(wide).count())
    };
    let packs = |opcode: &str, types: &[&str]| -> usize {
        let pack = |name: &&str| {
            let define = key.split(' ').filter_map(|word| word.split_once('='));
            let mut own = define
                .filter(|(own, _)| own == name)
                .map(|(_, value)| value);
            match own.next().unwrap_or(name) {
                "bf16" | "packet" => 1,
                // Beside f32 weights, bf16 ones.
                "Master" if opcode == "STG" => 3,
                _ => 2,
            }
        };
        types.iter().map(pack).sum()
    };
    let mut wrong = Vec::new();
    for (source, kernel, loads, stores) in WIDE {
        for (opcode, types) in [("LDG", loads), ("STG", stores)] {
            let wanted = packs(opcode, types);
            if let Some(found) = count(kernel, opcode).filter(|&found| found < wanted)
                && source == module.source.name
            {
                wrong.push(format!("{kernel}: {found} wide {opcode}, not {wanted}"));
            }
        }
    }
    wrong
}

#[test]
fn every_file_of_kernels_is_listed() {
    let Ok(files) = std::fs::read_dir(project("src/kernels/cuda")) else {
        let _ = std::io::stderr().write_all(b"skipped: no sources of kernels\n");
        return;
    };
    let files = files.map(|file| file.unwrap().path());
    let files: BTreeSet<String> = files
        .filter(|file| file.extension().is_some_and(|end| end == "cu"))
        .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let listed = modules().unwrap().into_iter();
    let listed: BTreeSet<String> = listed.map(|(x, _)| x.source.name.to_owned()).collect();
    assert_eq!(files, listed);
}

#[test]
fn kernels_fit_real_cards() {
    let Some(toolkit) = Toolkit::find() else {
        return;
    };
    let modules = modules().unwrap();
    let tasks = modules
        .iter()
        .flat_map(|module| CARDS.map(|card| (module, card)));
    let mut tasks: Vec<_> = tasks.collect();
    // Long texts of floats take longest.
    tasks.sort_by_key(|((module, _), _)| {
        let length = module.source.text.len();
        std::cmp::Reverse((length, module.key().contains("float")))
    });
    let tried = tasks
        .par_iter()
        .with_max_len(1)
        .flat_map_iter(|&((module, threads), card)| {
            let wrong = match toolkit.assemble(&module.text(), card) {
                Ok(said) => [complaints(&said, *threads), parted(module, &said)].concat(),
                Err(error) => vec![error.to_string()],
            };
            let name = format!("sm_{card} {}", module.key());
            wrong
                .into_iter()
                .map(move |wrong| format!("{name}: {wrong}"))
        });
    let wrong: Vec<String> = tried.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_card_has_no_room_for_is_seen() {
    let said = |line: &str| format!("info : Compiling entry function 'f' for 'sm_90'\n {line}\n");
    let frame = "16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
    let spill = "0 bytes stack frame, 16 bytes spill stores, 40 bytes spill loads";
    assert_eq!(complaints(&said(frame), 32), [format!("f: {frame}")]);
    assert_eq!(complaints(&said(spill), 32), [format!("f: {spill}")]);
    let used = said("info    : Used 129 registers, used 1 barriers");
    assert_eq!(complaints(&used, 512), ["f: 129 registers, 512 threads"]);
    let fits = said("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads");
    assert!(complaints(&(fits + &used), 256).is_empty());
}

#[test]
fn a_store_that_is_parted_is_seen() {
    let module = super::elementwise::modules().unwrap().pop().unwrap().0;
    let clear = |stores: &str| {
        parted(
            &module,
            &format!(".text.clear:\n{stores}.text.other:\nSTG.E.128\n"),
        )
    };
    assert_eq!(clear("STG.E\nSTG.E.U16\n"), ["clear: 0 wide STG, not 1"]);
    assert!(clear("STG.E.U16\nSTG.E.128\n").is_empty());
}
