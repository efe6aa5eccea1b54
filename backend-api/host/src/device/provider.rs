//! A backend's half of `device/1`, as values.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use trireme_abi::{Buffer, DeviceInfo, DeviceVtable, IpcMemory, MemoryKind, MemoryRange, StrView};

use crate::memory::Foreign;
use crate::status::Status;
use crate::wire::read;

/// Devices of one provider; more is a mistake.
const MAX_DEVICES: usize = 1024;
/// Of memory that it allocates.
const ALIGNMENT: usize = 256;
/// Bytes of a handle that another process opens.
const MAX_HANDLE: usize = 4096;

/// A backend that serves devices.
#[derive(Clone, Copy)]
pub(super) struct Provider(&'static DeviceVtable);

/// What a provider says of a device.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) kind: MemoryKind,
    pub(super) device: i32,
    pub(super) platform: String,
    pub(super) name: String,
}

impl Provider {
    /// # Safety
    /// `table` is what a backend gave for `device/1`.
    ///
    /// # Errors
    /// It is too short.
    pub(super) unsafe fn new(table: *const DeviceVtable) -> Result<Self, Status> {
        // SAFETY: by this function's contract it begins with its size, and lives until the process ends.
        let size = unsafe { table.cast::<usize>().read() };
        if size < size_of::<DeviceVtable>() {
            let needed = size_of::<DeviceVtable>();
            return Err(Status::internal(format!(
                "its table takes {size} bytes, at least {needed} are needed"
            )));
        }
        // SAFETY: as above; the size was looked at.
        Ok(Self(unsafe { &*table }))
    }

    pub(super) fn devices(self) -> Result<Vec<Description>, Status> {
        // SAFETY: a function of the table with its context.
        let count = unsafe { (self.0.device_count)(self.0.context) };
        if count > MAX_DEVICES {
            return Err(Status::internal(format!("{count} devices; at most {MAX_DEVICES} are allowed")));
        }
        let one = |index| {
            let empty = StrView { data: null(), len: 0 };
            let mut info = DeviceInfo {
                struct_size: size_of::<DeviceInfo>(),
                kind: MemoryKind::GPU,
                device: 0,
                platform: empty,
                name: empty,
            };
            // SAFETY: the struct says how far it reaches; texts live until the process ends.
            unsafe {
                Status::check((self.0.device)(self.0.context, index, &mut info))?;
                let (platform, name) = (read(info.platform), read(info.name));
                Ok(Description { kind: info.kind, device: info.device, platform, name })
            }
        };
        (0..count).map(one).collect()
    }

    /// Memory with anything in it.
    pub(super) fn allocate(self, kind: MemoryKind, device: i32, len: usize) -> Result<Foreign, Status> {
        let mut buffer = empty();
        // SAFETY: a function of the table; on OK the buffer is ours.
        let buffer = unsafe {
            Status::check((self.0.allocate)(self.0.context, kind, device, len.max(1), &mut buffer))?;
            Foreign::new(buffer)
        };
        let is = buffer.wire();
        if is.kind != kind
            || is.len < len
            || is.data.is_null()
            || !is.data.addr().is_multiple_of(ALIGNMENT)
            || is.device != device
        {
            return Err(Status::internal(format!(
                "the provider of GPU {device} was asked for {len} bytes of kind {} and gave {} bytes of kind {} (device {}) at {:?}; \
                 memory is of what was asked for, and aligned to {ALIGNMENT} bytes",
                kind.0, is.len, is.kind.0, is.device, is.data
            )));
        }
        if is.ready_event != 0 {
            self.wait(device, is.ready_event)?;
        }
        Ok(buffer)
    }

    /// Copies and waits until the bytes are there.
    ///
    /// # Safety
    /// `from` may be read and `to` written, both `len` bytes long; they do not overlap.
    pub(super) unsafe fn copy(self, to: MemoryRange, from: MemoryRange, after: u64) -> Result<(), Status> {
        // SAFETY: by this function's contract; with null for the event it returns when all is done.
        unsafe { Status::check((self.0.copy)(self.0.context, &to, &from, after, null_mut())) }
    }

    /// Fills memory of a device with zeros, and waits.
    ///
    /// # Safety
    /// `to` may be written.
    pub(super) unsafe fn zero(self, to: MemoryRange) -> Result<(), Status> {
        // SAFETY: by this function's contract; with null for the event it returns when all is done.
        unsafe { Status::check((self.0.fill)(self.0.context, &to, 0, 0, null_mut())) }
    }

    /// One event for several; to be destroyed.
    pub(super) fn join(self, device: i32, events: &[u64]) -> Result<u64, Status> {
        let mut joined = 0;
        // SAFETY: the list lives until the call returns.
        unsafe {
            let context = self.0.context;
            let list = events.as_ptr();
            Status::check((self.0.event_join)(context, device, list, events.len(), &mut joined))?;
        }
        Ok(joined)
    }

    /// Whether the event has passed; also if what it waited for has failed.
    pub(super) fn has_passed(self, device: i32, event: u64) -> bool {
        let mut passed = 0;
        // SAFETY: a function of the table.
        let asked =
            unsafe { Status::check((self.0.event_query)(self.0.context, device, event, &mut passed)) };
        asked.is_err() || passed != 0
    }

    pub(super) fn wait(self, device: i32, event: u64) -> Result<(), Status> {
        // SAFETY: a function of the table.
        unsafe { Status::check((self.0.event_wait)(self.0.context, device, event)) }
    }

    /// Of an event that [`Self::join`] made; the last use.
    pub(super) fn destroy(self, device: i32, event: u64) {
        // SAFETY: a function of the table.
        unsafe { (self.0.event_destroy)(self.0.context, device, event) };
    }

    /// Memory of another process.
    pub(super) fn open(self, device: i32, handle: &[u8], offset: u64, len: u64) -> Result<Foreign, Status> {
        if handle.len() > MAX_HANDLE {
            return Err(Status::invalid(format!("a handle of {} bytes", handle.len())));
        }
        let memory = IpcMemory { handle: handle.as_ptr(), handle_len: handle.len(), offset, byte_size: len };
        let mut buffer = empty();
        // SAFETY: the handle lives until the call returns; on OK the buffer is ours.
        let buffer = unsafe {
            Status::check((self.0.ipc_open)(self.0.context, device, &memory, &mut buffer))?;
            Foreign::new(buffer)
        };
        let is = buffer.wire();
        if is.kind != MemoryKind::GPU || is.device != device || is.len as u64 != len || is.data.is_null() {
            return Err(Status::internal(format!("the provider of GPU {device} opened something else")));
        }
        Ok(buffer)
    }

    /// Whether both are one.
    pub(super) fn is(self, other: Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }

    /// The table, for the host's own half.
    pub(super) fn table(self) -> &'static DeviceVtable {
        self.0
    }
}

fn empty() -> Buffer {
    Buffer {
        data: null_mut::<c_void>(),
        len: 0,
        kind: MemoryKind::CPU,
        device: 0,
        ready_event: 0,
        fd: -1,
        reserved: 0,
        fd_offset: 0,
        owner: null_mut(),
        release: None,
    }
}
