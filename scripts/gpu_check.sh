#!/usr/bin/env bash
# Proves the CUDA build on a machine with a GPU, and measures it. Two halves:
#
#   scripts/gpu_check.sh pack DIR    where Rust and a CUDA toolkit are: builds and packs what is needed
#   scripts/gpu_check.sh DIR         where the GPU is: nothing is built; NVIDIA's driver 580 or later
#                                    and the libraries of CUDA 13 are all that it needs
#
# Options of the second: --gpu N (0), --shapes LIST of 1.4b,2.8b,8b (those that fit), --minutes N (8),
# --no-speed, --work DIR (a temporary folder), --json FILE (DIR/gpu_check.json).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() { sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; }
fail() { echo "gpu_check.sh: $*" >&2; exit 2; }

# The binaries of the CUDA build, without their symbols, the fixtures of the tests, and rows as long as
# those of HH with their tokenizer.
pack() {
    local dir=$1 target=${CARGO_TARGET_DIR:-$root/target/cuda} messages
    mkdir -p "$dir"
    cd "$root"
    messages=$(cargo test --features cuda --locked --no-run --lib --test main \
        --target-dir "$target" --message-format json)
    local kind name
    for kind in lib test; do
        name=$(printf '%s\n' "$messages" | grep "\"kind\":\[\"$kind\"\]" |
            grep -o '"executable":"[^"]*"' | tail -1 | cut -d'"' -f4)
        [ -n "$name" ] || fail "no test binary of kind $kind was built"
        strip -o "$dir/tests-$kind" "$name"
    done
    cargo build --release --features cuda --locked --bin expo --target-dir "$target"
    strip -o "$dir/expo" "$target/release/expo"
    rm -rf "$dir/root"
    mkdir -p "$dir/root/tests"
    cp -r tests/fixtures "$dir/root/tests/fixtures"
    PYTHONPATH=scripts/peer python3 -B -c '
import sys, rows
from pathlib import Path
rows.save(rows.make(2048), Path(sys.argv[1]) / "rows.jsonl")
rows.save_tokenizer(Path(sys.argv[1]) / "tokenizer", None)
' "$dir"
    for name in expo tests-lib tests-test; do
        rm -f "$dir/$name.xz"
        xz -T0 -6 "$dir/$name"
    done
    du -sh "$dir" | cut -f1
}

case "${1:-}" in
"" | -h | --help) usage; exit 0 ;;
pack)
    [ $# -eq 2 ] || fail "pack takes a folder"
    command -v nvcc >/dev/null || [ -n "${NVCC:-}" ] || fail "no nvcc: scripts/cuda_toolkit.sh makes a toolkit"
    rm -rf "$2/tokenizer"
    pack "$2"
    exit 0
    ;;
esac

dir=$(cd "$1" 2>/dev/null && pwd) || fail "no folder $1"
shift
gpu=0 shapes=1.4b,2.8b,8b minutes=8 speed=yes work="" json=$dir/gpu_check.json
while [ $# -gt 0 ]; do
    case $1 in
    --no-speed) speed=no; shift; continue ;;
    --gpu | --shapes | --minutes | --work | --json) [ $# -ge 2 ] || fail "$1 takes a value" ;;
    *) fail "unknown option $1" ;;
    esac
    case $1 in
    --gpu) gpu=$2 ;;
    --shapes) shapes=$2 ;;
    --minutes) minutes=$2 ;;
    --work) work=$2 ;;
    --json) json=$2 ;;
    esac
    shift 2
done
start=$SECONDS
left() { echo $((60 * minutes - (SECONDS - start))); }

if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work/bin" "$work/cache"
for name in expo tests-lib tests-test; do
    if [ -f "$dir/$name.xz" ]; then xz -dc "$dir/$name.xz" >"$work/bin/$name"; else cp "$dir/$name" "$work/bin/$name"; fi
    chmod +x "$work/bin/$name"
done
expo=$work/bin/expo
export EXPO_BIN=$expo EXPO_TEST_GPU=$gpu CARGO_MANIFEST_DIR=$dir/root XDG_CACHE_HOME=$work/cache RUST_BACKTRACE=0

# CUDA's libraries, as Python's wheels have them where no toolkit is installed.
if ! "$expo" --version >/dev/null 2>&1; then
    found=$(find / -xdev -name 'libcublas.so.13*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd: || true)
    export LD_LIBRARY_PATH="$found${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    "$expo" --version >/dev/null || fail "the libraries of CUDA 13 (cublas, cudart, curand, nvrtc) are not found"
fi

results=$work/results
: >"$results"
# A row of the table, and of the JSON.
row() {
    printf '%-44s %14s %s\n' "$1" "$2" "$3"
    printf '{"name":"%s","value":"%s","unit":"%s"}\n' "$1" "$2" "$3" >>"$results"
}
number() { grep -o "\"$2\": *[-0-9.e+]*" "$1" | tail -n "${3:-1}" | sed 's/.*: *//'; }
calc() { awk "BEGIN { printf \"%.${2:-1}f\", $1 }"; }

failed=0
# Runs a test binary; the row says how many passed.
tests() {
    local name=$1 log=$work/$2.log
    shift 2
    "$@" >"$log" 2>&1 || failed=1
    local line
    line=$(grep '^test result' "$log" | tail -1 || true)
    if [[ $line != "test result: ok"* ]]; then
        failed=1
        grep -E '^test .*FAILED|panicked' -A2 "$log" | head -20 || tail -5 "$log"
    fi
    row "$name" "$(echo "$line" | grep -o '[0-9]* passed' | cut -d' ' -f1 || echo 0)" \
        "passed, $(echo "$line" | grep -o '[0-9]* failed' || echo "it did not end")"
}

tests "kernels against the processor's" kernels "$work/bin/tests-lib" kernels::cuda --skip ptx_tests --test-threads 4
tests "whole models, every gradient" models "$work/bin/tests-lib" model::cuda_tests --test-threads 4
tests "ten steps, determinism, samples" runs "$work/bin/tests-test" gpu:: --test-threads 4

shape() {
    case $1 in
    1.4b) echo '{"model_type":"gpt_neox","hidden_size":2048,"num_hidden_layers":24,"num_attention_heads":16,"intermediate_size":8192,' ;;
    2.8b) echo '{"model_type":"gpt_neox","hidden_size":2560,"num_hidden_layers":32,"num_attention_heads":32,"intermediate_size":10240,' ;;
    8b) echo '{"model_type":"llama","hidden_size":4096,"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"intermediate_size":14336,"rope_theta":500000.0,"rms_norm_eps":1e-5,' ;;
    *) fail "no shape $1: 1.4b, 2.8b or 8b" ;;
    esac
    case $1 in
    8b) echo '"vocab_size":128256,"max_position_embeddings":8192,"bos_token_id":0,"eos_token_id":0,"tie_word_embeddings":false}' ;;
    *) echo '"vocab_size":50304,"max_position_embeddings":2048,"rotary_pct":0.25,"use_parallel_residual":true,"layer_norm_eps":1e-5,"hidden_act":"gelu","bos_token_id":0,"eos_token_id":0,"tie_word_embeddings":false}' ;;
    esac
}

# Trains 64 pairs a step from random weights; what timings.jsonl says of its later steps.
measure() {
    local name=$1 model=$work/$1 out=$work/run-$1 states=f32 steps=12
    [ "$name" = 8b ] && states=split steps=8
    shape "$name" >"$work/$name.json"
    "$expo" init --config-json "$work/$name.json" --tokenizer "$dir/tokenizer" --out "$model" --dtype bf16 >/dev/null
    cat >"$work/$name.toml" <<TOML
[model]
model_name_or_path = "$model"
device = "cuda:$gpu"
dtype = "bf16"
save_dtype = "bf16"
[data]
format = "pairs"
train = "$dir/rows.jsonl"
max_length = 512
max_prompt_length = 496
[loss.dpo]
beta = 0.1
[batch]
batch_size = 64
micro_batch_tokens = 16384
[optimizer]
learning_rate = 1e-6
states = "$states"
[run]
output_dir = "$out"
max_steps = $steps
logging_steps = 1
TOML
    local train=("$expo" train --config "$work/$name.toml")
    [ "$name" = 8b ] && train+=(--set model.recompute=true --set batch.micro_batch_tokens=8192)
    if ! "${train[@]}" >"$work/$name.log" 2>&1; then
        row "$name" "failed" "$(tail -1 "$work/$name.log" | tr -d '"\\' | cut -c1-160)"
        failed=1
        return
    fi
    local pairs scoring line=$out/timings.jsonl
    pairs=$(grep -v '"step":0,' "$line" | tail -n +4 | grep -o '"rows_per_second":[0-9.e+]*' | cut -d: -f2 |
        sort -g | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }')
    scoring=$(grep '"step":0,' "$line" | grep -o '"rows_per_second":[0-9.e+]*' | cut -d: -f2)
    row "$name DPO, reference cached" "$(calc "$pairs")" "pairs/s"
    row "$name DPO, reference on line" "$(calc "1 / (1 / $pairs + 1 / $scoring)")" "pairs/s"
    row "$name peak GPU memory" "$(calc "$(number "$line" peak_gpu_memory_bytes) / 2 ^ 30")" "GiB"
    local flops
    flops=$("$expo" plan --config "$work/$name.toml" --gpu h200 --json | grep -o '"per_pair": *[0-9.e+]*' | head -1 | sed 's/.*: *//' || true)
    [ -z "$flops" ] || row "$name useful operations" "$(calc "$flops * $pairs / 1e12")" "TFLOP/s"
    [ "$name" = 2.8b ] || return 0
    local batch
    for batch in 64 256; do
        [ "$(left)" -gt 60 ] || return 0
        sample "$batch"
    done
}

sample() {
    local out=$work/samples-$1.jsonl
    head -n "$1" "$dir/rows.jsonl" >"$work/prompts-$1.jsonl"
    "$expo" sample --model "$work/2.8b" --device "cuda:$gpu" --dtype bf16 --prompts "$work/prompts-$1.jsonl" \
        --batch-size "$1" --max-new-tokens 256 --out "$out" --json >"$work/sample.json" 2>>"$work/2.8b.log" || {
        row "2.8b sampling, $1 sequences" failed ""
        failed=1
        return
    }
    row "2.8b sampling, $1 sequences" "$(calc "$(number "$work/sample.json" tokens_per_second)" 0)" "tokens/s"
}

if [ "$speed" = yes ]; then
    for name in ${shapes//,/ }; do
        if [ "$(left)" -lt 100 ]; then
            row "$name" "left out" "no time left"
            continue
        fi
        measure "$name"
        rm -rf "${work:?}/$name" "$work/run-$name"
    done
fi

name=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader -i "$gpu" 2>/dev/null || echo "no nvidia-smi")
row "GPU" "$(echo "$name" | cut -d, -f1 | tr ' ' '_')" "driver$(echo "$name" | cut -s -d, -f2)"
row "seconds" "$((SECONDS - start))" "s"
printf '{"version":"%s","rows":[%s]}\n' "$("$expo" --version 2>/dev/null)" "$(paste -sd, "$results")" >"$json"
exit "$failed"
