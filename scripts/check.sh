#!/usr/bin/env bash
# The gate: all that must hold before a change is merged. Needs Rust alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '\n== %s (after %d s)\n' "$*" "$SECONDS"; }

step "format"
cargo fmt --check

step "clippy"
cargo clippy --all-targets --locked -- -D warnings

step "oldest Rust"
# clippy knows which Rust each item of std needs, a test what the dependencies declare; a compiler of that age
# says it for certain.
oldest="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
if rustup toolchain list 2>/dev/null | grep -q "^$oldest"; then
    rustup run "$oldest" cargo check --locked --target-dir target/oldest
else
    echo "skipped: Rust $oldest is not installed"
fi

step "aarch64"
# Type checks and lints of what other CPUs compute with. Dependencies in C need its cross compiler.
target=aarch64-unknown-linux-gnu
if ! rustup target list --installed 2>/dev/null | grep -qx "$target"; then
    echo "skipped: rustup target add $target"
elif ! command -v aarch64-linux-gnu-gcc >/dev/null; then
    echo "skipped: aarch64-linux-gnu-gcc is not installed"
else
    cargo clippy --target "$target" --all-targets --locked -- -D warnings
fi

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

step "licences, advisories, sources"
if cargo deny --version >/dev/null 2>&1; then
    cargo deny --locked check licenses bans sources
    # Advisories come over the network; without one the rest of the gate still counts.
    if cargo deny --locked fetch db >/dev/null 2>&1; then
        cargo deny --locked check advisories
    else
        echo "advisories skipped: their database cannot be fetched"
    fi
else
    echo "skipped: cargo-deny is not installed"
fi

step "layers"
cargo test --locked --test main layers

step "tests"
cargo test --locked

step "all checks passed"
