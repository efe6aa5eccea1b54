//! The kernel in a stream of its own.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{CudaContext, sys};
use trireme_sdk::{Error, Result};

/// Compiled by the driver.
const KERNEL: &str = include_str!("scale.ptx");

const THREADS: u32 = 256;

pub(crate) struct Stream {
    /// Before the context, in which it goes.
    _module: Module,
    context: Arc<CudaContext>,
    raw: sys::CUstream,
    kernel: sys::CUfunction,
}

/// Unloaded when dropped, in the context that is current then.
struct Module(sys::CUmodule);

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded once, and nothing of it runs any more.
        let _ = unsafe { sys::cuModuleUnload(self.0) };
    }
}

// SAFETY: handles that the driver lets any thread use.
unsafe impl Send for Stream {}

fn check(call: &str, status: sys::CUresult) -> Result<()> {
    status.result().map_err(|error| Error::internal(format!("{call}: {error:?}")))
}

fn event(number: u64) -> sys::CUevent {
    std::ptr::with_exposed_provenance_mut(number as usize)
}

/// The last use of an event.
pub(crate) fn destroy(number: u64) {
    // SAFETY: made by `scale`; the driver frees it when it has passed.
    let _ = unsafe { sys::cuEventDestroy_v2(event(number)) };
}

impl Stream {
    pub(crate) fn new(device: i32) -> Result<Self> {
        // SAFETY: only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::unavailable("there is no NVIDIA driver on this machine"));
        }
        let number = usize::try_from(device).map_err(|_| Error::invalid("a GPU has no negative number"))?;
        let context = CudaContext::new(number)
            .map_err(|error| Error::unavailable(format!("GPU {device} cannot be opened: {error:?}")))?;
        let ptx = CString::new(KERNEL).map_err(|_| Error::internal("the kernel's text holds a zero"))?;
        let (mut loaded, mut kernel, mut raw) =
            (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the result is valid for writes, the text ends with a zero; `CudaContext::new` made the context current.
        unsafe { check("cuModuleLoadData", sys::cuModuleLoadData(&raw mut loaded, ptx.as_ptr().cast()))? };
        let module = Module(loaded);
        // SAFETY: as above.
        unsafe {
            check(
                "cuModuleGetFunction",
                sys::cuModuleGetFunction(&raw mut kernel, module.0, c"scale".as_ptr()),
            )?;
            check("cuStreamCreate", sys::cuStreamCreate(&raw mut raw, flags))?;
        }
        Ok(Self { _module: module, context, raw, kernel })
    }

    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|error| Error::internal(format!("cuCtxSetCurrent: {error:?}")))
    }

    /// Multiplies `n` floats behind events. The event when it is done, which [`destroy`] takes.
    ///
    /// # Safety
    /// Both addresses have `n` floats that the GPU reaches, until the event has passed.
    pub(crate) unsafe fn scale(
        &self,
        to: u64,
        from: u64,
        n: usize,
        factor: f32,
        nanos: u64,
        after: &[u64],
    ) -> Result<u64> {
        self.bind()?;
        for number in after.iter().filter(|number| **number != 0) {
            // SAFETY: the event is lent to us; the stream keeps what it needs of it.
            let status = unsafe { sys::cuStreamWaitEvent(self.raw, event(*number), 0) };
            check("cuStreamWaitEvent", status)?;
        }
        let n = n as u64;
        let blocks = u32::try_from(n.div_ceil(u64::from(THREADS)).max(1))
            .map_err(|_| Error::invalid("X has more elements than a grid of this kernel"))?;
        let mut args: [*mut c_void; 5] = [
            (&raw const to).cast_mut().cast(),
            (&raw const from).cast_mut().cast(),
            (&raw const n).cast_mut().cast(),
            (&raw const nanos).cast_mut().cast(),
            (&raw const factor).cast_mut().cast(),
        ];
        // SAFETY: the arguments are those that the kernel declares; the memory is the caller's promise.
        let status = unsafe {
            sys::cuLaunchKernel(
                self.kernel,
                blocks,
                1,
                1,
                THREADS,
                1,
                1,
                0,
                self.raw,
                args.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        check("cuLaunchKernel", status)?;
        let mut made = std::ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: `made` is valid for writes, the stream is alive.
        let recorded = unsafe {
            check("cuEventCreate", sys::cuEventCreate(&raw mut made, flags))
                .and_then(|()| check("cuEventRecord", sys::cuEventRecord(made, self.raw)))
        };
        if let Err(error) = recorded {
            if !made.is_null() {
                destroy(made.expose_provenance() as u64);
            }
            // Nobody could know when the memory is free.
            self.finish()?;
            return Err(error);
        }
        Ok(made.expose_provenance() as u64)
    }

    /// Returns when all work so far is done.
    pub(crate) fn finish(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream is alive.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.raw) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The module goes behind it.
        let _ = self.finish();
        // SAFETY: the last use.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
    }
}
