#!/usr/bin/env python3
"""Makes tests/fixtures/configs.json and configs/: what transformers makes of changed config.json files.

Every key of a fixture's config.json, and the keys of its family, is changed to other values, one at a
time. Of each change the oracle has the log-prob that transformers computes, or null where it
refuses the config, the weights, or would leave a weight as it was drawn.

Python is needed only to remake it: `pip install torch transformers safetensors`, then
`python scripts/make_config_oracle.py [--models NAME ...]`. The families that were added later have a
file each, configs/NAME.json; their own keys are in config_oracle_families.py.
"""

import argparse
import copy
import json
import logging
import resource
import shutil
import tempfile
import warnings
from pathlib import Path

import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from config_oracle_families import FAMILY_KEYS, FAMILY_TOGETHER, ONLY_OWN, REMOVED, WITHIN

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
MODELS = ["neox", "llama", "mistral", "qwen2", "qwen2-window", "qwen3-window"]
# Models that their config ties, and the names of their embedding and head.
TIED = {
    "neox-sequential": ["gpt_neox.embed_in.weight", "embed_out.weight"],
    "llama3": ["model.embed_tokens.weight", "lm_head.weight"],
    "qwen2": ["model.embed_tokens.weight", "lm_head.weight"],
    "qwen3": ["model.embed_tokens.weight", "lm_head.weight"],
}
EXPERTS = ["mixtral", "qwen3_moe"]
PROMPT, RESPONSE = [5, 17, 40, 9], [3, 88, 120, 7, 7, 61, 250, 33, 12, 199, 90, 4, 150, 22, 271, 64, 18, 101]

LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
LONGROPE = {
    "rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6,
    "original_max_position_embeddings": 64,
}
ROPES = [
    {}, [], "linear", 4, True,
    {"rope_type": "default"}, {"type": "default", "rope_theta": 500.0},
    {"rope_type": "default", "rope_theta": 500.0}, {"rope_theta": 500},
    {"rope_type": "default", "rope_theta": None}, {"rope_type": "default", "rope_theta": "500"},
    {"rope_type": "default", "rope_theta": 0.0}, {"rope_type": "default", "rope_theta": -1.0},
    {"rope_type": None, "rope_theta": 500.0}, {"rope_type": "none", "rope_theta": 500.0},
    {"rope_type": "default", "factor": 4.0, "rope_theta": 500.0},
    {"rope_type": "linear", "type": "default", "factor": 4.0, "rope_theta": 500.0},
    {"rope_type": "default", "type": "linear", "factor": 4.0, "rope_theta": 500.0},
    {"type": "linear", "factor": 4.0}, LINEAR, {**LINEAR, "rope_theta": 500.0},
    {**LINEAR, "factor": 1}, {**LINEAR, "factor": 0.5}, {**LINEAR, "factor": 0}, {**LINEAR, "factor": None},
    {**LINEAR, "factor": "4"}, {"rope_type": "linear"}, {**LINEAR, "attention_factor": 2.0},
    {**LINEAR, "rope_theta": 500.0, "partial_rotary_factor": 0.5},
    {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
    {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0},
    {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": None},
    {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 2.0},
    {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.0},
    LLAMA3, {**LLAMA3, "rope_theta": 500.0}, {k: v for k, v in LLAMA3.items() if k[0] != "o"},
    {k: v for k, v in LLAMA3.items() if k != "low_freq_factor"},
    {**LLAMA3, "low_freq_factor": 4.0, "rope_theta": 500.0}, {**LLAMA3, "low_freq_factor": 8.0},
    {**LLAMA3, "original_max_position_embeddings": 512}, {**LLAMA3, "factor": 0.5},
    {**LLAMA3, "original_max_position_embeddings": 32.5},
    {**LLAMA3, "original_max_position_embeddings": None},
    YARN, DYNAMIC, {**LONGROPE, "rope_theta": 500.0}, {"type": "mrope", "mrope_section": [2, 2, 2]},
    {"rope_type": "default", "mrope_section": [2, 2, 2]}, {"rope_type": "proportional", "rope_theta": 500.0},
    {"full_attention": {"rope_type": "default", "rope_theta": 500.0}},
    {"full_attention": {"rope_type": "default", "rope_theta": 500.0},
     "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}},
]
# Changes that other values of the same kind do not show, and keys that fixtures do not have.
KEYS = {
    "architectures": [REMOVED, None, [], ["LlamaModel"], ["LlamaForSequenceClassification"], "LlamaForCausalLM"],
    "attention_bias": [REMOVED, None, True, False, 0, 1, "true"],
    "attention_dropout": [REMOVED, None, 0.1, 1, "x"],
    "attention_multiplier": [None, 1.0, 0.5],
    "attn_logit_softcapping": [None, 30.0],
    "attn_implementation": ["eager", "sdpa"],
    "auto_map": [None, {}, {"AutoModelForCausalLM": "modeling_other.OtherForCausalLM"}],
    "chunk_size_feed_forward": [0, 4],
    "clip_qkv": [None, 0.01],
    "cross_attention_hidden_size": [None, 8],
    "add_cross_attention": [False, True],
    "dtype": [REMOVED, None, "bfloat16", "float16", "float64", "int8", "nonsense", 3],
    "torch_dtype": [None, "float32", "bfloat16"],
    "embedding_multiplier": [None, 1.0, 2.0],
    "eos_token_id": [REMOVED, None, 7, [3, 4], 100000, "x"],
    "bos_token_id": [REMOVED, None, 7, 100000],
    "final_logit_softcapping": [None, 1.0],
    "gradient_checkpointing": [True],
    "head_dim": [REMOVED, None, 0, 6, 8, 12, 24, 7, "12", 12.0, -12],
    "hidden_act": [REMOVED, None, "gelu", "silu", "swish", "gelu_new", "gelu_pytorch_tanh", "relu", "", 3],
    "hidden_activation": ["gelu_pytorch_tanh"],
    "hidden_dropout": [REMOVED, None, 0.1],
    "hidden_size": [REMOVED, None, 0, 16, 24, 32, 48, 25, "24", 24.0, 32.0, -24],
    "id2label": [None, {"0": "A", "1": "B", "2": "C"}],
    "initializer_range": [REMOVED, None, 0.5, 0.0, "x"],
    "intermediate_size": [REMOVED, None, 0, 40, 48, 80, "40", 40.0],
    "is_causal": [None, True, False],
    "is_decoder": [REMOVED, True, False],
    "is_encoder_decoder": [False, True],
    "kv_sharing_modes": [None],
    "layer_norm_eps": [REMOVED, None, 1e-3, 0, 0.0, 1, -1.0, "1e-5"],
    "layer_types": [
        REMOVED, None, [], ["full_attention"], ["full_attention"] * 2, ["full_attention"] * 3,
        ["sliding_attention"] * 2, ["full_attention", "sliding_attention"], ["chunked_attention"] * 2,
        ["linear_attention", "full_attention"], ["attention", "attention"], "full_attention",
    ],
    "logit_scale": [None, 1.0, 0.5],
    "logits_scaling": [None, 1.0, 8.0],
    "max_position_embeddings": [REMOVED, None, 64, 512, 0, "256", 256.0],
    "max_window_layers": [REMOVED, None, 0, 1, 2, 28, -1, "1"],
    "mlp_bias": [REMOVED, None, True, False, 0, "true"],
    "model_type": [REMOVED, None, "llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gemma", "x", 3],
    "no_rope_layers": [None, [1, 0]],
    "num_attention_heads": [REMOVED, None, 0, 1, 2, 3, 4, 8, "4", 4.0],
    "num_experts": [None, 0, 4],
    "num_hidden_layers": [REMOVED, None, 0, 1, 2, 3, "2", 2.0],
    "num_key_value_heads": [REMOVED, None, 0, 1, 2, 4, 3, 8, "2", 2.0],
    "original_max_position_embeddings": [None, 16, 64],
    "output_attentions": [False, True],
    "output_hidden_states": [False, True],
    "pad_token_id": [REMOVED, None, 7, 17, -1, 100000, "x"],
    "partial_rotary_factor": [None, 1.0, 0.5, 0.25],
    "per_layer_config": [None, {}, {"0": {"rms_norm_eps": 0.1}}, {"1": {"layer_norm_eps": 0.1}}],
    "pretraining_tp": [REMOVED, None, 2, 0],
    "pruned_heads": [{}, {"0": [1]}],
    "qk_layernorm": [False, True],
    "query_pre_attn_scalar": [None, 24],
    "quantization_config": [None, {"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": "gptq", "bits": 4}],
    "residual_multiplier": [None, 1.0, 0.5],
    "return_dict": [True, False],
    "rms_norm_eps": [REMOVED, None, 1e-3, 0, 0.0, 1, -1.0, "1e-6"],
    "rope_interleaved": [False, True],
    "rope_parameters": [REMOVED, None, *ROPES],
    "rope_scaling": [None, *ROPES],
    "rope_theta": [None, 10000, 500.0, 0, -1.0, "500"],
    "rotary_emb_base": [None, 10000, 500.0, 0, "500"],
    "rotary_pct": [None, 0.25, 0.5, 1.0, 0, 2.0, "0.5"],
    "scale_attn_weights": [True, False],
    "sliding_window": [REMOVED, None, 0, 1, 4, 8, 9, 4096, -1, "8", 8.0],
    "sub_configs": [{}],
    "text_config": [None, {"hidden_size": 8}],
    "tie_word_embeddings": [REMOVED, None, True, False, 0, 1, "true"],
    "transformers_version": [REMOVED, "4.30.0", "9.0.0"],
    "transformers_weights": [None, "other.safetensors"],
    "unheard_of": [1],
    "use_bidirectional_attention": [None, False, True],
    "use_cache": [REMOVED, None, False, "x"],
    "use_mrope": [False],
    "use_parallel_residual": [REMOVED, None, True, False, 0, 1, "true"],
    "use_qk_norm": [False, True],
    "use_sliding_window": [REMOVED, None, True, False, 0, 1, "true"],
    "vocab_size": [REMOVED, None, 0, 304, 305, 320, 340, "304", 304.0, 340.0],
}
# Several keys at once: {} is the model as it is.
TOGETHER = [
    {},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_theta": 100.0},
    {"rope_parameters": {"rope_type": "default"}, "rope_theta": 100.0},
    {"rope_parameters": REMOVED, "rope_theta": 100.0},
    {"rope_parameters": REMOVED, "rotary_emb_base": 100.0, "rotary_pct": 0.5},
    {"rope_parameters": REMOVED, "rope_theta": 100.0, "rope_scaling": LINEAR},
    {"rope_parameters": REMOVED, "rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_parameters": REMOVED, "rope_theta": 100.0, "rope_scaling": LLAMA3},
    {"rope_parameters": REMOVED, "rope_theta": 100.0, "rope_scaling": {}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_scaling": LINEAR},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_scaling": {**LINEAR, "rope_theta": 90.0}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_scaling": LINEAR, "rope_theta": 70.0},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_scaling": LINEAR, "rotary_emb_base": 70.0},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_scaling": None},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_scaling": {}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_scaling": YARN},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_scaling": LLAMA3},
    {"rope_parameters": LLAMA3, "original_max_position_embeddings": 64, "rope_theta": 500.0},
    {"rope_parameters": LLAMA3, "rope_theta": 500.0, "max_position_embeddings": 64},
    {"rope_parameters": {k: v for k, v in LLAMA3.items() if k[0] != "o"}, "rope_theta": 500.0, "max_position_embeddings": 64},
    {"rope_parameters": {**LINEAR, "rope_theta": 500.0}, "partial_rotary_factor": 0.5},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rotary_pct": 0.5, "partial_rotary_factor": 0.5},
    {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1, "layer_types": REMOVED},
    {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0, "layer_types": REMOVED},
    {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    {"use_sliding_window": True, "sliding_window": None, "layer_types": ["sliding_attention", "full_attention"]},
    {"use_sliding_window": False, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    {"sliding_window": 6, "layer_types": ["full_attention", "full_attention"]},
    {"hidden_size": 24, "num_attention_heads": 5, "head_dim": 12},
    {"torch_dtype": "bfloat16", "dtype": "float32"},
    {"torch_dtype": "float32", "dtype": REMOVED},
]


def log_prob(folder):
    """The sum of the response's log-probs in the model of a folder, or None where it is no model."""
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        if info["missing_keys"] or info["mismatched_keys"]:
            return None
        if model.config.model_type in EXPERTS:
            # The grouped matmul takes no sizes as small as these.
            model.set_experts_implementation("eager")
        ids = torch.tensor([PROMPT + RESPONSE])
        with torch.no_grad():
            logits = model.eval()(ids, return_dict=True).logits[0].double()
        rows = logits[len(PROMPT) - 1 : -1].log_softmax(-1)
        total = rows.gather(1, torch.tensor(RESPONSE)[:, None]).sum().item()
        return round(total, 6) if total == total and abs(total) != float("inf") else None
    except Exception:
        return None


def changed(config, change):
    config = copy.deepcopy(config) | change
    return {key: value for key, value in config.items() if value != REMOVED}


def changes(model, config):
    own = FAMILY_KEYS.get(model, {})
    keys = own if model in ONLY_OWN else {**KEYS, **own}
    for name in sorted(keys):
        for value in keys[name]:
            if value == REMOVED and name not in config:
                continue
            if name in config and type(config[name]) is type(value) and config[name] == value:
                continue
            yield {name: value}
    part, inner = WITHIN.get(model, (None, []))
    yield from ({part: changed(config[part], change)} for change in inner)
    # The general ones of configs.json are about keys that every family reads in one place.
    yield from [{}, *FAMILY_TOGETHER.get(model, [])] if model in FAMILY_KEYS else TOGETHER


def cases(name, folder):
    source = FIXTURES / name
    shutil.copy(source / "model.safetensors", folder)
    config = json.loads((source / "config.json").read_text())
    for change in changes(name, config):
        (folder / "config.json").write_text(json.dumps(changed(config, change)))
        yield {"change": change, "log_prob": log_prob(folder)}


def lines(name):
    """The cases of a model, a line of JSON each."""
    with tempfile.TemporaryDirectory() as folder:
        made = [json.dumps(case) for case in cases(name, Path(folder))]
    print(name, len(made), sum('"log_prob": null' in line for line in made))
    return ",\n  ".join(made)


def heads():
    """Tied models with a head among their weights: the embedding times a factor."""
    for name, (embed, head) in TIED.items():
        for factor in [1.0, 1.5]:
            with tempfile.TemporaryDirectory() as folder:
                folder = Path(folder)
                tensors = load_file(FIXTURES / name / "model.safetensors")
                tensors[head] = tensors[embed] * factor
                save_file(tensors, folder / "model.safetensors", {"format": "pt"})
                shutil.copy(FIXTURES / name / "config.json", folder)
                yield {
                    "model": name, "embed": embed, "head": head, "factor": factor,
                    "log_prob": log_prob(folder),
                }


def quiet():
    # Some changes ask for more memory than there is, of a model that the weights then do not fit.
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    transformers.utils.logging.set_verbosity(50)
    transformers.utils.logging.disable_progress_bar()


def head():
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    versions["safetensors"] = safetensors.__version__
    about = {"versions": versions, "prompt": PROMPT, "response": RESPONSE, "removed": REMOVED}
    return json.dumps(about)[:-1]


def write(path, text):
    json.loads(text)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def main():
    quiet()
    parser = argparse.ArgumentParser(description="Makes the oracles of changed configs.")
    parser.add_argument("--models", nargs="+", metavar="NAME", choices=list(FAMILY_KEYS),
                        help="only these of the families that have a file each")
    chosen = parser.parse_args().models
    for name in chosen or FAMILY_KEYS:
        text = f'{head()}, "models": {{{json.dumps(name)}: [\n  {lines(name)}\n]}}}}\n'
        write(FIXTURES / "configs" / f"{name}.json", text)
    if not chosen:
        parts = [f"{json.dumps(name)}: [\n  {lines(name)}\n]" for name in MODELS]
        tied = ",\n  ".join(json.dumps(case) for case in heads())
        text = f'{head()}, "tied": [\n  {tied}\n], "models": {{\n' + ",\n".join(parts) + "\n}}\n"
        write(FIXTURES / "configs.json", text)


if __name__ == "__main__":
    main()
