//! Memory with two faces. At its address nobody may read or write, so a touch by the CPU ends the process; the "hardware"
//! of this crate uses a second mapping of the same pages, which nobody else knows.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use trireme_sdk::{Error, Result};

/// Bytes of the handle of an allocation: as many as those of CUDA.
const HANDLE: usize = 64;

/// An allocation.
pub(crate) struct Pages {
    /// What others know; nothing may touch it.
    address: *mut c_void,
    hidden: *mut c_void,
    len: usize,
    file: OwnedFd,
    /// Whether other processes can open it: not what was opened from one of them, as with CUDA, and not what was made so.
    has_handle: bool,
}

// SAFETY: plain mappings, which any thread may use.
unsafe impl Send for Pages {}

fn no_memory(error: rustix::io::Errno) -> Error {
    Error::unavailable(format!("no memory for the device: {error}"))
}

impl Pages {
    fn new(len: usize) -> Result<Self> {
        let file = rustix::fs::memfd_create("guarded", MemfdFlags::CLOEXEC).map_err(no_memory)?;
        rustix::fs::ftruncate(&file, len as u64).map_err(no_memory)?;
        Self::of(file, len, true)
    }

    fn of(file: OwnedFd, len: usize, has_handle: bool) -> Result<Self> {
        let flags = MapFlags::SHARED;
        // SAFETY: new mappings, at addresses that the kernel chooses.
        unsafe {
            let address = mmap(null_mut(), len, ProtFlags::empty(), flags, &file, 0).map_err(no_memory)?;
            let hidden = mmap(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, &file, 0);
            match hidden {
                Ok(hidden) => Ok(Self { address, hidden, len, file, has_handle }),
                Err(error) => {
                    let _ = munmap(address, len);
                    Err(no_memory(error))
                }
            }
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, of this length; nothing uses it any more, as its allocation is gone from the table.
        unsafe {
            let _ = munmap(self.address, self.len);
            let _ = munmap(self.hidden, self.len);
        }
    }
}

/// The allocations of all devices, by address.
#[derive(Default)]
pub(crate) struct Table {
    pages: BTreeMap<u64, Pages>,
    pinned: BTreeMap<u64, usize>,
}

impl Table {
    /// Memory of a device; zeros, as this kernel gives it.
    pub(crate) fn allocate(&mut self, len: usize) -> Result<u64> {
        let len = len.next_multiple_of(4096);
        Ok(self.add(Pages::new(len)?))
    }

    fn add(&mut self, pages: Pages) -> u64 {
        let address = pages.address.addr() as u64;
        self.pages.insert(address, pages);
        address
    }

    pub(crate) fn free(&mut self, address: u64) -> bool {
        self.pages.remove(&address).is_some()
    }

    /// How many bytes of devices there are.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.values().map(|pages| pages.len).sum()
    }

    /// Where the hardware finds a range of a device: whole within one allocation, or it is nowhere.
    pub(crate) fn hidden(&self, address: u64, len: usize) -> Result<*mut u8> {
        let found = self.pages.range(..=address).next_back();
        let offset = |(at, pages): (&u64, &Pages)| {
            let offset = usize::try_from(address - at).ok()?;
            (offset.checked_add(len)? <= pages.len).then(|| pages.hidden.wrapping_byte_add(offset).cast())
        };
        found.and_then(offset).ok_or_else(|| {
            Error::internal(format!(
                "{len} bytes at {address:#x} are not memory of the device: an illegal access"
            ))
        })
    }

    pub(crate) fn allocate_pinned(&mut self, len: usize) -> Result<u64> {
        let len = len.next_multiple_of(4096);
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let address = unsafe { mmap_anonymous(null_mut(), len, protection, flags) }.map_err(no_memory)?;
        self.pinned.insert(address.expose_provenance() as u64, len);
        Ok(address.addr() as u64)
    }

    pub(crate) fn free_pinned(&mut self, address: u64) -> bool {
        let Some(len) = self.pinned.remove(&address) else { return false };
        // SAFETY: mapped by `allocate_pinned`, of this length, and gone from the table.
        let _ = unsafe { munmap(std::ptr::with_exposed_provenance_mut(address as usize), len) };
        true
    }

    /// The handle of the allocation that a range is in, and where the range begins in it.
    pub(crate) fn export(&self, address: u64, len: usize) -> Result<(Vec<u8>, u64)> {
        self.hidden(address, len)?;
        let Some((at, pages)) = self.pages.range(..=address).next_back() else {
            return Err(Error::internal("no such memory"));
        };
        if !pages.has_handle {
            return Err(Error::invalid(format!(
                "the memory at {address:#x} has no handle for other processes"
            )));
        }
        let mut handle = vec![0; HANDLE];
        handle[..4].copy_from_slice(&std::process::id().to_le_bytes());
        handle[4..8].copy_from_slice(&pages.file.as_raw_fd().to_le_bytes());
        Ok((handle, address - at))
    }

    /// From now on this allocation has no handle, as that of an allocator whose memory cannot be shared.
    pub(crate) fn withhold(&mut self, address: u64) {
        if let Some(pages) = self.pages.get_mut(&address) {
            pages.has_handle = false;
        }
    }

    /// The memory behind a handle: at least so long.
    pub(crate) fn open(&mut self, handle: &[u8], len: usize) -> Result<u64> {
        let wrong = |why: String| Error::invalid(format!("the handle is none of this device: {why}"));
        let number = |at: usize| handle.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let (Some(process), Some(file), HANDLE) = (number(0), number(4), handle.len()) else {
            return Err(wrong(format!("it has {} bytes, not {HANDLE}", handle.len())));
        };
        let path = format!("/proc/{process}/fd/{file}");
        let name = std::fs::read_link(&path).map_err(|error| wrong(error.to_string()))?;
        if !name.to_string_lossy().starts_with("/memfd:guarded") {
            return Err(wrong("it names another file".to_owned()));
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| wrong(error.to_string()))?;
        let there = rustix::fs::fstat(&file).map_err(|error| wrong(error.to_string()))?.st_size;
        let there = usize::try_from(there).unwrap_or(0);
        if there < len {
            return Err(Error::invalid(format!("the allocation has {there} bytes, wanted are {len}")));
        }
        Ok(self.add(Pages::of(file, there, false)?))
    }
}
