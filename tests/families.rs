//! `config.json` of every family: what it means, what is refused.

use candle_core::Device;
use expo::error::Result;
use expo::model::arch::{Architecture, ConfigJson};
use expo::model::family::{FAMILIES, family};
use expo::model::init::fresh;
use expo::model::parameters::Layout;
use serde_json::{Value, json};

/// A small config of the family, with more keys.
fn read(model_type: &str, more: Value) -> Result<Architecture> {
    let mut config = json!({
        "model_type": model_type, "vocab_size": 20, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    });
    let Value::Object(more) = more else {
        panic!("{more} is no object");
    };
    config.as_object_mut().unwrap().extend(more);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let config = ConfigJson::open(&path)?;
    (family(&config)?.architecture)(&config)
}

fn windows(model_type: &str, more: Value) -> Vec<Option<usize>> {
    read(model_type, more).unwrap().windows
}

#[test]
fn windows_are_as_in_transformers() {
    let all = |window| vec![window; 4];
    assert_eq!(windows("llama", json!({"sliding_window": 8})), all(None));
    assert_eq!(windows("mistral", json!({})), all(Some(4096)));
    let null = json!({"sliding_window": null});
    assert_eq!(windows("mistral", null), all(None));
    let eight = json!({"sliding_window": 8});
    assert_eq!(windows("mistral", eight.clone()), all(Some(8)));

    for qwen in ["qwen2", "qwen3"] {
        let with = |more: Value| {
            let mut config = json!({"use_sliding_window": true, "sliding_window": 8});
            config
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            windows(qwen, config)
        };
        assert_eq!(windows(qwen, json!({})), all(None));
        assert_eq!(windows(qwen, eight.clone()), all(None));
        assert_eq!(with(json!({})), all(None), "the first 28 layers see all");
        assert_eq!(with(json!({"max_window_layers": 0})), all(Some(8)));
        let last = [None, None, None, Some(8)];
        assert_eq!(with(json!({"max_window_layers": 3})), last);
        let (slide, full) = ("sliding_attention", "full_attention");
        let kinds = json!({"max_window_layers": 3, "layer_types": [slide, full, full, slide]});
        assert_eq!(with(kinds), [Some(8), None, None, Some(8)]);
        let none = json!({"sliding_window": null, "max_window_layers": 0});
        assert_eq!(with(none), all(None));
        let default = json!({"use_sliding_window": true, "max_window_layers": 2});
        let want = [None, None, Some(4096), Some(4096)];
        assert_eq!(windows(qwen, default), want);
    }
}

#[test]
fn windows_of_newer_families_are_as_in_transformers() {
    let eight = || json!({"sliding_window": 8});
    let with = |more: Value| {
        let mut config = eight();
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config
    };
    let (slide, full) = ("sliding_attention", "full_attention");
    let every_other = [Some(8), None, Some(8), None];
    assert_eq!(windows("gemma2", eight()), every_other);
    let default = [Some(4096), None, Some(4096), None];
    assert_eq!(windows("gemma2", json!({})), default);
    let kinds = json!({"layer_types": [full, full, slide, slide]});
    let last = [None, None, Some(8), Some(8)];
    for family in ["gemma2", "gemma3_text", "olmo3"] {
        assert_eq!(windows(family, with(kinds.clone())), last, "{family}");
    }
    assert_eq!(windows("gemma3_text", eight()), [Some(8); 4]);
    let pattern = json!({"sliding_window_pattern": 2, "_sliding_window_pattern": 3});
    assert_eq!(windows("gemma3_text", with(pattern)), every_other);
    let fourth = [Some(8), Some(8), Some(8), None];
    assert_eq!(windows("olmo3", eight()), fourth);
    assert_eq!(windows("olmo2", eight()), [None; 4]);
    assert_eq!(windows("granite", eight()), [None; 4]);
    assert_eq!(windows("phi3", json!({})), [None; 4]);
    assert_eq!(windows("phi3", eight()), [Some(8); 4]);
    assert_eq!(windows("smollm3", eight()), [None; 4]);
    let used = |more: Value| {
        let mut config = with(more);
        config["use_sliding_window"] = true.into();
        windows("smollm3", config)
    };
    let unrotated = [None, None, None, Some(8)];
    assert_eq!(used(json!({})), unrotated);
    let list = json!({"no_rope_layers": [0, 1, 0, 1]});
    assert_eq!(used(list), [Some(8), None, Some(8), None]);
    assert_eq!(used(kinds), last);
}

#[test]
fn rotary_is_by_layer_as_in_transformers() {
    let layers = |model_type: &str, more: Value| {
        let positions = read(model_type, more).unwrap().positions;
        let thetas: Vec<_> = positions.tables().iter().map(|it| it.theta).collect();
        let of_layer = |layer| positions.table(layer).map(|table: usize| thetas[table]);
        [0, 1, 2, 3].map(of_layer)
    };
    let (global, local, smollm) = (Some(1e6), Some(1e4), Some(2e6));
    let kinds = || {
        let (slide, full) = ("sliding_attention", "full_attention");
        json!([slide, full, slide, full])
    };
    let gemma = layers("gemma3_text", json!({"layer_types": kinds()}));
    assert_eq!(gemma, [local, global, local, global]);
    let older = json!({"layer_types": kinds(), "rope_local_base_freq": 5.0, "rope_theta": 7.0});
    let gemma = layers("gemma3_text", older);
    assert_eq!(gemma, [Some(5.0), Some(7.0), Some(5.0), Some(7.0)]);
    assert_eq!(layers("gemma2", json!({})), [local; 4]);
    assert_eq!(layers("olmo3", json!({})), [Some(5e5); 4]);
    let tables = read("olmo3", json!({})).unwrap().positions;
    assert_eq!(tables.tables().len(), 1, "both kinds rotate alike");
    let none_in_fourth = [smollm, smollm, smollm, None];
    assert_eq!(layers("smollm3", json!({})), none_in_fourth);
    let interval = json!({"no_rope_layer_interval": 2, "no_rope_layers": null});
    assert_eq!(layers("smollm3", interval), [smollm, None, smollm, None]);
    assert_eq!(layers("gpt2", json!({})), [None; 4]);
}

#[test]
fn silence_means_what_it_means_in_transformers() {
    let shape = |model_type: &str, more: Value| {
        let arch = read(model_type, more).unwrap();
        (arch.kv_heads, arch.head_dim, arch.max_positions)
    };
    let none = || json!({"num_key_value_heads": null});
    assert_eq!(shape("llama", none()), (4, 6, 2048));
    assert_eq!(shape("mistral", none()), (4, 6, 131_072));
    assert_eq!(shape("qwen2", none()), (4, 6, 32_768));
    assert_eq!(shape("qwen3", none()), (4, 128, 32_768));
    assert_eq!(shape("qwen3", json!({"head_dim": 8})).1, 8);
    let absent = |model_type: &str| {
        let arch = read(model_type, json!({})).unwrap();
        (arch.head_dim, arch.max_positions, arch.tied, arch.zero_row)
    };
    assert_eq!(absent("gemma2"), (256, 8192, true, Some(0)));
    assert_eq!(absent("gemma3_text"), (256, 131_072, true, Some(0)));
    assert_eq!(absent("gpt2"), (6, 1024, true, None));
    assert_eq!(absent("granite"), (6, 2048, false, None));
    assert_eq!(absent("olmo2"), (6, 2048, false, Some(1)));
    assert_eq!(absent("olmo3"), (6, 2048, false, Some(1)));
    // The padding token lies beyond the 20 ids.
    assert_eq!(absent("phi3"), (6, 4096, false, None));
    assert_eq!(absent("smollm3"), (6, 32_768, true, None));
    assert_eq!(shape("olmo2", none()).0, 4);
    let gemma = read("gemma2", json!({})).unwrap();
    assert_eq!(gemma.attention_scale, 1.0 / 16.0);
    let caps = (gemma.attention_softcap, gemma.logit_softcap);
    assert_eq!(caps, (Some(50.0), Some(30.0)));
    let no_cap = json!({"final_logit_softcapping": null});
    assert_eq!(read("gemma2", no_cap).unwrap().logit_softcap, None);
    let gemma = read("gemma3_text", json!({"attn_logit_softcapping": 9.0})).unwrap();
    assert_eq!((gemma.attention_softcap, gemma.logit_softcap), (None, None));
    assert_eq!(gemma.multipliers.embedding, 24f64.sqrt());
    assert_eq!(read("granite", json!({})).unwrap().attention_scale, 1.0);
    let gpt2 = read("gpt2", json!({"n_inner": 30, "n_embd": 8})).unwrap();
    assert_eq!((gpt2.ffn.width(), gpt2.hidden_size), (30, 24));
    assert_eq!(read("gpt2", json!({})).unwrap().ffn.width(), 96);

    let biases = |model_type: &str| {
        let layout = Layout::new(&read(model_type, json!({})).unwrap());
        let bias = |part: &str| {
            let name = format!("model.layers.3.self_attn.{part}.bias");
            layout.find(&name).is_some()
        };
        ["q_proj", "k_proj", "v_proj", "o_proj", "q_norm"].map(bias)
    };
    for model_type in ["llama", "mistral", "qwen3"] {
        assert_eq!(biases(model_type), [false; 5], "{model_type}");
    }
    assert_eq!(biases("qwen2"), [true, true, true, false, false]);
    let layout = Layout::new(&read("qwen3", json!({})).unwrap());
    let norm = layout.id("model.layers.3.self_attn.k_norm.weight");
    assert_eq!(layout.entries[norm].shape, [128]);
    assert!(!layout.entries[norm].decay);
}

#[test]
fn what_would_be_another_model_is_refused() {
    let slide = "sliding_attention";
    let kinds = |list: &[&str]| json!({"use_sliding_window": true, "layer_types": list});
    for (model_type, more, words) in [
        ("gemma", json!({}), ["\"gemma\"", "mixtral, olmo2, olmo3"]),
        (
            "qwen2",
            json!({"rope_scaling": {"type": "yarn"}}),
            ["`factor` is missing", "a number"],
        ),
        (
            "qwen2",
            json!({"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 1]}}),
            ["mrope", "llama3, yarn, longrope and dynamic"],
        ),
        ("qwen2", json!({"use_mrope": true}), ["`use_mrope`", "text"]),
        (
            "qwen2",
            json!({"dual_chunk_attention_config": {"chunk_size": 8}}),
            ["`dual_chunk_attention_config`", "remove the key"],
        ),
        (
            "qwen2",
            json!({"layer_types": vec![slide; 4]}),
            ["layer_types", "use_sliding_window = true"],
        ),
        ("qwen3", kinds(&[slide; 3]), ["layer_types", "4 strings"]),
        (
            "qwen3",
            kinds(&["chunked_attention"; 4]),
            ["chunked_attention", slide],
        ),
        (
            "qwen3",
            json!({"layer_types": "all"}),
            ["`layer_types` is \"all\"", "4 strings"],
        ),
        ("qwen3", json!({"head_dim": 7}), ["7 wide", "even"]),
        (
            "gpt_neox",
            json!({"rotary_pct": 2}),
            ["rotary_pct", "(0, 1]"],
        ),
        (
            "gpt_neox",
            json!({"rope_parameters": {"partial_rotary_factor": "all"}}),
            ["partial_rotary_factor", "number"],
        ),
        (
            "qwen3",
            json!({"use_sliding_window": true, "max_window_layers": -1}),
            ["`max_window_layers` is -1", "0 or a positive integer"],
        ),
        (
            "mistral",
            json!({"sliding_window": 0}),
            ["`sliding_window` is 0", "positive"],
        ),
        (
            "mistral",
            json!({"layer_types": vec![slide; 4]}),
            ["layer_types", "another family"],
        ),
        ("mistral", json!({"hidden_act": "gelu"}), ["gelu", "silu"]),
        (
            "mistral",
            json!({"num_key_value_heads": 3}),
            ["4 heads", "3 key-value heads"],
        ),
        (
            "llama",
            json!({"final_logit_softcapping": 30.0}),
            ["`final_logit_softcapping` = 30.0", "another model"],
        ),
        (
            "gemma2",
            json!({"hidden_activation": "silu"}),
            ["silu", "gelu_pytorch_tanh"],
        ),
        (
            "gemma2",
            json!({"sliding_window": null}),
            ["sliding_attention", "takes a sliding_window"],
        ),
        (
            "gemma2",
            json!({"attn_logit_softcapping": 0}),
            ["`attn_logit_softcapping` is 0", "above 0"],
        ),
        (
            "gemma3_text",
            json!({"use_bidirectional_attention": true}),
            ["`use_bidirectional_attention`", "causal"],
        ),
        (
            "gemma3",
            json!({"text_config": {"model_type": "llama"}}),
            ["model_type", "gemma3_text"],
        ),
        (
            "gemma3",
            json!({"text_config": {"final_logit_softcapping": 3.0}}),
            ["`final_logit_softcapping` = 3.0", "no soft cap"],
        ),
        ("gemma3", json!({}), ["`text_config` is missing", "object"]),
        (
            "gpt2",
            json!({"scale_attn_by_inverse_layer_idx": true}),
            ["`scale_attn_by_inverse_layer_idx`", "alike"],
        ),
        (
            "gpt2",
            json!({"add_cross_attention": true}),
            ["`add_cross_attention`", "causal"],
        ),
        (
            "gpt2",
            json!({"activation_function": "relu"}),
            ["relu", "gelu_new"],
        ),
        (
            "gpt2",
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
            ["`rope_scaling`", "learned"],
        ),
        (
            "granite",
            json!({"logits_scaling": 0}),
            ["`logits_scaling` is 0", "above 0"],
        ),
        (
            "smollm3",
            json!({"no_rope_layers": [1, 0]}),
            ["`no_rope_layers` = [1,0]", "4 numbers"],
        ),
        (
            "smollm3",
            json!({"layer_types": vec![slide; 4], "sliding_window": 8}),
            ["layer_types", "use_sliding_window = true"],
        ),
    ] {
        let error = read(model_type, more).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let message = error.to_string();
        for word in words {
            assert!(message.contains(word), "{word} in: {message}");
        }
        let places = message.matches("config.json").count();
        assert_eq!(places, 1, "one place in: {message}");
    }
}

#[test]
fn fresh_models_are_as_the_families_initialize_them() {
    let deviation = |model_type: &str, name: &str| {
        let more =
            json!({"hidden_size": 64, "head_dim": 16, "n_inner": 128, "intermediate_size": 128});
        let arch = read(model_type, more).unwrap();
        let model = fresh(arch, 0, &Device::Cpu).unwrap();
        let layout = model.weights().layout();
        let range = layout.entries[layout.id(name)].range.clone();
        let values = model.weights().values(range).unwrap();
        let squares = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        (squares / values.len() as f64).sqrt()
    };
    let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 0.05, "{got} {want}");
    near(
        deviation("gpt2", "transformer.h.2.attn.c_attn.weight"),
        0.02,
    );
    near(deviation("gpt2", "transformer.wpe.weight"), 0.02);
    let scaled = 0.02 / 8f64.sqrt();
    near(
        deviation("gpt2", "transformer.h.2.attn.c_proj.weight"),
        scaled,
    );
    near(
        deviation("gpt2", "transformer.h.2.mlp.c_proj.weight"),
        scaled,
    );
    near(
        deviation("olmo2", "model.layers.1.mlp.down_proj.weight"),
        0.02,
    );
    assert_eq!(deviation("gpt2", "transformer.ln_f.weight"), 1.0);
    assert_eq!(
        deviation("olmo2", "model.layers.0.self_attn.q_norm.weight"),
        1.0
    );
    for family in ["gemma2", "gemma3_text"] {
        assert_eq!(deviation(family, "model.norm.weight"), 0.0);
    }
    assert_eq!(
        deviation("gemma3_text", "model.layers.3.self_attn.k_norm.weight"),
        0.0
    );
}

#[test]
fn the_help_of_init_names_every_family() {
    let init = std::process::Command::new(env!("CARGO_BIN_EXE_expo"))
        .args(["init", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(init.stdout).unwrap();
    for family in FAMILIES {
        assert!(help.contains(family.model_type), "{}", family.model_type);
    }
}
