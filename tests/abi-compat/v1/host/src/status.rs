use trireme_abi::{OwnedText, StatusCode};

use crate::wire::owned_text;

/// The result of a call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// Whose fault it is.
    pub code: StatusCode,
    /// A sentence.
    pub message: String,
}

impl Status {
    /// The backend broke a rule of the ABI, or failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { code: StatusCode::INTERNAL, message: message.into() }
    }

    /// The caller's fault.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: StatusCode::INVALID_ARG, message: message.into() }
    }

    pub(crate) fn into_wire(self) -> trireme_abi::Status {
        trireme_abi::Status { code: self.code, reserved: 0, message: owned_text(self.message) }
    }

    pub(crate) fn ok() -> trireme_abi::Status {
        let message =
            OwnedText { data: std::ptr::null(), len: 0, owner: std::ptr::null_mut(), release: None };
        trireme_abi::Status { code: StatusCode::OK, reserved: 0, message }
    }

    /// # Safety
    /// `status` was returned by a function of the ABI and its message has not been released.
    pub(crate) unsafe fn check(status: trireme_abi::Status) -> Result<(), Self> {
        // SAFETY: by this function's contract.
        let message = unsafe { crate::wire::take_text(status.message) };
        if status.code == StatusCode::OK {
            return Ok(());
        }
        let message = if message.is_empty() { format!("status code {}", status.code.0) } else { message };
        Err(Self { code: status.code, message })
    }
}
