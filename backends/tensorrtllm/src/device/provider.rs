//! The memory of the GPUs for the server and for other backends (`device/1`).
//!
//! Each piece of work gets a stream that has nothing to do, so that what waits for one tensor does not hold up another. A GPU
//! is opened when something is first wanted of it: a context alone takes hundreds of megabytes of its memory.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::sys;
use trireme_sdk::{DeviceDescription, DeviceProvider, Error, Host, Place};

use super::{Device, Stream, check};
use crate::error::{CudaError, Result};

/// Bytes of the handle of an allocation.
const HANDLE: usize = 64;

/// The GPUs of this machine.
pub struct CudaDevices {
    gpus: Vec<Gpu>,
    host: Host,
}

struct Gpu {
    ordinal: usize,
    opened: OnceLock<Device>,
    /// Nobody uses them; some may not have finished.
    streams: Mutex<Vec<Stream>>,
    /// Memory that is given back, and the event of ours after which nobody reads it.
    leaving: Mutex<Vec<(Leaving, u64)>>,
}

#[derive(Clone, Copy)]
enum Leaving {
    Device(u64),
    Pinned(u64),
    Opened(u64),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn event(number: u64) -> sys::CUevent {
    std::ptr::with_exposed_provenance_mut(number as usize)
}

/// The context that the calling thread had, which it gets back at the end: no function of a provider changes it.
struct Caller(sys::CUcontext);

impl Caller {
    /// Before the first call of a function that needs a context.
    fn kept() -> Result<Self> {
        let mut context = std::ptr::null_mut();
        // SAFETY: `context` is valid for writes.
        match unsafe { sys::cuCtxGetCurrent(&raw mut context) } {
            // Nothing of the driver was used yet, so nobody has a context.
            sys::CUresult::CUDA_ERROR_NOT_INITIALIZED => Ok(Self(std::ptr::null_mut())),
            status => check("cuCtxGetCurrent", status).map(|()| Self(context)),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // SAFETY: the context was current when this was made, or there was none.
        let _ = unsafe { sys::cuCtxSetCurrent(self.0) };
    }
}

impl CudaDevices {
    /// Those with these numbers.
    pub fn new(count: usize, host: &Host) -> Arc<Self> {
        let gpu = |ordinal| Gpu {
            ordinal,
            opened: OnceLock::new(),
            streams: Mutex::default(),
            leaving: Mutex::default(),
        };
        Arc::new(Self { gpus: (0..count).map(gpu).collect(), host: host.clone() })
    }

    fn gpu(&self, device: i32) -> Result<&Gpu, Error> {
        let found = usize::try_from(device).ok().and_then(|device| self.gpus.get(device));
        found
            .ok_or_else(|| Error::invalid(format!("there is no GPU {device}; there are {}", self.gpus.len())))
    }

    /// What the driver says, for the host; a lost GPU is said to be so.
    fn told<T>(&self, result: Result<T>) -> Result<T, Error> {
        result.map_err(|error| {
            if let CudaError::Lost { .. } = &error {
                self.host.device_lost(&error);
            }
            match error {
                CudaError::Memory(_) => Error::unavailable(error.to_string()),
                _ => Error::internal(error.to_string()),
            }
        })
    }

    /// Puts work into a stream, behind an event.
    fn run(
        &self,
        device: i32,
        after: &[u64],
        waits: bool,
        work: impl FnOnce(&Stream) -> Result<()>,
    ) -> Result<u64, Error> {
        let gpu = self.gpu(device)?;
        let _caller = self.told(gpu.enter())?;
        self.told(gpu.run(after, waits, work))
    }

    /// As [`Gpu::enter`].
    fn enter(&self, device: i32) -> Result<(&Gpu, Caller), Error> {
        let gpu = self.gpu(device)?;
        Ok((gpu, self.told(gpu.enter())?))
    }
}

impl Gpu {
    fn device(&self) -> Result<&Device> {
        if let Some(device) = self.opened.get() {
            return Ok(device);
        }
        let device = Device::open(self.ordinal)?;
        Ok(self.opened.get_or_init(|| device))
    }

    /// Makes its context that of the calling thread, until the value is dropped.
    fn enter(&self) -> Result<Caller> {
        let caller = Caller::kept()?;
        self.device()?.bind()?;
        Ok(caller)
    }

    /// A stream without work. Within [`Self::enter`], as all that follows.
    fn stream(&self) -> Result<Stream> {
        let device = self.device()?;
        let mut streams = lock(&self.streams);
        // SAFETY: the streams are alive.
        let query = |stream: &Stream| unsafe { sys::cuStreamQuery(stream.raw()) };
        // One whose work has failed never has nothing to do.
        streams.retain(|stream| {
            matches!(query(stream), sys::CUresult::CUDA_SUCCESS | sys::CUresult::CUDA_ERROR_NOT_READY)
        });
        match streams.iter().position(|stream| query(stream) == sys::CUresult::CUDA_SUCCESS) {
            Some(at) => Ok(streams.swap_remove(at)),
            None => {
                drop(streams);
                Stream::new(device)
            }
        }
    }

    fn run(&self, after: &[u64], waits: bool, work: impl FnOnce(&Stream) -> Result<()>) -> Result<u64> {
        let stream = self.stream()?;
        let put = || {
            for number in after.iter().filter(|number| **number != 0) {
                // SAFETY: the event is lent to us by who called; the stream keeps what it needs of it.
                check("cuStreamWaitEvent", unsafe {
                    sys::cuStreamWaitEvent(stream.raw(), event(*number), 0)
                })?;
            }
            work(&stream)?;
            if waits {
                return stream.synchronize().map(|()| 0);
            }
            let mut made = std::ptr::null_mut();
            let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
            // SAFETY: `made` is valid for writes.
            check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut made, flags) })?;
            // SAFETY: both are alive.
            let recorded = check("cuEventRecord", unsafe { sys::cuEventRecord(made, stream.raw()) });
            if let Err(error) = recorded {
                // SAFETY: made above, and known to nobody.
                let _ = unsafe { sys::cuEventDestroy_v2(made) };
                return Err(error);
            }
            Ok(made.expose_provenance() as u64)
        };
        let result = put();
        lock(&self.streams).push(stream);
        result
    }

    /// Frees what nobody reads any more; with `all` it waits for the rest.
    fn sweep(&self, all: bool) {
        let mut leaving = lock(&self.leaving);
        leaving.retain(|(what, done)| {
            let number = event(*done);
            let status = if all {
                // SAFETY: an event of ours, not destroyed yet. An error means that nothing runs any more.
                unsafe { sys::cuEventSynchronize(number) }
            } else {
                // SAFETY: as above.
                unsafe { sys::cuEventQuery(number) }
            };
            let passed = status != sys::CUresult::CUDA_ERROR_NOT_READY;
            if passed {
                what.free();
                // SAFETY: ours; the last use.
                let _ = unsafe { sys::cuEventDestroy_v2(event(*done)) };
            }
            !passed
        });
    }

    /// Frees memory behind an event, which is lent.
    fn leave(&self, what: Leaving, done_event: u64) {
        let Ok(_caller) = self.enter() else { return };
        match done_event {
            0 => what.free(),
            // An event of our own: the other is gone when this returns.
            number => match self.run(&[number], false, |_| Ok(())) {
                Ok(own) => lock(&self.leaving).push((what, own)),
                Err(_) => {
                    // SAFETY: the event is lent to us.
                    let _ = unsafe { sys::cuEventSynchronize(event(number)) };
                    what.free();
                }
            },
        }
        self.sweep(false);
    }
}

impl Leaving {
    /// A failure leaves memory behind that nobody can use any more; there is nobody to tell.
    fn free(self) {
        // SAFETY: each address came from the call that this one ends, and is freed once.
        let _ = unsafe {
            match self {
                Self::Device(address) => sys::cuMemFree_v2(address),
                Self::Pinned(address) => {
                    sys::cuMemFreeHost(std::ptr::with_exposed_provenance_mut(address as usize))
                }
                Self::Opened(address) => sys::cuIpcCloseMemHandle(address),
            }
        };
    }
}

// SAFETY: allocations are the driver's; copies and fills are those of the driver, on the ranges that are given.
unsafe impl DeviceProvider for CudaDevices {
    fn devices(&self) -> Vec<DeviceDescription> {
        let one = |gpu: &Gpu| DeviceDescription {
            device: i32::try_from(gpu.ordinal).unwrap_or(i32::MAX),
            platform: "cuda".to_owned(),
            name: name(gpu.ordinal).unwrap_or_else(|| "NVIDIA GPU".to_owned()),
        };
        self.gpus.iter().map(one).collect()
    }

    fn allocate(&self, device: i32, byte_size: usize) -> Result<u64, Error> {
        let (gpu, _caller) = self.enter(device)?;
        gpu.sweep(false);
        let take = || {
            let mut at = 0;
            // SAFETY: `at` is valid for writes.
            check("cuMemAlloc", unsafe { sys::cuMemAlloc_v2(&raw mut at, byte_size) }).map(|()| at)
        };
        let taken = match take() {
            Err(CudaError::Memory(_)) => {
                // What is on its way back may be enough.
                gpu.sweep(true);
                take()
            }
            other => other,
        };
        self.told(taken)
    }

    fn free(&self, device: i32, address: u64, _byte_size: usize, done_event: u64) {
        if let Ok(gpu) = self.gpu(device) {
            gpu.leave(Leaving::Device(address), done_event);
        }
    }

    fn allocate_pinned(&self, device: i32, byte_size: usize) -> Result<u64, Error> {
        let (_, _caller) = self.enter(device)?;
        let mut at: *mut c_void = std::ptr::null_mut();
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: `at` is valid for writes.
        self.told(check("cuMemHostAlloc", unsafe { sys::cuMemHostAlloc(&raw mut at, byte_size, flags) }))?;
        Ok(at.expose_provenance() as u64)
    }

    fn free_pinned(&self, device: i32, address: u64, _byte_size: usize, done_event: u64) {
        if let Ok(gpu) = self.gpu(device) {
            gpu.leave(Leaving::Pinned(address), done_event);
        }
    }

    unsafe fn copy(&self, to: Place, from: Place, after: u64, waits: bool) -> Result<u64, Error> {
        let device = to.device.or(from.device).unwrap_or(0);
        self.run(device, &[after], waits, |stream| {
            // Addresses say where they are, so one call serves all ways, from one GPU to another too.
            // SAFETY: by the contract of this function.
            let status = unsafe { sys::cuMemcpyAsync(to.address, from.address, to.byte_size, stream.raw()) };
            check("cuMemcpyAsync", status)
        })
    }

    unsafe fn fill(&self, to: Place, value: u8, after: u64, waits: bool) -> Result<u64, Error> {
        self.run(to.device.unwrap_or(0), &[after], waits, |stream| {
            // SAFETY: by the contract of this function.
            unsafe { stream.fill(to.address, value, to.byte_size) }
        })
    }

    fn join(&self, device: i32, events: &[u64]) -> Result<u64, Error> {
        self.run(device, events, false, |_| Ok(()))
    }

    fn has_passed(&self, device: i32, number: u64) -> Result<bool, Error> {
        let (_, _caller) = self.enter(device)?;
        // SAFETY: the event is lent to us.
        match unsafe { sys::cuEventQuery(event(number)) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            status => self.told(check("cuEventQuery", status).map(|()| true)),
        }
    }

    fn wait(&self, device: i32, number: u64) -> Result<(), Error> {
        let (_, _caller) = self.enter(device)?;
        // SAFETY: the event is lent to us.
        self.told(check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(event(number)) }))
    }

    fn destroy(&self, device: i32, number: u64) {
        if number == 0 {
            return;
        }
        if let Ok(_entered) = self.enter(device) {
            // SAFETY: made by `run`; the last use. The driver frees it when it has passed.
            let _ = unsafe { sys::cuEventDestroy_v2(event(number)) };
        }
    }

    fn export(&self, place: Place) -> Result<(Vec<u8>, u64), Error> {
        let (_, _caller) = self.enter(place.device.unwrap_or(0))?;
        let (mut base, mut size) = (0, 0);
        let mut handle = sys::CUipcMemHandle { reserved: [0; HANDLE] };
        // SAFETY: the results are valid for writes; the driver looks at the address.
        self.told(unsafe {
            check(
                "cuMemGetAddressRange",
                sys::cuMemGetAddressRange_v2(&raw mut base, &raw mut size, place.address),
            )
            .and_then(|()| check("cuIpcGetMemHandle", sys::cuIpcGetMemHandle(&raw mut handle, base)))
        })?;
        Ok((handle.reserved.iter().map(|byte| byte.cast_unsigned()).collect(), place.address - base))
    }

    fn open(&self, device: i32, handle: &[u8], byte_size: usize) -> Result<u64, Error> {
        let Ok(bytes) = <[u8; HANDLE]>::try_from(handle) else {
            return Err(Error::invalid(format!(
                "a CUDA IPC handle has {HANDLE} bytes, this one {}",
                handle.len()
            )));
        };
        let (_, _caller) = self.enter(device)?;
        let handle = sys::CUipcMemHandle { reserved: bytes.map(u8::cast_signed) };
        let flags = sys::CUipcMem_flags::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as u32;
        let mut at = 0;
        // SAFETY: `at` is valid for writes; the driver looks at the handle.
        let opened =
            check("cuIpcOpenMemHandle", unsafe { sys::cuIpcOpenMemHandle_v2(&raw mut at, handle, flags) });
        if let Err(CudaError::Driver { .. }) = &opened {
            // Neither the memory nor the GPU is to blame.
            return opened.map(|()| 0).map_err(|error| Error::invalid(error.to_string()));
        }
        self.told(opened)?;
        let (mut base, mut size) = (0, 0);
        // SAFETY: the results are valid for writes; the address was opened above.
        let found = check("cuMemGetAddressRange", unsafe {
            sys::cuMemGetAddressRange_v2(&raw mut base, &raw mut size, at)
        });
        // An allocation is opened from its beginning.
        if found.is_err() || base != at || size < byte_size {
            Leaving::Opened(at).free();
            return Err(Error::invalid(format!("the allocation has {size} bytes, wanted are {byte_size}")));
        }
        Ok(at)
    }

    fn close(&self, device: i32, address: u64, done_event: u64) {
        if let Ok(gpu) = self.gpu(device) {
            gpu.leave(Leaving::Opened(address), done_event);
        }
    }
}

/// What the driver calls a GPU; known without a context on it.
fn name(ordinal: usize) -> Option<String> {
    let (mut device, mut text) = (0, [0u8; 256]);
    // SAFETY: the results are valid for writes, the text as far as it is said to be.
    unsafe {
        check("cuDeviceGet", sys::cuDeviceGet(&raw mut device, i32::try_from(ordinal).ok()?)).ok()?;
        check("cuDeviceGetName", sys::cuDeviceGetName(text.as_mut_ptr().cast(), 255, device)).ok()?;
    }
    let text = std::ffi::CStr::from_bytes_until_nul(&text).ok()?;
    Some(text.to_string_lossy().into_owned())
}
