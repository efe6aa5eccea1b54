//! Memory that the host takes of a provider, for itself and for backends that ask for it.

use std::ffi::c_void;

use trireme_abi::{Buffer, MemoryKind, MemoryRange};

use super::pool::Part;
use super::{Device, PINNED, TO_DEVICE, find, no_provider};
use crate::memory::{Foreign, HostMemory};
use crate::status::Status;
use std::sync::atomic::Ordering::Relaxed;

/// Memory of a provider: a part of a pool, or an allocation of its own.
pub(crate) struct ProviderMemory {
    pub(super) range: MemoryRange,
    source: Source,
}

enum Source {
    Pool(Part),
    Own(Foreign),
}

// SAFETY: the memory belongs to its holder alone, and may be used from any thread.
unsafe impl Send for ProviderMemory {}
// SAFETY: as above; a shared reference only reads the address.
unsafe impl Sync for ProviderMemory {}

impl ProviderMemory {
    /// Memory of a GPU with anything in it.
    pub(super) fn on(device: &'static Device, len: usize) -> Result<Self, Status> {
        let part = device.pool.take(len).map(Source::Pool);
        let own = || device.provider.allocate(MemoryKind::GPU, device.number, len).map(Source::Own);
        let source = part.map_or_else(own, Ok)?;
        Ok(Self::new(source, len, MemoryKind::GPU, device.number))
    }

    /// Pinned memory of the pool, with anything in it, if there is room and the pool is of the provider of this device.
    pub(super) fn pinned(device: &Device, len: usize) -> Option<Self> {
        let part = PINNED.get().filter(|pool| pool.is_of(device.provider))?.take(len)?;
        Some(Self::new(Source::Pool(part), len, MemoryKind::CPU_PINNED, device.number))
    }

    /// Pinned memory for copies to and from a GPU, with anything in it: of the pool, or else the provider's own.
    pub(super) fn pinned_for(device: i32, len: usize) -> Result<Self, Status> {
        let kind = MemoryKind::CPU_PINNED;
        let found = find(device).ok_or_else(|| no_provider(kind, device))?;
        match Self::pinned(found, len) {
            Some(memory) => Ok(memory),
            None => {
                let own = Source::Own(found.provider.allocate(kind, device, len)?);
                Ok(Self::new(own, len, kind, device))
            }
        }
    }

    fn new(source: Source, len: usize, kind: MemoryKind, device: i32) -> Self {
        let data = match &source {
            Source::Pool(part) => part.data,
            Source::Own(own) => own.wire().data,
        };
        Self { range: MemoryRange { data, len, kind, device }, source }
    }

    /// Fills it with zeros: who forgets to write it shows nobody what was there before.
    fn zeroed(self) -> Result<Self, Status> {
        let MemoryRange { data, len, kind, device } = self.range;
        if kind == MemoryKind::GPU {
            let provider = find(device).ok_or_else(|| no_provider(kind, device))?.provider;
            // SAFETY: ours alone, of this length.
            unsafe { provider.zero(self.range)? };
        } else {
            // SAFETY: memory of the process, ours alone, of this length.
            unsafe { data.cast::<u8>().write_bytes(0, len) };
        }
        Ok(self)
    }

    /// Copies `pieces` here, one after the other; they are as long as this together.
    pub(super) fn fill_from(&self, pieces: &[bytes::Bytes]) -> Result<(), Status> {
        let MemoryRange { data, kind, device, .. } = self.range;
        let mut at = 0;
        for piece in pieces {
            let to = MemoryRange { data: data.wrapping_byte_add(at), len: piece.len(), ..self.range };
            if kind == MemoryKind::GPU {
                let provider = find(device).ok_or_else(|| no_provider(kind, device))?.provider;
                let from = MemoryRange {
                    data: piece.as_ptr().cast_mut().cast(),
                    len: piece.len(),
                    kind: MemoryKind::CPU,
                    device: 0,
                };
                // SAFETY: both are of this length; the memory is ours alone.
                unsafe { provider.copy(to, from, 0)? };
                TO_DEVICE.fetch_add(piece.len() as u64, Relaxed);
            } else {
                // SAFETY: memory of the process, ours alone; the sum of the lengths is its length.
                unsafe { to.data.cast::<u8>().copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
            }
            at += piece.len();
        }
        crate::memory::count_copied(at);
        Ok(())
    }

    pub(super) fn into_buffer(self) -> Buffer {
        let MemoryRange { data, len, kind, device } = self.range;
        let owner = Box::into_raw(Box::new(self)).cast();
        let release = Some(release as unsafe extern "C" fn(*mut c_void, u64));
        Buffer { data, len, kind, device, ready_event: 0, fd: -1, reserved: 0, fd_offset: 0, owner, release }
    }

    fn give_back(self, done_event: u64) {
        match self.source {
            Source::Pool(part) => part.give_back(done_event),
            Source::Own(own) => own.give_back(done_event),
        }
    }
}

unsafe extern "C" fn release(owner: *mut c_void, done_event: u64) {
    // SAFETY: the box that `into_buffer` made; released once.
    let memory = unsafe { Box::from_raw(owner.cast::<ProviderMemory>()) };
    memory.give_back(done_event);
}

/// Zeroed memory for a backend that asks for it.
///
/// # Errors
/// UNSUPPORTED for a kind without a provider; there is not so much.
pub(crate) fn allocate(kind: MemoryKind, device: i32, len: usize) -> Result<Buffer, Status> {
    if kind == MemoryKind::CPU {
        return HostMemory::allocate(len).map(HostMemory::into_buffer);
    }
    if kind == MemoryKind::GPU {
        let found = find(device).ok_or_else(|| no_provider(kind, device))?;
        return Ok(ProviderMemory::on(found, len)?.zeroed()?.into_buffer());
    }
    if kind != MemoryKind::CPU_PINNED {
        return Err(no_provider(kind, device));
    }
    Ok(ProviderMemory::pinned_for(device, len)?.zeroed()?.into_buffer())
}

/// Memory of the process that a device copies to: pinned, or ordinary if the pool has no room.
pub(crate) enum Staging {
    Pinned(ProviderMemory),
    Plain(HostMemory),
}

impl Staging {
    pub(super) fn take(device: &Device, len: usize) -> Result<Self, Status> {
        match ProviderMemory::pinned(device, len) {
            Some(memory) => Ok(Self::Pinned(memory)),
            None => HostMemory::allocate(len).map(Self::Plain),
        }
    }

    pub(super) fn range(&mut self) -> MemoryRange {
        match self {
            Self::Pinned(memory) => memory.range,
            Self::Plain(memory) => memory.range(),
        }
    }
}

impl AsRef<[u8]> for Staging {
    fn as_ref(&self) -> &[u8] {
        match self {
            // SAFETY: memory of the process of this length, which is written before it is shared.
            Self::Pinned(memory) => unsafe {
                std::slice::from_raw_parts(memory.range.data.cast::<u8>(), memory.range.len)
            },
            Self::Plain(memory) => memory.as_ref(),
        }
    }
}
