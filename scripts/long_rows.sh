#!/usr/bin/env bash
# What a training step on one long row takes, and what a large vocabulary adds: time by part, and memory.
#
#   scripts/long_rows.sh EXPO TOKENIZER
#
# EXPO is the program, TOKENIZER a tokenizer.json. The model is a Llama of two layers with random weights, each
# row one prompt and its answer of half its tokens, the step supervised fine-tuning in DTYPE (default: f32).
# LENGTHS (default: 2048 8192 32768) are tokens of a row, VOCABULARIES (default: 50304 262144) sizes of the head,
# which are measured at the first length. Nothing is written into the repository.
set -euo pipefail
exec </dev/null
[ $# -eq 2 ] || { sed -n '4p' "${BASH_SOURCE[0]}" >&2; exit 2; }
expo="$(realpath "$1")" tokenizer="$(realpath "$2")" dtype="${DTYPE:-f32}"
lengths="${LENGTHS:-2048 8192 32768}" vocabularies="${VOCABULARIES:-50304 262144}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME="$work/cache"

# A row and a step of it: its tokens, the size of the head.
measure() {
    local length="$1" vocabulary="$2"
    if [ ! -d "$work/model-$vocabulary" ]; then
        printf '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 1408, "vocab_size": %s, "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 0}' \
            "$vocabulary" >"$work/config.json"
        "$expo" init --config-json "$work/config.json" --tokenizer "$tokenizer" --out "$work/model-$vocabulary" >/dev/null
    fi
    # Words that most tokenizers have as one token, so that the row is cut at its length.
    awk -v n="$length" 'BEGIN {
        split(" the of to and in for is on that by", word, " ")
        printf "{\"prompt\": \""; for (i = 0; i < n / 2; i++) printf " %s", word[i * i % 10 + 1]
        printf "\", \"completion\": \""; for (i = 0; i < n; i++) printf " %s", word[i * i % 7 + 1]
        print "\"}"
    }' >"$work/rows.jsonl"
    cat >"$work/step.toml" <<TOML
[model]
model_name_or_path = "$work/model-$vocabulary"
dtype = "$dtype"
device = "cpu"
[data]
train = "$work/rows.jsonl"
max_length = $length
max_prompt_length = $((length / 2))
[batch]
batch_size = 1
[optimizer]
learning_rate = 1e-6
[run]
output_dir = "$work/out"
overwrite = true
num_train_epochs = 3
logging_steps = 3
save_model = false
TOML
    "$expo" sft "$work/step.toml" --profile >"$work/profile" 2>"$work/error" || { cat "$work/error" >&2; exit 1; }
    awk -v length_="$length" -v vocabulary="$vocabulary" -v peak="$(tail -n 1 "$work/out/timings.jsonl" |
        sed -n 's/.*"peak_memory_bytes":\([0-9]*\).*/\1/p')" '
        $1 ~ /^(gemm|head|attention|elementwise)$/ && NF == 3 { share[$1] = $3 }
        /^all steps/ { seconds = $3 / 3 }
        /^GFLOP\/s in matmuls/ { rate = $4 }
        /^GFLOP\/s, 1024/ { bound = $4 }
        END {
            printf "| %s | %s | %.1f | %.0f | %s | %s | %s | %s | %.0f%% | %.0f |\n", length_, vocabulary, seconds,
                length_ / seconds, share["gemm"], share["head"], share["attention"], rate, 100 * rate / bound, peak / 1e6
        }' "$work/profile"
}

echo "| tokens | vocabulary | s/step | tokens/s | gemm | head | attention | GFLOP/s in matmuls | of a 1024^3 product | MB |"
echo "| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |"
set -- $vocabularies
for length in $lengths; do
    measure "$length" "$1"
done
first="${lengths%% *}"
shift
for vocabulary in "$@"; do
    measure "$first" "$vocabulary"
done
