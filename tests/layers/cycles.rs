//! The cycle check: no directory has an import cycle among its modules.
//!
//! A module is a file with the directory of its name. An import through a parent's `use` counts as one
//! of the module that the name comes from, so that re-exports hide nothing. A name that a parent
//! defines itself is no sibling's.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, program};
use super::{module_path, program_files};

/// Cycles that stay: the directory, the modules that may import each other, and why.
const ALLOWED: [(&str, &[&str], &str); 3] = [
    (
        "kernels",
        &["backend", "cpu", "cuda", "device", "operands", "profile"],
        "a back end is chosen by device, and its files time themselves and synchronize",
    ),
    (
        "loss",
        &["custom", "list", "objectives", "weighted"],
        "the list of losses names the objectives, and a loss of another crate is one of the list",
    ),
    (
        "model",
        &["block", "decoder", "skipped"],
        "a block says what its backward pass skips, and what all skip is found from the blocks",
    ),
];

type Path = Vec<String>;

/// The imports of a module, and the names that its `use` items give it.
#[derive(Default)]
struct Module {
    imports: Vec<Path>,
    names: BTreeMap<String, Path>,
}

fn modules(files: &[(String, String)]) -> BTreeMap<Path, Module> {
    let paths: Vec<Path> = files.iter().map(|(path, _)| module_path(path)).collect();
    let mut modules = BTreeMap::new();
    for ((_, text), path) in files.iter().zip(&paths) {
        let children: Vec<String> = paths
            .iter()
            .filter(|other| other.len() == path.len() + 1 && other.starts_with(path))
            .filter_map(|other| other.last().cloned())
            .collect();
        let code = Source::new(&program(text));
        let mut module = Module::default();
        for (_, import) in code.imports(path, &children) {
            if let Some(name) = import.last() {
                module.names.insert(name.clone(), import.clone());
            }
            module.imports.push(import);
        }
        modules.insert(path.clone(), module);
    }
    modules
}

/// The module that a path leads to, through the names that modules on the way import.
fn target(modules: &BTreeMap<Path, Module>, path: &[String], depth: usize) -> Option<Path> {
    let length = (0..=path.len())
        .rev()
        .find(|&length| modules.contains_key(&path[..length]))?;
    let (module, rest) = path.split_at(length);
    let name = rest
        .first()
        .and_then(|name| modules[module].names.get(name));
    match name {
        Some(through) if depth > 0 && through.as_slice() != path => {
            target(modules, through, depth - 1)
        }
        _ => Some(module.to_vec()),
    }
}

/// The cycles of each directory: its path, and the modules that reach each other.
fn cycles(files: &[(String, String)]) -> Vec<(String, BTreeSet<String>)> {
    let modules = modules(files);
    let mut graphs: BTreeMap<Path, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, module) in &modules {
        for import in &module.imports {
            let Some(to) = target(&modules, import, 8) else {
                continue;
            };
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            // The root's modules have layers.
            if common > 0 && common < from.len() && common < to.len() {
                let graph = graphs.entry(from[..common].to_vec()).or_default();
                let edges = graph.entry(from[common].clone()).or_default();
                edges.insert(to[common].clone());
            }
        }
    }
    let mut found = Vec::new();
    for (directory, graph) in graphs {
        let reach = |start: &String| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
            while let Some(next) = open.pop() {
                for to in graph.get(next).into_iter().flatten() {
                    if seen.insert(to.clone()) {
                        open.push(to);
                    }
                }
            }
            seen
        };
        let reached: BTreeMap<&String, BTreeSet<String>> =
            graph.keys().map(|name| (name, reach(name))).collect();
        let mut done: BTreeSet<&String> = BTreeSet::new();
        for (name, to) in &reached {
            if !to.contains(*name) || done.contains(name) {
                continue;
            }
            let back = |other: &&String| reached.get(*other).is_some_and(|to| to.contains(*name));
            let cycle: BTreeSet<String> = to.iter().filter(back).cloned().collect();
            done.extend(graph.keys().filter(|name| cycle.contains(*name)));
            found.push((directory.join("/"), cycle));
        }
    }
    found
}

#[test]
fn no_directory_has_an_import_cycle() {
    let mut found = cycles(&program_files());
    for (directory, modules, why) in ALLOWED {
        let allowed = |(own, cycle): &(String, BTreeSet<String>)| {
            own == directory && cycle.iter().all(|name| modules.contains(&name.as_str()))
        };
        let at = found.iter().position(allowed);
        let at = at.unwrap_or_else(|| panic!("src/{directory} has no such cycle any more: {why}"));
        found.remove(at);
    }
    let say = |(directory, modules): &(String, BTreeSet<String>)| {
        let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
        format!("src/{directory}: {} import each other", modules.join(", "))
    };
    let found: Vec<String> = found.iter().map(say).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn cycles_are_found_through_paths_groups_and_re_exports() {
    let files = |of: &[(&str, &str)]| -> Vec<(String, String)> {
        let of = of.iter();
        of.map(|(path, text)| (path.to_string(), text.to_string()))
            .collect()
    };
    for (a, b) in [
        ("use super::b::X;", "use crate::m::a::Y;"),
        ("use super::{b, c};", "fn f() { super::a::g() }"),
        ("use super::X;", "use super::{Y, c};"),
        ("use crate::m::{c, X as Z};", "use super::super::m::a;"),
    ] {
        let parent = "mod a;\nmod b;\nmod c;\npub use a::Y;\npub use self::b::{X, Z};\nstruct Own;";
        let found = cycles(&files(&[
            ("m.rs", parent),
            ("m/a.rs", a),
            ("m/b.rs", b),
            ("m/c.rs", "use super::Own; pub struct C;"),
        ]));
        let both = BTreeSet::from(["a".to_string(), "b".to_string()]);
        assert_eq!(found, [("m".to_string(), both)], "{a} {b}");
    }
    let none = cycles(&files(&[
        ("m/mod.rs", "mod a; mod b; pub use a::Y; pub struct Own;"),
        ("m/a.rs", "use super::Own; use super::b::X;"),
        (
            "m/b.rs",
            "use super::Own; #[cfg(test)] mod tests { use super::super::a; }",
        ),
    ]));
    assert_eq!(none, []);
}
