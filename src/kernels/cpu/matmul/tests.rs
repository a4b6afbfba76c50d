use half::bf16;
use rand::{Rng, SeedableRng};

use super::*;
use crate::kernels::cpu::level::{levels_there, with_level};

type Gemm<T> = Box<dyn Fn(MatrixMut<f32>, bool, Matrix<f32>, Matrix<T>, Threads) + Sync>;

/// The product by all instructions of this machine.
fn paths() -> Vec<(String, Gemm<f32>)> {
    paths_by(wide)
}

/// The same with a bf16 operand on the right.
fn paths_by_bf16() -> Vec<Gemm<bf16>> {
    let paths = paths_by(narrow).into_iter();
    paths.map(|(_, gemm)| gemm).collect()
}

// The variants themselves are functions of one lifetime only.
fn wide(x: Matrix<f32>) -> Operand {
    Operand::F32(x)
}

fn narrow(x: Matrix<bf16>) -> Operand {
    Operand::Bf16(x)
}

fn paths_by<T: 'static>(right: fn(Matrix<T>) -> Operand) -> Vec<(String, Gemm<T>)> {
    let path = |level| -> (String, Gemm<T>) {
        let by = move |c: MatrixMut<f32>, add, a: Matrix<f32>, b: Matrix<T>, threads| {
            with_level(level, || {
                multiply(c, add, Operand::F32(a), right(b), Precision::Bf16, threads)
            });
        };
        (format!("{level:?}"), Box::new(by))
    };
    levels_there().map(path).collect()
}

/// Whole numbers up to 300: those above 256 are rounded, and sums of a few hundred products of the
/// rounded ones are exact in f32 in whatever order.
fn whole(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut draw = || rng.random_range(-300..=300i16);
    (0..len).map(|_| f32::from(draw())).collect()
}

fn real(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.5..1.5)).collect()
}

fn at(x: Matrix<f32>, i: usize, j: usize) -> f64 {
    bf16::from_f32(x.values[i * x.strides.0 + j * x.strides.1]).to_f64()
}

/// Element (i, j) of the product of the rounded operands, and the sum of the products' magnitudes.
fn element(a: Matrix<f32>, b: Matrix<f32>, (i, j): (usize, usize)) -> (f64, f64) {
    let products = (0..a.shape.1).map(|k| at(a, i, k) * at(b, k, j));
    products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()))
}

fn on_threads<R: Send>(count: usize, f: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count);
    pool.build().unwrap().install(f)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The four ways in which operands of these shapes lie in memory: rows or columns.
fn views<'a>(
    a: &'a [f32],
    b: &'a [f32],
    (m, n, k): (usize, usize, usize),
) -> [(Matrix<'a, f32>, Matrix<'a, f32>); 4] {
    let (left, right) = (Matrix::rows(a, (m, k)), Matrix::rows(b, (k, n)));
    let (left_t, right_t) = (Matrix::rows(a, (k, m)).t(), Matrix::rows(b, (n, k)).t());
    [
        (left, right),
        (left, right_t),
        (left_t, right),
        (left_t, right_t),
    ]
}

const SIZES: [usize; 10] = [1, 2, 3, 5, 17, 31, 33, 64, 100, 257];

#[test]
fn every_shape_and_layout_is_exact_on_whole_numbers() {
    let (a, b) = (whole(1, 257 * 257), whole(2, 257 * 257));
    for m in SIZES {
        for n in SIZES {
            for k in SIZES {
                // Each shape in one layout, each layout in a quarter of the shapes.
                let (left, right) = views(&a, &b, (m, n, k))[(m + n + k) % 4];
                let want: Vec<f32> = (0..m * n)
                    .map(|i| element(left, right, (i / n, i % n)).0 as f32)
                    .collect();
                for (path, gemm) in paths() {
                    let mut c = vec![f32::NAN; m * n];
                    gemm(
                        MatrixMut::rows(&mut c, (m, n)),
                        false,
                        left,
                        right,
                        Threads::All,
                    );
                    assert!(c == want, "{path} {m} {n} {k}");
                    gemm(
                        MatrixMut::rows(&mut c, (m, n)),
                        true,
                        left,
                        right,
                        Threads::One,
                    );
                    let twice = c.iter().zip(&want).all(|(c, want)| *c == 2.0 * want);
                    assert!(twice, "{path} {m} {n} {k}: added");
                }
            }
        }
    }
}

#[test]
fn an_operand_in_bf16_gives_the_bits_of_the_same_numbers_in_f32() {
    let b: Vec<bf16> = real(13, 2600 * 150)
        .into_iter()
        .map(bf16::from_f32)
        .collect();
    let wide: Vec<f32> = b.iter().map(|x| x.to_f32()).collect();
    for (m, n, k) in [
        (1, 1, 1),
        (5, 33, 7),
        (70, 31, 65),
        (17, 70, 2501),
        (200, 100, 300),
        (33, 64, 128),
    ] {
        let a = real(14, m * k);
        let left = Matrix::rows(&a, (m, k));
        // Rows, columns, and either with gaps.
        for (shape, strides) in [
            ((k, n), (n, 1)),
            ((k, n), (1, k)),
            ((k, n), (n + 3, 1)),
            ((k, n), (1, k + 1)),
            ((k, n), (2 * n, 2)),
        ] {
            let (narrow, wide) = (
                Matrix::new(&b, shape, strides),
                Matrix::new(&wide, shape, strides),
            );
            for ((path, gemm), by_bf16) in paths().into_iter().zip(paths_by_bf16()) {
                for (add, threads) in [(false, Threads::All), (true, Threads::One)] {
                    let mut c = [real(15, m * n), real(15, m * n)];
                    let [want, got] = &mut c;
                    gemm(MatrixMut::rows(want, (m, n)), add, left, wide, threads);
                    by_bf16(MatrixMut::rows(got, (m, n)), add, left, narrow, threads);
                    assert!(bits(&c[0]) == bits(&c[1]), "{path} {m} {n} {k} {strides:?}");
                }
            }
        }
    }
}

#[test]
fn real_numbers_are_rounded_once_and_summed_in_f32() {
    // More than one block of k, with and without a remainder.
    for (m, n, k) in [(31, 40, 2501), (40, 31, 2100), (14, 32, 4096), (3, 4, 700)] {
        let (a, b) = (real(3, m * k), real(4, k * n));
        for (left, right) in views(&a, &b, (m, n, k)) {
            let want: Vec<_> = (0..m * n)
                .map(|i| element(left, right, (i / n, i % n)))
                .collect();
            for (path, gemm) in paths() {
                let mut c = vec![f32::NAN; m * n];
                let place = MatrixMut::rows(&mut c, (m, n));
                gemm(place, false, left, right, Threads::All);
                for (c, (want, size)) in c.iter().zip(&want) {
                    let error = (f64::from(*c) - want).abs();
                    assert!(error <= 1e-6 * size, "{path} {m} {n} {k}: {c} {want}");
                }
            }
        }
    }
}

#[test]
fn in_full_precision_nothing_is_rounded() {
    for (m, n, k) in [(31, 40, 1501), (40, 31, 300), (3, 4, 70)] {
        let (a, b) = (real(16, m * k), real(17, k * n));
        for (left, right) in views(&a, &b, (m, n, k)) {
            for level in levels_there() {
                let mut c = vec![f32::NAN; m * n];
                let place = MatrixMut::rows(&mut c, (m, n));
                let (a, b) = (Operand::F32(left), Operand::F32(right));
                with_level(level, || {
                    multiply(place, false, a, b, Precision::Full, Threads::All)
                });
                for (i, c) in c.iter().enumerate() {
                    let at = |x: Matrix<f32>, i, j| {
                        f64::from(x.values[i * x.strides.0 + j * x.strides.1])
                    };
                    let products = (0..k).map(|k| at(left, i / n, k) * at(right, k, i % n));
                    let (want, size) =
                        products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                    assert!(
                        (f64::from(*c) - want).abs() <= 1e-6 * size,
                        "{level:?} {m} {n} {k}: {c} {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn operands_larger_than_what_is_packed_at_once_are_cut_and_joined() {
    // More blocks of k than fit; more panels of rows, then of columns.
    for (m, n, k) in [(60, 70, 5001), (300, 310, 700), (310, 300, 700)] {
        let (a, b) = (real(5, m * k), real(6, k * n));
        let (left, right) = (Matrix::rows(&a, (m, k)), Matrix::rows(&b, (n, k)).t());
        for (path, gemm) in paths() {
            let mut c = vec![f32::NAN; m * n];
            let place = MatrixMut::rows(&mut c, (m, n));
            gemm(place, false, left, right, Threads::All);
            assert!(c.iter().all(|c| c.is_finite()), "{path} {m} {n} {k}");
            for i in (0..m * n).step_by(997) {
                let (want, size) = element(left, right, (i / n, i % n));
                let error = (f64::from(c[i]) - want).abs();
                assert!(error <= 1e-6 * size, "{path} {m} {n} {k}: {} {want}", c[i]);
            }
        }
    }
}

#[test]
fn gaps_between_elements_and_rows_are_passed_over_and_left_alone() {
    let (m, n, k) = (29, 35, 37);
    let (a, b) = (whole(7, 8 * m * k), whole(8, 8 * k * n));
    let a = [
        Matrix::new(&a, (m, k), (k + 5, 1)),
        Matrix::new(&a, (m, k), (2 * k + 1, 2)),
        Matrix::new(&a, (m, k), (1, m + 3)),
        Matrix::new(&a, (m, k), (0, 0)),
    ];
    let b = [
        Matrix::new(&b, (k, n), (n + 1, 1)),
        Matrix::new(&b, (k, n), (3, 3 * k)),
        Matrix::new(&b, (k, n), (1, 2 * k)),
        Matrix::new(&b, (k, n), (0, 1)),
    ];
    for (left, right) in a.iter().flat_map(|a| b.iter().map(move |b| (*a, *b))) {
        for (path, gemm) in paths() {
            let mut c = vec![0.5; m * (n + 3)];
            let place = MatrixMut::new(&mut c, (m, n), (n + 3, 1));
            gemm(place, false, left, right, Threads::All);
            for (i, row) in c.chunks(n + 3).enumerate() {
                for (j, c) in row[..n].iter().enumerate() {
                    let want = element(left, right, (i, j)).0 as f32;
                    assert_eq!(*c, want, "{path} {:?} {:?}", left.strides, right.strides);
                }
                assert_eq!(row[n..], [0.5; 3], "{path}");
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for (m, n, k) in [
        (70, 130, 2100),
        (130, 70, 2100),
        (20, 700, 600),
        (1, 2000, 300),
    ] {
        let (a, b) = (real(9, m * k), real(10, k * n));
        let (left, right) = (Matrix::rows(&a, (m, k)), Matrix::rows(&b, (k, n)));
        let start = real(11, m * n);
        for (path, gemm) in paths() {
            let run = |threads| {
                let mut c = start.clone();
                gemm(MatrixMut::rows(&mut c, (m, n)), true, left, right, threads);
                bits(&c)
            };
            let want = run(Threads::One);
            for count in [1, 2, 3, 8] {
                let got = on_threads(count, || run(Threads::All));
                assert!(got == want, "{path} {m} {n} {k}: {count} threads");
            }
        }
    }
}

#[test]
fn products_inside_a_parallel_loop_are_the_same() {
    let (m, n, k) = (130, 140, 600);
    let (a, b) = (real(12, m * k), real(13, k * n));
    let (left, right) = (Matrix::rows(&a, (m, k)), Matrix::rows(&b, (k, n)));
    for (path, gemm) in paths() {
        let run = |threads| {
            let mut c = vec![f32::NAN; m * n];
            gemm(MatrixMut::rows(&mut c, (m, n)), false, left, right, threads);
            bits(&c)
        };
        let want = run(Threads::One);
        on_threads(3, || {
            (0..12).into_par_iter().for_each(|i| {
                let threads = if i % 3 == 0 {
                    Threads::One
                } else {
                    Threads::All
                };
                assert!(run(threads) == want, "{path}");
            });
        });
    }
}

#[test]
fn nan_and_infinity_stay_and_large_values_round_to_infinity() {
    let (m, n, k) = (17, 40, 35);
    for (path, gemm) in paths() {
        for (value, times, want) in [
            (f32::NAN, 1.0, f32::NAN),
            // A NaN whose upper half alone would be an infinity.
            (f32::from_bits(0x7f80_0001), 1.0, f32::NAN),
            (f32::INFINITY, 2.0, f32::INFINITY),
            (f32::INFINITY, -2.0, f32::NEG_INFINITY),
            (f32::INFINITY, 0.0, f32::NAN),
            (f32::MAX, 1.0, f32::INFINITY),
            (f32::MIN, 1.0, f32::NEG_INFINITY),
            // The largest bf16, and less or no less than half a step above it.
            (
                f32::from_bits(0x7f7f_0000),
                1.0,
                f32::from_bits(0x7f7f_0000),
            ),
            (
                f32::from_bits(0x7f7f_7fff),
                1.0,
                f32::from_bits(0x7f7f_0000),
            ),
            (f32::from_bits(0x7f7f_8000), 1.0, f32::INFINITY),
            // Ties go to the even neighbour.
            (f32::from_bits(0x3f80_8000), 1.0, 1.0),
            (f32::from_bits(0x3f81_8000), 1.0, 1.015_625),
        ] {
            for place in [(0, 0), (13, 34), (16, 3)] {
                let (mut a, mut b) = (vec![0.0; m * k], vec![1.0; k * n]);
                a[place.0 * k + place.1] = value;
                b[place.1 * n..][..n].fill(times);
                let mut c = vec![f32::NAN; m * n];
                let (a, b) = (Matrix::rows(&a, (m, k)), Matrix::rows(&b, (k, n)));
                gemm(MatrixMut::rows(&mut c, (m, n)), false, a, b, Threads::One);
                for (i, c) in c.iter().enumerate() {
                    let want = if i / n == place.0 { want } else { 0.0 };
                    let same = *c == want || c.is_nan() && want.is_nan();
                    assert!(same, "{path} {value} * {times}: {c} at {i}");
                }
            }
        }
    }
}

#[test]
fn without_products_the_result_is_zero_or_what_it_was() {
    let mut c = vec![f32::NAN, 1.0, f32::NAN, 1.0, f32::NAN];
    let (a, b) = (Matrix::rows(&[], (2, 0)), Matrix::rows(&[], (0, 1)));
    fn place(c: &mut [f32]) -> MatrixMut<'_, f32> {
        MatrixMut::new(c, (2, 1), (3, 1))
    }
    multiply(
        place(&mut c),
        true,
        Operand::F32(a),
        Operand::F32(b),
        Precision::Bf16,
        Threads::All,
    );
    assert!(c[0].is_nan() && c[3] == 1.0);
    multiply(
        place(&mut c),
        false,
        Operand::F32(a),
        Operand::F32(b),
        Precision::Bf16,
        Threads::All,
    );
    assert_eq!((c[0], c[1], c[3]), (0.0, 1.0, 0.0));
    assert!(c[2].is_nan() && c[4].is_nan());
    for shape in [(0, 3), (3, 0)] {
        let (a, b) = (vec![1.0; shape.0 * 2], vec![1.0; 2 * shape.1]);
        let (a, b) = (
            Matrix::rows(&a, (shape.0, 2)),
            Matrix::rows(&b, (2, shape.1)),
        );
        let (a, b) = (Operand::F32(a), Operand::F32(b));
        multiply(
            MatrixMut::rows(&mut [], shape),
            false,
            a,
            b,
            Precision::Bf16,
            Threads::All,
        );
    }
}
