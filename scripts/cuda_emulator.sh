#!/usr/bin/env bash
# Builds expo for CUDA and runs its tests of GPUs on the CPU: tests/cuda/driver.cpp stands for the
# CUDA driver, NVRTC, cuBLAS and cuRAND, so that all of expo's own code for CUDA runs, launch by launch.
#
# Takes the toolkit of an nvcc that is there (NVCC, CUDA_HOME, CUDA_PATH or PATH), or makes one with
# scripts/cuda_toolkit.sh in target/cuda-toolkit. Builds below CARGO_TARGET_DIR, or target/cuda.
# Exit status 3: something that it takes is missing on this machine, and a line says what.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '\n== CUDA: %s\n' "$*"; }

step "toolkit"
source scripts/emulated_toolkit.sh

step "build"
cuda=(--locked --features cuda --target-dir "${CARGO_TARGET_DIR:-target/cuda}")
built="$(cargo test "${cuda[@]}" --lib --test main --no-run --message-format json)"
executable() {
    grep -F "\"kind\":[\"$1\"]" <<<"$built" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}
library="$(executable lib)"
main="$(executable test)"
program="$(executable bin)"
[ -n "$library" ] && [ -n "$main" ] && [ -n "$program" ] || { echo "no test binaries"; exit 1; }

step "the driver on the CPU"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
scripts/emulated_driver.sh "$work" "$library" "$main" "$program"

export LD_LIBRARY_PATH="$work:$home/lib64:$home/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export EXPO_EMULATOR="$PWD/src/kernels/emulator/emulator.h" EXPO_TEST_GPU=0 XDG_CACHE_HOME="$work/cache"

step "kernels and models"
failed=0
"$library" gpu kernels::cuda cuda_tests --skip ptx_tests || failed=$?

step "NVIDIA's own NCCL"
if [ -e "$home/lib64/libnccl.so.2" ]; then
    EXPO_TEST_NCCL="$home/lib64/libnccl.so.2" "$library" ranks::nccl || failed=$?
else
    echo "skipped: the toolkit has no libnccl.so.2"
fi

step "the program"
"$main" gpu:: || failed=$?
[ "$failed" -eq 0 ] || exit 1

step "all checks passed"
