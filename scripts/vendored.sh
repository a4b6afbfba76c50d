#!/usr/bin/env bash
# Shows that expo builds from its sources and those of its dependencies alone: they are vendored into a
# temporary directory, then built with no network and no crates but these.
#
# Nothing is written into the repository. The last line is the result.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

before="$(git status --porcelain)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$work/home"
# What it prints is the config that has the directory in place of the registry.
cargo vendor --locked --versioned-dirs "$work/vendor" >"$work/home/config.toml" 2>"$work/log" ||
    { cat "$work/log" >&2; exit 1; }

# An empty CARGO_HOME: no cache of crates, no index, no other config. A toolchain that a rustup chooses
# keeps its own directory.
build=(env -u CARGO_BUILD_TARGET CARGO_HOME="$work/home" CARGO_NET_OFFLINE=true
    RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" CARGO_TARGET_DIR="$work/target"
    cargo build --release --locked --offline --quiet)
network="off"
if unshare -rn true 2>/dev/null; then
    build=(unshare -rn "${build[@]}")
else
    network="on, for unshare -n is not to be had here; cargo was told to stay offline"
fi
"${build[@]}"
version="$("$work/target/release/expo" --version)"

[ "$(git status --porcelain)" = "$before" ] || { echo "the repository was changed" >&2; exit 1; }
crates="$(find "$work/vendor" -mindepth 1 -maxdepth 1 -type d | wc -l)"
bytes="$(du -sb "$work/vendor" | cut -f 1)"
echo "vendored crates=$crates bytes=$bytes network=\"$network\" result=\"$version\""
