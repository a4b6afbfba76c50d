//! `config.json` of every family: what it means, what is refused.

use expo::error::Result;
use expo::model::arch::{Architecture, ConfigJson};
use expo::model::family::{FAMILIES, family};
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
        (
            "qwen3_moe",
            json!({}),
            ["\"qwen3_moe\"", "mistral, qwen2, qwen3"],
        ),
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
