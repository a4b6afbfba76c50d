#!/usr/bin/env bash
# What a DPO step takes with an adapter, beside the step that trains all weights: time, memory, and the memory
# that `expo plan` says.
#
#   scripts/compare_adapters.sh EXPO ROWS TOKENIZER [SHAPE]
#
# EXPO is the program, ROWS preference rows (a .jsonl or .jsonl.gz of any layout), TOKENIZER a tokenizer.json,
# SHAPE 70m (default), 160m or 410m of Pythia with random weights, or 1b of Llama-3.2. A step has PAIRS (default: 8)
# rows; the runs take turns for ROUNDS (default: 3) rounds of STEPS (default: 4) steps, and of each the round with
# the least CPU seconds counts. KINDS (default: all) names the runs. Nothing is written into the repository.
set -euo pipefail
exec </dev/null
[ $# -ge 3 ] || { sed -n '5p' "${BASH_SOURCE[0]}" >&2; exit 2; }
expo="$(realpath "$1")" rows="$(realpath "$2")" tokenizer="$(realpath "$3")" shape="${4:-70m}"
pairs="${PAIRS:-8}" rounds="${ROUNDS:-3}" steps="${STEPS:-4}"
kinds="${KINDS:-full-f32 lora-f32 full-bf16 lora-bf16 nf4-bf16}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME="$work/cache"

neox() {
    printf '{"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "hidden_size": %s, "num_hidden_layers": %s, "num_attention_heads": %s, "intermediate_size": %s, "vocab_size": 50304, "rotary_pct": 0.25, "max_position_embeddings": 2048, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 0}' "$1" "$2" "$3" "$4"
}
case "$shape" in
70m) neox 512 6 8 2048 ;;
160m) neox 768 12 12 3072 ;;
410m) neox 1024 24 16 4096 ;;
1b) printf '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256, "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 0}' ;;
*) echo "no shape $shape: 70m, 160m, 410m or 1b" >&2; exit 2 ;;
esac >"$work/config.json"
"$expo" init --config-json "$work/config.json" --tokenizer "$tokenizer" --out "$work/model" --dtype "${INIT_DTYPE:-f32}" >/dev/null

config() {
    local dtype="${1#*-}" more=""
    printf '[model]\nmodel_name_or_path = "%s"\ndtype = "%s"\ndevice = "cpu"\n' "$work/model" "$dtype"
    case "$1" in nf4-*) echo 'quantization = "nf4"' ;; q8-*) echo 'quantization = "q8_0"' ;; esac
    [ -z "${RECOMPUTE:-}" ] || echo 'recompute = true'
    case "$1" in full-*) ;; *) printf '[adapter]\nr = 16\nalpha = 32\ntarget_modules = "all-linear"\n' ;; esac
    printf '[data]\ntrain = "%s[:%s]"\nmax_length = 512\nmax_prompt_length = 256\n' "$rows" "$((pairs * steps))"
    printf '[loss.dpo]\n[batch]\nbatch_size = %s\nmicro_batch_tokens = %s\n[optimizer]\nlearning_rate = 1e-4\n' "$pairs" "${MICRO:-4096}"
    printf '[run]\noutput_dir = "%s"\nmax_steps = %s\nlogging_steps = %s\nsave_model = false\n' "$work/out-$1" "$steps" "$steps"
}
for kind in $kinds; do
    config "$kind" >"$work/$kind.toml"
    "$expo" plan --config "$work/$kind.toml" --json >"$work/$kind.plan"
    # The reference's log-probs are then in the cache.
    "$expo" train --config "$work/$kind.toml" >/dev/null 2>&1
done
for round in $(seq "$rounds"); do
    for kind in $kinds; do
        rm -rf "$work/out-$kind"
        "$expo" train --config "$work/$kind.toml" >/dev/null 2>&1
        tail -n 1 "$work/out-$kind/timings.jsonl" >>"$work/$kind.times"
    done
done
python3 - "$work" "$shape" $kinds <<'PY'
import json, sys
work, shape, *kinds = sys.argv[1:]
best, first = {}, {}
print(f"{shape}: CPU seconds of a step's rows, the least of the rounds; peak memory; what expo plan says")
for kind in kinds:
    lines = [json.loads(line) for line in open(f"{work}/{kind}.times")]
    key = "cpu_seconds" if "cpu_seconds" in lines[0] else "seconds"
    line = min(lines, key=lambda line: line[key])
    peak = min(line["peak_memory_bytes"] for line in lines)
    plan = json.load(open(f"{work}/{kind}.plan"))["memory"]["total"]
    full = "full-" + kind.split("-")[1]
    best[kind] = (line[key], peak)
    ratio = ""
    if full in best and full != kind:
        ratio = f"  {best[full][0] / line[key]:.2f} times as fast as {full}, {peak / best[full][1]:.2f} of its memory"
    print(f"{kind:10}  {line[key]:8.2f} s  {peak / 1e9:6.2f} GB  plan {plan / 1e9:6.2f} GB{ratio}")
PY
