//! Copies from type to type, and sums and products in place.

use candle_core::{DType, Tensor};

use super::module::{Arg, Grid, Module, Source, source, type_name};
use crate::error::{Error, Result};
use crate::kernels::tensor::{Dst, fresh_of, rows};

static TEXT: Source = source!("elementwise");

fn module(from: DType, to: DType) -> Result<Module> {
    TEXT.with([("S", type_name(from)?), ("D", type_name(to)?)])
}

pub fn add_assign(destination: Dst, source: &Tensor) -> Result<()> {
    let n = source.elem_count();
    let module = module(source.dtype(), destination.dtype())?;
    let args = [(&destination).into(), source.into(), n.into()];
    module.launch("add_assign", Grid::over(n), &args)
}

pub fn clear(x: Dst) -> Result<()> {
    let n = x.elem_count();
    let module = module(x.dtype(), x.dtype())?;
    module.launch("clear", Grid::over(n), &[(&x).into(), n.into()])
}

pub fn scale(x: Dst, factor: f64) -> Result<()> {
    let n = x.elem_count();
    let module = module(x.dtype(), x.dtype())?;
    let args = [(&x).into(), n.into(), Arg::Float(factor)];
    module.launch("scale", Grid::over(n), &args)
}

/// A view of up to three dimensions, the last without gaps, as a contiguous tensor of `dtype`.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let mut y = unsafe { fresh_of(x.shape(), dtype, x)? };
    if !x.is_contiguous() {
        assign((&mut y).into(), x)?;
        return Ok(y);
    }
    convert((&mut y).into(), x)?;
    Ok(y)
}

/// Both without gaps.
fn convert(destination: Dst, source: &Tensor) -> Result<()> {
    let n = source.elem_count();
    let args = [source.into(), (&destination).into(), n.into()];
    let module = module(source.dtype(), destination.dtype())?;
    module.launch("convert", Grid::over(n), &args)
}

/// Both may be views of up to three dimensions, the last without gaps.
pub fn assign(destination: Dst, source: &Tensor) -> Result<()> {
    if destination.is_contiguous() && source.is_contiguous() {
        return convert(destination, source);
    }
    let (dims, from) = flat(source)?;
    let to = flat(&destination)?.1;
    copy(source, from, destination, to, dims)
}

/// Writes `row` (width) to every row of `destination` (.., width).
pub fn fill_rows(destination: Dst, row: &Tensor) -> Result<()> {
    let (count, width, distance) = rows(&destination)?;
    copy(row, [0, 0], destination, [0, distance], [1, count, width])
}

/// Copies (outer, inner, width) between rows whose first two dimensions have these distances.
fn copy(
    source: &Tensor,
    from: [usize; 2],
    destination: Dst,
    to: [usize; 2],
    dims: [usize; 3],
) -> Result<()> {
    let module = module(source.dtype(), destination.dtype())?;
    let numbers = [&dims[..], &from, &to].concat();
    let mut args = vec![source.into(), (&destination).into()];
    args.extend(numbers.into_iter().map(Arg::Int));
    module.launch("copy", Grid::warps(dims[0] * dims[1]), &args)
}

/// A view as (outer, inner, width) and the distances of the first two.
fn flat(x: &Tensor) -> Result<([usize; 3], [usize; 2])> {
    let strides = x.stride();
    let (dims, distances) = match x.dims() {
        &[n] => ([1, 1, n], [0, 0]),
        &[n, width] => ([1, n, width], [0, strides[0]]),
        &[outer, inner, width] => ([outer, inner, width], [strides[0], strides[1]]),
        other => return Err(Error::failed(format!("a copy of {other:?}"))),
    };
    match dims[2] <= 1 || strides.last() == Some(&1) {
        true => Ok((dims, distances)),
        false => Err(Error::failed(format!(
            "a copy of {:?} with strides {strides:?}",
            x.dims()
        ))),
    }
}

pub fn residual(x: &Tensor, biases: &[&Tensor], y: Dst) -> Result<()> {
    let (count, width, distance) = rows(x)?;
    let type_of_biases = biases.first().map_or(x.dtype(), |bias| bias.dtype());
    let (first, second) = match *biases {
        [] => (None, None),
        [one] => (Some(one), None),
        [one, two] if two.dtype() == type_of_biases => (Some(one), Some(two)),
        _ => {
            return Err(Error::failed(
                "a residual with more than two biases, or of two types",
            ));
        }
    };
    let operands = [x.into(), first.into(), second.into(), (&y).into()];
    let args = [&operands[..], &[count, width, distance].map(Arg::Int)].concat();
    let module = module(type_of_biases, x.dtype())?;
    module.launch("residual", Grid::warps(count), &args)
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    super::module::of_types(&TEXT, &["S", "D"], 256)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::device;
    use crate::kernels::elementwise::*;
    use crate::kernels::emulator::{self, compare, scope_on};
    use crate::kernels::tensor::Dst;
    use crate::kernels::testing::*;

    const TYPES: [(DType, f64); 2] = [(DType::F32, 1e-6), (DType::BF16, 4e-3)];

    fn random(seed: u64, shape: &[usize], dtype: DType) -> Tensor {
        variable(seed, shape).to_dtype(dtype).unwrap()
    }

    #[test]
    fn sums_are_those_of_the_processor() {
        check_sums(&[1, 3, 33, 129, 512]);
    }

    #[test]
    fn copies_are_those_of_the_processor() {
        check_copies(&[(1, 1, 1), (3, 5, 33), (70, 2, 64), (2, 3, 520)]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || {
            check_sums(&[3, 33, 264]);
            check_copies(&[(3, 5, 33), (2, 3, 520)]);
        });
    }

    fn check_sums(widths: &[usize]) {
        for (dtype, tolerance) in TYPES {
            for &width in widths {
                let shape = [5, width];
                let inputs = [
                    random(1, &[1 + 5 * width], DType::F32),
                    random(2, &shape, dtype),
                    random(3, &[width], dtype),
                    random(4, &[width], dtype),
                    random(5, &[5, width + 3], DType::F32),
                ];
                compare("sums", &inputs, tolerance, |inputs| {
                    let [whole, y, a, b, x] = [0, 1, 2, 3, 4].map(|i| &inputs[i]);
                    let sum = whole.narrow(0, 1, 5 * width).unwrap();
                    let sum = sum.reshape(&shape).unwrap();
                    add_assign(Dst::shared(&sum), y).unwrap();
                    add_assign(Dst::shared(&sum), &x.narrow(1, 1, width).unwrap()).unwrap();
                    let cleared = zeros((3, width), y).unwrap();
                    let scaled = copy(y).unwrap();
                    scale(Dst::shared(&scaled), 0.3).unwrap();
                    let x = x.narrow(1, 2, width).unwrap();
                    let begin = |biases: &[&Tensor]| residual(&x, biases).unwrap();
                    let begun = [begin(&[]), begin(&[a]), begin(&[a, b])];
                    assert!(residual(&x, &[y]).is_err());
                    let mut outputs = vec![whole.clone(), y.clone(), cleared, scaled];
                    outputs.extend(begun);
                    outputs
                });
            }
        }
    }

    fn check_copies(sizes: &[(usize, usize, usize)]) {
        for (dtype, tolerance) in TYPES {
            for &(tokens, heads, dim) in sizes {
                let inputs = [
                    random(1, &[tokens, heads + 2, dim], dtype),
                    random(2, &[tokens, heads, dim], dtype),
                    random(3, &[1], dtype),
                ];
                compare("copies", &inputs, tolerance, |inputs| {
                    let [whole, other, like] = [0, 1, 2].map(|i| &inputs[i]);
                    let view = whole.narrow(1, 1, heads).unwrap();
                    let (alone, flat) = (copy(&view).unwrap(), copy(whole).unwrap());
                    let columns = flat.reshape((tokens, ())).unwrap();
                    let columns = copy(&columns.narrow(1, 1, dim).unwrap()).unwrap();
                    assign(Dst::shared(&view), other).unwrap();
                    let wide = match whole.dtype() {
                        DType::F64 => DType::F64,
                        _ => DType::F32,
                    };
                    let stream = here(whole).to_dtype(wide).unwrap();
                    let stream = on(whole.device(), &stream);
                    let narrow = operand(&stream, like).unwrap();
                    let part = stream.narrow(1, 1, heads).unwrap();
                    let part = operand(&part, like).unwrap();
                    assert_eq!(narrow.dtype(), like.dtype());
                    vec![whole.clone(), alone, flat, columns, narrow, part]
                });
            }
        }
    }

    #[test]
    fn what_no_kernel_takes_is_refused() {
        let Some(device) = emulator::device() else {
            return;
        };
        let x = on(&device, &random(1, &[4, 3], DType::F32));
        scope_on(&device, || {
            let said = copy(&x.t().unwrap()).unwrap_err().to_string();
            assert!(said.contains("strides"), "{said}");
            let double = device::zeros((4, 3), DType::F64, &device).unwrap();
            let said = clear(Dst::shared(&double)).unwrap_err().to_string();
            assert!(said.contains("f32 or bf16"), "{said}");
        });
    }
}
