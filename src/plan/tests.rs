//! Figures against numbers derived by hand, and against what a real forward pass keeps.

mod memory;
mod time;

use super::*;
use crate::data::{Example, Response};
use crate::loss::Role;
use crate::model::arch::{ConfigJson, Positions, Scaling};
use crate::model::family::family;

const PYTHIA: &str = r#"{"model_type": "gpt_neox", "hidden_size": 2560, "num_hidden_layers": 32,
    "num_attention_heads": 32, "intermediate_size": 10240, "vocab_size": 50304, "rotary_pct": 0.25,
    "max_position_embeddings": 2048, "tie_word_embeddings": false}"#;

const MIXTRAL: &str = r#"{"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2}"#;

const QWEN: &str = r#"{"model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048,
    "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
    "num_experts_per_tok": 8}"#;

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
        layout: &layout(config, arch, None, device.gpu)?.1,
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

#[test]
fn parameters_of_mixtures_of_experts_are_those_of_known_models() {
    let mixtral = Parameters::of(&arch(MIXTRAL));
    assert_eq!(mixtral.total, 46_702_792_704);
    assert_eq!(mixtral.active, 12_879_925_248);
    let qwen = Parameters::of(&arch(QWEN));
    assert_eq!(qwen.total, 30_532_122_624);
    // Of a layer 120 experts of 3 matrices are left out.
    assert_eq!(qwen.total - qwen.active, 48 * 120 * 3 * 768 * 2048);
    assert_eq!(Parameters::of(&arch(LLAMA)).active, 8_030_261_248);
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
        let layout = layout(&config, &arch, None, false).unwrap().1;
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
    // A tile has 2^25 / 50304 = 667 rows.
    for (chosen, again) in [(600, 0.0), (637, 0.0), (638, 667.0), (1400, 1334.0)] {
        let work = Work::of(&pair(7, chosen, 30), Role::ALL, &arch, false);
        assert_eq!(work.again, again);
    }
    assert_eq!(Work::of(&example, &[], &arch, false), Work::default());
}

#[test]
fn a_prompt_counts_again_where_its_sequences_are_computed_differently() {
    let mut arch = arch(LLAMA);
    // Of 12 and 11 tokens.
    let example = pair(7, 5, 4);
    for (original, tokens) in [(12, 16.0), (11, 23.0), (10, 23.0)] {
        let Positions::Rotary { tables, .. } = &mut arch.positions else {
            panic!("a Llama model rotates");
        };
        tables[0].scaling = Scaling::Dynamic {
            factor: 4.0,
            original,
        };
        let work = Work::of(&example, Role::ALL, &arch, false);
        assert_eq!(work.tokens, tokens, "{original}");
        assert_eq!(work.predictions, 9.0);
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
