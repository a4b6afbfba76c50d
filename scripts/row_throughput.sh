#!/usr/bin/env bash
# How fast rows are read in each format: `expo data show` beside Python's `datasets` and `tokenizers`
# doing the same tokens.
#
#   scripts/row_throughput.sh [EXPO] [ROWS]
#
# EXPO is the program (default: target/release/expo), ROWS how many pairs are made (default: 100000).
# PYTHON (default: python3) is asked for pyarrow, datasets and tokenizers: without pyarrow only the text
# formats are made, without the others there is no peer. Nothing is written into the repository. The best of
# three runs counts, each less the time of a run over a hundredth of the rows, so that starting is not counted.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."
expo="${1:-target/release/expo}"
rows="${2:-100000}"
python="${PYTHON:-python3}"
[ -x "$expo" ] || { echo "$expo is not there: cargo build --release" >&2; exit 2; }
command -v "$python" >/dev/null || { echo "no $python to make rows with" >&2; exit 2; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME="$work/home" TMPDIR="$work"

cat >"$work/make.py" <<'PY'
import csv, gzip, json, sys
folder, rows = sys.argv[1], int(sys.argv[2])
words = "the duck asked whether a river is kind and someone answered it slowly".split()
def text(row, most):
    return " ".join(words[(row * 7 + at * at) % len(words)] for at in range(20 + row % most))
def pairs(rows):
    return [{"prompt": f"{row}: {text(row, 60)}?", "chosen": " " + text(row + 1, 200),
             "rejected": " " + text(row + 2, 200)} for row in range(rows)]
for name, count in (("small", rows // 100), ("whole", rows)):
    table = pairs(count)
    lines = "".join(json.dumps(row) + "\n" for row in table)
    base = f"{folder}/{name}"
    open(base + ".jsonl", "w").write(lines)
    with gzip.open(base + ".jsonl.gz", "wt") as file:
        file.write(lines)
    json.dump(table, open(base + ".json", "w"))
    with open(base + ".csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    try:
        import pyarrow, pyarrow.parquet
    except ImportError:
        continue
    columns = pyarrow.Table.from_pylist(table)
    pyarrow.parquet.write_table(columns, base + ".parquet")
    with pyarrow.OSFile(base + ".arrow", "wb") as file, pyarrow.ipc.new_stream(file, columns.schema) as stream:
        stream.write_table(columns, max_chunksize=1000)
    with pyarrow.CompressedOutputStream(base + ".jsonl.zst", "zstd") as file:
        file.write(lines.encode())
PY
cat >"$work/peer.py" <<'PY'
import sys
from datasets import Dataset, load_dataset
from tokenizers import Tokenizer
path, tokenizer = sys.argv[1], Tokenizer.from_file(sys.argv[2])
kind = path.removesuffix(".gz").removesuffix(".zst").rsplit(".", 1)[1]
if kind == "arrow":
    rows = Dataset.from_file(path)
else:
    rows = load_dataset({"jsonl": "json"}.get(kind, kind), data_files=path, split="train")
def tokens(batch):
    return {"ids": sum((len(one.ids) for column in batch.values() for one in tokenizer.encode_batch(column)), 0)}
count = 0
for start in range(0, len(rows), 1000):
    count += tokens(rows[start:start + 1000])["ids"]
print(count)
PY
"$python" "$work/make.py" "$work" "$rows"
tokenizer="tests/fixtures/neox"
peer=yes
"$python" -c "import datasets, tokenizers" 2>/dev/null || { peer=no; echo "no peer: $python has no datasets or no tokenizers"; }

config() {
    printf '[model]\nmodel_name_or_path = "%s"\n[data]\nformat = "pairs"\ntrain = "%s"\nmax_length = 256\nmax_prompt_length = 128\n[loss.simpo]\n[run]\noutput_dir = "%s"\n' \
        "$PWD/$tokenizer" "$1" "$work/out" >"$work/run.toml"
    "$expo" data show --config "$work/run.toml"
}
# Python keeps what it converted, so each run has a cache of its own.
peer() { rm -rf "$work/home"; "$python" "$work/peer.py" "$1" "$tokenizer/tokenizer.json"; }
seconds() {
    local best=""
    for _ in 1 2 3; do
        local start end
        start="$(date +%s.%N)"
        "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2; exit 1; }
        end="$(date +%s.%N)"
        best="$(echo "$start $end ${best:-1e9}" | awk '{t = $2 - $1; print t < $3 ? t : $3}')"
    done
    echo "$best"
}
rate() {
    local small whole
    small="$(seconds "$1" "$work/small.$2")"
    whole="$(seconds "$1" "$work/whole.$2")"
    awk -v rows="$rows" -v small="$small" -v whole="$whole" 'BEGIN {printf "%.0f", 0.99 * rows / (whole - small)}'
}

for format in jsonl jsonl.gz jsonl.zst json csv parquet arrow; do
    [ -e "$work/whole.$format" ] || { echo "throughput format=$format skipped=\"no pyarrow\""; continue; }
    own="$(rate config "$format")"
    if [ "$peer" = yes ]; then
        other="$(rate peer "$format")"
        echo "throughput format=$format rows=$rows expo_rows_per_s=$own peer_rows_per_s=$other ratio=$(echo "$own $other" | awk '{printf "%.2f", $1 / $2}')"
    else
        echo "throughput format=$format rows=$rows expo_rows_per_s=$own"
    fi
done
