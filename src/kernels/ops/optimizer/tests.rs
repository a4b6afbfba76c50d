use super::*;
use crate::kernels::cpu::optimizer::UNIT;
use crate::kernels::testing::*;
use candle_core::{DType, Device};
use serde_json::Value;

fn values(x: &Tensor) -> Vec<f64> {
    x.to_vec1().unwrap()
}

#[test]
fn adam_follows_its_formula_over_several_steps() {
    let n = UNIT + 77;
    // Inside a unit, over its end, and at the very last element.
    let decayed = [3..5, UNIT - 2..UNIT + 40, n - 1..n];
    let marked = Decayed::new(decayed.to_vec(), &Device::Cpu).unwrap();
    let mut weights = variable(1, &[n]).as_tensor().copy().unwrap();
    let (mut mean, mut square) = (zeros_like(&weights), zeros_like(&weights));
    let (mut w, mut m, mut v) = (values(&weights), vec![0.0; n], vec![0.0; n]);
    for step in 1..=4u64 {
        let gradient = variable(step + 10, &[n]);
        let update = Adam {
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-3,
            rate: 0.1,
            weight_decay: 0.2,
            step,
        };
        adam(
            &update,
            &marked,
            Weights::Plain((&mut weights).into()),
            ((&mut mean).into(), (&mut square).into()),
            (&gradient, 0.5),
        )
        .unwrap();
        for (i, g) in values(&gradient).iter().map(|g| g * 0.5).enumerate() {
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.99 * v[i] + 0.01 * g * g;
            let mean = m[i] / (1.0 - 0.9f64.powi(step as i32));
            let square = v[i] / (1.0 - 0.99f64.powi(step as i32));
            let decays = decayed.iter().any(|range| range.contains(&i));
            let decay = if decays { 0.2 } else { 0.0 };
            w[i] -= 0.1 * (decay * w[i] + mean / (square.sqrt() + 1e-3));
        }
    }
    for (got, want) in values(&weights).iter().zip(w) {
        assert!((got - want).abs() < 1e-14, "{got} {want}");
    }
    assert!(
        values(&mean)
            .iter()
            .zip(m)
            .all(|(a, b)| (a - b).abs() < 1e-15)
    );
    assert!(
        values(&square)
            .iter()
            .zip(v)
            .all(|(a, b)| (a - b).abs() < 1e-15)
    );
}

#[test]
fn rmsprop_follows_its_formula() {
    let n = UNIT + 3;
    let mut weights = variable(1, &[n]).as_tensor().copy().unwrap();
    let (gradient, mut square) = (variable(2, &[n]), zeros_like(&weights));
    let want: Vec<f64> = values(&weights)
        .iter()
        .zip(values(&gradient))
        .map(|(w, g)| w - 0.1 * 0.5 * g / ((0.01 * 0.25 * g * g).sqrt() + 1e-8))
        .collect();
    let update = RmsProp {
        alpha: 0.99,
        epsilon: 1e-8,
        rate: 0.1,
        step: 1,
    };
    let plain = Weights::Plain((&mut weights).into());
    rmsprop(&update, plain, (&mut square).into(), (&gradient, 0.5)).unwrap();
    for (got, want) in values(&weights).iter().zip(want) {
        assert!((got - want).abs() < 1e-12);
    }
}

#[test]
fn f32_follows_f64() {
    let n = 1000;
    let run = |dtype: DType| {
        let make = |seed| {
            variable(seed, &[n])
                .to_dtype(dtype)
                .unwrap()
                .copy()
                .unwrap()
        };
        let (mut weights, gradient) = (make(1), make(2));
        let (mut mean, mut square) = (weights.zeros_like().unwrap(), weights.zeros_like().unwrap());
        let update = Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            rate: 0.01,
            weight_decay: 0.1,
            step: 1,
        };
        let moments = ((&mut mean).into(), (&mut square).into());
        let all = Decayed::new(std::iter::once(0..n).collect(), &Device::Cpu).unwrap();
        let plain = Weights::Plain((&mut weights).into());
        adam(&update, &all, plain, moments, (&gradient, 1.0)).unwrap();
        values(&weights.to_dtype(DType::F64).unwrap())
    };
    for (got, want) in run(DType::F32).iter().zip(run(DType::F64)) {
        assert!((got - want).abs() < 2e-7, "{got} {want}");
    }
}

#[test]
fn buffers_of_other_lengths_or_types_are_refused() {
    let update = RmsProp {
        alpha: 0.99,
        epsilon: 1e-8,
        rate: 0.1,
        step: 1,
    };
    let [weights, gradient, square] = [(1, 4), (1, 4), (2, 3)].map(|(seed, n)| {
        let x = variable(seed, &[n]);
        x.as_tensor().copy().unwrap()
    });
    let (mut weights, mut square) = (weights, square);
    let plain = Weights::Plain((&mut weights).into());
    let error = rmsprop(&update, plain, (&mut square).into(), (&gradient, 1.0)).unwrap_err();
    assert!(error.to_string().contains("[4, 3, 4]"), "{error}");
    let square = square.to_dtype(DType::F32).unwrap();
    let mut square = Tensor::cat(&[&square, &square.narrow(0, 0, 1).unwrap()], 0).unwrap();
    let gradient = zeros_like(&weights);
    let plain = Weights::Plain((&mut weights).into());
    assert!(rmsprop(&update, plain, (&mut square).into(), (&gradient, 1.0)).is_err());
}

#[test]
fn the_norm_sums_in_f64() {
    let x = Tensor::from_vec(vec![1e-4f32; 100_000], 100_000, &Device::Cpu).unwrap();
    let want = 100_000.0 * f64::from(1e-4f32).powi(2);
    assert!((squared_norm(&x).unwrap() - want).abs() < 1e-12 * want);
}

#[test]
fn lion_follows_its_formula_over_several_steps() {
    let n = UNIT + 77;
    let decayed = [3..5, UNIT - 2..UNIT + 40];
    let marked = Decayed::new(decayed.to_vec(), &Device::Cpu).unwrap();
    let mut weights = variable(1, &[n]).as_tensor().copy().unwrap();
    let mut mean = zeros_like(&weights);
    let (mut w, mut m) = (values(&weights), vec![0.0; n]);
    for step in 1..=4u64 {
        // Where the gradient is 0 at first, so is the sign.
        let gradient = (variable(step + 10, &[n]).as_tensor() * (step > 1) as u32 as f64).unwrap();
        let update = Lion {
            beta1: 0.9,
            beta2: 0.99,
            rate: 0.1,
            weight_decay: 0.2,
            step,
        };
        let plain = Weights::Plain((&mut weights).into());
        lion(
            &update,
            &marked,
            plain,
            (&mut mean).into(),
            (&gradient, 0.5),
        )
        .unwrap();
        for (i, g) in values(&gradient).iter().map(|g| g * 0.5).enumerate() {
            let direction: f64 = 0.9 * m[i] + (1.0 - 0.9) * g;
            let sign = if direction == 0.0 {
                0.0
            } else {
                direction.signum()
            };
            let decays = decayed.iter().any(|range| range.contains(&i));
            let decay = if decays { 0.2 } else { 0.0 };
            w[i] -= 0.1 * (decay * w[i] + sign);
            m[i] = 0.99 * m[i] + 0.01 * g;
        }
    }
    for (got, want) in values(&weights).iter().zip(w) {
        assert!((got - want).abs() < 1e-14, "{got} {want}");
    }
    for (got, want) in values(&mean).iter().zip(m) {
        assert!((got - want).abs() < 1e-15, "{got} {want}");
    }
}

/// The gradient of `scripts/make_optimizer_oracle.py`.
fn sparse_gradient(n: usize, step: usize) -> Tensor {
    let scales = [1.0, 10.0, 100.0, 1000.0, 10000.0];
    let number = |i: usize| {
        let x = ((i * 7919 + step * 104_729) % 2003) as f64 - 1001.0;
        let shown = !(i + step).is_multiple_of(7);
        if shown {
            (x / 1001.0 / scales[i % 5]) as f32
        } else {
            0.0
        }
    };
    Tensor::from_vec((0..n).map(number).collect::<Vec<f32>>(), n, &Device::Cpu).unwrap()
}

/// Moments of zeros in 8 bits.
fn coded_zeros(n: usize) -> [Tensor; 2] {
    [(n, DType::U8), (n.div_ceil(BLOCK), DType::F32)]
        .map(|(n, dtype)| Tensor::zeros(n, dtype, &Device::Cpu).unwrap())
}

fn coded([codes, absmax]: &mut [Tensor; 2]) -> Coded<'_> {
    Coded {
        codes: codes.into(),
        absmax: absmax.into(),
    }
}

#[test]
fn adam_in_8_bits_follows_its_rule_to_the_code() {
    let text = std::fs::read_to_string(fixture("oracle/optimizers.json")).unwrap();
    let oracle: Value = serde_json::from_str(&text).unwrap();
    let numbers = |x: &Value| -> Vec<f64> {
        let list = x.as_array().unwrap().iter();
        list.map(|x| x.as_f64().unwrap()).collect()
    };
    let maps = Maps::new(&Device::Cpu).unwrap();
    let tables = maps.tensor().to_vec1::<f32>().unwrap();
    for (ours, theirs) in tables.chunks(512).zip(oracle["maps"].as_array().unwrap()) {
        let ours: Vec<f64> = ours[..256].iter().map(|&x| x.into()).collect();
        assert_eq!(ours, numbers(theirs));
    }
    let oracle = &oracle["adam_8bit"];
    let n = oracle["n"].as_u64().unwrap() as usize;
    let start = |i: usize| ((i * 613 % 997) as f64 - 498.0) as f32 / 498.0;
    let start: Vec<f32> = (0..n).map(start).collect();
    let mut weights = Tensor::from_vec(start, n, &Device::Cpu).unwrap();
    let (mut mean, mut square) = (coded_zeros(n), coded_zeros(n));
    for step in 1..=oracle["steps"].as_u64().unwrap() {
        let update = Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            rate: 0.01,
            weight_decay: 0.1,
            step,
        };
        let moments = [coded(&mut mean), coded(&mut square)];
        let plain = Weights::Plain((&mut weights).into());
        let gradient = sparse_gradient(n, step as usize);
        adam_8bit(&update, true, &maps, plain, moments, (&gradient, 1.0)).unwrap();
    }
    let codes = |x: &Tensor| -> Vec<f64> {
        let codes: Vec<u8> = x.to_vec1().unwrap();
        codes.into_iter().map(f64::from).collect()
    };
    let wide = |x: &Tensor| values(&x.to_dtype(DType::F64).unwrap());
    for (which, [ours, absmax]) in [mean, square].iter().enumerate() {
        assert_eq!(codes(ours), numbers(&oracle["codes"][which]));
        assert_eq!(wide(absmax), numbers(&oracle["absmax"][which]));
    }
    assert_eq!(wide(&weights), numbers(&oracle["weights"]));
}

/// One element has a gradient once, a thousandth of the others', and none after: its square is a millionth
/// of theirs, which rounds to 0, and so would let its mean move it by thousands of learning rates.
#[test]
fn a_small_square_beside_large_ones_bounds_the_update() {
    let n = BLOCK;
    let mut weights = Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
    let (mut mean, mut square) = (coded_zeros(n), coded_zeros(n));
    let maps = Maps::new(&Device::Cpu).unwrap();
    for step in 1..=20 {
        let mut gradient = vec![1f32; n];
        gradient[7] = if step == 1 { 3e-5 } else { 0.0 };
        let gradient = Tensor::from_vec(gradient, n, &Device::Cpu).unwrap();
        let update = Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            rate: 1e-3,
            weight_decay: 0.0,
            step,
        };
        let moments = [coded(&mut mean), coded(&mut square)];
        let plain = Weights::Plain((&mut weights).into());
        adam_8bit(&update, false, &maps, plain, moments, (&gradient, 1.0)).unwrap();
    }
    let moved = weights.to_vec1::<f32>().unwrap()[7].abs();
    assert!(moved > 0.0 && moved < 20.0 * 1e-3, "{moved}");
}

#[test]
fn codes_of_other_lengths_or_types_are_refused() {
    let n = BLOCK + 1;
    let mut weights = Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
    let gradient = weights.zeros_like().unwrap();
    let maps = Maps::new(&Device::Cpu).unwrap();
    let update = Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        rate: 1e-3,
        weight_decay: 0.0,
        step: 1,
    };
    let mut step = |mut mean: [Tensor; 2]| {
        let mut square = coded_zeros(n);
        let moments = [coded(&mut mean), coded(&mut square)];
        let plain = Weights::Plain((&mut weights).into());
        adam_8bit(&update, false, &maps, plain, moments, (&gradient, 1.0))
    };
    step(coded_zeros(n)).unwrap();
    let error = step(coded_zeros(BLOCK)).unwrap_err().to_string();
    assert!(error.contains("for 257 numbers in 8 bits"), "{error}");
    let [_, absmax] = coded_zeros(n);
    step([gradient.clone(), absmax]).unwrap_err();
}
