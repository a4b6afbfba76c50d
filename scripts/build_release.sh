#!/usr/bin/env bash
# Builds both programs of a release into one directory: `expo`, which starts anywhere, and `expo-cuda`
# beside it, which `expo` runs where there is a GPU.
#
#   scripts/build_release.sh [--profile NAME] [--cpu] DIR
#
# --profile takes another profile of Cargo than dist. --cpu leaves out expo-cuda. The CUDA build takes the
# toolkit whose nvcc is in NVCC, CUDA_HOME or PATH, or makes one with scripts/cuda_toolkit.sh in
# target/cuda-toolkit. It looks for CUDA's libraries in DIR/lib and /usr/local/cuda/lib64, too, and runs on
# GPUs of compute capability 8.0 and higher.
set -euo pipefail
exec </dev/null

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }
profile=dist cuda=yes folder=""
while [ $# -gt 0 ]; do
    case "$1" in
        --profile) profile="${2:?--profile wants a name}"; shift ;;
        --cpu) cuda="" ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) [ -z "$folder" ] || { usage >&2; exit 2; }; folder="$1" ;;
    esac
    shift
done
[ -n "$folder" ] || { usage >&2; exit 2; }
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Both say it, and `expo` runs no `expo-cuda` of another build.
if [ -z "${EXPO_BUILD:-}" ]; then
    EXPO_BUILD="$(git describe --always --dirty --exclude '*' 2>/dev/null || date -u +%Y-%m-%dT%H:%M:%SZ)"
fi
export EXPO_BUILD

# Builds the program with these options of cargo and of the linker, and puts it under a name.
build() {
    local name="$1" program
    shift
    program="$(cargo rustc --locked --profile "$profile" --bin expo --message-format json-render-diagnostics "$@" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)"
    [ -x "$program" ] || { echo "$name was not built" >&2; exit 1; }
    # Under its name only when it is whole, also where it runs.
    cp "$program" "$folder/$name.new"
    mv "$folder/$name.new" "$folder/$name"
}

build expo
if [ -n "$cuda" ]; then
    if [ -z "${NVCC:-}" ] && [ ! -x "${CUDA_HOME:-}/bin/nvcc" ] && ! command -v nvcc >/dev/null; then
        exports="$(scripts/cuda_toolkit.sh target/cuda-toolkit)"
        eval "$exports"
    fi
    # candle's own kernels are compiled for the oldest GPUs that are supported; newer ones take them, too.
    export CUDA_COMPUTE_CAP=80
    build expo-cuda --features cuda -- -C "link-arg=-Wl,-rpath,\$ORIGIN/lib:/usr/local/cuda/lib64"
fi
for name in expo ${cuda:+expo-cuda}; do
    size="$(du -h "$folder/$name" | cut -f 1)"
    echo "$folder/$name  $size"
done
"$folder/expo" --version
