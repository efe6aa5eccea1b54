use trireme_abi::StatusCode;

/// The result of what a backend does.
pub type Result<T> = std::result::Result<T, Error>;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The backend's.
    Internal,
    /// The named thing does not exist.
    NotFound,
    /// The caller's.
    InvalidArg,
    /// Not now.
    Unavailable,
    /// The backend cannot do this.
    Unsupported,
    /// The caller does not wait any more.
    Cancelled,
    /// The named thing exists already.
    AlreadyExists,
    /// Nobody knows.
    Unknown,
}

/// What a client, or whoever loads a model, is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whose fault it is.
    pub code: ErrorCode,
    /// A sentence: what is wrong, where, what to do.
    pub message: String,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident $code:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self { code: ErrorCode::$code, message: message.into() }
        }
    )*};
}

impl Error {
    constructors! {
        /// The backend's fault.
        internal Internal;
        /// The named thing does not exist.
        not_found NotFound;
        /// The caller's fault.
        invalid InvalidArg;
        /// Not now.
        unavailable Unavailable;
        /// The backend cannot do this.
        unsupported Unsupported;
        /// The caller does not wait any more.
        cancelled Cancelled;
    }

    pub(crate) fn wire_code(&self) -> StatusCode {
        match self.code {
            ErrorCode::Internal => StatusCode::INTERNAL,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::InvalidArg => StatusCode::INVALID_ARG,
            ErrorCode::Unavailable => StatusCode::UNAVAILABLE,
            ErrorCode::Unsupported => StatusCode::UNSUPPORTED,
            ErrorCode::Cancelled => StatusCode::CANCELLED,
            ErrorCode::AlreadyExists => StatusCode::ALREADY_EXISTS,
            ErrorCode::Unknown => StatusCode::UNKNOWN,
        }
    }
}

impl ErrorCode {
    /// What the host calls it.
    pub(crate) fn from_wire(code: StatusCode) -> Self {
        match code {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::INVALID_ARG => Self::InvalidArg,
            StatusCode::UNAVAILABLE => Self::Unavailable,
            StatusCode::UNSUPPORTED => Self::Unsupported,
            StatusCode::CANCELLED => Self::Cancelled,
            StatusCode::ALREADY_EXISTS => Self::AlreadyExists,
            StatusCode::INTERNAL => Self::Internal,
            _ => Self::Unknown,
        }
    }
}
