//! Kernels compiled ahead, for machines that are to start at once.

use std::io::Write;
use std::path::PathBuf;

use rayon::prelude::*;

use super::images::{self, Target};
use super::module::{Listed, Module};
use super::ptx_tests::{Toolkit, modules};
use super::{attention, kv_cache};

/// Compute capabilities of the cards that expo is used on.
const CARDS: [u32; 4] = [80, 86, 89, 90];

/// Heads of the tests' models and operands that no list of modules has.
fn of_tests() -> Listed {
    let groups = [
        (5, 1),
        (5, 4),
        (8, 1),
        (8, 2),
        (8, 3),
        (8, 4),
        (8, 7),
        (8, 11),
        (8, 16),
        (16, 1),
        (16, 2),
        (80, 1),
        (80, 4),
        (128, 1),
        (128, 2),
        (256, 1),
    ];
    let lists = [
        attention::modules_of(&[6, 8, 10, 12, 16, 130], None)?,
        attention::modules_of(&[6], Some(1.0))?,
        kv_cache::modules_of(&groups, false)?,
    ];
    Ok(lists.concat())
}

/// Writes the machine code of all kernels, of the tests' too, to the directory that `EXPO_KERNELS` names:
///
/// ```text
/// EXPO_KERNELS=DIR cargo test --release --lib kernels_are_compiled_ahead -- --ignored
/// ```
///
/// It takes no GPU, but NVRTC and ptxas beside the `nvcc` that `NVCC`, `CUDA_HOME` or `PATH` says.
/// `EXPO_KERNELS_FOR` lists other compute capabilities than 80,86,89,90. A machine with the same version of
/// NVRTC compiles nothing when it has the directory as `$XDG_CACHE_HOME/expo/kernels`. Files that are there
/// and whole stay.
#[test]
#[ignore = "writes files: EXPO_KERNELS says where"]
fn kernels_are_compiled_ahead() {
    let folder = std::env::var_os("EXPO_KERNELS").map(PathBuf::from);
    let folder = folder.expect("EXPO_KERNELS: the directory to write to");
    let cards = match std::env::var("EXPO_KERNELS_FOR") {
        Ok(cards) => cards
            .split(',')
            .map(|card| card.trim().parse().expect("a compute capability"))
            .collect(),
        Err(_) => CARDS.to_vec(),
    };
    let toolkit = Toolkit::find().expect("a CUDA toolkit");
    let nvrtc = toolkit.version().unwrap();
    let mut modules: Vec<Module> = [modules().unwrap(), of_tests().unwrap()]
        .concat()
        .into_iter()
        .map(|(module, _)| module)
        .collect();
    // Long texts take longest.
    modules.sort_by_key(|module| std::cmp::Reverse(module.source.text.len()));
    let tasks: Vec<_> = modules
        .iter()
        .flat_map(|module| cards.iter().map(move |&card| (module, card)))
        .collect();
    let made = tasks.par_iter().with_max_len(1).map(|&(module, card)| {
        let target = Target::Cubin(card);
        let file = folder.join(images::name(module, target, nvrtc));
        if images::read(&file).is_none() {
            let image = toolkit.cubin(&module.text(), card).unwrap();
            images::write(&file, &image).unwrap();
        }
        file
    });
    let made: std::collections::HashSet<PathBuf> = made.collect();
    let line = format!("{} kernel files for {cards:?}\n", made.len());
    let _ = std::io::stderr().write_all(line.as_bytes());
}
