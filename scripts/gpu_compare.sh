#!/usr/bin/env bash
# Runs expo beside TRL and PyTorch on one GPU and prints one table; --help says how, and what the
# machine needs: an NVIDIA GPU, expo with the feature cuda, and for the peers a Python (PYTHON=...)
# with PyTorch for CUDA and transformers. trl and datasets, which TRL alone needs, may come as wheels
# (--wheels DIR); without them the peer in plain PyTorch runs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "no $python: set PYTHON to a Python of 3.10 or newer" >&2; exit 2; }
exec "$python" -B "$here/peer/compare.py" --device cuda --dtypes bf16 --shapes 2.8b --batches 64 \
    --minutes 9 "$@"
