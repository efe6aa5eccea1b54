use abi_stable::StableAbi;
use core::ffi::c_void;

/// An open enum: what kind of memory a pointer names. Memory of a kind that one does not know is not touched: a host
/// answers INTERNAL in its place, a backend fails the request (UNSUPPORTED); its `release` is called all the same.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct MemoryKind(pub u32);

impl MemoryKind {
    /// Ordinary memory of the process.
    pub const CPU: Self = Self(0);
    /// Page-locked memory of the process.
    pub const CPU_PINNED: Self = Self(1);
    /// Memory of GPU `device`, in that device's primary context.
    pub const GPU: Self = Self(2);
    /// Shared memory: `fd` and `fd_offset` are valid too; `data` is its mapping in this process.
    pub const SHARED: Self = Self(3);
}

/// Owned memory. Holding one tells you: `data .. data + len` stays readable until `release` is called, after
/// `ready_event` (if not 0) has passed on a device. Nothing is said of its alignment. Only memory that an `allocate` gave may
/// be written to, and only until it is handed over: others may read the same bytes.
///
/// Moving a `Buffer` across the boundary moves the duty to release it. Who hands a buffer on may hand on a part of it: `data`
/// and `len` within what was given, all else as it was. `release` may be null: nothing to do. `data` may be null when `len`
/// is 0.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Buffer {
    pub data: *mut c_void,
    /// In bytes.
    pub len: usize,
    pub kind: MemoryKind,
    /// Device number for [`MemoryKind::GPU`]; for [`MemoryKind::CPU_PINNED`] that of its events; otherwise 0.
    pub device: i32,
    /// 0, or an event of the device that the reader waits for (see `DeviceVtable`). Valid until release.
    /// Memory of other kinds has none.
    pub ready_event: u64,
    /// File descriptor for [`MemoryKind::SHARED`], of no meaning (-1) for others. Borrowed: valid until release.
    pub fd: i32,
    /// 0.
    pub reserved: u32,
    /// Where in the file `data` begins, in bytes.
    pub fd_offset: u64,
    /// For `release` only.
    pub owner: *mut c_void,
    /// Gives the memory back: `done_event` is 0 or an event of the device after which the consumer no longer uses it,
    /// so that it is not reused under a running stream. The event is lent until the call returns. `[any-thread]` Called
    /// once; maybe from within the call that handed the buffer over, so no lock may be held there that it needs; also after
    /// the instance and the model that made it are gone.
    pub release: Option<unsafe extern "C" fn(owner: *mut c_void, done_event: u64)>,
}

/// Memory lent to the reader, not to be written: valid until the object that it came from is released. The fields are those
/// of [`Buffer`].
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct BufferView {
    pub data: *const c_void,
    /// In bytes.
    pub len: usize,
    pub kind: MemoryKind,
    pub device: i32,
    /// As in [`Buffer`]; valid as long as the memory.
    pub ready_event: u64,
    pub fd: i32,
    pub reserved: u32,
    pub fd_offset: u64,
}
