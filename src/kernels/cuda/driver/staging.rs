//! Copies from host memory to a GPU.
//!
//! *Why*: a copy that the host does not wait for reads its source later. CUDA promises to be through with
//! it at once for page-locked memory alone where nobody writes to it, so values go through memory of that
//! kind, and nothing leans on what a driver does with other memory.

use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DriverError, PinnedHostSlice, result::memcpy_htod_async,
};

/// Bytes of each half: enough that a copy runs at the bus's full rate.
const HALF: usize = 4 << 20;

/// Two halves of page-locked memory: one is filled while the other is read.
pub struct Staging {
    start: *mut u8,
    /// The half that is filled, and how much of it is.
    half: usize,
    filled: usize,
    /// When each half was read.
    read: [CudaEvent; 2],
    _memory: PinnedHostSlice<u8>,
}

// SAFETY: the memory belongs to this value alone, and any thread may use it.
unsafe impl Send for Staging {}

impl Staging {
    /// For the device of a stream.
    pub fn new(stream: &CudaStream) -> Result<Self, DriverError> {
        let context = stream.context();
        // SAFETY: bytes are written before they are read.
        let mut memory = unsafe { context.alloc_pinned_with_flags(2 * HALF, 0)? };
        Ok(Self {
            start: memory.as_mut_ptr()?,
            half: 0,
            filled: 0,
            read: [context.new_event(None)?, context.new_event(None)?],
            _memory: memory,
        })
    }

    /// Copies `bytes` to an address of the device, after all work of the stream before it. The stream's
    /// context is bound to this thread.
    ///
    /// # Safety
    /// The device's memory has so many bytes there.
    pub unsafe fn copy(
        &mut self,
        stream: &CudaStream,
        mut bytes: &[u8],
        mut to: u64,
    ) -> Result<(), DriverError> {
        while !bytes.is_empty() {
            if self.filled == HALF {
                self.read[self.half].record(stream)?;
                (self.half, self.filled) = (1 - self.half, 0);
                // Of an event that was not recorded yet there is nothing to wait for.
                self.read[self.half].synchronize()?;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(HALF - self.filled));
            // SAFETY: inside the half, which nobody reads; the caller vouches for the device's memory.
            unsafe {
                let place = self.start.add(self.half * HALF + self.filled);
                place.copy_from_nonoverlapping(part.as_ptr(), part.len());
                let part = std::slice::from_raw_parts(place, part.len());
                memcpy_htod_async(to, part, stream.cu_stream())?;
            }
            self.filled += part.len();
            to += part.len() as u64;
            bytes = rest;
        }
        Ok(())
    }
}
