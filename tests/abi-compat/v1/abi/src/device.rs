//! The extension `device/1`: the memory of devices, and copies to and from it.
//!
//! The server itself knows no device. A backend that does offers this table by
//! [`BackendVtable::extension`](crate::BackendVtable::extension); it is then a *provider*. The host asks once, after
//! `create`; of several providers of one device the first one serves it, until the process ends. The host gives a table of
//! the same kind to every backend ([`HostVtable::extension`](crate::HostVtable::extension)), which passes each call on to
//! the provider of the device, so that who is no provider can wait for events and copy.
//!
//! **Events** are numbers that the platform of the device gives a meaning, 0 is none: a `CUevent` on "cuda". Whoever
//! records work on a device makes one. An event is *lent* wherever it crosses the boundary: one beside memory is valid as
//! long as that memory, one in a call until the call returns. Only those that this table makes are the caller's, to be
//! destroyed by [`DeviceVtable::event_destroy`]. Who sends memory of the host with an event of his own puts a `release` of
//! his own around the host's, and so learns when nobody needs the event any more.
//!
//! On "cuda" all parties use the primary context of the device. No function needs a current context, or changes it.

use crate::{Buffer, MemoryKind, Status, StrView};
use abi_stable::StableAbi;
use core::ffi::c_void;

/// The id for [`BackendVtable::extension`](crate::BackendVtable::extension) and
/// [`HostVtable::extension`](crate::HostVtable::extension), which give a pointer to a [`DeviceVtable`].
pub const DEVICE_1: &str = "device/1";

/// A device. The texts live until the process ends.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct DeviceInfo {
    /// Set by the caller: what it can read.
    pub struct_size: usize,
    /// The kind of its memory: [`MemoryKind::GPU`] in this version.
    pub kind: MemoryKind,
    /// Its number: that of [`Buffer::device`], of `InstanceArgs` and of `instance_group.gpus`.
    pub device: i32,
    /// What addresses and events of it are: "cuda" for CUDA. Who does not know the platform touches neither.
    pub platform: StrView,
    /// What people call it. For logs.
    pub name: StrView,
}

/// Bytes somewhere. Nothing says who owns them.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct MemoryRange {
    pub data: *mut c_void,
    /// In bytes.
    pub len: usize,
    pub kind: MemoryKind,
    /// As [`Buffer::device`].
    pub device: i32,
}

/// Bytes of a device as another process of this machine can open them.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct IpcMemory {
    /// The platform's handle of an allocation: 64 bytes on "cuda", as `cudaIpcGetMemHandle` gives them.
    pub handle: *const u8,
    /// In bytes.
    pub handle_len: usize,
    /// Where the range begins within the allocation, in bytes.
    pub offset: u64,
    pub byte_size: u64,
}

/// Both halves of `device/1`. `context` is the first argument of every function. All functions: `[any-thread]`; the table
/// lives until the process ends, also after its backend is destroyed.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct DeviceVtable {
    pub struct_size: usize,
    pub context: *mut c_void,
    /// How many devices there are. A provider's number does not change.
    pub device_count: unsafe extern "C" fn(context: *mut c_void) -> usize,
    /// Fills `out` as far as its `struct_size` reaches. INVALID_ARG if `index` is out of range.
    pub device: unsafe extern "C" fn(context: *mut c_void, index: usize, out: *mut DeviceInfo) -> Status,
    /// Memory of `device`, or ([`MemoryKind::CPU_PINNED`]) page-locked memory of the process for copies to and from it. It is
    /// aligned to 256 bytes; what is in it is undefined in a provider's answer, and zero in the host's. `byte_size` is at least
    /// 1. UNAVAILABLE if there is not so much.
    ///
    /// Its `release` may be called from any thread and does not give the memory to anybody else before `done_event`.
    pub allocate: unsafe extern "C" fn(
        context: *mut c_void,
        kind: MemoryKind,
        device: i32,
        byte_size: usize,
        out: *mut Buffer,
    ) -> Status,
    /// Copies `from` to `to`, which are of one length and do not overlap: between memory of a device, and between that and
    /// memory of the process of any kind. The copy begins after the event `after`, if that is not 0.
    ///
    /// If `done` is null, the call returns when the bytes are there. Otherwise it may return before, and `done` becomes 0 (they
    /// are there) or an event after which they are; both ranges must live until then. The event is the caller's.
    pub copy: unsafe extern "C" fn(
        context: *mut c_void,
        to: *const MemoryRange,
        from: *const MemoryRange,
        after: u64,
        done: *mut u64,
    ) -> Status,
    /// Sets every byte of `to`, which is memory of a device, to `value`; `after` and `done` as in `copy`.
    pub fill: unsafe extern "C" fn(
        context: *mut c_void,
        to: *const MemoryRange,
        value: u8,
        after: u64,
        done: *mut u64,
    ) -> Status,
    /// `out` becomes one event of `device` that passes after all of `events` have. It is the caller's.
    pub event_join: unsafe extern "C" fn(
        context: *mut c_void,
        device: i32,
        events: *const u64,
        count: usize,
        out: *mut u64,
    ) -> Status,
    /// `out` becomes 1 if the event has passed, otherwise 0. An error if the work before it failed.
    pub event_query:
        unsafe extern "C" fn(context: *mut c_void, device: i32, event: u64, out: *mut u32) -> Status,
    /// Returns when the event has passed. An error if the work before it failed.
    pub event_wait: unsafe extern "C" fn(context: *mut c_void, device: i32, event: u64) -> Status,
    /// The last use of an event that this table made. It may not have passed yet.
    pub event_destroy: unsafe extern "C" fn(context: *mut c_void, device: i32, event: u64),
    /// Lets another process open `range`, which is memory of a device: writes the handle to `handle`, which has room for
    /// `capacity` bytes, and says in `out`, whose `handle` becomes that address, how long it is and where the range begins.
    /// UNSUPPORTED if the memory is of a kind that cannot be shared. The memory must live until the other process has closed it.
    pub ipc_export: unsafe extern "C" fn(
        context: *mut c_void,
        range: *const MemoryRange,
        handle: *mut u8,
        capacity: usize,
        out: *mut IpcMemory,
    ) -> Status,
    /// Opens memory of another process on `device`; the handle is lent. Releasing the buffer closes it. INVALID_ARG if the
    /// handle is none, or the range is not within its allocation.
    pub ipc_open: unsafe extern "C" fn(
        context: *mut c_void,
        device: i32,
        memory: *const IpcMemory,
        out: *mut Buffer,
    ) -> Status,
}

// SAFETY: an immutable table that lives until the process ends; `context` is only handed back to its functions, which may
// be called from any thread.
unsafe impl Send for DeviceVtable {}
// SAFETY: as above.
unsafe impl Sync for DeviceVtable {}
