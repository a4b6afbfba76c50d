//! Memory, against numbers derived by hand and against what a real forward pass keeps.

use std::path::Path;

use candle_core::{DType, Device as Place};

use super::*;
use crate::data::pack::Packed;
use crate::model::weights::ModelFolder;
use crate::plan::bytes::Bytes;
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
    let (split, lion) = ("optimizer.states=split", "optimizer.optim=lion");
    for (device, sets, held, moved) in [
        (&cpu, vec![], 16, 36),
        (&cpu, vec![bf16], 16, 36),
        (&cpu, vec![rmsprop], 12, 28),
        (&cpu, vec![lion], 12, 28),
        (&gpu, vec![], 16, 36),
        (&gpu, vec![bf16], 18, 38),
        (&gpu, vec![bf16, rmsprop], 14, 30),
        (&gpu, vec![bf16, split], 12, 28),
        (&gpu, vec![bf16, split, rmsprop], 10, 24),
        (&gpu, vec![bf16, split, lion], 10, 24),
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
        let all = update_bytes(&config, device, models.layout);
        assert_eq!(all, moved * 2_775_208_960, "{sets:?}");
        assert_eq!(
            Bytes::of(&config, device).mixed,
            device.gpu && sets.contains(&bf16)
        );
    }
}

/// Of Pythia-2.8B all but biases and norms, 0.04% of it, are in 8 bits: a byte, and four for each 256.
#[test]
fn moments_in_8_bits_take_two_bytes() {
    let gpu = Device::named("h200", crate::config::Dtype::Bf16).unwrap();
    let arch = arch(PYTHIA);
    let models = Models {
        policy: &arch,
        layout: &Layout::new(&arch),
        reference: &arch,
    };
    let (bf16, split) = ("model.dtype=bf16", "optimizer.states=split");
    let eight = "optimizer.optim=adamw_8bit";
    for (sets, beside) in [(vec![bf16], 4.0), (vec![bf16, split], 2.0), (vec![], 0.0)] {
        let config = config(&[&sets[..], &[eight]].concat());
        let memory = Memory::of(&config, &models, &gpu, &Largest::default());
        let each = memory.optimizer as f64 / 2_775_208_960.0 - beside;
        assert!((2.031..2.036).contains(&each), "{sets:?}: {each}");
    }
}

/// Llama-3-8B with rank 16 on all linear layers, by hand: 6,979,321,856 elements of matrices in blocks, 0.516
/// bytes each in NF4 with scales in 8 bits; embedding, head and norms in bf16; 41,943,040 elements of the
/// adapter at 2 + 4 + 4 + 8 bytes.
#[test]
fn an_adapter_on_weights_in_4_bits_by_hand() {
    let gpu = Device::named("rtx-3060", crate::config::Dtype::Bf16).unwrap();
    let arch = arch(LLAMA);
    let config = config(&[
        "model.dtype=bf16",
        "model.quantization=nf4",
        "model.recompute=true",
        "adapter.r=16",
    ]);
    let adapter = config.adapter.as_ref().unwrap();
    let adapter = adapter.resolve(&arch, &Layout::new(&arch)).unwrap();
    let (policy, layout) = layout(&config, &arch, Some(&adapter), true).unwrap();
    let models = Models {
        policy: &policy,
        layout: &layout,
        reference: &arch,
    };
    let memory = Memory::of(&config, &models, &gpu, &Largest::default());
    let (blocks, adapter) = (6_979_321_856.0, 41_943_040.0);
    let rest = 8_030_261_248.0 - blocks;
    let weights = blocks * (0.5 + 1.0 / 64.0 + 4.0 / 16_384.0) + 2.0 * (rest + adapter);
    // A few bytes of each matrix, such as the mean of its scales.
    let off = memory.weights as f64 - weights;
    assert!(
        (0.0..1e-4 * weights).contains(&off),
        "{} {weights}",
        memory.weights
    );
    let states = memory.gradients + memory.optimizer;
    assert_eq!(states, 16 * 41_943_040);
    assert_eq!(memory.reference, 0);
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

/// The plan of 64 pairs on a GPU of so many GiB.
fn on_gpu(json: &str, sets: &[String], memory: f64) -> Plan {
    let arch = arch(json);
    let pairs: Vec<Example> = (0..64).map(|i| pair(100 + i, 40, 50)).collect();
    let device = Device::described("the GPU", memory, None).unwrap();
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    plan(&config(&sets), &arch, &pairs, &device).unwrap()
}

#[test]
fn a_run_that_does_not_fit_says_what_it_needs_and_the_largest_micro_batch_fits() {
    let of = |sets: &[&str]| on_gpu(PYTHIA, &sets.map_owned(), 52.0);
    // 46.5 GiB without activations, of which 4096 tokens take 6.3.
    let refused = of(&["model.dtype=bf16"]);
    let error = refused.check_fits().unwrap_err();
    assert_eq!((refused.fits, error.exit_code()), (Some(false), 2));
    let message = error.to_string();
    assert!(
        message.contains("needs 5") && message.contains("52.0 GiB of the GPU"),
        "{message}"
    );
    let largest = refused.tokens.largest_that_fits.unwrap();
    let first = &refused.remedies[0];
    assert_eq!(first.set, [format!("batch.micro_batch_tokens = {largest}")]);
    for (tokens, fits) in [(largest, true), (largest + 1, false)] {
        let set = format!("batch.micro_batch_tokens={tokens}");
        let plan = of(&["model.dtype=bf16", &set]);
        assert_eq!(plan.fits, Some(fits));
        assert_eq!(plan.check_fits().is_ok(), fits);
    }
    let parts = of(&["model.dtype=bf16", "batch.gradient_accumulation_steps=1"]);
    let message = parts.check_fits().unwrap_err().to_string();
    assert!(
        message.contains("with gradient_accumulation_steps = 1"),
        "{message}"
    );
    assert_eq!(
        parts.remedies[0].note,
        "instead of gradient_accumulation_steps"
    );
}

/// Each remedy, set in the config, makes a run that fits in just the memory that it names.
#[test]
fn every_remedy_holds() {
    let bf16 = "model.dtype=bf16";
    let mut kinds = std::collections::BTreeSet::new();
    for (json, sets, memory) in [
        (PYTHIA, vec![], 52.0),
        (PYTHIA, vec![bf16], 52.0),
        (PYTHIA, vec![bf16], 48.3),
        (PYTHIA, vec![bf16], 40.0),
        (PYTHIA, vec![bf16], 32.3),
        (PYTHIA, vec![bf16], 24.0),
        (LLAMA, vec![], 23.5),
        (LLAMA, vec!["model.trainable=[\"lm_head.*\"]"], 19.5),
    ] {
        let refused = on_gpu(json, &sets.map_owned(), memory);
        assert_eq!(refused.fits, Some(false));
        assert!(!refused.remedies.is_empty(), "{memory}");
        for remedy in &refused.remedies {
            let mut all = sets.map_owned();
            all.extend(remedy.set.iter().cloned());
            let card = remedy.gpu.as_deref();
            let card = card.map(|name| Device::named(name, crate::config::Dtype::Bf16).unwrap());
            let memory = card.map_or(memory, |card| card.memory.unwrap() as f64 / GIB);
            let plan = on_gpu(json, &all, memory);
            assert_eq!(plan.fits, Some(true), "{sets:?} {remedy}");
            // A shorter max_length is of rows that a test does not read again.
            if !remedy
                .set
                .iter()
                .any(|set| set.starts_with("data.max_length"))
            {
                assert_eq!(plan.memory.total, remedy.memory, "{sets:?} {remedy}");
            }
            let keys = remedy
                .set
                .iter()
                .map(|set| set.split(' ').next().unwrap().to_owned());
            kinds.extend(keys.chain(remedy.gpu.iter().map(|_| "gpu".to_owned())));
        }
    }
    for kind in [
        "batch.micro_batch_tokens",
        "model.recompute",
        "optimizer.states",
        "model.dtype",
        "model.trainable",
        "gpu",
    ] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
}

#[test]
fn what_cannot_help_is_not_suggested() {
    let bf16 = "model.dtype=bf16".to_owned();
    // Weights, gradients and states of all parameters alone are 90 GiB, split: no shorter row helps.
    let refused = on_gpu(LLAMA, std::slice::from_ref(&bf16), 23.5);
    let sets: Vec<&String> = refused
        .remedies
        .iter()
        .flat_map(|remedy| &remedy.set)
        .collect();
    assert!(
        sets.iter().all(|set| !set.starts_with("data.max_length")),
        "{sets:?}"
    );
    assert!(
        sets.iter().any(|set| set.contains("model.layers.3?.*")),
        "{sets:?}"
    );
    // Not even the weights fit.
    let refused = on_gpu(
        LLAMA,
        &[bf16, "model.trainable=[\"lm_head.*\"]".to_owned()],
        12.0,
    );
    assert!(refused.remedies.iter().all(|remedy| remedy.gpu.is_some()));
    // On the CPU all is f32, and there is no other GPU.
    let arch = arch(PYTHIA);
    let cpu = Device {
        memory: Some(1 << 30),
        ..Device::this_machine()
    };
    let refused = plan(&config(&[]), &arch, &[pair(100, 40, 50)], &cpu).unwrap();
    assert!(refused.remedies.is_empty(), "{:?}", refused.remedies);
    let message = refused.check_fits().unwrap_err().to_string();
    assert!(
        message.contains("no setting makes it fit: weights, gradients"),
        "{message}"
    );
}

/// Each keeps a part of the moments, and sends what the others update.
#[test]
fn ranks_share_the_moments() {
    let arch = arch(PYTHIA);
    let on = |ranks, more: &[&str]| {
        let machine = Device::this_machine().with_ranks(ranks);
        plan(&config(more), &arch, &[pair(100, 40, 50)], &machine)
    };
    let [alone, two, four] = [1, 2, 4].map(|ranks| on(ranks, &[]).unwrap());
    let weights = alone.memory.weights;
    assert_eq!(alone.exchange, None);
    assert_eq!(alone.memory.optimizer, 2 * weights);
    // Pieces are of whole parameters, so not quite even.
    for (plan, ranks) in [(&two, 2), (&four, 4)] {
        let even = 2 * weights / ranks;
        let most = plan.memory.optimizer;
        assert!(even <= most && most < even * 3 / 2, "{most} of {even}");
        // The sum of a slot, and as many that wait as the slots of 8 lanes can be halved.
        let sums = plan.memory.gradients - weights;
        assert_eq!(sums, most / 2 * (1 + u64::from((8 / ranks).ilog2())));
        let exchange = plan.exchange.unwrap();
        assert_eq!(
            exchange.gradients,
            weights * (ranks - 1) / ranks * (8 / ranks)
        );
        assert_eq!(exchange.weights, most / 2 * (ranks - 1));
    }
    let lanes = on(1, &["batch.lanes=8"]).unwrap();
    assert_eq!(lanes.memory.gradients, 4 * alone.memory.gradients);
    let refused = on(3, &["batch.lanes=8"]).unwrap_err();
    assert!(refused.to_string().contains("3 ranks cannot share 8 lanes"));
}

/// No block is frozen for what bf16 and split states save, and every card is told the same kinds, up to
/// the one on which moments in 8 bits let all of them be trained.
#[test]
fn bf16_and_split_states_come_before_frozen_blocks() {
    let refused = on_gpu(LLAMA, &[], 79.0);
    let first = refused.remedies[0].to_string();
    assert!(
        first.contains("adamw_8bit") && !first.contains("trainable"),
        "{first}"
    );
    for memory in [23.5, 31.3, 39.4] {
        let refused = on_gpu(LLAMA, &[], memory);
        let first = refused.remedies[0].to_string();
        for part in [
            "model.dtype = \"bf16\"",
            "optimizer.states = \"split\"",
            "model.trainable",
        ] {
            assert!(first.contains(part), "{memory}: {first}");
        }
        let message = refused.check_fits().unwrap_err().to_string();
        assert!(
            message.contains(&first) && message.contains(", or with GPU "),
            "{message}"
        );
    }
}

/// One row fills the memory: of a `max_length` that is shorter every row fits.
#[test]
fn rows_that_are_too_long_alone_are_told_a_shorter_length() {
    let arch = arch(PYTHIA);
    let sets = [
        "model.dtype=bf16",
        "optimizer.states=split",
        "model.recompute=true",
    ];
    let sets = [&sets[..], &["data.max_length=16384"]].concat();
    let device = Device::described("the GPU", 34.0, None).unwrap();
    let long = [pair(8000, 8000, 8000)];
    let refused = plan(&config(&sets), &arch, &long, &device).unwrap();
    let remedy = &refused.remedies[0];
    let length = remedy.set[0].strip_prefix("data.max_length = ").unwrap();
    let length: usize = length.parse().unwrap();
    assert!((1000..16_384).contains(&length), "{length}");
    // The longest pair of that length.
    let answer = length - 256;
    let set = format!("data.max_length={length}");
    let cut = [&sets[..3], &[&set, "batch.micro_batch_tokens=1"]].concat();
    let fits = plan(&config(&cut), &arch, &[pair(256, answer, answer)], &device).unwrap();
    assert_eq!(fits.fits, Some(true));
}

trait Owned {
    fn map_owned(&self) -> Vec<String>;
}

impl Owned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|set| (*set).to_owned()).collect()
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
