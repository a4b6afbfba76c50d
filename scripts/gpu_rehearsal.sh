#!/usr/bin/env bash
# Rehearses scripts/gpu_check.sh where no GPU is: packs the CUDA build, or takes a pack that is there,
# hides the checkout, and runs the pack on the emulated driver, on a small disk, with tiny models, cutting
# it off after each part.
#
#   scripts/gpu_rehearsal.sh [PACK]
#
# Takes what scripts/cuda_emulator.sh takes, and the right to mount in a namespace of its own. Builds below
# CARGO_TARGET_DIR, or target/cuda. Exit status 3: this machine cannot do it, and a line says why.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

unshare -m mount -t tmpfs none /mnt 2>/dev/null || { echo "no right to mount in a namespace"; exit 3; }
step() { printf '\n== rehearsal, %d s: %s\n' "$SECONDS" "$*"; }
fail() { echo "gpu_rehearsal.sh: $*" >&2; exit 1; }

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
target=${CARGO_TARGET_DIR:-$root/target/cuda}
pack=$place/pack
if [ $# -gt 0 ]; then
    cp -r "$1" "$pack"
else
    step "toolkit"
    source scripts/emulated_toolkit.sh
    step "pack"
    CARGO_TARGET_DIR=$target scripts/gpu_check.sh pack "$pack" --profile dev --cards none
fi

step "driver"
mkdir -p "$place"/{bin,libraries,kernels} "$target/emulated-kernels"
for name in expo tests-lib tests-test; do xz -dc "$pack/$name.xz" >"$place/$name"; done
chmod +x "$place/tests-lib"
scripts/emulated_driver.sh "$place/libraries" "$place"/{expo,tests-lib,tests-test}
cp src/kernels/emulator/emulator.h "$place"
# What the machine with the GPU has beside its driver.
cat >"$place/bin/nvidia-smi" <<'END'
#!/usr/bin/env bash
for word in "$@"; do
    case $word in
    --query-gpu=name) echo "NVIDIA H200" ;;
    --query-gpu=memory.total) echo "143771" ;;
    --query-gpu=driver_version) echo "580.0" ;;
    esac
done
END
cat >"$place/bin/ncu" <<'END'
#!/usr/bin/env bash
while [[ $1 == --* ]]; do
    [ "$1" != --log-file ] || log=$2
    [[ $1 == --csv ]] && shift || shift 2
done
"$@" || exit
printf '%s\n' '==PROF== Connected' '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"' \
    '"0","attention","dram__bytes.sum","byte","1,000,000,000"' \
    '"0","attention","gpu__time_duration.sum","ns","2,500,000"' >"$log"
END
cat >"$place/bin/compute-sanitizer" <<'END'
#!/usr/bin/env bash
echo "========= COMPUTE-SANITIZER"
echo "========= Invalid __global__ write of size 4 bytes"
END
chmod +x "$place/bin"/*

# A pack whose kernels of attention are wrong, and all others right at once.
mkdir "$place/wrong"
cp -r "$pack"/. "$place/wrong"
rm "$place/wrong/tests-lib.xz"
cat >"$place/wrong/tests-lib" <<END
#!/usr/bin/env bash
case " \$* " in
*" --list "*) exec "$place/tests-lib" "\$@" ;;
*attention*)
    echo "test kernels::cuda::attention::tests::it_is_injected ... FAILED"
    echo "thread 'it' panicked at attention.rs:1:1:"
    echo "CUDA_ERROR_ILLEGAL_ADDRESS"
    echo "test result: FAILED. 0 passed; 1 failed"
    exit 101
    ;;
esac
echo "test result: ok. 1 passed; 0 failed"
END
chmod +x "$place/wrong/tests-lib"

export PATH=$place/bin:$PATH EXPO_EMULATOR=$place/emulator.h PYTHON=/none
export root place pack libraries=$place/libraries kernels=$target/emulated-kernels
unshare -m bash -euo pipefail "$root/scripts/gpu_check/rehearse.sh"
step "all is as it should be"
