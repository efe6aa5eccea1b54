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

/// An output of a response. `buffer` moves to the host with the call, whatever its result; its length is exactly that of
/// shape × type, for BYTES that of the elements. One that is not in the configuration makes the response INTERNAL; one that
/// the client does not want is left out.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct OutputTensor {
    /// At most 4096 bytes.
    pub name: StrView,
    pub dtype: DType,
    /// 0.
    pub reserved: u32,
    /// `rank` dimensions, none negative; batch dimension first if the model batches. Copied.
    pub shape: *const i64,
    /// At most 64.
    pub rank: usize,
    pub buffer: Buffer,
}

/// One answer: outputs, or an error if `code` is not [`StatusCode::OK`]; then it has no outputs that anybody sees, and is
/// the last one. It grows only by a bit of [`ResponseFlags`] that says what follows it.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Response {
    /// May be null when `output_count` is 0.
    pub outputs: *mut OutputTensor,
    /// At most 4096.
    pub output_count: usize,
    /// Copied. May be null when `parameter_count` is 0.
    pub parameters: *const Parameter,
    /// At most 4096.
    pub parameter_count: usize,
    pub code: StatusCode,
    /// 0.
    pub reserved: u32,
    /// What the client is told of an error; copied.
    pub message: StrView,
}

/// A bit set. Bits that the host does not know mean nothing to it.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResponseFlags(pub u32);

impl ResponseFlags {
    pub const NONE: Self = Self(0);
    /// The last response of this request. Of a model that is not decoupled only one response may have outputs.
    pub const FINAL: Self = Self(1);
}

/// An open enum: what the host says to a response. One that the backend does not know is taken as CONTINUE.
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

/// A callback of a backend. It is called exactly once: when a paused responder may send again, when its request is cancelled
/// or, at the latest, when the host forgets the request.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Writable {
    /// `[any-thread]` Maybe from within `on_writable`. It may call the host, for this responder too.
    pub call: unsafe extern "C" fn(user: *mut c_void),
    pub user: *mut c_void,
}

/// How a backend answers. All functions: `[any-thread & responder not released]`; calls for one responder are not
/// made concurrently, except `cancelled`.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ResponderVtableRef, prefix_fields = ResponderVtablePrefix)))]
#[sabi(missing_field(panic))]
pub struct ResponderVtable {
    pub struct_size: usize,
    /// Memory for an output, made by the host where its consumer wants it (64-byte aligned host memory, the client's
    /// shared memory, or the next step's input). `kind` and `device` say what the backend can write to; the result
    /// may be of kind CPU_PINNED or CPU instead, if its consumer does not read that device: look at the buffer. Every byte is
    /// to be written before it is sent, or before the `ready_event` that it is sent with. A buffer that is not sent is released
    /// by the caller.
    pub allocate: unsafe extern "C" fn(
        responder: *mut ResponderHandle,
        name: StrView,
        byte_size: usize,
        kind: MemoryKind,
        device: i32,
        out: *mut Buffer,
    ) -> Status,
    /// Sends a response. The buffers of its outputs move to the host; texts and shapes are copied. A null pointer is a
    /// response without outputs, as for a FINAL that ends a stream.
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
    /// Once, the last use: `cancelled`'s address is gone too. Without FINAL or an error before it, the host answers INTERNAL.
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
