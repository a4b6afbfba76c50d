//! The layer check: who may import whom, mention candle, print, exit, name a flag, or be `unsafe`.
//!
//! It reads `src` as text. Comments, strings and `#[cfg(test)]` modules are blanked out first, so
//! what is left is the program; print macros are looked for in test modules too.

mod cycles;
mod source;

use std::path::{Path, PathBuf};

use source::{Source, program};

/// Lowest first; a module imports only from the rows above its own. A module of `lab` stands for
/// itself: stories are data to train on, bandits are experiments on losses and configs.
const LAYERS: [&[&str]; 16] = [
    &["error", "guide"],
    &["io", "segment"],
    &["loss", "kernels", "lab::story"],
    &["data"],
    &["ranks"],
    &["run_dir"],
    &["report", "model"],
    &["optim"],
    &["checkpoint"],
    &["config"],
    &["session"],
    &["score"],
    &["sample"],
    &["train", "plan", "eval", "inspect", "merge", "lab::bandit"],
    &["cli"],
    &["main"],
];
/// What a module may not import although it lies below: data is tokens on the host, whatever computes
/// on them, and processes agree on any facts.
const APART: [(&str, &str); 3] = [("data", "kernels"), ("ranks", "loss"), ("ranks", "data")];
const WITHOUT_CANDLE: [&str; 8] = [
    "io",
    "loss",
    "data",
    "ranks",
    "run_dir",
    "report",
    "lab::story",
    "lab::bandit",
];
const MAY_PRINT: [&str; 2] = ["cli", "main"];
const MAY_BE_UNSAFE: [&str; 1] = ["kernels"];
/// What a compiler is called with.
const COMPILER_FLAGS: [&str; 2] = ["--std=", "--gpu-architecture="];
const PRINT_MACROS: [&str; 5] = ["println", "print", "eprintln", "eprint", "dbg"];

/// The module of [`LAYERS`] that a path lies in.
fn room(path: &[String]) -> String {
    match path {
        [lab, child, ..] if lab == "lab" => format!("lab::{child}"),
        [first, ..] => first.clone(),
        [] => "lib".into(),
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// What is wrong with the file at `path` below `src`, a line of text each.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let modules = module_path(path);
    // The crate's root only declares.
    let module = room(&modules);
    let module = module.as_str();
    let own = layer(module);
    if own.is_none() && !["lib", "lab"].contains(&module) {
        found.push(format!(
            "src/{path}: module `{module}` has no row in LAYERS"
        ));
    }
    let whole = Source::new(&source::blank(text));
    for (at, word) in whole.words() {
        if PRINT_MACROS.contains(&word) && whole.symbol(at + 1) == Some("!") {
            let line = whole.line(at);
            found.push(format!(
                "src/{path}:{line}: {word}! (cli writes to a locked stdout or stderr; \
                 the library reports to an observer)"
            ));
        }
    }
    for (line, literal) in source::strings(text) {
        if names_flag(&literal) && !MAY_PRINT.contains(&module) {
            found.push(format!(
                "src/{path}:{line}: names a flag or a command: only cli and main word them"
            ));
        }
    }
    let code = Source::new(&program(text));
    let mut say = |at: usize, what: String| {
        found.push(format!("src/{path}:{}: {what}", code.line(at)));
    };
    for (at, word) in code.words() {
        if word.starts_with("candle") && WITHOUT_CANDLE.contains(&module) {
            say(
                at,
                format!("`{module}` mentions {word}: it is arithmetic on the host"),
            );
        }
        let ends = matches!(word, "exit" | "abort") && code.follows(at, &["process", "::"]);
        if (ends || matches!(word, "stdout" | "stderr")) && !MAY_PRINT.contains(&module) {
            say(
                at,
                format!("`{module}` uses {word}: only cli and main print or exit"),
            );
        }
        if word == "unsafe" && !MAY_BE_UNSAFE.contains(&module) {
            say(at, format!("`{module}` is unsafe: only kernels may be"));
        }
    }
    for (at, path) in code.imports(&modules, &[]) {
        let name = room(&path);
        match (own, layer(&name)) {
            _ if path.is_empty() => {}
            (Some(own), Some(other)) if name != module && other >= own => {
                let allowed = LAYERS[..own].concat().join(", ");
                say(
                    at,
                    format!("`{module}` imports `{name}`; it may import: {allowed}"),
                );
            }
            (Some(_), Some(_)) if APART.contains(&(module, name.as_str())) => {
                say(
                    at,
                    format!("`{module}` imports `{name}`, which it does not know"),
                );
            }
            (Some(_), None) => {
                let what =
                    format!("`{name}` is no module of LAYERS; import from the module itself");
                say(at, what);
            }
            _ => {}
        }
    }
    found.dedup();
    found
}

/// Whether a string literal names a flag, `--resume`, or a command, `` `expo plan` ``.
fn names_flag(literal: &str) -> bool {
    let flags = literal.match_indices("--").filter(|(at, _)| {
        let flag = &literal[*at..];
        let is_word = flag[2..].starts_with(|c: char| c.is_ascii_lowercase());
        is_word && !COMPILER_FLAGS.iter().any(|known| flag.starts_with(known))
    });
    flags.count() > 0 || literal.contains("`expo ")
}

/// `loss/dual.rs` is `[loss, dual]`, `loss/mod.rs` is `[loss]`, `lib.rs` is the root.
fn module_path(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" => Vec::new(),
        _ => path.split('/').map(str::to_string).collect(),
    }
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The path below `src` and the text of every file that is part of the program.
fn program_files() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 5, "src has been found");
    let mut texts: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let relative = file.strip_prefix(&src).unwrap().components();
            let parts: Vec<_> = relative.map(|c| c.as_os_str().to_string_lossy()).collect();
            (parts.join("/"), std::fs::read_to_string(file).unwrap())
        })
        .collect();
    texts.sort();
    // A test module in a file of its own is blanked out as one in line would be.
    let tests: Vec<String> = texts
        .iter()
        .flat_map(|(path, text)| {
            let parent = module_path(path);
            let names = source::test_files(text).into_iter();
            names.map(move |name| [parent.clone(), vec![name]].concat().join("/"))
        })
        .collect();
    let is_test = |path: &str| {
        let path = module_path(path).join("/");
        let mut above = path.match_indices('/').map(|(i, _)| &path[..i]);
        tests.contains(&path) || above.any(|above| tests.iter().any(|t| t == above))
    };
    texts.retain(|(path, _)| !is_test(path));
    texts
}

#[test]
fn every_module_keeps_to_its_layer() {
    let files = program_files();
    let found: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| check(path, text))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_module_is_a_file_beside_the_directory_of_its_name() {
    let files = program_files();
    let found: Vec<&String> = files.iter().map(|(path, _)| path).collect();
    let odd = found.iter().find(|path| path.ends_with("mod.rs"));
    assert_eq!(odd, None, "x.rs beside x/, not x/mod.rs");
}

#[test]
fn imports_from_the_right_are_found_in_every_spelling() {
    for import in [
        "use crate::model::Decoder;",
        "use crate::{error::Error, model::{self, Decoder}};",
        "use crate::{\n    error::Error,\n    model,\n};",
        "pub(crate) use super::model::Decoder;",
        "fn f() { crate::model::open() }",
        "fn f() -> super::model::X { todo!() }",
        "use self::super::model;",
    ] {
        let found = check("data/mod.rs", import);
        assert_eq!(found.len(), 1, "{import}: {found:?}");
        assert!(found[0].contains(
            "`data` imports `model`; it may import: error, guide, io, segment, loss, kernels, lab::story"
        ));
    }
    assert_eq!(
        check("data/read.rs", "use super::super::train::X;").len(),
        1
    );
    for (path, import) in [
        ("data/pack.rs", "use crate::kernels::attention::Packing;"),
        ("lab/story/grammar.rs", "use crate::lab::bandit::Grid;"),
        ("lab/bandit.rs", "use crate::cli;"),
    ] {
        assert_eq!(check(path, import).len(), 1, "{path}: {import}");
    }
    assert_eq!(check("kernels/rope.rs", "use crate::loss::Role;").len(), 1);
    assert_eq!(check("loss/mod.rs", "use crate::kernels::rope;").len(), 1);
    assert!(check("data/mod.rs", "\n\nuse crate::train;")[0].starts_with("src/data/mod.rs:3: "));
}

#[test]
fn imports_from_the_left_and_from_oneself_pass() {
    for (path, code) in [
        (
            "data/read.rs",
            "use super::{Example, format};\nuse crate::error::{Error, Result};",
        ),
        (
            "data/mod.rs",
            "use crate::{error::Error, loss::{Role, dual::Dual}};\nuse super::loss;",
        ),
        (
            "model/hub.rs",
            "use crate::lab::story; use crate::model::arch; use super::super::kernels; use hf_hub::Cache;",
        ),
        (
            "kernels/mod.rs",
            "use crate::error::Result; use candle_core::Tensor; unsafe fn f() {}",
        ),
        (
            "cli/train.rs",
            "use expo::train; std::process::exit(2); use std::io::stdout;",
        ),
        (
            "lib.rs",
            "pub mod train; pub mod error; pub use crate::train::run;",
        ),
        (
            "error.rs",
            "#[cfg(test)]\nmod tests { use crate::train::X; use super::*; }",
        ),
        (
            "data/mod.rs",
            "// crate::train, candle\n/* unsafe /* stdout */ */ const A: &str = \"candle\";",
        ),
        (
            "kernels/gpu.rs",
            "const A: &str = \"--std=c++17\"; // --resume\n#[cfg(test)]\nmod tests {\n    const B: &str = \"--out\";\n}",
        ),
        (
            "loss/mod.rs",
            "const A: &str = r#\"\" candle crate::train \"#; fn f<'a>(c: char) -> bool { c == '\"' }",
        ),
    ] {
        assert_eq!(check(path, code), Vec::<String>::new(), "{path}: {code}");
    }
}

#[test]
fn other_rules_are_found_too() {
    for (path, code, part) in [
        (
            "loss/dpo.rs",
            "use candle_core::Tensor;",
            "mentions candle_core",
        ),
        (
            "data/pack.rs",
            "fn f(t: &candle::Tensor) {}",
            "mentions candle",
        ),
        (
            "train.rs",
            "fn f() { std::process::exit(1) }",
            "only cli and main",
        ),
        (
            "model/mod.rs",
            "let mut out = std::io::stdout().lock();",
            "uses stdout",
        ),
        ("model/mod.rs", "let x = unsafe { y };", "only kernels"),
        ("cli.rs", "fn f() { println!(\"x\") }", "println!"),
        ("main.rs", "fn f() { eprintln! (\"x\") }", "eprintln!"),
        (
            "optim.rs",
            "#[cfg(test)] mod tests { fn f() { dbg!(1); } }",
            "dbg!",
        ),
        (
            "eval/pairs.rs",
            "fn f() -> &'static str {\n    \"resume it with --resume auto\"\n}",
            "src/eval/pairs.rs:2: names a flag",
        ),
        (
            "kernels/mod.rs",
            "const A: &str = \"see `expo plan`\";",
            "names a flag or a command",
        ),
        ("surprise.rs", "", "`surprise` has no row"),
        (
            "train.rs",
            "use crate::Anything;",
            "`Anything` is no module",
        ),
        ("train.rs", "use crate::*;", "`*` is no module"),
    ] {
        let found = check(path, code);
        assert_eq!(found.len(), 1, "{path}: {code}: {found:?}");
        assert!(found[0].contains(part), "{found:?}");
    }
}
