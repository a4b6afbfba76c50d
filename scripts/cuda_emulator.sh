#!/usr/bin/env bash
# Builds expo for CUDA and runs its tests of GPUs on the processor: tests/cuda/driver.cpp stands for the
# CUDA driver, NVRTC, cuBLAS and cuRAND, so that all of expo's own code for CUDA runs, launch by launch.
#
# Takes the toolkit of an nvcc that is there (NVCC, CUDA_HOME, CUDA_PATH or PATH), or makes one with
# scripts/cuda_toolkit.sh in target/cuda-toolkit. Builds below CARGO_TARGET_DIR, or target/cuda.
# Exit status 3: something that it takes is missing on this machine, and a line says what.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for tool in c++ nm readelf; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed"; exit 3; }
done

step() { printf '\n== CUDA: %s\n' "$*"; }

step "toolkit"
nvcc=""
for place in "${NVCC:-}" "${CUDA_HOME:-}/bin/nvcc" "${CUDA_PATH:-}/bin/nvcc" \
    /usr/local/cuda/bin/nvcc "$(command -v nvcc || true)"; do
    if [ -x "$place" ]; then
        nvcc="$place"
        break
    fi
done
made="$PWD/target/cuda-toolkit"
if [ -z "$nvcc" ] || [ "$nvcc" -ef "$made/bin/nvcc" ]; then
    exports="$(scripts/cuda_toolkit.sh "$made")" || exit
    eval "$exports"
    nvcc="$NVCC"
fi
home="$(cd "$(dirname "$nvcc")/.." && pwd)"
export CUDA_HOME="${CUDA_HOME:-$home}" CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-80}"
"$nvcc" --version | tail -n 2
export PATH="$home/bin:$PATH" EMULATED_NVCC="$nvcc" NVCC="$PWD/scripts/emulated_nvcc.sh"

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

step "the driver on the processor"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# What else they want from the same libraries is there, and says so when it is called.
stubs() {
    nm -D --undefined-only "$library" "$main" "$program" | awk '{ print $2 }' | sed 's/@.*//' |
        grep -E '^(cu[A-Z]|cublas|curand|nvrtc)' | sort -u |
        sed 's/.*/STUB(&)/'
}
{
    cat <<'END'
#include <cstdio>
#define STUB(name) \
    extern "C" __attribute__((weak)) int name() { \
        fprintf(stderr, "emulated driver: %s is called\n", #name); \
        return 801; \
    }
END
    stubs
} >"$work/stubs.cpp"
c++ -std=c++17 -O2 -Wall -Wextra -fPIC -shared -o "$work/driver.so" tests/cuda/driver.cpp "$work/stubs.cpp" -ldl
for name in $(readelf -d "$library" "$main" "$program" |
    sed -n 's/.*NEEDED.*\[\(lib\(cuda\|nvrtc\|cublas\|cublasLt\|curand\)\.so\..*\)\]/\1/p' | sort -u); do
    ln -s driver.so "$work/$name"
    echo "$name"
done

export LD_LIBRARY_PATH="$work:$home/lib64:$home/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export EXPO_EMULATOR="$PWD/src/kernels/emulator/emulator.h" EXPO_TEST_GPU=0 XDG_CACHE_HOME="$work/cache"

step "kernels and models"
failed=0
"$library" gpu kernels::cuda cuda_tests --skip ptx_tests || failed=$?

step "the program"
"$main" gpu:: || failed=$?
[ "$failed" -eq 0 ] || exit 1

step "all checks passed"
