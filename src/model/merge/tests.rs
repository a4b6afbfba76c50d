//! Log-probs and gradients of adapters against those of the merged model, in f64.

use candle_core::{DType, Device, Tensor};

use super::merged_weight;
use crate::data::Example;
use crate::data::pack::Packed;
use crate::kernels::device::download;
use crate::kernels::emulator;
use crate::kernels::quantized::Format;
use crate::kernels::testing::{assert_near, fixture};
use crate::loss::Role;
use crate::model::Decoder;
use crate::model::adapter::{Adapter, LowRank};
use crate::model::cuda_tests::examples;
use crate::model::parameters::Params;
use crate::model::weights::ModelFolder;

const MODELS: [&str; 12] = [
    "neox",
    "neox-sequential",
    "llama3",
    "qwen2",
    "qwen3",
    "gemma2",
    "gpt2",
    "granite",
    "mixtral",
    "olmo2",
    "phi3",
    "qwen3_moe-fused",
];

/// The log-probs and the gradients of a loss that weighs them.
fn results(model: &Decoder) -> (Vec<f64>, Params) {
    let examples = examples();
    let packed = Packed::new(&examples, Role::ALL);
    let mut gradients = model.gradients().unwrap();
    let mut log_probs = Vec::new();
    let seeds = |example: usize, scores: &[crate::model::head::ResponseScore]| {
        log_probs.extend(scores.iter().map(|score| score.log_prob));
        let seed = |at: usize| 0.3 + 0.2 * example as f64 - 0.7 * at as f64;
        Ok((0..scores.len()).map(seed).collect())
    };
    model.step(&packed, seeds, &mut gradients).unwrap();
    (log_probs, gradients)
}

/// Of every linear layer of the blocks but experts and their routers, and of the head.
fn adapter(folder: &ModelFolder, dora: bool, dropout: f64) -> Adapter {
    let (arch, layout) = (&folder.arch, folder.layout());
    let matrices = layout.entries.iter().filter(|entry| entry.shape.len() == 2);
    let of_blocks = matrices.filter(|entry| entry.name.starts_with(&arch.names.block));
    let layers = of_blocks.filter_map(|entry| entry.name.strip_suffix(".weight"));
    let layers = layers.filter(|name| !name.contains("moe") && !name.contains("experts"));
    let layers = layers.filter(|name| !name.ends_with(".gate"));
    let layers = layers.chain([arch.names.head.as_str()]);
    let layers = layers.enumerate().map(|(at, layer)| LowRank {
        layer: layer.to_owned(),
        rank: 1 + at % 3,
        scale: 0.5 + at as f64 / 16.0,
        dora,
    });
    let mut layers: Vec<LowRank> = layers.collect();
    layers.sort_by(|a, b| a.layer.cmp(&b.layer));
    Adapter {
        layers,
        saved: vec![format!("{}.weight", arch.names.final_norm)],
        dropout,
    }
}

fn view<'a>(params: &'a Params, name: &str) -> &'a Tensor {
    params.view(params.layout().id(name))
}

/// A model with an adapter of arbitrary values.
fn adapted(name: &str, dora: bool) -> Decoder {
    adapted_with(name, dora, 0.0)
}

fn adapted_with(name: &str, dora: bool, dropout: f64) -> Decoder {
    let folder = ModelFolder::open(&fixture(name)).unwrap();
    let adapter = adapter(&folder, dora, dropout);
    adapted_on(folder, &adapter, DType::F64, &Device::Cpu)
}

fn adapted_on(folder: ModelFolder, adapter: &Adapter, dtype: DType, device: &Device) -> Decoder {
    let folder = folder.with_adapter(adapter);
    let mut model = folder.load(dtype, device).unwrap().0;
    model.tile_rows = 7;
    let layout = model.weights().layout().clone();
    for (at, layer) in adapter.layers.iter().enumerate() {
        let mut names = vec![layer.a(), layer.b()];
        names.extend(layer.dora.then(|| layer.magnitude()));
        for (part, name) in names.into_iter().enumerate() {
            let range = layout.entries[layout.id(&name)].range.clone();
            let value = |i: usize| {
                (0.05 + 0.9 * f32::from(part == 2))
                    * (0.7 * i as f32 + (at + part) as f32).sin().abs()
                    + 0.02
            };
            let values: Vec<f32> = (0..range.len()).map(value).collect();
            model.weights_mut().set(range.start, &values).unwrap();
        }
    }
    model
}

/// The same model with merged weights, all of them trained.
fn merged_model(name: &str, adapted: &Decoder) -> Decoder {
    let folder = ModelFolder::open(&fixture(name)).unwrap();
    let params = adapted.weights();
    let adapter = params.layout().adapter.clone().unwrap();
    let frozen = Adapter {
        layers: Vec::new(),
        saved: adapted
            .weights()
            .layout()
            .entries
            .iter()
            .map(|entry| entry.name.clone())
            .collect(),
        dropout: 0.0,
    };
    let folder = folder.with_adapter(&frozen);
    let mut model = folder.load(DType::F64, &Device::Cpu).unwrap().0;
    model.tile_rows = 7;
    for layer in &adapter.layers {
        let merged = merged_weight(params, layer).unwrap();
        let to = model.weights().layout().id(&layer.weight());
        let view = model.weights().view(to).clone();
        let to = crate::kernels::Dst::shared(&view);
        crate::kernels::elementwise::assign(
            to.narrowed(|x| x.unsqueeze(0)).unwrap(),
            &merged.unsqueeze(0).unwrap(),
        )
        .unwrap();
    }
    model
}

#[test]
fn adapters_have_the_log_probs_and_the_gradients_of_merged_weights() {
    for name in MODELS {
        for dora in [false, true] {
            let model = adapted(name, dora);
            let whole = merged_model(name, &model);
            let ((log_probs, gradients), (want, wanted)) = (results(&model), results(&whole));
            for (got, want) in log_probs.iter().zip(&want) {
                assert!(
                    (got - want).abs() < 1e-9 * want.abs(),
                    "{name}: {got} {want}"
                );
            }
            let params = model.weights();
            let adapter = params.layout().adapter.clone().unwrap();
            for layer in &adapter.layers {
                let mut dw = view(&wanted, &layer.weight()).clone();
                let (a, b) = (view(params, &layer.a()), view(params, &layer.b()));
                if dora {
                    let w = view(params, &layer.weight());
                    let v = (w + (b.matmul(a).unwrap() * layer.scale).unwrap()).unwrap();
                    let norm = v.sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap();
                    let unit = v.broadcast_div(&norm).unwrap();
                    let dm = (&dw * unit).unwrap().sum(1).unwrap();
                    let got = view(&gradients, &layer.magnitude());
                    assert_near(got, &dm, 1e-9, &format!("{name}: {}", layer.magnitude()));
                    let m = view(params, &layer.magnitude()).unsqueeze(1).unwrap();
                    dw = dw.broadcast_mul(&m.div(&norm).unwrap()).unwrap();
                }
                let scaled = (dw * layer.scale).unwrap();
                let da = b.t().unwrap().matmul(&scaled).unwrap();
                let db = scaled.matmul(&a.t().unwrap()).unwrap();
                for (part, want) in [(layer.a(), da), (layer.b(), db)] {
                    let got = view(&gradients, &part);
                    assert_near(got, &want, 1e-9, &format!("{name}: {part}"));
                }
            }
            let norm = &adapter.saved[0];
            assert_near(view(&gradients, norm), view(&wanted, norm), 1e-9, norm);
            assert_eq!(
                gradients.layout().entries.len(),
                adapter.layers.len() * (2 + usize::from(dora)) + 1
            );
        }
    }
}

#[test]
fn without_its_adapter_a_model_is_its_base() {
    for name in ["neox", "gpt2", "phi3"] {
        let model = adapted(name, false);
        let base = ModelFolder::open(&fixture(name)).unwrap();
        let base = base.load(DType::F64, &Device::Cpu).unwrap().0;
        let examples = examples();
        let packed = Packed::new(&examples, Role::ALL);
        // The final norm is trained whole, and as it was.
        assert_eq!(
            model.base().score(&packed).unwrap(),
            base.score(&packed).unwrap()
        );
        assert_ne!(model.score(&packed).unwrap(), base.score(&packed).unwrap());
    }
}

#[test]
fn recomputed_blocks_give_the_same_bits() {
    for dora in [false, true] {
        let mut model = adapted("llama3", dora);
        let kept = results(&model);
        model.recompute = true;
        let again = results(&model);
        assert_eq!(kept.0, again.0);
        let bits = |params: &Params| params.flat().to_vec1::<f64>().unwrap();
        assert!(bits(&kept.1) == bits(&again.1));
    }
}

/// With the same elements dropped the log-probs are a function of the weights, whose gradient is that of
/// finite differences.
#[test]
fn gradients_with_dropout_are_those_of_finite_differences() {
    for name in ["neox", "llama3", "phi3"] {
        let mut model = adapted_with(name, false, 0.4);
        let examples = examples();
        let packed = Packed::new(&examples, Role::ALL);
        let loss = |model: &Decoder| -> f64 {
            let mut sum = 0.0;
            let mut gradients = model.gradients().unwrap();
            let seeds = |example: usize, scores: &[crate::model::head::ResponseScore]| {
                let seed = |at: usize| 0.3 + 0.2 * example as f64 - 0.7 * at as f64;
                let seeds: Vec<f64> = (0..scores.len()).map(seed).collect();
                sum += seeds
                    .iter()
                    .zip(scores)
                    .map(|(s, score)| s * score.log_prob)
                    .sum::<f64>();
                Ok(seeds)
            };
            model.step(&packed, seeds, &mut gradients).unwrap();
            sum
        };
        let (log_probs, gradients) = results(&model);
        model.dropout_seed = 1;
        assert_ne!(log_probs, results(&model).0, "another seed drops others");
        model.dropout_seed = 0;
        let kept = results(&model).1;
        model.recompute = true;
        assert_eq!(log_probs, results(&model).0);
        model.recompute = false;
        let layout = gradients.layout().clone();
        for entry in &layout.entries {
            let all: Vec<f64> = gradients.flat().to_vec1().unwrap();
            let again: Vec<f64> = kept.flat().to_vec1().unwrap();
            assert!(all == again);
            let at = entry.range.start + entry.range.len() / 2;
            let place = model.weights().layout().entries[model.weights().layout().id(&entry.name)]
                .range
                .start
                + entry.range.len() / 2;
            let value = model.weights().values(place..place + 1).unwrap()[0];
            // A step that f32 holds.
            let step = 2f32.powi(-9);
            let mut at_value = |value: f32| {
                model.weights_mut().set(place, &[value]).unwrap();
                loss(&model)
            };
            let slope = (at_value(value + step) - at_value(value - step))
                / (f64::from(value + step) - f64::from(value - step));
            at_value(value);
            let largest = all[entry.range.clone()]
                .iter()
                .fold(0f64, |most, x| most.max(x.abs()));
            let off = (slope - all[at]).abs();
            assert!(
                off <= 1e-3 * largest.max(1e-2),
                "{name}: {} {slope} {}",
                entry.name,
                all[at]
            );
        }
    }
}

#[test]
fn what_is_dropped_does_not_depend_on_micro_batches() {
    let model = adapted_with("llama3", false, 0.3);
    let examples = examples();
    let of = |examples: &[Example]| -> Vec<f64> {
        let packed = Packed::new(examples, Role::ALL);
        let (mut gradients, mut log_probs) = (model.gradients().unwrap(), Vec::new());
        let seeds = |_: usize, scores: &[crate::model::head::ResponseScore]| {
            log_probs.extend(scores.iter().map(|score| score.log_prob));
            Ok(vec![1.0; scores.len()])
        };
        model.step(&packed, seeds, &mut gradients).unwrap();
        log_probs
    };
    let together = of(&examples);
    let alone = [of(&examples[..1]), of(&examples[1..])].concat();
    for (a, b) in together.iter().zip(&alone) {
        assert!((a - b).abs() < 1e-10 * b.abs(), "{a} {b}");
    }
    // Scores are of the whole model.
    let scores = model.score(&Packed::new(&examples, Role::ALL)).unwrap();
    assert!((scores[0][0].log_prob - together[0]).abs() > 1e-3);
}

/// Of a quantized base the CPU's f32 is what the kernels' text is held against.
#[test]
fn adapters_on_the_emulated_gpu_have_the_gradients_of_the_cpu() {
    let nf4 = Some(Format::Nf4 { double: true });
    for (name, dora, dropout, format) in [
        ("llama3", false, 0.0, None),
        ("neox", true, 0.0, None),
        ("phi3", false, 0.3, None),
        ("gpt2", false, 0.0, Some(Format::Q8_0)),
        ("qwen3", true, 0.0, nf4),
    ] {
        let Some(device) = emulator::device() else {
            return;
        };
        let load = |dtype: DType, device: &Device| {
            let folder = ModelFolder::open(&fixture(name)).unwrap();
            let adapter = adapter(&folder, dora, dropout);
            let folder = match format {
                Some(format) => folder.quantized(format).unwrap(),
                None => folder,
            };
            adapted_on(folder, &adapter, dtype, device)
        };
        let exact = if format.is_some() {
            DType::F32
        } else {
            DType::F64
        };
        let (log_probs, gradients) = results(&load(exact, &Device::Cpu));
        let flat = |params: &Params| -> Vec<f32> { download(params.flat()).unwrap() };
        let (got, found) = emulator::scope_on(&device, || {
            let (log_probs, gradients) = results(&load(DType::F32, &device));
            (log_probs, flat(&gradients))
        });
        for (got, want) in got.iter().zip(&log_probs) {
            assert!(
                (got - want).abs() <= 1e-4 * want.abs().max(1.0),
                "{name}: {got} {want}"
            );
        }
        let wanted = flat(&gradients);
        for entry in &gradients.layout().entries {
            let (got, want) = (&found[entry.range.clone()], &wanted[entry.range.clone()]);
            let largest = want.iter().fold(1e-5f32, |most, x| most.max(x.abs()));
            let off = got.iter().zip(want).map(|(a, b)| (a - b).abs());
            let off = off.fold(0f32, f32::max) / largest;
            assert!(off <= 1e-3, "{name}: {} is off by {off}", entry.name);
        }
    }
}
