use crate::{Buffer, DType, MemoryKind, Parameter, Stage, Status, StatusCode, StrView};
use abi_stable::StableAbi;
use core::ffi::c_void;

/// The right to answer one request; opaque to a backend.
///
/// Released without a response that carries [`ResponseFlags::FINAL`], the host answers INTERNAL in its place.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct ResponderHandle {
    private: [u8; 0],
}

/// An output of a response. `buffer` moves to the host with the call, whatever its result.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct OutputTensor {
    pub name: StrView,
    pub dtype: DType,
    pub reserved: u32,
    pub shape: *const i64,
    pub rank: usize,
    pub buffer: Buffer,
}

/// One answer: outputs, or an error if `code` is not [`StatusCode::OK`].
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Response {
    pub outputs: *mut OutputTensor,
    pub output_count: usize,
    pub parameters: *const Parameter,
    pub parameter_count: usize,
    pub code: StatusCode,
    pub reserved: u32,
    pub message: StrView,
}

/// A bit set.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResponseFlags(pub u32);

impl ResponseFlags {
    pub const NONE: Self = Self(0);
    /// The last response of this request.
    pub const FINAL: Self = Self(1);
}

/// An open enum: what the host says to a response.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendVerdict(pub u32);

impl SendVerdict {
    /// Accepted.
    pub const CONTINUE: Self = Self(0);
    /// Accepted, but the reader is slow: wait for the `on_writable` callback before the next one.
    pub const PAUSE: Self = Self(1);
    /// Accepted, but nobody waits for more: stop computing and send FINAL.
    pub const CANCELLED: Self = Self(2);
    /// Dropped: FINAL has been sent already, or the response was malformed.
    pub const CLOSED: Self = Self(3);
}

/// Called by the host, once, from any thread, when a paused responder may send again or its request is cancelled.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Writable {
    pub call: unsafe extern "C" fn(user: *mut c_void),
    pub user: *mut c_void,
}

/// How a backend answers. All functions: `[any-thread & responder not released]`; calls for one responder are not
/// made concurrently, except `is_cancelled`.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ResponderVtableRef, prefix_fields = ResponderVtablePrefix)))]
#[sabi(missing_field(panic))]
pub struct ResponderVtable {
    pub struct_size: usize,
    /// Memory for an output, made by the host where its consumer wants it (64-byte aligned host memory, the client's
    /// shared memory, or the next step's input). `kind` and `device` say what the backend can write to; the result
    /// may be of kind CPU_PINNED or CPU instead, if its consumer does not read that device. Every byte is to be written
    /// before it is sent, or before the `ready_event` that it is sent with.
    pub allocate: unsafe extern "C" fn(
        responder: *mut ResponderHandle,
        name: StrView,
        byte_size: usize,
        kind: MemoryKind,
        device: i32,
        out: *mut Buffer,
    ) -> Status,
    /// Sends a response. The buffers of its outputs move to the host; texts and shapes are copied.
    pub send: unsafe extern "C" fn(
        responder: *mut ResponderHandle,
        response: *mut Response,
        flags: ResponseFlags,
    ) -> SendVerdict,
    /// Asks for one call of `callback`; at once if the responder is writable already.
    pub on_writable: unsafe extern "C" fn(responder: *mut ResponderHandle, callback: Writable),
    /// Where to look for a cancellation: a `u32` that is 0 until nobody waits for the answer any more. Read it
    /// atomically; valid until the responder is released.
    pub cancelled: unsafe extern "C" fn(responder: *const ResponderHandle) -> *const u32,
    /// Notes the time of a stage for the statistics, in nanoseconds of `CLOCK_MONOTONIC`; 0 means now.
    pub mark: unsafe extern "C" fn(responder: *mut ResponderHandle, stage: Stage, time_ns: u64),
    #[sabi(last_prefix_field)]
    pub release: unsafe extern "C" fn(responder: *mut ResponderHandle),
}

/// A pointer to the host's [`ResponderVtable`], valid until the process ends.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct ResponderVtablePtr(#[sabi(unsafe_opaque_field)] pub *const ResponderVtable);

// SAFETY: an immutable table that lives until the process ends.
unsafe impl Send for ResponderVtablePtr {}
// SAFETY: as above.
unsafe impl Sync for ResponderVtablePtr {}
