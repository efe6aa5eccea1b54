use crate::{Buffer, BufferView, DType, MemoryKind, ResponderHandle, Status, StrView};
use abi_stable::StableAbi;

/// A request as the host holds it; opaque to a backend.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct RequestHandle {
    private: [u8; 0],
}

/// One entry of a batch. The backend owns both halves and releases both, in any order and from any thread.
///
/// The inputs live until `request` is released; the right to answer lives as long as `responder`. It lies in arrays, so it
/// never grows: what is new is asked of the handles.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RequestItem {
    pub request: *mut RequestHandle,
    pub responder: *mut ResponderHandle,
}

/// What a backend can know of an input without touching its data. The views live until the request is released.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct InputInfo {
    pub name: StrView,
    pub dtype: DType,
    /// Number of buffers that hold the data, one after the other; at least 1 unless `byte_size` is 0. Each may begin and end
    /// at any byte, also within an element.
    pub buffer_count: u32,
    /// `rank` dimensions, none negative; batch dimension first if the model batches. The product times the element size
    /// equals `byte_size`; for BYTES it is the number of elements that `byte_size` bytes hold.
    pub shape: *const i64,
    pub rank: usize,
    pub byte_size: usize,
}

/// An open enum: which member of [`Parameter`] holds the value; the others are 0 or empty. A backend skips a parameter of a
/// kind that it does not know; a host answers INTERNAL in the place of a response with one.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParameterKind(pub u32);

impl ParameterKind {
    pub const STRING: Self = Self(0);
    pub const INT: Self = Self(1);
    /// `int_value` is 0 or 1.
    pub const BOOL: Self = Self(2);
    pub const DOUBLE: Self = Self(3);
}

/// A named value of a request or of a response.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Parameter {
    pub name: StrView,
    pub kind: ParameterKind,
    /// 0.
    pub reserved: u32,
    pub int_value: i64,
    pub double_value: f64,
    pub string_value: StrView,
}

/// An open enum: points in the life of an execution, for the statistics. One that the host does not know is not counted.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage(pub u32);

impl Stage {
    /// The inputs are gathered, computing starts.
    pub const COMPUTE_START: Self = Self(1);
    /// Computing has ended, the outputs are being made.
    pub const COMPUTE_END: Self = Self(2);
}

/// How a backend reads a request. All functions: `[any-thread & request not released]`; views that they give live until
/// `release`. On an error `out` is not written.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RequestVtableRef, prefix_fields = RequestVtablePrefix)))]
#[sabi(missing_field(panic))]
pub struct RequestVtable {
    pub struct_size: usize,
    /// The id that the client gave, or empty.
    pub id: unsafe extern "C" fn(request: *const RequestHandle) -> StrView,
    pub input_count: unsafe extern "C" fn(request: *const RequestHandle) -> usize,
    /// Inputs are ordered as in the model's configuration; an optional input that is absent is left out.
    /// INVALID_ARG if `index` is out of range.
    pub input:
        unsafe extern "C" fn(request: *const RequestHandle, index: usize, out: *mut InputInfo) -> Status,
    /// Piece `buffer` of input `index`. INVALID_ARG if either is out of range.
    pub input_buffer: unsafe extern "C" fn(
        request: *const RequestHandle,
        index: usize,
        buffer: usize,
        out: *mut BufferView,
    ) -> Status,
    /// The whole input in one buffer of the given kind, 64-byte aligned, not to be written to; copies only if it must. The
    /// caller releases it, maybe after the request. Memory of the process is ready when this returns; memory of a device may
    /// have a `ready_event`. INVALID_ARG if `index` is out of range; UNSUPPORTED for kinds without a provider.
    pub gather: unsafe extern "C" fn(
        request: *const RequestHandle,
        index: usize,
        kind: MemoryKind,
        device: i32,
        out: *mut Buffer,
    ) -> Status,
    pub parameter_count: unsafe extern "C" fn(request: *const RequestHandle) -> usize,
    /// INVALID_ARG if `index` is out of range.
    pub parameter:
        unsafe extern "C" fn(request: *const RequestHandle, index: usize, out: *mut Parameter) -> Status,
    /// Whether the client wants output number `output` (as in the configuration). Unknown numbers are not wanted. An output
    /// that is not wanted may be left out of a response.
    pub output_wanted: unsafe extern "C" fn(request: *const RequestHandle, output: usize) -> bool,
    /// Elements in the batch dimension; 1 if the model does not batch.
    pub batch_size: unsafe extern "C" fn(request: *const RequestHandle) -> u32,
    /// 0 if none was given; smaller is more urgent.
    pub priority: unsafe extern "C" fn(request: *const RequestHandle) -> u64,
    /// When the time of the request is over, by `HostVtable::now_ns`; 0: never. It is then not cancelled by itself: a backend
    /// that looks may give it up (UNAVAILABLE).
    pub deadline_ns: unsafe extern "C" fn(request: *const RequestHandle) -> u64,
    /// 0 if none; see `correlation_text` for textual ids.
    pub correlation_id: unsafe extern "C" fn(request: *const RequestHandle) -> u64,
    /// Empty if the id of the sequence is a number, or there is none.
    pub correlation_text: unsafe extern "C" fn(request: *const RequestHandle) -> StrView,
    /// W3C `traceparent`, or empty.
    pub trace_parent: unsafe extern "C" fn(request: *const RequestHandle) -> StrView,
    /// Once: gives the request back; its views and input memory are gone with it.
    pub release: unsafe extern "C" fn(request: *mut RequestHandle),
    /// As `release`, for inputs on a device that are still being read: their memory is not reused before `done_event`, which
    /// is an event of their device, lent until the call returns. 0 is none. Not for inputs that the CPU reads.
    #[sabi(last_prefix_field)]
    pub release_after: unsafe extern "C" fn(request: *mut RequestHandle, done_event: u64),
}

/// A pointer to the host's [`RequestVtable`], valid until the process ends.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct RequestVtablePtr(#[sabi(unsafe_opaque_field)] pub *const RequestVtable);

// SAFETY: an immutable table that lives until the process ends.
unsafe impl Send for RequestVtablePtr {}
// SAFETY: as above.
unsafe impl Sync for RequestVtablePtr {}
