//! Memory of GPUs as a backend reads and writes it. Addresses are numbers here: what is done with them is the author's.

use trireme_abi::{Buffer, BufferView, DeviceVtable, IpcMemory, MemoryKind, MemoryRange};

use crate::error::{Error, Result};
use crate::response::OwnBuffer;

/// Bytes in the memory of a GPU. They may be touched by work of that GPU which waits for `ready_event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceView {
    /// In that GPU's primary context.
    pub address: u64,
    /// In bytes.
    pub byte_size: usize,
    /// The number of the GPU.
    pub device: i32,
    /// 0, or an event of the GPU after which the bytes are there: a `CUevent` on CUDA. Lives as long as the memory.
    pub ready_event: u64,
}

impl DeviceView {
    pub(crate) fn of_view(view: &BufferView) -> Option<Self> {
        (view.kind == MemoryKind::GPU).then(|| Self {
            address: view.data.addr() as u64,
            byte_size: view.len,
            device: view.device,
            ready_event: view.ready_event,
        })
    }

    fn of_buffer(buffer: &Buffer) -> Option<Self> {
        (buffer.kind == MemoryKind::GPU).then(|| Self {
            address: buffer.data.addr() as u64,
            byte_size: buffer.len,
            device: buffer.device,
            ready_event: buffer.ready_event,
        })
    }
}

/// Memory of the server or of a GPU that this backend holds, to be sent or given back. Dropped, it is given back when its bytes
/// are there.
pub struct Memory(OwnBuffer);

impl Memory {
    /// Memory of a provider of this library: `release` is called once, from any thread, with 0 or an event, lent until it
    /// returns, after which nobody uses the bytes any more.
    ///
    /// # Safety
    /// `view` names memory that lives until `release` is called, and `release` may be called then.
    pub unsafe fn of_device(view: DeviceView, release: impl FnOnce(u64) + Send + 'static) -> Self {
        let buffer = Buffer {
            data: std::ptr::with_exposed_provenance_mut(view.address as usize),
            len: view.byte_size,
            kind: MemoryKind::GPU,
            device: view.device,
            ready_event: view.ready_event,
            ..OwnBuffer::empty()
        };
        Self(released_by(Box::new(release), buffer))
    }

    pub(crate) fn new(buffer: Buffer) -> Self {
        Self(OwnBuffer::new(buffer))
    }

    pub(crate) fn into_buffer(self) -> OwnBuffer {
        self.0
    }

    /// Where it is, if it is on a GPU.
    pub fn on_device(&self) -> Option<DeviceView> {
        self.0.wire().and_then(DeviceView::of_buffer)
    }

    /// In bytes.
    pub fn byte_size(&self) -> usize {
        self.0.wire().map_or(0, |buffer| buffer.len)
    }

    /// The address for work of a GPU, if it is in memory that a GPU reaches: its own, or pinned memory of the process.
    pub fn address(&self) -> Option<u64> {
        let reached = |buffer: &&Buffer| [MemoryKind::GPU, MemoryKind::CPU_PINNED].contains(&buffer.kind);
        self.0.wire().filter(reached).map(|buffer| buffer.data.addr() as u64)
    }

    /// The bytes; none if it is on a GPU.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.on_device().is_none().then(|| self.0.bytes())
    }

    /// The bytes, to be written; none if it is on a GPU.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if self.on_device().is_some() {
            return None;
        }
        Some(self.0.bytes_mut())
    }

    /// Who reads it waits for this event of GPU `device`. For memory of that GPU, and for pinned memory that its work writes.
    /// `unused` is called once, from any thread, when nobody needs the event any more; also after an error.
    ///
    /// # Errors
    /// The memory is neither.
    pub fn ready_after(
        self,
        device: i32,
        event: u64,
        unused: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        let Some(whole) = self.0.wire().filter(|_| self.address().is_some()) else {
            drop(self);
            unused();
            return Err(Error::internal("only memory that a GPU reaches is ready behind an event of it"));
        };
        let (data, len, kind) = (whole.data, whole.len, whole.kind);
        let release: Release = Box::new(move |done_event| {
            self.0.release(done_event);
            unused();
        });
        Ok(Self(released_by(
            release,
            Buffer { data, len, kind, device, ready_event: event, ..OwnBuffer::empty() },
        )))
    }

    /// For who has to tell somebody else: `call` is called once, from any thread, after the buffer was given back. It is given
    /// the event after which nobody uses the bytes any more, or 0 if nobody does already. The event is lent until `call`
    /// returns.
    #[must_use]
    pub fn when_released(self, call: impl FnOnce(u64) + Send + 'static) -> Self {
        let whole = self.0.wire().map_or_else(OwnBuffer::empty, |whole| Buffer {
            data: whole.data,
            len: whole.len,
            kind: whole.kind,
            device: whole.device,
            ready_event: whole.ready_event,
            ..OwnBuffer::empty()
        });
        let release: Release = Box::new(move |done_event| {
            self.0.release(done_event);
            call(done_event);
        });
        Self(released_by(release, whole))
    }

    /// Gives it back: the bytes are read until `event`, which is lent until this returns.
    pub fn release_after(self, event: u64) {
        self.0.release(event);
    }
}

type Release = Box<dyn FnOnce(u64) + Send>;

/// A buffer that is given back by a call of `release`.
fn released_by(release: Release, buffer: Buffer) -> OwnBuffer {
    unsafe extern "C" fn call(owner: *mut std::ffi::c_void, done_event: u64) {
        // SAFETY: the box made below, released once.
        let release = unsafe { Box::from_raw(owner.cast::<Release>()) };
        // A panic must not reach the host.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| release(done_event)));
    }
    let owner = Box::into_raw(Box::new(release)).cast();
    OwnBuffer::new(Buffer { owner, release: Some(call), ..buffer })
}

/// What another process needs to open memory of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Of the allocation that the memory is in: 64 bytes on CUDA.
    pub handle: Vec<u8>,
    /// Where the memory begins within the allocation, in bytes.
    pub offset: u64,
}

/// Longest handle of a platform, in bytes.
const MAX_HANDLE: usize = 256;

/// The host's half of `device/1`.
#[derive(Clone, Copy)]
pub(crate) struct HostDevices(pub(crate) &'static DeviceVtable);

impl HostDevices {
    /// Returns when the event has passed.
    pub(crate) fn wait(self, device: i32, event: u64) -> Result<()> {
        // SAFETY: a function of the host's table with its context.
        unsafe { crate::wire::check((self.0.event_wait)(self.0.context, device, event)) }
    }

    pub(crate) fn export(self, view: DeviceView) -> Result<Exported> {
        let range = MemoryRange {
            data: std::ptr::with_exposed_provenance_mut(view.address as usize),
            len: view.byte_size,
            kind: MemoryKind::GPU,
            device: view.device,
        };
        let mut handle = vec![0; MAX_HANDLE];
        let mut out = IpcMemory { handle: std::ptr::null(), handle_len: 0, offset: 0, byte_size: 0 };
        let (export, context) = (self.0.ipc_export, self.0.context);
        // SAFETY: a function of the host's table with its context; the range and the room for the handle live until it returns.
        unsafe {
            crate::wire::check(export(context, &range, handle.as_mut_ptr(), handle.len(), &mut out))?;
        }
        handle.truncate(out.handle_len);
        Ok(Exported { handle, offset: out.offset })
    }

    pub(crate) fn open(self, device: i32, from: &Exported, byte_size: usize) -> Result<Memory> {
        let memory = IpcMemory {
            handle: from.handle.as_ptr(),
            handle_len: from.handle.len(),
            offset: from.offset,
            byte_size: byte_size as u64,
        };
        let mut buffer = OwnBuffer::empty();
        // SAFETY: a function of the host's table with its context; the handle lives until it returns; on OK the buffer is ours.
        unsafe { crate::wire::check((self.0.ipc_open)(self.0.context, device, &memory, &mut buffer))? };
        Ok(Memory::new(buffer))
    }

    pub(crate) fn allocate(self, device: i32, byte_size: usize) -> Result<Memory> {
        let mut buffer = OwnBuffer::empty();
        let kind = MemoryKind::GPU;
        // SAFETY: a function of the host's table with its context; on OK the buffer is ours.
        unsafe {
            crate::wire::check((self.0.allocate)(
                self.0.context,
                kind,
                device,
                byte_size.max(1),
                &mut buffer,
            ))?;
        }
        Ok(Memory::new(buffer))
    }
}

pub(crate) fn no_devices() -> Error {
    Error::unsupported("this server does not know of memory on devices")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn memory_that_is_not_sent_goes_back_behind_its_event() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (on_release, on_unused) = (Arc::clone(&seen), Arc::clone(&seen));
        let view = DeviceView { address: 4096, byte_size: 4, device: 0, ready_event: 7 };
        let note = move |event| on_release.lock().unwrap().push(event);
        // SAFETY: nobody touches the memory.
        let memory = unsafe { Memory::of_device(view, note) };
        drop(memory.ready_after(0, 8, move || on_unused.lock().unwrap().push(u64::MAX)).unwrap());
        assert_eq!(*seen.lock().unwrap(), [8, u64::MAX], "the event is there until the memory is given back");

        let on_unused = Arc::clone(&seen);
        let of_process = Memory::new(OwnBuffer::empty());
        assert!(of_process.ready_after(0, 9, move || on_unused.lock().unwrap().push(9)).is_err());
        assert_eq!(seen.lock().unwrap().last(), Some(&9), "nobody needs the event");
    }
}
