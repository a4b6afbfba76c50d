use candle_core::Tensor;

use super::*;
use crate::kernels::testing::variable;
use crate::model::parameters::{Init, Storage};
use crate::optim::{Optimizer, OptimizerConfig, Updated};

/// Parameters of these shapes: `a.0`, `b.1`, ... Those with two sizes decay.
fn layout(shapes: &[&[usize]]) -> Arc<Layout> {
    let entry = |(i, shape): (usize, &&[usize])| Entry {
        name: format!("{}.{i}", char::from(b'a' + i as u8)),
        shape: shape.to_vec(),
        transposed: false,
        range: 0..0,
        storage: Storage::Flat,
        decay: shape.len() > 1,
        trainable: true,
        init: Init::Normal,
    };
    Arc::new(placed(shapes.iter().enumerate().map(entry).collect()))
}

fn values(layout: &Arc<Layout>, seed: u64) -> Params {
    let values: Vec<f64> = variable(seed, &[layout.len]).to_vec1().unwrap();
    let values: Vec<f32> = values.into_iter().map(|x| x as f32).collect();
    let mut params = Params::zeros(layout.clone(), DType::F32, &Device::Cpu).unwrap();
    params.set(0, &values).unwrap();
    params
}

fn optimizer(optim: Method, weights: &Params) -> Optimizer {
    let config = OptimizerConfig {
        optim,
        max_grad_norm: 0.0,
        weight_decay: Some(0.1),
        ..OptimizerConfig::default()
    };
    Optimizer::new(&config, weights).unwrap()
}

#[test]
fn the_bytes_of_moments_are_those_that_are_counted() {
    let layout = layout(&[&[70, 100], &[4095], &[16, 256], &[33]]);
    for method in [
        Method::AdamW,
        Method::AdamW8bit,
        Method::Adam,
        Method::RmsProp,
        Method::Lion,
        Method::Muon,
    ] {
        let moments = Moments::new(method, &layout, DType::F32, &Device::Cpu).unwrap();
        let bytes = |params: &Params| params.layout().len * params.flat().dtype().size_in_bytes();
        let bytes: usize = moments.buffers().iter().map(|(_, x)| bytes(x)).sum();
        assert_eq!(bytes as u64, method.moment_bytes(&layout, 4), "{method:?}");
    }
    let eight = Method::AdamW8bit.moment_bytes(&layout, 4);
    assert_eq!(eight, 2 * (7000 + 28 * 4 + 4096 + 16 * 4 + 4 * (4095 + 33)));
}

/// The update of a parameter does not depend on the others, nor on where it lies.
#[test]
fn blocks_are_of_one_parameter() {
    let run = |shapes: &[&[usize]]| {
        let layout = layout(shapes);
        let (mut weights, last) = (values(&layout, 0), shapes.len() - 1);
        let mut optimizer = optimizer(Method::AdamW8bit, &weights);
        for step in 1..4 {
            let mut gradients = values(&layout, step);
            // The last parameter's numbers are the same whatever is in front of it.
            let own: Vec<f64> = variable(step + 10, &[5000]).to_vec1().unwrap();
            let own: Vec<f32> = own.into_iter().map(|x| x as f32).collect();
            let start = layout.entries[last].range.start;
            gradients.set(start, &own).unwrap();
            if step == 1 {
                weights.set(start, &own).unwrap();
            }
            optimizer.step(&mut weights, &gradients, 1e-2).unwrap();
        }
        weights.values(layout.entries[last].range.clone()).unwrap()
    };
    assert_eq!(run(&[&[50, 100]]), run(&[&[70, 101], &[33], &[50, 100]]));
}

#[test]
fn threads_change_no_bit() {
    let layout = layout(&[&[300, 211], &[33]]);
    let run = |threads: usize, method: Method| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut weights = values(&layout, 0);
            let mut optimizer = optimizer(method, &weights);
            for step in 1..4 {
                let gradients = values(&layout, step);
                optimizer.step(&mut weights, &gradients, 1e-2).unwrap();
            }
            weights.values(0..layout.len).unwrap()
        })
    };
    for method in [Method::AdamW8bit, Method::Lion, Method::Muon] {
        assert_eq!(run(1, method), run(3, method), "{method:?}");
    }
}

/// A least-squares problem of 64 to 64 numbers, whose inputs are of unequal size: after 200 steps AdamW in
/// 8 bits is 0.106 of AdamW's way from where AdamW is, and its loss is larger by 1.2%.
#[test]
fn adamw_in_8_bits_stays_near_adamw() {
    let layout = layout(&[&[64, 64]]);
    let (inputs, truth) = (values(&layout, 100), values(&layout, 101));
    let matrix = |params: &Params| params.view(0).clone();
    let sizes: Vec<f32> = (0..64).map(|i| 2f32.powi(-(i % 3))).collect();
    let sizes = Tensor::from_vec(sizes, (1, 64), &Device::Cpu).unwrap();
    let x = matrix(&inputs).broadcast_mul(&sizes).unwrap();
    let run = |method: Method| {
        let mut weights = values(&layout, 102);
        let start = weights.values(0..layout.len).unwrap();
        let mut optimizer = optimizer(method, &weights);
        let mut losses = Vec::new();
        for _ in 0..200 {
            let off = (matrix(&weights) - matrix(&truth)).unwrap();
            let off = off.matmul(&x.t().unwrap()).unwrap();
            let loss = off.sqr().unwrap().mean_all().unwrap();
            losses.push(loss.to_scalar::<f32>().unwrap());
            let gradient = (off.matmul(&x).unwrap() * (2.0 / 4096.0)).unwrap();
            let mut gradients = Params::zeros(layout.clone(), DType::F32, &Device::Cpu).unwrap();
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            gradients.set(0, &gradient).unwrap();
            optimizer.step(&mut weights, &gradients, 1e-2).unwrap();
        }
        (weights.values(0..layout.len).unwrap(), start, losses)
    };
    let ((exact, start, losses), (coded, _, losses_8bit)) =
        (run(Method::AdamW), run(Method::AdamW8bit));
    let distance = |a: &[f32], b: &[f32]| {
        let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let share = distance(&coded, &exact) / distance(&exact, &start);
    assert!(share > 0.0 && share < 0.15, "{share}");
    assert!(losses[199] < 0.1 * losses[0], "{losses:?}");
    let more = losses_8bit[199] / losses[199] - 1.0;
    assert!(more.abs() < 0.05, "{more}");
}

#[test]
fn an_update_that_overflows_is_not_made() {
    let layout = layout(&[&[64, 65], &[33]]);
    for method in [Method::AdamW8bit, Method::Lion, Method::Muon] {
        let mut weights = values(&layout, 0);
        let before = weights.values(0..layout.len).unwrap();
        let mut optimizer = optimizer(method, &weights);
        let gradients = values(&layout, 1);
        optimizer.step(&mut weights, &gradients, 0.0).unwrap();
        assert_eq!(weights.values(0..layout.len).unwrap(), before);
        let made = optimizer.step(&mut weights, &gradients, 3.4e38).unwrap();
        // A bias takes no decay, but a step of the rate.
        let Updated::Overflows(names) = made else {
            panic!("{method:?}: {made:?}");
        };
        assert!(names.contains(&"b.1".to_owned()), "{method:?}: {names:?}");
        assert_eq!(weights.values(0..layout.len).unwrap(), before);
    }
}
