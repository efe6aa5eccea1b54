//! Memory of the GPU, and memory of the host that the GPU reads and writes.

use std::ffi::c_void;

use cudarc::driver::sys;

use super::{Device, Stream, check};
use crate::error::{CudaError, Result};

/// Bytes on the GPU.
pub struct Buffer {
    device: Device,
    at: u64,
    bytes: usize,
}

impl Buffer {
    /// Memory with whatever was in it.
    pub fn new(device: &Device, bytes: usize) -> Result<Self> {
        device.bind()?;
        let mut at = 0;
        // SAFETY: `at` is valid for writes.
        let status = unsafe { sys::cuMemAlloc_v2(&raw mut at, bytes.max(1)) };
        if status == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let free = device.memory().map_or(0, |(free, _)| free);
            return Err(CudaError::Memory(format!("{} MB wanted, {} MB free", bytes >> 20, free >> 20)));
        }
        check("cuMemAlloc", status)?;
        Ok(Self { device: device.clone(), at, bytes })
    }

    /// Memory of zeros.
    pub fn zeroed(device: &Device, bytes: usize) -> Result<Self> {
        let buffer = Self::new(device, bytes)?;
        // SAFETY: the whole range was allocated above. The call is done when it returns to work of any stream.
        check("cuMemsetD8", unsafe { sys::cuMemsetD8_v2(buffer.at, 0, buffer.bytes.max(1)) })?;
        Ok(buffer)
    }

    /// Address of byte `offset`.
    ///
    /// # Panics
    /// If it lies behind the end.
    pub fn at(&self, offset: usize) -> u64 {
        assert!(offset <= self.bytes, "byte {offset} of a buffer of {}", self.bytes);
        self.at + offset as u64
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies from the host behind the work of `stream`.
    ///
    /// # Safety
    /// `from` must stay as it is until the stream has come this far.
    pub unsafe fn write_async(&self, offset: usize, from: &[u8], stream: &Stream) -> Result<()> {
        assert!(offset.checked_add(from.len()).is_some_and(|end| end <= self.bytes));
        // SAFETY: the range lies in the buffer; the caller keeps the source.
        let status = unsafe {
            sys::cuMemcpyHtoDAsync_v2(self.at(offset), from.as_ptr().cast(), from.len(), stream.raw())
        };
        check("cuMemcpyHtoDAsync", status)
    }

    /// Copies to the host when all work of `stream` is done.
    pub fn read(&self, offset: usize, to: &mut [u8], stream: &Stream) -> Result<()> {
        assert!(offset.checked_add(to.len()).is_some_and(|end| end <= self.bytes));
        // SAFETY: the range lies in the buffer and `to` outlives the copy, which is waited for.
        let status = unsafe {
            sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), self.at(offset), to.len(), stream.raw())
        };
        check("cuMemcpyDtoHAsync", status)?;
        stream.synchronize()
    }

    /// Copies all of another buffer of this size, behind the work of `stream`.
    pub fn copy_from(&self, from: &Self, stream: &Stream) -> Result<()> {
        assert_eq!(self.bytes, from.bytes);
        // SAFETY: both have this size; freeing either waits for the copy.
        check("cuMemcpyDtoDAsync", unsafe {
            sys::cuMemcpyDtoDAsync_v2(self.at, from.at, self.bytes, stream.raw())
        })
    }

    /// Copies from the host and waits for it.
    pub fn write(&self, offset: usize, from: &[u8], stream: &Stream) -> Result<()> {
        // SAFETY: the copy is waited for.
        unsafe { self.write_async(offset, from, stream)? };
        stream.synchronize()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A failure leaves memory behind that nobody can use any more; there is nobody to tell.
        let _ = self.device.bind();
        // SAFETY: allocated by `new` and freed once. The call waits for work that uses it.
        let _ = unsafe { sys::cuMemFree_v2(self.at) };
    }
}

/// Page-locked memory of the host at the same address for the GPU.
pub struct Pinned {
    device: Device,
    at: *mut u8,
    bytes: usize,
}

// SAFETY: plain memory; access is by `&self` for reading and `&mut self` for writing.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Zeroed memory. Not write-combined: the host reads it, too.
    pub fn new(device: &Device, bytes: usize) -> Result<Self> {
        device.bind()?;
        let bytes = bytes.max(1);
        let mut at: *mut c_void = std::ptr::null_mut();
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: `at` is valid for writes.
        check("cuMemHostAlloc", unsafe { sys::cuMemHostAlloc(&raw mut at, bytes, flags) })?;
        // SAFETY: freshly allocated, of this size.
        unsafe { at.cast::<u8>().write_bytes(0, bytes) };
        Ok(Self { device: device.clone(), at: at.cast(), bytes })
    }

    /// Its address as kernels use it.
    pub fn address(&self) -> u64 {
        self.at as u64
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with this size. What the GPU writes is read after the event behind the write.
        unsafe { std::slice::from_raw_parts(self.at, self.bytes) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this size, and borrowed once.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: allocated by `new` and freed once.
        let _ = unsafe { sys::cuMemFreeHost(self.at.cast()) };
    }
}
