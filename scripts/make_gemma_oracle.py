#!/usr/bin/env python3
"""What transformers says about Gemma 3 270M, for `tests/gemma.rs`: written beside the model.

    python scripts/make_gemma_oracle.py MODEL_DIR PAIRS.jsonl[.gz] [--out FILE] [--threads N]

MODEL_DIR is a Hugging Face directory of the base model; PAIRS has rows in the format of Anthropic's
HH: "chosen" and "rejected" transcripts. The file (by default MODEL_DIR/oracle.json) holds text of
both, whose terms of use apply: keep it out of the repository. Everything but the softmax over the
vocabulary is computed in float32, with eager attention: log-probs of 200 answers, greedy continuations of ten prompts, and the gradient of one
DPO step on 8 pairs against given reference log-probs.
"""

import argparse
import gzip
import json
import math
import time
from pathlib import Path

import tokenizers
import torch
import transformers
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

PAIRS, PROMPTS, TRAINED, NEW_TOKENS, LONGEST, BETA = 100, 10, 8, 64, 192, 0.1
TURN = "\n\nAssistant:"


def arguments():
    parser = argparse.ArgumentParser(description="Makes the oracle of Gemma 3 270M.")
    parser.add_argument("model", metavar="MODEL_DIR", type=Path)
    parser.add_argument("pairs", metavar="PAIRS", type=Path)
    parser.add_argument("--out", metavar="FILE", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def rows(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open()
    with opened as lines:
        for line in lines:
            row = json.loads(line)
            end = row["chosen"].rfind(TURN) + len(TURN)
            prompt = row["chosen"][:end]
            if row["rejected"].rfind(TURN) + len(TURN) == end and row["rejected"].startswith(prompt):
                yield {"prompt": prompt, "chosen": row["chosen"][end:],
                       "rejected": row["rejected"][end:]}


def encoded(tokenizer, row, bos, eos):
    """The prompt alone, then what follows it in prompt + response."""
    prompt = [bos] + tokenizer.encode(row["prompt"], add_special_tokens=False)
    out = {"prompt_ids": prompt}
    for side in ("chosen", "rejected"):
        both = [bos] + tokenizer.encode(row["prompt"] + row[side], add_special_tokens=False)
        if both[: len(prompt)] != prompt or len(both) >= LONGEST:
            return None
        out[f"{side}_ids"] = both[len(prompt) :] + [eos]
    return {**row, **out}


def total(model, pair, side):
    response = pair[f"{side}_ids"]
    ids = torch.tensor([pair["prompt_ids"] + response])
    logits = model(ids, use_cache=False, logits_to_keep=len(response) + 1).logits[0, :-1]
    # In float32 the sum over 262 thousand logits alone is off by 1e-5 of the log-prob.
    picked = logits.double().log_softmax(-1).gather(1, torch.tensor(response)[:, None])
    return picked.sum()


def step(model, pairs):
    """Loss and gradient norms of DPO, one answer at a time, so that memory holds one graph only."""
    margins, references = [], []
    for i, pair in enumerate(pairs):
        both = [pair[side]["log_prob"] for side in ("chosen", "rejected")]
        # A reference that is no model: the policy's own numbers, moved.
        reference = [both[0] + 3 * math.sin(i + 1), both[1] + 3 * math.cos(i + 1)]
        references.append(reference)
        margins.append(both[0] - reference[0] - both[1] + reference[1])
    model.zero_grad()
    losses = []
    for pair, margin in zip(pairs, margins):
        h = torch.tensor(BETA * margin, dtype=torch.float64)
        losses.append(-logsigmoid(h).item())
        slope = BETA * torch.sigmoid(-h).item() / len(pairs)
        (-slope * total(model, pair, "chosen")).backward()
        (slope * total(model, pair, "rejected")).backward()
    norms = {n: p.grad.double().norm().item() for n, p in model.named_parameters()}
    return {
        "beta": BETA, "pairs": len(pairs), "reference_log_probs": references,
        "loss": sum(losses) / len(losses), "norms": norms,
        "norm": math.sqrt(sum(norm**2 for norm in norms.values())),
    }


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    start = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    found = []
    for row in rows(args.pairs):
        pair = encoded(tokenizer, row, bos, eos)
        if pair:
            found.append(pair)
        if len(found) == PAIRS + PROMPTS:
            break
    pairs, prompts = found[:PAIRS], found[PAIRS:]
    with torch.no_grad():
        for i, pair in enumerate(pairs):
            for side in ("chosen", "rejected"):
                pair[side] = {"text": pair[side], "log_prob": total(model, pair, side).item()}
            print(f"{i + 1} pairs, {time.monotonic() - start:.0f} s", flush=True)
        drawn = []
        for pair in prompts:
            prompt = torch.tensor([pair["prompt_ids"]])
            ids = model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False,
                                 output_logits=True, return_dict_in_generate=True)
            new = ids.sequences[0, len(pair["prompt_ids"]) :].tolist()
            top = torch.stack(ids.logits)[:, 0].topk(2).values
            drawn.append({
                "prompt": pair["prompt"], "prompt_ids": pair["prompt_ids"], "new_ids": new,
                "text": tokenizer.decode(new, skip_special_tokens=True),
                "closest": (top[:, 0] - top[:, 1]).min().item(),
            })
            print(f"{len(drawn)} continuations, {time.monotonic() - start:.0f} s", flush=True)
    out = {
        "about": "Gemma 3 270M by transformers, float32, eager attention",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                     "tokenizers": tokenizers.__version__},
        "pairs": pairs, "greedy": drawn, "dpo": step(model, pairs[:TRAINED]),
        "seconds": round(time.monotonic() - start),
    }
    path = args.out or args.model / "oracle.json"
    path.write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: loss {out['dpo']['loss']:.6f}, gradient norm {out['dpo']['norm']:.6f}")


if __name__ == "__main__":
    main()
