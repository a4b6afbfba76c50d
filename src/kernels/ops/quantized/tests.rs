use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use super::*;
use crate::kernels::testing::variable;

const NF4: Format = Format::Nf4 { double: false };
const DOUBLE: Format = Format::Nf4 { double: true };
const FORMATS: [Format; 3] = [NF4, DOUBLE, Format::Q8_0];

fn values(seed: u64, len: usize) -> Vec<f32> {
    let values = variable(seed, &[len]).to_dtype(DType::F32).unwrap();
    values.to_vec1().unwrap()
}

fn quantized(format: Format, values: &[f32], shape: (usize, usize)) -> Quantized {
    let mut quantizer = Quantizer::new(format, shape);
    quantizer.push(values).unwrap();
    quantizer.finish(&Device::Cpu).unwrap()
}

fn read(matrix: &Quantized, rows: Range<usize>) -> Vec<f32> {
    flat(&dequantize(matrix, rows, DType::F32).unwrap())
}

fn flat(x: &Tensor) -> Vec<f32> {
    let x = x.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
    x.to_vec1().unwrap()
}

/// The element `at` by the formats' definitions.
fn element(parts: &Parts, at: usize) -> f32 {
    match parts {
        Parts::Nf4 { codes, map, scales } => {
            let code = [codes[at / 2] >> 4, codes[at / 2] & 15][at % 2];
            let scale = match scales {
                Scales::Plain(scales) => scales[at / 64],
                Scales::Double {
                    codes,
                    nested,
                    map,
                    offset,
                } => map[usize::from(codes[at / 64])] * nested[at / 64 / 256] + offset,
            };
            map[usize::from(code)] * scale
        }
        Parts::Q8_0 { codes, scales } => {
            f32::from(codes[at].cast_signed()) * scales[at / 32].to_f32()
        }
    }
}

#[test]
fn rows_are_what_the_formats_define() {
    for shape in [(1, 1), (17, 33), (70, 64), (290, 200)] {
        let values = values(1, shape.0 * shape.1);
        for format in FORMATS {
            let matrix = quantized(format, &values, shape);
            assert_eq!((matrix.format(), matrix.shape()), (format, shape));
            let parts = matrix.parts().unwrap();
            let again = Quantized::new(parts.clone(), shape, &Device::Cpu).unwrap();
            assert_eq!(again.parts().unwrap(), parts);
            let want: Vec<f32> = (0..values.len()).map(|at| element(&parts, at)).collect();
            assert_eq!(read(&matrix, 0..shape.0), want, "{format:?} {shape:?}");
            for rows in [0..1, shape.0 / 3..shape.0, shape.0 - 1..shape.0, 1..1] {
                let part = &want[rows.start * shape.1..rows.end * shape.1];
                assert_eq!(read(&matrix, rows.clone()), part, "{format:?} {rows:?}");
                let of = |dtype| dequantize(&matrix, rows.clone(), dtype).unwrap();
                assert_eq!(flat(&of(DType::F64)), part);
                let rounded: Vec<f32> = part.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
                assert_eq!(flat(&of(DType::BF16)), rounded, "{format:?} {rows:?} bf16");
            }
        }
    }
}

#[test]
fn each_number_becomes_the_nearest_that_its_block_has() {
    let shape = (40, 100);
    let values = values(2, 4000);
    for (format, block) in [(NF4, 64), (Format::Q8_0, 32)] {
        let matrix = quantized(format, &values, shape);
        let got = read(&matrix, 0..shape.0);
        for (block, got) in values.chunks(block).zip(got.chunks(block)) {
            let most = block
                .iter()
                .fold(0.0f64, |most, x| most.max(f64::from(x.abs())));
            let nearest = |x: f64| match format {
                Format::Q8_0 => (x / (most / 127.0)).round() * most / 127.0,
                Format::Nf4 { .. } => {
                    let map = crate::kernels::cpu::quantized::NF4.map(|y| f64::from(y) * most);
                    let nearer = |a: f64, b: f64| if (x - b).abs() < (x - a).abs() { b } else { a };
                    map.into_iter().reduce(nearer).unwrap()
                }
            };
            for (x, got) in block.iter().zip(got) {
                let want = nearest(f64::from(*x));
                // An f16 scale is off by 2^-11 of itself.
                let tolerance = if block.len() == 64 { 1e-6 } else { 5e-4 } * most;
                assert!(
                    (f64::from(*got) - want).abs() <= tolerance,
                    "{format:?} {x}: {got} {want}"
                );
            }
        }
    }
}

#[test]
fn a_scale_in_eight_bits_is_near_the_scale() {
    let shape = (300, 64);
    let values: Vec<f32> = values(3, 300 * 64).iter().map(|x| x * 0.02).collect();
    let [plain, double] = [NF4, DOUBLE].map(|format| quantized(format, &values, shape));
    let Parts::Nf4 { scales, codes, .. } = plain.parts().unwrap() else {
        unreachable!()
    };
    let double = double.parts().unwrap();
    let Parts::Nf4 { codes: same, .. } = &double else {
        unreachable!()
    };
    assert_eq!(&codes, same);
    let Scales::Plain(scales) = scales else {
        unreachable!()
    };
    let mean = scales.iter().map(|&x| f64::from(x)).sum::<f64>() / scales.len() as f64;
    let most = scales
        .iter()
        .fold(0.0, |most: f64, &x| most.max((f64::from(x) - mean).abs()));
    for (block, scale) in scales.iter().enumerate() {
        // The code 15 of NF4 is 1: where it is, the block's scale.
        let at = (64 * block..64 * block + 64)
            .find(|at| [codes[at / 2] >> 4, codes[at / 2] & 15][at % 2] == 15);
        if let Some(at) = at {
            let got = element(&double, at);
            assert!(
                f64::from((got - scale).abs()) <= 0.03 * most,
                "{scale}: {got}"
            );
        }
    }
}

#[test]
fn the_pieces_a_matrix_comes_in_and_threads_change_no_bit() {
    let shape = (333, 96);
    let values = values(4, 333 * 96);
    for format in FORMATS {
        let whole = quantized(format, &values, shape);
        let run = |threads: usize, pieces: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| {
                let mut quantizer = Quantizer::new(format, shape);
                for piece in values.chunks(pieces) {
                    quantizer.push(piece).unwrap();
                }
                let made = quantizer.finish(&Device::Cpu).unwrap();
                (read(&made, 0..shape.0), made.parts().unwrap())
            })
        };
        let want = (read(&whole, 0..shape.0), whole.parts().unwrap());
        for (threads, pieces) in [(1, 64), (3, 64 * 77), (2, 1 << 20)] {
            assert!(
                run(threads, pieces) == want,
                "{format:?} {threads} {pieces}"
            );
        }
    }
}

#[test]
fn zeros_stay_zeros() {
    let shape = (3, 64);
    let mut values = values(5, 192);
    values[64..128].fill(0.0);
    values[130] = -0.0;
    for format in FORMATS {
        let matrix = quantized(format, &values, shape);
        let got = read(&matrix, 0..3);
        assert_eq!(got[64..128], [0.0; 64], "{format:?}");
        assert_eq!(got[130], 0.0);
        // What pads a byte is a zero, too.
        if let Parts::Nf4 { codes, .. } = quantized(format, &values[..33], (3, 11)).parts().unwrap()
        {
            assert_eq!(codes[16] & 15, 7);
        }
    }
    let tiny = [f32::MIN_POSITIVE / 8.0; 64];
    let got = read(&quantized(NF4, &tiny, (1, 64)), 0..1);
    assert!(got.iter().all(|x| x.abs() <= f32::MIN_POSITIVE));
}

#[test]
fn memory_is_counted() {
    let of = |format| quantized(format, &values(6, 1 << 15), (128, 256)).bytes();
    let (n, blocks, maps) = (1 << 15, 512, [64, 1024]);
    assert_eq!(of(NF4), n / 2 + 4 * blocks + maps[0]);
    assert_eq!(of(DOUBLE), n / 2 + blocks + 4 * 2 + maps[0] + maps[1]);
    assert_eq!(of(Format::Q8_0), n + 2 * n / 32);
    let odd = quantized(DOUBLE, &values(6, 333), (111, 3));
    assert_eq!(odd.bytes(), 168 + 64 + 8 + 4 + 1024);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut quantizer = Quantizer::new(NF4, (2, 64));
    quantizer.push(&[1.0; 10]).unwrap();
    assert!(quantizer.push(&[1.0; 64]).is_err(), "within a block");
    assert!(
        quantizer.finish(&Device::Cpu).is_err(),
        "values are missing"
    );
    assert!(Quantizer::new(NF4, (2, 64)).push(&[1.0; 129]).is_err());
    let said = Quantizer::new(Format::Q8_0, (1, 32)).push(&[1e7; 32]);
    assert!(said.unwrap_err().to_string().contains("too large for q8_0"));

    let matrix = quantized(DOUBLE, &[1.0; 128], (2, 64));
    assert!(dequantize(&matrix, 1..3, DType::F32).is_err());
    assert!(dequantize(&matrix, 0..1, DType::U32).is_err());
    let new = |parts| Quantized::new(parts, (2, 64), &Device::Cpu);
    let scales = vec![f16::ONE; 4];
    let q8_0 = |codes, scales| new(Parts::Q8_0 { codes, scales });
    assert!(q8_0(vec![0; 128], scales.clone()).is_ok());
    assert!(q8_0(vec![0; 127], scales.clone()).is_err());
    assert!(q8_0(vec![0; 128], scales[1..].to_vec()).is_err());
    assert!(q8_0(vec![0; 128], vec![f16::NAN; 4]).is_err());
    let nf4 = |bytes, values, scales| {
        new(Parts::Nf4 {
            codes: vec![0; bytes],
            map: vec![0.5; values],
            scales: Scales::Plain(scales),
        })
    };
    assert!(nf4(64, 16, vec![1.0; 2]).is_ok());
    for (bytes, values, scales) in [
        (63, 16, vec![1.0; 2]),
        (64, 15, vec![1.0; 2]),
        (64, 16, vec![1.0]),
        (64, 16, vec![f32::NAN; 2]),
    ] {
        assert!(nf4(bytes, values, scales).is_err(), "{bytes} {values}");
    }
}
