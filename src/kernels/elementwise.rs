//! `destination += source`, in place.

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor, bail};

use crate::error::Result;

/// Adds `source` to `destination` in place; both contiguous, of one shape and dtype. The
/// destination may be a view into a larger buffer.
pub fn add_assign(destination: &Tensor, source: &Tensor) -> Result<()> {
    Ok(destination.inplace_op2(&source.contiguous()?, &AddAssign)?)
}

struct AddAssign;

impl InplaceOp2 for AddAssign {
    fn name(&self) -> &'static str {
        "add-assign"
    }

    fn cpu_fwd(
        &self,
        destination: &mut CpuStorage,
        destination_layout: &Layout,
        source: &CpuStorage,
        source_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (Some((d0, d1)), Some((s0, s1))) = (
            destination_layout.contiguous_offsets(),
            source_layout.contiguous_offsets(),
        ) else {
            bail!("add-assign: both operands must be contiguous")
        };
        if destination_layout.dims() != source_layout.dims() {
            bail!(
                "add-assign: {:?} += {:?}",
                destination_layout.dims(),
                source_layout.dims()
            )
        }
        match (destination, source) {
            (CpuStorage::F32(d), CpuStorage::F32(s)) => add(&mut d[d0..d1], &s[s0..s1]),
            (CpuStorage::F64(d), CpuStorage::F64(s)) => add(&mut d[d0..d1], &s[s0..s1]),
            _ => bail!("add-assign: f32 or f64, the same on both sides"),
        }
        Ok(())
    }
}

fn add<T: Copy + std::ops::AddAssign>(destination: &mut [T], source: &[T]) {
    for (d, s) in destination.iter_mut().zip(source) {
        *d += *s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn a_view_of_a_flat_buffer_is_written_through() {
        let flat = Tensor::zeros(6, candle_core::DType::F32, &Device::Cpu).unwrap();
        let view = flat.narrow(0, 2, 4).unwrap().reshape((2, 2)).unwrap();
        let source = Tensor::from_vec(vec![1f32, 2., 3., 4.], (2, 2), &Device::Cpu).unwrap();
        add_assign(&view, &source.t().unwrap()).unwrap();
        add_assign(&view, &source).unwrap();
        assert_eq!(flat.to_vec1::<f32>().unwrap(), [0., 0., 2., 5., 5., 8.]);
    }
}
