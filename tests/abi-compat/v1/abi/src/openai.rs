//! The extension `openai/1`: a model answers calls of OpenAI's API, JSON in and JSON out.
//!
//! A call travels like any other request: through the model's queue, in a batch, to `execute` of an instance, counted as
//! one request of batch size 1. It has no inputs; instead [`OpenAiVtable::read`] gives the endpoint and the body. Id,
//! deadline, priority, cancellation, parameters (the headers that the server forwards), pausing and the FINAL flag are
//! those of every request. The host looks at nothing in the body but `model` and `stream`.
//!
//! ```text
//! body    { "model": "m", "messages": [ ... ], "stream": true, ... }
//! answer  status 200, an object of the API: one with FINAL, or chunks, if the body says "stream": true
//!         status 400 and above: { "error": { "message": "...", "type": "...", "param": null, "code": null } }
//! ```
//! What a client sees of a stream (the framing, `[DONE]`) is the host's.

use crate::{RequestHandle, ResponderHandle, ResponseFlags, SendVerdict, StrView};
use abi_stable::StableAbi;

/// The id for [`ModelVtable::extension`](crate::ModelVtable::extension), which gives a pointer to an [`OpenAiModel`], and
/// for [`HostVtable::extension`](crate::HostVtable::extension), which gives one to an [`OpenAiVtable`].
pub const OPENAI_1: &str = "openai/1";

/// A model's half: by having it, a model says that it takes such calls. Valid until the model is unloaded.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct OpenAiModel {
    pub struct_size: usize,
    /// The endpoints that it answers, without the path before them: `chat/completions`, `completions`, `embeddings`.
    /// Calls of others never come. At most 64 of 256 bytes each.
    pub endpoints: *const StrView,
    pub endpoint_count: usize,
}

/// A call; lives until its request is released.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct OpenAiCall {
    /// One of [`OpenAiModel::endpoints`].
    pub endpoint: StrView,
    /// A JSON object, as the client sent it.
    pub body: StrView,
}

/// An answer, or a part of one.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct OpenAiAnswer {
    /// As in HTTP. From 400 on it is an error, and the last answer. A client that reads a stream sees the status of the
    /// first answer only.
    /// 200 to 599.
    pub status: u32,
    /// 0.
    pub reserved: u32,
    /// A JSON object of at most 256 MiB; copied.
    pub body: StrView,
}

/// The host's half of `openai/1`.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct OpenAiVtable {
    pub struct_size: usize,
    /// `[any-thread & request not released]` Whether `request` is such a call; if so, `out` is written.
    pub read: unsafe extern "C" fn(request: *const RequestHandle, out: *mut OpenAiCall) -> bool,
    /// `[any-thread & responder not released]` Sends an answer, as `ResponderVtable::send` does. An end that carries
    /// nothing more, and a failure that has no object, go through that one.
    pub send: unsafe extern "C" fn(
        responder: *mut ResponderHandle,
        answer: *const OpenAiAnswer,
        flags: ResponseFlags,
    ) -> SendVerdict,
}
