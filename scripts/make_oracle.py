#!/usr/bin/env python3
"""Makes tests/fixtures: tokenizers, rows, tiny random models, and what PyTorch says about them.

Python is needed only to remake the fixtures: `pip install torch transformers safetensors`, then
`python scripts/make_oracle.py [DIR] [--models NAME ...]`. Everything is seeded, so a second run
writes the same files (on the same versions, which every oracle file carries, and a CPU that adds in
the same order: to add a model, make that one alone).

Values marked f64 are computed in float64 all the way. transformers alone does not do that; see
oracle_exact.py. The models of the families that came later are in oracle_families.py.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

import safetensors
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers
from torch.nn.functional import logsigmoid
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig
from transformers import MistralConfig, Qwen2Config, Qwen3Config

import oracle_exact
from oracle_families import FAMILIES, FUSED, LONGEST_DRAW, spell_as_v4

ROOT = Path(__file__).resolve().parent.parent
PARSER = argparse.ArgumentParser(description="Makes the fixtures, all of them or some models.")
PARSER.add_argument("folder", metavar="DIR", nargs="?", type=Path, default=ROOT / "tests" / "fixtures")
PARSER.add_argument("--models", nargs="+", metavar="NAME", help="only these models and oracles")
ARGS = PARSER.parse_args()
OUT = ARGS.folder
VERSIONS = {
    "torch": torch.__version__.split("+")[0],
    "transformers": transformers.__version__,
    "tokenizers": tokenizers.__version__,
    "safetensors": safetensors.__version__,
}
BETA = 0.1
ORACLE_PAIRS = 4

# ---------------------------------------------------------------- text

ADJECTIVES = "small big old young quiet happy green brown kind clever sleepy brave".split()
ANIMALS = "cat dog bird horse fox rabbit goat duck frog mouse bear owl".split()
FOODS = "bread milk apples carrots cheese corn soup rice honey plums".split()
PLACES = "garden river barn forest kitchen meadow hill market library harbour".split()
VERBS = "sleeps plays sings waits rests works reads walks".split()
TIMES = ["in the morning", "at noon", "in the evening", "at night", "after the rain"]


def sentence(rng):
    a, b = rng.choice(ADJECTIVES), rng.choice(ADJECTIVES)
    x, y = rng.choice(ANIMALS), rng.choice(ANIMALS)
    food, place, verb, time = (rng.choice(w) for w in (FOODS, PLACES, VERBS, TIMES))
    return rng.choice(
        [
            f"The {a} {x} {verb} in the {place}.",
            f"The {a} {x} likes {food} and the {b} {y} likes {rng.choice(FOODS)}.",
            f"What does the {a} {x} eat {time}?",
            f"Where does the {x} go {time}?",
            f"It goes to the {place} with the {b} {y}.",
            f"I do not know, but the {y} {verb} {time}.",
            f"Please bring some {food} to the {place}.",
            f"There are {rng.randint(2, 99)} {food} in the {place}, and the {x} is {b}.",
        ]
    )


def answers(rng):
    """A question with a helpful answer and a lazy one, of unequal lengths."""
    a, x = rng.choice(ADJECTIVES), rng.choice(ANIMALS)
    food, place, time = rng.choice(FOODS), rng.choice(PLACES), rng.choice(TIMES)
    question, good = rng.choice(
        [
            (f"What does the {a} {x} eat {time}?", f" The {x} eats {food}, which it likes best."),
            (f"Where does the {x} go {time}?", f" It goes to the {place} and rests there."),
            (f"Who is in the {place}?", f" The {a} {x} is there. It waits for {food}."),
            (f"Is the {x} {a}?", f" Yes, the {x} is {a}, and kind too."),
        ]
    )
    bad = rng.choice(
        [" I do not know.", " No.", f" Go to the {place} and look for it {time}, then come back.",
         f" Some {food}.", " Why do you ask?"]
    )
    return question, good, bad


def make_rows():
    rng = random.Random(11)
    pairs, seen = [], set()
    while len(pairs) < 24:
        question, good, bad = answers(rng)
        if question not in seen:
            seen.add(question)
            pairs.append({"prompt": question, "chosen": good, "rejected": bad})
    # No tokenizer below has seen these letters: bytes must carry them.
    pairs[2]["chosen"] = " At the café, it eats crêpes."
    pairs[5]["rejected"] = " 🙂"
    hh = []
    for i in range(12):
        turns = ""
        for _ in range(i % 3):
            question, good, _ = answers(rng)
            turns += f"\n\nHuman: {question}\n\nAssistant:{good}"
        question, good, bad = answers(rng)
        turns += f"\n\nHuman: {question}\n\nAssistant:"
        hh.append({"chosen": turns + good, "rejected": turns + bad})
    return pairs, hh


# ---------------------------------------------------------------- tokenizers


def corpus():
    rng = random.Random(7)
    return [sentence(rng) for _ in range(600)]


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=304,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def llama_style():
    # Trained word by word, as SentencePiece does; used without a pre-tokenizer, as Llama is.
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=[], show_progress=False)
    trained.train_from_iterator(corpus(), trainer)
    learnt = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    names += sorted(learnt["vocab"], key=learnt["vocab"].get)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: i for i, name in enumerate(names)},
            merges=[tuple(m) for m in learnt["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = trained.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", "<|end|>"]
    tokenizer.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def tokenizer_config(bos, eos, pad, unk):
    return {
        "add_bos_token": bos != eos,
        "add_eos_token": False,
        "bos_token": bos,
        "clean_up_tokenization_spaces": False,
        "eos_token": eos,
        "model_max_length": 256,
        "pad_token": pad,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": unk,
    }


TOKENIZERS = {
    "byte-level": (byte_level, tokenizer_config(*["<|endoftext|>"] * 4)),
    "llama-style": (llama_style, tokenizer_config("<s>", "</s>", "<unk>", "<unk>")),
}


def encode_pair(tokenizer, row, bos, eos):
    """The project's rule: the prompt alone, then what follows it in prompt + response."""
    prompt = bos + tokenizer.encode(row["prompt"], add_special_tokens=False).ids
    out = {"prompt_ids": prompt}
    for side in ("chosen", "rejected"):
        both = bos + tokenizer.encode(row["prompt"] + row[side], add_special_tokens=False).ids
        assert both[: len(prompt)] == prompt, row
        out[f"{side}_ids"] = both[len(prompt) :] + eos
    return out


# ---------------------------------------------------------------- models


def neox(vocab, **more):
    return GPTNeoXConfig(
        vocab_size=vocab, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=256, bos_token_id=0, eos_token_id=0,
        pad_token_id=0, hidden_dropout=0.0, attention_dropout=0.0,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0,
                         "partial_rotary_factor": 0.25},
        **more,
    )


def llama(vocab, **more):
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4,
             "num_key_value_heads": 2}
    return LlamaConfig(
        vocab_size=vocab, num_hidden_layers=2, max_position_embeddings=256, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, **{**sizes, **more},
    )


def qwen(kind, vocab, **more):
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4,
             "num_key_value_heads": 2}
    return kind(
        vocab_size=vocab, num_hidden_layers=2, max_position_embeddings=256, bos_token_id=0,
        eos_token_id=0, pad_token_id=0, **{**sizes, **more},
    )


def mistral(vocab, **more):
    return MistralConfig(
        vocab_size=vocab, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, **more,
    )


LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}
MODELS = {
    "neox": ("byte-level", lambda v: neox(v, use_parallel_residual=True,
                                          tie_word_embeddings=False)),
    "neox-sequential": ("byte-level", lambda v: neox(v + 16, use_parallel_residual=False,
                                                     tie_word_embeddings=True)),
    "llama": ("llama-style", lambda v: llama(v, head_dim=12, attention_bias=True, mlp_bias=True,
                                             tie_word_embeddings=False)),
    "llama3": ("llama-style", lambda v: llama(v, hidden_size=32, intermediate_size=48,
                                              rope_parameters=LLAMA3, tie_word_embeddings=True)),
    "llama-linear": ("llama-style", lambda v: llama(v, num_key_value_heads=4,
                                                    rope_parameters=LINEAR,
                                                    tie_word_embeddings=True)),
    "qwen2": ("byte-level", lambda v: qwen(Qwen2Config, v, hidden_size=32,
                                           tie_word_embeddings=True)),
    # Every window is shorter than the rows are long.
    "qwen2-window": ("byte-level", lambda v: qwen(Qwen2Config, v, use_sliding_window=True,
                                                  sliding_window=8, max_window_layers=1,
                                                  tie_word_embeddings=False)),
    "qwen3": ("byte-level", lambda v: qwen(Qwen3Config, v, head_dim=12,
                                           tie_word_embeddings=True)),
    "qwen3-window": ("byte-level", lambda v: qwen(Qwen3Config, v, head_dim=8, attention_bias=True,
                                                  use_sliding_window=True, sliding_window=5,
                                                  layer_types=["sliding_attention",
                                                               "full_attention"],
                                                  tie_word_embeddings=False)),
    "mistral": ("llama-style", lambda v: mistral(v, head_dim=12, sliding_window=8,
                                                 tie_word_embeddings=False)),
    **FAMILIES,
}


def initialise(model, seed, newer):
    """Large and irregular, so that no gradient is trivial: biases and norms are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    gemma = model.config.model_type.startswith("gemma")
    table, matrix = (0.3, 0.4) if newer else (0.5, 0.2)
    if gemma:
        # Its table is multiplied by sqrt(hidden_size), its norms by 1 + weight.
        table, matrix = 0.2, 0.3
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("mlp.gate.weight"):
                # A router, which must not be near a tie.
                p.copy_(noise * 0.5)
            elif p.dim() >= 2:
                p.copy_(noise * (table if "embed_" in name or "wte" in name else matrix))
            elif name.endswith("bias") or gemma:
                p.copy_(noise * 0.1)
            else:
                p.copy_(1 + noise * 0.1)


def perturb(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in sorted(model.named_parameters()):
            p.add_(torch.randn(p.shape, generator=generator) * 0.02 * p.pow(2).mean().sqrt())


def file_name(name, names):
    """transformers 5 calls every head lm_head in memory; NeoX checkpoints say embed_out."""
    if name in names:
        return name
    renamed = name.replace("lm_head.", "embed_out.")
    assert renamed in names, name
    return renamed


def save_model(model, folder, eos):
    model.generation_config.eos_token_id = eos
    model.save_pretrained(folder, save_original_format=folder.name.removesuffix("-ref") not in FUSED)
    weights = load_file(folder / "model.safetensors")
    save_file(dict(sorted(weights.items())), folder / "model.safetensors", {"format": "pt"})


def write_v4_config(folder):
    """The same model as checkpoints from before transformers 5 spell it."""
    config = json.loads((folder / "config.json").read_text())
    if folder.name in FAMILIES:
        spell_as_v4(config)
        same_config(folder, config)
        return
    rope = dict(config.pop("rope_parameters"))
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    if config["model_type"] == "gpt_neox":
        config["rotary_pct"] = rope.pop("partial_rotary_factor")
        config["rotary_emb_base"] = int(theta)
    else:
        config["rope_theta"] = theta
        # Older files say `type`, newer ones `rope_type`: one of each.
        key = "type" if kind == "linear" else "rope_type"
        config["rope_scaling"] = None if kind == "default" else {**rope, key: kind}
    if config["model_type"] in ("qwen2", "qwen3"):
        # Older files name a window that is not in use, and have no list of layers.
        config["sliding_window"] = config["sliding_window"] or 8
        if folder.name != "qwen3-window":
            del config["layer_types"]
    same_config(folder, config)


def same_config(folder, config):
    """Writes the older spelling, which transformers must read as the same config."""
    write_json(folder / "config_v4_style.json", config)
    again = AutoConfig.from_pretrained(folder / "config_v4_style.json").get_text_config()
    new = AutoConfig.from_pretrained(folder).get_text_config()
    for key, value in (getattr(new, "rope_parameters", None) or {}).items():
        assert again.rope_parameters[key] == value, (folder, key, again.rope_parameters)
    for key in ("sliding_window", "layer_types"):
        assert getattr(again, key, None) == getattr(new, key, None), (folder, key)


# ---------------------------------------------------------------- oracles


def log_probs(model, prompt, response):
    """Logits rows that predict the response, and the log-prob of each of its tokens."""
    ids = torch.tensor([prompt + response])
    rows = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    picked = rows.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]
    return rows, picked


def total(model, pair, side):
    return log_probs(model, pair["prompt_ids"], pair[f"{side}_ids"])[1].sum()


def dpo(policy, reference, pair):
    margin = total(policy, pair, "chosen") - total(policy, pair, "rejected")
    return -logsigmoid(BETA * (margin - reference[0] + reference[1]))


def gradients(model, names, loss):
    model.zero_grad()
    loss.backward()
    held = {n: p.grad for n, p in model.named_parameters()}
    heads = {n.replace("lm_head.", "embed_out.") for n in held}
    if names in (set(held), heads):
        grads = {file_name(n, names): grad for n, grad in held.items()}
    else:
        grads = as_saved(model, held)
    if model.config.model_type == "gemma3":
        # Rows of text do not reach the tower that sees images.
        text = "language_model."
        assert all(n.startswith(text) or not grad.any() for n, grad in grads.items())
        grads = {n: grad for n, grad in grads.items() if n.startswith(text)}
        names = {n for n in names if n.startswith(text)}
    assert all(g.abs().max() > 0 for g in grads.values())
    assert sorted(grads) == sorted(names)
    return grads


def as_saved(model, grads):
    """Gradients under the names and in the shapes of a checkpoint, which differ from memory's."""
    held = {n: p.data for n, p in model.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        # Through `data`, which leaves the graph of a loss yet to be differentiated alone.
        for name, p in model.named_parameters():
            p.data = torch.zeros_like(p) if grads[name] is None else grads[name]
        model.save_pretrained(folder)
        for name, p in model.named_parameters():
            p.data = held[name]
        return load_file(Path(folder) / "model.safetensors")


def greedy(model, prompt, eos, penalty, tokens):
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(tokens):
            row = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            seen = torch.tensor(sorted(set(ids)))
            picked = row[seen]
            row[seen] = torch.where(picked > 0, picked / penalty, picked * penalty)
            first, second = row.topk(2).values.tolist()
            assert first - second > 1e-5, "a tie that float32 may decide the other way"
            ids.append(int(row.argmax()))
            if ids[-1] in eos:
                break
    return ids[len(prompt) :]


def continuations(name, model, prompt, eos):
    """Greedy ids with and without a penalty; of newer models more, and those of `generate`."""
    out = {}
    for key, penalty in [("new_ids", 1.0), ("new_ids_repetition_penalty_1.1", 1.1)]:
        tokens = 64 if name in FAMILIES else 24
        if name in LONGEST_DRAW:
            tokens = LONGEST_DRAW[name] - len(prompt)
        out[key] = greedy(model, prompt, eos, penalty, tokens)
        if name in FAMILIES:
            made = model.generate(
                torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False,
                repetition_penalty=penalty, eos_token_id=eos, pad_token_id=0,
            )[0, len(prompt) :].tolist()
            assert made == out[key], (name, made, out[key])
    return {"prompt_ids": prompt, **out}


def load(folder, dtype):
    # sdpa has no soft cap.
    newer = folder.name.removesuffix("-ref") in FAMILIES
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="exact" if newer else "sdpa"
    )
    if newer:
        model.set_experts_implementation("eager")
    return model.eval()


def model_oracle(name, pairs, eos):
    policy, reference = (load(OUT / n, torch.float64) for n in (name, f"{name}-ref"))
    names = set(load_file(OUT / name / "model.safetensors"))
    tensors, records, reference_totals = {}, [], []
    for i, pair in enumerate(pairs[:ORACLE_PAIRS]):
        record = {"row": i, **pair}
        with torch.no_grad():
            for side in ("chosen", "rejected"):
                rows, picked = log_probs(policy, pair["prompt_ids"], pair[f"{side}_ids"])
                record[side] = {
                    "log_prob": picked.sum().item(),
                    "reference_log_prob": total(reference, pair, side).item(),
                }
                tensors[f"log_probs.{i}.{side}"] = picked
                if i < 2:
                    tensors[f"logits.{i}.{side}"] = rows[[0, -1]]
        refs = [record[s]["reference_log_prob"] for s in ("chosen", "rejected")]
        with torch.no_grad():
            record["dpo_loss"] = dpo(policy, refs, pair).item()
        reference_totals.append(refs)
        records.append(record)
    losses = [dpo(policy, r, p) for r, p in zip(reference_totals, pairs)]
    objectives = {
        "dpo": torch.stack(losses).mean(),
        "chosen": torch.stack([total(policy, p, "chosen") for p in pairs[:ORACLE_PAIRS]]).sum(),
    }
    out = {
        "model": name,
        "versions": VERSIONS,
        "about": {
            "dtype": "float64",
            "dpo": f"mean over the pairs of -log sigmoid({BETA} h), reference {name}-ref",
            "chosen": "sum over the pairs of the chosen answers' log-probs (not negated)",
            "logits": "rows that predict the first and the last response token",
        },
        "eos_token_ids": eos,
        "pairs": records,
        "gradients": {},
    }
    for key, value in objectives.items():
        grads = gradients(policy, names, value)
        norm = torch.stack([g.norm() for g in grads.values()]).norm().item()
        out["gradients"][key] = {"value": value.item(), "norm": norm}
        tensors |= {f"grad.{key}.{n}": g.float() for n, g in grads.items()}
    out["greedy"] = [continuations(name, policy, p["prompt_ids"], eos) for p in pairs[:2]]
    single = load(OUT / name, torch.float32)
    worst = max(
        (total(single, p, "chosen") - r["chosen"]["log_prob"]).abs().item()
        for p, r in zip(pairs, records)
    )
    assert worst < 1e-3, worst
    assert oracle_exact.CLOSEST_ROUTE[0] > 2e-5, "a router near a tie"
    tensors = {k: v.detach().contiguous() for k, v in sorted(tensors.items())}
    return out, tensors


def trajectory(name, pairs, steps=6, batch=2, rate=1e-3):
    """DPO in float32 by a plain loop: batches in file order, lr (1 - k/steps) without warm-up."""
    policy, reference = (load(OUT / n, torch.float32) for n in (name, f"{name}-ref"))
    names = set(load_file(OUT / name / "model.safetensors"))
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0
    )
    records = []
    for k in range(steps):
        lr = rate * (1 - k / steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        rows = pairs[k * batch : (k + 1) * batch]
        with torch.no_grad():
            refs = [[total(reference, p, s) for s in ("chosen", "rejected")] for p in rows]
        loss = torch.stack([dpo(policy, r, p) for r, p in zip(refs, rows)]).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        records.append({"step": k + 1, "loss": loss.item(), "grad_norm": norm.item(),
                        "learning_rate": lr})
    final = {
        file_name(n, names): {"norm": p.double().norm().item(), "sum": p.double().sum().item()}
        for n, p in policy.named_parameters()
    }
    about = (f"DPO beta {BETA}, reference {name}-ref, AdamW 0.9/0.999/1e-8 without weight decay, "
             f"lr {rate} (1 - k/{steps}), batch {batch} in file order, clip 1.0, float32")
    return {"model": name, "versions": VERSIONS, "about": about, "steps": records,
            "final": dict(sorted(final.items()))}


def draw_samples(rows, encoded, tokenizer):
    """Drawn from neox-ref with its end token made likelier, so that some of them stop."""
    model = load(OUT / "neox-ref", torch.float64)
    lines = []
    for i, (row, pair) in enumerate(zip(rows, encoded)):
        for index in range(2 if i < 4 else 1):
            generator = torch.Generator().manual_seed(1000 * i + index)
            ids, prompt = [], pair["prompt_ids"]
            while len(ids) < 12 and (not ids or ids[-1] != 0):
                with torch.no_grad():
                    logits = model(torch.tensor([prompt + ids]), use_cache=False).logits[0, -1]
                logits[0] += 2.5
                ids.append(int(torch.multinomial(logits.softmax(-1), 1, generator=generator)))
            with torch.no_grad():
                log_prob = log_probs(model, prompt, ids)[1].sum().item()
            lines.append({
                "prompt": row["prompt"], "response": tokenizer.decode(ids), "token_ids": ids,
                "log_prob": log_prob, "finish_reason": "stop" if ids[-1] == 0 else "length",
                "index": index, "seed": 1000 * i + index,
            })
    return lines


# ---------------------------------------------------------------- files


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_tokenizer(folder, kind, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", TOKENIZERS[kind][1])


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    oracle_exact.install()
    OUT.mkdir(parents=True, exist_ok=True)
    rows, hh = make_rows()
    made = {kind: make() for kind, (make, _) in TOKENIZERS.items()}
    if not ARGS.models:
        write_lines(OUT / "pairs.jsonl", rows)
        write_lines(OUT / "hh.jsonl", hh)
        for kind, tokenizer in made.items():
            write_tokenizer(OUT / "tokenizer" / kind, kind, tokenizer)
    unknown = set(ARGS.models or []) - set(MODELS)
    assert not unknown, f"no such models: {unknown}; there are {list(MODELS)}"
    for seed, (name, (kind, config)) in enumerate(MODELS.items()):
        if ARGS.models and name not in ARGS.models:
            continue
        tokenizer = made[kind]
        vocab = tokenizer.get_vocab_size()
        bos, eos = ([], [0]) if kind == "byte-level" else ([1], [2])
        ends = eos + [vocab - 1] if name == "llama3" else eos
        # One end token is a number and several are a list, as on the hub.
        written = ends if len(ends) > 1 else ends[0]
        model = AutoModelForCausalLM.from_config(config(vocab), dtype=torch.float32)
        initialise(model, 100 + seed, name in FAMILIES)
        save_model(model, OUT / name, written)
        write_tokenizer(OUT / name, kind, tokenizer)
        perturb(model, 200 + seed)
        save_model(model, OUT / f"{name}-ref", written)
        if name != "llama":
            write_v4_config(OUT / name)
        encoded = [encode_pair(tokenizer, row, bos, eos) for row in rows]
        values, tensors = model_oracle(name, encoded, ends)
        if name in ("neox", "llama"):
            values["trajectory"] = trajectory(name, encoded)
        write_json(OUT / "oracle" / f"{name}.json", values)
        save_file(tensors, OUT / "oracle" / f"{name}.safetensors", {"format": "pt"})
        if name == "neox":
            write_lines(OUT / "samples.jsonl", draw_samples(rows, encoded, tokenizer))
    print(f"{sum(f.stat().st_size for f in OUT.rglob('*') if f.is_file()) / 1e6:.2f} MB in {OUT}")


if __name__ == "__main__":
    main()
