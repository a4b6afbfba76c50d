//! Frozen weights in few bits: against bitsandbytes, and against models of the numbers that they stand for.

mod folders;
mod oracle;

use candle_core::{DType, Device};
use expo::checkpoint::{SaveDtype, save};
use expo::data::{Example, Prompt, Tokenizer};
use expo::kernels::device::download;
use expo::kernels::quantized::Format;
use expo::loss::Role;
use expo::model::Decoder;
use expo::model::adapter::{Adapter, LowRank};
use expo::model::numerics::{Dtype, Numerics};
use expo::model::parameters::Storage;
use expo::model::sampling::SampleConfig;
use expo::model::weights::ModelFolder;
use expo::sample::Sampler;

use crate::support::{MODELS, fixture, json, pairs};

const PAIR: &[Role] = &[Role::Chosen, Role::Rejected];

fn nf4(double: bool) -> Format {
    Format::Nf4 { double }
}

fn log_probs(model: &Decoder, examples: &[Example]) -> Vec<f64> {
    let scores = model.score(&model.pack(examples, PAIR)).unwrap();
    scores
        .iter()
        .flatten()
        .map(|score| score.log_prob)
        .collect()
}

/// All weights, as bits of the numbers that they stand for.
fn values(model: &Decoder) -> Vec<Vec<u32>> {
    let weights = model.weights();
    let bits = |id| {
        weights
            .read(id)
            .unwrap()
            .into_iter()
            .map(f32::to_bits)
            .collect()
    };
    (0..weights.layout().entries.len()).map(bits).collect()
}

/// Low-rank products beside every matrix of the blocks that may have one.
fn adapter(folder: &ModelFolder, dora: bool) -> Adapter {
    let (arch, layout) = (&folder.arch, folder.layout());
    let matrices = layout.entries.iter().filter(|entry| entry.shape.len() == 2);
    let of_blocks = matrices.filter(|entry| entry.name.starts_with(&arch.names.block));
    let layers = of_blocks.filter_map(|entry| entry.name.strip_suffix(".weight"));
    let layers = layers.filter(|name| !name.contains("moe") && !name.contains("experts"));
    let layers = layers
        .filter(|name| !name.ends_with(".gate"))
        .map(|layer| LowRank {
            layer: layer.to_owned(),
            rank: 2,
            scale: 0.5,
            dora,
        });
    Adapter {
        layers: layers.collect(),
        ..Adapter::default()
    }
}

/// Gives what is trained arbitrary values.
fn set_trained(model: &mut Decoder) {
    let len = model.weights().layout().trainable_len;
    let values: Vec<f32> = (0..len)
        .map(|i| 0.02 + 0.1 * (0.7 * i as f32).sin())
        .collect();
    model.weights_mut().set(0, &values).unwrap();
}

/// Log-probs, and the bits of the gradient of a loss that weighs them.
fn results(model: &Decoder, examples: &[Example]) -> (Vec<f64>, Vec<(String, Vec<u32>)>) {
    let mut gradients = model.gradients().unwrap();
    let seeds = |example: usize, scores: &[expo::model::head::ResponseScore]| {
        let seed = |at: usize| 0.3 + 0.2 * example as f64 - 0.7 * at as f64;
        Ok((0..scores.len()).map(seed).collect())
    };
    model
        .step(&model.pack(examples, PAIR), seeds, &mut gradients)
        .unwrap();
    let entries = gradients.layout().entries.iter().enumerate();
    let bits = entries.map(|(id, entry)| {
        let values = download(&gradients.view(id).flatten_all().unwrap()).unwrap();
        (
            entry.name.clone(),
            values.into_iter().map(f32::to_bits).collect(),
        )
    });
    (log_probs(model, examples), bits.collect())
}

fn examples(name: &str) -> Vec<Example> {
    let oracle = name.strip_suffix("-ref").unwrap_or(name);
    pairs(&json(&fixture(&format!("oracle/{oracle}.json"))))[..2].to_vec()
}

#[test]
fn an_adapter_beside_quantized_weights_computes_as_beside_the_numbers_they_stand_for() {
    for (at, name) in MODELS.into_iter().enumerate() {
        let format = [nf4(true), Format::Q8_0, nf4(false)][at % 3];
        let examples = examples(name);
        for (dtype, dora) in [(Dtype::F32, at % 2 == 0), (Dtype::Bf16, false)] {
            let folder = ModelFolder::open(&fixture(name)).unwrap();
            let folder =
                folder.with_adapter(&adapter(&ModelFolder::open(&fixture(name)).unwrap(), dora));
            let numerics = Numerics::new(dtype, false);
            let load = |folder: &ModelFolder| {
                let mut model = folder.load_with(numerics, &Device::Cpu).unwrap().0;
                set_trained(&mut model);
                model
            };
            let mut dense = load(&folder);
            let quantized = folder.quantized(format).unwrap();
            let quantized = load(&quantized);
            let entries = quantized.weights().layout().entries.clone();
            let mut stored = 0;
            for (id, entry) in entries.iter().enumerate() {
                if let Storage::Quantized(_) = entry.storage {
                    let values = quantized.weights().read(id).unwrap();
                    dense.weights_mut().fill(id, 0, &values).unwrap();
                    stored += 1;
                }
            }
            assert!(stored > 0);
            let (want, got) = (results(&dense, &examples), results(&quantized, &examples));
            assert_eq!(got.0, want.0, "{name} {format:?} {dtype:?}");
            for (got, want) in got.1.iter().zip(&want.1) {
                assert!(got == want, "{name} {format:?} {dtype:?}: {}", want.0);
            }
        }
    }
}

/// A model whose frozen weights are in bf16 where they may be, and one whose weights are all trained.
fn narrow_and_wide(folder: &ModelFolder, dtype: Dtype) -> [Decoder; 2] {
    let narrow = adapter(folder, false);
    let entries = folder.layout().entries.iter();
    let wide = Adapter {
        saved: entries.map(|entry| entry.name.clone()).collect(),
        ..narrow.clone()
    };
    [narrow, wide].map(|adapter| {
        let folder = folder.clone().with_adapter(&adapter);
        let mut model = folder
            .load_with(Numerics::new(dtype, false), &Device::Cpu)
            .unwrap()
            .0;
        let layout = model.weights().layout().clone();
        for (at, layer) in adapter.layers.iter().enumerate() {
            for name in [layer.a(), layer.b()] {
                let id = layout.id(&name);
                let value = |i: usize| 0.02 + 0.1 * (0.7 * i as f32 + at as f32).sin();
                let values: Vec<f32> = (0..layout.entries[id].elements()).map(value).collect();
                model.weights_mut().fill(id, 0, &values).unwrap();
            }
        }
        model
    })
}

#[test]
fn frozen_weights_in_bf16_change_no_bit() {
    for name in [
        "neox",
        "llama3",
        "gpt2",
        "gemma2",
        "qwen3_moe",
        "qwen3_moe-fused",
        "phi3",
    ] {
        let folder = ModelFolder::open(&fixture(name)).unwrap();
        let target = tempfile::tempdir().unwrap();
        let saved = target.path().join("bf16");
        let (model, _) = folder.load(DType::F32, &Device::Cpu).unwrap();
        save(&model, &folder.files, &saved, SaveDtype::BF16).unwrap();
        let saved = ModelFolder::open(&saved).unwrap();
        // Whose operands are rounded; whose files are bf16.
        for (folder, dtype) in [
            (&folder, Dtype::Bf16),
            (&saved, Dtype::F32),
            (&saved, Dtype::Bf16),
        ] {
            let [narrow, wide] = narrow_and_wide(folder, dtype);
            let in_bf16 = |model: &Decoder| {
                let entries = model.weights().layout().entries.iter();
                entries
                    .filter(|entry| entry.storage == Storage::Bf16)
                    .count()
            };
            // A tied head becomes one of its own where the embedding is trained.
            assert!(in_bf16(&narrow) > 1 && in_bf16(&wide) <= 1);
            let examples = examples(name);
            let (got, want) = (results(&narrow, &examples), results(&wide, &examples));
            assert_eq!(got.0, want.0, "{name} {dtype:?}");
            for (part, bits) in &got.1 {
                let other = want.1.iter().find(|(other, _)| other == part).unwrap();
                assert!(*bits == other.1, "{name} {dtype:?}: {part}");
            }
            // Merged in f32, in which rounded weights are other numbers.
            if dtype == Dtype::F32 {
                assert!(drawn(&narrow, 3) == drawn(&wide, 3), "{name}");
            }
        }
    }
}

/// Ids and log-probs of responses.
fn drawn(model: &Decoder, batch_size: usize) -> Vec<(Vec<u32>, u64)> {
    let tokenizer = Tokenizer::open(&fixture("llama")).unwrap();
    let prompts: Vec<Prompt> = (1..6)
        .map(|length| Prompt {
            text: length.to_string(),
            instruction: String::new(),
            ids: (0..3 * length)
                .map(|i| (7 * i + i * i) as u32 % 60 + 5)
                .collect(),
            place: format!("prompt of {length}"),
            cut: false,
        })
        .collect();
    let config = SampleConfig {
        max_new_tokens: 6,
        batch_size,
        ..SampleConfig::default()
    };
    let longest = model.architecture().longest_sequence();
    let sampler = Sampler::new(model, &tokenizer, &config, longest);
    let drawn = sampler.all(&prompts, &mut |_, _, _| {}).unwrap();
    drawn
        .into_iter()
        .map(|drawn| (drawn.ids, drawn.log_prob.to_bits()))
        .collect()
}

#[test]
fn responses_of_a_quantized_model_depend_on_no_batch_and_are_those_of_its_numbers() {
    for (at, name) in [
        "llama",
        "neox",
        "gemma2",
        "mixtral",
        "qwen3_moe-fused",
        "gpt2",
    ]
    .into_iter()
    .enumerate()
    {
        let format = [nf4(true), Format::Q8_0][at % 2];
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let open = || ModelFolder::open(&fixture(name)).unwrap();
            let load = |folder: &ModelFolder| {
                folder
                    .load_with(Numerics::new(dtype, false), &Device::Cpu)
                    .unwrap()
                    .0
            };
            let (quantized, mut dense) = (load(&open().quantized(format).unwrap()), load(&open()));
            for id in 0..dense.weights().layout().entries.len() {
                let values = quantized.weights().read(id).unwrap();
                dense.weights_mut().fill(id, 0, &values).unwrap();
            }
            let want = drawn(&quantized, 3);
            assert!(drawn(&quantized, 1) == want, "{name} {dtype:?}: one by one");
            // In bf16 the numbers of a dense matrix are rounded, those of a quantized one are not.
            if dtype == Dtype::F32 {
                assert!(drawn(&dense, 3) == want, "{name} {dtype:?}");
            }
            // The adapter stays beside the weights.
            let folder = open().with_adapter(&adapter(&open(), at % 3 == 0));
            let mut adapted = load(&folder.quantized(format).unwrap());
            set_trained(&mut adapted);
            let want = drawn(&adapted, 3);
            assert!(
                drawn(&adapted, 1) == want,
                "{name} {dtype:?}: adapted, one by one"
            );
        }
    }
}
