use crate::{Buffer, MemoryKind, RequestVtablePtr, ResponderVtablePtr, Status, StrView};
use abi_stable::StableAbi;
use core::ffi::c_void;

/// An open enum of log levels, most severe first. A level that the host does not know is taken as VERBOSE.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct LogLevel(pub u32);

impl LogLevel {
    pub const ERROR: Self = Self(1);
    pub const WARN: Self = Self(2);
    pub const INFO: Self = Self(3);
    pub const VERBOSE: Self = Self(4);
}

/// An open enum of metric kinds. One that the host does not know is refused.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetricKind(pub u32);

impl MetricKind {
    pub const COUNTER: Self = Self(0);
    pub const GAUGE: Self = Self(1);
    /// Only in sets of the extension `metrics/1`.
    pub const HISTOGRAM: Self = Self(2);
}

/// A metric that a backend wants to show; lent. `labels` is a list of `label_count` pairs: name, value, name, value …
/// It never grows: what more can be said of a metric is in `metrics/1`.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct MetricDesc {
    /// A Prometheus name.
    pub name: StrView,
    pub help: StrView,
    pub kind: MetricKind,
    /// 0.
    pub reserved: u32,
    pub labels: *const StrView,
    /// Pairs, at most 4096.
    pub label_count: usize,
}

/// Where the value of a metric is kept: the bits of an `f64`, read and written atomically. Lives until the process ends.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct MetricCell(pub *mut u64);

/// What the host offers to a backend. All functions: `[any-thread]`, also from within a call of the backend and from within
/// its callbacks, until the process ends. `context` is always `HostRef::context`.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostVtableRef, prefix_fields = HostVtablePrefix)))]
#[sabi(missing_field(panic))]
pub struct HostVtable {
    pub struct_size: usize,
    pub request: RequestVtablePtr,
    pub responder: ResponderVtablePtr,
    /// Least severe level that is written, a `u32` to be read atomically before a message is formatted.
    pub log_level: unsafe extern "C" fn(context: *const c_void) -> *const u32,
    /// Writes a line. `source` is the module that speaks.
    pub log: unsafe extern "C" fn(context: *const c_void, level: LogLevel, source: StrView, message: StrView),
    /// Registers a metric or finds it again (same name and labels: same cell).
    pub metric:
        unsafe extern "C" fn(context: *const c_void, desc: *const MetricDesc, out: *mut MetricCell) -> Status,
    /// 64-byte aligned memory, every byte zero, that the caller may write to, and releases. UNSUPPORTED for kinds without a
    /// provider.
    pub allocate: unsafe extern "C" fn(
        context: *const c_void,
        kind: MemoryKind,
        device: i32,
        byte_size: usize,
        out: *mut Buffer,
    ) -> Status,
    /// Nanoseconds of the clock that deadlines and marks are given in, `CLOCK_MONOTONIC`.
    pub now_ns: unsafe extern "C" fn(context: *const c_void) -> u64,
    /// The host's half of the extension `id` ("name/REV"), or null: it has none.
    #[sabi(last_prefix_field)]
    pub extension: unsafe extern "C" fn(context: *const c_void, id: StrView) -> *const c_void,
}

/// A pointer to the [`HostVtable`], valid until the process ends.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct HostVtablePtr(#[sabi(unsafe_opaque_field)] pub *const HostVtable);

/// The host as a backend sees it. `context` is the first argument of every function.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct HostRef {
    pub context: *const c_void,
    pub vtable: HostVtablePtr,
}

// SAFETY: an immutable table that lives until the process ends.
unsafe impl Send for HostVtablePtr {}
// SAFETY: as above.
unsafe impl Sync for HostVtablePtr {}
