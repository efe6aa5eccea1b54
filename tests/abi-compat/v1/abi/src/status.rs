use crate::OwnedText;
use abi_stable::StableAbi;

/// An open enum of result codes. An unknown value is read as [`StatusCode::UNKNOWN`].
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusCode(pub u32);

impl StatusCode {
    pub const OK: Self = Self(0);
    pub const UNKNOWN: Self = Self(1);
    /// The backend's or the server's fault.
    pub const INTERNAL: Self = Self(2);
    pub const NOT_FOUND: Self = Self(3);
    /// The caller's fault.
    pub const INVALID_ARG: Self = Self(4);
    /// Not now: try again later or elsewhere.
    pub const UNAVAILABLE: Self = Self(5);
    /// Whoever was asked cannot do this, now or later.
    pub const UNSUPPORTED: Self = Self(6);
    pub const ALREADY_EXISTS: Self = Self(7);
    /// Nobody waits for it any more.
    pub const CANCELLED: Self = Self(8);
}

/// The result of a call that can fail. `message` is the receiver's to release; it is empty when `code` is
/// [`StatusCode::OK`].
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Status {
    pub code: StatusCode,
    /// 0.
    pub reserved: u32,
    pub message: OwnedText,
}
