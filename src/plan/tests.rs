//! Figures against numbers derived by hand, and against what a real forward pass keeps.

use std::path::Path;

use candle_core::{DType, Device as Place};

use super::memory::Bytes;
use super::time::{elementwise_bytes, update_bytes};
use super::*;
use crate::data::pack::Packed;
use crate::data::{Example, Response};
use crate::loss::Role;
use crate::model::arch::ConfigJson;
use crate::model::family::family;
use crate::model::weights::ModelFolder;

const PYTHIA: &str = r#"{"model_type": "gpt_neox", "hidden_size": 2560, "num_hidden_layers": 32,
    "num_attention_heads": 32, "intermediate_size": 10240, "vocab_size": 50304, "rotary_pct": 0.25,
    "max_position_embeddings": 2048, "tie_word_embeddings": false}"#;

const LLAMA: &str = r#"{"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
    "vocab_size": 128256, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 8192, "tie_word_embeddings": false}"#;

/// Where everything is trained.
fn all(arch: &Architecture) -> Skipped {
    Skipped::of(arch, &Layout::new(arch))
}

fn arch(json: &str) -> Architecture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, json).unwrap();
    let config = ConfigJson::open(&path).unwrap();
    (family(&config).unwrap().architecture)(&config).unwrap()
}

fn config(sets: &[&str]) -> Config {
    let text = "[model]\nmodel_name_or_path = \"m\"\n[data]\nformat = \"pairs\"\ntrain = \"t\"\n\
                [loss.dpo]\n[run]\noutput_dir = \"o\"\n";
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::parse(text, &sets).unwrap()
}

fn pair(prompt: usize, chosen: usize, rejected: usize) -> Example {
    let response = |role, length| Response::new(role, vec![0; length]);
    Example {
        row: 0,
        prompt: vec![0; prompt],
        responses: vec![
            response(Role::Chosen, chosen),
            response(Role::Rejected, rejected),
        ],
        preference: None,
    }
}

fn split(config: &Config, arch: &Architecture, pairs: &[Example]) -> Split {
    let examples = pairs.iter().cloned().map(Ok);
    Split::count(examples, arch, &config.loss.needs(), false).unwrap()
}

fn rows(config: &Config, arch: &Architecture, pairs: &[Example]) -> Rows {
    Rows::new(config, split(config, arch, pairs), None, None).unwrap()
}

fn plan(config: &Config, arch: &Architecture, pairs: &[Example], device: &Device) -> Result<Plan> {
    let models = Models {
        policy: arch,
        layout: &layout(config, arch)?,
        reference: arch,
    };
    Plan::new(config, &models, &rows(config, arch, pairs), device)
}

#[test]
fn parameters_are_those_of_known_models() {
    // Of a block 12 h^2 in matrices, 9 h in biases and 4 h in norms; a final norm of 2 h.
    let h = 2560;
    let pythia = Parameters::of(&arch(PYTHIA));
    assert_eq!(pythia.embedding, 50304 * h);
    assert_eq!(pythia.blocks, 32 * (12 * h * h + 13 * h));
    assert_eq!(pythia.head, 50304 * h + 2 * h);
    assert_eq!(pythia.total, 2_775_208_960);
    assert_eq!(Parameters::of(&arch(LLAMA)).total, 8_030_261_248);
}

/// Mean lengths of Anthropic's HH: a prompt of 124, answers of 87 together. Without the trim of the
/// last block, which is put back here by hand, 3.28 and 9.15 TFLOP for a pair.
#[test]
fn operations_of_a_pair_of_hh() {
    for (json, tera) in [(PYTHIA, 3.28), (LLAMA, 9.15)] {
        let arch = arch(json);
        let config = config(&[]);
        let rows = rows(&config, &arch, &[pair(124, 44, 43)]);
        let work = rows.trained;
        // The last token of the prompt and all of each answer but its last.
        let (tokens, queries) = (124.0 + 87.0, 1.0 + 43.0 + 42.0);
        assert_eq!((work.tokens, work.queries), (tokens, queries));
        assert_eq!((work.predictions, work.again), (87.0, 0.0));
        let pairs = (124 * 125 / 2 + 124 * 87 + 44 * 45 / 2 + 43 * 44 / 2) as f64;
        // What the prompt's other tokens and the answers' last see is not computed.
        let last = pairs - (123 * 124 / 2) as f64 - (124 + 44 + 124 + 43) as f64;
        assert_eq!((work.pairs, work.last_pairs), (31.0 * pairs, last));

        let flops = Flops::of(
            &arch,
            &all(&arch),
            &work,
            &Work::default(),
            &rows.referenced,
        );
        let [h, hq, inner] = [
            arch.hidden_size,
            arch.heads * arch.head_dim,
            arch.ffn.activation_inputs() + arch.ffn.width(),
        ]
        .map(|n| n as f64);
        let trim = (tokens - queries) * h * (hq + inner) * 6.0 + 14.0 * hq * (pairs - last);
        let total = flops.total(false, false);
        assert!((total / 1e12 + trim / 1e12 - tera).abs() < 5e-3, "{total}");
        assert_eq!(flops.reference, flops.forward);
        let recomputed = flops.total(true, false) - total;
        assert!(recomputed > 0.9 * flops.forward && recomputed < flops.forward);
        assert_eq!(flops.total(false, true) - total, flops.forward);
    }
}

/// Of a frozen matrix neither a gradient nor moments are kept, and one of two matmuls is left out; of what
/// lies below all that is trained, both, and attention.
#[test]
fn what_is_frozen_costs_no_backward_pass() {
    let (arch, cpu) = (arch(LLAMA), Device::this_machine());
    let of = |trainable: &str| {
        let set = format!("model.trainable=[{trainable}]");
        let config = config(&[&set, "data.shuffle=false"]);
        let layout = layout(&config, &arch).unwrap();
        let rows = rows(&config, &arch, &[pair(124, 44, 43)]);
        let models = Models {
            policy: &arch,
            layout: &layout,
            reference: &arch,
        };
        let batch = rows.largest(Division::of(&config));
        let skipped = Skipped::of(&arch, &layout);
        let (work, none) = (&rows.trained, Work::default());
        (
            Memory::of(&config, &models, &cpu, &batch),
            Flops::of(&arch, &skipped, work, &none, &none),
            rows.trained,
        )
    };
    let (full, flops, work) = of("\"*\"");
    let (memory, without_mlp, _) = of("\"*\", \"!*.mlp.*\"");
    let mlp = (3 * arch.hidden_size * arch.ffn.width()) as u64;
    assert_eq!(full.gradients - memory.gradients, 32 * mlp * 4);
    assert_eq!(full.optimizer - memory.optimizer, 32 * mlp * 8);
    assert_eq!(full.weights, memory.weights);
    assert_eq!(full.activations, memory.activations);
    let left_out = 2.0 * mlp as f64 * (31.0 * work.tokens + work.queries);
    assert_eq!(flops.backward - without_mlp.backward, left_out);
    assert_eq!(flops.forward, without_mlp.forward);

    let (memory, head, _) = of("\"lm_head.weight\"");
    let elements = (arch.vocab_size * arch.hidden_size) as f64;
    let alone = 2.0 * elements * work.predictions;
    assert!(
        (head.backward - alone).abs() < 1e-6 * alone,
        "{}",
        head.backward
    );
    assert!(memory.activations < full.activations / 100);
    let (memory, last, _) = of("\"model.layers.31.*\"");
    assert!(last.backward < flops.backward / 10.0 && last.recompute == 0.0);
    assert!(memory.activations < full.activations / 20);
}

#[test]
fn a_window_hides_tokens_and_long_examples_compute_logits_twice() {
    let mut arch = arch(PYTHIA);
    let example = pair(7, 5, 4);
    let brute = |window: usize| {
        let sequence =
            |from: usize, to: usize| (from..to).map(|i| (i + 1).min(window)).sum::<usize>();
        (sequence(0, 7) + sequence(7, 12) + sequence(7, 11)) as f64
    };
    for window in [1, 3, 8, 100] {
        arch.windows = vec![Some(window); 32];
        let work = Work::of(&example, Role::ALL, &arch, false);
        assert_eq!(work.pairs, 31.0 * brute(window), "{window}");
    }
    // A tile has 2^24 / 50304 = 333 rows.
    for (chosen, again) in [(300, 0.0), (303, 0.0), (304, 333.0), (700, 666.0)] {
        let work = Work::of(&pair(7, chosen, 30), Role::ALL, &arch, false);
        assert_eq!(work.again, again);
    }
    assert_eq!(Work::of(&example, &[], &arch, false), Work::default());
}

#[test]
fn what_is_kept_is_what_a_forward_pass_keeps() {
    for name in ["neox", "neox-sequential", "llama", "qwen3"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let folder = ModelFolder::open(&folder.join(name)).unwrap();
        let (mut model, _) = folder.load(DType::F32, &Place::Cpu).unwrap();
        let arch = model.architecture().clone();
        let pairs = [pair(9, 5, 7), pair(3, 1, 2), pair(6, 11, 4)];
        for recompute in [false, true] {
            let set = format!("model.recompute={recompute}");
            let config = config(&[&set, "data.shuffle=false"]);
            let rows = rows(&config, &arch, &pairs);
            let batch = rows.largest(Division::of(&config));
            let packed = Packed::new(&pairs, Role::ALL);
            assert_eq!(batch.tokens, packed.ids.len());
            model.recompute = recompute;
            let real = model.kept_bytes(&packed).unwrap() as u64;
            let models = Models {
                policy: &arch,
                layout: &Layout::new(&arch),
                reference: &arch,
            };
            let device = Device::described("g", 1.0, None).unwrap();
            let counted = Memory::of(&config, &models, &device, &batch).activations;
            match recompute {
                false => assert_eq!(counted, real, "{name}"),
                // A block that is computed again is there beside what was kept.
                true => assert!(counted >= real, "{name}: {counted} {real}"),
            }
        }
    }
}

#[test]
fn bytes_of_a_parameter() {
    let cpu = Device::this_machine();
    let gpu = Device::named("h200", crate::config::Dtype::Bf16).unwrap();
    let (bf16, rmsprop) = ("model.dtype=bf16", "optimizer.optim=rmsprop");
    let split = "optimizer.states=split";
    for (device, sets, held, moved) in [
        (&cpu, vec![], 16, 36),
        (&cpu, vec![bf16], 16, 36),
        (&cpu, vec![rmsprop], 12, 28),
        (&gpu, vec![], 16, 36),
        (&gpu, vec![bf16], 18, 38),
        (&gpu, vec![bf16, rmsprop], 14, 30),
        (&gpu, vec![bf16, split], 12, 28),
        (&gpu, vec![bf16, split, rmsprop], 10, 24),
    ] {
        let (arch, config) = (arch(PYTHIA), config(&sets));
        let models = Models {
            policy: &arch,
            layout: &Layout::new(&arch),
            reference: &arch,
        };
        let memory = Memory::of(&config, &models, device, &Largest::default());
        let all = memory.weights + memory.gradients + memory.optimizer;
        assert_eq!(all, held * 2_775_208_960, "{sets:?}");
        assert_eq!(update_bytes(&config, device), moved, "{sets:?}");
        assert_eq!(
            Bytes::of(&config, device).mixed,
            device.gpu && sets.contains(&bf16)
        );
    }
}

/// Pythia-2.8B in bf16, 1000 tokens of which the head reads 400, by hand: per token a block keeps
/// 2560 * 4 of its input, (3 * 2560 + 2560 + 10240) * 2, 32 * 4 of attention and 4 * 4 of norms.
#[test]
fn memory_of_a_model_by_hand() {
    let gpu = Device::named("h200", crate::config::Dtype::Bf16).unwrap();
    let arch = arch(PYTHIA);
    let models = Models {
        policy: &arch,
        layout: &Layout::new(&arch),
        reference: &arch,
    };
    let batch = Largest {
        tokens: 1000,
        queries: 400,
        predictions: 400,
    };
    let of = |sets: &[&str]| Memory::of(&config(sets), &models, &gpu, &batch);
    let memory = of(&["model.dtype=bf16"]);
    let whole = 1000 * (10_240 + 40_960 + 128 + 16);
    let last = 1000 * (10_240 + 15_360 + 8) + 400 * (10_240 + 5_120 + 20_480 + 128 + 8);
    let places = 1000 * (4 + 20 * 4) + 800 * 4;
    assert_eq!(memory.activations, 31 * whole + last + places);
    assert_eq!(memory.logits, 400 * 50_304 * 6);
    let plain = memory.temporary;
    // A gradient of 10240 bytes, of attention's output 5120, and two of 20480.
    let block = 1000 * (10_240 + 5_120 + 2 * 20_480);
    let head = 400 * (3 * 10_240 + 5_120);
    assert_eq!(memory.temporary, head.max(block - memory.logits.min(block)));
    assert_eq!(
        memory.total,
        18 * 2_775_208_960 + memory.activations + memory.logits + memory.temporary
    );

    let memory = of(&["model.dtype=bf16", "model.recompute=true"]);
    let all_but_input = whole - 1000 * 10_240;
    assert_eq!(
        memory.activations,
        31 * 10_240_000 + last.max(all_but_input) + places
    );

    // A reference that moves is one more set of weights, which moves in place.
    let moving = of(&["model.dtype=bf16", "reference.steps=8"]);
    assert_eq!(moving.reference, 2 * 2_775_208_960);
    assert_eq!(moving.temporary, plain);
}

#[test]
fn a_run_that_does_not_fit_is_told_what_would() {
    let arch = arch(PYTHIA);
    let pairs: Vec<Example> = (0..64).map(|i| pair(100 + i, 40, 50)).collect();
    let refused = |sets: &[&str], memory: f64| {
        let device = Device::described("the GPU", memory, None).unwrap();
        let error = plan(&config(sets), &arch, &pairs, &device).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let bf16 = "model.dtype=bf16";
    // 46.5 GiB without activations, of which 4096 tokens take 6.3.
    let message = refused(&[bf16], 52.0);
    assert!(
        message.contains("needs 5") && message.contains("the GPU's 52.0 GiB"),
        "{message}"
    );
    let number = message.rsplit(' ').next().unwrap();
    let largest: usize = number.parse().unwrap();
    let device = Device::described("the GPU", 52.0, None).unwrap();
    for (tokens, fits) in [(largest, true), (largest + 1, false)] {
        let set = format!("batch.micro_batch_tokens={tokens}");
        let plan = plan(&config(&[bf16, &set]), &arch, &pairs, &device);
        assert_eq!(plan.is_ok(), fits);
        if let Ok(plan) = plan {
            assert_eq!(plan.tokens.largest_that_fits, Some(largest));
        }
    }
    for (sets, memory, words) in [
        (vec![bf16], 48.3, "with model.recompute = true the largest"),
        (
            vec![bf16],
            40.0,
            "with optimizer.states = \"split\" the largest",
        ),
        (
            vec![bf16],
            32.3,
            "with model.recompute = true and optimizer.states = \"split\" the largest",
        ),
        (
            vec![bf16],
            24.0,
            "no micro_batch_tokens fits, whatever is set",
        ),
        (
            vec![],
            40.0,
            "with optimizer.states = \"split\" and model.dtype = \"bf16\" the largest",
        ),
        (
            vec!["batch.gradient_accumulation_steps=1"],
            52.0,
            "with gradient_accumulation_steps = 1",
        ),
    ] {
        let message = refused(&sets, memory);
        assert!(message.contains(words), "{memory}: {message}");
    }
}

#[test]
fn devices_that_the_config_does_not_mean_are_refused() {
    let cpu = Device::this_machine();
    let gpu = Device::described("the GPU", 80.0, None).unwrap();
    for (device, sets, word) in [
        (&cpu, vec!["model.device=cuda:0"], "name the GPU"),
        (&gpu, vec!["model.device=cpu"], "model.device"),
        (
            &cpu,
            vec!["model.dtype=bf16", "optimizer.states=split"],
            "on the CPU",
        ),
    ] {
        let error = Plan::check_device(&config(&sets), device).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn steps_are_divided_as_training_divides_them() {
    let arch = arch(PYTHIA);
    let pairs = [10, 20, 30, 40, 50].map(|prompt| pair(prompt, 5, 5));
    let sets = ["data.shuffle=false", "batch.batch_size=3"];
    let config = config(&sets);
    let rows = rows(&config, &arch, &pairs);
    // Lengths 20 30 40 | 50 60.
    assert_eq!(
        (rows.steps_per_epoch(), rows.longest(), rows.largest_step()),
        (2, 60, 110)
    );
    assert_eq!(rows.micro_batches(Division::Tokens(70)), 2.0);
    assert_eq!(rows.micro_batches(Division::Parts(2)), 2.0);
    let largest = |division| rows.largest(division).tokens;
    // What another order could reach; a row over the budget is computed alone.
    assert_eq!(largest(Division::Tokens(70)), 70);
    assert_eq!(largest(Division::Tokens(1)), 60);
    assert_eq!(largest(Division::Tokens(5000)), 110);
    assert_eq!(largest(Division::Parts(1)), 110);
    // Each pair has 10 predictions, from 1 + 4 + 4 tokens.
    let largest = rows.largest(Division::Tokens(50));
    assert_eq!((largest.queries, largest.predictions), (18, 20));
}

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
    assert_eq!(time.step.elementwise, moved.step(false) / 4.8e12);
    assert!((time.training - 10.0 * time.step.total()).abs() < 1e-9);
    // The column of 64 rows, once; a forward pass with nothing of the optimizer.
    let scoring = plan.flops.row.forward * 64.0 / 790e12 + moved.forward / 4.8e12;
    assert!((time.scoring - scoring).abs() < 1e-9);
    assert_eq!(time.evaluation, 0.0);
    // At most 241 pairs a second by products alone.
    let rate = 64.0 / time.step.products;
    assert!(rate > 241.0 && rate < 247.0, "{rate}");
}

/// By hand, of a token in a block of Pythia-2.8B in bf16: norms, rotations, sums and activations.
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
    let (stream, normed, inner, rotated) = (10_240.0, 5_120.0, 20_480.0, 2.0 * 2.0 * 64.0 * 20.0);
    let block = 2.0 * (stream + normed) + rotated + 2.0 * stream + 2.0 * inner;
    assert_eq!(moved.forward, 32.0 * block + 4.0 * 50_304.0);
    assert_eq!(moved.recompute, 31.0 * block);
    let norms = 2.0 * ((stream + normed) + (normed + 3.0 * stream));
    let block = norms + rotated + 3.0 * normed + 4.0 * inner;
    assert_eq!(moved.backward, 32.0 * block + 10.0 * 50_304.0);
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

#[test]
fn checkpoints_take_the_dtype_they_are_saved_in() {
    let arch = arch(PYTHIA);
    let gpu = Device::named("h200", crate::config::Dtype::Bf16).unwrap();
    let sets = [
        "run.max_steps=10",
        "run.save_steps=3",
        "model.save_dtype=bf16",
    ];
    let pairs = [pair(124, 44, 43)];
    let disk = plan(&config(&sets), &arch, &pairs, &gpu).unwrap().disk;
    assert_eq!((disk.model, disk.checkpoints), (2 * 2_775_208_960, 3));
    // The weights in bf16 and in f32, and two moments.
    assert_eq!(disk.checkpoint, 14 * 2_775_208_960);
    assert_eq!(disk.total, 4 * disk.checkpoint + disk.reference);
    let sets = [&sets[..], &["run.save_total_limit=2"]].concat();
    let disk = plan(&config(&sets), &arch, &pairs, &gpu).unwrap().disk;
    assert_eq!(disk.checkpoints, 2);
}

#[test]
fn a_run_without_checkpoints_takes_its_model_and_one_without_a_model_takes_nothing() {
    let arch = arch(PYTHIA);
    let gpu = Device::named("h200", crate::config::Dtype::Bf16).unwrap();
    let pairs = [pair(124, 44, 43)];
    let disk = |sets: &[&str]| plan(&config(sets), &arch, &pairs, &gpu).unwrap().disk;
    let whole = disk(&["run.max_steps=10"]);
    assert_eq!(whole.total, whole.model + whole.reference);
    let timed = disk(&["run.max_steps=10", "run.save_model=false"]);
    assert_eq!((timed.model, timed.total), (0, timed.reference));
}
