# Sourced, in the project's root: takes the toolkit of an nvcc that is there (NVCC, CUDA_HOME, CUDA_PATH or
# PATH), or makes one with scripts/cuda_toolkit.sh in target/cuda-toolkit, for a build that runs on the
# emulated driver: candle's own kernels are built empty. Sets CUDA_HOME, PATH and what else cargo takes.
# Exits with status 3 where something that it takes is missing on this machine, and a line says what.

for tool in c++ nm readelf; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed"; exit 3; }
done
nvcc=""
for candidate in "${NVCC:-}" "${CUDA_HOME:-}/bin/nvcc" "${CUDA_PATH:-}/bin/nvcc" \
    /usr/local/cuda/bin/nvcc "$(command -v nvcc || true)"; do
    if [ -x "$candidate" ]; then
        nvcc="$candidate"
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
