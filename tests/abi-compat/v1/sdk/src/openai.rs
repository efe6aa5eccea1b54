//! Calls of OpenAI's API (the extension `openai/1`).

use std::ffi::c_void;

use serde_json::json;
use trireme_abi::{OpenAiModel, OpenAiVtable, RequestHandle, StrView};

use crate::error::{Error, ErrorCode};
use crate::wire::{text, view};

/// A call of OpenAI's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenAiCall<'a> {
    /// `chat/completions`, `completions` or `embeddings`: one of those that the model has named.
    pub endpoint: &'a str,
    /// A JSON object.
    pub body: &'a str,
}

impl<'a> OpenAiCall<'a> {
    /// # Safety
    /// `request` is live for `'a`.
    pub(crate) unsafe fn read(table: &OpenAiVtable, request: *const RequestHandle) -> Option<Self> {
        let mut call = trireme_abi::OpenAiCall { endpoint: view(""), body: view("") };
        // SAFETY: by this function's contract; the texts live as long as the request.
        unsafe {
            (table.read)(request, &mut call)
                .then(|| OpenAiCall { endpoint: text(call.endpoint), body: text(call.body) })
        }
    }
}

/// An error in the form in which OpenAI's API has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OpenAiError {
    /// As in HTTP, 400 or above.
    pub status: u16,
    /// `invalid_request_error`, `server_error`, …
    pub kind: &'static str,
    /// A sentence: what is wrong, where, what to do.
    pub message: String,
    /// The field of the request that is wrong: `messages[0].role`.
    pub param: Option<String>,
    /// A word for programs: `context_length_exceeded`.
    pub code: Option<&'static str>,
}

impl OpenAiError {
    /// 400: the caller's fault, in this field.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let kind = "invalid_request_error";
        Self { status: 400, kind, message: message.into(), param: Some(param.into()), code: None }
    }

    /// 500: the backend's fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { status: 500, kind: "server_error", message: message.into(), param: None, code: None }
    }

    /// The same with a word for programs.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(crate) fn to_json(&self) -> String {
        let Self { kind, message, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } }).to_string()
    }
}

impl From<Error> for OpenAiError {
    fn from(error: Error) -> Self {
        let (status, kind) = match error.code {
            ErrorCode::InvalidArg => (400, "invalid_request_error"),
            ErrorCode::NotFound => (404, "invalid_request_error"),
            ErrorCode::Unsupported => (501, "invalid_request_error"),
            ErrorCode::Unavailable => (503, "server_error"),
            ErrorCode::Cancelled => (499, "server_error"),
            ErrorCode::AlreadyExists => (409, "invalid_request_error"),
            ErrorCode::Internal | ErrorCode::Unknown => (500, "server_error"),
        };
        Self { status, kind, message: error.message, param: None, code: None }
    }
}

/// A model's half of the extension, with the memory that it points to.
pub(crate) struct OpenAiHalf {
    table: OpenAiModel,
    _endpoints: Box<[StrView]>,
    _texts: Box<[Box<str>]>,
}

// SAFETY: what it points to is its own, on the heap, and never changed.
unsafe impl Send for OpenAiHalf {}
// SAFETY: as above.
unsafe impl Sync for OpenAiHalf {}

impl OpenAiHalf {
    /// None without endpoints.
    pub(crate) fn of(endpoints: &[&str]) -> Option<Box<Self>> {
        if endpoints.is_empty() {
            return None;
        }
        let texts: Box<[Box<str>]> = endpoints.iter().map(|endpoint| (*endpoint).into()).collect();
        let views: Box<[StrView]> = texts.iter().map(|text| view(text)).collect();
        let table = OpenAiModel {
            struct_size: size_of::<OpenAiModel>(),
            endpoints: views.as_ptr(),
            endpoint_count: views.len(),
        };
        Some(Box::new(Self { table, _endpoints: views, _texts: texts }))
    }

    /// Valid as long as `self`.
    pub(crate) fn table(&self) -> *const c_void {
        std::ptr::from_ref(&self.table).cast()
    }
}
