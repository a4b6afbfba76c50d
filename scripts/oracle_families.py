"""The tiny models of the families that were added later, and how checkpoints on the hub spell them."""

import transformers

LINEAR = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0,
        "original_max_position_embeddings": 32}
# Within the lengths of the rows: some pairs have an answer on either side.
SWITCH = 40
LONGROPE = {"rope_type": "longrope", "rope_theta": 1000.0, "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.25, 1.5], "long_factor": [1.5, 4.0, 9.0],
            "original_max_position_embeddings": SWITCH}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}


def sizes(vocab, kind, layers=2, **more):
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if kind == "llama-style":
        ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    shape = {"hidden_size": 16, "intermediate_size": 28, "num_attention_heads": 2,
             "num_key_value_heads": 1, "max_position_embeddings": 256}
    return {"vocab_size": vocab, "num_hidden_layers": layers, **ends, **shape, **more}


def rope(theta):
    return {"rope_type": "default", "rope_theta": theta}


def gemma2(vocab):
    return transformers.Gemma2Config(**sizes(
        vocab, "llama-style", layers=3, hidden_size=20, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, query_pre_attn_scalar=9, sliding_window=6,
        attn_logit_softcapping=1.5, final_logit_softcapping=2.0, rope_parameters=rope(1000.0),
    ))


def gemma3(vocab):
    return transformers.Gemma3TextConfig(**sizes(
        vocab, "llama-style", layers=3, hidden_size=20, num_attention_heads=4,
        num_key_value_heads=1, head_dim=6, query_pre_attn_scalar=9, sliding_window=5,
        sliding_window_pattern=2, final_logit_softcapping=3.0,
        rope_parameters={"full_attention": dict(LINEAR), "sliding_attention": rope(50.0)},
    ))


def gemma3_multimodal(vocab):
    text = sizes(
        vocab, "llama-style", hidden_size=20, num_attention_heads=4, num_key_value_heads=2,
        head_dim=6, query_pre_attn_scalar=9, sliding_window=5, sliding_window_pattern=2,
        rope_parameters={"full_attention": dict(LINEAR), "sliding_attention": rope(50.0)})
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    return transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(**text),
        vision_config=transformers.SiglipVisionConfig(**vision), mm_tokens_per_image=4,
        boi_token_index=vocab - 3, eoi_token_index=vocab - 2, image_token_index=vocab - 1)


def olmo2(vocab):
    return transformers.Olmo2Config(**sizes(
        vocab, "byte-level", tie_word_embeddings=False, rope_parameters=rope(500.0)))


def olmo3(vocab):
    return transformers.Olmo3Config(**sizes(
        vocab, "byte-level", layers=3, tie_word_embeddings=False, sliding_window=5,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        # The theta of every OLMo 3: transformers 5 reads the older spelling's for one type only.
        rope_parameters={"sliding_attention": rope(500000.0), "full_attention": {
            **YARN, "rope_theta": 500000.0, "beta_fast": 32.0, "beta_slow": 0.02,
            "attention_factor": 1.2}},
    ))


def phi3(vocab):
    return transformers.Phi3Config(**sizes(
        vocab, "llama-style", hidden_size=24, num_attention_heads=3, tie_word_embeddings=True,
        original_max_position_embeddings=SWITCH, rope_parameters=dict(LONGROPE)))


def phi3_window(vocab):
    return transformers.Phi3Config(**sizes(
        vocab, "llama-style", num_key_value_heads=2, tie_word_embeddings=False, sliding_window=6,
        rope_parameters={**rope(500.0), "partial_rotary_factor": 1.0}))


def smollm3(vocab):
    return transformers.SmolLM3Config(**sizes(
        vocab, "byte-level", layers=3, no_rope_layers=[1, 0, 1], no_rope_layer_interval=2,
        tie_word_embeddings=True, rope_parameters=rope(500.0)))


def gpt2(vocab):
    return transformers.GPT2Config(
        vocab_size=vocab, n_embd=20, n_head=2, n_layer=2, n_inner=48, n_positions=128,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)


def granite(vocab):
    return transformers.GraniteConfig(**sizes(
        vocab, "byte-level", tie_word_embeddings=True, embedding_multiplier=1.7,
        residual_multiplier=0.6, attention_multiplier=0.2, logits_scaling=0.7,
        rope_parameters=rope(500.0)))


def llama_yarn(vocab):
    return transformers.LlamaConfig(**sizes(
        vocab, "llama-style", head_dim=12, tie_word_embeddings=True,
        rope_parameters={**YARN, "beta_fast": 4.0, "beta_slow": 0.5, "mscale": 0.8,
                         "mscale_all_dim": 0.3, "truncate": False}))


def llama_dynamic(vocab):
    return transformers.LlamaConfig(**sizes(
        vocab, "llama-style", head_dim=8, tie_word_embeddings=True,
        max_position_embeddings=SWITCH, rope_parameters=dict(DYNAMIC)))


def qwen3_moe(vocab, **more):
    return transformers.Qwen3MoeConfig(**sizes(
        vocab, "byte-level", layers=3, head_dim=8, num_experts=6, num_experts_per_tok=2,
        moe_intermediate_size=10, tie_word_embeddings=False, rope_parameters=rope(500.0), **more))


def mixtral(vocab):
    return transformers.MixtralConfig(**sizes(
        vocab, "llama-style", intermediate_size=11, num_local_experts=4, num_experts_per_tok=2,
        tie_word_embeddings=False, rope_parameters=rope(500.0)))


FAMILIES = {
    "gemma2": ("llama-style", gemma2),
    "gemma3": ("llama-style", gemma3),
    "olmo2": ("byte-level", olmo2),
    "olmo3": ("byte-level", olmo3),
    "phi3": ("llama-style", phi3),
    "phi3-window": ("llama-style", phi3_window),
    "smollm3": ("byte-level", smollm3),
    "gpt2": ("byte-level", gpt2),
    "granite": ("byte-level", granite),
    "llama-yarn": ("llama-style", llama_yarn),
    "llama-dynamic": ("llama-style", llama_dynamic),
    # A dense layer, one of experts, a dense one; weights renormalized.
    "qwen3_moe": ("byte-level", lambda v: qwen3_moe(v, decoder_sparse_step=2, norm_topk_prob=True)),
    # Experts, a dense layer, experts; in the layout of transformers 5.
    "qwen3_moe-fused": ("byte-level", lambda v: qwen3_moe(v, mlp_only_layers=[1],
                                                          norm_topk_prob=False)),
    "mixtral": ("llama-style", mixtral),
    "gemma3-multimodal": ("llama-style", gemma3_multimodal),
}
# Saved as transformers 5 holds them in memory: one tensor for all experts of a layer.
FUSED = ["qwen3_moe-fused"]
# Drawn up to this length only: beyond it a cache and a recomputation differ in transformers.
LONGEST_DRAW = {"llama-dynamic": SWITCH}


def spell_as_v4(config):
    """Changes a config of transformers 5 to what checkpoints of the family on the hub have."""
    family = config["model_type"]
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
        config["transformers_version"] = "4.46.0"
    if "text_config" in config:
        spell_as_v4(config["text_config"])
        return
    if family == "gpt2":
        for key in ("n_inner", "tie_word_embeddings", "pad_token_id", "add_cross_attention"):
            value = config.pop(key, None)
            if key == "n_inner":
                config[key] = value
        config |= {"n_ctx": config["n_positions"], "resid_pdrop": 0.1, "embd_pdrop": 0.1,
                   "attn_pdrop": 0.1, "task_specific_params": {"text-generation": {
                       "do_sample": True, "max_length": 50}}}
        return
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        local, rope = rope["sliding_attention"], dict(rope["full_attention"])
        if family == "gemma3_text":
            config["rope_local_base_freq"] = local["rope_theta"]
    rope = dict(rope)
    config["rope_theta"], kind = rope.pop("rope_theta"), rope.pop("rope_type")
    partial = rope.pop("partial_rotary_factor", 1.0)
    if partial != 1.0:
        config["partial_rotary_factor"] = partial
    if family == "phi3":
        rope.pop("original_max_position_embeddings", None)
    key = "type" if family in ("phi3", "llama") else "rope_type"
    config["rope_scaling"] = None if kind == "default" else {key: kind, **rope}
    if family == "gemma2":
        del config["layer_types"]
        config |= {"hidden_act": config["hidden_activation"], "cache_implementation": "hybrid"}
    elif family == "gemma3_text":
        del config["layer_types"]
        config |= {"sliding_window_pattern": 2, "cache_implementation": "hybrid"}
        config.pop("_sliding_window_pattern", None)
    elif family == "phi3":
        config |= {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config",
                                "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
                   "attention_bias": False}
    elif family == "smollm3":
        config |= {"max_window_layers": 28, "pretraining_tp": 2}
    elif family == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts", config.get("num_experts"))
        config["max_window_layers"] = 48
