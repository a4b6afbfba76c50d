#!/usr/bin/env bash
# Stands for nvcc in the build that scripts/cuda_emulator.sh runs on a CPU. candle's own CUDA kernels, which take
# nvcc many minutes, are never launched there: expo launches its own, and the emulated driver refuses any
# other. So each is built empty, and a call of one from the host ends the process.
#
# EMULATED_NVCC is the nvcc that says its version.
set -euo pipefail

output="" directory="" sources=() step=""
given=("$@")
while [ $# -gt 0 ]; do
    case $1 in
    --ptx | --lib | -c) step=$1 ;;
    -o) output=$2; shift ;;
    --output-directory) directory=$2; shift ;;
    *.cu) sources+=("$1") ;;
    esac
    shift
done

case $step in
--ptx)
    for source in "${sources[@]}"; do
        : >"$directory/$(basename "$source" .cu).ptx"
    done
    ;;
-c) : >"$output" ;;
--lib)
    # What candle declares of them; a build script runs in its package's directory.
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    {
        echo '#include <stdlib.h>'
        sed -nE 's/^ *pub fn ([a-z0-9_]+) *\(.*/void \1(void) { abort(); }/p' src/ffi.rs | sort -u
    } >"$work/kernels.c"
    cc -fPIC -c -o "$work/kernels.o" "$work/kernels.c"
    rm -f "$output"
    ar rcs "$output" "$work/kernels.o"
    ;;
*) exec "$EMULATED_NVCC" "${given[@]}" ;;
esac
