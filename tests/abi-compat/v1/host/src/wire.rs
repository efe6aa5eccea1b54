//! Between wire texts and ours.

use std::ffi::c_void;

use trireme_abi::{OwnedText, StrView};

pub(crate) fn view(text: &str) -> StrView {
    StrView { data: text.as_ptr(), len: text.len() }
}

/// # Safety
/// `text` is null or names `len` readable bytes.
pub(crate) unsafe fn read(text: StrView) -> String {
    if text.data.is_null() || text.len == 0 {
        return String::new();
    }
    // SAFETY: by this function's contract.
    let bytes = unsafe { std::slice::from_raw_parts(text.data, text.len) };
    String::from_utf8_lossy(bytes).into_owned()
}

unsafe extern "C" fn release_string(owner: *mut c_void) {
    // SAFETY: `owner` is the box that `owned_text` made; the receiver calls this once.
    drop(unsafe { Box::from_raw(owner.cast::<String>()) });
}

/// Hands a text over; the receiver releases it.
pub(crate) fn owned_text(text: String) -> OwnedText {
    let text = Box::new(text);
    let (data, len) = (text.as_ptr(), text.len());
    OwnedText { data, len, owner: Box::into_raw(text).cast(), release: Some(release_string) }
}

/// # Safety
/// `text` came over the ABI and has not been released.
pub(crate) unsafe fn take_text(text: OwnedText) -> String {
    // SAFETY: by this function's contract the bytes are readable until release.
    let taken = unsafe { read(StrView { data: text.data, len: text.len }) };
    if let Some(release) = text.release {
        // SAFETY: called once, with the owner that came with it.
        unsafe { release(text.owner) };
    }
    taken
}
