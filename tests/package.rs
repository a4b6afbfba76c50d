//! The package as others build it: the oldest Rust that will do, and what it contains.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What cargo prints for these arguments, run in the project's root without a network.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .args(["--locked", "--offline"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// `1.89` or `1.89.1` as (1, 89).
fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

/// The target that this test was built for, as cargo names it.
fn target() -> String {
    let about = Command::new(env!("CARGO")).args(["-vV"]).output().unwrap();
    let about = String::from_utf8(about.stdout).unwrap();
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("cargo -vV names its host").to_owned()
}

/// The compiler checks our own code against `rust-version` (clippy's `incompatible_msrv`), not what the
/// dependencies declare.
#[test]
fn no_dependency_needs_a_newer_rust_than_the_package_declares() {
    let metadata = cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--filter-platform",
        &target(),
    ]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let declared = |package: &Value| package["rust_version"].as_str().map(version);
    let own = packages.iter().find(|package| package["name"] == "expo");
    let own = declared(own.unwrap()).expect("Cargo.toml has a rust-version");
    let newer: Vec<&Value> = packages
        .iter()
        .filter(|package| declared(package).is_some_and(|version| version > own))
        .map(|package| &package["id"])
        .collect();
    assert!(newer.is_empty(), "newer than {own:?}: {newer:?}");
}

#[test]
fn the_package_is_small_and_has_no_tests_or_fixtures() {
    let list = cargo(&["package", "--list", "--allow-dirty"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut bytes = 0;
    for path in list.lines() {
        let folder = path.split('/').next().unwrap();
        assert!(
            !["tests", "fuzz", "benches", "scripts", ".ci"].contains(&folder),
            "{path}"
        );
        // Cargo writes a few files of its own.
        bytes += root.join(path).metadata().map_or(0, |file| file.len());
    }
    assert!(list.contains("src/main.rs") && list.contains("configs/reference.toml"));
    assert!(bytes < 8 << 20, "{bytes} bytes");
}
