//! Memory, against numbers derived by hand and against what a real forward pass keeps.

use std::path::Path;

use candle_core::{DType, Device as Place};

use super::*;
use crate::data::pack::Packed;
use crate::model::weights::ModelFolder;
use crate::plan::memory::Bytes;
use crate::plan::time::update_bytes;

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
fn master_weights_of_frozen_parameters_are_said_to_be_left_out() {
    let arch = arch(PYTHIA);
    let bf16 = crate::config::Dtype::Bf16;
    let left_out = |sets: &[&str], device: &Device| {
        let plan = plan(&config(sets), &arch, &[pair(124, 44, 43)], device);
        plan.unwrap().left_out
    };
    let (gpu, frozen) = (
        Device::named("h200", bf16).unwrap(),
        "model.trainable=[\"*\", \"!*.mlp.*\"]",
    );
    let said = left_out(&["model.dtype=bf16", frozen], &gpu);
    assert!(said.len() == 1 && said[0].contains("frozen"), "{said:?}");
    for (sets, device) in [(vec!["model.dtype=bf16"], &gpu), (vec![frozen], &gpu)] {
        assert!(left_out(&sets, device).is_empty(), "{sets:?}");
    }
}
