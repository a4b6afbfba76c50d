//! Sums of tensors, in place.

use candle_core::Tensor;
use rayon::prelude::*;

use super::cpu::{check_alike, each_real, fresh, read, rows, write};
use super::profile::{Part, part};
use super::real::Real;
use super::simd::vectorized;
use crate::error::{Error, Result};

/// Elements per unit of parallel work.
const UNIT: usize = 1 << 14;

/// `destination += source`. A view of a larger buffer is written through: that is how gradients
/// accumulate without a copy.
///
/// # Errors
/// If shapes differ, or the destination is not contiguous.
pub fn add_assign(destination: &Tensor, source: &Tensor) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let source = match source.is_contiguous() {
        true => source.clone(),
        false => copy(source)?,
    };
    check_alike("add-assign", &[destination, &source])?;
    on_gpu!(destination => super::gpu::elementwise::add_assign(destination, &source));
    each_real!(destination, T => {
        let source = read(&source);
        let source = source.values::<T>()?;
        write(destination, |sum: &mut [T]| {
            let units = sum.par_chunks_mut(UNIT).zip(source.par_chunks(UNIT));
            units.for_each(|(sum, source)| add(sum, source));
            Ok(())
        })
    })
}

/// A tensor of zeros with the dtype and device of `like`.
pub fn zeros(shape: (usize, usize), like: &Tensor) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let x = unsafe { fresh(shape, like)? };
    clear(&x)?;
    Ok(x)
}

/// Fills a contiguous tensor with zeros.
pub fn clear(x: &Tensor) -> Result<()> {
    let _profile = part(Part::Elementwise);
    check_alike("clear", &[x])?;
    on_gpu!(x => super::gpu::elementwise::clear(x));
    each_real!(x, T => write(x, |x: &mut [T]| {
        x.par_chunks_mut(UNIT).for_each(|unit| unit.fill(T::ZERO));
        Ok(())
    }))
}

/// The tensor's values in memory of their own, without gaps; the last dimension has none before.
pub fn copy(x: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    on_gpu!(x => super::gpu::elementwise::cast(x, x.dtype()));
    Ok(x.force_contiguous()?)
}

/// `x` in the dtype of `like`, for a product of the two; on the processor they have one.
///
/// # Errors
/// If on the processor they differ.
pub fn operand(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    if x.dtype() == like.dtype() {
        return Ok(x.clone());
    }
    let _profile = part(Part::Elementwise);
    on_gpu!(x => super::gpu::elementwise::cast(x, like.dtype()));
    Err(Error::failed(format!(
        "an operand of {:?} beside one of {:?}",
        x.dtype(),
        like.dtype()
    )))
}

/// Writes `source` (a, b, c), contiguous, to `destination`, a view of the same shape whose last
/// dimension has no gaps.
pub fn assign(destination: &Tensor, source: &Tensor) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let (count, rows, width) = destination.dims3()?;
    let strides = destination.stride();
    if source.dims() != destination.dims() || strides[2] != 1 || !source.is_contiguous() {
        let dims = (destination.dims(), source.dims());
        return Err(Error::failed(format!(
            "assign: {:?} to {:?}",
            dims.1, dims.0
        )));
    }
    on_gpu!(destination => super::gpu::elementwise::assign(destination, source));
    each_real!(destination, T => {
        let source = read(source);
        let source = source.values::<T>()?;
        write(destination, |values: &mut [T]| {
            // The distance to a second matrix says nothing where there is none.
            let distance = if count == 1 { values.len() } else { strides[0] };
            let units = values.par_chunks_mut(distance.max(1)).zip(source.par_chunks((rows * width).max(1)));
            units.for_each(|(values, source)| {
                for (row, source) in source.chunks_exact(width).enumerate() {
                    values[row * strides[1]..][..width].copy_from_slice(source);
                }
            });
            Ok(())
        })
    })
}

/// `x` (n, width) plus every bias (width): where sums into the residual stream begin.
pub fn residual(x: &Tensor, biases: &[&Tensor]) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    let (_, width, _) = rows(x)?;
    if let Some(bias) = biases.iter().find(|bias| bias.elem_count() != width) {
        let len = bias.elem_count();
        return Err(Error::failed(format!(
            "a bias of {len} for rows of {width}"
        )));
    }
    // SAFETY: all of it is written below.
    let y = unsafe { fresh(x.shape(), x)? };
    on_gpu!(x => super::gpu::elementwise::residual(x, biases, y));
    let x = x.contiguous()?;
    each_real!(x, T => {
        let total = total::<T>(biases, width)?;
        let x = read(&x);
        let x = x.values::<T>()?;
        write(&y, |y: &mut [T]| {
            let rows = (UNIT / width).max(1) * width;
            y.par_chunks_mut(rows).zip(x.par_chunks(rows)).for_each(|(y, x)| {
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    sum(y, x, &total);
                }
            });
            Ok(())
        })
    })?;
    Ok(y)
}

/// Moves `destination` towards `other`, its shape and dtype the same: `share` of `other` and the rest of
/// itself. Both are contiguous.
pub fn mix(destination: &Tensor, other: &Tensor, share: f64) -> Result<()> {
    let _profile = part(Part::Elementwise);
    check_alike("mix", &[destination, other])?;
    on_gpu!(destination => super::gpu::mix::mix(destination, other, share));
    each_real!(destination, T => {
        let other = read(other);
        let other = other.values::<T>()?;
        let shares = (T::of(share), T::of(1.0 - share));
        write(destination, |own: &mut [T]| {
            let units = own.par_chunks_mut(UNIT).zip(other.par_chunks(UNIT));
            units.for_each(|(own, other)| mix_unit(own, other, shares));
            Ok(())
        })
    })
}

fn total<T: Real>(biases: &[&Tensor], width: usize) -> Result<Vec<T>> {
    let mut total = vec![T::ZERO; width];
    for bias in biases {
        let bias = read(bias);
        add(&mut total, bias.values::<T>()?);
    }
    Ok(total)
}

vectorized! {
    pub(super) fn add<T: Real>(sum: &mut [T], x: &[T]) {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += *x;
        }
    }
}

vectorized! {
    fn sum<T: Real>(y: &mut [T], a: &[T], b: &[T]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = *a + *b;
        }
    }
}

vectorized! {
    fn mix_unit<T: Real>(own: &mut [T], other: &[T], shares: (T, T)) {
        for (own, other) in own.iter_mut().zip(other) {
            *own = *other * shares.0 + *own * shares.1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn a_view_of_a_flat_buffer_is_written_through() {
        let flat = Tensor::zeros(6, candle_core::DType::F32, &Device::Cpu).unwrap();
        let view = flat.narrow(0, 2, 4).unwrap().reshape((2, 2)).unwrap();
        let source = Tensor::from_vec(vec![1f32, 2., 3., 4.], (2, 2), &Device::Cpu).unwrap();
        add_assign(&view, &source.t().unwrap()).unwrap();
        add_assign(&view, &source).unwrap();
        assert_eq!(flat.to_vec1::<f32>().unwrap(), [0., 0., 2., 5., 5., 8.]);
        assert!(add_assign(&view, &flat).is_err());
        let (one, twos) = (
            view.unsqueeze(0).unwrap(),
            Tensor::full(2f32, (1, 2, 2), &Device::Cpu),
        );
        assign(&one, &twos.unwrap()).unwrap();
        assert_eq!(flat.to_vec1::<f32>().unwrap(), [0., 0., 2., 2., 2., 2.]);
        // What lies between the columns of a view is not its own.
        assert!(clear(&view.narrow(1, 0, 1).unwrap()).is_err());
        clear(&view).unwrap();
        assert_eq!(flat.to_vec1::<f32>().unwrap(), [0.0; 6]);
    }

    #[test]
    fn a_residual_begins_with_its_biases() {
        let (x, a, b) = (variable(1, &[5, 7]), variable(2, &[7]), variable(3, &[7]));
        let want = x
            .broadcast_add(&(a.as_tensor() + b.as_tensor()).unwrap())
            .unwrap();
        assert_close(&residual(&x, &[&a, &b]).unwrap(), &want, "two");
        assert_close(&residual(&x, &[]).unwrap(), &x, "none");
    }

    #[test]
    fn a_mix_is_a_weighted_mean() {
        let (own, other) = (variable(1, &[40]), variable(2, &[40]));
        let want =
            ((other.as_tensor() * 0.25).unwrap() + (own.as_tensor() * 0.75).unwrap()).unwrap();
        let mixed = own.as_tensor().copy().unwrap();
        mix(&mixed, &other, 0.25).unwrap();
        assert_close(&mixed, &want, "mixed");
        assert!(mix(&mixed, &other.narrow(0, 1, 3).unwrap(), 0.5).is_err());
    }
}
