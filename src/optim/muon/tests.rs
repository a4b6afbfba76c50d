use std::sync::Arc;

use candle_core::{DType, Device};
use serde_json::Value;

use super::*;
use crate::kernels::testing::{fixture, variable};
use crate::model::parameters::{Init, Params, Storage};
use crate::optim::places::placed;
use crate::optim::{Method, Optimizer, OptimizerConfig};

fn entry(name: &str, shape: &[usize]) -> Entry {
    Entry {
        name: name.to_owned(),
        shape: shape.to_vec(),
        transposed: false,
        range: 0..0,
        decay: shape.len() > 1,
        trainable: true,
        init: Init::Normal,
        storage: Storage::Flat,
    }
}

fn params(layout: &Arc<Layout>, dtype: DType, values: impl Fn(usize) -> f32) -> Params {
    let mut params = Params::zeros(layout.clone(), dtype, &Device::Cpu).unwrap();
    let values: Vec<f32> = (0..layout.len).map(values).collect();
    params.set(0, &values).unwrap();
    params
}

/// Weights and gradients of `scripts/make_optimizer_oracle.py`.
fn start(i: usize) -> f32 {
    ((i * 613 % 997) as f64 - 498.0) as f32 / 498.0
}

fn gradient(i: usize, step: usize) -> f32 {
    let scales = [1.0, 10.0, 100.0, 1000.0, 10000.0];
    let x = ((i * 7919 + step * 104_729) % 2003) as f64 - 1001.0;
    let shown = !(i + step).is_multiple_of(7);
    if shown {
        (x / 1001.0 / scales[i % 5]) as f32
    } else {
        0.0
    }
}

fn optimizer(weights: &Params) -> Optimizer {
    let config = OptimizerConfig {
        optim: Method::Muon,
        max_grad_norm: 0.0,
        weight_decay: Some(0.1),
        ..OptimizerConfig::default()
    };
    Optimizer::new(&config, weights).unwrap()
}

#[test]
fn muon_follows_its_rule_of_wide_and_tall_matrices() {
    let text = std::fs::read_to_string(fixture("oracle/optimizers.json")).unwrap();
    let oracle: Value = serde_json::from_str(&text).unwrap();
    for matrix in oracle["muon"].as_array().unwrap() {
        let side = |i: usize| matrix["shape"][i].as_u64().unwrap() as usize;
        let shape = [side(0), side(1)];
        for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-5)] {
            // The second of two experts of one parameter, and a matrix of its own.
            let two = [2, shape[0], shape[1]];
            for (shape, skip) in [(&shape[..], 0), (&two[..], shape[0] * shape[1])] {
                let layout = Arc::new(placed(vec![entry("h.0.w", shape)]));
                let back = |i: usize| i.saturating_sub(skip);
                let mut weights = params(&layout, dtype, |i| start(back(i)));
                let mut optimizer = optimizer(&weights);
                for step in 1..=6 {
                    let gradients = params(&layout, dtype, |i| gradient(back(i), step));
                    optimizer.step(&mut weights, &gradients, 0.02).unwrap();
                }
                let got = weights.values(skip..layout.len).unwrap();
                let want = matrix["weights"].as_array().unwrap();
                assert_eq!(got.len(), want.len());
                for (got, want) in got.iter().zip(want) {
                    let want = want.as_f64().unwrap();
                    assert!((f64::from(*got) - want).abs() < tolerance, "{got} {want}");
                }
            }
        }
    }
}

#[test]
fn singular_values_become_about_one() {
    let layout = Arc::new(placed(vec![entry("h.0.w", &[24, 40])]));
    let random: Vec<f64> = variable(1, &[layout.len]).to_vec1().unwrap();
    let x = params(&layout, DType::F64, |i| random[i] as f32);
    let norm = kernel::squared_norm(x.flat()).unwrap().sqrt();
    let x = (x.view(0) / norm).unwrap();
    let x = orthogonalized(x).unwrap();
    let gram: Vec<Vec<f64>> = x.matmul(&x.t().unwrap()).unwrap().to_vec2().unwrap();
    // Of a matrix whose singular values are in 0.5 .. 1.5 no row is shorter or longer.
    for (i, row) in gram.iter().enumerate() {
        assert!((0.25..2.25).contains(&row[i]), "{}", row[i]);
        assert!(row.iter().all(|x| x.abs() < 2.0));
    }
}

#[test]
fn matrices_of_blocks_are_muons_and_the_rest_adamws() {
    let names = [
        ("gpt_neox.layers.11.attention.dense.weight", 2, true),
        ("h.0.attn.c_attn.weight", 2, true),
        ("model.layers.0.mlp.experts.gate_up_proj", 3, true),
        ("model.layers.0.mlp.gate_proj.bias", 1, false),
        ("model.layers.0.input_layernorm.weight", 1, false),
        ("model.embed_tokens.weight", 2, false),
        ("lm_head.weight", 2, false),
        ("wpe.weight", 2, false),
    ];
    for (name, dims, hidden) in names {
        assert_eq!(is_hidden(&entry(name, &vec![4; dims])), hidden, "{name}");
    }
    // What is not Muon's goes exactly where AdamW takes it.
    let entries = ["embed.weight", "h.0.w"].map(|name| entry(name, &[5, 7]));
    let layout = Arc::new(placed(entries.to_vec()));
    let run = |optim: Method| {
        let mut weights = params(&layout, DType::F32, start);
        let config = OptimizerConfig {
            optim,
            weight_decay: Some(0.1),
            ..OptimizerConfig::default()
        };
        let mut optimizer = Optimizer::new(&config, &weights).unwrap();
        for step in 1..4 {
            let gradients = params(&layout, DType::F32, |i| gradient(i, step));
            optimizer.step(&mut weights, &gradients, 1e-2).unwrap();
        }
        weights.values(0..70).unwrap()
    };
    let (muon, adamw) = (run(Method::Muon), run(Method::AdamW));
    assert_eq!(muon[..35], adamw[..35]);
    assert!(muon[35..].iter().zip(&adamw[35..]).all(|(a, b)| a != b));
}

#[test]
fn a_gradient_of_zeros_moves_nothing_but_by_decay() {
    let layout = Arc::new(placed(vec![entry("h.0.w", &[3, 4])]));
    let mut weights = params(&layout, DType::F32, start);
    let before = weights.values(0..12).unwrap();
    let zeros = params(&layout, DType::F32, |_| 0.0);
    optimizer(&weights).step(&mut weights, &zeros, 0.5).unwrap();
    for (after, before) in weights.values(0..12).unwrap().iter().zip(before) {
        assert!((after - before * 0.95).abs() < 1e-7, "{after} {before}");
    }
}

/// Pythia-70m's matrices of a block by hand.
#[test]
fn operations_and_scratch_by_hand() {
    let layout = placed(vec![
        entry("embed.weight", &[50_304, 512]),
        entry("h.0.dense", &[512, 512]),
        entry("h.0.down", &[512, 2048]),
        entry("h.0.qkv", &[1536, 512]),
    ]);
    let per = |long: f64| 5.0 * (4.0 * 512.0 * 512.0 * long + 2.0 * 512f64.powi(3));
    assert_eq!(flops(&layout), per(512.0) + per(2048.0) + per(1536.0));
    assert_eq!(scratch(&layout), 2 * 512 * 2048 + 3 * 512 * 512);
}
