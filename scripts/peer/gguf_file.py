"""A model of Llama's architecture as llama.cpp's file, GGUF version 3. Needs numpy.

Hides the order of the file, and what llama.cpp has otherwise than transformers: names, and rows of
queries and keys, which it rotates in adjacent pairs instead of halves of a head.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

ALIGNMENT = 32
UINT32, FLOAT32, STRING = 4, 6, 8
# Of a tensor and of the whole file, as ggml counts them.
TYPES = {"f32": (0, 0), "bf16": (30, 32), "q8_0": (8, 7)}
BLOCK = 32
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INNER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def name_of(parameter: str) -> str:
    """What llama.cpp calls a parameter."""
    stem = parameter.removesuffix(".weight")
    if stem in OUTER:
        return f"{OUTER[stem]}.weight"
    layer, inner = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{INNER[inner]}.weight"


def paired(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys with the two that are rotated together side by side."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def encoded(values: np.ndarray, dtype: str) -> bytes:
    """The bytes of f32 values; bf16 takes the nearest, ties to even, q8_0 has a scale for 32 of them."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    if dtype == "f32":
        return values.tobytes()
    if dtype == "bf16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()
    blocks = values.reshape(-1, BLOCK)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    steps = np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales > 0)
    # Ties away from zero, as C rounds.
    codes = np.copysign(np.floor(np.abs(steps) + np.float32(0.5)), steps).astype(np.int8)
    whole = np.empty((len(blocks), 2 + BLOCK), dtype=np.uint8)
    whole[:, :2] = scales.astype(np.float16).view(np.uint8)
    whole[:, 2:] = codes.view(np.uint8)
    return whole.tobytes()


def tensors(model: Path) -> dict[str, np.ndarray]:
    """All tensors of a model directory; those of bf16 in f32."""
    found = {}
    for file in sorted(model.glob("*.safetensors")):
        data = np.memmap(file, dtype=np.uint8, mode="r")
        length = int.from_bytes(data[:8].tobytes(), "little")
        for name, entry in json.loads(data[8 : 8 + length].tobytes()).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            raw = data[begin:end]
            if entry["dtype"] == "F32":
                values = raw.view(np.float32)
            elif entry["dtype"] == "BF16":
                values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                raise ValueError(f"{file}: {name} is {entry['dtype']}")
            found[name] = values.reshape(entry["shape"])
    return found


def text(value: str) -> bytes:
    coded = value.encode()
    return struct.pack("<Q", len(coded)) + coded


def metadata(config: dict, dtype: str) -> list[bytes]:
    heads = config["num_attention_heads"]

    def number(key: str, value: int) -> bytes:
        return text(key) + struct.pack("<II", UINT32, value)

    def real(key: str, value: float) -> bytes:
        return text(key) + struct.pack("<If", FLOAT32, value)

    def word(key: str, value: str) -> bytes:
        return text(key) + struct.pack("<I", STRING) + text(value)

    return [
        word("general.architecture", "llama"),
        number("general.file_type", TYPES[dtype][1]),
        number("llama.vocab_size", config["vocab_size"]),
        number("llama.context_length", config["max_position_embeddings"]),
        number("llama.embedding_length", config["hidden_size"]),
        number("llama.block_count", config["num_hidden_layers"]),
        number("llama.feed_forward_length", config["intermediate_size"]),
        number("llama.attention.head_count", heads),
        number("llama.attention.head_count_kv", config["num_key_value_heads"]),
        real("llama.attention.layer_norm_rms_epsilon", config["rms_norm_eps"]),
        number("llama.rope.dimension_count", config["hidden_size"] // heads),
        real("llama.rope.freq_base", config["rope_theta"]),
        # Ids come and go as they are.
        word("tokenizer.ggml.model", "none"),
    ]


def write(model: Path, out: Path, dtype: str) -> None:
    """Writes a model directory with its matrices in `dtype`, and its norms in f32."""
    config = json.loads((model / "config.json").read_text())
    if config["model_type"] != "llama":
        raise ValueError(f"{model} is a {config['model_type']}, not a llama")
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    infos, parts, offset = [], [], 0
    for parameter, values in tensors(model).items():
        kind = dtype if values.ndim > 1 else "f32"
        inner = parameter.split(".")[-2]
        data = encoded(paired(values, heads[inner]) if inner in heads else values, kind)
        data += bytes(-len(data) % ALIGNMENT)
        # Their order of dimensions is the fastest first.
        shape = values.shape[::-1]
        info = text(name_of(parameter)) + struct.pack("<I", len(shape))
        info += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", TYPES[kind][0], offset)
        infos.append(info)
        parts.append(data)
        offset += len(data)
    keys = metadata(config, dtype)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys + infos)
    with open(out, "wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for data in parts:
            file.write(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
