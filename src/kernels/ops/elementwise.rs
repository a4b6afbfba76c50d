//! Copies, sums and products in place, and clearing.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::{Dst, check_alike, fresh, rows};
use crate::kernels::{cpu, cuda};

/// `destination += source`. A view of a larger buffer is written through: that is how gradients
/// accumulate without a copy. On a GPU the two dtypes may differ.
///
/// # Errors
/// If shapes differ, the destination is not contiguous, or there is no kernel for the dtypes.
pub fn add_assign<'a>(destination: impl Into<Dst<'a>>, source: &Tensor) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let destination = destination.into();
    let source = match source.is_contiguous() {
        true => source.clone(),
        false => copy(source)?,
    };
    check_alike("add-assign", &[&destination, &source])?;
    match Backend::of(&destination) {
        Backend::Cpu => cpu::elementwise::add_assign(destination, &source),
        Backend::Cuda | Backend::Emulator => cuda::elementwise::add_assign(destination, &source),
    }
}

/// A tensor of zeros with the dtype and device of `like`.
///
/// # Errors
/// If there is no memory or no kernel for it.
pub fn zeros(shape: (usize, usize), like: &Tensor) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let mut x = unsafe { fresh(shape, like)? };
    clear(&mut x)?;
    Ok(x)
}

/// Fills a contiguous tensor with zeros.
///
/// # Errors
/// If the tensor is not contiguous, or there is no kernel for its dtype.
pub fn clear<'a>(x: impl Into<Dst<'a>>) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let x = x.into();
    check_alike("clear", &[&x])?;
    match Backend::of(&x) {
        Backend::Cpu => cpu::elementwise::clear(x),
        Backend::Cuda | Backend::Emulator => cuda::elementwise::clear(x),
    }
}

/// `x *= factor`, for a contiguous tensor. On a GPU the product is f32 and rounded once to the dtype of
/// the tensor.
///
/// # Errors
/// If the tensor is not contiguous, or there is no kernel for its dtype.
pub fn scale<'a>(x: impl Into<Dst<'a>>, factor: f64) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let x = x.into();
    check_alike("scale", &[&x])?;
    match Backend::of(&x) {
        Backend::Cpu => cpu::elementwise::scale(x, factor),
        Backend::Cuda | Backend::Emulator => cuda::elementwise::scale(x, factor),
    }
}

/// The tensor's values in memory of their own, contiguous. On a GPU a tensor has up to three
/// dimensions, the last without gaps.
///
/// # Errors
/// If there is no memory, or no kernel for the tensor.
pub fn copy(x: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    match Backend::of(x) {
        Backend::Cpu => cpu::elementwise::copy(x),
        Backend::Cuda | Backend::Emulator => cuda::elementwise::cast(x, x.dtype()),
    }
}

/// `x` in the dtype of `like`, for a matmul of the two; on the CPU they have one.
///
/// # Errors
/// If on the CPU they differ.
pub fn operand(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    if x.dtype() == like.dtype() {
        return Ok(x.clone());
    }
    let _profile = part(Part::Elementwise);
    match Backend::of(x) {
        Backend::Cpu => Err(Error::failed(format!(
            "an operand of {:?} beside one of {:?}",
            x.dtype(),
            like.dtype()
        ))),
        Backend::Cuda | Backend::Emulator => cuda::elementwise::cast(x, like.dtype()),
    }
}

/// Writes `source` (a, b, c), contiguous, to `destination`, a view of the same shape whose last
/// dimension has no gaps.
///
/// # Errors
/// If shapes or strides do not fit, or there is no kernel for the dtypes.
pub fn assign<'a>(destination: impl Into<Dst<'a>>, source: &Tensor) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let destination = destination.into();
    destination.dims3()?;
    let strides = destination.stride();
    if source.dims() != destination.dims() || strides[2] != 1 || !source.is_contiguous() {
        let dims = (destination.dims(), source.dims());
        return Err(Error::failed(format!(
            "assign: {:?} to {:?}",
            dims.1, dims.0
        )));
    }
    match Backend::of(&destination) {
        Backend::Cpu => cpu::elementwise::assign(destination, source),
        Backend::Cuda | Backend::Emulator => cuda::elementwise::assign(destination, source),
    }
}

/// `x` (n, width) plus every bias (width): where sums into the residual stream begin.
///
/// # Errors
/// If a bias has another width, or there is no kernel for the dtypes.
pub fn residual(x: &Tensor, biases: &[&Tensor]) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    let (_, width, _) = rows(x)?;
    if let Some(bias) = biases.iter().find(|bias| bias.elem_count() != width) {
        let len = bias.elem_count();
        return Err(Error::failed(format!(
            "a bias of {len} for rows of {width}"
        )));
    }
    // SAFETY: the back end writes all of it.
    let mut y = unsafe { fresh(x.shape(), x)? };
    match Backend::of(x) {
        Backend::Cpu => cpu::elementwise::residual(x, biases, (&mut y).into()),
        Backend::Cuda | Backend::Emulator => {
            cuda::elementwise::residual(x, biases, (&mut y).into())
        }
    }?;
    Ok(y)
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
        add_assign(Dst::shared(&view), &source.t().unwrap()).unwrap();
        add_assign(Dst::shared(&view), &source).unwrap();
        assert_eq!(flat.to_vec1::<f32>().unwrap(), [0., 0., 2., 5., 5., 8.]);
        assert!(add_assign(Dst::shared(&view), &flat).is_err());
        let (one, twos) = (
            view.unsqueeze(0).unwrap(),
            Tensor::full(2f32, (1, 2, 2), &Device::Cpu),
        );
        assign(Dst::shared(&one), &twos.unwrap()).unwrap();
        assert_eq!(flat.to_vec1::<f32>().unwrap(), [0., 0., 2., 2., 2., 2.]);
        scale(Dst::shared(&view), 0.5).unwrap();
        assert_eq!(flat.to_vec1::<f32>().unwrap(), [0., 0., 1., 1., 1., 1.]);
        assert!(scale(Dst::shared(&view.narrow(1, 0, 1).unwrap()), 2.0).is_err());
        // What lies between the columns of a view is not its own.
        assert!(clear(Dst::shared(&view.narrow(1, 0, 1).unwrap())).is_err());
        clear(Dst::shared(&view)).unwrap();
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
}
