#!/usr/bin/env bash
# A cluster on one machine: what ranks exchange and how fast, two hosts with a link that goes down, Slurm, and
# what the exchange costs a step; tables of it in Markdown.
#
#   scripts/cluster.sh [--only exchange|hosts|slurm|step] [--out FILE]
#
# exchange  100 MB on 2 and 4 ranks: expo's sum and gather beside MPI_Reduce_scatter_block and MPI_Allgather of
#           the same library, in turns, for Open MPI and MPICH
# hosts     two network namespaces as hosts, over a link of 2 Gbit/s: the exchange, a training run that must
#           write the bytes of one process, and one whose link goes down
# slurm     slurmctld and slurmd of one node: srun with PMIx and PMI-2, the same training run, and shells and
#           jobs that must stay one process
# step      a random Pythia of 70 million parameters (14 million where memory is short): 1 process of 2 threads
#           beside 2 ranks of a thread each
#
# EXPO is the program (default: target/release/expo), MEGABYTES and TURNS are those of the exchange (default: 100
# and 3, each turn of 11 rounds). Needs Linux and an MPI, for the library's own exchange its mpicc; for hosts
# root, ip, tc and Open MPI; for slurm root, munged, slurmctld, slurmd and srun. What is missing is skipped with
# a line. All takes five minutes on two cores. Nothing is written into the repository, and no daemon,
# namespace or process is left behind. The tables go to FILE, else to standard output; messages to standard error.
# Exit code 0: every command succeeded, and every run wrote the bytes of one process.
set -euo pipefail
exec </dev/null
export LC_ALL=C

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
only='' out=''
while [ $# -gt 0 ]; do
    case "$1" in
        --only) only="${2:?--only wants a part}"; shift ;;
        --out) out="${2:?--out wants a file}"; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
case "$only" in
    '' | exchange | hosts | slurm | step) ;;
    *) echo "--only wants exchange, hosts, slurm or step" >&2; exit 2 ;;
esac
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
expo="$(realpath -m -- "${EXPO:-$root/target/release/expo}")"
[ -z "$out" ] || out="$(realpath -m -- "$out")"
cd "$root"
[ -x "$expo" ] || { echo "$expo: no program; cargo build --release makes it" >&2; exit 2; }
megabytes="${MEGABYTES:-100}" turns="${TURNS:-3}"

work="$(mktemp -d)"
# A launcher that this script runs under is not one of ranks that it starts.
for name in "${!SLURM_@}" "${!PMI_@}" "${!PMIX_@}" "${!OMPI_COMM_WORLD_@}"; do unset "$name"; done
unset EXPO_MPI_LIBRARY RANK WORLD_SIZE
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export HF_HUB_OFFLINE=1 XDG_CACHE_HOME="$work/cache" TMPDIR="$work"

hosts=("expo-a-$$" "expo-b-$$") subnet=10.99.0
running='' daemons=() failed=() args=()

cleanup() {
    set +e
    trap '' INT TERM
    {
        [ -z "$running" ] || { kill "$running"; wait "$running"; }
        stop_slurm
        drop_hosts
        end_strays
    } 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Kills what this script has started and what is left of it: all that has its TMPDIR.
end_strays() {
    local environ pid
    for environ in /proc/[0-9]*/environ; do
        grep -qzxF "TMPDIR=$work" "$environ" || continue
        pid="${environ#/proc/}" pid="${pid%/environ}"
        kill -KILL "$pid" && note "killed: process $pid"
    done
}

has() { command -v "$1" >/dev/null; }
note() { echo "$*" >&2; }
now() { date +%s.%N; }
since() { awk -v from="$1" -v to="$(now)" 'BEGIN {printf "%.1f", to - from}'; }
# Notes what went wrong, with the last lines of a log.
problem() {
    failed+=("$1")
    note "failed: $1"
    [ $# -lt 2 ] || tail -n 15 "$2" >&2
}

# Runs a command for so many seconds at most; a signal to this script ends it.
limited() {
    local seconds="$1" status=0 start="$SECONDS"
    shift
    timeout -k 10 "$seconds" "$@" &
    running=$!
    wait "$running" || status=$?
    running=''
    [ "$status" -eq 0 ] || note "exit code $status after $((SECONDS - start)) s: $*"
    return "$status"
}

# The launcher of an MPI: by the name that distributions give it, else by what the plain name says of itself.
launcher() {
    case "$1" in
        openmpi) named mpirun 'Open MPI' ;;
        mpich) named mpiexec 'HYDRA|MPICH' ;;
    esac
}
named() {
    local mpi=openmpi
    [ "$1" = mpirun ] || mpi=mpich
    if has "$1.$mpi"; then
        echo "$1.$mpi"
    elif has "$1" && "$1" --version 2>&1 | grep -qE "$2"; then
        echo "$1"
    fi
}

# launch KIND RANKS SECONDS COMMAND...: on this machine with openmpi or mpich, on the two hosts, or with pmix or
# pmi2 under Slurm.
launch() {
    local kind="$1" ranks="$2" seconds="$3" command
    shift 3
    case "$kind" in
        openmpi) command=("$(launcher openmpi)" --oversubscribe --bind-to none -n "$ranks") ;;
        mpich) command=("$(launcher mpich)" -n "$ranks") ;;
        hosts)
            command=(ip netns exec "${hosts[0]}" unshare --uts sh -c "hostname ${hosts[0]}"' && exec "$@"' sh
                "$(launcher openmpi)" --mca plm_rsh_agent "$work/agent" --mca plm_rsh_no_tree_spawn 1
                --mca pml ob1 --mca btl "tcp,self" --mca btl_tcp_if_include "$subnet.0/24"
                --mca oob_tcp_if_include "$subnet.0/24" --host "${hosts[0]}:8,${hosts[1]}:8"
                --map-by node --bind-to none -x RAYON_NUM_THREADS -n "$ranks")
            ;;
        *) command=(srun --quiet -n "$ranks" "--mpi=$kind") ;;
    esac
    RAYON_NUM_THREADS="${threads:-1}" limited "$seconds" "${command[@]}" "$@"
}

# A number of a JSON object in a file.
field() { sed -n "s/.*\"$2\":\([-+0-9.eE]*\).*/\1/p" "$1" | tail -n 1; }
text_field() { sed -n "s/.*\"$2\":\"\([^\"]*\)\".*/\1/p" "$1" | tail -n 1; }
median() { sort -g | awk '{v[NR] = $1} END {if (NR) print v[int((NR + 1) / 2)]}'; }

# Compiles the library's own exchange; its path, or nothing where it cannot be.
own_exchange() {
    local mpi="$1" compiler
    compiler="$(launcher "$mpi")"
    compiler="${compiler/#mpirun/mpicc}" compiler="${compiler/#mpiexec/mpicc}"
    if has "$compiler" && "$compiler" -O2 -o "$work/exchange-$mpi" scripts/cluster/exchange.c 2>"$work/compiler"; then
        echo "$work/exchange-$mpi"
    fi
}

exchange_head() {
    echo "| MPI | ranks | sum, ms | GB/s | MPI_Reduce_scatter_block, ms | library / expo | gather, ms | GB/s | MPI_Allgather, ms | library / expo |"
    echo "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |"
}

# exchange_row KIND RANKS PROGRAM: a row of the table; PROGRAM is the library's own exchange, if there is one.
exchange_row() {
    local kind="$1" ranks="$2" program="$3" turn name one="$work/check" own="$work/own"
    rm -f "$work"/times.*
    for ((turn = 1; turn <= turns; turn++)); do
        note "== exchange, $kind, $ranks ranks, turn $turn of $turns"
        if ! launch "$kind" "$ranks" 120 "$expo" ranks check --megabytes "$megabytes" --rounds 11 --timeout 60s \
            --json >"$one" 2>"$work/log"; then
            problem "ranks check, $kind, $ranks ranks" "$work/log"
            return
        fi
        field "$one" sum_seconds >>"$work/times.sum"
        field "$one" gather_seconds >>"$work/times.gather"
        [ -n "$program" ] || continue
        if ! launch "$kind" "$ranks" 120 "$program" "$megabytes" 11 >"$own" 2>"$work/log"; then
            problem "the library's own exchange, $kind, $ranks ranks" "$work/log"
            return
        fi
        field "$own" sum_seconds >>"$work/times.own_sum"
        field "$own" gather_seconds >>"$work/times.own_gather"
    done
    for name in sum gather own_sum own_gather; do
        [ ! -f "$work/times.$name" ] || median <"$work/times.$name" >"$work/median.$kind.$ranks.$name"
    done
    local sum gather own_sum='' own_gather=''
    sum="$(cat "$work/median.$kind.$ranks.sum")" gather="$(cat "$work/median.$kind.$ranks.gather")"
    if [ -n "$program" ]; then
        own_sum="$(cat "$work/median.$kind.$ranks.own_sum")" own_gather="$(cat "$work/median.$kind.$ranks.own_gather")"
    fi
    awk -v library="$(text_field "$one" library | sed 's/,.*//')" -v ranks="$ranks" -v mb="$megabytes" \
        -v sum="$sum" -v gather="$gather" -v own_sum="$own_sum" -v own_gather="$own_gather" '
        function part(time, own) {
            printf " %.0f | %.2f |", 1e3 * time, mb * (ranks - 1) / ranks / time / 1e3
            if (own) printf " %.0f | %.2f |", 1e3 * own, own / time; else printf " - | - |"
        }
        BEGIN { printf "| %s | %s |", library, ranks; part(sum, own_sum); part(gather, own_gather); print "" }'
}

exchange() {
    echo "## Exchange of $megabytes MB on one machine"
    echo
    local mpi program skipped=()
    exchange_head
    for mpi in openmpi mpich; do
        if [ -z "$(launcher "$mpi")" ]; then
            skipped+=("$mpi: its launcher is not installed")
            continue
        fi
        program="$(own_exchange "$mpi")"
        [ -n "$program" ] || skipped+=("the own exchange of $mpi: mpicc or mpi.h is not installed")
        exchange_row "$mpi" 2 "$program"
        exchange_row "$mpi" 4 "$program"
    done
    skipped_lines "${skipped[@]}"
}

skipped_lines() {
    [ $# -gt 0 ] || return 0
    echo
    printf 'Skipped: %s.\n' "$@"
}

# The training run that several ranks repeat: train NAME [MORE ARGUMENTS] prints the arguments, a line each.
train() {
    printf '%s\n' train configs/tiny.toml --set "run.output_dir=$work/runs/$1" --set "run.cache_dir=$work/cache-$1" \
        --set run.max_steps=40 --set run.save_steps=20 "${@:2}"
}

# The same run in one process, once.
alone() {
    [ ! -d "$work/runs/one" ] || return 0
    note "== training in one process"
    mapfile -t args < <(train one --set batch.lanes=8)
    limited 120 "$expo" "${args[@]}" >"$work/log" 2>&1 || problem "training in one process" "$work/log"
}

# What a comparison of two directories says: same NAME [REFERENCE]. Files that both lack do not compare.
same() {
    local file other="${2:-one}"
    for file in model.safetensors metrics.jsonl; do
        if ! cmp -s "$work/runs/$other/$file" "$work/runs/$1/$file"; then
            echo "**$file differs**"
            return
        fi
    done
    echo "same bytes"
}

# train_on KIND NAME [REFERENCE]: trains on 2 ranks and sets `verdict` and `seconds`.
train_on() {
    local kind="$1" name="$2" start
    alone
    note "== training, $kind, 2 ranks"
    mapfile -t args < <(train "$name")
    start="$(now)" verdict='**failed**'
    if launch "$kind" 2 150 "$expo" "${args[@]}" >"$work/log" 2>&1; then
        verdict="$(same "$name")"
        [ "$verdict" = "same bytes" ] || problem "training, $kind, 2 ranks: $verdict"
    else
        problem "training, $kind, 2 ranks" "$work/log"
    fi
    seconds="$(since "$start")"
}

# Why there can be no hosts; nothing if there can.
no_hosts() {
    local name
    [ "$(id -u)" -eq 0 ] || { echo "needs root"; return; }
    for name in ip tc unshare; do
        has "$name" || { echo "$name is not installed"; return; }
    done
    [ -n "$(launcher openmpi)" ] || { echo "Open MPI is not installed"; return; }
    ip netns add "${hosts[0]}" 2>/dev/null || echo "network namespaces are not permitted"
}

# Joins the hosts by a link, shaped at both ends.
make_hosts() {
    local at host
    ip netns add "${hosts[1]}" &&
        ip -n "${hosts[0]}" link add link0 type veth peer name link0 netns "${hosts[1]}" || return
    for at in 0 1; do
        host="${hosts[$at]}"
        ip -n "$host" address add "$subnet.$((at + 1))/24" dev link0 &&
            ip -n "$host" link set lo up &&
            ip -n "$host" link set link0 up &&
            ip netns exec "$host" tc qdisc add dev link0 root tbf rate 2gbit burst 1mb latency 50ms || return
    done
    # What mpirun starts its daemon on the other host with: HOST COMMAND...
    cat >"$work/agent" <<'AGENT'
#!/bin/sh
host="$1"
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host && $*"
AGENT
    chmod +x "$work/agent"
}

drop_hosts() {
    local host pids
    for host in "${hosts[@]}"; do
        [ -e "/run/netns/$host" ] || continue
        pids="$(ip netns pids "$host")"
        # shellcheck disable=SC2086 # a word each
        [ -z "$pids" ] || kill -KILL $pids
        ip netns del "$host"
    done
}

# How many processes of a program, or of all, the hosts have.
on_hosts() {
    local host pid count=0
    for host in "${hosts[@]}"; do
        for pid in $(ip netns pids "$host" 2>/dev/null); do
            [ $# -eq 0 ] || [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || continue
            count=$((count + 1))
        done
    done
    echo "$count"
}

# ended_within SECONDS JOB: whether a job ends so soon; `code` is its exit code.
ended_within() {
    local end=$((SECONDS + $1))
    while [ "$SECONDS" -lt "$end" ]; do
        if ! kill -0 "$2" 2>/dev/null; then
            code=0
            wait "$2" || code=$?
            return 0
        fi
        if [ -z "$ended" ] && [ "$(on_hosts "$name")" -eq 0 ]; then ended="$(since "$start")"; fi
        sleep 0.1
    done
    return 1
}

link_down() {
    local limit=60 start ended='' code='' name="${expo##*/}" launcher_ended left pid job at
    # As /proc has it.
    name="${name:0:15}"
    note "== the link goes down"
    mapfile -t args < <(train down --set run.max_steps=1000000 --set run.num_train_epochs=100000 \
        --set distributed.timeout=5)
    launch hosts 2 300 "$expo" "${args[@]}" >"$work/down" 2>&1 &
    job=$!
    running=$job
    for ((at = 0; at < 300; at++)); do
        [ ! -s "$work/runs/down/metrics.jsonl" ] || break
        sleep 0.2
    done
    if [ ! -s "$work/runs/down/metrics.jsonl" ]; then
        problem "training before the link goes down" "$work/down"
    fi
    start="$(now)"
    ip -n "${hosts[1]}" link set link0 down
    if ended_within "$limit" "$job"; then
        launcher_ended="$(since "$start")" ended="${ended:-$launcher_ended}"
    else
        launcher_ended="not within $limit s"
        if [ -z "$ended" ]; then
            ended="not within $limit s"
            problem "ranks are left $limit s after the link went down" "$work/down"
        fi
    fi
    left="$(on_hosts)"
    if [ -z "$code" ]; then
        for pid in $(ip netns pids "${hosts[0]}"); do
            case "$(cat "/proc/$pid/comm" 2>/dev/null)" in mpirun* | prterun*) kill "$pid" || true ;; esac
        done
        start="$(now)"
        if ended_within 15 "$job"; then
            launcher_ended+=", $(since "$start") s after a TERM"
        else
            launcher_ended+=", nor 15 s after a TERM"
        fi
    fi
    running=''
    echo "With distributed.timeout=5, after the link went down:"
    echo
    echo "| all ranks have ended, s | mpirun has ended, s | exit code | processes left |"
    echo "| --: | --: | --: | --: |"
    echo "| $ended | $launcher_ended | ${code:--} | $left |"
    echo
    echo '```text'
    grep -aE '^(error|rank [0-9]+):' "$work/down" | sed "s#$work#.#g" | head -n 6 || true
    echo '```'
}

hosts() {
    echo "## Two hosts over 2 Gbit/s"
    echo
    local why program
    why="$(no_hosts)"
    if [ -n "$why" ]; then
        echo "Skipped: $why."
        return
    fi
    if ! make_hosts 2>"$work/log"; then
        note "$(tail -n 1 "$work/log")"
        echo "Skipped: the link cannot be made: $(tail -n 1 "$work/log")."
        return
    fi
    program="$(own_exchange openmpi)"
    exchange_head
    exchange_row hosts 2 "$program"
    [ -n "$program" ] || skipped_lines "the own exchange of openmpi: mpicc or mpi.h is not installed"
    echo
    train_on hosts hosts
    echo "Training on 2 ranks, beside one process with batch.lanes=8: $verdict, $seconds s."
    echo
    link_down
    drop_hosts 2>/dev/null || true
}

# Why there can be no Slurm; nothing if there can.
no_slurm() {
    local name
    [ "$(id -u)" -eq 0 ] || { echo "needs root"; return; }
    for name in munged slurmctld slurmd srun salloc sbatch; do
        has "$name" || { echo "$name is not installed"; return; }
    done
}

# Starts the daemons of a cluster of this machine alone, with all their files in `$work`.
start_slurm() {
    local host at port=$((20000 + RANDOM % 10000))
    host="$(hostname -s)"
    mkdir -p "$work/slurm/state" "$work/slurm/spool"
    head -c 128 /dev/urandom >"$work/slurm/key"
    chmod 600 "$work/slurm/key"
    cat >"$work/slurm/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/slurm/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=2
SlurmctldPidFile=$work/slurm/slurmctld.pid
SlurmdPidFile=$work/slurm/slurmd.pid
SlurmdSpoolDir=$work/slurm/spool
StateSaveLocation=$work/slurm/state
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
CONF
    export SLURM_CONF="$work/slurm/slurm.conf"
    munged --foreground --force --socket="$work/slurm/munge" --key-file="$work/slurm/key" \
        --pid-file="$work/slurm/munge.pid" --log-file="$work/slurm/munge.log" --seed-file="$work/slurm/seed" \
        >"$work/slurm/munged" 2>&1 &
    daemons+=($!)
    for ((at = 0; at < 50; at++)); do [ ! -S "$work/slurm/munge" ] || break; sleep 0.1; done
    slurmctld -D >"$work/slurm/slurmctld" 2>&1 &
    daemons+=($!)
    slurmd -D >"$work/slurm/slurmd" 2>&1 &
    daemons+=($!)
    for ((at = 0; at < 150; at++)); do
        [ "$(sinfo --noheader --format %T 2>/dev/null)" != idle ] || return 0
        sleep 0.2
    done
    return 1
}

# Ends jobs, then the daemons, the last one first.
stop_slurm() {
    [ "${#daemons[@]}" -gt 0 ] || return 0
    local at
    scancel --user=root
    for ((at = 0; at < 100; at++)); do [ -n "$(squeue --noheader)" ] || break; sleep 0.1; done
    for ((at = ${#daemons[@]} - 1; at >= 0; at--)); do
        kill "${daemons[$at]}"
        wait "${daemons[$at]}"
    done
    daemons=()
    unset SLURM_CONF
}

slurm() {
    echo "## Slurm"
    echo
    local why kind mpi checked library skipped=()
    why="$(no_slurm)"
    if [ -n "$why" ]; then
        echo "Skipped: $why."
        return
    fi
    note "== Slurm starts"
    if ! start_slurm; then
        problem "Slurm does not start" "$work/slurm/slurmctld"
        echo "Skipped: the daemons do not start."
        return
    fi
    echo "| start | MPI | expo ranks check | training, beside one process with batch.lanes=8 | s |"
    echo "| --- | --- | --- | --- | --: |"
    for kind in pmix pmi2; do
        mpi=openmpi
        [ "$kind" = pmix ] || mpi=mpich
        if [ -z "$(launcher "$mpi")" ]; then
            skipped+=("srun --mpi=$kind: $mpi is not installed")
            continue
        fi
        # A list after a first line, of which each version of Slurm has another.
        if ! srun --mpi=list 2>&1 | grep -qw "$kind"; then
            skipped+=("srun --mpi=$kind: Slurm lacks the plugin")
            continue
        fi
        note "== ranks check, srun --mpi=$kind"
        checked='**failed**' library=-
        if launch "$kind" 4 120 "$expo" ranks check --megabytes 10 --rounds 3 --timeout 60s --json >"$work/check" 2>"$work/log" &&
            grep -q '"ranks":4' "$work/check" && grep -q '"sums_equal":true' "$work/check"; then
            checked="4 ranks, sums of one process" library="$(text_field "$work/check" library | sed 's/,.*//')"
        else
            problem "ranks check, srun --mpi=$kind" "$work/log"
        fi
        train_on "$kind" "$kind"
        echo "| \`srun --mpi=$kind\` | $library | $checked | $verdict | $seconds |"
    done
    slurm_alone salloc salloc --quiet -n 4
    cat >"$work/job" <<'JOB'
#!/bin/sh
exec "$@"
JOB
    slurm_alone sbatch sbatch --quiet -n 4 --wait --output "$work/job.out" "$work/job"
    skipped_lines "${skipped[@]}"
    stop_slurm 2>/dev/null || true
}

# slurm_alone NAME COMMAND...: what a plain command is in an allocation of 4 tasks.
slurm_alone() {
    local name="$1" checked='**failed**' verdict='**failed**'
    shift
    alone
    note "== one process in an allocation of $name"
    rm -f "$work/job.out"
    if limited 60 "$@" "$expo" ranks check --json >"$work/check" 2>"$work/log" &&
        { [ ! -f "$work/job.out" ] || mv "$work/job.out" "$work/check"; } &&
        grep -qx '{"ranks":1}' "$work/check"; then
        checked="1 process"
    else
        problem "ranks check in an allocation of $name" "$work/log"
    fi
    mapfile -t args < <(train "$name" --set batch.lanes=8)
    if limited 120 "$@" "$expo" "${args[@]}" >"$work/log" 2>&1; then
        verdict="$(same "$name")"
        [ "$verdict" = "same bytes" ] || problem "training in an allocation of $name: $verdict"
    else
        [ ! -f "$work/job.out" ] || mv "$work/job.out" "$work/log"
        problem "training in an allocation of $name" "$work/log"
    fi
    echo "| \`$name -n 4\`, no \`srun\` | - | $checked | $verdict | - |"
}

# step_on NAME COMMAND...: trains the Pythia; prints the mean seconds of the steps after the first.
step_on() {
    local name="$1"
    shift
    note "== steps: $name"
    "$@" "$expo" train "$work/step.toml" --set "run.output_dir=$work/runs/step-$name" >"$work/log" 2>&1 || {
        problem "steps: $name" "$work/log"
        return
    }
    sed -n '/"step":0,/d; s/.*"seconds":\([0-9.eE+-]*\).*/\1/p' "$work/runs/step-$name/timings.jsonl" |
        awk 'NR > 1 {sum += $1} END {if (NR > 1) print sum / (NR - 1)}' >"$work/step-$name"
}

step() {
    echo "## Share of a step"
    echo
    local mpi='' candidate shape=70m sizes="512 6 8 2048" lanes=8 rows=64
    for candidate in openmpi mpich; do
        [ -n "$mpi" ] || [ -z "$(launcher "$candidate")" ] || mpi="$candidate"
    done
    if [ -z "$mpi" ]; then
        echo "Skipped: no MPI is installed."
        return
    fi
    if [ "$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)" -lt 8000000 ]; then
        shape=14m sizes="128 6 4 512"
    fi
    # shellcheck disable=SC2086 # a word each
    printf '{"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "vocab_size": 50304, "hidden_size": %s, "num_hidden_layers": %s, "num_attention_heads": %s, "intermediate_size": %s, "hidden_act": "gelu", "rotary_pct": 0.25, "max_position_embeddings": 2048, "use_parallel_residual": true, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 0}' \
        $sizes >"$work/config.json"
    "$expo" init --config-json "$work/config.json" --tokenizer configs/tiny/model/tokenizer.json \
        --out "$work/pythia" >/dev/null
    # A loss without a reference: nothing but steps is computed.
    cat >"$work/step.toml" <<TOML
[model]
model_name_or_path = "$work/pythia"
dtype = "f32"
device = "cpu"
[data]
format = "pairs"
train = "configs/tiny/train.jsonl"
max_length = 128
max_prompt_length = 64
[loss.simpo]
[batch]
batch_size = $rows
lanes = $lanes
[optimizer]
optim = "adamw"
learning_rate = 1e-6
[run]
output_dir = "unset"
cache_dir = "$work/cache"
max_steps = 3
logging_steps = 1
TOML
    local threads=1
    RAYON_NUM_THREADS=2 step_on alone limited 120
    step_on ranks launch "$mpi" 2 120
    note "== exchange beside the steps"
    launch "$mpi" 2 120 "$expo" ranks check --megabytes "$megabytes" --rounds 11 --timeout 60s --json \
        >"$work/check" 2>"$work/log" || problem "ranks check, $mpi" "$work/log"
    if [ ! -s "$work/step-alone" ] || [ ! -s "$work/step-ranks" ]; then
        echo "Failed."
        return
    fi
    local verdict mb tokens
    verdict="$(same step-ranks step-alone)"
    [ "$verdict" = "same bytes" ] || problem "steps on 2 ranks: $verdict"
    mb="$(wc -c <"$work/pythia/model.safetensors" | awk '{print $1 / 1e6}')"
    tokens="$(sed -n 's/.*"tokens": \([0-9]*\).*/\1/p' "$work/runs/step-alone/summary.json" | head -n 1)"
    echo "Pythia-$shape of random weights ($(awk -v mb="$mb" 'BEGIN {printf "%.0f", mb}') MB of f32), SimPO, AdamW," \
        "$rows pairs of $((tokens / 3)) tokens a step, $lanes lanes; the means of 2 steps after the first." \
        "2 ranks exchange $((lanes / 2)) sums and 1 gather a step, at the speed of \`expo ranks check\`."
    echo
    echo "| processes | threads of each | s/step | exchange, s | share of the step | bytes |"
    echo "| --- | --: | --: | --: | --: | --- |"
    awk -v alone="$(cat "$work/step-alone")" 'BEGIN {printf "| 1 | 2 | %.2f | - | - | - |\n", alone}'
    exchanged "$(field "$work/check" sum_seconds)" "$(field "$work/check" gather_seconds)" "2, $mpi" "$verdict" 0
    # Where the link between hosts was measured, too.
    if [ -s "$work/median.hosts.2.sum" ]; then
        exchanged "$(cat "$work/median.hosts.2.sum")" "$(cat "$work/median.hosts.2.gather")" \
            "2, as hosts over 2 Gbit/s (calculated)" - "$shared"
    fi
}

# exchanged SUM GATHER NAME VERDICT SHARED: a row; SHARED is the exchange that the measured step has and this
# row's has not, 0 in the row of the measured step.
exchanged() {
    shared="$(awk -v sum="$1" -v gather="$2" -v mb="$mb" -v each="$megabytes" -v sums=$((lanes / 2)) \
        'BEGIN {print (sums * sum + gather) * mb / each}')"
    awk -v own="$shared" -v other="$5" -v step="$(cat "$work/step-ranks")" -v name="$3" -v verdict="$4" 'BEGIN {
        if (other) step += own - other
        printf "| %s | 1 | %.2f | %.2f | %.0f%% | %s |\n", name, step, own, 100 * own / step, verdict
    }'
}

[ -z "$out" ] || mkdir -p "$(dirname "$out")"
{
    echo "Commit $(git log -1 --format='%h of %cs' 2>/dev/null || echo unknown), $("$expo" --version | head -n 1);" \
        "$(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo 2>/dev/null | head -n 1), Linux $(uname -r | cut -d- -f1)."
} >"$work/table"
for part in exchange hosts slurm step; do
    [ -z "$only" ] || [ "$only" = "$part" ] || continue
    echo >>"$work/table"
    "$part" >>"$work/table"
done
if [ "${#failed[@]}" -gt 0 ]; then
    printf '\n**failed**: %s\n' "${failed[@]}" >>"$work/table"
fi
if [ -n "$out" ]; then cp "$work/table" "$out"; else cat "$work/table"; fi
[ "${#failed[@]}" -eq 0 ]
