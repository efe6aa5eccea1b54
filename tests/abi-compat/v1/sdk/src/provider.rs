//! A backend that serves the memory of devices (`device/1`).

use std::ffi::c_void;
use std::sync::Arc;

use trireme_abi::{Buffer, DeviceInfo, DeviceVtable, IpcMemory, MemoryKind, MemoryRange, Status};

use crate::error::{Error, Result};
use crate::fence::fence;
use crate::wire::{status, view};

/// A device of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDescription {
    /// The number of the GPU, as in `instance_group.gpus`.
    pub device: i32,
    /// What addresses and events are: "cuda" for CUDA.
    pub platform: String,
    /// What people call it.
    pub name: String,
}

/// Bytes of an allocation, or of any memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where it begins.
    pub address: u64,
    /// In bytes.
    pub byte_size: usize,
    /// The GPU that has it; none for memory of the process, pinned or not.
    pub device: Option<i32>,
}

/// The memory of some devices. All functions may be called from any thread, also at the same time. The value lives until the
/// process ends.
///
/// # Safety
/// What [`DeviceProvider::allocate`] and its like give is memory of that size that nobody else has
/// until it is freed; a copy touches nothing but the ranges that it is given.
pub unsafe trait DeviceProvider: Send + Sync + 'static {
    /// Those that it serves; asked once.
    fn devices(&self) -> Vec<DeviceDescription>;

    /// The address of memory of a device, aligned to 256 bytes, with anything in it.
    ///
    /// # Errors
    /// UNAVAILABLE if there is not so much.
    fn allocate(&self, device: i32, byte_size: usize) -> Result<u64>;

    /// The end of memory of [`Self::allocate`], when the event, which is lent, has passed; 0: now.
    fn free(&self, device: i32, address: u64, byte_size: usize, done_event: u64);

    /// The address of page-locked memory of the process for copies to and from `device`, aligned to 256 bytes.
    ///
    /// # Errors
    /// UNAVAILABLE if there is not so much.
    fn allocate_pinned(&self, device: i32, byte_size: usize) -> Result<u64>;

    /// As [`Self::free`], of pinned memory.
    fn free_pinned(&self, device: i32, address: u64, byte_size: usize, done_event: u64);

    /// Copies behind the event `after`; 0 is none. At least one end is on a device; both have one length. With `waits` it
    /// returns 0 when the bytes are there; otherwise it may return an event that passes then.
    ///
    /// # Errors
    /// The copy failed, or the work before the event.
    ///
    /// # Safety
    /// `from` may be read and `to` written until the copy is done.
    unsafe fn copy(&self, to: Place, from: Place, after: u64, waits: bool) -> Result<u64>;

    /// Sets each byte of memory of a device; otherwise as [`Self::copy`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// `to` may be written until it is done.
    unsafe fn fill(&self, to: Place, value: u8, after: u64, waits: bool) -> Result<u64>;

    /// One event that passes after all of these.
    ///
    /// # Errors
    /// The device does not make one.
    fn join(&self, device: i32, events: &[u64]) -> Result<u64>;

    /// Whether the event has passed.
    ///
    /// # Errors
    /// The work before it failed.
    fn has_passed(&self, device: i32, event: u64) -> Result<bool>;

    /// Returns when the event has passed.
    ///
    /// # Errors
    /// The work before it failed.
    fn wait(&self, device: i32, event: u64) -> Result<()>;

    /// The last use of an event that this provider made.
    fn destroy(&self, device: i32, event: u64);

    /// The handle with which another process opens the allocation that `place` is in, and where it begins in that.
    ///
    /// # Errors
    /// UNSUPPORTED for memory that cannot be shared.
    fn export(&self, place: Place) -> Result<(Vec<u8>, u64)> {
        let _ = place;
        Err(Error::unsupported("the memory of this device cannot be shared with other processes"))
    }

    /// The address of the allocation that another process has exported.
    ///
    /// # Errors
    /// INVALID_ARG for a handle that is none, or whose allocation is shorter than `byte_size`.
    fn open(&self, device: i32, handle: &[u8], byte_size: usize) -> Result<u64> {
        let _ = (device, handle, byte_size);
        Err(Error::unsupported("the memory of this device cannot be shared with other processes"))
    }

    /// The end of what [`Self::open`] gave, when the event, which is lent, has passed; 0: now.
    fn close(&self, device: i32, address: u64, done_event: u64) {
        let _ = (device, address, done_event);
    }
}

/// What the host is given. Lives until the process ends.
pub(crate) struct Half {
    table: DeviceVtable,
    provider: Arc<dyn DeviceProvider>,
    devices: Vec<DeviceDescription>,
}

impl Half {
    /// The table of a provider; never freed, as the host may use it until the process ends.
    pub(crate) fn leak(provider: Arc<dyn DeviceProvider>) -> Result<&'static DeviceVtable> {
        let devices = fence("devices", || Ok(provider.devices()))?;
        let table = DeviceVtable {
            struct_size: size_of::<DeviceVtable>(),
            context: std::ptr::null_mut(),
            device_count,
            device,
            allocate,
            copy,
            fill,
            event_join,
            event_query,
            event_wait,
            event_destroy,
            ipc_export,
            ipc_open,
        };
        let half = Box::leak(Box::new(Self { table, provider, devices }));
        half.table.context = std::ptr::from_ref::<Self>(half).cast_mut().cast();
        Ok(&half.table)
    }
}

/// # Safety
/// `context` is that of a table of [`Half::leak`].
unsafe fn half(context: *mut c_void) -> &'static Half {
    // SAFETY: by this function's contract; it lives until the process ends and is only read.
    unsafe { &*context.cast::<Half>() }
}

/// What gives memory back.
struct Owner {
    half: &'static Half,
    device: i32,
    address: u64,
    byte_size: usize,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Device,
    Pinned,
    Opened,
}

impl Owner {
    /// Memory that begins `offset` bytes behind the address that is given back.
    fn buffer(self, offset: u64, len: usize) -> Buffer {
        let kind = if matches!(self.what, What::Pinned) { MemoryKind::CPU_PINNED } else { MemoryKind::GPU };
        Buffer {
            data: std::ptr::with_exposed_provenance_mut((self.address + offset) as usize),
            len,
            kind,
            device: self.device,
            ready_event: 0,
            fd: -1,
            reserved: 0,
            fd_offset: 0,
            owner: Box::into_raw(Box::new(self)).cast(),
            release: Some(release),
        }
    }
}

unsafe extern "C" fn release(owner: *mut c_void, done_event: u64) {
    // SAFETY: the box that `Owner::buffer` made, released once.
    let Owner { half, device, address, byte_size, what } = *unsafe { Box::from_raw(owner.cast::<Owner>()) };
    let _ = fence("free", || {
        match what {
            What::Device => half.provider.free(device, address, byte_size, done_event),
            What::Pinned => half.provider.free_pinned(device, address, byte_size, done_event),
            What::Opened => half.provider.close(device, address, done_event),
        }
        Ok(())
    });
}

unsafe extern "C" fn device_count(context: *mut c_void) -> usize {
    // SAFETY: the ABI demands the table's context.
    unsafe { half(context) }.devices.len()
}

unsafe extern "C" fn device(context: *mut c_void, index: usize, out: *mut DeviceInfo) -> Status {
    // SAFETY: the ABI demands the table's context.
    let half = unsafe { half(context) };
    let Some(found) = half.devices.get(index) else {
        return status(Err(Error::invalid(format!("device number {index} is out of range"))));
    };
    // SAFETY: the ABI demands a struct that says how far it reaches.
    unsafe {
        if out.is_null() || (*out).struct_size < size_of::<DeviceInfo>() {
            return status(Err(Error::invalid("the struct for the device is too short")));
        }
        (*out).kind = MemoryKind::GPU;
        (*out).device = found.device;
        (*out).platform = view(&found.platform);
        (*out).name = view(&found.name);
    }
    status(Ok(()))
}

/// Puts what a call gives where the host wants it.
///
/// # Safety
/// `out` may be written or is null.
unsafe fn give<T>(out: *mut T, value: Result<T>) -> Status {
    let written = value.and_then(|value| {
        if out.is_null() {
            return Err(Error::invalid("the pointer for the result is null"));
        }
        // SAFETY: not null, and by this function's contract.
        unsafe { out.write(value) };
        Ok(())
    });
    status(written)
}

unsafe extern "C" fn allocate(
    context: *mut c_void,
    kind: MemoryKind,
    device: i32,
    byte_size: usize,
    out: *mut Buffer,
) -> Status {
    // SAFETY: the ABI demands the table's context.
    let half = unsafe { half(context) };
    let made = fence("allocate", || {
        let what = match kind {
            MemoryKind::GPU => What::Device,
            MemoryKind::CPU_PINNED => What::Pinned,
            other => return Err(Error::unsupported(format!("memory of kind {}", other.0))),
        };
        let address = match what {
            What::Pinned => half.provider.allocate_pinned(device, byte_size)?,
            _ => half.provider.allocate(device, byte_size)?,
        };
        Ok(Owner { half, device, address, byte_size, what }.buffer(0, byte_size))
    });
    // SAFETY: the ABI demands a pointer that can be written.
    unsafe { give(out, made) }
}

/// # Safety
/// `range` is whole or null.
unsafe fn place(range: *const MemoryRange) -> Result<Place> {
    // SAFETY: by this function's contract.
    let range = unsafe { range.as_ref() }.ok_or_else(|| Error::invalid("a range is null"))?;
    let device = (range.kind == MemoryKind::GPU).then_some(range.device);
    Ok(Place { address: range.data.addr() as u64, byte_size: range.len, device })
}

/// # Safety
/// `done` may be written or is null.
unsafe fn asynchronous(done: *mut u64, work: impl FnOnce(bool) -> Result<u64>) -> Status {
    let event = work(done.is_null());
    if done.is_null() {
        return status(event.map(|_| ()));
    }
    // SAFETY: by this function's contract.
    unsafe { give(done, event) }
}

unsafe extern "C" fn copy(
    context: *mut c_void,
    to: *const MemoryRange,
    from: *const MemoryRange,
    after: u64,
    done: *mut u64,
) -> Status {
    // SAFETY: the ABI demands the table's context, whole ranges that may be used so, and a place for the event or null.
    unsafe {
        let half = half(context);
        asynchronous(done, |waits| {
            let (to, from) = (place(to)?, place(from)?);
            if to.byte_size != from.byte_size || (to.device.is_none() && from.device.is_none()) {
                return Err(Error::invalid("a copy needs ranges of one length, one of them on a device"));
            }
            if to.byte_size == 0 {
                return Ok(0);
            }
            fence("copy", || half.provider.copy(to, from, after, waits))
        })
    }
}

unsafe extern "C" fn fill(
    context: *mut c_void,
    to: *const MemoryRange,
    value: u8,
    after: u64,
    done: *mut u64,
) -> Status {
    // SAFETY: as in `copy`.
    unsafe {
        let half = half(context);
        asynchronous(done, |waits| {
            let to = place(to)?;
            if to.device.is_none() {
                return Err(Error::invalid("what is filled is not on a device"));
            }
            if to.byte_size == 0 {
                return Ok(0);
            }
            fence("fill", || half.provider.fill(to, value, after, waits))
        })
    }
}

unsafe extern "C" fn event_join(
    context: *mut c_void,
    device: i32,
    events: *const u64,
    count: usize,
    out: *mut u64,
) -> Status {
    // SAFETY: the ABI demands the table's context, a readable list and a place for the event.
    unsafe {
        let half = half(context);
        let events =
            if events.is_null() || count == 0 { &[] } else { std::slice::from_raw_parts(events, count) };
        give(out, fence("join", || half.provider.join(device, events)))
    }
}

unsafe extern "C" fn event_query(context: *mut c_void, device: i32, event: u64, out: *mut u32) -> Status {
    // SAFETY: the ABI demands the table's context and a place for the answer.
    unsafe {
        let half = half(context);
        give(out, fence("has_passed", || half.provider.has_passed(device, event)).map(u32::from))
    }
}

unsafe extern "C" fn event_wait(context: *mut c_void, device: i32, event: u64) -> Status {
    // SAFETY: the ABI demands the table's context.
    let half = unsafe { half(context) };
    status(fence("wait", || half.provider.wait(device, event)))
}

unsafe extern "C" fn event_destroy(context: *mut c_void, device: i32, event: u64) {
    // SAFETY: the ABI demands the table's context.
    let half = unsafe { half(context) };
    let _ = fence("destroy", || {
        half.provider.destroy(device, event);
        Ok(())
    });
}

unsafe extern "C" fn ipc_export(
    context: *mut c_void,
    range: *const MemoryRange,
    handle: *mut u8,
    capacity: usize,
    out: *mut IpcMemory,
) -> Status {
    // SAFETY: the ABI demands the table's context, a whole range, and places for the handle and for what it is.
    unsafe {
        let half = half(context);
        let exported = fence("export", || {
            let place = place(range)?;
            let (bytes, offset) = half.provider.export(place)?;
            if handle.is_null() || bytes.len() > capacity {
                return Err(Error::invalid(format!(
                    "a handle takes {} bytes, there are {capacity}",
                    bytes.len()
                )));
            }
            handle.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Ok(IpcMemory { handle, handle_len: bytes.len(), offset, byte_size: place.byte_size as u64 })
        });
        give(out, exported)
    }
}

unsafe extern "C" fn ipc_open(
    context: *mut c_void,
    device: i32,
    memory: *const IpcMemory,
    out: *mut Buffer,
) -> Status {
    // SAFETY: the ABI demands the table's context, a whole description whose handle is readable, and a place for the result.
    unsafe {
        let half = half(context);
        let opened = fence("open", || {
            let memory = memory.as_ref().ok_or_else(|| Error::invalid("the memory is null"))?;
            let too_large = || Error::invalid("the range is larger than any memory");
            let end = memory.offset.checked_add(memory.byte_size).ok_or_else(too_large)?;
            let end = usize::try_from(end).map_err(|_| too_large())?;
            if memory.handle.is_null() || memory.byte_size == 0 {
                return Err(Error::invalid("shared memory needs a handle and a length"));
            }
            let handle = std::slice::from_raw_parts(memory.handle, memory.handle_len);
            let address = half.provider.open(device, handle, end)?;
            let len = memory.byte_size as usize;
            Ok(Owner { half, device, address, byte_size: end, what: What::Opened }.buffer(memory.offset, len))
        });
        give(out, opened)
    }
}
