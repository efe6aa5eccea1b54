//! Streams and events.

use cudarc::driver::sys;

use super::{Device, check};
use crate::error::Result;

/// Work that runs in order.
pub struct Stream {
    device: Device,
    raw: sys::CUstream,
}

// SAFETY: the driver's functions on a stream may be called from any thread.
unsafe impl Send for Stream {}

impl Stream {
    pub fn new(device: &Device) -> Result<Self> {
        device.bind()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: `raw` is valid for writes.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut raw, flags) })?;
        Ok(Self { device: device.clone(), raw })
    }

    /// The driver's handle.
    pub fn raw(&self) -> sys::CUstream {
        self.raw
    }

    /// Waits until all its work is done.
    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: the stream is alive.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.raw) })
    }

    /// Sets `bytes` at `address` to `value`, behind the work so far.
    ///
    /// # Safety
    /// The range must be memory of the GPU that outlives the work.
    pub unsafe fn fill(&self, address: u64, value: u8, bytes: usize) -> Result<()> {
        // SAFETY: as the caller promises.
        check("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(address, value, bytes, self.raw) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: created by `new` and destroyed once; the driver lets its work end.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
    }
}

/// A point in a stream's work.
pub struct Event {
    device: Device,
    raw: sys::CUevent,
}

// SAFETY: as for streams.
unsafe impl Send for Event {}

impl Event {
    pub fn new(device: &Device) -> Result<Self> {
        device.bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is valid for writes. Waiting spins: a blocking wait costs tens of microseconds a step.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut raw, 0) })?;
        Ok(Self { device: device.clone(), raw })
    }

    /// Two of them.
    pub fn pair(device: &Device) -> Result<(Self, Self)> {
        Ok((Self::new(device)?, Self::new(device)?))
    }

    /// Marks the end of the stream's work so far.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both are alive.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.raw, stream.raw()) })
    }

    /// Whether the work before the mark is done.
    pub fn is_done(&self) -> Result<bool> {
        // SAFETY: the event is alive.
        match unsafe { sys::cuEventQuery(self.raw) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            status => check("cuEventQuery", status).map(|()| true),
        }
    }

    pub fn wait(&self) -> Result<()> {
        // SAFETY: the event is alive.
        check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.raw) })
    }

    /// Milliseconds from `earlier` to this mark; both must be done.
    pub fn since(&self, earlier: &Self) -> Result<f32> {
        let mut ms = 0.0;
        // SAFETY: both are alive and `ms` is valid for writes.
        check("cuEventElapsedTime", unsafe {
            sys::cuEventElapsedTime_v2(&raw mut ms, earlier.raw, self.raw)
        })?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: created by `new` and destroyed once.
        let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
    }
}
