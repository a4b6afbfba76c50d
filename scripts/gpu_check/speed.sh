# Speed: DPO, sampling, and what they are held against. Sourced by gpu_check.sh.

pairs=64 tokens=16384 answer=256
if [ "$shapes" = tiny ]; then pairs=2 tokens=512 answer=4; fi

shape() {
    local ids='"bos_token_id":0,"eos_token_id":0,"tie_word_embeddings":false'
    local neox='{"model_type":"gpt_neox","rotary_pct":0.25,"use_parallel_residual":true,"layer_norm_eps":1e-5,"hidden_act":"gelu","max_position_embeddings":2048,'
    local llama='{"model_type":"llama","rope_theta":500000.0,"rms_norm_eps":1e-5,"max_position_embeddings":8192,'
    case $shapes-$1 in
    real-2.8b) echo "$neox\"hidden_size\":2560,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"intermediate_size\":10240,\"vocab_size\":50304,$ids}" ;;
    real-8b) echo "$llama\"hidden_size\":4096,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":8,\"intermediate_size\":14336,\"vocab_size\":128256,$ids}" ;;
    tiny-2.8b) echo "$neox\"hidden_size\":32,\"num_hidden_layers\":2,\"num_attention_heads\":2,\"intermediate_size\":64,\"vocab_size\":4928,$ids}" ;;
    tiny-8b) echo "$llama\"hidden_size\":32,\"num_hidden_layers\":2,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"intermediate_size\":64,\"vocab_size\":4928,$ids}" ;;
    esac
}

# The models are made while kernels are tested, which takes the GPU and few CPUs.
background() {
    make_model "$1" &
    children+=($!)
    makers[$1]=$!
}
declare -A makers=()

make_model() {
    local needed=18
    [ "$1" = 8b ] || needed=7
    [ "$shapes" = real ] || needed=0
    shape "$1" >"$work/$1.json"
    if [ "$(free_gb)" -lt "$needed" ]; then
        echo "its model takes $needed GB, and $work has $(free_gb)" >"$logs/init-$1.log"
        return 1
    fi
    exec env RAYON_NUM_THREADS=$(($(nproc) / 2 + 1)) "$expo" init --config-json "$work/$1.json" \
        --tokenizer "$dir/tokenizer" --out "$work/$1" --dtype bf16 >"$logs/init-$1.log" 2>&1
}

# Waits for a model; status 1, and a row, if there is none.
model() {
    [ -d "$work/$1" ] && return
    while [ -n "${makers[$1]:-}" ] && kill -0 "${makers[$1]}" 2>/dev/null && [ "$(left)" -gt 30 ]; do sleep 0.2; done
    [ -d "$work/$1" ] && return
    row "$1" "left out" "" "no model: $(tail -n 1 "$logs/init-$1.log" 2>/dev/null)" wrong
    return 1
}

# Waits until no model is being made any more: that takes CPUs and memory from what is measured.
quiet() {
    local maker
    for maker in ${makers[@]+"${makers[@]}"}; do
        while kill -0 "$maker" 2>/dev/null && [ "$(left)" -gt 240 ]; do sleep 0.2; done
    done
}

# Whether so many seconds are left; a row, if not.
time_for() {
    [ "$(left)" -ge "$2" ] && return
    row "$1" "left out" "" "it takes about $2 s, and $(left) are left"
    return 1
}

# config NAME MODEL STEPS TOKENS STATES: the config of a run. Nothing but its timings is wanted of it.
config() {
    head -n $((pairs * ($3 + 1))) "$dir/rows.jsonl" >"$work/rows-$1.jsonl"
    cat >"$work/$1.toml" <<TOML
[model]
model_name_or_path = "$work/$2"
device = "cuda:$gpu"
dtype = "bf16"
[data]
format = "pairs"
train = "$work/rows-$1.jsonl"
max_length = 512
max_prompt_length = 496
[loss.dpo]
beta = 0.1
[batch]
batch_size = $pairs
micro_batch_tokens = $4
[optimizer]
learning_rate = 1e-6
states = "$5"
[run]
output_dir = "$work/run-$1"
max_steps = $3
logging_steps = 1
save_model = false
TOML
}

# Trains, and says what timings.jsonl has of the steps after the third, in which everything is compiled.
train() {
    local name=$1 seconds=$2 lines=$work/run-$1/timings.jsonl code=0
    timeout -k 5 "$(within "$seconds")" "$expo" train --config "$work/$name.toml" >"$logs/$name.log" 2>&1 || code=$?
    [ ! -e "$lines" ] || cp "$lines" "$logs/$name.timings.jsonl"
    local rate scoring peak operations
    rate=$(grep -v '"step":0,' "$lines" 2>/dev/null | tail -n +4 | grep -o '"rows_per_second":[0-9.e+]*' | cut -d: -f2 |
        sort -g | awk '{ x[NR] = $1 } END { if (NR) print x[int((NR + 1) / 2)] }' || true)
    if [ "$code" != 0 ]; then
        row "$name DPO" "failed" "" "exit status $code: $(tail -n 1 "$logs/$name.log")" wrong
    fi
    [ -n "$rate" ] || return 0
    row "$name DPO, reference cached" "$(calc "$rate")" "pairs/s"
    scoring=$(grep '"step":0,' "$lines" | grep -o '"rows_per_second":[0-9.e+]*' | cut -d: -f2 || true)
    [ -z "$scoring" ] || row "$name DPO, reference on line" "$(calc "1 / (1 / $rate + 1 / $scoring)")" "pairs/s" \
        "with the scoring pass's $(calc "$scoring") pairs/s"
    peak=$(number "$lines" peak_gpu_memory_bytes || true)
    [ -z "$peak" ] || row "$name DPO, peak GPU memory" "$(calc "$peak / 2 ^ 30")" "GiB"
    operations=$("$expo" plan --config "$work/$name.toml" --memory 100000 --json 2>/dev/null |
        sed -n 's/.*"total":{"row":\([0-9.e+]*\).*/\1/p' || true)
    [ -z "$operations" ] || row "$name DPO, useful operations" "$(calc "$operations * $rate / 1e12")" "TFLOP/s"
}

measure_dpo() {
    time_for "2.8b DPO" 60 && model 2.8b || return 0
    quiet
    config 2.8b 2.8b 12 "$tokens" f32
    train 2.8b 120
}

measure_sampling() {
    local batch out
    model 2.8b || return 0
    for batch in $pairs $((4 * pairs)); do
        time_for "2.8b sampling, $batch sequences" 30 || return 0
        out=$logs/sampling-$batch
        head -n "$batch" "$dir/rows.jsonl" >"$work/prompts-$batch.jsonl"
        if timeout -k 5 "$(within 90)" "$expo" sample --model "$work/2.8b" --device "cuda:$gpu" --dtype bf16 \
            --prompts "$work/prompts-$batch.jsonl" --batch-size "$batch" --max-new-tokens "$answer" \
            --out "$work/samples-$batch.jsonl" --json >"$out.json" 2>"$out.log"; then
            row "2.8b sampling, $batch sequences" "$(calc "$(number "$out.json" tokens) / $(number "$out.json" seconds)" 0)" "tokens/s"
        else
            row "2.8b sampling, $batch sequences" "failed" "" "$(tail -n 1 "$out.log")" wrong
        fi
    done
}

# What this card reaches at most: matmuls of the run's shapes, and a copy.
measure_ceilings() {
    local python name figure unit
    for python in "${PYTHON:-}" "$(command -v python3 || true)" /opt/*/.venv/bin/python /opt/*/bin/python; do
        [ -x "$python" ] || continue
        timeout 30 "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || continue
        time_for "ceilings" 30 || return 0
        while IFS=$'\t' read -r name figure unit; do
            row "$name" "$figure" "$unit"
        done < <(CUDA_VISIBLE_DEVICES=$gpu timeout -k 5 "$(within 60)" "$python" "$here/gpu_check/ceilings.py" 2>"$logs/ceilings.log")
        return
    done
    row "ceilings" "left out" "" "no Python with PyTorch for CUDA; the profile has a product's rate"
}

# Where a step's time goes: by part as expo sees it, with the rate of a large product; by kernel where
# ncu is.
measure_profile() {
    local log=$logs/profile.log line
    time_for "profile" 40 && model 2.8b || return 0
    config profile 2.8b 3 "$tokens" f32
    # A product of 8192^3 would take an emulated card hours.
    [ "$shapes" = real ] || sed -i 's/^device = .*/device = "cpu"/' "$work/profile.toml"
    if ! timeout -k 5 "$(within 90)" "$expo" train --profile --config "$work/profile.toml" >"$log" 2>&1; then
        row "profile" "failed" "" "$(tail -n 1 "$log")" wrong
        return
    fi
    while read -r line; do
        row "2.8b step, ${line%%  *}" "$(awk '{ sub("%", "", $NF); print $NF }' <<<"$line")" "% of the time"
    done < <(sed -n '/^part  /,/^all steps/p' "$log" | sed '1d; $d')
    row "product of $(sed -nE 's/^GFLOP\/s, ([0-9^]+) product .*/\1/p' "$log")" \
        "$(calc "$(awk '/^GFLOP\/s, .* product/ { print $NF }' "$log") / 1000")" "TFLOP/s" "by expo, in bf16"
    local ncu
    for ncu in "$(command -v ncu || true)" /usr/local/cuda/bin/ncu; do
        [ -x "$ncu" ] || continue
        time_for "kernel table" 160 || return 0
        kernel_table "$ncu"
        return
    done
    row "kernel table" "left out" "" "there is no ncu"
}

# Time and bytes of each kernel of one step, the longest first. The scoring pass before it is cached.
kernel_table() {
    local name launches ms gb
    config kernels 2.8b 0 "$tokens" f32
    sed -i 's/^max_steps = .*/max_steps = 1/' "$work/kernels.toml"
    timeout -k 5 "$(within 120)" "$1" --clock-control none --print-units base --csv --log-file "$logs/ncu.csv" \
        --metrics gpu__time_duration.sum,dram__bytes.sum "$expo" train --config "$work/kernels.toml" >"$logs/ncu.log" 2>&1 || true
    if ! grep -q '^"' "$logs/ncu.csv" 2>/dev/null; then
        row "kernel table" "left out" "" "ncu: $(tail -n 1 "$logs/ncu.log")"
        return
    fi
    while IFS=$'\t' read -r ms launches gb name; do
        row "kernel $name" "$ms" "ms" "$launches launches, $gb GB"
    done < <(grep '^"' "$logs/ncu.csv" | awk -F '","' '
        NR == 1 { for (i = 1; i <= NF; i++) { gsub("\"", "", $i); at[$i] = i } next }
        {
            kernel = substr($at["Kernel Name"], 1, 60); value = $at["Metric Value"]; gsub("[\",]", "", value)
            if ($at["Metric Name"] ~ /time/) { count[kernel]++; ms[kernel] += value / 1e6 } else gb[kernel] += value / 1e9
        }
        END { for (kernel in count) printf "%.3f\t%d\t%.3f\t%s\n", ms[kernel], count[kernel], gb[kernel], kernel }' |
        sort -gr | head -n 30)
}

# Llama-3-8B without recomputing, if this card has the memory for it.
measure_8b() {
    time_for "8b DPO" 80 || return 0
    rm -rf "${work:?}/2.8b"
    model 8b || return 0
    config 8b 8b 6 $((tokens / 2)) split
    local said
    if [ -z "$memory" ]; then
        row "8b DPO" "left out" "" "nvidia-smi does not say how much memory the GPU has"
    elif ! said=$("$expo" plan --config "$work/8b.toml" --memory "$(calc "$memory / 1024")" --json 2>&1); then
        row "8b DPO" "left out" "" "$(tail -n 1 <<<"$said")"
    else
        train 8b 150
    fi
}
