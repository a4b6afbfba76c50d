"""What make_config_oracle.py changes in the configs of the families that were added later."""

REMOVED = "(removed)"

YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0,
        "original_max_position_embeddings": 32}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}
DEFAULT = {"rope_type": "default", "rope_theta": 500.0}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}


def longrope(pairs):
    return {"rope_type": "longrope", "rope_theta": 500.0, "short_factor": [1.0] * pairs,
            "long_factor": [2.0, 3.0, 5.0, 7.0, 9.0, 11.0][:pairs],
            "original_max_position_embeddings": 16}


# Of every family, and shorter than what configs.json has for Llama: the code that reads it is one.
ROPES = [
    {}, DEFAULT, {"type": "default", "rope_theta": 500}, {**DEFAULT, "partial_rotary_factor": 0.5},
    {"rope_type": "linear", "factor": 4.0}, LINEAR, {"type": "linear", "factor": 2.0}, LLAMA3,
    YARN, {"type": "yarn", "factor": 4.0}, DYNAMIC, {"type": "dynamic", "factor": 2.0},
    {"rope_type": "none", "rope_theta": 500.0}, {"type": "mrope", "mrope_section": [2, 2, 2]},
]
YARNS = [
    YARN, {**YARN, "factor": 1.0}, {**YARN, "factor": 0.5}, {**YARN, "factor": 0}, {**YARN, "factor": None},
    {k: v for k, v in YARN.items() if k != "factor"},
    {k: v for k, v in YARN.items() if k != "original_max_position_embeddings"},
    {**YARN, "original_max_position_embeddings": 512}, {**YARN, "original_max_position_embeddings": 6},
    {**YARN, "original_max_position_embeddings": 0}, {**YARN, "original_max_position_embeddings": None},
    {**YARN, "attention_factor": 1.5}, {**YARN, "attention_factor": 1}, {**YARN, "attention_factor": 0.0},
    {**YARN, "attention_factor": -1.0}, {**YARN, "attention_factor": None},
    {**YARN, "attention_factor": "1.5"},
    {**YARN, "beta_fast": 4}, {**YARN, "beta_fast": 4.0, "beta_slow": 0.5}, {**YARN, "beta_slow": 0.1},
    {**YARN, "beta_fast": 1, "beta_slow": 32}, {**YARN, "beta_fast": 0}, {**YARN, "beta_fast": None},
    {**YARN, "beta_fast": 2, "beta_slow": 2}, {**YARN, "beta_fast": -1}, {**YARN, "beta_fast": "4"},
    {**YARN, "mscale": 0.7}, {**YARN, "mscale": 0.7, "mscale_all_dim": 0.3},
    {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}, {**YARN, "mscale": 0, "mscale_all_dim": 0.3},
    {**YARN, "mscale_all_dim": 0.3}, {**YARN, "mscale": None, "mscale_all_dim": None},
    {**YARN, "mscale": 0.7, "mscale_all_dim": 0.3, "attention_factor": 1.1},
    {**YARN, "truncate": False}, {**YARN, "truncate": True}, {**YARN, "truncate": None},
    {**YARN, "truncate": 0}, {**YARN, "truncate": False, "beta_fast": 4, "beta_slow": 0.3},
    {**YARN, "partial_rotary_factor": 0.5}, {**YARN, "rope_theta": 1.0}, {**YARN, "type": "linear"},
    {**YARN, "finetuned": True}, {**YARN, "extrapolation_factor": 1.0},
]
DYNAMICS = [
    DYNAMIC, {**DYNAMIC, "factor": 1.0}, {**DYNAMIC, "factor": 0.5}, {**DYNAMIC, "factor": 0},
    {**DYNAMIC, "factor": None}, {**DYNAMIC, "factor": "4"}, {"rope_type": "dynamic", "rope_theta": 100.0},
    {**DYNAMIC, "partial_rotary_factor": 0.5}, {**DYNAMIC, "partial_rotary_factor": 0.25},
    {**DYNAMIC, "original_max_position_embeddings": 16}, {**DYNAMIC, "alpha": 2.0},
    {**DYNAMIC, "attention_factor": 2.0},
]
LONGROPES = [
    longrope(6), {**longrope(6), "factor": 4.0}, {**longrope(6), "attention_factor": 1.5},
    {**longrope(6), "original_max_position_embeddings": 22}, longrope(4), longrope(5),
    {**longrope(6), "factor": 0.5}, {**longrope(6), "short_factor": 1.0},
    {**longrope(6), "long_factor": [0.0] * 6}, {**longrope(6), "short_factor": ["1"] * 6},
    {k: v for k, v in longrope(6).items() if k != "long_factor"},
    {k: v for k, v in longrope(6).items() if k[0] != "o"},
]
# Rope parameters by layer type.
FULL, SLIDING = {"rope_type": "default", "rope_theta": 500.0}, {"rope_type": "default", "rope_theta": 90.0}
TYPED = [
    {"full_attention": FULL, "sliding_attention": SLIDING}, {"full_attention": FULL},
    {"sliding_attention": SLIDING}, {"full_attention": FULL, "sliding_attention": None},
    {"full_attention": None, "sliding_attention": SLIDING},
    {"full_attention": {"rope_theta": 500.0}, "sliding_attention": {"rope_theta": 90.0}},
    {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}},
    {"full_attention": LINEAR, "sliding_attention": SLIDING},
    {"full_attention": FULL, "sliding_attention": LINEAR}, {"full_attention": LLAMA3, "sliding_attention": SLIDING},
    {"full_attention": YARN, "sliding_attention": SLIDING}, {"full_attention": YARN, "sliding_attention": YARN},
    {"full_attention": {**YARN, "truncate": False}, "sliding_attention": SLIDING},
    {"full_attention": YARN, "sliding_attention": SLIDING, "truncate": False},
    {"full_attention": DYNAMIC, "sliding_attention": SLIDING},
    {"full_attention": {**FULL, "partial_rotary_factor": 0.5}, "sliding_attention": SLIDING},
    {"full_attention": FULL, "sliding_attention": SLIDING, "chunked_attention": FULL},
    {"full_attention": FULL, "sliding_attention": SLIDING, "rope_theta": 70.0},
]
LAYERS = [
    REMOVED, None, [], ["full_attention"] * 3, ["sliding_attention"] * 3,
    ["full_attention", "sliding_attention", "full_attention"], ["full_attention"] * 2,
    ["chunked_attention"] * 3, "full_attention",
]
PROBABILITY = [REMOVED, None, 0.0, 0.1, "x"]
POSITIVE = [REMOVED, None, 1, 1.0, 0.5, 0, -1.0, "0.5"]
GEMMA = {
    "attn_logit_softcapping": [REMOVED, None, 0.5, 2, 30.0, 0, 0.0, -1.5, "1.5"],
    "cache_implementation": [None, "hybrid"],
    "final_logit_softcapping": [REMOVED, None, 0.5, 2, 30.0, 0, 0.0, -1.5, "2.0"],
    "hidden_act": [None, "gelu", "silu", "gelu_pytorch_tanh"],
    "hidden_activation": [REMOVED, None, "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "silu", "x"],
    "head_dim": [REMOVED, None, 0, 4, 5, 8, 12, "6"],
    "layer_types": LAYERS,
    "query_pre_attn_scalar": [REMOVED, None, 1, 24, 256, 0, -4, 9.5, "9"],
    "rope_local_base_freq": [None, 10000, 500.0, "500"],
    "sliding_window_pattern": [None, 1, 2, 3, 6, 0, -1, "2"],
    "_sliding_window_pattern": [REMOVED, None, 1, 3],
    "vision_config": [None, {"hidden_size": 8}],
    "mm_tokens_per_image": [4],
}
EXPERTS = {
    "decoder_sparse_step": [REMOVED, None, 0, 1, 2, 3, -1, "2"],
    "expert_capacity": [4],
    "first_k_dense_replace": [1],
    "mlp_only_layers": [REMOVED, None, [], [0], [1], [2], [5], [-1], 1, "1"],
    "moe_intermediate_size": [REMOVED, None, 5, 10, 20, 0, "10"],
    "n_shared_experts": [None, 1],
    "norm_topk_prob": [REMOVED, None, True, False, 0, 1, "true"],
    "num_experts": [None, 0, 2, 4, 6, 8],
    "num_experts_per_tok": [REMOVED, None, 0, 1, 3, 4, 6, 7, -1, "2", 2.0],
    "num_local_experts": [REMOVED, None, 0, 2, 4, 6, 8, "6"],
    "num_experts_per_token": [1],
    "output_router_logits": [REMOVED, None, True, "x"],
    "router_aux_loss_coef": [REMOVED, None, 0.0, 0.1, "x"],
    "router_jitter_noise": [REMOVED, None, 0.0, 0.1, "x"],
    "routed_scaling_factor": [None, 1.0, 2.0],
    "scoring_func": ["sigmoid"],
    "shared_expert_intermediate_size": [None, 8],
    "topk_group": [None, 1],
}
GPT2 = {
    "activation_function": [REMOVED, None, "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "tanh", "x", 3],
    "add_cross_attention": [REMOVED, None, True],
    "attn_pdrop": PROBABILITY, "embd_pdrop": PROBABILITY, "resid_pdrop": PROBABILITY,
    "hidden_size": [20, 24], "num_attention_heads": [1, 2, 4], "num_hidden_layers": [1, 2, 3],
    "max_position_embeddings": [64, 128, 256],
    "layer_norm_epsilon": [REMOVED, None, 1e-3, 0, 0.0, 1, -1.0, "1e-5"],
    "n_ctx": [None, 16, 128, 256], "n_embd": [REMOVED, None, 0, 16, 24, 40, "20", 20.0],
    "n_head": [REMOVED, None, 0, 1, 3, 4, 5, "2", 2.0], "n_inner": [REMOVED, None, 0, 40, 80, "48", 48.0],
    "n_layer": [REMOVED, None, 0, 1, 3, "2", 2.0], "n_positions": [REMOVED, None, 0, 16, 64, 256, "128"],
    "reorder_and_upcast_attn": [REMOVED, None, True, False],
    "scale_attn_by_inverse_layer_idx": [REMOVED, None, True, False, 0, 1],
    "scale_attn_weights": [REMOVED, None, True, False, 0, 1],
    "summary_type": [REMOVED, "mean"], "summary_first_dropout": [0.1, 0.0], "summary_use_proj": [False],
    "task_specific_params": [None, {"text-generation": {"do_sample": True}}],
    "tie_weights": [False], "moe_intermediate_size": [4],
}
PHI3 = {
    "embd_pdrop": PROBABILITY, "resid_pdrop": PROBABILITY,
    "original_max_position_embeddings": [REMOVED, None, 0, 16, 21, 22, 64, 300, "16", 16.0],
    "max_position_embeddings": [REMOVED, None, 16, 40, 512, 0, "256"],
    "partial_rotary_factor": [None, 1.0, 0.5, 0.75],
    "rope_parameters": [REMOVED, None, DEFAULT, {**DEFAULT, "partial_rotary_factor": 0.75}, LINEAR, YARN, DYNAMIC, LLAMA3] + [
        {**longrope(3), "partial_rotary_factor": 0.75, **more} for more in [
            {}, {"factor": 2.0}, {"factor": 1.0}, {"attention_factor": 1.5}, {"attention_factor": None},
            {"attention_factor": 0.0}, {"attention_factor": "1"}, {"original_max_position_embeddings": 40},
            {"rope_type": "su"}, {"rope_type": "yarn"}, {"type": "su"}, {"rope_theta": None},
            {"long_factor": [1, 2, 3]}, {"long_factor": [1.0, 2.0]}, {"long_factor": [1.0, 2.0, None]},
            {"long_factor": [1.0, 0.0, 1.0]}, {"long_factor": [1.0, -2.0, 1.0]}, {"short_factor": None},
            {"short_mscale": 1.2}, {"long_mscale": 1.3},
        ]] + [longrope(4), {**longrope(4), "partial_rotary_factor": 1.0}, longrope(3)],
    "rope_scaling": [
        {"type": kind, "short_factor": [1.0, 1.5, 2.0], "long_factor": [2.0, 3.0, 4.0], **more}
        for kind, more in [("longrope", {}), ("su", {}), ("yarn", {}), ("longrope", {"rope_theta": 50.0}),
                           ("longrope", {"original_max_position_embeddings": 16}),
                           ("longrope", {"partial_rotary_factor": 0.75})]
    ],
}
SMOLLM3 = {
    "layer_types": LAYERS,
    "no_rope_layers": [REMOVED, None, [], [1, 1, 1], [0, 0, 0], [1, 0], [1, 0, 1, 0], [True, False, True], [2, 0, 1], [1, 1, 0], "101"],
    "no_rope_layer_interval": [REMOVED, None, 0, 1, 3, "2"],
    "sliding_window": [None, 6], "use_sliding_window": [True],
}
GRANITE = {
    f"{name}": POSITIVE for name in
    ("attention_multiplier", "embedding_multiplier", "logits_scaling", "residual_multiplier")
}
OTHERS = {
    "clip_qkv": [None, 8.0], "use_qk_norm": [True, False], "qk_layernorm": [True],
    "attention_bias": [True], "layer_types": LAYERS, "rms_norm_eps": [REMOVED, None, 1e-3, 0.0],
}
MULTIMODAL = {
    "architectures": [REMOVED, ["Gemma3ForCausalLM"]], "dtype": ["bfloat16"],
    "boi_token_index": [REMOVED, None, 5], "eoi_token_index": [REMOVED, 5], "eos_token_id": [7, [1, 106]],
    "image_token_index": [REMOVED, None, 5, 1000], "image_token_id": [5],
    "final_logit_softcapping": [0.5], "hidden_size": [24], "head_dim": [8], "num_hidden_layers": [1],
    "mm_tokens_per_image": [REMOVED, 9], "model_type": [REMOVED, "gemma3_text"],
    "quantization_config": [{"quant_method": "bitsandbytes", "load_in_4bit": True}],
    "rope_theta": [500.0], "rope_scaling": [LINEAR], "rope_parameters": [TYPED[0]], "sliding_window": [3],
    "tie_word_embeddings": [REMOVED, None, True, False], "vision_config": [REMOVED, None, {}],
    "use_bidirectional_attention": [True], "text_config": [REMOVED, None, {}],
}
# Changes of `text_config`, which has the keys of gemma3_text.
WITHIN = {"gemma3-multimodal": ("text_config", [
    {"attn_logit_softcapping": 0.5}, {"final_logit_softcapping": 0.5}, {"head_dim": 8}, {"query_pre_attn_scalar": 24},
    {"sliding_window": 3}, {"sliding_window": None}, {"layer_types": ["full_attention"] * 2},
    {"layer_types": REMOVED}, {"layer_types": REMOVED, "sliding_window_pattern": 1},
    {"model_type": REMOVED}, {"model_type": "gemma3"}, {"rms_norm_eps": 1e-3},
    {"rope_parameters": TYPED[0]}, {"rope_parameters": REMOVED}, {"rope_parameters": REMOVED, "rope_theta": 900.0},
    {"rope_parameters": REMOVED, "rope_theta": 900.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    {"tie_word_embeddings": False}, {"use_bidirectional_attention": True}, {"vocab_size": 339}, {"unheard_of": 1},
    {"hidden_activation": "silu"}, {"attention_bias": True}, {"attention_dropout": 0.1}, {"dtype": "bfloat16"},
])}
# Rows are 22 tokens long: 16 positions are fewer, as 21 are, and 22 are not.
LENGTHS = {"max_position_embeddings": [REMOVED, None, 16, 21, 22, 64, 0, "40"],
           "original_max_position_embeddings": [None, 16, 64]}

# Each model's own keys, which take the place of the general ones of that name.
FAMILY_KEYS = {
    "gemma2": {**GEMMA, "rope_parameters": [REMOVED, None, *ROPES], "rope_scaling": ROPES},
    "gemma3": {**GEMMA, "rope_parameters": [REMOVED, None, *TYPED, DEFAULT], "rope_scaling": ROPES},
    "gemma3-multimodal": MULTIMODAL,
    "olmo2": {**OTHERS, "rope_parameters": [REMOVED, None, *ROPES], "rope_scaling": ROPES},
    "olmo3": {**OTHERS, "rope_parameters": [REMOVED, None, *TYPED, DEFAULT], "rope_scaling": ROPES},
    "phi3": PHI3,
    "smollm3": {**SMOLLM3, "rope_parameters": [REMOVED, None, *ROPES], "rope_scaling": ROPES},
    "gpt2": {**GPT2, "rope_parameters": [DEFAULT], "rope_scaling": [LINEAR], "rope_theta": [500.0]},
    "granite": {**GRANITE, "rope_parameters": [REMOVED, None, *ROPES], "rope_scaling": ROPES},
    "llama-yarn": {**LENGTHS, "rope_parameters": [*YARNS, *LONGROPES], "rope_scaling": YARNS[:18]},
    "llama-dynamic": {**LENGTHS, "rope_parameters": DYNAMICS, "rope_scaling": DYNAMICS},
    "qwen3_moe": {**EXPERTS, "rope_parameters": [REMOVED, None, *ROPES], "rope_scaling": ROPES[:6]},
    "qwen3_moe-fused": EXPERTS,
    "mixtral": {**EXPERTS, "rope_parameters": [REMOVED, None, *ROPES], "rope_scaling": ROPES[:6]},
}
# Only their own keys: other fixtures have the rest of the family.
ONLY_OWN = ["llama-yarn", "llama-dynamic", "qwen3_moe-fused", "gemma3-multimodal"]
OLDER = {"rope_parameters": REMOVED}
FAMILY_TOGETHER = {
    "gemma2": [
        {"layer_types": REMOVED, "num_hidden_layers": 2}, {**OLDER, "rope_theta": 100.0},
        {"sliding_window": None, "layer_types": ["full_attention"] * 3},
        {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    ],
    "gemma3": [
        {"layer_types": REMOVED, "sliding_window_pattern": 3, "_sliding_window_pattern": REMOVED},
        {"layer_types": REMOVED, "sliding_window_pattern": 1}, {"layer_types": REMOVED, "_sliding_window_pattern": 3},
        {"layer_types": REMOVED, "_sliding_window_pattern": 3, "sliding_window_pattern": 2},
        {"layer_types": REMOVED, "_sliding_window_pattern": REMOVED},
        {**OLDER, "rope_theta": 100.0}, {**OLDER, "rope_local_base_freq": 100.0},
        {**OLDER, "rope_theta": 900.0, "rope_local_base_freq": 100.0},
        {**OLDER, "rope_theta": 900.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {**OLDER, "rope_theta": 900.0, "rope_scaling": {"type": "linear", "factor": 8.0}},
        {**OLDER, "rope_theta": 900.0, "rope_scaling": {"factor": 8.0}},
        {**OLDER, "rope_theta": 900.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0, "rope_theta": 50.0}},
        {"sliding_window": None, "layer_types": ["full_attention"] * 3},
    ],
    "olmo3": [
        {**OLDER, "rope_theta": 500000.0}, {**OLDER, "rope_theta": 100.0},
        {**OLDER, "rope_theta": 500000.0, "rope_scaling": {k: v for k, v in YARN.items() if k != "rope_theta"}},
        {**OLDER, "rope_theta": 100.0, "rope_scaling": {k: v for k, v in YARN.items() if k != "rope_theta"}},
        {"layer_types": REMOVED, "num_hidden_layers": 2},
    ],
    "phi3": [
        {**OLDER, "rope_theta": 100.0}, {**OLDER, "rope_theta": 100.0, "partial_rotary_factor": 0.75},
        {**OLDER, "rope_theta": 100.0, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 16,
         "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 3, "long_factor": [2.0, 3.0, 4.0]}},
        {**OLDER, "rope_theta": 100.0, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 16,
         "rope_scaling": {"type": "su", "short_factor": [1.0] * 3, "long_factor": [2.0, 3.0, 4.0]}},
        {**OLDER, "rope_theta": 100.0, "original_max_position_embeddings": 16,
         "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 5.0]}},
        {"original_max_position_embeddings": 16, "max_position_embeddings": 16},
        {"original_max_position_embeddings": 21, "max_position_embeddings": 30},
    ],
    "smollm3": [
        {"use_sliding_window": True, "sliding_window": 6}, {"sliding_window": 6},
        {"use_sliding_window": True, "sliding_window": 6, "layer_types": REMOVED},
        {"use_sliding_window": True, "sliding_window": 6, "layer_types": ["sliding_attention"] * 3},
        {"use_sliding_window": False, "sliding_window": 6, "layer_types": ["sliding_attention"] * 3},
        {"no_rope_layers": REMOVED, "no_rope_layer_interval": REMOVED},
        {"no_rope_layers": None, "no_rope_layer_interval": 3}, {**OLDER, "rope_theta": 100.0},
    ],
    "llama-yarn": [
        {"rope_parameters": REMOVED, "rope_theta": 70.0, "rope_scaling": {"type": "yarn", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}, "original_max_position_embeddings": 16},
        {"rope_parameters": {**YARN, "factor": None}, "max_position_embeddings": 64},
        {"rope_parameters": longrope(6), "max_position_embeddings": 64},
        {"rope_parameters": longrope(6), "original_max_position_embeddings": 64},
        {"rope_scaling": {"type": "yarn", "factor": 2.0}, "rope_theta": 70.0},
    ],
    "llama-dynamic": [
        {"max_position_embeddings": 16, "rope_parameters": {**DYNAMIC, "factor": 1.0}},
        {"max_position_embeddings": 16, "rope_parameters": {**DYNAMIC, "factor": 0.5}},
        {"max_position_embeddings": 16, "rope_parameters": {**DYNAMIC, "partial_rotary_factor": 0.5}},
        {"max_position_embeddings": 16, "rope_parameters": {**DYNAMIC, "partial_rotary_factor": 0.25}},
        {"max_position_embeddings": 16, "original_max_position_embeddings": 40},
        {"rope_parameters": REMOVED, "rope_theta": 70.0, "max_position_embeddings": 16,
         "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    ],
    "qwen3_moe": [
        {"use_sliding_window": True, "sliding_window": 6}, {"num_experts": 6, "num_local_experts": REMOVED},
        {"num_experts": 4, "num_local_experts": 6}, {"decoder_sparse_step": 1, "mlp_only_layers": [0, 2]},
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ],
    "mixtral": [{"num_experts": 4, "num_local_experts": REMOVED}, {**OLDER, "rope_theta": 100.0}],
}
