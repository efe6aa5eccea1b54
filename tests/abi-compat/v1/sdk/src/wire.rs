//! Between wire types and ours.

use std::ffi::c_void;

use trireme_abi::{MemoryKind, OwnedText, Status, StatusCode, StrView};

use crate::error::{Error, ErrorCode, Result};

pub(crate) fn view(text: &str) -> StrView {
    StrView { data: text.as_ptr(), len: text.len() }
}

/// Whether memory of this kind is a process's own to read. A kind that is not known is not touched.
pub(crate) fn readable(kind: MemoryKind) -> bool {
    [MemoryKind::CPU, MemoryKind::CPU_PINNED, MemoryKind::SHARED].contains(&kind)
}

/// # Safety
/// `text` names `len` readable bytes for `'a`, or is null.
pub(crate) unsafe fn text<'a>(text: StrView) -> &'a str {
    if text.data.is_null() || text.len == 0 {
        return "";
    }
    // SAFETY: by this function's contract.
    let bytes = unsafe { std::slice::from_raw_parts(text.data, text.len) };
    // The host promises UTF-8; a text that is not is not worth undefined behaviour.
    std::str::from_utf8(bytes).unwrap_or("")
}

unsafe extern "C" fn release_string(owner: *mut c_void) {
    // SAFETY: the box that `owned_text` made, released once.
    drop(unsafe { Box::from_raw(owner.cast::<String>()) });
}

pub(crate) fn owned_text(text: String) -> OwnedText {
    if text.is_empty() {
        return OwnedText { data: std::ptr::null(), len: 0, owner: std::ptr::null_mut(), release: None };
    }
    let text = Box::new(text);
    let (data, len) = (text.as_ptr(), text.len());
    OwnedText { data, len, owner: Box::into_raw(text).cast(), release: Some(release_string) }
}

pub(crate) fn status(result: Result<()>) -> Status {
    match result {
        Ok(()) => Status { code: StatusCode::OK, reserved: 0, message: owned_text(String::new()) },
        Err(error) => Status { code: error.wire_code(), reserved: 0, message: owned_text(error.message) },
    }
}

/// # Safety
/// `status` was returned by the host and its message has not been released.
pub(crate) unsafe fn check(status: Status) -> Result<()> {
    let message = status.message;
    // SAFETY: by this function's contract.
    let copied = unsafe { text(StrView { data: message.data, len: message.len }) }.to_owned();
    if let Some(release) = message.release {
        // SAFETY: called once, with the owner that came with it.
        unsafe { release(message.owner) };
    }
    if status.code == StatusCode::OK {
        return Ok(());
    }
    let code = ErrorCode::from_wire(status.code);
    Err(Error { code, message: copied })
}
