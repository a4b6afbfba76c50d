use super::*;
use crate::kernels::cpu::packed::{at_level, on_each_level};
use crate::kernels::quantized::{Format, Quantizer, dequantize};
use crate::kernels::testing::*;
use candle_core::{DType, Device};

/// (rows, in, out): on either side of what registers hold and of what is decoded at once, and an odd
/// number of everything.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 64, 8),
    (1, 1, 1),
    (7, 33, 9),
    (13, 100, 67),
    (6, 512, 130),
    (40, 48, 6),
    (3, 0, 5),
    (25, 320, 33),
    (2, 128, 100),
];

fn cast(x: &Tensor, dtype: DType) -> Tensor {
    x.to_dtype(dtype).unwrap()
}

/// A matrix, the numbers that its panels stand for, the dtype of what it is multiplied with, and what that
/// is rounded to.
struct Case {
    name: String,
    packed: PackedMatrix,
    numbers: Tensor,
    dtype: DType,
    rounded: DType,
}

fn cases(k: usize, outs: usize) -> Vec<Case> {
    let w = variable(2, &[outs, k]);
    let mut cases = Vec::new();
    for (dtype, precision, rounded) in [
        (DType::F64, Precision::Full, DType::F64),
        (DType::F32, Precision::Full, DType::F32),
        (DType::F32, Precision::Bf16, DType::BF16),
    ] {
        let w = cast(&w, dtype);
        cases.push(Case {
            name: format!("{dtype:?} {precision:?}"),
            packed: pack(&w, precision).unwrap(),
            numbers: cast(&w, rounded),
            dtype,
            rounded,
        });
    }
    let all = [Precision::Full, Precision::Bf16];
    for precision in all.into_iter().filter(|_| k > 0) {
        let w = cast(&w, DType::BF16);
        cases.push(Case {
            name: format!("bf16 {precision:?}"),
            packed: pack(&w, precision).unwrap(),
            numbers: w,
            dtype: DType::F32,
            rounded: match precision {
                Precision::Full => DType::F32,
                Precision::Bf16 => DType::BF16,
            },
        });
    }
    let all = [
        Format::Q8_0,
        Format::Nf4 { double: false },
        Format::Nf4 { double: true },
    ];
    for format in all.into_iter().filter(|_| k > 0) {
        let mut quantizer = Quantizer::new(format, (outs, k));
        let values: Vec<f32> = cast(&w, DType::F32)
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        quantizer.push(&values).unwrap();
        let matrix = quantizer.finish(&Device::Cpu).unwrap();
        cases.push(Case {
            name: format!("{format:?}"),
            packed: pack_quantized(&matrix).unwrap(),
            numbers: dequantize(&matrix, 0..outs, DType::F32).unwrap(),
            dtype: DType::F32,
            rounded: DType::F32,
        });
    }
    cases
}

fn bits(y: &Tensor) -> Vec<u64> {
    let y = cast(&y.flatten_all().unwrap(), DType::F64);
    y.to_vec1::<f64>()
        .unwrap()
        .iter()
        .map(|y| y.to_bits())
        .collect()
}

#[test]
fn products_are_those_of_candle() {
    on_each_level(|level| {
        for (n, k, outs) in SHAPES.into_iter().filter(|&(_, k, _)| k > 0) {
            let (x, b) = (variable(1, &[n, k]), variable(3, &[outs]));
            for case in cases(k, outs) {
                let name = format!("{level:?} {} {n} {k} {outs}", case.name);
                let tolerance = if case.dtype == DType::F64 {
                    1e-13
                } else {
                    4e-6
                };
                let (x, b) = (cast(&x, case.dtype), cast(&b, case.dtype));
                let exact = |x: &Tensor| cast(x, DType::F64);
                let rounded = exact(&cast(&x, case.rounded));
                let sums = rounded.matmul(&exact(&case.numbers).t().unwrap()).unwrap();
                let want = sums.broadcast_add(&exact(&b)).unwrap();
                let mut got = linear(&x, &case.packed, 0..outs, Some(&b)).unwrap();
                assert_near(&got, &want, tolerance, &name);
                linear_add(&x, &case.packed, 0..outs, &mut got).unwrap();
                assert_near(&got, &(want + &sums).unwrap(), 2.0 * tolerance, &name);
            }
        }
    });
}

#[test]
fn few_bits_give_the_bits_of_the_numbers_that_they_stand_for() {
    on_each_level(|level| {
        for (n, k, outs) in [(1, 64, 8), (5, 128, 40), (30, 320, 33), (9, 100, 20)] {
            let x = cast(&variable(1, &[n, k]), DType::F32);
            for case in cases(k, outs).into_iter().skip(5) {
                let dense = pack(&case.numbers, Precision::Full).unwrap();
                let [got, want] = [&case.packed, &dense]
                    .map(|matrix| bits(&linear(&x, matrix, 0..outs, None).unwrap()));
                assert!(got == want, "{level:?} {} {n} {k} {outs}", case.name);
            }
        }
    });
}

#[test]
fn no_bit_depends_on_other_rows_or_threads() {
    on_each_level(|level| {
        for (n, k, outs) in SHAPES {
            for case in cases(k, outs) {
                let name = format!("{level:?} {} {n} {k} {outs}", case.name);
                let x = cast(&variable(1, &[n, k]), case.dtype);
                let of = |x: &Tensor| bits(&linear(x, &case.packed, 0..outs, None).unwrap());
                let together = of(&x);
                let alone = (0..n).flat_map(|row| of(&x.narrow(0, row, 1).unwrap()));
                assert!(together == alone.collect::<Vec<_>>(), "{name}");
                for threads in [1, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    assert!(
                        pool.unwrap().install(|| at_level(level, || of(&x))) == together,
                        "{name}"
                    );
                }
            }
        }
    });
}

#[test]
fn rows_of_a_matrix_give_the_same_wherever_they_begin() {
    let (n, k, outs) = (3, 70, 50);
    let x = cast(&variable(1, &[n, k]), DType::F32);
    for case in cases(k, outs).into_iter().skip(1) {
        let whole = linear(&x, &case.packed, 0..outs, None).unwrap();
        for rows in [0..1, 3..7, 15..33, 16..32, 47..50, 20..20] {
            let mut wide = Tensor::zeros((n, rows.len() + 2), DType::F32, x.device()).unwrap();
            let to = Dst::columns(&mut wide, 1..1 + rows.len()).unwrap();
            linear_into(&x, &case.packed, rows.clone(), None, to).unwrap();
            let want = whole.narrow(1, rows.start, rows.len()).unwrap();
            let got = wide.narrow(1, 1, rows.len()).unwrap();
            assert!(bits(&got) == bits(&want), "{} {rows:?}", case.name);
            let edge = wide.narrow(1, 0, 1).unwrap();
            assert_eq!(bits(&edge), [0; 3], "{} {rows:?}", case.name);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (x, w) = (variable(1, &[5, 3]), variable(2, &[4, 6]));
    let packed = |w: &Tensor| pack(w, Precision::Full).unwrap();
    assert!(linear(&x, &packed(&w), 0..4, None).is_err());
    let (w, b) = (variable(2, &[4, 3]), variable(3, &[5]));
    assert!(linear(&x, &packed(&w), 0..4, Some(&b)).is_err());
    assert!(linear(&x, &packed(&w), 0..5, None).is_err());
    assert!(linear(&x, &packed(&cast(&w, DType::F32)), 0..4, None).is_err());
    assert!(linear(&cast(&x, DType::F32), &packed(&w), 0..4, None).is_err());
    assert!(pack(&w.t().unwrap(), Precision::Full).is_err());
}
