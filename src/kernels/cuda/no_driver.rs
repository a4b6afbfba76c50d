//! What stands in for [`driver`](super) in a build without CUDA: there are no GPUs, and nothing runs
//! on one.

use candle_core::{Device, Tensor, WithDType};

use super::module::{Arg, Grid, Module, Operand};
use crate::error::{Error, Result};
use crate::kernels::tensor::Dst;

pub fn count() -> Result<usize> {
    Err(without_cuda())
}

pub fn kind(_: &Device) -> Result<String> {
    Err(without_cuda())
}

pub fn open(ordinal: usize) -> Result<Device> {
    Err(Error::failed(format!("no CUDA for GPU {ordinal}")))
}

pub fn synchronize() -> Result<()> {
    Ok(())
}

pub fn stream(_: &Device) -> Result<u64> {
    Err(without_cuda())
}

pub fn is_idle(_: &Device) -> Result<bool> {
    Err(without_cuda())
}

pub fn peak() -> Option<u64> {
    None
}

pub fn put<T: WithDType>(_: &[T], _: Dst) -> Result<()> {
    Err(without_cuda())
}

pub fn get<T: WithDType>(_: &Tensor) -> Result<Vec<T>> {
    Err(without_cuda())
}

pub fn launch(_: &Module, _: &'static str, _: Grid, _: &[Arg]) -> Result<()> {
    Err(without_cuda())
}

pub fn product(_: &Device, _: [Operand; 3], _: [usize; 3], _: bool) -> Result<()> {
    Err(without_cuda())
}

pub fn address(_: &Tensor) -> Result<u64> {
    Err(without_cuda())
}

fn without_cuda() -> Error {
    Error::failed("this build has no CUDA")
}
