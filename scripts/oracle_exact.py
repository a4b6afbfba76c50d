"""Float64 all the way: replacements for what transformers computes in float32 whatever the dtype.

Those are RMS norms, rotary tables, the softmax of eager attention and the softmax of routers. Each
replacement of a table is checked against transformers' own float32 values when it is used.
"""

import math

import torch
from torch.nn.functional import linear
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.granite import modeling_granite
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.mixtral import modeling_mixtral
from transformers.models.olmo2 import modeling_olmo2
from transformers.models.olmo3 import modeling_olmo3
from transformers.models.phi3 import modeling_phi3
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3
from transformers.models.qwen3_moe import modeling_qwen3_moe
from transformers.models.smollm3 import modeling_smollm3

# The smallest distance from the last expert taken to the first one left, over all calls.
CLOSEST_ROUTE = [math.inf]


def yarn(rope, truncate, freq, dim):
    """YaRN: each frequency between itself and itself / factor, by its turns in the old length."""
    def place(turns):
        length = rope["original_max_position_embeddings"]
        return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(rope["rope_theta"]))

    low, high = place(rope.get("beta_fast") or 32), place(rope.get("beta_slow") or 1)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float64) - low) / max(high - low, 0.001)
    ramp = ramp.clamp(0, 1)

    def scale(m):
        return 1.0 if rope["factor"] <= 1 else 0.1 * m * math.log(rope["factor"]) + 1
    factor = rope.get("attention_factor")
    if factor is None:
        both = rope.get("mscale") and rope.get("mscale_all_dim")
        factor = scale(rope["mscale"]) / scale(rope["mscale_all_dim"]) if both else scale(1)
    return freq / rope["factor"] * ramp + freq * (1 - ramp), factor


def longrope(config, rope, freq, length):
    """LongRoPE: one list of factors up to the old length, another beyond it."""
    original = rope["original_max_position_embeddings"]
    kind = "long_factor" if length > original else "short_factor"
    factor = rope.get("attention_factor")
    if factor is None:
        ratio = rope.get("factor") or config.max_position_embeddings / original
        factor = 1.0 if ratio <= 1 else math.sqrt(1 + math.log(ratio) / math.log(original))
    return freq / torch.tensor(rope[kind], dtype=torch.float64), factor


def inverse_frequencies(config, length, layer_type=None):
    """Inverse frequencies in float64 of a sequence of this length, and the factor on cos and sin."""
    rope = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dim = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    kind, base = rope["rope_type"], rope["rope_theta"]
    if kind == "dynamic":
        longest = config.max_position_embeddings
        stretch = rope["factor"] * max(length, longest) / longest - (rope["factor"] - 1)
        base = base * stretch ** (dim / (dim - 2))
    freq = base ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    if kind == "linear":
        return freq / rope["factor"], 1.0
    if kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = rope["original_max_position_embeddings"] * freq / (2 * math.pi)
        smooth = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - smooth) * freq / rope["factor"] + smooth * freq, 1.0
    if kind == "yarn":
        # Of parameters by layer type transformers looks for `truncate` beside the types.
        return yarn(rope, config.rope_parameters.get("truncate", True), freq, dim)
    if kind == "longrope":
        return longrope(config, rope, freq, length)
    assert kind in ("default", "dynamic"), kind
    return freq, 1.0


def transformers_frequencies(module, length, layer_type):
    rope = module.config.rope_parameters
    rope = rope if layer_type is None else rope[layer_type]
    more = {} if layer_type is None else {"layer_type": layer_type}
    if rope["rope_type"] == "default":
        return module.compute_default_rope_parameters(module.config, **more)
    return ROPE_INIT_FUNCTIONS[rope["rope_type"]](module.config, seq_len=length, **more)


def rotary(self, x, position_ids, layer_type=None, **_):
    length = int(position_ids.max()) + 1
    freq, factor = inverse_frequencies(self.config, length, layer_type)
    theirs, their_factor = transformers_frequencies(self, length, layer_type)
    assert torch.allclose(freq, theirs.double(), rtol=1e-6), "rope differs"
    assert math.isclose(factor, their_factor, rel_tol=1e-12), (factor, their_factor)
    angles = position_ids[..., None].double() * freq
    angles = torch.cat([angles, angles], dim=-1)
    return (angles.cos() * factor).to(x.dtype), (angles.sin() * factor).to(x.dtype)


def normalized(x, epsilon):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)


def rms_norm(self, x):
    return self.weight * normalized(x, self.variance_epsilon)


def gemma_rms_norm(self, x):
    return normalized(x, self.eps) * (1 + self.weight)


def route(self, hidden, renormalize):
    logits = linear(hidden.reshape(-1, self.hidden_dim), self.weight)
    values, chosen = logits.softmax(-1).topk(self.top_k + 1, dim=-1)
    closest = (values[:, -2] - values[:, -1]).min().item()
    CLOSEST_ROUTE[0] = min(CLOSEST_ROUTE[0], closest)
    values, chosen = values[:, :-1], chosen[:, :-1]
    if renormalize:
        values = values / values.sum(-1, keepdim=True)
    return logits, values, chosen


def attention(module, query, key, value, mask, scaling=None, softcap=None, **_):
    """transformers' eager attention without its step through float32."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def install():
    modeling_gpt_neox.GPTNeoXRotaryEmbedding.forward = rotary
    for module, family in [
        (modeling_llama, "Llama"), (modeling_qwen2, "Qwen2"), (modeling_qwen3, "Qwen3"),
        (modeling_mistral, "Mistral"), (modeling_gemma2, "Gemma2"), (modeling_gemma3, "Gemma3"),
        (modeling_granite, "Granite"), (modeling_mixtral, "Mixtral"), (modeling_olmo2, "Olmo2"),
        (modeling_olmo3, "Olmo3"), (modeling_phi3, "Phi3"), (modeling_qwen3_moe, "Qwen3Moe"),
        (modeling_smollm3, "SmolLM3"),
    ]:
        norm = gemma_rms_norm if family.startswith("Gemma") else rms_norm
        getattr(module, f"{family}RMSNorm").forward = norm
        getattr(module, f"{family}RotaryEmbedding").forward = rotary
    modeling_qwen3_moe.Qwen3MoeTopKRouter.forward = lambda self, x: route(
        self, x, self.norm_topk_prob
    )
    modeling_mixtral.MixtralTopKRouter.forward = lambda self, x: route(self, x, True)
    AttentionInterface.register("exact", attention)
    AttentionMaskInterface.register("exact", eager_mask)
