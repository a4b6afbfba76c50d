#!/usr/bin/env bash
# Makes libraries in a directory that stand for the CUDA driver, NVRTC, cuBLAS, cuRAND and NCCL where no GPU is:
#
#   scripts/emulated_driver.sh FOLDER BINARY...
#
# They are tests/cuda/driver.cpp, under every name that the binaries ask the loader for, and tests/cuda/nccl.cpp. What
# else the binaries want of them is there, too, and says so when it is called.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: ${BASH_SOURCE[0]} FOLDER BINARY..." >&2; exit 2; }
sources="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/tests/cuda"
folder=$1
shift
mkdir -p "$folder"
{
    cat <<'END'
#include <cstdio>
#define STUB(name) \
    extern "C" __attribute__((weak)) int name() { \
        fprintf(stderr, "emulated driver: %s is called\n", #name); \
        return 801; \
    }
END
    nm -D --undefined-only "$@" | awk '{ print $2 }' | sed 's/@.*//' |
        grep -E '^(cu[A-Z]|cublas|curand|nvrtc)' | sort -u | sed 's/.*/STUB(&)/'
} >"$folder/stubs.cpp"
options=(-std=c++17 -O2 -Wall -Wextra -fPIC -shared)
c++ "${options[@]}" -o "$folder/driver.so" "$sources/driver.cpp" "$folder/stubs.cpp" -ldl
c++ "${options[@]}" -pthread -o "$folder/libnccl.so.2" "$sources/nccl.cpp" -ldl -lrt
readelf -d "$@" | sed -n 's/.*NEEDED.*\[\(lib\(cuda\|nvrtc\|cublas\|cublasLt\|curand\)\.so\..*\)\]/\1/p' | sort -u |
    while read -r name; do
        ln -sfn driver.so "$folder/$name"
        echo "$name"
    done
