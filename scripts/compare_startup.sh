#!/usr/bin/env bash
# Measures from launch to the first row, step and token, beside the same in Python; --help says how. Needs
# Python's standard library, and for the peer torch, transformers, datasets and tokenizers (PYTHON=...).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "no $python: set PYTHON to a Python of 3.10 or newer" >&2; exit 2; }
exec "$python" -B "$here/peer/startup.py" "$@"
