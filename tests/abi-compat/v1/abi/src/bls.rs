//! The extension `bls/1`: a backend asks other models while it answers a request.
//!
//! A call is a message: a JSON text and, beside it, the buffers of its tensors in the order in which the text names
//! them. So it can also go through a pipe. Calls never block; answers come by callback.
//!
//! ```text
//! call    { "model": "m", "version": 3, "id": "x", "waits": false, "parameters": { "k": 1 }, "timeout": 5000,
//!           "sequence": { "id": 7, "start": true, "end": false },
//!           "inputs": [ { "name": "A", "datatype": "FP32", "shape": [1, 4] } ], "outputs": [ "B" ] }
//! answer  { "model": "m", "version": 3, "parameters": { },
//!           "outputs": [ { "name": "B", "datatype": "FP32", "shape": [1, 4] } ] }
//!         { "error": { "code": 3, "message": "..." } }
//! ```
//! Only `model` and `inputs` must be there. `waits` says that the caller keeps its thread until the answer is there; a
//! call that could then never be answered is refused. `timeout` is in microseconds, for the queue of the model, if that
//! lets its callers say so. The `id` of a sequence is a number or a text. `code` is a [`StatusCode`](crate::StatusCode).

use crate::{Buffer, ResponderHandle, Status, StrView};
use abi_stable::StableAbi;
use core::ffi::c_void;

/// The id for [`HostVtable::extension`](crate::HostVtable::extension), which gives a pointer to a [`BlsVtable`].
pub const BLS_1: &str = "bls/1";

/// The right to call on behalf of a request; opaque to a backend.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct CallerHandle {
    private: [u8; 0],
}

/// Where the answers to a call go.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct CallReply {
    pub user: *mut c_void,
    /// `[any-thread]` Takes an answer; the buffers move to the backend, the text and the array live until the function
    /// returns. Maybe from within `call`; never concurrently for one call; it may call the host. After the one with
    /// `is_final` not 0 the host does not use `user` any more.
    pub answer: unsafe extern "C" fn(
        user: *mut c_void,
        message: StrView,
        buffers: *mut Buffer,
        buffer_count: usize,
        is_final: u32,
    ),
}

/// The host's half of `bls/1`. All functions: `[any-thread]`.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct BlsVtable {
    pub struct_size: usize,
    /// The right to call on behalf of the request that `responder` answers: deadline, cancellation and trace are
    /// inherited. Never null. It may be used after the responder is released; a request that is answered can still ask.
    pub open: unsafe extern "C" fn(responder: *const ResponderHandle) -> *mut CallerHandle,
    /// Asks a model: a text of at most 1 MiB, at most 4096 buffers. They move to the host, whatever the result. If it is
    /// OK, `reply` is called at least once, and exactly once as final; it may be before this function returns. Otherwise it
    /// is never called.
    pub call: unsafe extern "C" fn(
        caller: *const CallerHandle,
        message: StrView,
        buffers: *mut Buffer,
        buffer_count: usize,
        reply: CallReply,
    ) -> Status,
    /// The last use of `caller`. Its calls go on.
    pub close: unsafe extern "C" fn(caller: *mut CallerHandle),
}
