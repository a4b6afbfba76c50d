//! Where tensors live, and the way between host memory and there.
//!
//! Hides whether this build has CUDA.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use candle_core::{DType, Device, Shape, Tensor};
use half::bf16;

use super::backend::Backend;
use super::cpu::host::{read, write};
use super::cpu::level::in_use;
use super::cpu::real::Element;
use super::cuda::driver;
use super::tensor::{Dst, allocated, check_alike, fresh_on};
use crate::error::{Error, Result};

/// The number of GPUs that this machine's driver finds.
///
/// # Errors
/// Says why there are none: this build has no CUDA, or what the driver says.
pub fn gpus() -> Result<usize> {
    driver::count()
}

/// Whether this build has CUDA.
pub const CUDA: bool = cfg!(feature = "cuda");

/// A GPU by its number. All that asks for one number shares one stream of work.
///
/// # Errors
/// If there is no such GPU, or this build has no CUDA.
pub fn gpu(ordinal: usize) -> Result<Device> {
    driver::open(ordinal)
}

/// See [`own_gpu`].
static OWN_GPU: AtomicUsize = AtomicUsize::new(NONE);

/// No number of a GPU.
const NONE: usize = usize::MAX;

/// The number of the GPU that this process takes of those of its host, where it is one of several ranks.
pub fn own_gpu() -> Option<usize> {
    Some(OWN_GPU.load(Relaxed)).filter(|own| *own != NONE)
}

/// Names that GPU: one of several ranks on a host takes its own.
pub fn set_own_gpu(ordinal: usize) {
    OWN_GPU.store(ordinal, Relaxed);
}

/// The [`kind`] that runs of earlier versions recorded for every GPU.
const ANY_GPU: &str = "gpu";

/// Whether results on a machine of one [`kind`] are known to differ in their last bits from another's.
pub fn rounds_differently(recorded: &str, kind: &str) -> bool {
    recorded != kind && recorded != ANY_GPU
}

/// The kind of CPU or GPU that `device` computes on: two of one kind give the same bits.
/// Of a GPU the card, its multiprocessors and the version of cuBLAS.
///
/// # Errors
/// If a GPU does not say what it is.
pub fn kind(device: &Device) -> Result<String> {
    if !device.is_cpu() {
        return driver::kind(device);
    }
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let features: [(&str, bool); 0] = [];
    let there = features.into_iter().filter(|(_, there)| *there);
    let names = [std::env::consts::ARCH].into_iter();
    let names: Vec<&str> = names.chain(there.map(|(name, _)| name)).collect();
    Ok(match in_use() {
        Some(used) => format!("{}, {used} used", names.join(" ")),
        None => names.join(" "),
    })
}

/// Runs `f`, which is many small operations, on a thread of the pool that operations in host memory are
/// shared among: any other thread would have to wake one of them and wait for it at each. Where
/// operations are a GPU's, on this thread.
pub fn by_workers<R: Send>(device: &Device, f: impl FnOnce() -> R + Send) -> R {
    match Backend::on(device) {
        Backend::Cpu => rayon::scope(|_| f()),
        Backend::Cuda | Backend::Emulator => f(),
    }
}

/// Waits until the GPUs that this process uses have done what they were given.
///
/// # Errors
/// If one of them fails.
pub fn synchronize() -> Result<()> {
    driver::synchronize()
}

/// The most bytes that this process held of GPUs at once; `None` where it uses none.
pub fn gpu_peak() -> Option<u64> {
    driver::peak()
}

/// A new tensor of these values.
///
/// # Errors
/// If the shape has another number of elements, or there is no memory.
pub fn from_host<T: Element>(
    values: &[T],
    shape: impl Into<Shape>,
    device: &Device,
) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let mut tensor = unsafe { fresh_on(shape, T::DTYPE, device)? };
    put(values, (&mut tensor).into())?;
    Ok(tensor)
}

/// A new tensor of zeros.
///
/// # Errors
/// If there is no memory.
pub fn zeros(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    allocated(shape.into(), dtype, |shape| {
        Tensor::zeros(shape, dtype, device)
    })
}

/// Writes `values` to a contiguous tensor of as many elements; bf16 takes the nearest, ties away from zero.
///
/// # Errors
/// If the tensor has gaps, another number of elements or another dtype than f32, f64 and bf16.
pub fn upload<'a>(values: &[f32], tensor: impl Into<Dst<'a>>) -> Result<()> {
    let tensor = tensor.into();
    check(&tensor, values.len())?;
    match tensor.dtype() {
        DType::BF16 => {
            let values: Vec<bf16> = values.iter().map(|x| split(*x).0).collect();
            put(&values, tensor)
        }
        DType::F64 => write(tensor, |to: &mut [f64]| {
            to.iter_mut()
                .zip(values)
                .for_each(|(to, x)| *to = f64::from(*x));
            Ok(())
        }),
        _ => put(values, tensor),
    }
}

/// The elements of a contiguous tensor of f32, f64 or bf16, in f32.
pub fn download(tensor: &Tensor) -> Result<Vec<f32>> {
    check(tensor, tensor.elem_count())?;
    match tensor.dtype() {
        DType::BF16 => Ok(to_host::<bf16>(tensor)?
            .iter()
            .map(|x| x.to_f32())
            .collect()),
        DType::F64 => Ok(read(tensor)
            .values::<f64>()?
            .iter()
            .map(|x| *x as f32)
            .collect()),
        _ => to_host(tensor),
    }
}

/// As [`download`], in f64.
pub fn download_wide(tensor: &Tensor) -> Result<Vec<f64>> {
    check(tensor, tensor.elem_count())?;
    match tensor.dtype() {
        DType::F64 => to_host(tensor),
        _ => Ok(download(tensor)?.into_iter().map(f64::from).collect()),
    }
}

/// As [`upload`], of f64 values.
pub fn upload_wide<'a>(values: &[f64], tensor: impl Into<Dst<'a>>) -> Result<()> {
    let tensor = tensor.into();
    match tensor.dtype() {
        DType::F64 => put(values, tensor),
        _ => {
            let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
            upload(&values, tensor)
        }
    }
}

/// The elements of a contiguous tensor of u8.
///
/// # Errors
/// If it has gaps or another dtype.
pub fn download_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    to_host(tensor)
}

/// Writes `values` to a contiguous tensor of as many u8.
///
/// # Errors
/// If it has gaps, another number of elements or another dtype.
pub fn upload_bytes<'a>(values: &[u8], tensor: impl Into<Dst<'a>>) -> Result<()> {
    put(values, tensor.into())
}

/// Writes f32 values as a bf16 tensor and the i16 that each lacks: the f32's bits are the bf16's, moved
/// up, plus the i16. The bf16 is the nearest, ties away from zero.
///
/// # Errors
/// If the tensors are not contiguous, of these types and of as many elements.
pub fn upload_split<'a, 'b>(
    values: &[f32],
    high: impl Into<Dst<'a>>,
    low: impl Into<Dst<'b>>,
) -> Result<()> {
    let (high, low) = (high.into(), low.into());
    check(&high, values.len())?;
    check(&low, values.len())?;
    let (high_values, low_values): (Vec<bf16>, Vec<i16>) = values.iter().map(|x| split(*x)).unzip();
    put(&high_values, high)?;
    put(&low_values, low)
}

/// The f32 values that [`upload_split`] wrote, or an optimizer after it.
pub fn download_split(high: &Tensor, low: &Tensor) -> Result<Vec<f32>> {
    check(high, low.elem_count())?;
    check(low, low.elem_count())?;
    let (high, low): (Vec<bf16>, Vec<i16>) = (to_host(high)?, to_host(low)?);
    Ok(high
        .iter()
        .zip(low)
        .map(|(high, low)| join(*high, low))
        .collect())
}

fn split(x: f32) -> (bf16, i16) {
    let bits = x.to_bits();
    let high = (bits.wrapping_add(0x8000) >> 16) as u16;
    (bf16::from_bits(high), bits as i16)
}

fn join(high: bf16, low: i16) -> f32 {
    let high = u32::from(high.to_bits()) << 16;
    f32::from_bits(high.wrapping_add_signed(i32::from(low)))
}

fn check(tensor: &Tensor, count: usize) -> Result<()> {
    check_alike("a copy", &[tensor])?;
    match tensor.elem_count() == count {
        true => Ok(()),
        false => Err(Error::failed(format!(
            "{count} values for {} elements",
            tensor.elem_count()
        ))),
    }
}

/// Writes `values` to a contiguous tensor of their type and number.
pub(super) fn put<T: Element>(values: &[T], tensor: Dst) -> Result<()> {
    check(&tensor, values.len())?;
    match Backend::of(&tensor) {
        Backend::Cuda => driver::put(values, tensor),
        Backend::Cpu | Backend::Emulator => write(tensor, |to: &mut [T]| {
            to.copy_from_slice(values);
            Ok(())
        }),
    }
}

/// The elements of a contiguous tensor. Of a GPU's, the host waits for the work that was given before.
///
/// *Why* this and not candle's own `to_vec1`: that does not wait, and so leans on what the driver does with
/// memory that is not page-locked.
pub(super) fn to_host<T: Element>(tensor: &Tensor) -> Result<Vec<T>> {
    check(tensor, tensor.elem_count())?;
    match Backend::of(tensor) {
        Backend::Cuda => driver::get(tensor),
        Backend::Cpu | Backend::Emulator => Ok(read(tensor).values::<T>()?.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_split_joins_to_the_same_bits() {
        let cases = [
            0.0,
            -0.0,
            1.0,
            -1.0 / 3.0,
            f32::MIN_POSITIVE,
            1e-45,
            -3.0e38,
            1.003_906_2,
        ];
        let ties = [0x3f80_8000, 0x3f80_7fff, 0x3f80_8001, 0xbf81_8000].map(f32::from_bits);
        for x in cases.into_iter().chain(ties) {
            let (high, low) = split(x);
            assert_eq!(join(high, low).to_bits(), x.to_bits(), "{x}");
            let off = (f64::from(high.to_f32()) - f64::from(x)).abs();
            let nearest = (f64::from(bf16::from_f32(x).to_f32()) - f64::from(x)).abs();
            assert_eq!(off, nearest, "{x}");
        }
        assert_eq!(split(f32::from_bits(0x3f80_8000)).0.to_bits(), 0x3f81);
    }

    #[test]
    fn values_go_there_and_back() {
        let values: Vec<f32> = (0..37).map(|i| (i as f32 - 11.0) / 3.0).collect();
        let zeros = |dtype| Tensor::zeros(37, dtype, &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::F64] {
            let tensor = zeros(dtype);
            upload(&values, Dst::shared(&tensor)).unwrap();
            assert_eq!(download(&tensor).unwrap(), values);
        }
        let (high, low) = (zeros(DType::BF16), zeros(DType::I16));
        upload_split(&values, Dst::shared(&high), Dst::shared(&low)).unwrap();
        assert_eq!(download_split(&high, &low).unwrap(), values);
        let rounded = download(&high).unwrap();
        upload(&values, Dst::shared(&low.to_dtype(DType::BF16).unwrap())).unwrap();
        assert!(
            rounded
                .iter()
                .zip(&values)
                .all(|(a, b)| (a - b).abs() <= b.abs() / 256.0)
        );
        assert!(upload(&values[1..], Dst::shared(&high)).is_err());
        assert!(upload(&values, Dst::shared(&low)).is_err());
    }
}
