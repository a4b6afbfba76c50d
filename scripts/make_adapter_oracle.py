#!/usr/bin/env python3
"""Makes tests/fixtures/adapters: PEFT's adapters on the tiny models, and what PyTorch says about them.

`pip install torch transformers peft safetensors`, then `python scripts/make_adapter_oracle.py [DIR]`.
`--check FOLDER ...` prints the log-probs of adapters that expo wrote, as PEFT loads them, as JSON.

A folder per case: the adapter as PEFT saves it, `oracle.json` (the config in the words of `[adapter]`,
the log-probs of the first pairs of the model's own oracle, and their DPO loss with a reference that is
indifferent) and `gradients.safetensors` (of that loss, by PEFT's keys). All is computed in f64.
"""

import argparse
import json
import shutil
import warnings
from pathlib import Path

import peft
import safetensors
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

import oracle_exact
from oracle_families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
VERSIONS = {
    name: module.__version__.split("+")[0]
    for name, module in [("peft", peft), ("torch", torch), ("transformers", transformers),
                         ("safetensors", safetensors)]
}
BETA = 0.1
PAIRS = 2

# (model, case, PEFT's words for it)
CASES = [
    ("neox", "lora", dict(r=2, lora_alpha=4, target_modules="all-linear",
                          modules_to_save=["final_layer_norm"])),
    ("neox", "head", dict(r=2, lora_alpha=3, target_modules=["lm_head", "dense"], exclude_modules=r".*layers\.0\..*")),
    ("neox-sequential", "tied", dict(r=2, target_modules=["query_key_value"], modules_to_save=["lm_head"])),
    ("llama", "patterns", dict(
        r=2, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 1, "q_proj": 3, r"mlp\.down_\w+": 4},
        alpha_pattern={"self_attn.v_proj": 7})),
    ("llama3", "embedding", dict(r=2, target_modules=r".*\.self_attn\.[qo]_proj", modules_to_save=["embed_tokens"])),
    ("mistral", "dora", dict(r=2, lora_alpha=3, target_modules="all-linear", use_dora=True)),
    ("qwen2", "head", dict(r=2, target_modules=["lm_head", "k_proj"])),
    ("qwen3", "layers", dict(r=2, target_modules=["model.layers.0.mlp.up_proj", "q_proj"], layers_to_transform=[1])),
    ("gemma2", "rslora", dict(r=2, lora_alpha=2, target_modules="all-linear", use_rslora=True)),
    ("gemma3", "saved", dict(r=2, target_modules=["o_proj", "gate_proj"], modules_to_save=["norm"])),
    ("gemma3-multimodal", "text", dict(r=2, target_modules=r"model\.language_model\..*_proj")),
    ("gpt2", "dora", dict(r=2, target_modules=["c_attn", "mlp.c_proj", "c_fc"], use_dora=True,
                          modules_to_save=["wpe", "h.1.attn.c_proj"])),
    ("granite", "excluded", dict(r=2, target_modules="all-linear", exclude_modules=["k_proj", "1.mlp.up_proj"])),
    ("mixtral", "attention", dict(r=2, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])),
    ("olmo2", "lora", dict(r=2, target_modules="all-linear")),
    ("olmo3", "layer", dict(r=2, target_modules=["q_proj", "up_proj"], layers_to_transform=1)),
    ("phi3", "dora", dict(r=2, target_modules=["qkv_proj", "gate_up_proj"], use_dora=True)),
    ("qwen3_moe", "router", dict(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["mlp.gate"])),
    ("smollm3", "lora", dict(r=2, target_modules="all-linear", use_rslora=True)),
]


def load(name):
    newer = name in FAMILIES
    model = AutoModelForCausalLM.from_pretrained(
        FIXTURES / name, dtype=torch.float64, attn_implementation="exact" if newer else "sdpa"
    )
    if newer:
        model.set_experts_implementation("eager")
    return model.eval()


def section(words):
    """The words of [adapter]."""
    ours = {"lora_alpha": "alpha", "lora_dropout": "dropout"}
    return {"alpha": 8, **{ours.get(key, key): value for key, value in words.items()}}


def set_values(model):
    """Values that f32 holds exactly, none of them zero."""
    trained = [(n, p) for n, p in sorted(model.named_parameters()) if p.requires_grad]
    with torch.no_grad():
        for k, (name, p) in enumerate(trained):
            wave = torch.sin(0.7 * torch.arange(p.numel()) + 1.3 * k + 0.1).reshape(p.shape)
            if "lora_magnitude" in name or "modules_to_save" in name:
                p += 0.05 * wave
            else:
                p.copy_((0.2 if "lora_A" in name else 0.1) * wave)
            p.copy_(p.float().double())


def log_prob(model, pair, side):
    prompt, response = pair["prompt_ids"], pair[f"{side}_ids"]
    rows = model(torch.tensor([prompt + response]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return rows.log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum()


def pairs_of(name):
    return json.loads((FIXTURES / "oracle" / f"{name}.json").read_text())["pairs"][:PAIRS]


def make(out, name, case, words):
    folder = out / f"{name}.{case}"
    shutil.rmtree(folder, ignore_errors=True)
    base = load(name)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **words)).eval()
    set_values(model)
    sums = [[log_prob(model, pair, side) for side in ("chosen", "rejected")] for pair in pairs_of(name)]
    loss = torch.stack([-logsigmoid(BETA * (a - b)) for a, b in sums]).mean()
    loss.backward()
    held = dict(model.state_dict())
    for key, p in model.named_parameters():
        if p.requires_grad:
            held[key] = p.grad
    gradients = get_peft_model_state_dict(model, state_dict=held)
    values = get_peft_model_state_dict(model)
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    if isinstance(config["target_modules"], list):
        # PEFT writes a set, in another order each time.
        config["target_modules"].sort()
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    save_file({k: v.float().contiguous() for k, v in sorted(values.items())}, folder / "adapter_model.safetensors")
    gradients = {k: v.float().contiguous() for k, v in sorted(gradients.items()) if ".base_layer." not in k}
    assert all(g.abs().max() > 0 for g in gradients.values()), (name, case)
    save_file(gradients, folder / "gradients.safetensors")
    record = {
        "model": name,
        "versions": VERSIONS,
        "adapter": section(words),
        "log_probs": [[x.item() for x in pair] for pair in sums],
        "loss": loss.item(),
    }
    (folder / "oracle.json").write_text(json.dumps(record, indent=1) + "\n")
    print(folder.name, len(values), loss.item())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR", nargs="?", type=Path, default=FIXTURES / "adapters")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only the cases of these models")
    parser.add_argument("--check", nargs="+", metavar="FOLDER", type=Path, help="adapters that expo wrote")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    oracle_exact.install()
    torch.set_num_threads(1)
    if args.check:
        found = {}
        for folder in args.check:
            name = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Found missing adapter keys")
                model = PeftModel.from_pretrained(load(name), folder).eval()
            with torch.no_grad():
                found[folder.name] = [
                    [log_prob(model, pair, side).item() for side in ("chosen", "rejected")]
                    for pair in pairs_of(name)
                ]
        print(json.dumps(found))
        return
    for name, case, words in CASES:
        if not args.models or name in args.models:
            make(args.folder, name, case, words)


if __name__ == "__main__":
    main()
