#!/usr/bin/env bash
# Trains and draws with expo and PyTorch in turn, from a pretrained model's directory and rows of HH, and prints
# one table; --help says how. Needs torch and transformers for the peer (PYTHON=...).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "no $python: set PYTHON to a Python of 3.10 or newer" >&2; exit 2; }
exec "$python" -B "$here/peer/pretrained.py" "$@"
