//! A tensor that stays on its device.

use std::any::Any;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use trireme_abi::{Buffer, BufferView, MemoryKind, MemoryRange};

use super::memory::{ProviderMemory, Staging};
use super::{BETWEEN, Device, TO_DEVICE, TO_HOST, find};
use crate::memory::{Foreign, count_copied};
use crate::status::Status;

/// Bytes in the memory of a GPU. A clone shares them; the last one gives them back, behind the last work that reads them.
#[derive(Clone)]
pub struct DeviceTensor(Arc<Held>);

struct Held {
    /// Taken when it is given back.
    buffer: Option<Foreign>,
    device: &'static Device,
    /// An event after everything that readers have said they still do; ours.
    done: Mutex<Option<u64>>,
    /// The bytes in the memory of the process, once somebody has wanted them.
    host: OnceLock<Result<Bytes, Status>>,
    address: usize,
    len: usize,
}

impl fmt::Debug for DeviceTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x} of GPU {}", self.0.len, self.0.address, self.0.device.number)
    }
}

/// The same memory.
impl PartialEq for DeviceTensor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl DeviceTensor {
    /// # Errors
    /// Nobody serves that device.
    pub(crate) fn new(buffer: Foreign) -> Result<Self, Status> {
        let (kind, number, address, len) = {
            let Buffer { kind, device, data, len, .. } = *buffer.wire();
            (kind, device, data.addr(), len)
        };
        let device = find(number).filter(|_| kind == MemoryKind::GPU).ok_or_else(|| {
            Status::internal(format!(
                "the backend sent memory of kind {} (GPU {number}), for which this server has no device provider",
                kind.0
            ))
        })?;
        let (done, host) = (Mutex::default(), OnceLock::new());
        Ok(Self(Arc::new(Held { buffer: Some(buffer), device, done, host, address, len })))
    }

    /// In bytes.
    pub fn byte_size(&self) -> usize {
        self.0.len
    }

    /// The number of the GPU.
    pub fn device(&self) -> i32 {
        self.0.device.number
    }

    /// A part of it, in bytes; none if it reaches beyond the end. It keeps `keep` for as long as somebody has it.
    pub fn part(&self, offset: usize, len: usize, keep: impl Send + Sync + 'static) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if end > self.0.len || len == 0 {
            return None;
        }
        let whole = self.wire();
        let data = whole.data.wrapping_byte_add(offset);
        let ready_event = whole.ready_event;
        let buffer = Buffer { data, len, ready_event, ..shared(self.clone(), Box::new(keep)) };
        // SAFETY: made above, and owned by nobody else.
        Self::new(unsafe { Foreign::new(buffer) }).ok()
    }

    /// The bytes, in the memory of the process: copied by the first who asks, shared by the others.
    ///
    /// # Errors
    /// The copy failed, or the work that makes the bytes.
    pub fn to_host(&self) -> Result<Bytes, Status> {
        self.0.host.get_or_init(|| self.copy_to_host()).clone()
    }

    fn copy_to_host(&self) -> Result<Bytes, Status> {
        let len = self.0.len;
        let mut staging = Staging::take(self.0.device, len)?;
        let to = staging.range();
        // SAFETY: the tensor keeps its memory, the staging memory is ours alone, and both have this length.
        let copied = unsafe { self.0.device.provider.copy(to, self.range(), self.wire().ready_event) };
        copied.map_err(|status| self.failed("to the memory of the process", status))?;
        TO_HOST.fetch_add(len as u64, Relaxed);
        count_copied(len);
        Ok(Bytes::from_owner(staging))
    }

    /// Copies bytes of the process to a part of it. For memory that others are told of, as that of a client.
    ///
    /// # Errors
    /// The part reaches beyond the end; the copy failed.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), Status> {
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.0.len);
        if end.is_none() {
            return Err(Status::invalid(format!("{} bytes at {offset} of {}", bytes.len(), self.0.len)));
        }
        let whole = self.range();
        let to = MemoryRange { data: whole.data.wrapping_byte_add(offset), len: bytes.len(), ..whole };
        let data = bytes.as_ptr().cast_mut().cast();
        let from = MemoryRange { data, len: bytes.len(), kind: MemoryKind::CPU, device: 0 };
        // SAFETY: the tensor keeps its memory, and the part is within it; both have one length.
        let copied = unsafe { self.0.device.provider.copy(to, from, self.wire().ready_event) };
        copied?;
        TO_DEVICE.fetch_add(bytes.len() as u64, Relaxed);
        count_copied(bytes.len());
        Ok(())
    }

    /// The same bytes on another GPU.
    pub(crate) fn copy_to(&self, number: i32) -> Result<Self, Status> {
        let to = find(number).ok_or_else(|| super::no_provider(MemoryKind::GPU, number))?;
        let memory = ProviderMemory::on(to, self.0.len)?;
        if std::ptr::eq(to.provider.table(), self.0.device.provider.table()) {
            let from = self.range();
            // SAFETY: the tensor keeps its memory, the other is ours alone, and both have this length.
            let copied = unsafe { to.provider.copy(memory.range, from, self.wire().ready_event) };
            copied.map_err(|status| self.failed(&format!("to GPU {number}"), status))?;
            BETWEEN.fetch_add(self.0.len as u64, Relaxed);
            count_copied(self.0.len);
        } else {
            // No provider knows both.
            memory.fill_from(&[self.to_host()?])?;
        }
        // SAFETY: made here, and owned by nobody else.
        Self::new(unsafe { Foreign::new(memory.into_buffer()) })
    }

    fn failed(&self, to: &str, status: Status) -> Status {
        let Held { len, device, .. } = &*self.0;
        let message =
            format!("{len} bytes could not be copied from GPU {} {to}: {}", device.number, status.message);
        Status { code: status.code, message }
    }

    /// Whatever reads the bytes until `event`, which is lent, reads them rightfully; 0 is none.
    pub(crate) fn used_until(&self, event: u64) {
        if event == 0 {
            return;
        }
        let Held { device: Device { number, provider, .. }, done, .. } = &*self.0;
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has not touched the bytes has not waited for them either.
        let before = done.or(self.0.unready());
        let events: Vec<u64> = before.into_iter().chain([event]).collect();
        match provider.join(*number, &events) {
            Ok(joined) => {
                if let Some(earlier) = done.replace(joined) {
                    provider.destroy(*number, earlier);
                }
            }
            // Waited for here: when the call returns the event is gone. An error of it means that nothing runs any more.
            Err(_) => {
                let _ = provider.wait(*number, event);
            }
        }
    }

    fn wire(&self) -> &Buffer {
        match &self.0.buffer {
            Some(buffer) => buffer.wire(),
            None => unreachable!("it is taken in `drop` only"),
        }
    }

    fn range(&self) -> MemoryRange {
        let Buffer { data, len, kind, device, .. } = *self.wire();
        MemoryRange { data, len, kind, device }
    }

    /// For a backend that reads it.
    pub(crate) fn view(&self) -> BufferView {
        let Buffer { data, len, kind, device, ready_event, .. } = *self.wire();
        BufferView { data, len, kind, device, ready_event, fd: -1, reserved: 0, fd_offset: 0 }
    }

    /// A buffer of the same memory.
    pub(crate) fn into_buffer(self) -> Buffer {
        let Buffer { data, len, ready_event, .. } = *self.wire();
        Buffer { data, len, ready_event, ..shared(self, Box::new(())) }
    }
}

/// What a buffer of a tensor keeps; the tensor goes first.
struct Shared(DeviceTensor, #[expect(dead_code, reason = "it is kept")] Box<dyn Any + Send + Sync>);

/// A buffer that keeps a tensor; what it names is to be filled in.
fn shared(tensor: DeviceTensor, keep: Box<dyn Any + Send + Sync>) -> Buffer {
    let device = tensor.device();
    let (kind, owner) = (MemoryKind::GPU, Box::into_raw(Box::new(Shared(tensor, keep))).cast());
    let (data, release) = (std::ptr::null_mut(), Some(release as unsafe extern "C" fn(_, _)));
    Buffer { data, len: 0, kind, device, ready_event: 0, fd: -1, reserved: 0, fd_offset: 0, owner, release }
}

unsafe extern "C" fn release(owner: *mut std::ffi::c_void, done_event: u64) {
    // SAFETY: the box that `shared` made; released once.
    let shared = unsafe { Box::from_raw(owner.cast::<Shared>()) };
    shared.0.used_until(done_event);
}

impl Held {
    /// The event behind which the bytes are there, unless somebody here has waited for it.
    fn unready(&self) -> Option<u64> {
        if matches!(self.host.get(), Some(Ok(_))) {
            return None;
        }
        self.buffer.as_ref().map(|buffer| buffer.wire().ready_event).filter(|event| *event != 0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The work that makes the bytes may still run if nobody wanted them.
        let unready = self.unready();
        let done = self.done.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(buffer) = self.buffer.take() {
            buffer.give_back(done.or(unready).unwrap_or(0));
        }
        if let Some(done) = done {
            self.device.provider.destroy(self.device.number, done);
        }
    }
}
