#!/usr/bin/env bash
# Draws responses with expo and transformers in turn, from the same random weights and prompts, and
# prints one table; --help says how. Needs Python's standard library, and for the peer torch
# and transformers (PYTHON=...).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "no $python: set PYTHON to a Python of 3.10 or newer" >&2; exit 2; }
exec "$python" -B "$here/peer/generate.py" "$@"
