# What gpu_rehearsal.sh runs in a namespace of its own, where it may hide the checkout and mount disks:
# $root is the checkout, $place a directory with the $pack, $libraries and $kernels those of the emulated
# driver.
: "${root:?}" "${place:?}" "${pack:?}" "${libraries:?}" "${kernels:?}"
cd /

step() { printf '\n== rehearsal, %d s: %s\n' "$SECONDS" "$*"; }
fail() { echo "rehearsal: $*" >&2; exit 1; }

# The kernels that the driver has compiled stay for the next time.
mkdir -p "$place/kernels"
mount --bind "$kernels" "$place/kernels"
mount -t tmpfs -o size=1m none "$root"
[ ! -e "$root/Cargo.toml" ] || fail "the checkout is still there"
work=$place/work
mkdir "$work"
mount -t tmpfs -o size=600m none "$work"

# Begins a check with its results in a new directory $out, in a session of its own.
begin() {
    local from=$1
    shift
    rm -rf "${work:?}"/*
    mkdir -p "$work/tmp"
    ln -s "$place/kernels" "$work/tmp/expo-emulated-driver"
    out=$place/out-$((legs += 1))
    LD_LIBRARY_PATH=$libraries setsid "$from/gpu_check.sh" "$from" --shapes tiny --work "$work" --out "$out" "$@" \
        >"$out.log" 2>&1 &
    check=$!
}
legs=0

# What a check leaves is whole at any moment: lines of JSON, as many rows, and a readable archive.
whole() {
    python3 -c '
import json, sys
lines = open(sys.argv[1]).read()
assert lines.endswith("\n"), "half a line"
assert all(json.loads(line)["card"] == "H200" for line in lines.splitlines()), "a line without its card"
rows = open(sys.argv[2]).read().splitlines()[2:]
assert len(rows) == len(lines.splitlines()) and all(row.startswith("| H200 | ") for row in rows), "the table"
' "$out/gpu_check.jsonl" "$out/table.md" || fail "$out is not whole"
    [ ! -e "$out/logs.tgz" ] || tar tzf "$out/logs.tgz" >/dev/null || fail "$out/logs.tgz is not whole"
    [ "$(find "$out" -type f ! -name '.*' | wc -l)" -le 8 ] || fail "more than 8 files"
}

# Whether a line of the results has each of the words.
has() {
    local word
    for word in "$@"; do
        grep -q "$word" "$out/gpu_check.jsonl" || { cat "$out.log"; fail "no line has $word"; }
    done
}

step "each part, cut off when it is done"
parts=(kernels models runs dpo sampling ceilings profile 8b)
for at in "${!parts[@]}"; do
    begin "$pack" --minutes 60 --parts "$(IFS=,; echo "${parts[*]:at}")"
    until [ -e "$out/logs.tgz" ] || ! kill -0 "$check" 2>/dev/null; do sleep 0.1; done
    # All of its session, as what has a limit of time is a process group of its own. What one of them has
    # begun meanwhile goes the next time round.
    while mapfile -t processes < <(ps -o stat=,pid= -s "$check" | awk '$1 !~ /^Z/ { print $2 }'); [ ${#processes[@]} -gt 0 ]; do
        kill -9 "${processes[@]}" 2>/dev/null || true
        sleep 0.1
    done
    wait "$check" || true
    whole
    if grep '"ok":false' "$out/gpu_check.jsonl"; then cat "$out.log"; fail "${parts[at]} is wrong"; fi
    echo "${parts[at]}: $(wc -l <"$out/gpu_check.jsonl") lines, $SECONDS s"
    case ${parts[at]} in
    kernels) has '"kernels attention"' '"kernels linear"' '"kernels norm"' ;;
    models) has '"models model"' ;;
    runs) has '"runs"' ;;
    dpo) has '"2.8b DPO, reference cached"' '"2.8b DPO, reference on line"' '"2.8b DPO, useful operations"' ;;
    sampling) has '"2.8b sampling, 2 sequences"' '"2.8b sampling, 8 sequences"' ;;
    ceilings) has '"ceilings"' ;;
    profile) has '"2.8b step, gemm"' '"product of ' '"kernel attention","ok":true,"value":2.500' ;;
    8b) has '"8b DPO, reference cached"' ;;
    esac
done

step "a run to its end"
begin "$pack" --parts dpo
wait "$check" || { cat "$out.log"; fail "exit status $?"; }
whole
has '"all of it"'

step "wrong kernels of attention"
begin "$place/wrong" --parts kernels,models,dpo
code=0
wait "$check" || code=$?
[ "$code" = 1 ] || { cat "$out.log"; fail "exit status $code"; }
whole
has '"kernels attention","ok":false.*CUDA_ERROR_ILLEGAL_ADDRESS' '"kernels attention, launches waited for"' \
    '"kernels attention, memcheck".*Invalid __global__ write' '"kernels token","ok":true' '"speed"' '"all of it"'
if grep -q DPO "$out/gpu_check.jsonl"; then fail "speed was measured"; fi

step "no libraries"
libraries=/none begin "$pack" --parts dpo
code=0
wait "$check" || code=$?
[ "$code" = 2 ] || { cat "$out.log"; fail "exit status $code"; }
has '"libraries".*libcuda.so.1'

step "a disk that is too small"
rm -rf "${work:?}"/*
mount -o remount,size=20m "$work"
begin "$pack" --parts dpo
code=0
wait "$check" || code=$?
[ "$code" = 2 ] || { cat "$out.log"; fail "exit status $code"; }
has '"the working directory"'
umount "$work" "$root"
