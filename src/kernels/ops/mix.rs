//! A weighted mean of two tensors, as a reference that moves towards the policy takes.

use candle_core::Tensor;

use crate::error::Result;
use crate::kernels::backend::Backend;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::{Dst, check_alike};
use crate::kernels::{cpu, cuda};

/// Moves `destination` towards `other`, its shape and dtype the same: `share` of `other` and the rest of
/// itself. Both are contiguous.
///
/// # Errors
/// If shapes differ, a tensor is not contiguous, or there is no kernel for the dtype.
pub fn mix<'a>(destination: impl Into<Dst<'a>>, other: &Tensor, share: f64) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let destination = destination.into();
    check_alike("mix", &[&destination, other])?;
    match Backend::of(other) {
        Backend::Cpu => cpu::mix::mix(destination, other, share),
        Backend::Cuda | Backend::Emulator => cuda::mix::mix(destination, other, share),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;

    #[test]
    fn a_mix_is_a_weighted_mean() {
        let (own, other) = (variable(1, &[40]), variable(2, &[40]));
        let want =
            ((other.as_tensor() * 0.25).unwrap() + (own.as_tensor() * 0.75).unwrap()).unwrap();
        let mixed = own.as_tensor().copy().unwrap();
        mix(Dst::shared(&mixed), &other, 0.25).unwrap();
        assert_close(&mixed, &want, "mixed");
        assert!(mix(Dst::shared(&mixed), &other.narrow(0, 1, 3).unwrap(), 0.5).is_err());
    }
}
