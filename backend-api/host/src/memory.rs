use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use trireme_abi::{Buffer, MemoryKind, MemoryRange};

use crate::check;
use crate::device::{self, DeviceTensor};
use crate::status::Status;

/// Alignment of all memory that the host hands out.
pub(crate) const ALIGNMENT: usize = 64;
/// Bytes behind memory that a checked backend gets, and what they hold.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xa5;

static COPIED: AtomicU64 = AtomicU64::new(0);

/// How many bytes of tensors this process has copied on their way between requests, models and answers. What is joined
/// when it arrives, and what a backend copies by itself, is not among them.
pub fn copied_bytes() -> u64 {
    COPIED.load(Relaxed)
}

/// A tensor of so many bytes was copied.
pub fn count_copied(bytes: usize) {
    COPIED.fetch_add(bytes as u64, Relaxed);
}

/// Memory of the host, 64-byte aligned and zero: a backend that forgets to fill it shows nobody what was there before.
pub struct HostMemory {
    data: NonNull<u8>,
    len: usize,
    /// Bytes behind `len` that nobody may write to; there if backends are checked.
    guard: usize,
}

// SAFETY: the memory is owned by this value alone.
unsafe impl Send for HostMemory {}
// SAFETY: a shared reference gives read access only.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// `len` bytes.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn allocate(len: usize) -> Result<Self, Status> {
        let no_memory = || Status::internal(format!("no memory for {len} bytes"));
        let guard = if check::is_on() { GUARD } else { 0 };
        let size = len.max(1).checked_add(guard).ok_or_else(no_memory)?;
        let layout = Layout::from_size_align(size, ALIGNMENT).map_err(|_| no_memory())?;
        // SAFETY: the layout has a size above 0.
        let data = unsafe { alloc_zeroed(layout) };
        let data = NonNull::new(data).ok_or_else(no_memory)?;
        // SAFETY: within the allocation, whose size is at least `len + guard`.
        unsafe { data.as_ptr().add(len).write_bytes(GUARD_BYTE, guard) };
        Ok(Self { data, len, guard })
    }

    /// A copy of `pieces`, one after the other.
    pub(crate) fn copied(pieces: &[Bytes]) -> Result<Self, Status> {
        let len = pieces.iter().map(Bytes::len).sum();
        let memory = Self::allocate(len)?;
        count_copied(len);
        let mut at = 0;
        for piece in pieces {
            // SAFETY: the sum of the lengths is the length of the allocation, which nobody else sees yet.
            unsafe { memory.data.as_ptr().add(at).copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
            at += piece.len();
        }
        Ok(memory)
    }

    /// Where it is.
    pub(crate) fn range(&mut self) -> MemoryRange {
        MemoryRange { data: self.data.as_ptr().cast(), len: self.len, kind: MemoryKind::CPU, device: 0 }
    }

    pub(crate) fn into_buffer(self) -> Buffer {
        let (data, len) = (self.data.as_ptr().cast(), self.len);
        let owner = Box::into_raw(Box::new(self)).cast();
        cpu_buffer(data, len, owner, release_host_memory)
    }
}

impl AsRef<[u8]> for HostMemory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the memory is ours, of this length, and was zero from the start.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        let size = self.len.max(1) + self.guard;
        // SAFETY: made by `alloc_zeroed` with the same layout, which was valid then.
        unsafe { dealloc(self.data.as_ptr(), Layout::from_size_align_unchecked(size, ALIGNMENT)) };
    }
}

/// Whether nobody has written behind memory of the host that was made while backends are checked.
///
/// # Safety
/// `buffer` is such memory, and has not been released.
pub(crate) unsafe fn guard_is_whole(buffer: &Buffer) -> bool {
    // SAFETY: by this function's contract GUARD bytes follow the memory.
    let guard = unsafe { std::slice::from_raw_parts(buffer.data.cast::<u8>().add(buffer.len), GUARD) };
    guard.iter().all(|byte| *byte == GUARD_BYTE)
}

unsafe extern "C" fn release_host_memory(owner: *mut c_void, _done_event: u64) {
    // SAFETY: the box that `into_buffer` made; released once.
    drop(unsafe { Box::from_raw(owner.cast::<HostMemory>()) });
}

unsafe extern "C" fn release_bytes(owner: *mut c_void, _done_event: u64) {
    // SAFETY: the box that `bytes_buffer` made; released once.
    drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
}

/// Received bytes as a buffer, without a copy.
pub(crate) fn bytes_buffer(bytes: Bytes) -> Buffer {
    let (data, len) = (bytes.as_ptr().cast_mut().cast(), bytes.len());
    cpu_buffer(data, len, Box::into_raw(Box::new(bytes)).cast(), release_bytes)
}

fn cpu_buffer(
    data: *mut c_void,
    len: usize,
    owner: *mut c_void,
    release: unsafe extern "C" fn(*mut c_void, u64),
) -> Buffer {
    let (kind, release) = (MemoryKind::CPU, Some(release));
    Buffer { data, len, kind, device: 0, ready_event: 0, fd: -1, reserved: 0, fd_offset: 0, owner, release }
}

/// The bytes of a tensor.
pub(crate) enum Data {
    Host(Bytes),
    Device(DeviceTensor),
}

/// Memory of a backend that the host reads. Dropping it gives it back, behind the work that still makes its bytes.
pub(crate) struct Foreign(Buffer);

// SAFETY: the ABI says that a buffer may be read and released on any thread.
unsafe impl Send for Foreign {}
// SAFETY: it is only read.
unsafe impl Sync for Foreign {}

impl Foreign {
    /// # Safety
    /// `buffer` came over the ABI and has not been released.
    pub(crate) unsafe fn new(buffer: Buffer) -> Self {
        Self(buffer)
    }

    /// What it is.
    pub(crate) fn wire(&self) -> &Buffer {
        &self.0
    }

    /// Gives it back; the event is lent. 0: nobody uses it any more.
    pub(crate) fn give_back(mut self, done_event: u64) {
        self.release(done_event);
    }

    fn release(&mut self, done_event: u64) {
        if let Some(release) = self.0.release.take() {
            // SAFETY: called once, with the owner that came with it.
            unsafe { release(self.0.owner, done_event) };
        }
    }

    /// The bytes in the memory of the process; copied if they are on a device.
    pub(crate) fn into_bytes(self) -> Result<Bytes, Status> {
        match self.into_data()? {
            Data::Host(bytes) => Ok(bytes),
            Data::Device(tensor) => tensor.to_host(),
        }
    }

    /// What is in it, without a copy; memory of the process is ready.
    pub(crate) fn into_data(mut self) -> Result<Data, Status> {
        let Buffer { data, len, kind, .. } = self.0;
        if len == 0 {
            return Ok(Data::Host(Bytes::new()));
        }
        if kind == MemoryKind::GPU && !data.is_null() {
            return DeviceTensor::new(self).map(Data::Device);
        }
        if ![MemoryKind::CPU, MemoryKind::CPU_PINNED, MemoryKind::SHARED, MemoryKind::GPU].contains(&kind) {
            return Err(Status::internal(format!(
                "the backend sent memory of kind {}, for which this server has no device provider",
                kind.0
            )));
        }
        if data.is_null() {
            return Err(Status::internal(format!("the backend sent a null pointer for {len} bytes")));
        }
        if isize::try_from(len).is_err() {
            return Err(Status::internal(format!("the backend sent a buffer of {len} bytes")));
        }
        device::wait_until_ready(&self)?;
        self.0.ready_event = 0;
        Ok(Data::Host(Bytes::from_owner(self)))
    }
}

impl AsRef<[u8]> for Foreign {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the holder of a buffer may read `len` bytes until it is released; `into_data` has looked at the
        // pointer and the kind.
        unsafe { std::slice::from_raw_parts(self.0.data.cast::<u8>(), self.0.len) }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // The event is valid until the release. Nobody has waited for it, so what it stands for may still write.
        self.release(self.0.ready_event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory of one number, which becomes the event that it is given back with.
    fn buffer(number: &mut u64, kind: MemoryKind, ready_event: u64) -> Foreign {
        unsafe extern "C" fn note(owner: *mut c_void, done_event: u64) {
            // SAFETY: the number of the test, which lives longer.
            unsafe { owner.cast::<u64>().write(done_event) };
        }
        let owner = std::ptr::from_mut(number).cast();
        let buffer = cpu_buffer(owner, size_of::<u64>(), owner, note);
        // SAFETY: made here, and released by nobody else.
        unsafe { Foreign::new(Buffer { kind, ready_event, ..buffer }) }
    }

    #[test]
    fn memory_that_nobody_waited_for_goes_back_behind_its_own_event() {
        let mut number = u64::MAX;
        drop(buffer(&mut number, MemoryKind::CPU, 0));
        assert_eq!(number, 0);
        drop(buffer(&mut number, MemoryKind::CPU_PINNED, 7));
        assert_eq!(number, 7);
        buffer(&mut number, MemoryKind::CPU_PINNED, 7).give_back(8);
        assert_eq!(number, 8);
        // Refused: there is no such device here, nobody can wait.
        for kind in [MemoryKind::GPU, MemoryKind::CPU_PINNED, MemoryKind::CPU] {
            number = 0;
            assert!(buffer(&mut number, kind, 9).into_data().is_err(), "{kind:?}");
            assert_eq!(number, 9, "{kind:?}");
        }
    }
}
