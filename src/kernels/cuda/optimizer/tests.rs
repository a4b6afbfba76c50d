use super::*;
use crate::kernels::cuda::ptx_tests::covering;
use crate::kernels::device::{self, download_split, upload, upload_split};
use crate::kernels::emulator::{self, compare, scope_on};
use crate::kernels::optimizer::{adam, adam_8bit, descend, lion, rmsprop, squared_norm};
use crate::kernels::testing::*;
use candle_core::Device;

const STEPS: u64 = 4;

fn adam_at(step: u64) -> Adam {
    Adam {
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-3,
        rate: 0.1,
        weight_decay: 0.2,
        step,
    }
}

fn rmsprop_at(step: u64) -> RmsProp {
    RmsProp {
        alpha: 0.99,
        epsilon: 1e-3,
        rate: 0.1,
        step,
    }
}

fn lion_at(step: u64) -> Lion {
    Lion {
        beta1: 0.9,
        beta2: 0.99,
        rate: 0.1,
        weight_decay: 0.2,
        step,
    }
}

/// Inside a pack, over its end, over several, next to each other, and at the very last element.
fn decayed(n: usize, device: &Device) -> Decayed {
    let ranges = [
        0..1,
        3..5,
        6..10,
        10..11,
        15..39,
        n / 2..n / 2 + 1,
        n - 1..n,
    ];
    let mut apart: Vec<std::ops::Range<usize>> = Vec::new();
    for range in ranges {
        let start = apart.last().map_or(0, |last| last.end).max(range.start);
        if range.end <= n && start < range.end {
            apart.push(start..range.end);
        }
    }
    Decayed::new(apart, device).unwrap()
}

fn gradient(step: u64, n: usize) -> Tensor {
    variable(step + 10, &[n]).to_dtype(DType::F32).unwrap()
}

fn floats(x: &Tensor) -> Vec<f32> {
    here(x).to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn zeros(n: usize, dtype: DType, device: &Device) -> Tensor {
    device::zeros(n, dtype, device).unwrap()
}

#[test]
fn the_norm_is_that_of_the_processor() {
    check_norm(&[1, 3, 33, 2_049, 100_003]);
    let Some(device) = emulator::device() else {
        return;
    };
    let none = zeros(0, DType::F32, &device);
    assert_eq!(scope_on(&device, || squared_norm(&none).unwrap()), 0.0);
}

fn check_norm(sizes: &[usize]) {
    let Some(device) = emulator::device() else {
        return;
    };
    for &n in sizes {
        let x = gradient(1, n);
        let want = squared_norm(&x).unwrap();
        let x = on(&device, &x);
        let got = scope_on(&device, || squared_norm(&x).unwrap());
        assert!((got - want).abs() <= 1e-14 * want, "{got} {want}");
    }
}

#[test]
fn plain_updates_are_those_of_the_processor() {
    check_plain(&[1, 3, 33, 129, 4_097]);
}

fn check_plain(sizes: &[usize]) {
    for &n in sizes {
        // Views that begin anywhere.
        for skip in [0, 1, 8] {
            let inputs: Vec<Tensor> = (1..=1 + STEPS)
                .map(|seed| gradient(seed, n + skip))
                .collect();
            let view = |x: &Tensor| x.narrow(0, skip, n).unwrap();
            compare("adam", &inputs, 2e-6, |inputs| {
                let decayed = decayed(n, inputs[0].device());
                let mut weights = view(&inputs[0]);
                let [mut mean, mut square] =
                    [1, 2].map(|_| zeros(n, weights.dtype(), weights.device()));
                for step in 1..=STEPS {
                    let plain = Weights::Plain((&mut weights).into());
                    let gradient = (&view(&inputs[step as usize]), 0.5);
                    let moments = ((&mut mean).into(), (&mut square).into());
                    adam(&adam_at(step), &decayed, plain, moments, gradient).unwrap();
                }
                vec![inputs[0].clone(), mean, square]
            });
            compare("rmsprop", &inputs, 2e-6, |inputs| {
                let mut weights = view(&inputs[0]);
                let mut square = zeros(n, weights.dtype(), weights.device());
                for step in 1..=STEPS {
                    let plain = Weights::Plain((&mut weights).into());
                    let gradient = (&view(&inputs[step as usize]), 0.5);
                    rmsprop(&rmsprop_at(step), plain, (&mut square).into(), gradient).unwrap();
                }
                vec![inputs[0].clone(), square]
            });
            compare("descend", &inputs, 2e-6, |inputs| {
                let mut weights = view(&inputs[0]);
                let plain = Weights::Plain((&mut weights).into());
                descend(0.9, 0.5, plain, &view(&inputs[1])).unwrap();
                vec![inputs[0].clone()]
            });
            compare("lion", &inputs, 2e-6, |inputs| {
                let decayed = decayed(n, inputs[0].device());
                let mut weights = view(&inputs[0]);
                let mut mean = zeros(n, weights.dtype(), weights.device());
                for step in 1..=STEPS {
                    let plain = Weights::Plain((&mut weights).into());
                    let gradient = (&view(&inputs[step as usize]), 0.5);
                    let mean = (&mut mean).into();
                    lion(&lion_at(step), &decayed, plain, mean, gradient).unwrap();
                }
                vec![inputs[0].clone(), mean]
            });
        }
    }
}

/// The weights, codes and absmax of several updates; `split`: by bf16 weights and what they lack.
fn trajectory_8bit(device: &Device, n: usize, skip: usize, split: bool) -> Vec<Vec<f32>> {
    let view = |x: &Tensor| x.narrow(0, skip, n).unwrap();
    let maps = Maps::new(device).unwrap();
    let mut plain = view(&on(device, &gradient(0, n + skip)));
    let [mut high, mut low] = [DType::BF16, DType::I16].map(|dtype| zeros(n, dtype, device));
    upload_split(&floats(&plain), &mut high, &mut low).unwrap();
    let moment = || {
        let codes = view(&zeros(n + skip, DType::U8, device));
        [codes, zeros(n.div_ceil(BLOCK), DType::F32, device)]
    };
    let mut moments = [moment(), moment()];
    for step in 1..=STEPS {
        let weights = match split {
            true => Weights::Split {
                weights: (&mut high).into(),
                low: (&mut low).into(),
            },
            false => Weights::Plain((&mut plain).into()),
        };
        let gradient = (&view(&on(device, &gradient(step, n + skip))), 0.5);
        let coded = moments.each_mut().map(|[codes, absmax]| Coded {
            codes: codes.into(),
            absmax: absmax.into(),
        });
        adam_8bit(&adam_at(step), true, &maps, weights, coded, gradient).unwrap();
    }
    let weights = match split {
        true => download_split(&high, &low).unwrap(),
        false => floats(&plain),
    };
    let codes = |x: &Tensor| -> Vec<f32> {
        let codes = device::download_bytes(x).unwrap();
        codes.into_iter().map(f32::from).collect()
    };
    let [[mean, mean_absmax], [square, square_absmax]] = moments;
    let absmax = [floats(&mean_absmax), floats(&square_absmax)];
    vec![weights, absmax.concat(), codes(&mean), codes(&square)]
}

#[test]
fn updates_in_8_bits_are_those_of_the_processor() {
    check_8bit(&[(1, 0), (33, 0), (256, 8), (300, 1), (2_049, 0)], 0.0);
}

/// `fused`: how far a product that is not rounded before it is added to may take a number; a code may
/// then be the next one.
fn check_8bit(cases: &[(usize, usize)], fused: f32) {
    let Some(device) = emulator::device() else {
        return;
    };
    for &(n, skip) in cases {
        let want = trajectory_8bit(&Device::Cpu, n, skip, false);
        for split in [false, true] {
            let got = scope_on(&device, || trajectory_8bit(&device, n, skip, split));
            for (part, (got, want)) in got.iter().zip(&want).enumerate() {
                let off = got.iter().zip(want).map(|(a, b)| (a - b).abs());
                let most = off.clone().fold(0.0, f32::max);
                match part < 2 || fused == 0.0 {
                    true => assert!(most <= fused, "{n} {split} {part}: {most}"),
                    false => {
                        let others = off.filter(|&off| off > 0.0).count();
                        assert!(most <= 1.0 && others <= n / 50 + 1, "{n}: {most} {others}");
                    }
                }
            }
        }
    }
}

/// The weights of several updates, bf16 and f32, and the moments. `momentum`: Adam, else RMSprop.
fn trajectory(
    device: &Device,
    n: usize,
    split_layout: bool,
    moment: DType,
    momentum: bool,
) -> [Tensor; 4] {
    let mut master = on(device, &gradient(0, n));
    let [mut weights, mut low] = [DType::BF16, DType::I16].map(|dtype| zeros(n, dtype, device));
    match split_layout {
        true => upload_split(&floats(&master), &mut weights, &mut low).unwrap(),
        false => upload(&floats(&master), &mut weights).unwrap(),
    }
    let [mut mean, mut square] = [1, 2].map(|_| zeros(n, moment, device));
    let decayed = decayed(n, device);
    for step in 1..=STEPS {
        let kept = match split_layout {
            true => Weights::Split {
                weights: (&mut weights).into(),
                low: (&mut low).into(),
            },
            false => Weights::Master {
                weights: (&mut weights).into(),
                master: (&mut master).into(),
            },
        };
        let gradient = (&on(device, &gradient(step, n)), 0.5);
        match momentum {
            true => {
                let moments = ((&mut mean).into(), (&mut square).into());
                adam(&adam_at(step), &decayed, kept, moments, gradient).unwrap();
            }
            false => rmsprop(&rmsprop_at(step), kept, (&mut square).into(), gradient).unwrap(),
        }
    }
    let master = match split_layout {
        true => {
            let values = download_split(&weights, &low).unwrap();
            device::from_host(&values, n, device).unwrap()
        }
        false => master,
    };
    [weights, master, mean, square]
}

/// The same in f64, by the formulas.
fn exact(n: usize, momentum: bool) -> Vec<f64> {
    let wide = |x: Tensor| -> Vec<f64> { floats(&x).iter().map(|&x| x.into()).collect() };
    let (mut w, mut m, mut v) = (wide(gradient(0, n)), vec![0.0; n], vec![0.0; n]);
    let decayed = decayed(n, &Device::Cpu);
    for step in 1..=STEPS {
        for (i, g) in wide(gradient(step, n)).iter().map(|g| g * 0.5).enumerate() {
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.99 * v[i] + 0.01 * g * g;
            let decay = if decayed.ranges().iter().any(|r| r.contains(&i)) {
                0.2
            } else {
                0.0
            };
            let mean = m[i] / (1.0 - 0.9f64.powi(step as i32));
            let square = v[i] / (1.0 - 0.99f64.powi(step as i32));
            w[i] -= match momentum {
                true => 0.1 * (decay * w[i] + mean / (square.sqrt() + 1e-3)),
                false => 0.1 * g / (v[i].sqrt() + 1e-3),
            };
        }
    }
    w
}

#[test]
fn bf16_weights_are_the_rounding_of_f32_ones_in_both_layouts() {
    check_layouts(&[(1, true), (33, true), (1_029, true), (1_029, false)]);
}

#[test]
fn their_ptx_computes_the_same() {
    covering(modules(), || {
        check_norm(&[33, 2_049]);
        check_plain(&[33, 129]);
        check_8bit(&[(33, 0), (300, 1), (520, 0)], 1e-4);
        check_layouts(&[(33, true), (1_029, true), (70, false)]);
    });
}

fn check_layouts(cases: &[(usize, bool)]) {
    let Some(device) = emulator::device() else {
        return;
    };
    for &(n, momentum) in cases {
        let run = |split: bool, moment: DType| {
            scope_on(&device, || trajectory(&device, n, split, moment, momentum))
        };
        let (master, split) = (run(false, DType::F32), run(true, DType::F32));
        for (got, want) in split.iter().zip(&master) {
            assert_eq!(floats(got), floats(want));
        }
        for ((rounded, got), want) in floats(&master[0])
            .iter()
            .zip(floats(&master[1]))
            .zip(exact(n, momentum))
        {
            assert!((f64::from(got) - want).abs() < 2e-6, "{got} {want}");
            assert!(
                (rounded - got).abs() <= got.abs() / 256.0,
                "{rounded} {got}"
            );
        }
        // Moments to 8 bits move a weight by a share of the rate, which is 0.1.
        let bf16 = run(true, DType::BF16);
        let pairs = floats(&bf16[1]).into_iter().zip(exact(n, momentum));
        let off: Vec<f64> = pairs.map(|(got, want)| f64::from(got) - want).collect();
        assert!(off.iter().all(|off| off.abs() < 0.02), "{off:?}");
        let mean = off.iter().sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01 / (n as f64).sqrt(), "{mean}");
        for (rounded, got) in floats(&bf16[0]).iter().zip(floats(&bf16[1])) {
            assert!((rounded - got).abs() <= got.abs() / 256.0);
        }
    }
}

#[test]
fn the_mean_of_random_roundings_is_the_number() {
    let Some(device) = emulator::device() else {
        return;
    };
    let n = 1 << 15;
    // Between two bf16 numbers 1/128 apart, at several shares of the way; negative, tiny, huge.
    for x in [1.000_976_6f32, 1.005, -1.007_8, 1e-40, 3.395e38, 0.0] {
        // beta 0 makes the moments the gradient and its square.
        let run = |step| {
            let update = Adam {
                beta1: 0.0,
                beta2: 0.0,
                weight_decay: 0.0,
                ..adam_at(step)
            };
            let gradient = device::from_host(&vec![x; n], n, &device).unwrap();
            let [mut weights, mut mean, mut square] =
                [1, 2, 3].map(|_| zeros(n, DType::BF16, &device));
            let mut low = zeros(n, DType::I16, &device);
            let kept = Weights::Split {
                weights: (&mut weights).into(),
                low: (&mut low).into(),
            };
            let moments = ((&mut mean).into(), (&mut square).into());
            let none = Decayed::new(Vec::new(), &device).unwrap();
            scope_on(&device, || {
                adam(&update, &none, kept, moments, (&gradient, 1.0)).unwrap();
            });
            (floats(&mean), floats(&square))
        };
        let (mean, square) = run(1);
        let check = |all: &[f32], x: f32| {
            let down = f64::from(f32::from_bits(x.to_bits() & 0xffff_0000));
            let up = f64::from(f32::from_bits((x.to_bits() & 0xffff_0000) + 0x1_0000));
            let up = if up.is_finite() { up } else { down };
            assert!(
                all.iter()
                    .all(|&y| f64::from(y) == down || f64::from(y) == up),
                "{x}"
            );
            let mean = all.iter().map(|&y| f64::from(y)).sum::<f64>() / n as f64;
            let deviation = (up - down).abs() / 2.0 / (n as f64).sqrt();
            let want = if up == down { down } else { f64::from(x) };
            assert!((mean - want).abs() <= 4.0 * deviation, "{x}: {mean}");
        };
        check(&mean, x);
        let squared = x * x;
        if squared.is_finite() {
            check(&square, squared);
        }
        if x == 1.005 {
            // Other updates, places and moments round in other ways.
            let others = [run(2), run(3)];
            let ups =
                |all: &[f32]| -> Vec<bool> { all.iter().map(|&y| y > all[0].min(x)).collect() };
            let mine = ups(&mean);
            let same = |other: &[bool]| mine.iter().zip(other).filter(|(a, b)| a == b).count();
            let share = 0.64f64;
            let chance = share * share + (1.0 - share) * (1.0 - share);
            for (other, _) in &others {
                let same = same(&ups(other)) as f64 / n as f64;
                assert!((same - chance).abs() < 0.02, "{same} {chance}");
            }
            let mut shifted = mine.clone();
            shifted.rotate_left(1);
            let same = same(&shifted) as f64 / n as f64;
            assert!((same - chance).abs() < 0.02, "{same} {chance}");
            assert_eq!(run(1), (mean, square));
        }
    }
}

/// f32 and bf16 buffers of four elements, and an update by them.
struct Buffers {
    f32: Tensor,
    other: Tensor,
    bf16: Tensor,
    other_bf16: Tensor,
    decayed: Decayed,
}

impl Buffers {
    fn new(device: &Device) -> Self {
        let make = |dtype| zeros(4, dtype, device);
        Self {
            f32: make(DType::F32),
            other: make(DType::F32),
            bf16: make(DType::BF16),
            other_bf16: make(DType::BF16),
            decayed: decayed(4, device),
        }
    }

    fn plain(&self) -> Weights<'static> {
        Weights::Plain(Dst::shared(&self.f32))
    }

    fn master(&self) -> Weights<'static> {
        Weights::Master {
            weights: Dst::shared(&self.bf16),
            master: Dst::shared(&self.f32),
        }
    }

    fn step(&self, kept: Weights, moments: [&Tensor; 2], gradient: &Tensor) -> Result<()> {
        let [mean, square] = moments.map(Dst::shared);
        let gradient = (gradient, 1.0);
        adam(&adam_at(1), &self.decayed, kept, (mean, square), gradient)
    }
}

#[test]
fn types_that_do_not_go_together_are_refused() {
    let all = Buffers::new(&Device::Cpu);
    let error = all.step(all.master(), [&all.f32, &all.other], &all.f32);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("on a GPU alone"), "{error}");
    let Some(device) = emulator::device() else {
        return;
    };
    let all = Buffers::new(&device);
    let double = zeros(4, DType::F64, &device);
    scope_on(&device, || {
        let moments = [&all.bf16, &all.other_bf16];
        assert!(all.step(all.master(), moments, &all.other).is_err());
        let moments = [&all.bf16, &all.f32];
        assert!(all.step(all.plain(), moments, &all.f32).is_err());
        let error = all.step(all.plain(), [&all.f32, &all.f32], &all.bf16);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("BF16"), "{error}");
        let error = squared_norm(&double).unwrap_err().to_string();
        assert!(error.contains("F64"), "{error}");
    });
}
