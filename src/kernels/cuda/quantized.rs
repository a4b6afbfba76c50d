//! Frozen matrices in few bits, read back.

use super::module::{Arg, Grid, Source, source};
use crate::error::Result;
use crate::kernels::operands::quantized::{Quantized, Scales, Stored};
use crate::kernels::tensor::Dst;

static TEXT: Source = source!("quantized");

/// Writes the elements from the `first` on.
pub fn dequantize(matrix: &Quantized, first: usize, y: Dst) -> Result<()> {
    let n = y.elem_count();
    let (kernel, mut args) = match matrix.stored() {
        Stored::Nf4 { codes, map, scales } => match scales {
            Scales::Plain(scales) => ("nf4", [codes, map, scales].map(Arg::from).to_vec()),
            Scales::Double {
                codes: of_scales,
                nested,
                map: values,
                offset,
            } => {
                let mut args = [codes, map, of_scales, nested, values]
                    .map(Arg::from)
                    .to_vec();
                args.push(Arg::Float(f64::from(*offset)));
                ("nf4_double", args)
            }
        },
        Stored::Q8_0 { codes, scales } => ("q8_0", [codes, scales].map(Arg::from).to_vec()),
    };
    args.extend([Arg::from(&y), first.into(), n.into()]);
    TEXT.of(y.dtype())?.launch(kernel, Grid::over(n), &args)
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    super::module::of_types(&TEXT, &["A"], 256)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::emulator::{device, scope_on};
    use crate::kernels::quantized::*;
    use crate::kernels::testing::*;

    #[test]
    fn the_bits_of_rows_are_those_of_the_processor() {
        check(&[(1, 1), (17, 33), (40, 64), (300, 128)]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || check(&[(17, 33), (9, 64)]));
    }

    fn check(shapes: &[(usize, usize)]) {
        let Some(device) = device() else { return };
        for &shape in shapes {
            let values = variable(1, &[shape.0 * shape.1]);
            let values: Vec<f32> = values.to_dtype(DType::F32).unwrap().to_vec1().unwrap();
            for format in [
                Format::Nf4 { double: false },
                Format::Nf4 { double: true },
                Format::Q8_0,
            ] {
                let made = |device: &Device| {
                    let mut quantizer = Quantizer::new(format, shape);
                    quantizer.push(&values).unwrap();
                    quantizer.finish(device).unwrap()
                };
                let (own, there) = (made(&Device::Cpu), made(&device));
                for dtype in [DType::F32, DType::BF16] {
                    for rows in [0..shape.0, shape.0 / 2..shape.0, 0..0] {
                        let want = dequantize(&own, rows.clone(), dtype).unwrap();
                        let got = scope_on(&device, || dequantize(&there, rows, dtype).unwrap());
                        assert_near(&here(&got), &want, 0.0, &format!("{format:?} {shape:?}"));
                    }
                }
            }
        }
    }
}
