#!/usr/bin/env python3
"""Makes tests/fixtures/rope.json: what transformers makes of the rotary embedding of a config.json.

Of each config the oracle has, for every layer type and length of a sequence, the inverse frequencies and
the factor of cosines and sines, in float32 as transformers computes them; or null where it refuses the
config.

Python is needed only to remake it: `pip install torch transformers`, then
`python scripts/make_rope_oracle.py`.
"""

import json
import math
from pathlib import Path

import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.olmo3.modeling_olmo3 import Olmo3RotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "rope.json"
EMBEDDINGS = {
    "llama": LlamaRotaryEmbedding,
    "gpt_neox": GPTNeoXRotaryEmbedding,
    "phi3": Phi3RotaryEmbedding,
    "gemma3_text": Gemma3RotaryEmbedding,
    "olmo3": Olmo3RotaryEmbedding,
}
LENGTHS = [1, 24, 64, 65, 100, 256, 257, 1000, 4097]
ORIGINAL = "original_max_position_embeddings"

YARN = {"rope_type": "yarn", "factor": 4.0, ORIGINAL: 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, ORIGINAL: 64}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}


def longrope(half, **more):
    short = [1.0 + i / 16 for i in range(half)]
    long = [round(1.5 + i * i / 7, 3) for i in range(half)]
    return {"rope_type": "longrope", "short_factor": short, "long_factor": long, ORIGINAL: 64, **more}


def without(section, *keys):
    return {key: value for key, value in section.items() if key not in keys}


def flat():
    """(family, keys of the config) of families that rotate all layers alike."""
    sections = [
        {"rope_type": "default"}, {"rope_type": "linear", "factor": 4.0}, LLAMA3, DYNAMIC,
        {**DYNAMIC, "factor": 2.3, "rope_theta": 500.0}, {**DYNAMIC, "factor": 0.5}, {**DYNAMIC, ORIGINAL: 16},
        {**DYNAMIC, "factor": None}, without(DYNAMIC, "factor"), {**DYNAMIC, "factor": 1},
        YARN, without(YARN, "rope_type") | {"type": "yarn"}, without(YARN, ORIGINAL), without(YARN, "factor"),
        {**YARN, "factor": None}, {**YARN, "factor": 0.5}, {**YARN, "factor": 1.0}, {**YARN, "factor": 40},
        {**YARN, "rope_theta": 150000.0}, {**YARN, "truncate": False}, {**YARN, "truncate": True},
        {**YARN, "attention_factor": 1.3}, {**YARN, "attention_factor": None}, {**YARN, "attention_factor": 1},
        {**YARN, "mscale": 0.707}, {**YARN, "mscale": 0.707, "mscale_all_dim": 1.0},
        {**YARN, "mscale": 1.0, "mscale_all_dim": 0.707}, {**YARN, "mscale": 1.0, "mscale_all_dim": 0},
        {**YARN, "mscale": None, "mscale_all_dim": 1.0}, {**YARN, "mscale": 2, "attention_factor": 0.5},
        {**YARN, "beta_fast": 8.0}, {**YARN, "beta_fast": 4, "beta_slow": 2}, {**YARN, "beta_slow": None},
        {**YARN, "beta_fast": 0, "beta_slow": 0}, {**YARN, "beta_fast": 1.0, "beta_slow": 8.0},
        {**YARN, "beta_fast": 2.0, "beta_slow": 2.0}, {**YARN, "beta_fast": -1.0},
        {**YARN, "beta_fast": 4.0, "beta_slow": 4.0, "truncate": False}, {**YARN, ORIGINAL: 4096},
        {**YARN, ORIGINAL: None}, {**YARN, "factor": 0}, {**YARN, "factor": "4"},
    ]
    base = {"max_position_embeddings": 256}
    for section in sections:
        yield "llama", 16, {**base, "rope_theta": 10000.0, "rope_parameters": section}
    for head_dim in [4, 6, 64, 128]:
        half = head_dim // 2
        for section in [YARN, DYNAMIC, longrope(half), {**YARN, "truncate": False, "beta_fast": 16.0}]:
            yield "llama", head_dim, {**base, "rope_theta": 500000.0, "rope_scaling": section}
    yield "llama", 2, {**base, "rope_parameters": DYNAMIC}
    yield "llama", 16, {**base, "max_position_embeddings": 64, "rope_parameters": DYNAMIC}
    for more in [
        {}, {"factor": 2.0}, {"factor": None}, {"factor": 1.0}, {"attention_factor": 1.25}, {ORIGINAL: 256},
        {"attention_factor": None}, {"short_factor": [1.0] * 7}, {"long_factor": [2.0] * 9}, {"long_factor": None},
        {"short_factor": [1] * 8, "long_factor": [2] * 8}, {ORIGINAL: 64.5}, {"type": "default"},
    ]:
        yield "llama", 16, {**base, "rope_scaling": longrope(8, **more)}
    yield "llama", 16, {**base, "rope_scaling": without(longrope(8), ORIGINAL)}
    yield "llama", 16, {**base, "rope_scaling": without(longrope(8), "short_factor")}
    yield "llama", 16, {**base, "rope_scaling": longrope(8), ORIGINAL: 100}
    yield "llama", 16, {**base, "rope_scaling": YARN, ORIGINAL: 128}
    # A rope_scaling that says anything takes the place of the other section.
    yield "llama", 16, {**base, "rope_scaling": YARN, "rope_parameters": {**DYNAMIC, "rope_theta": 500.0}}
    yield "llama", 16, {**base, "rope_scaling": {}, "rope_parameters": {**DYNAMIC, "rope_theta": 500.0}}

    for section in [YARN, DYNAMIC, longrope(4), LLAMA3]:
        yield "gpt_neox", 16, {**base, "rotary_pct": 0.5, "rope_scaling": section}
    yield "gpt_neox", 16, {**base, "rotary_emb_base": 500.0, "rope_parameters": {**YARN, "partial_rotary_factor": 0.75}}

    phi = {**base, ORIGINAL: 64}
    old = without(longrope(8), ORIGINAL, "rope_type")
    for more in [
        {}, {"rope_scaling": {**old, "type": "longrope"}}, {"rope_scaling": {**old, "type": "yarn"}},
        {"rope_scaling": {**old, "type": "su"}}, {"rope_scaling": {**old, "type": "su", ORIGINAL: 32}},
        {"rope_scaling": longrope(8, **{ORIGINAL: 32})}, {"rope_scaling": longrope(8, factor=2.0)},
        {"rope_scaling": longrope(8, attention_factor=1.1)}, {"rope_scaling": YARN}, {"rope_scaling": DYNAMIC},
        {"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_scaling": {"type": "default"}},
        {"rope_scaling": longrope(6), "partial_rotary_factor": 0.75},
        {"rope_parameters": longrope(6, partial_rotary_factor=0.75, rope_theta=250000.0)},
        {"rope_scaling": longrope(8), "partial_rotary_factor": 0.75}, {"partial_rotary_factor": 0.5},
        {"rope_scaling": longrope(8), "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ]:
        yield "phi3", 16, {**phi, **more}
    yield "phi3", 16, {**base, "rope_scaling": longrope(8)}
    yield "phi3", 16, {**base, "rope_scaling": {**old, "type": "longrope"}, "max_position_embeddings": 8192}


def by_layer_type():
    """(family, keys of the config) of families whose full and sliding layers differ."""
    full, sliding = "full_attention", "sliding_attention"
    linear = {"rope_type": "linear", "factor": 8.0}
    default = {"rope_type": "default"}
    for family, key in [("gemma3_text", "rope_local_base_freq"), ("olmo3", "rope_theta")]:
        base = {"max_position_embeddings": 256, "layer_types": [sliding, full]}
        for more in [
            {}, {"rope_theta": 500000.0}, {key: 500000.0}, {key: 250.0}, {"rope_scaling": linear}, {"rope_scaling": YARN},
            {"rope_scaling": None}, {"rope_scaling": {}}, {"rope_scaling": without(YARN, ORIGINAL)},
            {"rope_scaling": YARN, ORIGINAL: 128}, {"rope_scaling": {"type": "linear", "factor": 8.0}},
            {"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 8.0}},
            {"rope_scaling": longrope(8)}, {"rope_scaling": DYNAMIC}, {"rope_scaling": LLAMA3},
            {"rope_parameters": {}}, {"rope_parameters": None}, {"rope_parameters": default},
            {"rope_parameters": {**default, "rope_theta": 500.0}},
            {"rope_parameters": {full: {**linear, "rope_theta": 500.0}, sliding: {**default, "rope_theta": 100.0}}},
            {"rope_parameters": {full: {**YARN, "rope_theta": 500.0}, sliding: {**default, "rope_theta": 100.0}}},
            {"rope_parameters": {full: {**YARN, "truncate": False}, sliding: default}},
            {"rope_parameters": {full: YARN, sliding: YARN}}, {"rope_parameters": {full: YARN}},
            {"rope_parameters": {full: None, sliding: {**default, "rope_theta": 100.0}}, "rope_theta": 500.0},
            {"rope_parameters": {full: default, sliding: default}, "rope_scaling": YARN},
            {"rope_parameters": {full: linear, sliding: default}, "rope_scaling": {"factor": 2.0}},
            {"rope_parameters": {sliding: default}, "rope_scaling": linear},
            {"rope_parameters": {full: DYNAMIC, sliding: longrope(8, rope_theta=100.0)}},
        ]:
            yield family, 16, {**base, **more}


def values(family, config):
    """By layer type, the frequencies and the factor at each length; of the last type "" where there is one."""
    # Equal sections are separate ones.
    config = CONFIG_MAPPING[family].from_dict(json.loads(json.dumps(config)))
    types = ["full_attention", "sliding_attention"] if family in ("gemma3_text", "olmo3") else [None]
    result = {}
    for layer_type in types:
        rows = []
        for length in LENGTHS:
            # A fresh one each: it keeps what a longer sequence made of it.
            embedding = EMBEDDINGS[family](config)
            more = {} if layer_type is None else {"layer_type": layer_type}
            positions = torch.arange(length)[None]
            cos, _ = embedding(torch.zeros(1), positions, **more)
            prefix = "" if layer_type is None else f"{layer_type}_"
            frequencies = getattr(embedding, f"{prefix}inv_freq")
            factor = float(getattr(embedding, f"{prefix}attention_scaling"))
            if not all(map(math.isfinite, frequencies.tolist())):
                raise ValueError("not finite")
            # Position 0 has cosine 1.
            assert cos[0, 0, 0] == torch.tensor(factor, dtype=torch.float32)
            rows.append({"length": length, "factor": factor, "frequencies": frequencies.tolist()})
        # What does not depend on the length is there once.
        if all(row["frequencies"] == rows[0]["frequencies"] for row in rows):
            rows = rows[:1]
        result[layer_type or "all"] = rows
    return result


def main():
    transformers.logging.set_verbosity_error()
    cases = []
    for family, head_dim, config in [*flat(), *by_layer_type()]:
        heads = 2
        whole = {
            "model_type": family, "vocab_size": 32, "hidden_size": heads * head_dim, "intermediate_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": heads, "num_key_value_heads": heads, "pad_token_id": None,
            **config,
        }
        if family == "gemma3_text":
            whole["head_dim"] = head_dim
        try:
            made = values(family, whole)
        except Exception as error:
            print(f"refused: {family} {config}: {type(error).__name__} {str(error).splitlines()[-1][:100]}")
            made = None
        cases.append({"family": family, "head_dim": head_dim, "config": config, "values": made})
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    OUT.write_text(f'{{"versions":{json.dumps(versions)},"cases":[\n{lines}\n]}}\n')
    print(f"{len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
