#!/usr/bin/env python3
"""Quantizes two fixtures with bitsandbytes, for `tests/quantized.rs`.

    python scripts/make_nf4_fixtures.py

Needs torch, transformers and bitsandbytes. Writes tests/fixtures/nf4/NAME, a directory as transformers saves
it: llama with double quantization, neox without. `nf4.json` beside its weights has log-probs of the pairs of
tests/fixtures/oracle/NAME.json by the numbers that bitsandbytes dequantizes the weights to, in float64.
"""

import copy
import json
import shutil
from pathlib import Path

import bitsandbytes
import torch
import transformers
from bitsandbytes.functional import dequantize_4bit
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures"


def log_prob(model, prompt, response):
    logits = model(torch.tensor([prompt + response])).logits[0].double()
    steps = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
    return steps[torch.arange(len(response)), torch.tensor(response)].sum().item()


def dequantized(weight):
    """As rows of 64, a block each: on the CPU bitsandbytes 0.50.2 takes rows of 32 or 48 for other blocks."""
    state = copy.copy(weight.quant_state)
    state.shape = torch.Size([weight.quant_state.shape.numel() // 64, 64])
    return dequantize_4bit(weight.data, state).reshape(weight.quant_state.shape)


@torch.no_grad()
def make(name, double):
    source, out = FIXTURES / name, FIXTURES / "nf4" / name
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double,
                                bnb_4bit_compute_dtype=torch.float32)
    quantized = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, dtype=torch.float32,
                                                     device_map="cpu")
    shutil.rmtree(out, ignore_errors=True)
    quantized.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    plain = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    for module_name, module in quantized.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            plain.get_submodule(module_name).weight.copy_(dequantized(module.weight))
    plain = plain.double()
    pairs = json.loads((FIXTURES / "oracle" / f"{name}.json").read_text())["pairs"]
    log_probs = [
        [log_prob(plain, pair["prompt_ids"], pair[f"{side}_ids"]) for side in ("chosen", "rejected")]
        for pair in pairs
    ]
    versions = {"bitsandbytes": bitsandbytes.__version__, "torch": torch.__version__,
                "transformers": transformers.__version__}
    (out / "nf4.json").write_text(json.dumps({"versions": versions, "log_probs": log_probs}, indent=1) + "\n")


if __name__ == "__main__":
    make("llama", True)
    make("neox", False)
