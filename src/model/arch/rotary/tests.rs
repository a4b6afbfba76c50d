use std::path::Path;

use serde_json::Value;

use super::*;
use crate::error::Result;
use crate::model::arch::ConfigJson;

/// What the families of the fixture have of their own.
fn read(case: &Value) -> Result<Vec<(&'static str, Rotary)>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(&path, case["config"].to_string()).unwrap();
    let config = ConfigJson::open(&path)?;
    let head_dim = case["head_dim"].as_u64().unwrap() as usize;
    let layers = |full_theta, sliding_key, sliding_theta| {
        let keys = LayerKeys {
            full_theta,
            sliding_key,
            sliding_theta,
            max_positions: 131_072.0,
        };
        let [full, sliding] = Rotary::read_by_layer_type(&config, head_dim, keys)?;
        Ok(vec![
            ("full_attention", full),
            ("sliding_attention", sliding),
        ])
    };
    let keys = match case["family"].as_str().unwrap() {
        "gemma3_text" => return layers(1e6, Some("rope_local_base_freq"), 1e4),
        "olmo3" => return layers(5e5, None, 5e5),
        "gpt_neox" => Keys {
            theta: "rotary_emb_base",
            fraction: Some(("rotary_pct", 0.25)),
            ..Keys::default()
        },
        "phi3" => Keys {
            fraction: Some(("partial_rotary_factor", 1.0)),
            original: Some(4096.0),
            ..Keys::default()
        },
        _ => Keys::default(),
    };
    Ok(vec![("all", Rotary::read(&config, head_dim, &keys)?)])
}

/// Why configs are refused with which transformers computes, but not with all that they say.
const STRICT: [&str; 4] = [
    "has an object for full_attention",
    "takes it for full attention alone",
    "in this family the key is rope_type",
    "does not read it by layer type",
];

/// Units in the last place between two numbers.
fn ulps(a: f32, b: f32) -> u32 {
    a.to_bits().abs_diff(b.to_bits())
}

#[test]
fn frequencies_and_factors_of_all_types_are_those_of_transformers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rope.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut equal = 0;
    for case in fixture["cases"].as_array().unwrap() {
        let name = format!("{} {}", case["family"], case["config"]);
        let rotaries = match (read(case), &case["values"]) {
            (Err(_), Value::Null) => continue,
            (Err(error), _) => {
                let error = error.to_string();
                assert!(
                    STRICT.iter().any(|why| error.contains(why)),
                    "{name}: {error}"
                );
                continue;
            }
            (Ok(_), Value::Null) => panic!("{name}: transformers refuses it"),
            (Ok(rotaries), _) => rotaries,
        };
        equal += 1;
        for (layer_type, rotary) in rotaries {
            let rows = case["values"][layer_type].as_array().unwrap();
            assert_eq!(rows.len() > 1, rotary.length_class(5000) > 0, "{name}");
            for row in rows {
                let length = row["length"].as_u64().unwrap() as usize;
                let want: Vec<f32> = serde_json::from_value(row["frequencies"].clone()).unwrap();
                let got = rotary.inverse_frequencies(length);
                assert_eq!(got.len(), want.len(), "{name}");
                for (got, want) in got.iter().zip(&want) {
                    let name = format!("{name} at {length}: {got} {want}");
                    assert!(ulps(*got, *want) <= 4, "{name}");
                }
                let factor = row["factor"].as_f64().unwrap();
                assert!((rotary.attention_factor() - factor).abs() < 1e-14, "{name}");
            }
        }
    }
    assert!(equal > 110, "{equal}");
}
