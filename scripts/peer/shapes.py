"""The shapes that are compared, and models of random weights made of them."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import rows


def pythia(hidden: int, layers: int, heads: int, intermediate: int) -> dict:
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": 50304,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "hidden_act": "gelu",
        "rotary_pct": 0.25,
        "max_position_embeddings": 2048,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
    }


def llama(hidden: int, layers: int, heads: int, intermediate: int) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 50304,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": intermediate,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }


# `config.json` of the Pythia of that name and of Llama-3-8B, but for the ids of special tokens. The small
# Llama is like no model that was published: 162 million parameters, of the vocabulary of Pythia.
SHAPES = {
    "14m": pythia(128, 6, 4, 512),
    "70m": pythia(512, 6, 8, 2048),
    "160m": pythia(768, 12, 12, 3072),
    "410m": pythia(1024, 24, 16, 4096),
    "1.4b": pythia(2048, 24, 16, 8192),
    "2.8b": pythia(2560, 32, 32, 10240),
    "llama-162m": llama(768, 12, 12, 2048),
    "llama-3-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    },
}


def written_in(shape: str) -> str:
    """The dtype of a shape's weights on disk: half the bytes where they are many."""
    return "f32" if shape in ("14m", "70m", "160m", "llama-162m") else "bf16"


def split_states(shape: str) -> bool:
    """Whether expo's optimizer states are too large in f32 for one GPU."""
    return shape == "llama-3-8b"


def micro_batch_tokens(shape: str) -> int:
    """What expo computes at once on a GPU unless told otherwise: what fits into 141 GB."""
    return 8192 if shape == "llama-3-8b" else 16384


def place_of(args, shape: str, folder: Path) -> Path:
    """Where the model of a shape with the rows' tokenizer is, or will be."""
    content = Path(args.tokenizer).read_bytes() if args.tokenizer else b""
    kind = hashlib.sha256(content).hexdigest()[:8] if content else "words"
    return folder / f"model-{shape}-{kind}"


def initialise(args, shape: str, parts: Path, model: Path) -> list[str]:
    """The command that makes a model from the files in `parts`."""
    command = [args.expo, "init", "--config-json", parts / "config", "--tokenizer", parts / "tokenizer"]
    return [str(word) for word in [*command, "--dtype", written_in(shape), "--out", model]]


def make(args, shape: str, folder: Path) -> str:
    """A model of random weights, and its tokenizer, in Hugging Face form; made only where `folder`
    does not have it."""
    model = place_of(args, shape, folder)
    if model.exists():
        return str(model)
    parts, unfinished = (model.with_name(f"{model.name}.{part}") for part in ("parts", "new"))
    for left in (parts, unfinished):
        shutil.rmtree(left, ignore_errors=True)
    parts.mkdir()
    end = rows.save_tokenizer(parts / "tokenizer", args.tokenizer)
    (parts / "config").mkdir()
    config = SHAPES[shape] | {"bos_token_id": end, "eos_token_id": end}
    (parts / "config" / "config.json").write_text(json.dumps(config))
    subprocess.run(initialise(args, shape, parts, unfinished), check=True, stdout=sys.stderr)
    unfinished.rename(model)
    shutil.rmtree(parts)
    return str(model)
