#!/usr/bin/env bash
# What a run survives: kills, faults, power cuts, signals, rivals, full disks, hostile inputs, against the
# real program; a table of it in Markdown.
#
#   scripts/torture.sh [--short|--full] [--out FILE] [GROUP ...]
#
# --short takes minutes, --full an hour and a half and the numbers of benches/RELIABILITY.md. GROUP is one of
# torture (all against the program), powercut (of those the power cuts alone), ranks (of those the ones on
# several ranks alone), damaged (the commands on damaged files alone), resume, non_finite, hostile,
# wrong_inputs, accumulation, large and fuzz; without one, all are run, large and fuzz with --full only.
# Needs Rust; for all of it strace, mpirun of Open MPI, the right to mount a tmpfs and loop devices,
# mkfs.ext4, mkfs.xfs, mkfs.btrfs and, for fuzz, cargo-fuzz, and says what was skipped without them. The
# table goes to FILE, else to standard output; messages to standard error. Exit code 0: every target is met.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }
size=short out=/dev/stdout groups=()
while [ $# -gt 0 ]; do
    case "$1" in
        --short) size=short ;;
        --full) size=full ;;
        --out) out="${2:?--out wants a file}"; shift ;;
        -h | --help) usage; exit 0 ;;
        torture | powercut | ranks | damaged | resume | non_finite | hostile | wrong_inputs | accumulation | large | fuzz)
            groups+=("$1") ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
if [ "${#groups[@]}" -eq 0 ]; then
    groups=(torture resume non_finite hostile wrong_inputs accumulation)
    # Minutes and gigabytes.
    [ "$size" = short ] || groups+=(large fuzz)
fi
export EXPO_TORTURE="$size"

logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT
commit="$(git log -1 --format='%h of %cs' 2>/dev/null || echo unknown)"
failed=()

# Runs tests of the binary of integration tests or of the library; their output is the log of that name.
group() {
    local name="$1" binary=(--test main) status=0
    [ "$2" = main ] || binary=(--lib)
    shift 2
    echo "== $name" >&2
    cargo test --locked "${binary[@]}" -- --nocapture --test-threads 1 "$@" >"$logs/$name" 2>&1 || status=$?
    grep -E '^(torture test=|test result:)|panicked at|FAILED' "$logs/$name" >&2 || true
    if [ "$status" -ne 0 ]; then
        failed+=("$name")
        tail -n 60 "$logs/$name" >&2
    fi
}

# A minute of each fuzz target, where there is cargo-fuzz; what it comes upon stays out of the corpus.
fuzz() {
    if ! cargo fuzz --version >/dev/null 2>&1; then
        echo "fuzz targets skipped: cargo-fuzz is not installed" >&2
        return
    fi
    local name
    for name in $(cargo fuzz list); do
        echo "== fuzz $name" >&2
        mkdir "$logs/corpus-$name"
        cargo fuzz run -s none "$name" "$logs/corpus-$name" "fuzz/corpus/$name" -- \
            -max_total_time=60 -print_final_stats=1 -artifact_prefix="$logs/" >"$logs/fuzz-$name" 2>&1 ||
            failed+=("fuzz $name")
    done
}

for name in "${groups[@]}"; do
    case "$name" in
        torture) group torture main torture:: --ignored ;;
        powercut) group torture main torture::power_cuts --ignored ;;
        ranks) group torture main torture::ranks --ignored ;;
        damaged) group torture main torture::command_lines --ignored ;;
        resume) group resume main train::resume ;;
        non_finite) group non_finite lib train::non_finite ;;
        hostile) group hostile main hostile:: ;;
        wrong_inputs) group wrong_inputs main cli::wrong ;;
        accumulation) group accumulation main train::accumulation ;;
        large) group large main large:: --ignored ;;
        fuzz) fuzz ;;
    esac
done

target() {
    case "$1" in
        kills) echo "0 unreadable, 0 mismatches; half of the kills inside a save" ;;
        faults) echo "0 panics, 0 errors without a path, 0 unreadable, 0 mismatches" ;;
        signals) echo "exit code 128 + N with everything saved, 0 mismatches" ;;
        second_signal) echo "ends at once, 0 lost, 0 mismatches" ;;
        ranks) echo "0 unreadable, 0 mismatches, resumed on other numbers of ranks" ;;
        owners) echo "one winner of 20/20, a stale lock blocks nobody" ;;
        fencing) echo "stops at its next save, writes nothing more" ;;
        size_limits | inodes | full_disk) echo "0 unreadable, 0 mismatches once there is room" ;;
        outputs) echo "every run is complete" ;;
        full_log) echo "training completes with the same weights" ;;
        threads) echo "the same bytes" ;;
        power_cuts_*) echo "0 unreadable, 0 mismatches" ;;
        damaged_files) echo "0 panics, 0 signals, 0 hangs over 20 s, 0 raw control characters" ;;
        *) echo "no failure" ;;
    esac
}

row() { printf '| %s | %s | %s |\n' "$1" "$2" "$3"; }

# Lines of a log that begin so, which may follow the name of their test.
lines() { grep -oE "$2" "$logs/$1" 2>/dev/null || true; }

# `a=1 b_c=2` in words; what is in quotes stays.
words() { sed -E 's/([a-z_]+)=/\1 /g; s/ ([a-z_]+ ([0-9"]|true|false))/, \1/g; s/_/ /g'; }

# The sum of a figure over the lines of standard input.
sum() { awk -v name="$1=" '{for (i = 1; i <= NF; i++) if (index($i, name) == 1) total += substr($i, length(name) + 1)} END {print total + 0}'; }

# How many tests of a group passed and failed.
passed() { sed -nE 's/^test result:.* ([0-9]+) passed; ([0-9]+) failed.*/\1 tests passed, \2 failed/p' "$logs/$1"; }

table() {
    echo "| test | target | measured |"
    echo "| --- | --- | --- |"
    lines torture 'torture test=.*' | while read -r _ name figures; do
        name="${name#test=}"
        row "${name//_/ }" "$(target "$name")" "$(words <<<"$figures")"
    done
    if [ -f "$logs/resume" ]; then
        row "resume at every step" "checkpoints, metrics.jsonl and model identical" "$(passed resume)"
    fi
    if [ -f "$logs/non_finite" ]; then
        row "NaN and infinity in weights, batch, loss, gradient, moments" "caught before the update" "$(passed non_finite)"
    fi
    if [ -f "$logs/hostile" ]; then
        row "attacks: network, templates, tokenizers, models, outputs, limits" "each its message, nothing lost" "$(passed hostile)"
    fi
    local formats
    formats="$(lines hostile 'format=.*')"
    if [ -n "$formats" ]; then
        local count
        count="$(cut -d/ -f1 <<<"$formats" | sort -u | wc -l)"
        row "prefixes and bit flips" "0 panics" "kinds of files $count, cases $(sum cases <<<"$formats"), refused $(sum refused <<<"$formats"), accepted $(sum accepted <<<"$formats"), panics $(sum panics <<<"$formats")"
    fi
    local log executions
    for log in "$logs"/fuzz-*; do
        [ -f "$log" ] || continue
        executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
        row "fuzz target ${log##*/fuzz-}" "0 crashes" "executions ${executions:-0}, crashes $(grep -c 'ERROR: libFuzzer' "$log" || true)"
    done
    lines wrong_inputs 'wrong_inputs .*' | while read -r _ figures; do
        row "wrong inputs" "each its message and exit code" "$(words <<<"$figures")"
    done
    lines accumulation 'accumulation losses=.*' | while read -r _ figures; do
        row "accumulation" "relative 1e-6" "$figures"
    done
    lines large 'large case=.*' | while read -r _ figures; do
        figures="${figures//|/\\|}"
        row "large: $(sed -E 's/case=([^ ]*).*/\1/; s/_/ /g' <<<"$figures")" "flat memory or a clear refusal" "$(sed -E 's/case=[^ ]* //; s/peak_mib=/peak MiB /; s/rows=/rows /; s/ (peak|outcome)/, \1/g; s/outcome=//; s/;.*"$/"/' <<<"$figures")"
    done
    if [ "${#failed[@]}" -gt 0 ]; then
        row "**failed**" "" "${failed[*]}"
    fi
}

if [ "$out" != /dev/stdout ]; then
    mkdir -p "$(dirname "$out")"
fi
{
    echo "Commit $commit, $size version;" \
        "$(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo 2>/dev/null | head -n 1), Linux $(uname -r | cut -d- -f1)."
    echo
    table
} >"$logs/table"
# Not into a file of standard output, which would begin anew.
case "$out" in /dev/stdout) cat "$logs/table" ;; *) cat "$logs/table" >"$out" ;; esac
[ "${#failed[@]}" -eq 0 ]
