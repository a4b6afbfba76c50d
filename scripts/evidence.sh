#!/usr/bin/env bash
# EXPO against its baselines on a real model and real preferences, in stages that can be interrupted anywhere.
set -euo pipefail
exec </dev/null

usage() {
    cat <<'END'
Usage: scripts/evidence.sh --model DIR --data ROWS --out DIR [--stage NAME]... [OPTIONS]

Trains, samples, evaluates and judges with expo, on the configs in configs/evidence. The same command resumes:
what is finished is skipped. INT or TERM ends the current step with everything saved.

Stages, in this order without --stage; each makes first what it needs:
  data         duplicates, and leaks between the rows of policies, judges and evaluation
  sft          the SFT model: reference, and start of all policies
  samples      cEXPO's samples and the reference's log-probs, into the cache
  judges       two log-ratio judges: rewards of DPO from the same SFT model, on rows and seeds of their own
  main         cEXPO, rEXPO, DPO, IPO with the paper's knobs, a sweep per seed
  once         f-DPO (JS), SimPO, KTO, first seed
  knobs        the four main losses at a second knob value, a sweep per seed of --knob-seeds
  heldout      accuracy, log-ratios, displacement on held-out pairs, of all runs that there are
  draw         answers as the papers draw them, and at temperature 1 for the KL to the reference, of all runs
  judge        win rates against the chosen answers and the SFT model, of main, once and knobs
  diversity    Table 1's protocol: the SFT model and the main losses, first seed
  questions    EXPO's margin and length normalization, first seed; then heldout and draw
  preserve     Figure 5 at the scale of a language model, under labels that fit EXPO and labels that fit DPO;
               reward against KL, best-of-n beside it
  soft         soft against hard labels; needs --alpaca
  temperature  diversity of one EXPO loss and DPO over temperatures
  reverse      cEXPO with the reverse KL, first seed; then heldout and draw
  tables       all figures with intervals into OUT/tables, pages and charts by expo report
Not in the order:
  rate         DPO at several learning rates, first seed: for --learning-rate take the one whose loss on held-out
               pairs, in OUT/rate/*/sweep.csv, is lowest
  plan         memory and time of the runs on this machine or on --gpu NAME

  --model DIR            the pretrained model
  --data ROWS            preference pairs; consecutive slices go to policies, judges and, without --eval-data,
                         to evaluation
  --eval-data ROWS       held-out pairs
  --alpaca FILE          AlpacaEval annotations; may be repeated
  --out DIR              where everything goes
  --stage NAME           only this stage; may be repeated
  --scale SCALE          cpu: about fourteen hours of two CPU cores for 270M parameters (default);
                         full: a GPU and the whole set
  --with FILE            pool the tables with these numbers of another OUT, of other seeds; may be repeated
  --max-time SECONDS     stop after this time with exit code 0; the same command resumes
  --judge-model NAME     ask this model, too, at OPENAI_BASE_URL
  --gpu NAME             for the stage plan

Sizes, with the defaults of --scale cpu and full:
END
    local name
    for name in "${names[@]}"; do printf '  --%-22s %-16s %s\n' "$name" "${cpu[$name]}" "${full[$name]}"; done
    cat <<'END'

Environment: EXPO is the program (default: target/release/expo), PYTHON a Python of 3.10 or newer.
OUT has: hours.tsv, a line per step with its seconds; tables/, figures only, no text of rows or models; numbers.jsonl,
the numbers behind them, of each row and without text; runs, draws, verdicts, logs and the cache. No other directory is
written.
END
}

names=() && declare -A cpu full option
size() { names+=("$1") cpu[$1]=$2 full[$1]=$3; }
size pairs 600 28000                     # for the policies
size judge-pairs 500 7000                # for each judge
size eval-pairs 200 1000                 # held out
size seeds "0 1 2" "0 1 2"
size knob-seeds "0" "0 1 2"
size lora-rank 16 0                      # 0: all weights are trained
size learning-rate 1e-5 1e-6
size sft-learning-rate 2e-5 1e-6
size sft-epochs 1 2
size batch-size 10 40
size dtype bf16 bf16
size device auto auto
size micro-batch-tokens 4096 16384
size max-new-tokens 128 256              # of judged answers and of cEXPO's samples
size judged 50 500                       # prompts
size kl-prompts 64 256
size diversity-prompts 12 100
size diversity-samples 25 25
size temperatures "0.25 0.5 0.75" "0.25 0.5 0.75"
size preserve-prompts 200 4000
size preserve-eval 40 300
size soft-pairs 150 2000
size soft-eval 100 600
size evals 2 10                          # evaluations in a run, the first one aside
size curve-pairs 40 300                  # held-out pairs of these; heldout has all
size steps 0 0                           # optimizer steps of every run; 0: whole epochs

fail() { echo "evidence.sh: $*" >&2; exit 2; }

cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=$OLDPWD
model="" data="" eval_data="" out="" scale=cpu max_time=0 judge_model="" gpu="" stages=() alpaca=() others=()
while [ $# -gt 0 ]; do
    case "$1" in -h | --help) usage; exit ;; --*) ;; *) fail "unexpected argument $1; see --help" ;; esac
    [ $# -ge 2 ] || fail "$1 needs a value"
    name=${1#--} value=$2
    shift 2
    case "$name" in
    model) model=$value ;;
    data) data=$value ;;
    eval-data) eval_data=$value ;;
    alpaca) alpaca+=("$(realpath "$here/$value" 2>/dev/null || realpath "$value")") ;;
    out) out=$value ;;
    with) case "$value" in /*) others+=("$value") ;; *) others+=("$here/$value") ;; esac ;;
    stage) stages+=("$value") ;;
    scale) scale=$value ;;
    max-time) max_time=$value ;;
    judge-model) judge_model=$value ;;
    gpu) gpu=$value ;;
    *) [ -n "${cpu[$name]+there}" ] || fail "no option --$name; see --help"; option[$name]=$value ;;
    esac
done
[ -n "$model" ] && [ -n "$data" ] && [ -n "$out" ] || fail "--model, --data and --out are needed; see --help"
case "$scale" in cpu | full) declare -n defaults=$scale ;; *) fail "--scale is cpu or full" ;; esac
of() { echo "${option[$1]-${defaults[$1]}}"; }

# A file or directory of the caller's directory; other names are the hub's.
place() { case "$1" in "" | /* | hub:*) echo "$1" ;; *) [ -e "$here/$1" ] && realpath "$here/$1" || echo "$1" ;; esac; }
model=$(place "$model") data=$(place "$data") eval_data=$(place "$eval_data")
case "$out" in /*) ;; *) out=$here/$out ;; esac
expo=$(realpath "${EXPO:-target/release/expo}") || fail "no program: cargo build --release, or EXPO=..."
python=${PYTHON:-python3}
mkdir -p "$out"/{done,log,results}
export XDG_CACHE_HOME=$out/cache
exec 9>"$out/.lock"
flock -n 9 || fail "$out is in use; a step of a killed script holds it until the step ends"

# Rows: [0:P] for the policies, two more slices for the judges, then the held-out ones.
P=$(of pairs) J=$(of judge-pairs) E=$(of eval-pairs)
for name in curve-pairs judged kl-prompts diversity-prompts; do
    [ "$(of $name)" -le "$E" ] || fail "--$name $(of $name) is more than the $E rows of --eval-pairs"
done
[ "$(of preserve-prompts)" -le "$P" ] || fail "--preserve-prompts $(of preserve-prompts) is more than the $P of --pairs"
first_eval=$((P + 2 * J)) eval_file=$data
[ -z "$eval_data" ] || first_eval=0 eval_file=$eval_data
train="${data}[0:$P]" held_out="${eval_file}[$first_eval:$((first_eval + E))]"
judge_rows() { echo "${data}[$((P + $1 * J)):$((P + ($1 + 1) * J))]"; }
eval_rows() { echo "${eval_file}[$first_eval:$((first_eval + $1))]"; }
read -ra seeds <<<"$(of seeds)"
sft=$out/sft

numerics=(--dtype "$(of dtype)" --device "$(of device)")
common=(--set model.dtype="$(of dtype)" --set model.device="$(of device)"
    --set batch.micro_batch_tokens="$(of micro-batch-tokens)")
[ "$(of steps)" = 0 ] || common+=(--set run.max_steps="$(of steps)")
steps=$(of steps)
[ "$steps" != 0 ] || steps=$(((P + $(of batch-size) - 1) / $(of batch-size)))
pairs=("${common[@]}" --set batch.batch_size="$(of batch-size)" --set optimizer.learning_rate="$(of learning-rate)"
    --set run.eval_steps=$(((steps + $(of evals) - 1) / $(of evals)))
    --set sample.max_new_tokens="$(of max-new-tokens)")
[ "$(of lora-rank)" = 0 ] || pairs+=(--set adapter.r="$(of lora-rank)" --set adapter.alpha=$((2 * $(of lora-rank))))
curve=$(eval_rows "$(of curve-pairs)")
policy=(--set model.model_name_or_path="$sft" --set data.train="$train" --set data.eval="$curve" "${pairs[@]}")

# --- Steps ---

record() { printf '%s\t%s\t%s\t%s\t%s\n' "$stage" "$1" "$2" "$3" "$4" >>"$out/hours.tsv"; }
[ -s "$out/hours.tsv" ] || printf 'stage\tstep\tstarted\tseconds\toutcome\n' >"$out/hours.tsv"
# A step that was killed with the script: it lasted until its log was written last.
if [ -s "$out/running" ]; then
    IFS=$'\t' read -r stage name began <"$out/running"
    ended=$(stat -c %Y "$out/log/$name.log" 2>/dev/null || echo "$began")
    record "$name" "$(date -u -d "@$began" +%FT%TZ)" $((ended - began)) killed
    rm -f "$out/running"
fi

child="" stopped=""
stop() {
    stopped=$1
    [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true
}
trap 'stop 130' INT
trap 'stop 143' TERM
end_at=$((max_time > 0 ? SECONDS + max_time : 0))

# step NAME [accepted status]... -- COMMAND...: runs it once. Its standard output becomes results/NAME.
step() {
    local name=$1 accepted=" 0 " left=0 status=0 began started command
    shift
    while [ "$1" != -- ]; do accepted+="$1 "; shift; done
    shift
    command=$(printf '%q ' "$@")
    if [ -e "$out/done/$name" ]; then
        [ "$(cat "$out/done/$name")" = "$command" ] ||
            fail "$name was made with other settings: choose another --out, or remove $out/done/$name and what it made"
        return 0
    fi
    [ -z "$stopped" ] || exit "$stopped"
    if [ "$end_at" -gt 0 ]; then
        left=$((end_at - SECONDS))
        [ "$left" -gt 0 ] || time_is_up
    fi
    mkdir -p "$(dirname "$out/done/$name")" "$(dirname "$out/log/$name")" "$(dirname "$out/results/$name")"
    echo "== $stage: $name" >&2
    began=$(date +%s) started=$(date -u +%FT%TZ)
    printf '%s\t%s\t%s\n' "$stage" "$name" "$began" >"$out/running"
    # In the background, so that a signal to this script reaches it at once. timeout passes TERM on.
    timeout --signal=TERM "$left" "$@" >"$out/results/$name.part" 2>>"$out/log/$name.log" &
    child=$!
    # A trapped signal ends `wait`, the step ends later.
    while true; do
        wait "$child" && status=0 || status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    child=""
    rm -f "$out/running"
    case "$accepted" in
    *" $status "*)
        record "$name" "$started" $(($(date +%s) - began)) done
        mv "$out/results/$name.part" "$out/results/$name"
        printf '%s' "$command" >"$out/done/$name"
        [ -z "$stopped" ] || exit "$stopped"
        return 0
        ;;
    esac
    case "$status" in
    124 | 130 | 143)
        record "$name" "$started" $(($(date +%s) - began)) interrupted
        [ -z "$stopped" ] || exit "$stopped"
        [ "$status" != 124 ] || time_is_up
        exit "$status"
        ;;
    esac
    record "$name" "$started" $(($(date +%s) - began)) "failed $status"
    tail -n 15 "$out/log/$name.log" >&2
    echo "evidence.sh: $name failed with status $status; log: $out/log/$name.log" >&2
    exit "$status"
}
time_is_up() { echo "evidence.sh: out of time; the same command resumes" >&2; exit 0; }

# A run that meets a value that is not finite has no summary; expo ends with 3, and the tables name it.
runs() { # SET...: finished runs, as SET/seedN/NAME
    local set file
    for set in "$@"; do
        for file in "$out/$set"/*/*/summary.json; do
            [ ! -e "$file" ] || echo "${file:$((${#out} + 1)):-13}"
        done
    done
}
sweep() { # SET SEED [OPTION]...
    local set=$1 seed=$2
    shift 2
    step "sweep/$set/seed$seed" 3 -- "$expo" sweep "configs/evidence/sweep_$set.toml" "${policy[@]}" \
        --set run.seed="$seed" --set run.output_dir="$out/$set/seed$seed" "$@" --json
}
enter() {
    local outer=${stage-}
    stage=$1
    "stage_$1"
    stage=$outer
}
need() { local name; for name in "$@"; do enter "$name"; done; }

# --- Stages ---

stage_data() {
    local number
    # A judge must know neither what the policies learned nor what it judges.
    step lint/policies/held_out -- "$expo" data lint "$train" --eval "$held_out" --json
    for number in 0 1; do
        step "lint/judge$number/held_out" -- "$expo" data lint "$(judge_rows $number)" --eval "$held_out" --json
        step "lint/judge$number/policies" -- "$expo" data lint "$(judge_rows $number)" --eval "$train" --json
    done
    { uname -m; nproc; grep -m 1 '^model name' /proc/cpuinfo || true; "$expo" --version; } >"$out/machine.txt"
}

stage_sft() {
    step sft -- "$expo" sft configs/evidence/sft.toml --set model.model_name_or_path="$model" "${common[@]}" \
        --set data.train="$train" --set data.eval="$curve" --set batch.batch_size="$(of batch-size)" \
        --set optimizer.learning_rate="$(of sft-learning-rate)" --set run.num_train_epochs="$(of sft-epochs)" \
        --set run.output_dir="$sft" --json
}

stage_samples() {
    need sft
    # One step of cEXPO draws what all its runs find in the cache.
    step samples -- "$expo" train configs/evidence/pairs.toml "${policy[@]}" --set loss=cexpo --set run.max_steps=1 \
        --set optimizer.learning_rate=0 --set run.save_model=false --set run.eval_prompts=0 \
        --set run.output_dir="$out/samples" --json
}

# Both are DPO's implicit rewards, from the same SFT model as the policies and in the same way, so what that model
# and DPO get wrong they share with them. A seed of their own: a seed initializes the adapter, too.
stage_judges() {
    need sft
    local number
    for number in 0 1; do
        step "judge$number" -- "$expo" train configs/evidence/pairs.toml "${policy[@]}" \
            --set data.train="$(judge_rows "$number")" --set run.eval_prompts=0 --set run.seed=$((101 + number)) \
            --set run.output_dir="$out/judge$number" --json
        heldout_of "judge$number"
    done
}

stage_main() {
    need sft samples
    local seed
    for seed in "${seeds[@]}"; do sweep main "$seed"; done
}
stage_knobs() {
    need sft samples
    local seed
    for seed in $(of knob-seeds); do sweep knobs "$seed"; done
}
stage_rate() { need sft; sweep rate "${seeds[0]}"; }
stage_once() { need sft; sweep once "${seeds[0]}"; }
stage_questions() { need sft samples; sweep questions "${seeds[0]}"; measured questions; }
stage_reverse() { # Short samples, as in the config: they are drawn anew at each step.
    need sft
    sweep reverse "${seeds[0]}" --set sample.max_new_tokens=48
    measured reverse
}

heldout_of() { # RUN: under its own loss with its knobs, where the rows are enough for it
    local name=${1##*/} loss=dpo
    case "$name" in rexpo-* | dpo-* | ipo-* | fdpo-* | simpo-*) loss=${name%%-*}:$(tr - , <<<"${name#*-}") ;; esac
    mkdir -p "$(dirname "$out/pairs/$1")"
    step "pairs/$1" -- "$expo" eval pairs --model "$out/$1" --reference "$sft" --data "$held_out" --loss "$loss" \
        "${numerics[@]}" --micro-batch-tokens "$(of micro-batch-tokens)" --out "$out/pairs/$1.jsonl" --overwrite --json
}
drawn() { # FILE MODEL OPTION...: resumes FILE
    local file=$1 from=$2
    shift 2
    mkdir -p "$(dirname "$out/draws/$file")"
    step "draws/$file" -- "$expo" sample --model "$from" --max-prompt-length 256 "${numerics[@]}" \
        --out "$out/draws/$file.jsonl" --json "$@"
}
papers=(--temperature 1 --top-k 60 --top-p 0.8 --repetition-penalty 1.1 --max-new-tokens "$(of max-new-tokens)")
judged_of() { drawn "judged/$1" "$out/$1" --prompts "$(eval_rows "$(of judged)")" "${papers[@]}"; }
kl_of() { # At temperature 1 from all tokens, so that log pi - log r is not biased.
    drawn "kl/$1" "$out/$1" --prompts "$(eval_rows "$(of kl-prompts)")" --max-new-tokens 64 --reference "$sft"
}
measured() {
    local run
    for run in $(runs "$@"); do heldout_of "$run"; kl_of "$run"; done
}
stage_heldout() {
    need sft
    local run
    for run in $(runs main once knobs); do heldout_of "$run"; done
}
stage_draw() {
    need sft
    judged_of sft
    local run
    for run in $(runs main once knobs); do judged_of "$run"; kl_of "$run"; done
}

judged() { # JUDGE RUN chosen|sft OPTION...
    local judge=$1 run=$2 against=$3 other=(--against chosen --data "$held_out")
    shift 3
    [ "$against" = chosen ] || other=(--against "$out/draws/judged/sft.jsonl")
    mkdir -p "$(dirname "$out/verdicts/$judge/$against/$run")"
    step "verdicts/$judge/$against/$run" -- "$expo" eval judge --samples "$out/draws/judged/$run.jsonl" \
        "${other[@]}" "$@" --cache "$out/verdicts/$judge.cache" \
        --out "$out/verdicts/$judge/$against/$run.jsonl" --overwrite --json
}
stage_judge() {
    need judges draw
    local run against number offline=(--controls 0)
    for run in sft $(runs main once knobs); do
        for against in chosen sft; do
            [ "$run $against" != "sft sft" ] || continue
            for number in 0 1; do
                judged "judge$number" "$run" "$against" --judge "model:$out/judge$number" --judge-reference "$sft" \
                    "${numerics[@]}" "${offline[@]}"
            done
            judged length "$run" "$against" --judge length "${offline[@]}"
            judged lexicon "$run" "$against" --judge lexicon:configs/evidence/lexicon.txt "${offline[@]}"
            [ -z "$judge_model" ] || judged llm "$run" "$against" --judge-model "$judge_model" --both-orders
        done
    done
}

# The main losses, first seed; of the losses that are named only those.
firsts() {
    local loss run losses=("$@")
    [ $# -gt 0 ] || losses=(cexpo rexpo dpo ipo)
    for loss in "${losses[@]}"; do
        run=$(runs main | grep -m 1 "^main/seed${seeds[0]}/$loss-") || true
        [ -z "$run" ] || echo "$run"
    done
}
diverse() { # NAME TEMPERATURE RUN...
    local name=$1 temperature=$2 run models=() labels=()
    shift 2
    for run in "$@"; do models+=("$out/$run") labels+=("${run##*/}"); done
    mkdir -p "$out/draws/diversity/$name" "$out/diversity"
    step "diversity/$name" -- "$expo" eval diversity --model "${models[@]}" --name "${labels[@]}" \
        --prompts "$(eval_rows "$(of diversity-prompts)")" --num-samples "$(of diversity-samples)" \
        --temperature "$temperature" --max-new-tokens "$(of max-new-tokens)" --max-prompt-length 256 "${numerics[@]}" \
        --out-dir "$out/draws/diversity/$name" --out "$out/diversity/$name.jsonl" --overwrite --json
}
stage_diversity() { need main; diverse t1 1 sft $(firsts); }
stage_temperature() {
    need main
    local temperature
    for temperature in $(of temperatures); do diverse "t$temperature" "$temperature" sft $(firsts cexpo dpo); done
}

# Prompts as expo reads them: a file of one-token answers has them, of any data set.
stage_preserve() {
    need sft
    local place=$out/preserve kind part run labels rows=scripts/evidence/rows.py
    local short=("${numerics[@]}" --max-prompt-length 256 --json) limit=(--max-new-tokens 64)
    mkdir -p "$place"/scores/{policy,ratio}
    for part in train eval; do
        local from="${data}[0:$(of preserve-prompts)]"
        [ $part = train ] || from=$(eval_rows "$E")
        step "preserve/texts-$part" -- "$expo" sample --model "$sft" --prompts "$from" "${short[@]}" \
            --max-new-tokens 1 --out "$place/texts-$part.jsonl"
        step "preserve/prompts-$part" -- "$python" -B "$rows" prompts "$place/texts-$part.jsonl" \
            "$place/prompts-$part.jsonl"
        step "preserve/candidates-$part" -- "$expo" sample --model "$sft" --prompts "$place/prompts-$part.jsonl" \
            --num-samples 3 --out "$place/candidates-$part.jsonl" "${short[@]}" "${limit[@]}"
        for labels in policy ratio; do
            step "preserve/rows-$labels-$part" -- "$python" -B "$rows" label "$place/candidates-$part.jsonl" \
                "$place/$labels-$part.jsonl" --lexicon configs/evidence/lexicon.txt --odds $labels
        done
    done
    for labels in policy ratio; do
        step sweep/preserve/$labels 3 -- "$expo" sweep configs/evidence/sweep_preserve.toml "${pairs[@]}" \
            --set model.model_name_or_path="$sft" --set data.train="$place/$labels-train.jsonl" \
            --set data.eval="$place/$labels-eval.jsonl" --set sample.max_new_tokens=64 --set run.seed="${seeds[0]}" \
            --set run.output_dir="$place/$labels" --set run.eval_steps=1000000 --json
    done
    for kind in good bad; do
        step "preserve/$kind" -- "$python" -B "$rows" prompts "$place/texts-eval.jsonl" "$place/$kind.jsonl" \
            --only $kind --limit "$(of preserve-eval)"
        step "preserve/sft-$kind" -- "$expo" sample --model "$sft" --reference "$sft" --num-samples 8 \
            --prompts "$place/$kind.jsonl" --out "$place/sft-$kind.jsonl" "${short[@]}" \
            "${limit[@]}"
        for run in $(runs preserve); do
            drawn "preserve/$kind/${run#preserve/}" "$out/$run" --prompts "$place/$kind.jsonl" \
                --num-samples 2 "${limit[@]}" --reference "$sft"
        done
    done
    # The other direction on the good prompts: log r - log pi of the reference's own samples.
    for run in sft $(runs preserve); do
        step "preserve/scores/${run#preserve/}" -- "$expo" score --model "$out/$run" \
            --data "$place/good.jsonl" --format prompts --samples "$place/sft-good.jsonl" \
            "${numerics[@]}" --out "$place/scores/${run#preserve/}.jsonl" --overwrite --json
    done
}

stage_soft() {
    [ ${#alpaca[@]} -gt 0 ] || { echo "evidence.sh: no --alpaca: the stage soft is left out" >&2; return 0; }
    local labels run
    step soft/rows -- "$python" -B scripts/evidence/rows.py soft "$out/soft/rows" "${alpaca[@]}" \
        --train "$(of soft-pairs)" --held-out "$(of soft-eval)"
    for labels in p hard; do
        step "sweep/soft/$labels" 3 -- "$expo" sweep configs/evidence/sweep_soft.toml "${pairs[@]}" \
            --set model.model_name_or_path="$model" --set data.train="$out/soft/rows/$labels.jsonl" \
            --set data.eval="$out/soft/rows/held_out.jsonl" --set run.seed="${seeds[0]}" \
            --set run.eval_steps=1000000 --set run.output_dir="$out/soft/$labels" --json
    done
    for run in $(runs soft); do
        mkdir -p "$(dirname "$out/pairs/$run")"
        step "pairs/$run" -- "$expo" eval pairs --model "$out/$run" --reference "$model" --loss dpo --loss rexpo \
            --data "$out/soft/rows/held_out.jsonl" --format alpaca_eval --max-length 384 --max-prompt-length 128 \
            "${numerics[@]}" --out "$out/pairs/$run.jsonl" --overwrite --json
    done
}

stage_plan() {
    local on=()
    [ -z "$gpu" ] || on=(--gpu "$gpu")
    "$expo" plan configs/evidence/sft.toml --set model.model_name_or_path="$model" "${common[@]}" "${on[@]}" \
        --set data.train="$train" --set data.eval="$held_out" --set batch.batch_size="$(of batch-size)"
    local loss
    for loss in dpo cexpo kto; do
        echo "== $loss"
        "$expo" plan configs/evidence/pairs.toml "${policy[@]}" "${on[@]}" --set model.model_name_or_path="$model" \
            --set loss="$loss"
    done
}

# Made anew each time, from what there is.
stage_tables() {
    "$python" -B scripts/evidence/published.py "$out" "$out/numbers.jsonl" --lexicon configs/evidence/lexicon.txt
    "$python" -B scripts/evidence/tables.py "$out" --lexicon configs/evidence/lexicon.txt "${others[@]/#/--with=}"
    local set sweeps=()
    for set in main once knobs; do
        for sweep in "$out/$set"/seed*; do [ ! -e "$sweep/sweep.json" ] || sweeps+=("$sweep"); done
    done
    [ ${#sweeps[@]} = 0 ] || "$expo" report "${sweeps[@]}" --out "$out/report.html" >/dev/null
    for sweep in "${sweeps[@]}"; do
        [ ! -e "$sweep/frontier.svg" ] ||
            cp "$sweep/frontier.svg" "$out/tables/frontier-$(basename "$(dirname "$sweep")")-$(basename "$sweep").svg"
    done
}

order=(data sft samples judges main once knobs heldout draw judge diversity questions preserve soft temperature
    reverse tables)
[ ${#stages[@]} -gt 0 ] || stages=("${order[@]}")
for name in "${stages[@]}"; do
    case " ${order[*]} plan rate " in *" $name "*) ;; *) fail "no stage $name; see --help" ;; esac
done
for file in "${others[@]}"; do [ -f "$file" ] || fail "--with $file: there is no such file"; done
case "${#others[@]} ${stages[*]}" in 0* | *tables*) ;; *) fail "--with is of the stage tables" ;; esac
for name in "${stages[@]}"; do enter "$name"; done
echo "evidence.sh: done; hours per stage are in $out/hours.tsv" >&2
