//! The least time, the bytes behind it, and what a step is expected to take.

use super::*;
use crate::plan::time::elementwise_bytes;

#[test]
fn time_is_a_sum_of_three() {
    let arch = arch(PYTHIA);
    let pairs: Vec<Example> = (0..64).map(|_| pair(124, 44, 43)).collect();
    let gpu = Device::named("h200", crate::config::Dtype::Bf16).unwrap();
    let config = config(&[
        "model.dtype=bf16",
        "batch.batch_size=64",
        "run.max_steps=10",
    ]);
    let rows = rows(&config, &arch, &pairs);
    let plan = plan(&config, &arch, &pairs, &gpu).unwrap();
    let time = plan.time.unwrap();
    assert_eq!(time.step.products, plan.flops.total.step / 790e12);
    assert_eq!(time.step.optimizer, 38.0 * 2_775_208_960.0 / 4.8e12);
    let moved = elementwise_bytes(&config, &gpu, &arch, 0, &rows.trained);
    let bytes = moved.blocks(false) + moved.head();
    assert_eq!(time.step.elementwise, bytes / 4.8e12);
    assert!((time.training - 10.0 * time.step.total()).abs() < 1e-9);
    // The column of 64 rows, once; a forward pass with nothing of the optimizer.
    let scoring = plan.flops.row.forward * 64.0 / 790e12 + moved.scoring() / 4.8e12;
    assert!((time.scoring - scoring).abs() < 1e-9);
    assert_eq!(time.evaluation, 0.0);
    // At most 241 pairs a second by products alone.
    let rate = 64.0 / time.step.products;
    assert!(rate > 241.0 && rate < 247.0, "{rate}");
}

/// By hand, of a token in a block of Pythia-2.8B in bf16: norms, biases, rotations, sums, activations
/// and the embedding.
#[test]
fn bytes_moved_by_hand() {
    let arch = arch(PYTHIA);
    let gpu = Device::named("h200", crate::config::Dtype::Bf16).unwrap();
    let config = config(&["model.dtype=bf16"]);
    let work = Work {
        tokens: 1.0,
        queries: 1.0,
        predictions: 1.0,
        ..Work::default()
    };
    let moved = elementwise_bytes(&config, &gpu, &arch, 0, &work);
    let (stream, normed, inner, projected) = (10_240.0, 5_120.0, 20_480.0, 15_360.0);
    let (rotated, logits) = (2.0 * 2.0 * 64.0 * 20.0, 4.0 * 50_304.0);
    let biases = projected + inner;
    let block = 2.0 * (stream + normed) + biases + rotated + 2.0 * stream + 2.0 * inner;
    assert_eq!(moved.forward, 32.0 * block + stream + normed);
    assert_eq!(moved.recompute, 31.0 * block);
    assert_eq!(
        (moved.logits, moved.logits_backward),
        (logits, 1.5 * logits)
    );
    let norms = 2.0 * (stream + normed + 4.0 * stream);
    // The sums of their gradients also read those of two biases of the stream's width.
    let biases = biases + 2.0 * normed;
    let (cast, cleared) = (stream + normed, projected);
    let block = norms + cleared + rotated + cast + biases + 4.0 * inner;
    assert_eq!(moved.backward, 32.0 * block + 3.0 * stream);
    let frozen = elementwise_bytes(&config, &gpu, &arch, 31, &work);
    assert_eq!((frozen.backward, frozen.recompute), (block, 0.0));
}

/// A family without biases, with separate projections and two branches in a row.
#[test]
fn bytes_moved_by_hand_without_biases() {
    let arch = arch(LLAMA);
    let gpu = Device::named("h200", crate::config::Dtype::F32).unwrap();
    let work = Work {
        tokens: 1.0,
        queries: 1.0,
        ..Work::default()
    };
    let moved = elementwise_bytes(&config(&[]), &gpu, &arch, 0, &work);
    let (stream, projected, inner) = (16_384.0, 4.0 * 6_144.0, 4.0 * 14_336.0);
    let rotated = 2.0 * 4.0 * 40.0 * 128.0;
    let block = 2.0 * 2.0 * stream + projected + rotated + 2.0 * 2.0 * stream + 3.0 * inner;
    assert_eq!(moved.forward, 32.0 * block + 2.0 * stream);
    // In f32 a gradient is no copy.
    let block = 2.0 * 6.0 * stream + projected + rotated + 2.0 * 3.0 * inner;
    assert_eq!(moved.backward, 32.0 * block + 3.0 * stream);
    assert_eq!(moved.head(), 0.0);
}

#[test]
fn a_moving_reference_costs_from_its_first_move_on() {
    let arch = arch(PYTHIA);
    let gpu = Device::named("h200", crate::config::Dtype::Bf16).unwrap();
    let pairs: Vec<Example> = (0..64).map(|_| pair(124, 44, 43)).collect();
    let sets = ["model.dtype=bf16", "run.max_steps=10"];
    let frozen = plan(&config(&sets), &arch, &pairs, &gpu).unwrap();
    let sets = [&sets[..], &["reference.steps=4"]].concat();
    let moving = plan(&config(&sets), &arch, &pairs, &gpu).unwrap();
    let online = moving.flops.step.reference;
    assert_eq!(online, frozen.flops.step.forward);
    assert_eq!(moving.flops.run.reference, 6.0 * online);
    let (frozen, moving) = (frozen.time.unwrap(), moving.time.unwrap());
    let more = moving.training - frozen.training;
    assert!((more - 6.0 * frozen.scoring).abs() < 1e-9, "{more}");
}

/// One head and a block of width 2 in f32, by hand.
#[test]
fn the_parts_of_a_tiny_step_by_hand() {
    let arch = arch(
        r#"{"model_type": "llama", "hidden_size": 2, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": 3, "vocab_size": 5,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 16, "tie_word_embeddings": false}"#,
    );
    let device = Device::described("g", 1.0, Some((1e-12, 1e-12))).unwrap();
    let config = config(&["batch.batch_size=1"]);
    // One token, then two answers of one token each: all is in the last block, where one query reads one
    // token, and two tokens are predicted of it.
    let parts = plan(&config, &arch, &[pair(1, 1, 1)], &device)
        .unwrap()
        .parts
        .unwrap();
    let work = rows(&config, &arch, &[pair(1, 1, 1)]).trained;
    assert_eq!(
        (work.queries, work.predictions, work.last_pairs),
        (1.0, 2.0, 1.0)
    );
    let (qkv, rest) = (2.0 * 2.0 * 6.0, 2.0 * 2.0 * (2.0 + 6.0 + 3.0));
    assert_eq!(parts.matmuls.flops, 3.0 * (qkv * work.tokens + rest));
    assert_eq!(parts.attention.flops, 3.5 * 4.0 * 2.0);
    assert_eq!(parts.head.flops, 3.0 * 2.0 * 2.0 * 5.0 * 2.0);
    // Statistics read logits, their gradient reads and writes them.
    assert_eq!(parts.head.bytes, 3.0 * 4.0 * 5.0 * 2.0);
    let parameters = Parameters::of(&arch).total as f64;
    assert_eq!(parts.optimizer.bytes, 36.0 * parameters);
    let seconds = |part: Part, rate: f64| part.flops / rate;
    assert_eq!(parts.matmuls.seconds, seconds(parts.matmuls, 0.85));
    assert_eq!(parts.attention.seconds, seconds(parts.attention, 0.125));
    assert_eq!(parts.optimizer.seconds, parts.optimizer.bytes / 0.8);
    assert_eq!(parts.elementwise.seconds, parts.elementwise.bytes / 0.7);
    // A wait for the tile, and one for the norm.
    assert_eq!(parts.host.seconds, 0.3e-6 * work.tokens + 0.1e-3 * 2.0);
}

#[test]
fn parts_add_up_to_what_is_planned_and_grow_with_it() {
    let of = |name: &str, sets: &[&str], count: usize| {
        let gpu = Device::named(name, crate::config::Dtype::Bf16).unwrap();
        let pairs: Vec<Example> = (0..count).map(|_| pair(124, 44, 43)).collect();
        let sets = [&["model.dtype=bf16", "batch.batch_size=64"], sets].concat();
        let plan = plan(&config(&sets), &arch(PYTHIA), &pairs, &gpu).unwrap();
        let (parts, time) = (plan.parts.unwrap(), plan.time.unwrap());
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-12 * b, "{a} {b}");
        let sum = |of: fn(&Part) -> f64| parts.named().iter().map(|(_, part)| of(part)).sum();
        near(parts.total.flops, sum(|part| part.flops));
        near(parts.total.bytes, sum(|part| part.bytes));
        near(parts.total.seconds, sum(|part| part.seconds));
        near(parts.total.flops, plan.flops.total.step);
        let bytes = parts.total.bytes - parts.optimizer.bytes;
        near(
            bytes,
            time.step.elementwise * plan.device.rates.unwrap().bandwidth,
        );
        assert!(parts.total.seconds > time.step.total());
        parts
    };
    let base = of("h200", &[], 64);
    let slower = of("h100", &[], 64);
    assert_eq!(base.matmuls, slower.matmuls);
    assert!(slower.elementwise.seconds > base.elementwise.seconds);
    assert!(slower.optimizer.seconds > base.optimizer.seconds);
    let half = of("h200", &[], 32);
    for ((name, all), (_, half)) in base.named().into_iter().zip(half.named()) {
        match name {
            "optimizer" => assert_eq!(all, half),
            _ => assert!(all.seconds > half.seconds, "{name}"),
        }
    }
    let recomputed = of("h200", &["model.recompute=true"], 64);
    let online = of("h200", &["reference.steps=8"], 64);
    for more in [recomputed, online] {
        assert!(more.matmuls.flops > base.matmuls.flops);
        assert!(more.attention.flops > base.attention.flops);
        assert!(more.elementwise.bytes > base.elementwise.bytes);
    }
    assert_eq!(recomputed.head, base.head);
    assert!(online.head.bytes > base.head.bytes);
    let frozen = of("h200", &["model.trainable=[\"*\", \"!*.mlp.*\"]"], 64);
    assert!(frozen.matmuls.flops < base.matmuls.flops);
    assert!(frozen.optimizer.bytes < base.optimizer.bytes);
}
