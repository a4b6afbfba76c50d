# Builds and packs what the machine with the GPU needs. Sourced by gpu_check.sh.

root=$(cd "$here/.." && pwd)
most=60 # MiB

# pack DIR [--profile NAME] [--cards LIST]
pack() {
    local dir=$1 profile=release cards=80,86,89,90
    shift
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || fail "$1 takes a value"
        case $1 in
        --profile) profile=$2 ;;
        --cards) cards=$2 ;;
        *) fail "unknown option $1" ;;
        esac
        shift 2
    done
    command -v "${NVCC:-nvcc}" >/dev/null || fail "no nvcc: scripts/cuda_toolkit.sh makes a toolkit"
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    cd "$root"
    rm -rf "$dir"/{gpu_check,tokenizer,gpu_check.sh,rows.jsonl,{expo,tests-lib,tests-test}{,.xz},{fixtures,kernels}.tar.xz}
    programs "$dir" "$profile"
    kernels "$dir" "$cards"
    mkdir "$dir/gpu_check"
    cp scripts/gpu_check.sh "$dir"
    cp scripts/gpu_check/{results,machine,correctness,speed}.sh scripts/gpu_check/ceilings.py "$dir/gpu_check"
    tar cf "$dir/fixtures.tar" tests/fixtures
    rows "$dir"
    xz -T0 -6 "$dir"/{expo,tests-lib,tests-test,*.tar}
    local bytes
    bytes=$(du -sb "$dir" | cut -f1)
    (cd "$dir" && du -sb -- * | sort -gr | awk '{ printf "%8.1f MiB  %s\n", $1 / 2 ^ 20, $2 }')
    [ "$bytes" -le $((most << 20)) ] || fail "$dir has $((bytes >> 20)) MiB; no more than $most are to be brought along"
    echo "$dir: $((bytes >> 20)) MiB"
}

# The program and the tests of the CUDA build, without their symbols.
programs() {
    local dir=$1 target=${CARGO_TARGET_DIR:-$root/target/cuda} messages kind name
    # candle's own kernels for the oldest cards; newer ones take them, too.
    export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80}
    messages=$(cargo test --features cuda --locked --no-run --lib --test main \
        --target-dir "$target" --message-format json)
    for kind in lib test; do
        name=$(executable "$kind" <<<"$messages")
        [ -n "$name" ] || fail "no test binary of kind $kind was built"
        strip -o "$dir/tests-$kind" "$name"
    done
    # The tests have built that of their own profile, too.
    [ "$2" = dev ] || messages=$(cargo build --profile "$2" --features cuda --locked --bin expo \
        --target-dir "$target" --message-format json)
    strip -o "$dir/expo" "$(executable bin <<<"$messages")"
}

# The machine code of all kernels for cards of these compute capabilities, by NVRTC alone.
kernels() {
    [ "$2" != none ] || return 0
    local home made libraries
    home=$(cd "$(dirname "$(command -v "${NVCC:-nvcc}")")/.." && pwd)
    made=$(mktemp -d) libraries=$(mktemp -d)
    # The tests are linked with the driver's library, of which nothing is called.
    ln -s "$home/lib64/stubs/libcuda.so" "$libraries/libcuda.so.1"
    LD_LIBRARY_PATH=$libraries:$home/lib64 EXPO_KERNELS=$made/kernels EXPO_KERNELS_FOR=$2 \
        "$1/tests-lib" kernels_are_compiled_ahead --ignored
    [ -d "$made/kernels" ] || fail "the tests compiled no kernels"
    tar cf "$1/kernels.tar" -C "$made" kernels
    rm -rf "$made" "$libraries"
}

# What cargo built of a kind, in its messages.
executable() { grep -F "\"kind\":[\"$1\"]" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1; }

# Rows as long as those of HH, with their tokenizer.
rows() {
    PYTHONPATH=scripts/peer python3 -B -c '
import sys, rows
from pathlib import Path
rows.save(rows.make(1024), Path(sys.argv[1]) / "rows.jsonl")
rows.save_tokenizer(Path(sys.argv[1]) / "tokenizer", None)
' "$1"
}
