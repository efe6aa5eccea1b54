//! The GPU as this crate uses it: a context, streams, events, memory, launches and graphs, each freed when dropped.
//!
//! The driver is opened when the first call needs it, so a machine without one starts as any other. Ordering is
//! explicit: one stream, events where the host waits, nothing tracked behind the scenes.

mod graph;
mod launch;
mod memory;
mod provider;
mod stream;
mod tensor_map;

use std::sync::Arc;

use cudarc::driver::{CudaContext, sys};

pub use crate::kernel_args as args;
pub use graph::{Capture, Graph};
pub use launch::{Function, Grid, KernelArgs};
pub use memory::{Buffer, Pinned};
pub use provider::CudaDevices;
pub use stream::{Event, Stream};
pub use tensor_map::TensorMap;

use crate::error::{CudaError, Result};

/// A GPU with its primary context, which all users in the process share.
#[derive(Clone)]
pub struct Device {
    context: Arc<CudaContext>,
    pub name: Arc<str>,
    /// Compute capability.
    pub capability: (i32, i32),
    pub multiprocessors: usize,
}

/// Gives a driver call's status a name.
pub(crate) fn check(call: &'static str, status: sys::CUresult) -> Result<()> {
    status.result().map_err(|e| {
        let text =
            e.error_string().map_or_else(|_| format!("{:?}", e.0), |s| s.to_string_lossy().into_owned());
        CudaError::driver(call, e.0 as u32, text)
    })
}

/// The CUDA whose functions are called.
const CUDA: i32 = 13000;

/// CUDA's version as the driver has it: 13000 for 13.0.
fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: `version` is valid for writes.
    check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&raw mut version) })?;
    Ok(version)
}

/// GPUs of this machine.
///
/// # Errors
/// [`CudaError::NoDriver`] where CUDA is not installed, and the driver's own where it cannot start.
pub fn count() -> Result<usize> {
    // SAFETY: only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    // Before anything else: an older driver lacks functions, and may be asked for its version only.
    let found = driver_version()?;
    if found < CUDA {
        return Err(CudaError::OldDriver { found });
    }
    let count = match CudaContext::device_count() {
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => 0,
        counted => counted.map_err(|e| CudaError::driver("cuDeviceGetCount", e.0 as u32, e.to_string()))?,
    };
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(CudaError::NoGpu),
    }
}

/// What the driver calls GPU `ordinal`; a context on it, which takes hundreds of megabytes of its memory, is not made.
///
/// # Errors
/// As for [`Device::open`].
pub fn name(ordinal: usize) -> Result<String> {
    let count = count()?;
    let number = i32::try_from(ordinal).ok().filter(|_| ordinal < count);
    let number = number.ok_or(CudaError::NoDevice { ordinal, count })?;
    let (mut device, mut text) = (0, [0u8; 256]);
    // SAFETY: the results are valid for writes, the text as far as it is said to be.
    unsafe {
        check("cuDeviceGet", sys::cuDeviceGet(&raw mut device, number))?;
        check("cuDeviceGetName", sys::cuDeviceGetName(text.as_mut_ptr().cast(), 255, device))?;
    }
    let text = std::ffi::CStr::from_bytes_until_nul(&text).unwrap_or_default();
    Ok(text.to_string_lossy().into_owned())
}

impl Device {
    /// Opens GPU `ordinal`.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`] and [`CudaError::NoDevice`] where there is none.
    pub fn open(ordinal: usize) -> Result<Self> {
        let driver =
            |call| move |e: cudarc::driver::DriverError| CudaError::driver(call, e.0 as u32, e.to_string());
        let count = count()?;
        if ordinal >= count {
            return Err(CudaError::NoDevice { ordinal, count });
        }
        let context = CudaContext::new(ordinal).map_err(driver("cuDevicePrimaryCtxRetain"))?;
        // SAFETY: streams and events are this crate's own; it orders every access itself.
        unsafe { context.disable_event_tracking() };
        let name: Arc<str> = context.name().map_err(driver("cuDeviceGetName"))?.into();
        let capability = context.compute_capability().map_err(driver("cuDeviceGetAttribute"))?;
        if capability.0 < 8 {
            return Err(CudaError::TooOld {
                name: name.to_string(),
                major: capability.0,
                minor: capability.1,
            });
        }
        let multiprocessors = context
            .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(driver("cuDeviceGetAttribute"))?;
        let multiprocessors = usize::try_from(multiprocessors).unwrap_or(1).max(1);
        Ok(Self { context, name, capability, multiprocessors })
    }

    /// Makes this the GPU of the calling thread.
    pub fn bind(&self) -> Result<()> {
        self.context
            .bind_to_thread()
            .map_err(|e| CudaError::driver("cuCtxSetCurrent", e.0 as u32, e.to_string()))
    }

    /// Free and total bytes.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both pointers are valid for writes.
        check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok((free, total))
    }

    /// CUDA's version as the driver has it: 13000 for 13.0.
    pub fn driver_version(&self) -> Result<i32> {
        driver_version()
    }

    /// Bytes of shared memory that a block may have.
    pub fn shared_bytes(&self) -> Result<usize> {
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let bytes = self.context.attribute(attribute);
        let bytes =
            bytes.map_err(|e| CudaError::driver("cuDeviceGetAttribute", e.0 as u32, e.to_string()))?;
        Ok(usize::try_from(bytes).unwrap_or(0))
    }

    /// The target that kernels are compiled for: Hopper's own instructions need the `a`.
    pub fn arch(&self) -> String {
        let (major, minor) = self.capability;
        if major == 9 { format!("sm_{major}{minor}a") } else { format!("sm_{major}{minor}") }
    }

    /// Whether a kernel may start before the one in front of it has ended.
    pub fn overlaps_launches(&self) -> bool {
        self.capability.0 >= 9
    }
}
