#!/usr/bin/env bash
# Makes a CUDA 13.0 toolkit in a directory, out of NVIDIA's Python wheels, and prints what to export:
#
#   eval "$(scripts/cuda_toolkit.sh DIR)"; cargo build --release --features cuda
#
# Enough to build expo for CUDA, to compile its kernels and to open NCCL where no GPU is. What is there already stays.
# Exit status 3: something that it takes is missing on this machine, and a line says what.
set -euo pipefail
exec </dev/null

missing() {
    echo "no CUDA toolkit: $*" >&2
    exit 3
}

[ $# -eq 1 ] || { echo "usage: ${BASH_SOURCE[0]} DIR" >&2; exit 2; }
[ "$(uname -sm)" = "Linux x86_64" ] || missing "this is not Linux on x86-64"
mkdir -p "$1"
folder="$(cd "$1" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wheels=(
    nvidia-cuda-nvcc==13.0.88 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*'
    'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-nvrtc==13.0.*'
    'nvidia-cublas==13.*' 'nvidia-curand==10.*' 'nvidia-cuda-nvdisasm==13.*' 'nvidia-nccl-cu13==2.*'
)

# The driver's library comes with a driver alone. To link it takes only its names, which cudarc has.
stub_driver() {
    local host bindings
    host="$(rustc -vV | sed -n 's/^host: //p')"
    bindings="$(cargo metadata --locked --features cuda --filter-platform "$host" --format-version 1 |
        python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
(manifest,) = [p["manifest_path"] for p in packages if p["name"] == "cudarc"]
print(os.path.join(os.path.dirname(manifest), "src/driver/sys/mod.rs"))
')" || missing "cargo cannot fetch cudarc"
    # 34 is what NVIDIA's own stub returns.
    grep -oE 'fn cu[A-Z][A-Za-z0-9_]*' "$bindings" | sort -u |
        sed 's/^fn \(.*\)/int \1(void) { return 34; }/' >"$folder/stub.c"
    cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$folder/lib64/stubs/libcuda.so" "$folder/stub.c"
}

made="$folder/made"
recipe="$(cksum <"scripts/$(basename "${BASH_SOURCE[0]}")") $(grep -A1 '^name = "cudarc"' Cargo.lock)"
if [ "$(cat "$made" 2>/dev/null)" != "$recipe" ]; then
    for tool in python3 cargo cc; do
        command -v "$tool" >/dev/null || missing "$tool is not installed"
    done
    rm -f "$made"
    python3 -m venv "$folder/python" >&2 || missing "python3 has no venv"
    "$folder/python/bin/python" -m pip install --quiet --retries 2 "${wheels[@]}" >&2 ||
        missing "pip cannot install the wheels"
    wheel="$(echo "$folder"/python/lib/python3*/site-packages/nvidia/cu13)"
    [ -x "$wheel/bin/nvcc" ] || missing "the wheels have no nvcc"
    rm -rf "$folder/lib64"
    mkdir -p "$folder/lib64/stubs"
    ln -sfn "$wheel"/{bin,nvvm,include,lib} "$folder/"
    ln -s "$wheel"/lib/lib* "$wheel"/../nccl/lib/libnccl.so.2 "$folder/lib64/"
    for library in cudart nvrtc cublas cublasLt curand; do
        versions=("$wheel/lib/lib$library.so".*)
        ln -s "${versions[0]}" "$folder/lib64/lib$library.so"
    done
    stub_driver
    echo "$recipe" >"$made"
fi

libraries="$folder/lib64 $folder/lib64/stubs"
cat <<END
export CUDA_HOME='$folder' CUDA_PATH='$folder' NVCC='$folder/bin/nvcc'
export PATH='$folder/bin':"\$PATH" CUDA_COMPUTE_CAP="\${CUDA_COMPUTE_CAP:-90}"
export LIBRARY_PATH='${libraries// /:}'"\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
END
