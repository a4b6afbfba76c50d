#!/usr/bin/env bash
# Remakes the model and the rows of the quickstart, configs/quickstart, from its grammar. Needs Rust
# alone. Everything is seeded; what lies between the steps is kept in runs/make_quickstart.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --release --locked --bin expo --example make_quickstart
expo=target/release/expo
make=target/release/examples/make_quickstart
home=configs/quickstart
work=runs/make_quickstart
rm -rf "$work"

step() { printf '\n== %s\n' "$*"; }

step "prompts and corpus"
"$make" prompts --train 3000 --held-out 400 --seed 0 \
    --out "$work/prompts.jsonl" --held-out-out "$work/held_out.jsonl"
"$make" corpus --rows 40000 --seed 0 --out "$work/corpus.jsonl" \
    --without "$work/prompts.jsonl" --without "$work/held_out.jsonl"

step "tokenizer"
"$make" tokenizer --corpus "$work/corpus.jsonl" --vocab 640 --out "$work/tokenizer"

step "model"
"$expo" init --config-json "$home/model-shape.json" --tokenizer "$work/tokenizer" \
    --out "$work/fresh" --seed 0
"$expo" sft --config "$home/sft.toml"
rm -rf "$home/model"
mkdir "$home/model"
for file in config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json
do
    cp "$work/sft/$file" "$home/model/"
done

# The model is sampled as it lies in the repository, rounded to 16 bits, for it is the reference.
step "samples and pairs"
for rows in prompts held_out; do
    "$expo" sample --model "$home/model" --prompts "$work/$rows.jsonl" \
        --out "$work/$rows.samples.jsonl" --num-samples 2 --max-new-tokens 96 --seed 0
done
"$make" pairs --samples "$work/prompts.samples.jsonl" --seed 0 --out "$home/train.jsonl.gz"
"$make" pairs --samples "$work/held_out.samples.jsonl" --seed 1 --out "$home/eval.jsonl.gz"
head -n 64 "$work/held_out.jsonl" > "$home/prompts.jsonl"

step "made"
ls -l "$home" "$home/model"
