//! The host's half of `openai/1`: calls that are JSON, and answers that are.

use bytes::Bytes;
use trireme_abi::{
    OpenAiAnswer, OpenAiCall, OpenAiModel, OpenAiVtable, RequestHandle, ResponderHandle, ResponseFlags,
    SendVerdict, StrView,
};

use crate::response::Response;
use crate::status::Status;
use crate::vtables::{request, responder, send_checked};
use crate::wire::{read as read_text, view};

/// Endpoints that a model may name; more is a mistake.
const MAX_ENDPOINTS: usize = 64;
/// Bytes of a model's half: what the first version of it has.
const OPENAI_MODEL: usize = std::mem::offset_of!(OpenAiModel, endpoint_count) + size_of::<usize>();
/// Bytes of an answer.
const MAX_BODY: usize = 256 << 20;

/// A call of OpenAI's API. Whoever makes one has checked that the body is UTF-8.
#[derive(Debug, Clone)]
pub struct DocumentCall {
    /// `chat/completions`, …
    pub endpoint: &'static str,
    body: Bytes,
}

impl DocumentCall {
    /// A call; none if the body is not UTF-8.
    pub fn new(endpoint: &'static str, body: Bytes) -> Option<Self> {
        std::str::from_utf8(&body).is_ok().then_some(Self { endpoint, body })
    }

    /// What the client sent.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// An answer to such a call, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// As in HTTP.
    pub status: u16,
    /// A JSON object on one line, or on several.
    pub body: String,
}

impl Document {
    /// Whether it says that the call failed.
    pub fn is_error(&self) -> bool {
        self.status >= 400
    }
}

pub(crate) static OPENAI: OpenAiVtable = OpenAiVtable { struct_size: size_of::<OpenAiVtable>(), read, send };

unsafe extern "C" fn read(handle: *const RequestHandle, out: *mut OpenAiCall) -> bool {
    // SAFETY: the ABI demands a live handle.
    let Some(call) = (unsafe { &request(handle).document }) else { return false };
    if out.is_null() {
        return false;
    }
    let body = StrView { data: call.body.as_ptr(), len: call.body.len() };
    // SAFETY: not null, and the ABI demands a pointer that can be written.
    unsafe { out.write(OpenAiCall { endpoint: view(call.endpoint), body }) };
    true
}

unsafe extern "C" fn send(
    handle: *mut ResponderHandle,
    answer: *const OpenAiAnswer,
    flags: ResponseFlags,
) -> SendVerdict {
    // SAFETY: the ABI demands a live handle, and a whole answer if it is not null.
    let (responder, response) = unsafe { (responder(handle), document(answer)) };
    let response = response.map(|document| Response { document: Some(document), ..Response::default() });
    send_checked(responder, response, flags.0 & ResponseFlags::FINAL.0 != 0)
}

/// # Safety
/// `answer` is whole or null.
unsafe fn document(answer: *const OpenAiAnswer) -> Result<Document, Status> {
    // SAFETY: by this function's contract.
    let Some(answer) = (unsafe { answer.as_ref() }) else {
        return Err(Status::internal("the backend sent a null pointer for an answer"));
    };
    let status = u16::try_from(answer.status).ok().filter(|status| (200..600).contains(status));
    let Some(status) = status else {
        let text = format!("the backend sent an answer with the impossible status {}", answer.status);
        return Err(Status::internal(text));
    };
    if answer.body.len > MAX_BODY {
        let text = format!("the backend sent an answer of {} bytes, at most {MAX_BODY}", answer.body.len);
        return Err(Status::internal(text));
    }
    // SAFETY: by this function's contract.
    Ok(Document { status, body: unsafe { read_text(answer.body) } })
}

/// What a model says it answers.
///
/// # Safety
/// `half` is null, or what a live model gave for the extension.
pub(crate) unsafe fn endpoints(half: *const OpenAiModel) -> Result<Vec<String>, Status> {
    if half.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: by this function's contract; the fields are read only if the struct reaches them.
    unsafe {
        let wrong = |what: &str| Status::internal(format!("the model's half of 'openai/1' {what}"));
        if (*half).struct_size < OPENAI_MODEL {
            return Err(wrong("is too short"));
        }
        let (list, count) = ((*half).endpoints, (*half).endpoint_count);
        if count > MAX_ENDPOINTS || (list.is_null() && count > 0) {
            return Err(wrong("has an impossible list of endpoints"));
        }
        let texts: Vec<StrView> = (0..count).map(|at| *list.add(at)).collect();
        if texts.iter().any(|text| text.len > 256) {
            return Err(wrong("names an endpoint of impossible length"));
        }
        Ok(texts.into_iter().map(|text| read_text(text)).collect())
    }
}
