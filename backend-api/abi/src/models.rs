//! The extension `models/1`: a backend loads and unloads models of its server, and asks whether one is ready.
//!
//! A load or unload is a message, as a call of `bls/1` is: a JSON text and, beside it, the buffers of the files that the
//! text names, in its order. Neither blocks; the answer comes by callback.
//!
//! ```text
//! load    { "by": "a", "model": "m", "config": "{ ... }", "files": [ "1/model.onnx" ] }
//! unload  { "by": "a", "model": "m", "unload_dependents": false }
//! answer  { }
//!         { "error": { "code": 3, "message": "..." } }
//! ```
//! `by` and `model` must be there. `by` is the model on whose behalf the backend asks: the host lets what is asked for by a
//! model that is being loaded go first, and refuses what could never be done because that load waits for it. `config` is
//! the JSON of a whole configuration, `files` are paths in the model's directory; files need a `config`. `code` is a
//! [`StatusCode`](crate::StatusCode).

use crate::{Buffer, CallReply, Status, StrView};
use abi_stable::StableAbi;
use core::ffi::c_void;

/// The id for [`HostVtable::extension`](crate::HostVtable::extension), which gives a pointer to a [`ModelsVtable`].
pub const MODELS_1: &str = "models/1";

/// The host's half of `models/1`. All functions: `[any-thread]`; `context` is `HostRef::context`.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct ModelsVtable {
    pub struct_size: usize,
    /// Loads a model, or loads it anew: a text of at most 1 MiB, at most 1024 files. The buffers move to the host, whatever the
    /// result. If it is OK, `reply` is called exactly once, as final and without buffers, when the model is ready or the load
    /// has failed; it may be before this function returns. Otherwise it is never called. A host that does not let its models
    /// be changed one by one answers UNAVAILABLE.
    pub load: unsafe extern "C" fn(
        context: *const c_void,
        message: StrView,
        buffers: *mut Buffer,
        buffer_count: usize,
        reply: CallReply,
    ) -> Status,
    /// Unloads a model; `reply` as of `load`, when the model takes no more requests. A model may name itself: it goes when
    /// its requests are answered.
    pub unload: unsafe extern "C" fn(context: *const c_void, message: StrView, reply: CallReply) -> Status,
    /// Whether a version of a model takes requests; of `version` 0 or less, whether any does. Writes 0 or 1 into `ready`
    /// and does not wait. A model that nobody knows is not ready.
    pub ready:
        unsafe extern "C" fn(context: *const c_void, model: StrView, version: i64, ready: *mut u32) -> Status,
}
