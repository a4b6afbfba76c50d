#!/usr/bin/env bash
# Proves the CUDA build on a machine with a GPU, and measures it, in ten minutes. Two halves:
#
#   scripts/gpu_check.sh pack DIR    where Rust and a CUDA toolkit are: builds what is needed, and packs
#                                    it with these scripts, below 60 MiB
#   DIR/gpu_check.sh DIR             where the GPU is: no network, no checkout, nothing is built;
#                                    NVIDIA's driver 580 or later and the libraries of CUDA 13
#
# pack takes --profile NAME, the cargo profile of the program (release), and --cards LIST, the compute
# capabilities that kernels are compiled for (80,86,89,90; others compile them when they begin; none). The
# second half takes:
#
#   --out DIR      where the results go ($OUT, or DIR/results): gpu_check.jsonl, a line as soon as a
#                  figure is known; table.md, rows for benches/RESULTS.md; logs.tgz, after each part
#   --work DIR     a directory with room for the models; default: in memory, or else in $TMPDIR
#   --minutes N    no part begins that would not be done after so many (9)
#   --parts LIST   of kernels,models,runs,dpo,sampling,ceilings,profile,8b (all, in this order)
#   --gpu N        the GPU's number (0)
#   --shapes tiny  tiny models in place of 2.8b and 8b, to rehearse
#
# Each group of kernels is tested in a process of its own, within a limit of time; what fails is run
# again with every launch waited for, and under compute-sanitizer where it is. Speed is not measured
# where models, attention or matmuls are wrong. Exit status: 0 if all is right, 1 if not, 2 if it
# cannot begin.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() { sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; }
fail() { echo "gpu_check.sh: $*" >&2; exit 2; }

case "${1:-}" in
"" | -h | --help) usage; exit 0 ;;
pack)
    [ $# -ge 2 ] || fail "pack takes a directory"
    source "$here/gpu_check/pack.sh"
    pack "${@:2}"
    exit 0
    ;;
esac

dir=$(cd "$1" 2>/dev/null && pwd) || fail "no directory $1"
[ -e "$dir/tests-lib.xz" ] || [ -e "$dir/tests-lib" ] || fail "$dir is not what \`gpu_check.sh pack\` makes"
shift
gpu=0 minutes=9 work="" out=${OUT:-$dir/results} shapes=real
parts=kernels,models,runs,dpo,sampling,ceilings,profile,8b
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || fail "$1 takes a value"
    case $1 in
    --gpu) gpu=$2 ;;
    --minutes) minutes=$2 ;;
    --work) work=$2 ;;
    --out) out=$2 ;;
    --parts) parts=$2 ;;
    --shapes) shapes=$2 ;;
    *) fail "unknown option $1" ;;
    esac
    shift 2
done
[[ $shapes == real || $shapes == tiny ]] || fail "--shapes is real or tiny"

source "$here/gpu_check/results.sh"
source "$here/gpu_check/machine.sh"
source "$here/gpu_check/correctness.sh"
source "$here/gpu_check/speed.sh"
wanted() { [[ ",$parts," == *",$1,"* ]]; }

open_results "$out"
trap close_machine EXIT
trap 'exit 143' TERM INT HUP
open_machine

if wanted dpo || wanted sampling || wanted profile; then background 2.8b; fi
if wanted 8b; then background 8b; fi
for part in kernels models runs; do
    if wanted "$part"; then "check_$part"; keep_logs; fi
done
if [ -n "$wrong" ]; then
    row "speed" "left out" "" "no figure counts before this is right:$wrong" wrong
else
    for part in dpo sampling ceilings profile 8b; do
        if wanted "$part"; then "measure_$part"; keep_logs; fi
    done
fi
row "all of it" "$((SECONDS - start))" "s"
exit "$failed"
