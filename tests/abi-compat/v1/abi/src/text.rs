use abi_stable::StableAbi;
use core::ffi::c_void;

/// A borrowed text: UTF-8, not terminated, valid for the call that it is handed to unless stated otherwise.
///
/// `data` may be null when `len` is 0. Paths are texts too: what is not UTF-8 cannot be named.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct StrView {
    pub data: *const u8,
    /// In bytes.
    pub len: usize,
}

/// An owned text, UTF-8. The receiver calls `release(owner)` exactly once when `release` is not null.
///
/// Whoever made the memory frees it: the two sides may have different allocators. `release`: `[any-thread]`.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct OwnedText {
    pub data: *const u8,
    /// In bytes.
    pub len: usize,
    pub owner: *mut c_void,
    pub release: Option<unsafe extern "C" fn(owner: *mut c_void)>,
}
