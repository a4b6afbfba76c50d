#!/usr/bin/env bash
# Runs two binaries of expo on the same configs and compares what they write byte for byte: the check of
# a change that must not change results.
#
#   scripts/same_results.sh [--quick] [--strict] [--only PATTERN] [--list] OLD_BINARY NEW_BINARY
#
# --quick takes a minute on two cores: every loss, family, optimizer and command in a small run. Without
# it the configs of configs/ run, too. --only runs the cases whose name matches PATTERN, an
# extended regular expression. --list prints their names.
#
# Compared are all the files of a case, except those that hold times (see `compare_files`), and standard
# output. Tables and help texts, which may be reworded on purpose, are the class "text": differences
# there are listed, but fail with --strict only. Standard error is not compared.
#
# A case fails if a file or standard output differs, if either binary fails, or if a file that it must
# write is missing or empty. Where something differs, the outputs are kept and their directory is printed.
# Needs bash, coreutils, awk, grep and sed.
#
# Exit code: 0 all the same, 1 something differs or failed, 2 wrong usage.
set -euo pipefail
export LC_ALL=C # sorts, numbers and bytes

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }
quick='' strict='' only='' list='' binaries=()
while [ $# -gt 0 ]; do
    case "$1" in
        --quick) quick=yes ;;
        --strict) strict=yes ;;
        --list) list=yes ;;
        --only) only="${2:?--only wants a pattern}"; shift ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) binaries+=("$(realpath -- "$1")") ;;
    esac
    shift
done
if [ -z "$list" ]; then
    [ "${#binaries[@]}" -eq 2 ] || { usage >&2; exit 2; }
    for binary in "${binaries[@]}"; do
        [ -x "$binary" ] || { echo "$binary: no program" >&2; exit 2; }
    done
    old="${binaries[0]}" new="${binaries[1]}"
fi

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# A directory of its own for each binary, with the same relative paths in both. `crossed` is for runs that
# OLD begins and NEW resumes.
sides=(old new crossed)
for side in "${sides[@]}"; do
    mkdir -p "$work/$side/out" "$work/$side/home"
    ln -s "$root/configs" "$root/tests" "$work/$side/"
done

same=0 failed=() reworded=() refused=()

# Runs a binary in the directory of a side, with a cache of its own; the exit code is that of the binary.
# Standard output and standard error go to files beside that directory.
run_in() {
    local side="$1" binary="$2"
    shift 2
    (
        cd "$work/$side"
        unset HF_HOME HF_HUB_CACHE OPENAI_API_KEY OPENAI_BASE_URL
        HOME="$work/$side/home" XDG_CACHE_HOME="$work/$side/cache" HF_HUB_OFFLINE=1 \
            "$binary" "$@" >"$work/$side.stdout" 2>"$work/$side.stderr" </dev/null
    )
}

# Whether --only and --list let a case run.
wanted() {
    [[ "$1" =~ $only ]] || return 1
    [ -z "$list" ] || { echo "$1"; return 1; }
}

# Notes what is wrong with the present case.
problem() { problems+=("$1"); }

# The exit code must be 0 on a side.
check_code() {
    [ "$2" -eq 0 ] || problem "$1: exit code $2: $(tail -n 1 "$work/$1.stderr")"
}

# Takes out of standard output, of summary.json and of the tables of a sweep what is measured by a clock
# or is of the machine: seconds, rates and memory.
without_times() {
    sed -E -e 's/"(seconds|rows_per_second|tokens_per_second|cpu_seconds|peak_memory_bytes)": ?[-+0-9.eE]+/"\1":0/g' \
        -e 's/("path":"[^"]*(timings.jsonl|summary.json|tensorboard)",.*"bytes":)[0-9]+/\10/' \
        -e 's/^(time|rows\/s|tokens\/s) .*/\1/' "$1"
}

# The first place where two files differ: its byte and line, and what stands around it in text files.
first_difference() {
    local said byte from
    said="$(cmp -- "$1" "$2" 2>&1 || true)"
    if [[ "$said" =~ (byte|char)\ ([0-9]+),\ line\ ([0-9]+)$ ]]; then
        byte="${BASH_REMATCH[2]}" said="byte ${BASH_REMATCH[2]}, line ${BASH_REMATCH[3]}"
        from=$((byte > 60 ? byte - 60 : 1))
        if grep -qI . "$1" && grep -qI . "$2"; then
            said+=", old \`$(around "$from" "$1")\`, new \`$(around "$from" "$2")\`"
        fi
    fi
    printf '%s' "$said"
}

# A hundred bytes of a file from a place on, in one line.
around() { tail -c "+$1" "$2" | head -c 100 | tr '\n' ' ' || true; }

# Compares two files under the name that is said.
compare_file() {
    cmp -s -- "$1" "$2" || problem "$3: $(first_difference "$1" "$2")"
}

# Compares all files below out/NAME of two sides, and counts them; LABEL stands before the name of one
# that differs: compare_files SIDE SIDE NAME [LABEL]
compare_files() {
    local one="$work/$1/out/$3" other="$work/$2/out/$3" label="${4-}" file
    local list_one list_other
    list_one="$(cd "$one" 2>/dev/null && find . -type f | sed "s/tfevents.*/tfevents/" | sort)" || true
    list_other="$(cd "$other" 2>/dev/null && find . -type f | sed "s/tfevents.*/tfevents/" | sort)" || true
    if [ "$list_one" != "$list_other" ]; then
        problem "${label}other files are written: $(diff <(echo "$list_one") <(echo "$list_other") | grep '^[<>]' | head -n 5 | tr '\n' ' ')"
    fi
    while read -r file; do
        case "$file" in
            # Seconds, rates and memory; event files have the time of each value and the host's name in
            # their names; the lock has a process number.
            */timings.jsonl | */tensorboard/* | */run.lock) ;;
            */summary.json | */sweep.json)
                [ -f "$one/$file" ] && [ -f "$other/$file" ] || continue
                without_times "$one/$file" >"$work/one"
                without_times "$other/$file" >"$work/other"
                compare_file "$work/one" "$work/other" "$label${file#./}"
                files=$((files + 1))
                ;;
            *)
                [ -f "$one/$file" ] && [ -f "$other/$file" ] || continue
                compare_file "$one/$file" "$other/$file" "$label${file#./}"
                files=$((files + 1))
                ;;
        esac
    done <<<"$list_one"
}

# Files that a case must write, below out/NAME of each side that is named.
check_written() {
    local name="$1" file side
    for file in $2; do
        for side in "${@:3}"; do
            [ -s "$work/$side/out/$name/$file" ] || problem "$side: $file was not written"
        done
    done
}

# Begins a case.
begin() {
    problems=() files=0 started=$EPOCHREALTIME
}

# Ends a case: says how it went. Its outputs are kept if something differs.
end() {
    local name="$1" what="$files files"
    local took
    took="$(awk -v a="$started" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f s", b - a }')"
    if [ "${#problems[@]}" -eq 0 ]; then
        same=$((same + 1))
        printf 'same     %-32s %s, %s\n' "$name" "$what" "$took"
        rm -rf "$work"/{old,new,crossed}/out/"$name"
    else
        failed+=("$name: ${problems[0]}")
        printf 'DIFFERS  %s\n' "$name"
        printf '  %s\n' "${problems[@]:0:12}"
        [ "${#problems[@]}" -le 12 ] || echo "  and $((${#problems[@]} - 12)) more"
    fi
}

# Runs both binaries with the same arguments, at the same time.
both() {
    local code_old=0 code_new=0 pid
    run_in old "$old" "$@" &
    pid=$!
    run_in new "$new" "$@" || code_new=$?
    wait "$pid" || code_old=$?
    check_code old "$code_old"
    check_code new "$code_new"
    last_code=$((code_old | code_new))
}

# Compares standard output of the last command. It is the class "text" unless a program is to read it.
compare_stdout() {
    local name="$1" side before="${#problems[@]}"
    shift
    for side in old new; do
        without_times "$work/$side.stdout" >"$work/$side.filtered"
        if [ ! -s "$work/$side.stdout" ]; then problem "$side: nothing on standard output"; fi
    done
    case " $* " in
        *" --json "* | *" --print-config "* | " loss "* | *" --prompt "*)
            compare_file "$work/old.filtered" "$work/new.filtered" "standard output"
            ;;
        *)
            cmp -s "$work/old.filtered" "$work/new.filtered" ||
                reworded+=("$name: $(first_difference "$work/old.filtered" "$work/new.filtered")")
            ;;
    esac
    if [ "${#problems[@]}" -eq "$before" ]; then files=$((files + 1)); fi
}

# A case: same NAME FILES ARGUMENTS... runs `expo ARGUMENTS`, where @ at the start of an argument or
# after = is out/NAME, and compares out/NAME and standard output. FILES are those that must be there.
same() {
    local name="$1" written="$2" arguments=() one
    shift 2
    wanted "$name" || return 0
    begin
    for one in "$@"; do
        case "$one" in
            @*) one="out/$name${one#@}" ;;
            *=@*) one="${one%%=@*}=out/$name${one#*=@}" ;;
        esac
        arguments+=("$one")
    done
    [ -z "$written" ] || mkdir -p "$work"/{old,new}/out/"$name"
    both "${arguments[@]}"
    if [ "$last_code" -eq 0 ]; then
        compare_stdout "$name" "${arguments[@]}"
        if [ -n "$written" ]; then
            check_written "$name" "$written" old new
            compare_files old new "$name"
        fi
        [ "$files" -gt 0 ] || problem "nothing was compared"
    fi
    end "$name"
}

# What every training run writes.
trained="model.safetensors metrics.jsonl summary.json run.json config.toml timings.jsonl"
evaluated="$trained generations.jsonl margins.json"

# A training run: train NAME FILES CONFIG KEY=VALUE...
train() {
    local name="$1" written="$2" config="$3" sets=() key
    shift 3
    for key in "$@"; do
        sets+=(--set "$key")
    done
    same "$name" "$written" train --config "$config" --json "${sets[@]}" --set run.output_dir=@
}

# Short draws of the reference or the policy.
short=(sample.max_new_tokens=8 sample.num_samples=2)

# A training run of a small model of the tests: small NAME KEY=VALUE...
small() {
    local name="$1"
    shift
    train "$name" "$evaluated" small.toml "$@"
}

# Cases that only the full set has.
in_full() { [ -n "$quick" ] || "$@"; }

# What the cases read beside configs/ and tests/.
write_inputs() {
    local pairs="$root/tests/fixtures/pairs.jsonl"
    cat >small.toml <<'TOML'
[model]
model_name_or_path = "tests/fixtures/llama"
reference = "tests/fixtures/llama-ref"
[data]
format = "pairs"
train = "tests/fixtures/pairs.jsonl[:14]"
eval = "tests/fixtures/pairs.jsonl[14:]"
max_length = 64
max_prompt_length = 32
[loss.dpo]
beta = 0.1
[batch]
batch_size = 4
micro_batch_tokens = 160
[optimizer]
learning_rate = 1e-3
[run]
output_dir = "out/small"
max_steps = 6
logging_steps = 2
eval_steps = 3
eval_prompts = 2
eval_max_new_tokens = 6
eval_margins = 2
seed = 5
TOML
    cat >sweep.toml <<'TOML'
base = "small.toml"
[run]
output_dir = "out/sweep"
[[sweep]]
loss = ["dpo", "ipo"]
beta = [0.1, 0.5]
[[sweep]]
loss = "rexpo"
optimizer.learning_rate = 1e-4
TOML
    cat >sweep_stories.toml <<'TOML'
base = "configs/quickstart.toml"
[data]
train = "configs/quickstart/train.jsonl.gz[:32]"
eval = "configs/quickstart/eval.jsonl.gz[:8]"
[sample]
max_new_tokens = 32
[run]
output_dir = "out/sweep-stories"
num_train_epochs = 1
[story]
num_samples = 2
[[sweep]]
loss = "dpo"
beta = [0.1, 0.3]
[[sweep]]
loss = "cexpo"
lambda = 0.05
TOML
    # Rows of the other kinds, made of the pairs: with scores, with labels, supervised, conversations.
    awk '{ sub(/}$/, sprintf(", \"score_chosen\": %.2f, \"score_rejected\": %.2f}", 3 + NR % 3, NR % 4)); print }' \
        "$pairs" >scored.jsonl
    awk '{ sub(/, "rejected".*/, sprintf(", \"label\": %s}", NR % 3 ? "true" : "false")); sub(/"chosen"/, "\"completion\""); print }' \
        "$pairs" >unpaired.jsonl
    awk '{ sub(/, "rejected".*/, "}"); sub(/"chosen"/, "\"completion\""); print }' "$pairs" >supervised.jsonl
    sed -E 's/, "(chosen|rejected)".*/}/' "$pairs" >prompts.jsonl
    # Four responses to each of seven prompts.
    awk '{ sub(/"prompt": "[^"]*"/, "\"prompt\": \"" NR % 7 "\""); sub(/"index": [0-9]+/, "\"index\": " int((NR - 1) / 7)); print }' \
        "$root/tests/fixtures/samples.jsonl" >variety.jsonl
    # What `expo loss` reads: pairs with all columns, and single responses for KTO.
    awk 'BEGIN { srand(1); for (i = 0; i < 12; i++) {
        w = -20 - 40 * rand(); l = -20 - 40 * rand(); n = 10 + i; m = 22 - i
        printf "{\"policy_chosen\":%.4f,\"policy_rejected\":%.4f,\"ref_chosen\":%.4f,\"ref_rejected\":%.4f,", w, l, w + 4 * rand() - 2, l + 4 * rand() - 2
        printf "\"n_chosen\":%d,\"n_rejected\":%d,\"policy_sampled\":[%.4f,%.4f],\"ref_sampled\":[%.4f,%.4f],", n, m, w - 1, l - 1, w - 1.5, l - 0.5
        printf "\"score_chosen\":%.3f,\"score_rejected\":%.3f,\"confidence_chosen\":%.4f,\"confidence_rejected\":%.4f,", 1 + 2 * rand(), rand(), -rand(), -rand()
        printf "\"policy_chosen_shared\":%.4f,\"ref_chosen_shared\":%.4f,\"policy_rejected_shared\":%.4f,\"ref_rejected_shared\":%.4f}\n", w / 2, w / 2 + 0.3, l / 2, l / 2 - 0.3
    } }' >loss_pairs.jsonl
    awk 'BEGIN { srand(2); for (i = 0; i < 12; i++) {
        y = -20 - 40 * rand()
        printf "{\"policy\":%.4f,\"ref\":%.4f,\"label\":%s,\"policy_mismatched\":%.4f,\"ref_mismatched\":%.4f}\n", y, y + rand() - 0.5, i % 2 ? "true" : "false", y - 20, y - 20.5 + rand()
    } }' >loss_rows.jsonl
}

# The models of the tests, one of each family and more, trained from their own reference.
families() {
    local model
    for model in neox llama llama3 mistral qwen2-window qwen3-window; do
        small "family-$model" "model.model_name_or_path=tests/fixtures/$model" "model.reference=tests/fixtures/$model-ref"
    done
    for model in neox-sequential llama-linear qwen2 qwen3; do
        in_full small "family-$model" "model.model_name_or_path=tests/fixtures/$model" "model.reference=tests/fixtures/$model-ref"
    done
    for model in neox mistral qwen3-window; do
        in_full small "family-$model-bf16" "model.model_name_or_path=tests/fixtures/$model" model.dtype=bf16
        in_full small "family-$model-recompute" "model.model_name_or_path=tests/fixtures/$model" model.recompute=true
    done
}

# The losses on the small model. What is drawn for the samples came from the reference.
losses() {
    local loss samples="data.samples=tests/fixtures/samples.jsonl"
    for loss in rexpo dpo ipo fdpo simpo kto hinge robust exo_pair nca bco sppo_hard ipo_learned aot \
        aot_unpaired apo_zero apo_down discopop sigmoid_norm orpo cpo rdpo dpop gpo qpo wpo ld_dpo; do
        small "loss-$loss" "loss=$loss"
    done
    small loss-cexpo loss=cexpo "$samples"
    small loss-cexpo-auto loss=cexpo data.samples=auto "${short[@]}"
    small loss-cexpo-reverse-kl loss=cexpo loss.cexpo.unsupervised=reverse_kl "${short[@]}"
    small loss-cexpo-unlabelled loss=cexpo "$samples" 'data.unlabelled=tests/fixtures/pairs.jsonl[12:]' data.unlabelled_ratio=0.5
    small loss-odpo loss=odpo data.train=scored.jsonl[:14] data.eval=scored.jsonl[14:]
    small loss-fdpo-alpha loss=fdpo loss.fdpo.divergence=alpha loss.fdpo.alpha=0.4
    small loss-ipo-per-token loss=ipo loss.ipo.average_log_prob=true
    small loss-rexpo-per-token loss=rexpo loss.rexpo.length_normalized=true loss.rexpo.margin=0.1
    small loss-dpo-soft-labels loss.dpo.label_smoothing=0.1 data.train=scored.jsonl[:14] data.eval=scored.jsonl[14:] data.scores=bradley_terry
    small loss-kto-groups loss=kto loss.kto.mismatch_group=4
    small moving-reference-soft reference.update=soft reference.alpha=0.6 reference.steps=2
    small moving-reference-hard reference.update=hard reference.steps=2
}

# How a run computes: precision, micro-batches, recomputation, optimizers, schedules, rows.
options() {
    small bf16 model.dtype=bf16 model.save_dtype=bf16
    small save-bf16 model.save_dtype=bf16
    small save-f16 model.save_dtype=f16
    small recompute model.recompute=true
    small recompute-bf16 model.recompute=true model.dtype=bf16 loss=rexpo
    small own-reference model.reference=tests/fixtures/llama
    small one-micro-batch batch.micro_batch_tokens=4096
    small many-micro-batches batch.micro_batch_tokens=64 loss=kto
    small aot-micro-batches batch.micro_batch_tokens=64 loss=aot
    small micro-batch-bf16-recompute batch.micro_batch_tokens=64 model.dtype=bf16 model.recompute=true loss=bco
    small optimizer-adamw optimizer.optim=adamw optimizer.weight_decay=0.1
    small optimizer-adam optimizer.optim=adam optimizer.adam_beta1=0.8
    small optimizer-rmsprop optimizer.optim=rmsprop
    small optimizer-adamw-8bit optimizer.optim=adamw_8bit
    small optimizer-lion optimizer.optim=lion
    small optimizer-muon optimizer.optim=muon
    small no-clipping optimizer.max_grad_norm=0
    small schedule-cosine schedule.lr_scheduler_type=cosine schedule.warmup_steps=2
    small schedule-warmup schedule.lr_scheduler_type=constant_with_warmup schedule.warmup_ratio=0.4 schedule.warmup_from_zero=false
    small separate-tokens data.tokenize=separate data.add_bos=false
    small short-rows data.max_length=20 data.max_prompt_length=8 data.truncation_mode=keep_start
    small checkpoints run.eval_steps=2 run.save_steps=2 run.save_total_limit=2 run.metric_for_best_model=eval_loss
    small seed-and-tensorboard run.seed=11 'run.report_to=["tensorboard"]'
    small not-shuffled data.shuffle=false
}

# The project's own configs, cut short in the quick set.
configs() {
    local few=('data.train=configs/tiny/train.jsonl[:40]' 'data.eval=configs/tiny/eval.jsonl[:16]')
    local story=('data.train=configs/quickstart/train.jsonl.gz[:32]' 'data.eval=configs/quickstart/eval.jsonl.gz[:8]'
        batch.batch_size=16 story.num_samples=2 sample.max_new_tokens=32)
    local loss path
    train config-tiny-few "$evaluated" configs/tiny.toml "${few[@]}" run.num_train_epochs=2
    train gradient-accumulation "$evaluated" configs/tiny.toml "${few[@]}" run.num_train_epochs=1 batch.gradient_accumulation_steps=3
    train config-quickstart-few "$evaluated" configs/quickstart.toml "${story[@]}" run.num_train_epochs=1
    for path in "$root"/configs/losses/*.toml; do
        loss="$(basename "$path" .toml)"
        few=('data.train=configs/tiny/train.jsonl[:32]' 'data.eval=configs/tiny/eval.jsonl[:8]')
        [ "$loss" != odpo ] || few=('data.train=scored.jsonl[:16]')
        [ "$loss" != cexpo_reverse ] || few+=(sample.num_samples=2 sample.max_new_tokens=8)
        train "config-$loss-few" "$trained" "configs/losses/$loss.toml" "${few[@]}"
    done
}

# expo sft, and rows of every format.
formats() {
    local sets=(--set loss=sft --set model.model_name_or_path=tests/fixtures/llama --set run.output_dir=@)
    same sft "$trained generations.jsonl" sft --config small.toml --json "${sets[@]}"
    same sft-rows "$trained generations.jsonl" sft --config small.toml --json "${sets[@]}" --set data.format=sft \
        --set 'data.train=supervised.jsonl[:14]' --set 'data.eval=supervised.jsonl[14:]' --set loss.sft.per_token=true
    train sft-by-train "$trained generations.jsonl" small.toml loss=sft
    train format-unpaired "$trained generations.jsonl" small.toml loss=kto data.format=unpaired 'data.train=unpaired.jsonl[:14]' 'data.eval=unpaired.jsonl[14:]'
    train format-hh "$trained generations.jsonl" small.toml data.format=hh 'data.train=tests/fixtures/hh.jsonl[:8]' 'data.eval=tests/fixtures/hh.jsonl[8:]' data.max_length=128
}

# The commands beside training.
commands() {
    local pairs=tests/fixtures/pairs.jsonl llama=tests/fixtures/llama neox=tests/fixtures/neox
    local draws=(--prompts tests/fixtures/pairs.jsonl --max-new-tokens 12)
    local name loss
    same init "new/model.safetensors new/config.json new/tokenizer.json" init --config-json "$llama/config.json" --tokenizer "$llama" --out @/new --seed 7
    same print-config "" train --config small.toml --print-config
    same print-config-quickstart "" train --config configs/quickstart.toml --set loss=kto --print-config
    same losses-json "" losses --json
    same losses "" losses
    for loss in cexpo rexpo dpo ipo fdpo simpo sft hinge robust exo_pair nca bco sppo_hard ipo_learned aot \
        aot_unpaired apo_zero apo_down discopop sigmoid_norm orpo cpo rdpo dpop odpo gpo qpo wpo ld_dpo; do
        same "expo-loss-$loss" "" loss "$loss" --file loss_pairs.jsonl
    done
    same expo-loss-kto "" loss kto --file loss_rows.jsonl
    same expo-loss-knobs "" loss fdpo --set divergence=alpha --set alpha=0.3 --set beta=0.2 --file loss_pairs.jsonl
    same score "scores.jsonl" score --model "$llama" --data "$pairs" --out @/scores.jsonl --json
    same score-bf16 "scores.jsonl" score --model "$neox" --data "$pairs" --dtype bf16 --micro-batch-tokens 100 --out @/scores.jsonl --json
    same score-samples "scores.jsonl" score --model "$llama" --data "$pairs" --samples tests/fixtures/samples.jsonl --out @/scores.jsonl --json
    same score-run "scores.jsonl" score --config small.toml --set loss=kto --out @/scores.jsonl --json
    same sample-greedy "samples.jsonl" sample --model "$llama" "${draws[@]}" --greedy --out @/samples.jsonl --json
    same sample "samples.jsonl" sample --model "$neox" "${draws[@]}" --num-samples 2 --seed 3 --out @/samples.jsonl --json
    same sample-limits "samples.jsonl alpaca.json" sample --model tests/fixtures/qwen3-window "${draws[@]}" --top-k 40 --top-p 0.9 --min-p 0.01 \
        --repetition-penalty 1.1 --temperature 1.3 --stop e --stop th --batch-size 5 --reference tests/fixtures/qwen3-window-ref \
        --out @/samples.jsonl --alpaca-eval @/alpaca.json --generator small --json
    same sample-bf16 "samples.jsonl" sample --model tests/fixtures/mistral "${draws[@]}" --dtype bf16 --out @/samples.jsonl --json
    same sample-prompt "" sample --model configs/quickstart/model --prompt "Once upon a time" --max-new-tokens 40 --num-samples 2
    same sample-config "samples.jsonl" sample --config small.toml --set loss=cexpo --set data.samples=auto --set sample.max_new_tokens=8 --out @/samples.jsonl --json
    same eval-pairs "rows.jsonl" eval pairs --model "$neox" --reference "$neox-ref" --data "$pairs" --bootstrap 50 --out @/rows.jsonl --json
    same eval-pairs-samples "rows.jsonl" eval pairs --model "$llama" --reference "$llama-ref" --data "$pairs" --bootstrap 50 \
        --samples tests/fixtures/samples.jsonl --loss cexpo --loss kto --loss dpo:beta=0.05 --out @/rows.jsonl --json
    same eval-diversity "" eval diversity --samples variety.jsonl --bootstrap 50 --json
    same eval-diversity-models "llama.jsonl neox.jsonl" eval diversity --model "$llama" "$neox" --name llama neox --prompts "$pairs" \
        --num-samples 3 --max-new-tokens 8 --bootstrap 50 --out-dir @ --json
    same eval-alpaca "" eval alpaca --annotations tests/fixtures/alpaca/annotations.json --gamed tests/fixtures/alpaca/gamed.csv \
        --difficulty tests/fixtures/alpaca/difficulty.csv --json
    same eval-judge "items.jsonl" eval judge --samples tests/fixtures/samples.jsonl --against chosen --data "$pairs" \
        --judge "model:$llama" --judge-reference "$llama-ref" --controls 4 --cache @/replies.jsonl --out @/items.jsonl --json
    same plan "" plan --config small.toml --gpu h100 --json
    in_full same plan-quickstart "" plan --config configs/quickstart.toml --memory 96 --tflops 400 --bandwidth 1.8 --json
    same data-show "" data show --config small.toml --row 3 --json
    same data-show-kto "" data show --config small.toml --set loss=kto --split eval --row 16 --json
    same data-show-hh "" data show --config small.toml --set data.format=hh --set data.train=tests/fixtures/hh.jsonl --set data.eval=tests/fixtures/hh.jsonl --row 1 --json
    same sweep "sweep.csv sweep.json frontier.svg frontier.png" sweep --config sweep.toml --set run.output_dir=@ --json
    # Tables and texts, which may be reworded.
    same text-train "$evaluated" train --config small.toml --set run.output_dir=@
    same text-losses-show "" losses show cexpo
    same text-score "scores.jsonl" score --model "$llama" --data "$pairs" --out @/scores.jsonl
    same text-sample "samples.jsonl" sample --model "$llama" "${draws[@]}" --out @/samples.jsonl
    same text-eval-pairs "" eval pairs --model "$neox" --reference "$neox-ref" --data "$pairs" --bootstrap 50
    same text-plan "" plan --config small.toml --gpu h100
    same text-data-show "" data show --config small.toml --row 3
    same text-sweep-list "" sweep --config configs/sweep_quickstart.toml --list
    same text-help "" --help
    for name in train sft plan sample sweep score report verify data init loss losses bandit "eval pairs" "eval diversity" "eval judge" "eval alpaca"; do
        # shellcheck disable=SC2086  # two words
        same "text-help-${name// /-}" "" $name --help
    done
}

# The papers' experiments: tables, figures and the config they were made with.
bandits() {
    local tables="summary.csv results.json config.toml"
    local brief=(--set train.num_seeds=1 --set train.num_train_epochs=5)
    in_full same bandit-theory "$tables" bandit theory --out @ --json
    same bandit-constraint-short "$tables constraint.svg constraint.png" bandit constraint --out @ --json "${brief[@]}" --set alpha.points=5
    same bandit-theory-short "$tables" bandit theory --out @ --json --set losses.names=dpo,cexpo,rexpo --set losses.lambda.points=5
    in_full same bandit-interpolation "$tables sweep.svg sweep.png curves_small.svg curves_large.svg" bandit interpolation --out @ --json
    in_full same bandit-preservation "$tables preservation_text.svg preservation_notebook.svg" bandit preservation --out @ --json
    in_full same bandit-constraint "$tables constraint.svg constraint.png" bandit constraint --out @ --json
}

# A report of OLD's runs by each binary: of other runs it would have other times. One page, and one of
# two runs side by side.
reports() {
    local name=report side
    wanted "$name" || return 0
    begin
    for side in one two; do
        run_in old "$old" train --config small.toml --set "run.output_dir=out/$name/$side" \
            --set run.seed="${#side}" --set "optimizer.learning_rate=1e-${#side}" || check_code old $?
    done
    cp -a "$work/old/out/$name" "$work/new/out/" || problem "no runs to report"
    both report "out/$name/one"
    both report "out/$name/one" "out/$name/two" --out "out/$name/both.html"
    check_written "$name" "one/report.html both.html" old new
    compare_files old new "$name"
    end "$name"
}

# A run that reads the reference's log-probs from a file of `expo score`.
scored_run() {
    local name=score-then-train
    wanted "$name" || return 0
    begin
    mkdir -p "$work"/{old,new}/out/"$name"
    both score --config small.toml --out "out/$name/scores.jsonl"
    both train --config small.toml --json --set "data.reference_log_probs=out/$name/scores.jsonl" --set "run.output_dir=out/$name/run"
    compare_stdout "$name" --json
    check_written "$name" "scores.jsonl run/model.safetensors run/metrics.jsonl" old new
    compare_files old new "$name"
    end "$name"
}

# A run that ends after four steps and is made longer by another command: resume NAME KEY=VALUE... The
# learning rate is constant, so that the second half is that of an uninterrupted run. OLD's half is also
# resumed by NEW.
resume() {
    local name="$1" key
    shift
    wanted "$name" || return 0
    begin
    local arguments=(train --config small.toml --json --set "run.output_dir=out/$name" --set run.save_steps=2
        --set schedule.lr_scheduler_type=constant)
    for key in "$@"; do
        arguments+=(--set "$key")
    done
    both "${arguments[@]}" --set run.max_steps=4
    rm -rf "$work/crossed/out/$name"
    cp -a "$work/old/out/$name" "$work/crossed/out/" || problem "no run to resume"
    arguments+=(--set run.max_steps=7 --allow-change run.max_steps)
    both "${arguments[@]}"
    check_resumed old "$name"
    check_resumed new "$name"
    compare_stdout "$name" "${arguments[@]}"
    check_written "$name" "$trained checkpoint-6/MANIFEST.json" old new
    compare_files old new "$name"
    cross "$name" "${arguments[@]}"
    both verify "out/$name" --json
    compare_stdout "$name" --json
    end "$name"
}

# The summary of a side must say that it was resumed.
check_resumed() {
    grep -qE '"resumed_from": ?[0-9]' "$work/$1/out/$2/summary.json" 2>/dev/null ||
        problem "$1: the run was not resumed"
}

# Resumes with NEW what OLD began: it must end in OLD's bytes, or be refused with exit code 2 and one line.
cross() {
    local name="$1" code=0
    shift
    run_in crossed "$new" "$@" || code=$?
    if [ "$code" -eq 2 ] && [ "$(grep -c '^error: ' "$work/crossed.stderr")" -eq 1 ] &&
        [[ "$(tail -n 1 "$work/crossed.stderr")" == "error: "* ]]; then
        refused+=("$name: $(tail -n 1 "$work/crossed.stderr")")
        return
    fi
    check_code crossed "$code"
    [ "$code" -eq 0 ] || return 0
    check_resumed crossed "$name"
    compare_files old crossed "$name" "begun by OLD, resumed by NEW: "
}

# A run that its time limit stops somewhere and that is resumed must end like one that was not stopped,
# in each binary and where NEW resumes what OLD began.
interrupted() {
    local name=interrupted side file
    wanted "$name" || return 0
    begin
    local arguments=(train --config configs/tiny.toml --json --set run.overwrite=false --set run.max_steps=24
        --set run.save_steps=4)
    both "${arguments[@]}" --set "run.output_dir=out/$name/whole"
    arguments+=(--set "run.output_dir=out/$name/resumed")
    both "${arguments[@]}" --max-time 1s
    for side in old new; do
        grep -qE '^(the time is over|out of time)' "$work/$side.stdout" || problem "$side: the run was not stopped midway"
    done
    mkdir -p "$work/crossed/out/$name"
    cp -a "$work/old/out/$name/resumed" "$work/crossed/out/$name/" || problem "no run to resume"
    both "${arguments[@]}"
    cross "$name/resumed" "${arguments[@]}"
    for side in old new; do
        check_resumed "$side" "$name/resumed"
        for file in model.safetensors metrics.jsonl generations.jsonl margins.json; do
            compare_file "$work/$side/out/$name/whole/$file" "$work/$side/out/$name/resumed/$file" "$side, whole and resumed: $file"
        done
        # Where the limit stopped each is up to the clock, and so is its checkpoint.
        rm -rf "$work/$side/out/$name/resumed"/{checkpoint-*,summary.json}
    done
    check_written "$name" "whole/model.safetensors resumed/model.safetensors resumed/metrics.jsonl" old new
    compare_files old new "$name"
    end "$name"
}

resumes() {
    resume resume-adamw optimizer.weight_decay=0.1
    resume resume-rmsprop-kto loss=kto optimizer.optim=rmsprop
    resume resume-adamw-8bit optimizer.optim=adamw_8bit
    resume resume-bf16 model.dtype=bf16 model.save_dtype=bf16
    resume resume-moving-reference reference.steps=3 reference.update=soft
    resume resume-on-policy loss=cexpo loss.cexpo.unsupervised=reverse_kl "${short[@]}"
    resume resume-samples-auto loss=cexpo data.samples=auto "${short[@]}" optimizer.optim=adam
    resume resume-unlabelled loss=cexpo data.samples=tests/fixtures/samples.jsonl 'data.unlabelled=tests/fixtures/pairs.jsonl[12:]' data.unlabelled_ratio=0.5
    interrupted
}

# What is kept in the cache: the reference's log-probs and samples, by their content.
caches() {
    local side
    [ -z "$list" ] && [ -z "$only" ] || return 0
    begin
    for side in old new; do
        mv "$work/$side/cache" "$work/$side/out/cache" || problem "$side: no cache"
    done
    compare_files old new cache
    [ "$files" -gt 0 ] || problem "nothing was compared"
    end cache
}

# The configs on more rows and for more steps; configs/tiny.toml at its own length.
long_runs() {
    local path loss keys
    local story=('data.train=configs/quickstart/train.jsonl.gz[:192]' 'data.eval=configs/quickstart/eval.jsonl.gz[:32]' story.num_samples=2)
    train config-tiny "$evaluated" configs/tiny.toml
    train config-tiny-bf16 "$evaluated" configs/tiny.toml model.dtype=bf16 model.save_dtype=bf16 run.num_train_epochs=1
    train config-quickstart "$evaluated" configs/quickstart.toml "${story[@]}" run.num_train_epochs=2
    train config-quickstart-dpo "$evaluated" configs/quickstart.toml loss=dpo "${story[@]}" run.num_train_epochs=1
    for path in "$root"/configs/losses/*.toml; do
        loss="$(basename "$path" .toml)" keys=(run.max_steps=12)
        [ "$loss" != odpo ] || continue # its rows are not in the repository
        [ "$loss" != cexpo_reverse ] || keys=(run.max_steps=4)
        train "config-$loss" "$trained" "configs/losses/$loss.toml" "${keys[@]}"
    done
    same sweep-stories "sweep.csv sweep.json frontier.svg frontier.png dpo-beta=0.1/model.safetensors" sweep --config sweep_stories.toml \
        --set run.output_dir=@ --json
}

if [ -z "$list" ]; then
    for side in "${sides[@]}"; do
        (cd "$work/$side" && write_inputs)
    done
fi
start=$SECONDS
families
losses
options
configs
formats
commands
bandits
reports
scored_run
resumes
in_full long_runs
caches
[ -z "$list" ] || exit 0

echo
for one in ${refused[@]+"${refused[@]}"}; do
    echo "refused: NEW does not resume OLD's run, $one"
done
for one in ${reworded[@]+"${reworded[@]}"}; do
    printf 'text: %s\n' "$one"
done
for one in ${failed[@]+"${failed[@]}"}; do
    printf 'differs: %s\n' "$one"
done
echo "$same same, ${#failed[@]} different, ${#reworded[@]} texts reworded, ${#refused[@]} resumes refused; $((SECONDS - start)) s"
status=0
if [ "$same" -eq 0 ] || [ "${#failed[@]}" -gt 0 ]; then status=1; fi
if [ -n "$strict" ] && [ "${#reworded[@]}" -gt 0 ]; then status=1; fi
if [ "${#failed[@]}" -gt 0 ]; then
    trap - EXIT
    echo "outputs kept: $work/old and $work/new"
fi
exit "$status"
